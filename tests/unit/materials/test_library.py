"""Materials: spectra at any scene's bands that show what spectroscopists know of them."""

import numpy as np
import pytest

from special_steps.core.errors import UserError
from special_steps.io.spectral_library import read_library
from special_steps.materials.library import (
    MATERIALS,
    MEASURED,
    MOST,
    at_bands,
    covered,
    material_spectra,
    own_spectra,
)

NM = np.r_[400.0:1351:10, 1460:1791:10, 1960:2451:10]  # the library's own


@pytest.fixture(scope="module")
def spectra():
    return material_spectra(MATERIALS, NM, None)


def at(spectra, nm):
    return spectra[:, np.searchsorted(NM, nm)]


def test_all_are_reflectances(spectra):
    assert list(spectra) == list(MATERIALS) and len(MATERIALS) == 34
    for name, members in spectra.items():
        assert members.dtype == np.float32 and members.shape[1] == len(NM), name
        assert 0 < len(members) <= MOST, name
        assert np.isfinite(members).all() and members.min() >= 0 and members.max() <= 1.5, name
        assert (members.max(1) > 0.001).all(), name


def test_measured_ones_are_of_the_evidence_part_alone(spectra):
    drawn = {s.tobytes() for s in read_library("simulation")[1]}
    known = {s.tobytes() for s in read_library("evidence")[1]}
    for name in MEASURED:
        members = {s.tobytes() for s in spectra[name]}
        assert members <= known and not members & drawn, name


def test_green_plants_have_chlorophylls_red_edge_and_a_green_peak(spectra):
    for name in ("tree_canopy", "grass_canopy", "crop_canopy"):
        members = spectra[name]
        assert (at(members, 780) > 1.8 * at(members, 670)).all(), name
        assert (at(members, 550) > at(members, 670)).mean() > 0.85, name
        steepest = NM[np.diff(members[:, NM < 1000], axis=1).argmax(1)]
        assert (abs(steepest - 715) <= 20).mean() > 0.9, name
        assert (at(members, 1660) > at(members, 1480)).all(), name  # water in leaves
    for name in ("sand", "road", "snow", "tile"):
        assert not (at(spectra[name], 780) > 1.8 * at(spectra[name], 670)).any(), name


def test_trees_are_darker_in_the_near_infrared_than_grass_and_crops(spectra):
    tree, grass, crop = (
        np.median(at(spectra[f"{n}_canopy"], 860)) for n in ("tree", "grass", "crop")
    )
    assert tree < 0.85 * grass and tree < 0.85 * crop
    # dry matter and shade: in the short-wave infrared even more
    swir = [np.median(at(spectra[f"{n}_canopy"], 1660)) for n in ("tree", "grass", "crop")]
    assert swir[0] < 0.75 * min(swir[1:])


def test_dry_plants_have_lost_the_red_edge_and_sparse_ones_lie_between(spectra):
    def index(name):  # NDVI
        red, infrared = at(spectra[name], 670), at(spectra[name], 860)
        return np.median((infrared - red) / (infrared + red))

    assert index("soil") < index("dry_vegetation") < index("sparse_vegetation")
    assert index("sparse_vegetation") < index("grass_canopy") - 0.1
    # cellulose's band near 2100 nm: below the line from 2030 to 2210 nm (Nagler et al. 2000)
    straw = spectra["litter"]
    depth = (at(straw, 2030) + at(straw, 2210)) / 2 - at(straw, 2100)
    assert np.median(depth) > 0


def test_waters_are_dark_in_the_infrared(spectra):
    for name in ("clear_water", "turbid_water", "algal_water"):
        # (more than some 500 g/m3 of sediment are brighter at 860 nm: Doxaran et al. 2002)
        assert (at(spectra[name], 560) > at(spectra[name], 860)).mean() > 0.8, name
        assert (at(spectra[name], 560) > at(spectra[name], 1000)).all(), name
        assert spectra[name][:, NM > 1460].max() < 0.1, name
    turbid, clear, algal = (spectra[f"{n}_water"] for n in ("turbid", "clear", "algal"))
    assert np.median(at(turbid, 700)) > 1.5 * np.median(at(clear, 700))
    assert (
        np.median(at(algal, 700) - at(algal, 670)) > 0 > np.median(at(clear, 700) - at(clear, 670))
    )


