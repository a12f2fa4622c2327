"""Ingest: masks, scale factors, wavelengths, band order, real scenes, and every mistake that a user can make."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import yaml
from defaults import INGEST
from rasters import write_tiff
from scipy.io import loadmat, savemat
from stores import described

import special_steps.ingest as ingest_module
from special_steps.core import store
from special_steps.core.errors import UserError
from special_steps.core.settings import load
from special_steps.core.store import open_store
from special_steps.ingest import ingest
from special_steps.io.source import open_source

NM = [450.0, 550.0, 650.0]
DIMS = ("band", "y", "x")


def make(folder: Path, cube: np.ndarray, name: str = "scene.mat", **others: np.ndarray) -> Path:
    """Write a cube (band, y, x) as MATLAB variable `cube`, y x band."""
    savemat(folder / name, {"cube": cube.transpose(1, 2, 0)} | others)
    return folder / name


def run_ingest(folder: Path, path, **options):
    """Ingest a file; its reflectance, mask and attributes."""
    ingest(cube=path, out=folder / "cube.zarr", **INGEST | options)
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
    said = open_store(tmp_path / "cube.zarr").attrs.asdict()
    assert said["wavelengths"] == NM and said["good_bands"] == [True] * 3
    assert said["transform"] is None and said["warnings"] == []


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


# --- mistakes ---


def test_no_wavelengths_are_never_guessed(tmp_path, cube):
    path = make(tmp_path, cube)
    with pytest.raises(UserError, match=r"scene\.mat.*scenes\.<name>\.cube\.wavelengths"):
        run_ingest(tmp_path, path)
    assert not (tmp_path / "cube.zarr").exists()


def test_scene_without_data(tmp_path, cube):
    for options, value in (({}, np.nan), ({"nodata": -1}, -1)):
        path = make(tmp_path, np.full_like(cube, value))
        with pytest.raises(UserError, match=r"scene\.mat: no pixel has data"):
            run_ingest(tmp_path, path, wavelengths=NM, **options)
    assert list(tmp_path.iterdir()) == [path]  # nothing half-written


def test_command_line(tmp_path, cube):
    path = make(tmp_path, cube)

    def call(*arguments: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "special_steps.ingest", "--out", str(tmp_path / "c.zarr")]
        return subprocess.run(
            [*command, *arguments], capture_output=True, text=True, cwd=Path(__file__).parents[2]
        )

    unset = [f"--{k}={json.dumps(v)}" for k, v in (INGEST | {"wavelengths": NM}).items()]
    options = [*unset, "--bad_ranges", "[[440, 460]]"]
    assert call("--cube", str(path), *options).returncode == 0
    group = open_store(tmp_path / "c.zarr")
    assert described(group)["good_bands"] == [False, True, True]
    assert call("--cube", json.dumps([str(path)]), *options).returncode == 0  # a list of one
    wrong = call("--cube", str(tmp_path / "no.mat"), *options)
    assert wrong.returncode == 1
    assert wrong.stderr.strip().splitlines()[-1].startswith(f"error: {tmp_path}/no.mat: no such")


# --- what a user must know ---


def warned(folder: Path) -> list[str]:
    return open_store(folder / "cube.zarr").attrs["warnings"]


def settings_in(text: str) -> dict:
    """The setting that a warning or error tells to set, as YAML reads it."""
    found = yaml.safe_load(text[text.index("scenes.<name>.cube.") + len("scenes.<name>.cube.") :])
    assert isinstance(found, dict)
    return found


def corners(height: int, width: int) -> np.ndarray:
    """What a turned flight line leaves empty."""
    y, x = np.mgrid[:height, :width]
    return (x + y < height // 2) | ((height - y) + (width - x) < height // 2)


F4 = np.finfo(np.float32)


FILLS = [
    ("f4", -9999), ("f4", 0), ("f4", F4.min), ("f8", float(F4.min)), ("f4", -0.9999), ("f8", -0.9999),
    ("f4", 1e20), ("f4", 9.96921e36), ("f8", -1e34), ("i2", -32768), ("u2", 65535), ("u1", 255),
    ("i4", -2147483648), ("i8", -9999), ("f4", 0.1), ("i8", -(2**63)), ("i2", 0), ("u2", 15000),
]  # fmt: skip
MAY_BE_MEASURED = (1e20, 255, 0.1, 15000)  # 0 too, but not around the scene


@pytest.mark.parametrize(
    ("dtype", "value", "empty"),
    [(*fill, ["corners", "border", "inside"][i % 3]) for i, fill in enumerate(FILLS)],
)
def test_fill_that_nothing_states_is_masked_or_told_with_a_setting_that_works(
    tmp_path, monkeypatch, dtype, value, empty
):
    """What cannot be measured is masked, unless `nodata: []` says that it is; what can be is told."""
    monkeypatch.setattr(store, "TILE", 16)
    rng = np.random.default_rng(0)
    cube = rng.integers(1, 200, (4, 40, 50)).astype(dtype)
    mask = corners(40, 50)
    if empty == "border":
        mask[:] = False
        mask[:, :1] = True
    if empty == "inside":
        mask[:] = False
        mask[10:18, 10:18] = True
    cube[:, mask] = np.array(value).astype(dtype)
    path = tmp_path / "a.npy"
    np.save(path, cube)
    options = {"axes": "band y x", "wavelengths": [450, 550, 650, 750]}
    values, masked, _ = run_ingest(tmp_path, path, **options)
    assert np.isfinite(values).all() and (values[:, masked] == 0).all()
    unsure = value in MAY_BE_MEASURED or (value == 0 and empty == "inside")
    np.testing.assert_array_equal(masked, np.zeros_like(mask) if unsure else mask)
    (line,) = warned(tmp_path)
    if not unsure:
        assert settings_in(line) == {"nodata": []}
        masked = run_ingest(tmp_path, path, **options, nodata=[])[1]
        assert abs(value) > F4.max or not masked.any()
        (line,) = warned(tmp_path)
    setting = settings_in(line)
    assert list(setting) == ["nodata"]
    load({"scenes": {"s": {"cube": {"path": "x"} | setting, "classes": ["water"]}}})
    values, masked, _ = run_ingest(tmp_path, path, **options, **setting)
    np.testing.assert_array_equal(masked, mask)
    assert warned(tmp_path) == []


def test_several_fills_are_told_with_one_setting_beside_what_is_stated(tmp_path):
    cube = np.random.default_rng(0).random((3, 30, 30)).astype(np.float32) + 0.1
    cube[:, :5], cube[:, 25:], cube[:, 10, :5] = -9999, -1.5, -1
    path = make(tmp_path, cube)
    run_ingest(tmp_path, path, wavelengths=NM, nodata=-1)
    (line,) = warned(tmp_path)
    assert "-9999 (16.7 %)" in line and "-1.5 (16.7 %)" in line
    mask = run_ingest(tmp_path, path, wavelengths=NM, **settings_in(line))[1]
    assert mask.sum() == 305 and warned(tmp_path) == []


def test_fill_is_found_beside_empty_bands(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "TILE", 16)
    cube = np.random.default_rng(0).random((6, 40, 40)).astype(np.float32) + 0.1
    cube[:, corners(40, 40)] = -9999
    cube[0], cube[5] = np.nan, 0
    run_ingest(tmp_path, make(tmp_path, cube), wavelengths=[450, 500, 550, 600, 650, 700])
    assert sum("-9999" in line for line in warned(tmp_path)) == 1
    assert any("bands that are 0 in all pixels are not good: 700 nm" in w for w in warned(tmp_path))


def test_measurements_are_not_taken_for_fill(tmp_path):
    """Dark water of a few zeros, and saturated roofs, inside and on the border."""
    cube = np.random.default_rng(0).integers(1, 4000, (5, 60, 60)).astype(np.uint16)
    cube[:, 20:24, 20:24] = 0
    cube[:, 40:43, 57:] = 4095
    run_ingest(tmp_path, make(tmp_path, cube), wavelengths=[450, 500, 550, 600, 650])
    assert warned(tmp_path) == []


@pytest.mark.parametrize(
    ("dtype", "nodata"), [("u2", -9999), ("u1", -1), ("i2", 0.5), ("i2", 65535)]
)
def test_no_data_that_no_value_can_be(tmp_path, dtype, nodata):
    cube = np.random.default_rng(0).integers(1, 99, (3, 6, 5)).astype(dtype)
    _, mask, _ = run_ingest(tmp_path, make(tmp_path, cube), wavelengths=NM, nodata=nodata)
    (line,) = warned(tmp_path)
    assert f"no {cube.dtype.name} value can be {nodata:g}" in line and not mask.any()


def test_no_data_of_the_config_that_occurs_nowhere(tmp_path, cube):
    cube[:, 0, 0] = np.nan
    path = make(tmp_path, cube)
    for nodata, count in (
        (-9999, 1),
        ([-9999, -1], 1),
        ([], 0),
        (None, 0),
        ([cube[0, 1, 1].item()], 0),
    ):
        run_ingest(tmp_path, path, wavelengths=NM, nodata=nodata)
        assert len(warned(tmp_path)) == count
    run_ingest(tmp_path, path, wavelengths=NM, nodata=-9999)
    assert warned(tmp_path) == [f"{path}: no value is -9999, as cube.nodata says: it masks nothing"]


def test_an_empty_list_means_that_nothing_is_no_data(tmp_path, cube):
    path = write_tiff(
        tmp_path / "a.tif",
        cube,
        nodata=float(cube[0, 0, 0]),
        tags=[{"wavelength": nm} for nm in NM],
    )
    assert run_ingest(tmp_path, path)[1].sum() == 1
    assert not run_ingest(tmp_path, path, nodata=[])[1].any()


def test_several_no_data_values(tmp_path, cube):
    cube[:, 0, 0], cube[1, 1, 1], cube[:, 2, 2], cube[0, 3, 3] = -1, -2, 0, 0
    mask = run_ingest(tmp_path, make(tmp_path, cube), wavelengths=NM, nodata=[-1, 0, -2.0])[1]
    assert np.argwhere(mask).tolist() == [[0, 0], [1, 1], [2, 2]]


@pytest.mark.parametrize(
    "dtype", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", "?"]
)
def test_every_type_of_number(tmp_path, dtype):
    cube = (np.random.default_rng(0).integers(0, 120, (3, 6, 5)) + 1).astype(dtype)
    if dtype == "?":
        cube = np.random.default_rng(0).random((3, 6, 5)) < 0.8
        cube[2, 1, 1] = True
    cube[0, 0, 0] = 0
    np.save(tmp_path / "a.npy", cube)
    options = {"axes": "band y x", "wavelengths": NM}
    values, mask, _ = run_ingest(tmp_path, tmp_path / "a.npy", **options, scale=2)
    np.testing.assert_array_equal(values, cube.astype("f4") / 2)
    assert not mask.any()
    nodata = 1.0 if dtype == "?" else [0, -9999, float(cube[2, 1, 1])]
    cube[:, 5] = 0
    cube[0, 5] = 2 if dtype != "?" else 0
    np.save(tmp_path / "a.npy", cube)
    mask = run_ingest(tmp_path, tmp_path / "a.npy", **options, nodata=nodata)[1]
    np.testing.assert_array_equal(mask, (cube == cube[2, 1, 1]).any(0))


@pytest.mark.parametrize("value", [1e300, -1e300, np.inf, float(np.finfo("f8").min)])
def test_values_beyond_float32_are_masked_and_told(tmp_path, cube, value):
    cube = cube.astype("f8")
    cube[1, 2, 3] = value
    values, mask, _ = run_ingest(tmp_path, make(tmp_path, cube), wavelengths=NM)
    assert np.isfinite(values).all() and np.argwhere(mask).tolist() == [[2, 3]]
    (line,) = warned(tmp_path)
    assert "3.3 % of the pixels hold infinity" in line
    cube[1, 2, 3] = 1
    run_ingest(tmp_path, make(tmp_path, cube), wavelengths=NM, scale=1e-39)  # beyond by the scale
    assert np.isfinite(
        run_ingest(tmp_path, make(tmp_path, cube), wavelengths=NM, scale=0.5)[0]
    ).all()


def test_nan_in_bad_bands_is_not_told(tmp_path, cube):
    cube[1], cube[0, :3] = np.nan, np.inf
    run_ingest(tmp_path, make(tmp_path, cube), wavelengths=NM, bad_ranges=[[440, 460]])
    assert warned(tmp_path) == []


@pytest.mark.parametrize("nm", [NM, [1234.5678, 1300.12345, 2400.98765]])
@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("share", [0.9, 0.3, 1.0])
def test_a_band_that_masks_much_is_named_with_a_setting_that_works(
    tmp_path, monkeypatch, cube, nm, late, share
):
    """Also where it is empty in the first rows, and where others have a border."""
    monkeypatch.setattr(store, "TILE", 8)
    cube = np.random.default_rng(0).random((3, 60, 20)).astype(np.float32) + 0.1
    cube[:, :, :2] = np.nan
    rows = slice(0, int(60 * share)) if late else slice(60 - int(60 * share), 60)
    cube[1, rows] = np.nan
    path = make(tmp_path, cube)
    if share == 1:  # another band then lacks the rest, and no pixel is whole
        cube[1, 0], cube[2, 0] = 1, np.nan
        path = make(tmp_path, cube)
        with pytest.raises(UserError) as error:
            run_ingest(tmp_path, path, wavelengths=nm)
        line = str(error.value)
    else:
        mask = run_ingest(tmp_path, path, wavelengths=nm)[1]
        np.testing.assert_array_equal(mask, np.isnan(cube).any(0))
        (line,) = warned(tmp_path)
        assert f"{90 * share:.0f} % of the pixels are masked because single bands" in line
    assert f"{nm[1]:.0f} nm" in line
    setting = settings_in(line)
    assert list(setting) == ["bad_ranges"] and len(setting["bad_ranges"]) == 1
    mask = run_ingest(tmp_path, path, wavelengths=nm, **setting)[1]
    np.testing.assert_array_equal(mask, np.isnan(cube[[0, 2]]).any(0))


def test_zeros_of_a_band_in_the_first_rows_are_measurements(tmp_path, monkeypatch, cube):
    """Also where 0 means no data: there a pixel counts that is 0 in all bands."""
    monkeypatch.setattr(store, "TILE", 2)
    cube[1, :3] = 0
    cube[:, 0, 0] = 0
    mask = run_ingest(tmp_path, make(tmp_path, cube), wavelengths=NM, nodata=0)[1]
    assert np.argwhere(mask).tolist() == [[0, 0]]


def test_first_rows_are_empty(tmp_path, monkeypatch, cube):
    monkeypatch.setattr(store, "TILE", 2)
    cube[:, :3] = np.nan
    values, mask, _ = run_ingest(tmp_path, make(tmp_path, cube), wavelengths=NM)
    assert mask[:3].all() and not mask[3:].any() and (values[:, :3] == 0).all()
    assert warned(tmp_path) == []


@pytest.mark.parametrize("size", [(5, 3), (16, 16), (17, 40), (40, 33), (1, 1)])
@pytest.mark.parametrize("block", [1, 10**9])
def test_scenes_narrower_and_wider_than_tiles(tmp_path, monkeypatch, size, block):
    monkeypatch.setattr(store, "TILE", 16)
    monkeypatch.setattr(ingest_module, "TILE", 16)
    monkeypatch.setattr(ingest_module, "BLOCK", block)
    cube = np.random.default_rng(0).random((3, *size)).astype(np.float32) + 0.1
    cube[0, -1, -1] = np.nan if size != (1, 1) else 1
    order = [2, 0, 1]
    asked = []
    real = ingest_module.open_source

    def spied(*args, **options):
        source = real(*args, **options)
        return replace(source, read=lambda y, x: asked.append((y, x)) or source.read(y, x))

    monkeypatch.setattr(ingest_module, "open_source", spied)
    path = make(tmp_path, cube[order])
    values, mask, _ = run_ingest(
        tmp_path, path, wavelengths=[NM[i] for i in order], axes="y x band"
    )
    np.testing.assert_array_equal(values[:, ~mask], cube[:, ~mask])
    np.testing.assert_array_equal(mask, np.isnan(cube).any(0))
    widest = max(x.stop - x.start for _, x in asked)
    assert widest <= 16 if block == 1 else widest == size[1]
    assert sum((y.stop - y.start) * (x.stop - x.start) for y, x in asked) == size[0] * size[1]


def test_no_pixel_is_left(tmp_path, cube):
    path = make(tmp_path, cube)
    with pytest.raises(UserError, match="no good band"):
        run_ingest(tmp_path, path, wavelengths=NM, bad_ranges=[[100, 3000]])
    with pytest.raises(UserError, match=r"no pixel has data.*no-data \(0\); check cube\.nodata"):
        run_ingest(tmp_path, make(tmp_path, cube * 0), wavelengths=NM, nodata=0)
    path = write_tiff(tmp_path / "mask.tif", np.ones((1, *cube.shape[1:]), "u1"), crs=None)
    options = {"path": path, "values": None, "align": False}
    with pytest.raises(UserError, match="leave out every pixel"):
        run_ingest(tmp_path, make(tmp_path, cube), wavelengths=NM, mask=options)
    assert not (tmp_path / "cube.zarr").exists()


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
    found = run_ingest(tmp_path, path)[2]  # of the variable "wavelengths"
    values, _, attributes = run_ingest(
        tmp_path, path, wavelengths={"variable": "wavelengths"}, scale=10_000
    )
    assert found["wavelengths"] == attributes["wavelengths"]
    assert values.max() == pytest.approx(0.8143) and attributes["wavelengths"][0] == 365.910004


def test_salton_sea(shared, tmp_path):
    values, mask, attributes = run_ingest(
        tmp_path, shared / "data/scenes/salton_sea/salton_sea_roi.mat", variable="I"
    )
    assert sum(attributes["good_bands"]) == 204 and not mask.any()  # all NaN are in bad bands
    assert np.isfinite(values).all() and (values[~np.array(attributes["good_bands"])] == 0).all()
