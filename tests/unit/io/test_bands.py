"""Which bands a scene has: wavelengths, bad ones, dropped ones, scale."""

from pathlib import Path

import numpy as np
import pytest

from special_steps.core.errors import UserError
from special_steps.io.bands import choose_bands, choose_wavelengths, dropped, outside_ranges
from special_steps.io.record import Source

NM = np.array([450.0, 550.0, 650.0])


def source_of(bands: int = 3, **fields) -> Source:
    return Source(
        [Path("scene.mat")], (bands, 1, 1), lambda y, x: np.zeros((bands, 1, 1)), **fields
    )


def bands_of(source: Source, **options):
    return choose_bands(
        source, **{"wavelengths": None, "scale": None, "bad_ranges": [], "drop_bands": []} | options
    )


def test_all_that_belongs_to_a_band_is_sorted_with_it():
    source = source_of(
        wavelengths=NM[[2, 0, 1]],
        fwhm=np.array([3.0, 1, 2]),
        good_bands=np.array([False, True, True]),
        scale=np.array([30.0, 10, 20]),
        offset=np.array([0.3, 0.1, 0.2]),
    )
    bands = bands_of(source)
    assert bands.position.tolist() == [1, 2, 0] and bands.nm.tolist() == NM.tolist()
    assert bands.fwhm.tolist() == [1, 2, 3] and bands.good.tolist() == [True, True, False]
    assert bands.scale.tolist() == [10, 20, 30] and bands.offset.tolist() == [0.1, 0.2, 0.3]
    bands = bands_of(source, drop_bands=[2])
    assert bands.position.tolist() == [2, 0] and bands.fwhm.tolist() == [2, 3]
    assert bands.good.tolist() == [True, False] and bands.scale.tolist() == [20, 30]


def test_the_config_goes_before_the_file():
    source = source_of(wavelengths=NM, scale=np.array([1.0, 2, 3]), offset=5.0)
    bands = bands_of(source, wavelengths=[400, 500, 600], scale=10)
    assert bands.nm.tolist() == [400, 500, 600]
    assert bands.scale.tolist() == [10] * 3 and bands.offset.tolist() == [0] * 3


@pytest.mark.parametrize("field", ["wavelengths", "scale", "offset"])
def test_what_the_file_states_in_a_way_that_is_no_use(field):
    stated = {} if field == "wavelengths" else {"wavelengths": NM}
    source = source_of(**stated, doubts={field: f"scene.mat: odd {field}"})
    with pytest.raises(UserError, match=f"odd {field}"):
        bands_of(source)
    way_out = {"wavelengths": NM.tolist()} if field == "wavelengths" else {"scale": 100}
    assert bands_of(source, **way_out).nm.tolist() == NM.tolist()


def test_bands_of_unknown_wavelength():
    nm = np.array([np.nan, 550, 650])
    with pytest.raises(UserError, match=r"no wavelength .*of bands 1; set .*drop_bands: \[1\]"):
        bands_of(source_of(wavelengths=nm))
    assert bands_of(source_of(wavelengths=nm), drop_bands=[1]).position.tolist() == [1, 2]
    assert bands_of(source_of(wavelengths=nm), wavelengths=NM.tolist()).nm.tolist() == NM.tolist()


def test_wavelengths_of_the_kept_bands_only():
    bands = bands_of(source_of(5), wavelengths=NM.tolist(), drop_bands=["2-3"])
    assert bands.position.tolist() == [0, 3, 4] and bands.nm.tolist() == NM.tolist()
    all_of_them = [400, 450, 500, 550, 600]
    bands = bands_of(source_of(5), wavelengths=all_of_them, drop_bands=["2-3"])
    assert bands.nm.tolist() == [400, 550, 600]
    bands = bands_of(source_of(5), wavelengths={"first": 400, "last": 600}, drop_bands=[5])
    assert bands.nm.tolist() == [400, 450, 500, 550]


@pytest.mark.parametrize(
    ("items", "expected"),
    [([], []), ([1, 3], [0, 2]), (["2-4"], [1, 2, 3]), ([" 2 - 3 ", 3, "5"], [1, 2, 4])],
)
def test_dropped_bands(items, expected):
    assert dropped(items, 5, "f").tolist() == expected


@pytest.mark.parametrize("item", [0, 6, -1, "4-3", "0-2", "4-9", "a", "1-2-3", "", 1.5])
def test_dropped_bands_that_are_none(item):
    with pytest.raises(UserError, match=r"f: cube\.drop_bands.*1 to 5"):
        dropped([item], 5, "f")


def test_no_band_is_left():
    with pytest.raises(UserError, match=r"scene\.mat: cube\.drop_bands leaves none of the 3 bands"):
        bands_of(source_of(wavelengths=NM), drop_bands=["1-3"])
    with pytest.raises(UserError, match=r"scene\.mat: no good band is left"):
        bands_of(source_of(wavelengths=NM), bad_ranges=[[100, 3000]])


def test_ranges():
    assert outside_ranges(np.array([400, 500, 600.0]), [[500, 550]]).tolist() == [True, False, True]
    assert outside_ranges(np.array([400, 500.0]), [[500, 500]]).tolist() == [True, False]
    for wrong in ([[550, 500]], [[500]], [[1, 2, 3]], [[float("nan"), 500]]):
        with pytest.raises(UserError, match="bad_ranges"):
            outside_ranges(np.array([400.0]), wrong)


@pytest.mark.parametrize("scale", [0.0, float("nan"), float("inf")])
def test_impossible_scale(scale):
    with pytest.raises(UserError, match=r"scene\.mat: cube\.scale is"):
        bands_of(source_of(wavelengths=NM), scale=scale)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ([450, 550], "2 wavelengths for 3 bands"),
        ([0.45, 0.55, 0.65], "no nanometres"),
        ([450, np.nan, 650], "no nanometres"),
        ([np.nan] * 3, "no nanometres"),
        ([450, 550, 1e6], "no nanometres"),
        ({"first": 400}, r"\['first'\]"),
        ({"variable": "wl"}, "names a variable"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_wrong_wavelengths(option, message):
    with pytest.raises(UserError, match=rf"scene\.mat: .*{message}"):
        choose_wavelengths(option, source_of(), np.arange(3))


def test_no_wavelengths_are_never_guessed():
    with pytest.raises(UserError, match=r"scene\.mat.*scenes\.<name>\.cube\.wavelengths"):
        choose_wavelengths(None, source_of(), np.arange(3))


def test_bands_of_one_wavelength_are_told():
    source = source_of(4, wavelengths=np.array([450.0, 550, 450, 650]))
    bands = bands_of(source)
    assert bands.position.tolist() == [0, 2, 1, 3]
    assert "bands 1 and 3 (450 nm) have the same wavelength" in bands.notes[0]
    assert not bands_of(source, drop_bands=[3]).notes
    assert not bands_of(
        source_of(4, wavelengths=source.wavelengths, good_bands=np.arange(4) != 2)
    ).notes
