"""Spectral RGB: interpolation, coverage, and the joint stretch."""

import numpy as np
import pytest
from defaults import INGEST
from stores import make_cube

from special_steps.core.errors import UserError
from special_steps.core.spectral import check_coverage, interpolate, joint_percentiles, stretch
from special_steps.core.store import TILE, open_store
from special_steps.ingest import ingest
from special_steps.rgb import rgb

RGB = [655.0, 553.0, 451.0]
FULL = [0.0, 100.0]


def made(tmp_path, cube, wavelengths=RGB, percentiles=FULL):
    rgb(cube=cube, out=tmp_path / "rgb.zarr", wavelengths=wavelengths, percentiles=percentiles)
    found = open_store(tmp_path / "rgb.zarr", rgb=("band", "y", "x"), nodata=("y", "x"))
    return found["rgb"][:], found["nodata"][:]


# --- interpolation --------------------------------------------------------------------------------


def test_interpolation_by_hand():
    bands = np.array([400.0, 500.0, 700.0])
    spectra = np.array([[1, 10], [3, 20], [7, 80]], "f4")  # (band, pixel)
    found = interpolate(spectra, bands, [450, 500, 650, 400, 700])
    # 450 is half-way, 650 three quarters of the way
    np.testing.assert_allclose(found, [[2, 15], [3, 20], [6, 65], [1, 10], [7, 80]], rtol=1e-6)
    assert found.dtype == np.float32


def test_outside_the_range_the_end_counts():
    spectra = np.array([[1], [3]], "f4")
    found = interpolate(spectra, np.array([460.0, 560.0]), [700, 451])
    np.testing.assert_array_equal(found, [[3], [1]])


def test_two_bands_of_one_wavelength_give_numbers():
    spectra = np.array([[1], [2], [3], [4]], "f4")  # two spectrometers that overlap
    found = interpolate(spectra, np.array([451.0, 451.0, 655.0, 655.0]), RGB)
    assert np.isfinite(found).all()
    assert found[0] in (3, 4)
    np.testing.assert_allclose(found[1], 2.5)


def test_interpolation_agrees_with_numpy_pixel_by_pixel():
    rng = np.random.default_rng(0)
    bands = np.sort(rng.uniform(400, 900, 40))
    spectra = rng.random((40, 5, 6), np.float32)
    found = interpolate(spectra, bands, RGB)
    for y in range(5):
        for x in range(6):
            np.testing.assert_allclose(
                found[:, y, x], np.interp(RGB, bands, spectra[:, y, x]), atol=1e-6
            )


# --- coverage -------------------------------------------------------------------------------------


def test_one_band_spacing_outside_is_tolerated_and_no_more():
    bands = np.arange(460.0, 661, 50)  # 410 to 710
    check_coverage(bands, [410, 710], "cube.zarr")
    with pytest.raises(UserError, match=r"cube.zarr.* 460-660 nm.* 711 nm") as caught:
        check_coverage(bands, [711, 553, 451], "cube.zarr")
    assert "553" not in str(caught.value)
    with pytest.raises(UserError, match="409 nm"):
        check_coverage(bands, [655, 409], "cube.zarr")


def test_the_median_spacing_counts_and_60_nm_at_most():
    bands = np.array([460.0, 470.0, 480.0, 2000.0])
    with pytest.raises(UserError, match="449 nm"):
        check_coverage(bands, [449], "cube.zarr")
    check_coverage(bands, [450], "cube.zarr")
    check_coverage(np.array([500.0, 700, 900]), [440, 960], "cube.zarr")
    with pytest.raises(UserError, match="439 nm"):
        check_coverage(np.array([500.0, 700, 900]), [439, 960], "cube.zarr")


def test_gaps_between_bands_are_not_covered():
    """A camera of the near infrared, or of the green and the SWIR: a picture of made-up values is none."""
    bands = np.array([450.0, 500, 550, 560, 620, 681, 900, 910])
    check_coverage(bands, [450, 600, 681], "cube.zarr")
    for wanted in (621, 680, 690, 899):
        with pytest.raises(UserError, match=rf"450-620, 681, 900-910 nm.* {wanted} nm; set rgb"):
            check_coverage(bands, [450, 600, wanted], "cube.zarr")


def test_the_ends_that_are_told_work():
    bands = np.array([1000.0, 1234.5678, 1260.98765, 1500.0])
    with pytest.raises(UserError, match=r"1000, 1234\.57-1260\.99, 1500 nm"):
        check_coverage(bands, [655], "cube.zarr")
    check_coverage(bands, [1000, 1234.57, 1260.99], "cube.zarr")


def test_a_single_good_band_is_too_few(tmp_path):
    cube = make_cube(tmp_path / "c.zarr", np.ones((2, 3, 3)), [500, 600], [True, False])
    with pytest.raises(UserError, match=r"c.zarr: 1 good band.*at least 2"):
        made(tmp_path, cube)


def test_a_scene_without_red_green_and_blue_is_refused_and_nothing_written(tmp_path):
    cube = make_cube(tmp_path / "c.zarr", np.ones((3, 4, 4)), [1000, 1050, 1100])
    with pytest.raises(UserError, match=r"1000-1100 nm.*655, 553, 451 nm.*rgb.wavelengths"):
        made(tmp_path, cube)
    assert [p.name for p in tmp_path.iterdir()] == ["c.zarr"]


