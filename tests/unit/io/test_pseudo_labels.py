"""A user's own class probabilities: read from every format, and refused when they are none."""

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import rasterio
from rasters import write_envi
from stores import make_store

from special_steps.core.errors import UserError
from special_steps.core.store import UNKNOWN, Grid
from special_steps.io import pseudo_labels
from special_steps.io.pseudo_labels import read_probabilities
from special_steps.io.record import Source

NAMES = ["soil", "tree", "water"]
HERE = np.zeros((4, 5), bool)  # no pixel without data


def probabilities(shape: tuple[int, ...] = (3, 4, 5)) -> np.ndarray:
    drawn = np.random.default_rng(0).random(shape, np.float32)
    return drawn / drawn.sum(0)


def read(path, names=NAMES, nodata=HERE, grid=UNKNOWN, align=False) -> np.ndarray:
    return read_probabilities(path, names, nodata, grid=grid, align=align)


def write_tiff(path, data, **options):
    profile = {"driver": "GTiff", "count": data.shape[0], "dtype": data.dtype.name,
               "height": data.shape[1], "width": data.shape[2]} | options  # fmt: skip
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
    found = read(path)
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
    assert (read(path, ["water"]) == 1).all()


def test_values_of_masked_pixels_do_not_matter(tmp_path):
    nodata = HERE.copy()
    nodata[1, 1] = nodata[2, 2] = True
    data = probabilities()
    data[:, 1, 1], data[:, 2, 2] = np.nan, -9999
    np.savez(tmp_path / "own.npz", probs=data.transpose(1, 2, 0))
    found = read(tmp_path / "own.npz", nodata=nodata)
    np.testing.assert_array_equal(found[:, ~nodata], data[:, ~nodata])
    assert (found[:, nodata] == 0).all()
    with pytest.raises(UserError, match="finite and not negative"):
        read(tmp_path / "own.npz")


# --- what is refused ------------------------------------------------------------------------------


def refused(path, *words, names=NAMES):
    with pytest.raises(UserError) as caught:
        read(path, names)
    for word in (str(path), *words):
        assert word in str(caught.value)


def test_a_missing_map(tmp_path):
    refused(tmp_path / "no.npz", "no such file")
    refused(tmp_path / "no.tif", "no such file")
    refused(tmp_path / "no.zarr", "no such store")


def test_a_map_of_another_size(tmp_path):
    np.savez(tmp_path / "a.npz", probs=np.ones((5, 4, 3)))
    refused(tmp_path / "a.npz", "has 5 x 4 pixels (height x width), the scene has 4 x 5")
    make_store(tmp_path / "a.zarr", probabilities=np.ones((3, 5, 4), "f4"))
    refused(tmp_path / "a.zarr", "3 classes of (5, 4)", "3 classes (soil, tree, water) of (4, 5)")


@pytest.mark.parametrize("shape", [(4, 5, 2), (3, 4, 5)])
def test_a_map_of_other_classes(tmp_path, shape):
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
    refused(tmp_path / "b.npz", "no variable 'probs'")


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
    refused(tmp_path / "a.npz", "'probs' holds objects; they are never loaded")


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


# --- what is no map of probabilities, though it has numbers ---------------------------------------


def given(monkeypatch, layers: np.ndarray, masked: np.ndarray | None = None, names=NAMES, **stated):
    """The probabilities of a file that holds the layers and states so much of itself."""
    layers = np.asarray(layers)
    source = Source([Path("p.tif")], layers.shape, lambda rows, columns: layers[:, rows, columns])
    if masked is not None:
        source = replace(source, masked=lambda rows, columns: masked[rows, columns])
    monkeypatch.setattr(pseudo_labels, "open_source", lambda *_, **__: replace(source, **stated))
    monkeypatch.setattr(Path, "exists", lambda path: True)
    return read(Path("p.tif"), names, np.zeros(layers.shape[1:], bool))


LABELS = np.array([[1, 1, 2], [2, 3, 0]])
ONE_HOT = np.arange(1, 4)[:, None, None] == LABELS
COLOURS = np.array([[0, 0, 0], [128, 64, 128], [70, 70, 70], [107, 142, 35]], "u1")
PICTURE = COLOURS[LABELS].transpose(2, 0, 1)


