"""A user's own class probabilities: read from every format, and refused when they are none."""

import h5py
import numpy as np
import pytest
import rasterio
from rasters import write_envi
from stores import make_store

from special_steps.core.errors import UserError
from special_steps.io.pseudo_labels import read_probabilities

NAMES = ["soil", "tree", "water"]
HERE = np.zeros((4, 5), bool)  # no pixel without data


def probabilities(shape: tuple[int, ...] = (3, 4, 5)) -> np.ndarray:
    drawn = np.random.default_rng(0).random(shape, np.float32)
    return drawn / drawn.sum(0)


def write_tiff(path, data):
    profile = {"driver": "GTiff", "count": data.shape[0], "dtype": data.dtype.name,
               "height": data.shape[1], "width": data.shape[2]}  # fmt: skip
    with rasterio.open(path, "w", **profile) as raster:
        raster.write(data)
    return path


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("name", ["a.zarr", "a.npz", "a.npy", "a.h5", "a.tif", "scene.hdr"])
def test_every_format_gives_the_same(tmp_path, name):
    data, path = probabilities(), tmp_path / name
    if name == "a.zarr":
        make_store(path, probabilities=data)
    elif name == "a.npz":
        np.savez(path, probs=data.transpose(1, 2, 0), margin=data)
    elif name == "a.npy":
        np.save(path, data.transpose(1, 2, 0))
    elif name == "a.h5":
        with h5py.File(path, "w") as file:
            file["mine"] = data.transpose(1, 2, 0)
    elif name == "a.tif":
        write_tiff(path, data)
    else:
        write_envi(tmp_path, data, "bil")
    found = read_probabilities(path, NAMES, HERE)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, data)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("name", ["a.npz", "a.tif"])
def test_one_class(tmp_path, name):
    path = tmp_path / name
    if name == "a.npz":
        np.savez(path, probs=np.ones((4, 5, 1)))
    else:
        write_tiff(path, np.ones((1, 4, 5), "f4"))
    assert (read_probabilities(path, ["water"], HERE) == 1).all()


def test_values_of_masked_pixels_do_not_matter(tmp_path):
    nodata = HERE.copy()
    nodata[1, 1] = nodata[2, 2] = True
    data = probabilities()
    data[:, 1, 1], data[:, 2, 2] = np.nan, -9999
    np.savez(tmp_path / "own.npz", probs=data.transpose(1, 2, 0))
    found = read_probabilities(tmp_path / "own.npz", NAMES, nodata)
    np.testing.assert_array_equal(found[:, ~nodata], data[:, ~nodata])
    assert (found[:, nodata] == 0).all()
    with pytest.raises(UserError, match="finite and not negative"):
        read_probabilities(tmp_path / "own.npz", NAMES, HERE)


# --- what is refused ------------------------------------------------------------------------------


def refused(path, *words, names=NAMES):
    with pytest.raises(UserError) as caught:
        read_probabilities(path, names, HERE)
    for word in (str(path), *words):
        assert word in str(caught.value)


def test_a_missing_map(tmp_path):
    refused(tmp_path / "no.npz", "no such file")
    refused(tmp_path / "no.tif", "no such file")
    refused(tmp_path / "no.zarr", "no such store")


@pytest.mark.parametrize("shape", [(5, 4, 3), (4, 5, 2), (3, 4, 5)])
def test_a_map_of_another_size(tmp_path, shape):
    np.savez(tmp_path / "a.npz", probs=np.ones(shape))
    scene = "3 classes (soil, tree, water) of (4, 5)"
    refused(tmp_path / "a.npz", f"{shape[2]} classes of {shape[:2]}", scene)


def test_a_flat_map(tmp_path):
    np.savez(tmp_path / "a.npz", probs=np.ones((20, 3)))
    refused(tmp_path / "a.npz", "(20, 3)", "must be (y, x, class)")


def test_npz_with_other_names(tmp_path):
    np.savez(tmp_path / "a.npz", labels=np.ones(3), margin=np.ones(3))
    refused(tmp_path / "a.npz", "no variable 'probs'", "'labels' (3,), 'margin' (3,)")


def test_npz_that_is_none(tmp_path):
    (tmp_path / "a.npz").write_text("text")
    refused(tmp_path / "a.npz", "cannot be read")
    np.save(tmp_path / "b.npy", np.ones(3))
    (tmp_path / "b.npy").rename(tmp_path / "b.npz")
    refused(tmp_path / "b.npz", "cannot be read", "another format")


def test_npz_cut_short(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", probs=probabilities().transpose(1, 2, 0))
    whole = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(whole[: len(whole) // 2])
    refused(tmp_path / "a.npz", "cannot be read", "damaged")


def test_npz_with_changed_bytes(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", probs=probabilities().transpose(1, 2, 0))
    data = bytearray((tmp_path / "a.npz").read_bytes())
    data[150:170] = bytes(20)
    (tmp_path / "a.npz").write_bytes(data)
    refused(tmp_path / "a.npz", "cannot be read")


def test_pickled_objects_are_never_loaded(tmp_path):
    np.savez(tmp_path / "a.npz", probs=np.array([[[{}]]], dtype=object))
    refused(tmp_path / "a.npz", "no variable 'probs'; the file has no numeric variable")


def test_words_are_no_probabilities(tmp_path):
    np.savez(tmp_path / "a.npz", probs=np.full((4, 5, 3), "x"))
    refused(tmp_path / "a.npz", "no numeric variable")


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.1])
def test_values_that_are_no_probabilities(tmp_path, value):
    data = probabilities().transpose(1, 2, 0).copy()
    data[2, 3, 1] = value
    np.savez(tmp_path / "a.npz", probs=data)
    refused(tmp_path / "a.npz", "finite and not negative")


def test_a_raster_that_is_none(tmp_path):
    (tmp_path / "a.tif").write_text("text")
    refused(tmp_path / "a.tif", "cannot be read")


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_raster_with_another_number_of_bands(tmp_path):
    write_tiff(tmp_path / "a.tif", np.ones((4, 4, 5), "f4"))
    refused(tmp_path / "a.tif", "4 classes", "3 classes")
