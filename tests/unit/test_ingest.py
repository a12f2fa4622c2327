"""Ingest: masks, scale factors, wavelengths, band order, real scenes, and every mistake that a user can make."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from defaults import CUBE
from scipy.io import loadmat, savemat
from stores import described

from special_steps.core import store
from special_steps.core.errors import UserError
from special_steps.core.store import open_store
from special_steps.ingest import (
    choose_wavelengths,
    ingest,
    masked_pixels,
    missing_values,
    outside_ranges,
)
from special_steps.io.source import open_source

NM = [450.0, 550.0, 650.0]
DIMS = ("band", "y", "x")


def make(folder: Path, cube: np.ndarray, name: str = "scene.mat", **others: np.ndarray) -> Path:
    """Write a cube (band, y, x) as MATLAB variable `cube`, y x band."""
    savemat(folder / name, {"cube": cube.transpose(1, 2, 0)} | others)
    return folder / name


def run_ingest(folder: Path, path, **options):
    """Ingest a file; its reflectance, mask and attributes."""
    ingest(cube=path, out=folder / "cube.zarr", **CUBE | options)
    group = open_store(folder / "cube.zarr", reflectance=DIMS, nodata=("y", "x"))
    return group["reflectance"][:], group["nodata"][:], described(group)


@pytest.fixture
def cube():
    return np.random.default_rng(0).random((3, 6, 5)).astype(np.float32) + 0.1


# --- what a cube.zarr holds ---


def test_the_store(tmp_path, cube):
    values, mask, attributes = run_ingest(tmp_path, make(tmp_path, cube), wavelengths=NM)
    assert values.dtype == np.float32 and mask.dtype == bool
    np.testing.assert_array_equal(values, cube)
    assert not mask.any()
    assert attributes["wavelengths"] == NM and attributes["good_bands"] == [True] * 3
    assert attributes["crs"] is None and attributes["transform"] is None
    provenance = attributes["provenance"]
    assert provenance["step"] == "ingest" and provenance["settings"]["wavelengths"] == NM
    assert list(provenance["inputs"]) == [str(tmp_path / "scene.mat")]


def test_row_blocks_join_without_seams(tmp_path, monkeypatch, cube):
    cube[1, 4, 2] = np.nan
    path = make(tmp_path, cube)
    once = run_ingest(tmp_path, path, wavelengths=NM)
    monkeypatch.setattr(store, "TILE", 4)
    twice = run_ingest(tmp_path, path, wavelengths=NM)
    np.testing.assert_array_equal(once[0], twice[0])
    np.testing.assert_array_equal(once[1], twice[1])
    assert once[1].sum() == 1


def test_missing_pixels_are_masked_and_zero(tmp_path, cube):
    cube[0, 0, 0], cube[1, 1, 1], cube[2, 2, 2], cube[0, 3, 3] = np.nan, np.inf, -9999, -np.inf
    values, mask, _ = run_ingest(tmp_path, make(tmp_path, cube), wavelengths=NM, nodata=-9999)
    assert np.argwhere(mask).tolist() == [[0, 0], [1, 1], [2, 2], [3, 3]]
    assert (values[:, mask] == 0).all()
    np.testing.assert_array_equal(values[:, ~mask], cube[:, ~mask])


def test_empty_and_bad_bands_do_not_mask_pixels(tmp_path, cube):
    cube = np.concatenate([cube, cube])
    cube[1] = np.nan  # empty
    cube[4, 0] = np.nan  # in a bad range
    nm = [400, 500, 600, 700, 800, 900]
    values, mask, attributes = run_ingest(
        tmp_path, make(tmp_path, cube), wavelengths=nm, bad_ranges=[[790, 800], [300, 350]]
    )
    assert attributes["good_bands"] == [True, False, True, True, False, True]
    assert not mask.any()
    assert (values[1] == 0).all() and (values[4, 0] == 0).all() and (values[4, 1:] > 0).all()


def test_zero_is_no_data_only_in_all_bands_and_when_said(tmp_path, cube):
    cube[0, 0, 0] = 0
    cube[:, 5, 4] = 0
    path = make(tmp_path, cube)
    assert not run_ingest(tmp_path, path, wavelengths=NM)[1].any()
    mask = run_ingest(tmp_path, path, wavelengths=NM, nodata=0)[1]
    assert np.argwhere(mask).tolist() == [[5, 4]]


def test_integers_with_scale_and_no_data(tmp_path):
    cube = np.arange(90, dtype=np.uint8).reshape(3, 6, 5)
    path = make(tmp_path, cube)
    values, mask, _ = run_ingest(tmp_path, path, wavelengths=NM, scale=100, nodata=30)
    assert np.argwhere(mask).tolist() == [[0, 0]]
    np.testing.assert_allclose(values[:, 1:], cube[:, 1:] / 100, rtol=1e-6)
    mask = run_ingest(tmp_path, path, wavelengths=NM, nodata=-9999)[1]  # no uint8 value
    assert not mask.any()


def test_float_no_data_is_rounded_like_the_data():
    block = np.full((1, 1, 2), np.float32(-3.4028235e38))
    block[0, 0, 1] = 1
    assert missing_values(block, -3.40282347e38).tolist() == [[[True, False]]]
    good = np.ones(1, bool)
    missing = missing_values(block, -3.40282347e38)
    assert masked_pixels(block, missing, good, -3.40282347e38).tolist() == [[True, False]]


def test_the_config_goes_before_the_file(tmp_path):
    """A GeoTIFF that states wavelengths, scale, offset and no-data; each can be overruled."""
    path = tmp_path / "a.tif"
    cube = np.arange(1, 25, dtype=np.float32).reshape(2, 4, 3)
    with rasterio.open(
        path, "w", driver="GTiff", count=2, height=4, width=3, dtype="float32", nodata=1,
        crs="EPSG:32633", transform=rasterio.Affine(2, 0, 100, 0, -2, 900),
    ) as raster:  # fmt: skip
        raster.write(cube)
        for band, (nm, good) in enumerate(((500, 1), (600, 1)), 1):
            raster.update_tags(band, wavelength=nm, bbl=good, wavelength_units="nm")
        raster.scales, raster.offsets = (0.5, 0.5), (3, 3)
    values, mask, attributes = run_ingest(tmp_path, path)
    assert np.argwhere(mask).tolist() == [[0, 0]]
    np.testing.assert_allclose(values[:, ~mask], cube[:, ~mask] * 0.5 + 3)
    assert attributes["wavelengths"] == [500, 600]
    assert attributes["transform"] == [2, 0, 100, 0, -2, 900]
    assert "32633" in attributes["crs"]
    values, mask, attributes = run_ingest(
        tmp_path, path, scale=10, nodata=2, wavelengths={"first": 700, "last": 800}
    )
    assert np.argwhere(mask).tolist() == [[0, 1]]
    np.testing.assert_allclose(values[:, ~mask], cube[:, ~mask] / 10)
    assert attributes["wavelengths"] == [700, 800]


def test_bands_are_sorted_with_all_that_belongs_to_them(tmp_path, cube, caplog):
    cube[0] = np.nan
    with caplog.at_level("INFO", "special"):
        values, _, attributes = run_ingest(
            tmp_path, make(tmp_path, cube), wavelengths=[650, 450, 550], bad_ranges=[[440, 460]]
        )
    assert attributes["wavelengths"] == NM
    assert attributes["good_bands"] == [False, True, False]
    np.testing.assert_array_equal(values[:2], cube[[1, 2]])
    assert "sorted by wavelength" in caplog.text


def test_what_the_file_says_of_bands_is_sorted_with_them(tmp_path):
    path = tmp_path / "a.tif"
    with rasterio.open(
        path, "w", driver="GTiff", count=3, height=2, width=2, dtype="float32"
    ) as raster:
        raster.write(np.ones((3, 2, 2), np.float32))
        for band, (nm, good) in enumerate(((650, 0), (450, 1), (550, 1)), 1):
            raster.update_tags(band, wavelength=nm, bbl=good, fwhm=nm / 100)
        raster.scales, raster.offsets = (1, 2, 3), (0, 10, 20)
    values, _, attributes = run_ingest(tmp_path, path)
    assert attributes["wavelengths"] == NM and attributes["good_bands"] == [True, True, False]
    assert attributes["fwhm"] == [4.5, 5.5, 6.5]
    np.testing.assert_allclose(values[:, 0, 0], [12, 23, 1])


def test_wavelengths_from_a_variable_in_micrometres(tmp_path, cube):
    path = make(tmp_path, cube, wl=np.array([[0.45], [0.55], [0.65]]))
    attributes = run_ingest(tmp_path, path, wavelengths={"variable": "wl"})[2]
    np.testing.assert_allclose(attributes["wavelengths"], NM)


def test_ranges():
    assert outside_ranges(np.array([400, 500, 600.0]), [[500, 550]]).tolist() == [True, False, True]
    for wrong in ([[550, 500]], [[500]], [[1, 2, 3]]):
        with pytest.raises(UserError, match="bad_ranges"):
            outside_ranges(np.array([400.0]), wrong)


# --- mistakes ---


def test_no_wavelengths_are_never_guessed(tmp_path, cube):
    path = make(tmp_path, cube)
    with pytest.raises(UserError, match=r"scene\.mat.*scenes\.<name>\.cube\.wavelengths"):
        run_ingest(tmp_path, path)
    assert not (tmp_path / "cube.zarr").exists()


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ([450, 550], "2 wavelengths for 3 bands"),
        ([0.45, 0.55, 0.65], "no nanometres"),
        ([450, np.nan, 650], "no nanometres"),
        ({"first": 400}, r"\['first'\]"),
        ({"variable": "wl"}, r"no variable 'wl'; the file has 'cube' \(6, 5, 3\)"),
    ],
)
def test_wrong_wavelengths(tmp_path, cube, option, message):
    with pytest.raises(UserError, match=rf"scene\.mat.*{message}"):
        run_ingest(tmp_path, make(tmp_path, cube), wavelengths=option)


def test_a_wavelength_variable_needs_a_file_with_variables():
    with pytest.raises(UserError, match="3 wavelengths for 4 bands"):
        choose_wavelengths({"variable": "wl"}, None, 4, np.array(NM), "f")


def test_scene_without_data(tmp_path, cube):
    for options, value in (({}, np.nan), ({"nodata": -1}, -1)):
        path = make(tmp_path, np.full_like(cube, value))
        with pytest.raises(UserError, match=r"scene\.mat: no pixel has data"):
            run_ingest(tmp_path, path, wavelengths=NM, **options)
    assert list(tmp_path.iterdir()) == [path]  # nothing half-written


def test_no_good_band_and_no_good_pixel(tmp_path, cube):
    path = make(tmp_path, cube)
    with pytest.raises(UserError, match=r"scene\.mat: no good band"):
        run_ingest(tmp_path, path, wavelengths=NM, bad_ranges=[[100, 3000]])
    cube[0, :3], cube[1, 2:] = np.nan, np.nan
    path = make(tmp_path, cube)
    with pytest.raises(UserError, match=r"every pixel lacks.*550 nm.*bad_ranges"):
        run_ingest(tmp_path, path, wavelengths=NM)
    assert not (tmp_path / "cube.zarr").exists()


@pytest.mark.parametrize("scale", [0.0, float("nan"), float("inf")])
def test_impossible_scale(tmp_path, cube, scale):
    with pytest.raises(UserError, match=r"scene\.mat: cube\.scale"):
        run_ingest(tmp_path, make(tmp_path, cube), wavelengths=NM, scale=scale)


def test_bad_band_list_of_another_length(tmp_path, cube):
    header = {"wavelength": np.array(NM), "wavelength_units": "nm", "bbl": np.array([1, 0])}
    with pytest.raises(UserError, match=r"scene\.mat: 2 values of good_bands for 3 bands"):
        run_ingest(tmp_path, make(tmp_path, cube, header=header))


def test_command_line(tmp_path, cube):
    path = make(tmp_path, cube)

    def call(*arguments: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "special_steps.ingest", "--out", str(tmp_path / "c.zarr")]
        return subprocess.run(
            [*command, *arguments], capture_output=True, text=True, cwd=Path(__file__).parents[2]
        )

    unset = [f"--{k}={json.dumps(v)}" for k, v in (CUBE | {"wavelengths": NM}).items()]
    options = [*unset, "--bad_ranges", "[[440, 460]]"]
    assert call("--cube", str(path), *options).returncode == 0
    group = open_store(tmp_path / "c.zarr")
    assert described(group)["good_bands"] == [False, True, True]
    assert call("--cube", json.dumps([str(path)]), *options).returncode == 0  # a list of one
    wrong = call("--cube", str(tmp_path / "no.mat"), *options)
    assert wrong.returncode == 1
    assert wrong.stderr.strip().splitlines()[-1].startswith(f"error: {tmp_path}/no.mat: no such")


# --- real scenes ---


def test_samson_is_column_major(shared, tmp_path):
    """The reading of pixels is right when the scene's own abundances explain its spectra."""
    path = shared / "data/scenes/samson/Samson.mat"
    stored = loadmat(path)
    settings = {"variable": "Y", "axes": "band (x y)", "shape": {"x": 95, "y": 95}}
    values, mask, attributes = run_ingest(
        tmp_path, path, wavelengths={"first": 401, "last": 889}, **settings
    )
    expected = stored["Y"].reshape(156, 95, 95).transpose(0, 2, 1)
    np.testing.assert_array_equal(values, expected.astype(np.float32))
    assert attributes["wavelengths"][0] == 401 and attributes["wavelengths"][-1] == 889
    assert not mask.any() and open_source(path, **settings).shape == (156, 95, 95)

    def residual(pixels: np.ndarray) -> float:
        shares = stored["S_GT"].reshape(-1, 3)
        spectra = np.linalg.lstsq(shares, pixels.reshape(156, -1).T, rcond=None)[0]
        return abs(shares @ spectra - pixels.reshape(156, -1).T).mean()

    assert residual(values) < 0.7 * residual(values.transpose(0, 2, 1))


