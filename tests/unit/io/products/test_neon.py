"""NEON AOP files of all layouts: values, bands, georeference, quality layers, and what cannot be read."""

import h5py
import numpy as np
import pytest
from neon_files import SHAPE, Neon, write, write_early
from rasterio.crs import CRS

from special_steps.core.errors import UserError
from special_steps.io.products.neon import files_of, holds, open_product
from special_steps.io.record import Source

ALL = (slice(0, SHAPE[1]), slice(0, SHAPE[2]))


def physical(source: Source, rows: slice, columns: slice) -> np.ndarray:
    stored = source.read(rows, columns)
    values = stored / source.scale + source.offset
    return np.where(np.isin(stored, source.nodata), np.nan, values)


def check(source: Source, right: Neon) -> None:
    assert source.shape == SHAPE
    assert source.files == [right.path]
    np.testing.assert_allclose(physical(source, *ALL), right.reflectance, rtol=1e-6)
    for rows, columns in (
        (slice(2, 5), slice(0, 7)),
        (slice(0, 9), slice(3, 4)),
        (slice(8, 9), slice(6, 7)),
    ):
        window = physical(source, rows, columns)
        np.testing.assert_allclose(window, right.reflectance[:, rows, columns], rtol=1e-6)
    np.testing.assert_allclose(source.wavelengths, right.wavelengths, rtol=1e-6)
    np.testing.assert_allclose(source.fwhm, right.fwhm, rtol=1e-6)
    assert (source.good_bands is None) == (right.good is None)
    if right.good is not None:
        assert source.good_bands.tolist() == right.good.tolist()
    assert CRS.from_wkt(source.crs).to_epsg() == right.epsg
    np.testing.assert_allclose(source.transform, right.transform, atol=1e-9)
    assert set(source.quality) == set(right.quality)
    for name, layer in right.quality.items():
        assert layer.any()
        np.testing.assert_array_equal(source.quality[name](*ALL), layer)
        np.testing.assert_array_equal(
            source.quality[name](slice(2, 6), slice(1, 5)), layer[2:6, 1:5]
        )
    assert not source.doubts


def test_tile(tmp_path):
    right = write(tmp_path)
    source = open_product(right.path)
    check(source, right)
    assert source.kind == "NEON AOP reflectance"
    assert not source.notes
    assert source.read(*ALL).dtype == np.int16


@pytest.mark.parametrize(
    "options",
    [
        {"lists": True},
        {"quality": False},
        {"class_names": False},
        {"epsg": False},
        {"rotation": 42.0},
        {"rotation": -86.0},
        {"site": "R10A", "name": "NEON_D10_R10A_DP1_L001-1_20200607_directional_reflectance.h5"},
        {"name": "NEON_D05_LIRO_DP3_290000_5097000_bidirectional_reflectance.h5"},
    ],
)
def test_variants(tmp_path, options):
    right = write(tmp_path, **options)
    check(open_product(right.path), right)


def test_early_layout(tmp_path):
    right = write_early(tmp_path)
    source = open_product(right.path)
    check(source, right)
    assert source.nodata == (15000.0,)


@pytest.mark.parametrize("options", [{"system": False}, {"as_text": False}, {"name": "a.hdf5"}])
def test_variants_of_the_early_layout(tmp_path, options):
    right = write_early(tmp_path, **options)
    check(open_product(right.path), right)


def test_as_many_rows_as_bands(tmp_path):
    """Only the layout can then say which axis is which."""
    rows = np.arange(3 * 3 * 4, dtype="i2")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["Reflectance"] = rows.reshape(3, 4, 3)
        file["wavelength"], file["map info"] = [0.5, 0.6, 0.7], b"UTM,1,1,0,0,1,1,11,North,WGS-84"
    source = open_product(tmp_path / "a.h5")
    assert source.shape == (3, 4, 3)
    np.testing.assert_array_equal(source.whole(), rows.reshape(3, 4, 3))
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["S/Reflectance/Reflectance_Data"] = rows.reshape(3, 4, 3)
        file["S/Reflectance/Metadata/Spectral_Data/Wavelength"] = [500.0, 600, 700]
    source = open_product(tmp_path / "b.h5")
    assert source.shape == (3, 3, 4)
    np.testing.assert_array_equal(source.whole(), rows.reshape(3, 4, 3).transpose(2, 0, 1))


def test_radiance(tmp_path):
    right = write(tmp_path, radiance=True, name="NEON_D10_R10A_DP1_20200607_L001-1_radiance.h5")
    source = open_product(right.path)
    check(source, right)
    assert source.kind == "NEON AOP radiance"
    assert "radiances, not reflectances" in source.notes[0]


def test_a_class_map_that_is_a_copy_of_another_is_not_used(tmp_path):
    right = write(tmp_path, copied_map=True)
    source = open_product(right.path)
    check(source, right)
    assert "copy of the vegetation classes" in source.notes[0]


