"""Fusing scales, and bringing one's own pseudo-labels."""

import numpy as np
import pytest
import rasterio
from stores import make_rgb, make_store

from special_steps.core.errors import UserError
from special_steps.core.store import Grid, class_names, grid_of, open_store
from special_steps.fuse import fuse, fused

NAMES = ["soil", "tree", "water"]
HERE = np.zeros((4, 5), bool)  # no pixel without data


def probabilities(seed: int = 0, shape: tuple[int, ...] = (3, 4, 5)) -> np.ndarray:
    drawn = np.random.default_rng(seed).random(shape, np.float32)
    return drawn / drawn.sum(0)


def result(path):
    found = open_store(
        path, probabilities=("class", "y", "x"), labels=("y", "x"), margin=("y", "x")
    )
    return found["probabilities"][:], found["labels"][:], found["margin"][:]


# --- the mean -------------------------------------------------------------------------------------


def test_the_mean_of_scales_by_hand():
    first = np.array([[[0.8, 0.1]], [[0.2, 0.9]]], "f4")
    second = np.array([[[0.4, 0.3]], [[0.6, 0.7]]], "f4")
    found = fused([first, second])
    np.testing.assert_allclose(found, [[[0.6, 0.2]], [[0.4, 0.8]]], atol=1e-7)
    assert found.dtype == np.float32


def test_three_scales_count_the_same():
    maps = [probabilities(seed) for seed in range(3)]
    np.testing.assert_allclose(fused(maps), np.mean(maps, axis=0), atol=1e-6)


def test_the_inputs_are_left_alone():
    maps = [probabilities(0), probabilities(1)]
    before = [m.copy() for m in maps]
    fused(maps)
    np.testing.assert_array_equal(maps, before)


def test_scores_that_do_not_sum_to_1_are_normalised():
    scores = np.array([[[2, 30]], [[6, 10]]], "f4")
    np.testing.assert_allclose(fused([scores]), [[[0.25, 0.75]], [[0.75, 0.25]]])


def test_a_pixel_of_zeros_becomes_uniform():
    scores = np.array([[[0.0, 1]], [[0, 0]], [[0, 0]], [[0, 3]]], "f4")
    np.testing.assert_allclose(fused([scores])[:, 0], [[0.25, 0.25], [0.25, 0], [0.25, 0], [0.25, 0.75]])  # fmt: skip


# --- the step -------------------------------------------------------------------------------------


def test_two_scales_end_to_end(tmp_path):
    nodata = HERE.copy()
    nodata[0, :2] = True
    maps = [
        make_store(tmp_path / f"scale-{i}.zarr", probabilities=probabilities(i)) for i in (1, 2)
    ]
    fuse(
        maps=maps,
        rgb=make_rgb(tmp_path / "rgb.zarr", nodata),
        out=tmp_path / "p.zarr",
        class_names=NAMES,
    )
    found, labels, margin = result(tmp_path / "p.zarr")
    wanted = (probabilities(1) + probabilities(2)) / 2
    np.testing.assert_allclose(found[:, ~nodata], wanted[:, ~nodata], atol=1e-6)
    np.testing.assert_array_equal(labels[~nodata], wanted.argmax(0)[~nodata] + 1)
    ordered = np.sort(wanted, 0)
    np.testing.assert_allclose(margin[~nodata], (ordered[-1] - ordered[-2])[~nodata], atol=1e-6)
    assert (labels[nodata] == 0).all()
    assert (found[:, nodata] == 0).all()
    store = open_store(tmp_path / "p.zarr")
    assert class_names(store) == NAMES
    assert set(store.attrs["provenance"]["inputs"]) == {*map(str, maps), str(tmp_path / "rgb.zarr")}


GRID = Grid("a CRS", (1.0, 0.0, 2.0, 0.0, -1.0, 3.0))


def test_the_georeference_is_passed_on(tmp_path):
    rgb = make_store(
        tmp_path / "rgb.zarr",
        GRID,
        rgb=np.zeros((3, 4, 5), "f4"),
        nodata=HERE,
    )
    scale = make_store(tmp_path / "s.zarr", probabilities=probabilities())
    fuse(maps=[scale], rgb=rgb, out=tmp_path / "p.zarr", class_names=NAMES)
    assert grid_of(open_store(tmp_path / "p.zarr")) == GRID


def test_one_class(tmp_path):
    scale = make_store(tmp_path / "s.zarr", probabilities=np.ones((1, 4, 5), "f4"))
    fuse(
        maps=[scale],
        rgb=make_rgb(tmp_path / "rgb.zarr", HERE),
        out=tmp_path / "p.zarr",
        class_names=["water"],
    )
    found, labels, margin = result(tmp_path / "p.zarr")
    assert (found == 1).all()
    assert (labels == 1).all()
    assert (margin == 1).all()


# --- a map of one's own ---------------------------------------------------------------------------


@pytest.mark.parametrize("scene", ["samson_65_0", "muufl_50_2"])
def test_own_pseudo_labels_from_npz(tmp_path, shared, scene):
    file = shared / "pseudo" / f"{scene}.npz"
    given = np.load(file)
    truth = np.load(shared / "pseudo" / f"{scene.split('_')[0]}_gt.npz")
    height, width, count = given["probs"].shape
    fuse(
        maps=[file],
        rgb=make_rgb(tmp_path / "rgb.zarr", np.zeros((height, width), bool)),
        out=tmp_path / "p.zarr",
        class_names=[str(n) for n in truth["names"]],
    )
    found, labels, _ = result(tmp_path / "p.zarr")
    assert found.shape == (count, height, width)
    np.testing.assert_allclose(found, given["probs"].transpose(2, 0, 1), atol=1e-6)
    assert (labels == truth["gt"])[truth["gt"] > 0].mean() == pytest.approx(given["oa"], abs=1e-9)


def write_tiff(path, data):
    profile = {"driver": "GTiff", "count": data.shape[0], "dtype": data.dtype.name,
               "height": data.shape[1], "width": data.shape[2]}  # fmt: skip
    with rasterio.open(path, "w", **profile) as raster:
        raster.write(data)
    return path


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8"])
def test_own_pseudo_labels_from_geotiff(tmp_path, dtype):
    data = (100 * probabilities()).astype(dtype)
    file = write_tiff(tmp_path / "own.tif", data)
    fuse(
        maps=[file],
        rgb=make_rgb(tmp_path / "rgb.zarr", HERE),
        out=tmp_path / "p.zarr",
        class_names=NAMES,
    )
    found, _, _ = result(tmp_path / "p.zarr")
    np.testing.assert_allclose(found, data / data.sum(0, dtype="f8"), atol=1e-6)


def test_nothing_is_written_when_a_map_does_not_fit(tmp_path):
    np.savez(tmp_path / "a.npz", probs=np.ones((4, 5, 2)))
    rgb = make_rgb(tmp_path / "rgb.zarr", HERE)
    with pytest.raises(UserError):
        fuse(maps=[tmp_path / "a.npz"], rgb=rgb, out=tmp_path / "p.zarr", class_names=NAMES)
    assert {p.name for p in tmp_path.iterdir()} == {"a.npz", "rgb.zarr"}