def test_bad_bands_do_not_count(tmp_path):
    spectra = np.array([1, 1, 99, 3, 5], "f4")[:, None, None] * np.ones((1, 2, 2), "f4")
    spectra[:, 0, 0] = 0
    cube = make_cube(tmp_path / "c.zarr", spectra, [450, 500, 525, 550, 600], [1, 1, 0, 1, 1])
    image, _ = made(tmp_path, cube, [575, 525, 475])
    # 4, 2 and 1 by hand, then 0..4 to 0..1
    np.testing.assert_allclose(image[:, 1, 1], [1, 0.5, 0.25], atol=1e-6)


# --- stretch --------------------------------------------------------------------------------------


def test_stretch_by_hand():
    values = np.array([0, 2, 3, 4, 9], "f4")
    np.testing.assert_allclose(stretch(values, (2, 4)), [0, 0, 0.5, 1, 1])


def test_joint_percentiles_are_over_all_bands_together():
    values = np.arange(101, dtype="f4")
    assert joint_percentiles(lambda: (values[:7], values[7:]), [10, 90]) == (10, 90)
    assert joint_percentiles(lambda: np.array([[0, 1], [10, 11]], "f4"), [0, 100]) == (0, 11)


@pytest.mark.parametrize("count", [1, 2, 999, 10_000])
def test_percentiles_by_counting_are_numpys(count):
    rng = np.random.default_rng(count)
    values = rng.normal(0, 10, count).astype("f4")
    values[: count // 3] = rng.choice([-0.0, 0.0, 1e-30, -1e30, 7], count // 3)
    for percentiles in ([0, 100], [0.1, 99.9], [33.3, 50], [99, 99.9]):
        found = joint_percentiles(lambda: np.array_split(values, 3), percentiles)
        wanted = np.percentile(values.astype(float), percentiles)
        np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12)


def test_the_stretch_is_joint_over_bands(tmp_path):
    """Colours keep their proportions: each band alone would fill 0 to 1."""
    spectra = np.stack([np.full((2, 2), 1.0), np.full((2, 2), 2.0), np.full((2, 2), 5.0)])
    cube = make_cube(tmp_path / "c.zarr", spectra, [451, 553, 655])
    image, _ = made(tmp_path, cube)
    np.testing.assert_allclose(image[:, 0, 0], [1, 0.25, 0], atol=1e-6)


def test_masked_pixels_are_0_and_do_not_count_in_the_stretch(tmp_path):
    spectra = np.random.default_rng(0).uniform(1, 2, (3, 20, 20)).astype("f4")
    nodata = np.zeros((20, 20), bool)
    nodata[:, :7] = True
    plain, _ = made(tmp_path, make_cube(tmp_path / "a.zarr", spectra[:, :, 7:], [451, 553, 655]))
    spectra[:, :, :7] = 1000  # would be the upper end
    cube = make_cube(tmp_path / "b.zarr", spectra, [451, 553, 655], nodata=nodata)
    image, mask = made(tmp_path, cube)
    np.testing.assert_array_equal(mask, nodata)
    assert (image[:, nodata] == 0).all()
    np.testing.assert_array_equal(image[:, :, 7:], plain)


def test_a_constant_scene_is_grey(tmp_path):
    nodata = np.zeros((4, 4), bool)
    nodata[0, 0] = True
    cube = make_cube(tmp_path / "c.zarr", np.full((3, 4, 4), 7.0), [451, 553, 655], nodata=nodata)
    image, _ = made(tmp_path, cube)
    assert (image[:, ~nodata] == 0.5).all()
    assert (image[:, nodata] == 0).all()


def test_rows_beyond_one_tile(tmp_path):
    ramp = np.arange(2 * TILE + 9, dtype="f4")[None, :, None] * np.ones((3, 1, 2), "f4")
    image, _ = made(tmp_path, make_cube(tmp_path / "c.zarr", ramp, [451, 553, 655]))
    wanted = np.linspace(0, 1, 2 * TILE + 9)
    np.testing.assert_allclose(
        image, np.broadcast_to(wanted[None, :, None], image.shape), atol=1e-6
    )


# --- a real scene ---------------------------------------------------------------------------------


def test_samson(tmp_path, shared):
    """95 x 95 x 156, 401-889 nm: water, trees and soil have their colours."""
    scipy = pytest.importorskip("scipy.io")
    scenes = shared / "data" / "scenes" / "samson" / "Samson.mat"
    ingest(
        cube=scenes,
        out=tmp_path / "cube.zarr",
        **INGEST
        | {
            "variable": "Y",
            "axes": "band (x y)",
            "shape": {"x": 95, "y": 95},
            "wavelengths": {"first": 401, "last": 889},
        },
    )
    image, mask = made(tmp_path, tmp_path / "cube.zarr", percentiles=[0.1, 99.9])
    assert image.shape == (3, 95, 95)
    assert image.dtype == np.float32
    assert not mask.any()
    assert image.min() == 0
    assert image.max() == 1
    # by another way: NumPy's interpolation of every pixel, percentiles of the sorted values
    cube = scipy.loadmat(scenes)["Y"].reshape(156, 95, 95).transpose(0, 2, 1)
    flat = cube.reshape(156, -1).T
    plain = np.stack([np.interp(RGB, np.linspace(401, 889, 156), p) for p in flat], axis=1)
    low, high = np.percentile(plain, [0.1, 99.9])
    wanted = np.clip((plain - low) / (high - low), 0, 1).reshape(3, 95, 95)
    np.testing.assert_allclose(image, wanted, atol=1e-5)
    share = (image == 1).mean()
    assert 0 < share < 0.002
    truth = np.load(shared / "pseudo" / "samson_gt.npz")
    names = list(truth["names"])
    brightness = {n: image[:, truth["gt"] == i + 1].mean() for i, n in enumerate(names)}
    assert brightness["soil"] > 2 * brightness["tree"]
    assert brightness["soil"] > 2 * brightness["water"]