def test_muufl(shared, tmp_path):
    path = shared / "data/scenes/muufl/muufl_90x90.mat"
    options = {"wavelengths": {"first": 375, "last": 1050}}
    with pytest.raises(UserError, match=r"'Y' \(90, 90, 64\).*'label' \(90, 90, 5\)"):
        run_ingest(tmp_path, path, **options)
    values, mask, _ = run_ingest(tmp_path, path, variable="Y", **options)
    np.testing.assert_array_equal(values, loadmat(path)["Y"].transpose(2, 0, 1).astype(np.float32))
    assert not mask.any()


def test_enmap_tile_and_mosaic(shared, tmp_path):
    tiles = sorted((shared / "data/scenes/enmap_potsdam/images").glob("*.tif"))
    assert len(tiles) == 18
    one, mask, attributes = run_ingest(tmp_path, tiles[0])
    assert one.shape == (224, 32, 32) and not mask.any()
    assert sum(attributes["good_bands"]) == 218 and (np.diff(attributes["wavelengths"]) > 0).all()
    good = np.array(attributes["good_bands"])
    with rasterio.open(tiles[0]) as raster:
        first, nm = raster.read(1), [float(raster.tags(i)["wavelength"]) for i in raster.indexes]
        last_of_vnir = nm.index(attributes["wavelengths"][92])
        np.testing.assert_allclose(one[92], raster.read(last_of_vnir + 1) / 10_000, rtol=1e-5)
    np.testing.assert_allclose(one[0], first * 1e-4, rtol=1e-5)
    assert one[good].min() > -0.1 and 0.2 < one[good].max() < 1.5

    whole, mask, attributes = run_ingest(tmp_path, tiles)
    assert whole.shape == (224, 192, 160) == open_source(tiles).shape
    assert (~mask).sum() == 18 * 32 * 32
    assert (
        attributes["transform"] == [30, 0, 364095, 0, -30, 5809965] and "32633" in attributes["crs"]
    )
    column = int((366015 - 364095) / 30)  # tiles[0] is 128_0
    np.testing.assert_array_equal(whole[:, :32, column : column + 32], one)
    assert len(attributes["provenance"]["inputs"]) == 18