def test_early_atcor_has_no_class_of_cloud_shadow(tmp_path):
    right = write(tmp_path)
    with h5py.File(right.path, "r+") as file:
        item = file["SJER/Reflectance/Metadata/Ancillary_Imagery/Haze_Cloud_Water_Map"]
        names = item.attrs["Class_Names"][:21].astype("S40")
        names[1] = b"1: shadow/topogr. shadow"
        item.attrs["Class_Names"] = names
        item[...] = np.minimum(item[...], 20)
    quality = open_product(right.path).quality
    assert "cloud_shadow" not in quality
    assert quality["shadow"](*ALL).sum() == 3


def test_files_by_name(tmp_path):
    right = write(tmp_path)
    assert files_of(right.path) == files_of(tmp_path) == [right.path]
    check(open_product(tmp_path), right)
    assert files_of(tmp_path / "NEON_D17_SJER_DP1_20190825_145110_REFLECTANCE.H5")
    assert files_of(tmp_path / "neondsimagingspectrometerdata.h5")
    assert not files_of(tmp_path / "scene.h5")
    assert not files_of(tmp_path / "NEON_D17_SJER_DP3_257000_4112000_CHM.tif")
    write(tmp_path, name="NEON_D17_SJER_DP3_258000_4112000_reflectance.h5")
    assert files_of(tmp_path) == []
    with pytest.raises(UserError, match=r"not one NEON file in this folder; give the \.h5 file"):
        open_product(tmp_path)


def test_known_by_content(tmp_path):
    for right in (write(tmp_path, name="renamed.H5"), write_early(tmp_path, name="old.h5")):
        with h5py.File(right.path) as file:
            assert holds(file)
        check(open_product(right.path), right)
    for content in (
        {"cube": np.zeros((3, 4, 5))},
        {"Reflectance": np.zeros((3, 4, 5))},
        {"Reflectance/x": np.zeros((3, 4, 5)), "wavelength": [1.0], "map info": b"x"},
    ):
        with h5py.File(tmp_path / "other.h5", "w") as file:
            for key, value in content.items():
                file[key] = value
            assert not holds(file)
    with pytest.raises(UserError, match="no NEON reflectance or radiance"):
        open_product(tmp_path / "other.h5")


def test_links_to_other_files_are_not_followed(tmp_path):
    right = write(tmp_path)
    with h5py.File(tmp_path / "links.h5", "w") as file:
        file["SJER"] = h5py.ExternalLink(right.path.name, "/SJER")
        assert not holds(file)


def test_damaged_files(tmp_path):
    right = write(tmp_path)
    content = right.path.read_bytes()
    for size in (0, 100, len(content) // 2, len(content) - 100):
        cut = tmp_path / "cut.h5"
        cut.write_bytes(content[:size])
        with pytest.raises(UserError, match=r"cut\.h5: cannot be read"):
            open_product(cut).whole()


@pytest.mark.parametrize(
    ("name", "value", "field", "message"),
    [
        ("Coordinate_System/Map_Info", b"UTM, 1, 1, east", "transform", "fewer than 7 fields"),
        ("Coordinate_System/Map_Info", b"UTM,1,1,east,0,1,1,11,North", "transform", "'east'"),
        ("Coordinate_System/EPSG Code", b"x", "crs", "coordinate system not understood"),
        ("Coordinate_System/EPSG Code", b"1", "crs", "coordinate system not understood"),
        ("Spectral_Data/Wavelength", np.ones(5), "wavelengths", "5 wavelengths for 12 bands"),
    ],
)
def test_what_cannot_be_used_is_doubted(tmp_path, name, value, field, message):
    right = write(tmp_path)
    with h5py.File(right.path, "r+") as file:
        group = file["SJER/Reflectance/Metadata"]
        del group[name]
        group[name] = value
    source = open_product(right.path)
    assert getattr(source, field) is None
    assert message in source.doubts[field]
    assert "\n" not in source.doubts[field]


def test_attributes_that_are_no_numbers(tmp_path):
    right = write(tmp_path)
    with h5py.File(right.path, "r+") as file:
        file["SJER/Reflectance/Reflectance_Data"].attrs["Scale_Factor"] = "many"
    with pytest.raises(UserError, match="'scale factor' is 'many', no number"):
        open_product(right.path)


def test_a_real_crop(shared):
    source = open_product(shared / "data" / "scenes" / "neon" / "ex.h5")
    assert source.shape == (426, 30, 30)
    assert source.transform == (1, 0, 257000, 0, -1, 4112000)
    assert CRS.from_wkt(source.crs).to_epsg() == 32611
    assert source.wavelengths[0] == pytest.approx(381, abs=4)
    assert source.scale == 10000
    assert not source.doubts