def test_snow_and_ice(spectra):
    for name in ("snow", "ice"):
        assert (at(spectra[name], 1500) < 0.15).all() and (at(spectra[name], 2010) < 0.15).all()
        assert (at(spectra[name], 560) > 3 * at(spectra[name], 1500)).all(), name
    assert np.median(at(spectra["snow"], 860)) > 0.7 > np.median(at(spectra["ice"], 860))


def test_wet_soil_and_mud_are_darker_than_dry_soil(spectra):
    dry, wet, mud = (np.median(spectra[n], 0) for n in ("soil", "wet_soil", "mud"))
    assert (wet < dry).all() and (mud < wet)[NM > 1000].all()
    drop = [
        np.median(at(spectra[n], 1990) / at(spectra[n], 1660)) for n in ("soil", "wet_soil", "mud")
    ]
    assert drop[0] > drop[1] > drop[2]


def test_shadow_is_darker_and_bluer_than_what_is_lit(spectra):
    assert np.median(at(spectra["shadow"], 860)) < 0.1
    assert np.median(at(spectra["shadow"], 450) / at(spectra["shadow"], 650)) > 1.3 * np.median(
        at(spectra["road"], 450) / at(spectra["road"], 650)
    )


def test_bands_outside_the_library_are_nan_in_all_materials():
    nm = np.array([380.0, 400, 560, 1350, 1400, 1460, 1900, 2450, 2500])
    for members in material_spectra(MATERIALS, nm, np.full(len(nm), 12.0)).values():
        known = np.isfinite(members)
        assert (known == [0, 1, 1, 1, 0, 1, 0, 1, 0]).all()


def test_broad_bands_are_means_and_narrow_ones_values():
    known = np.arange(400.0, 1001)
    step = (known >= 700).astype(float)[None]
    nm, fwhm = np.array([650.0, 680, 700, 720]), np.array([80.0, 80, 80, np.nan])
    made = at_bands(known, step, nm, fwhm)[0]
    assert 0.06 < made[0] < 0.08 and 0.2 < made[1] < 0.35  # Gaussian: 1.47 and 0.59 deviations off
    assert made[2] == pytest.approx(0.5, abs=0.01) and made[3] == 1
    assert (at_bands(known, step, nm, None)[0] == [0, 0, 1, 1]).all()
    line = 0.1 + 0.001 * (known - 400)  # a band's width does nothing to a straight line
    assert np.allclose(at_bands(known, line[None], nm, fwhm)[0], 0.1 + 0.001 * (nm - 400))
    coarse = at_bands(known[::50], step[:, ::50], nm, fwhm)[0]  # sampled as coarsely as the band
    assert np.allclose(coarse, np.interp(nm, known[::50], step[0, ::50]))


def test_gaps_are_not_covered():
    known = np.r_[400.0:601:10, 700:901:10]
    asked = np.array([399.0, 400, 600, 601, 650, 700, 900, 901])
    assert (covered(known, asked) == [0, 1, 1, 0, 0, 1, 1, 0]).all()


def test_an_unknown_material_is_named():
    with pytest.raises(UserError, match="material 'lava'; there are: asphalt, "):
        material_spectra(["soil", "lava"], NM, None)


def test_own_spectra_stand_beside_the_librarys(tmp_path):
    path = tmp_path / "mine.csv"
    fine = np.arange(402.0, 2500)  # begins 2 nm late: that is near enough
    path.write_text("\n".join(f"{w},{0.1 + w / 1e4:.6f}" for w in fine))
    nm = np.array([390.0, 400, 650, 1400, 2200])
    made = own_spectra(path, nm, np.full(5, 10.0))
    assert made.shape == (1, 5) and made.dtype == np.float32
    assert np.allclose(made, [[np.nan, 0.14, 0.165, np.nan, 0.32]], atol=1e-3, equal_nan=True)


def test_own_spectra_that_do_not_cover_the_scene_are_named(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("\n".join(f"{w},0.2" for w in range(400, 1001, 5)))
    nm = np.arange(450.0, 2401, 50)
    message = r"mine\.csv: .*400 to 1000 nm.* lack 22 .*1050 to 2400 nm; .*bad_ranges"
    with pytest.raises(UserError, match=message):
        own_spectra(path, nm, None)
    assert np.isfinite(own_spectra(path, nm[nm <= 1000], None)).all()