def test_gamsberg(shared, tmp_path):
    folder = shared / "data/scenes/gamsberg"
    values, _, attributes = run_ingest(tmp_path, folder / "cubus_gamsberg_subset")
    stored = np.fromfile(folder / "cubus_gamsberg_subset", "<f4").reshape(189, 25, 10)
    np.testing.assert_array_equal(values, stored)
    assert attributes["wavelengths"][0] == 426.820007
    assert open_source(folder / "cubus_gamsberg_subset.hdr").shape == (189, 25, 10)
    # with the wavelengths only in the band names
    text = (folder / "cubus_gamsberg_subset.hdr").read_text()
    (tmp_path / "copy.hdr").write_text(text[: text.index("wavelength units")])
    (tmp_path / "copy.img").write_bytes((folder / "cubus_gamsberg_subset").read_bytes())
    named = run_ingest(tmp_path, tmp_path / "copy.hdr")[2]
    assert named["wavelengths"] == attributes["wavelengths"]


def test_neon(shared, tmp_path):
    path = shared / "data/scenes/neon/ex.h5"
    values, _, attributes = run_ingest(
        tmp_path,
        path,
        variable="SJER/Reflectance/Reflectance_Data",
        wavelengths={"variable": "SJER/Reflectance/Metadata/Spectral_Data/Wavelength"},
    )
    assert values.shape == (426, 30, 30) and 0.5 < values.max() < 1.6  # 10,000 divided out
    assert 380 < attributes["wavelengths"][0] < 390 and "32611" in attributes["crs"]
    assert attributes["transform"] == [1, 0, 257000, 0, -1, 4112000]


def test_aviris_vi(shared, tmp_path):
    path = shared / "data/scenes/aviris_vi/a_hsi_img_for_VI_demo.mat"
    with pytest.raises(UserError, match="states no wavelengths"):
        run_ingest(tmp_path, path)
    values, _, attributes = run_ingest(
        tmp_path, path, wavelengths={"variable": "wavelengths"}, scale=10_000
    )
    assert values.max() == pytest.approx(0.8143) and attributes["wavelengths"][0] == 365.910004


def test_salton_sea(shared, tmp_path):
    values, mask, attributes = run_ingest(
        tmp_path, shared / "data/scenes/salton_sea/salton_sea_roi.mat", variable="I"
    )
    assert sum(attributes["good_bands"]) == 204 and not mask.any()  # all NaN are in bad bands
    assert np.isfinite(values).all() and (values[~np.array(attributes["good_bands"])] == 0).all()