@pytest.mark.parametrize(
    ("layers", "photometric"),
    [
        (PICTURE, "rgb"),
        (PICTURE.astype("u2") * 257, "rgb"),
        (255 * ONE_HOT.astype("u1"), "rgb"),  # pure red, green and blue
        (np.stack([LABELS] * 3).astype("u1"), "rgb"),
    ],
)
def test_a_picture_in_colours(monkeypatch, layers, photometric):
    with pytest.raises(
        UserError, match=r"p\.tif: a picture in colours, no probabilities; write a band"
    ):
        given(monkeypatch, layers, photometric=photometric)


@pytest.mark.parametrize("kind", ["u1", "i4", "f4"])
def test_labels_are_no_probabilities(monkeypatch, kind):
    with pytest.raises(
        UserError, match=r"whole numbers that are no probabilities .up to 4.*write a band"
    ):
        given(monkeypatch, np.stack([LABELS, LABELS + 1, LABELS]).astype(kind))
    with pytest.raises(
        UserError, match=r"1 classes of.*a map of labels.*write a band for each class"
    ):
        given(monkeypatch, LABELS[None].astype(kind))
    with pytest.raises(UserError, match="whole numbers that are no probabilities"):
        given(monkeypatch, LABELS[None].astype(kind), names=["water"])


@pytest.mark.parametrize(
    ("layers", "photometric"),
    [
        (ONE_HOT.astype("u1"), "rgb"),
        (ONE_HOT, ""),
        (255 * ONE_HOT.astype("u1"), ""),
        (100 * ONE_HOT.astype("u1"), "rgb"),
        ((100 * probabilities()).astype("u1"), "rgb"),
        (np.round(255 * probabilities()).astype("u1"), "rgb"),
        (np.round(1e4 * probabilities()).astype("u2"), ""),
        (100 * probabilities(), ""),
        (np.random.default_rng(0).random((3, 4, 5)), ""),  # of no total
    ],
)
def test_one_hot_maps_percent_and_scores_are_probabilities(monkeypatch, layers, photometric):
    found = given(monkeypatch, layers, photometric=photometric)
    np.testing.assert_array_equal(found, layers.astype("f4"))


def test_nothing_but_zeros(monkeypatch):
    with pytest.raises(UserError, match="no pixel of the scene has a probability over 0"):
        given(monkeypatch, np.zeros((3, 4, 5)))


# --- no data, masks, scale, grids -----------------------------------------------------------------


def test_where_the_file_has_none_by_its_own_account_all_classes_are_alike(monkeypatch, caplog):
    data, masked = probabilities(), HERE.copy()
    masked[0, 0], data[1, 2, 2], data[:, 3, 3] = True, -9999, -9999
    found = given(monkeypatch, data, masked, nodata=(-9999.0,))
    lost = masked.copy()
    lost[2, 2] = lost[3, 3] = True
    np.testing.assert_array_equal(found, np.where(lost, 0, data))
    assert "no probabilities in 15.0 % of the scene" in caplog.text
    data[data == -9999] = np.nan
    np.testing.assert_array_equal(given(monkeypatch, data, masked, nodata=(np.nan,)), found)
    with pytest.raises(
        UserError, match=r"2 pixels are not, such as nan; .*the file's no-data value"
    ):
        given(monkeypatch, data, masked)


def test_a_no_data_value_that_is_a_probability(monkeypatch):
    data = np.where(ONE_HOT, 1.0, 0.0)
    np.testing.assert_array_equal(given(monkeypatch, data, nodata=(0.0,)), data)


def test_scale_and_offset_of_bands_count(monkeypatch):
    scale, offset = np.array([100.0, 50.0, 100.0]), np.array([0.0, 0.1, 0.0])
    stored = probabilities()
    found = given(monkeypatch, stored, scale=scale, offset=offset)
    right = stored / scale[:, None, None] + offset[:, None, None]
    np.testing.assert_allclose(found, right, rtol=1e-6)


def test_another_grid(tmp_path):
    crs = rasterio.crs.CRS.from_epsg(32633)
    scene = Grid(crs.to_wkt(version="WKT2_2019"), (10.0, 0, 0, 0, -10.0, 0))
    data = probabilities()
    place = {"crs": crs, "transform": rasterio.Affine(10, 0, 20, 0, -10, 0)}
    path = write_tiff(tmp_path / "a.tif", data, **place)
    with pytest.raises(
        UserError, match=r"20 m east.*\(2 pixels in x\).*pseudo_labels\.align: true"
    ):
        read(path, grid=scene)
    found = read(path, grid=scene, align=True)
    np.testing.assert_array_equal(found[:, :, 2:], data[:, :, :3])
    assert not found[:, :, :2].any()
