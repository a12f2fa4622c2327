"""Ground truth: labels and abundances of all formats, matched by name; a mismatch is an error that says so."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import rasterio
from defaults import GROUND_TRUTH
from scipy.io import savemat

from special_steps.core.errors import UserError
from special_steps.io.ground_truth import label_map, match_classes, read_ground_truth

NAMES = ["water", "tree", "soil"]
LABEL_OF = {"soil": 1, "tree": 2, "water": 4}
LABELS = np.array([[0, 1, 2], [4, 4, 1]], np.uint8)
EXPECTED = np.array([[0, 3, 2], [1, 1, 3]], np.uint8)


def read(path, **options) -> np.ndarray:
    """The labels, with the schema's defaults for what a test does not say."""
    ours = {"labels": LABEL_OF, "class_names": NAMES, "scene_shape": (2, 3)}
    return read_ground_truth(path, **GROUND_TRUTH | ours | options)


def write_raster(path: Path, layers: np.ndarray, **options) -> Path:
    layers = np.atleast_3d(layers.T).T if layers.ndim == 2 else layers
    with rasterio.open(
        path, "w", driver="PNG" if path.suffix == ".png" else "GTiff", count=len(layers),
        height=layers.shape[1], width=layers.shape[2], dtype=layers.dtype, **options,
    ) as raster:  # fmt: skip
        raster.write(layers)
    return path


@pytest.fixture(params=["a.mat", "a.h5", "a.npz", "a.npy", "a.tif", "a.png", "a.hdr"])
def label_file(request, tmp_path):
    path = tmp_path / request.param
    if path.suffix == ".mat":
        savemat(path, {"gt": LABELS, "names": np.array(NAMES)})
    elif path.suffix == ".h5":
        with h5py.File(path, "w") as file:
            file["gt"] = LABELS
    elif path.suffix == ".npz":
        np.savez(path, gt=LABELS, names=np.array(NAMES))
    elif path.suffix == ".npy":
        np.save(path, LABELS)
    elif path.suffix == ".hdr":
        (tmp_path / "a.img").write_bytes(LABELS.tobytes())
        path.write_text(
            "ENVI\nsamples = 3\nlines = 2\nbands = 1\ndata type = 1\ninterleave = bsq\nbyte order = 0\n"
        )
    else:
        write_raster(path, LABELS)
    return path


def test_labels_of_every_format(label_file):
    labels = read(label_file)
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, EXPECTED)


def test_named_variable_and_axes(tmp_path):
    np.savez(tmp_path / "a.npz", gt=LABELS.T.ravel(), other=LABELS)
    labels = read(tmp_path / "a.npz", variable="gt", axes="(x y)", shape={"y": 2})
    np.testing.assert_array_equal(labels, EXPECTED)


def test_several_labels_of_one_class_and_more_that_are_unlabelled():
    labels = np.array([[0, 1], [2, 9]])
    out = match_classes(labels, {1: "soil", 2: "soil"}, NAMES, [0, 9], "f")
    np.testing.assert_array_equal(out, [[0, 3], [3, 0]])


def test_abundances_become_labels():
    shares = np.zeros((3, 1, 4))
    shares[:, 0, 0], shares[:, 0, 1], shares[:, 0, 3] = (
        (0.2, 0.5, 0.3),
        (0.9, 0, 0.1),
        (1, np.nan, 0),
    )
    labels = label_map(shares, None)
    np.testing.assert_array_equal(labels, [[2, 1, np.nan, np.nan]])


def test_no_data_and_nan_are_unlabelled(tmp_path):
    path = write_raster(tmp_path / "a.tif", LABELS, nodata=2)
    labels = read(path, labels={"soil": 1, "water": 4})
    np.testing.assert_array_equal(labels, np.where(EXPECTED == 2, 0, EXPECTED))
    path = write_raster(tmp_path / "b.tif", np.where(LABELS == 0, np.nan, LABELS).astype("f4"))
    labels = read(path, unlabelled=[])
    np.testing.assert_array_equal(labels, EXPECTED)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": {"soil": 1, "trees": 2, "water": 4}}, r"ground_truth\.labels: 'trees' is not a class"),
        ({"labels": {"sand": 1}}, "'sand' is not a class.*'water', 'tree', 'soil'"),
        ({"labels": {"soil": 1, "tree": 1}}, "'soil' and 'tree' both have label 1"),
        ({"labels": {"soil": 1}}, r"labels 2, 4 are in the file.*\.unlabelled"),
        ({"unlabelled": [0, 4]}, "label 4 of 'water' is in 'unlabelled', too"),
        ({"unlabelled": []}, "labels 0 are in the file"),
        ({"scene_shape": (3, 2)}, "has 2 x 3 pixels.*scene has 3 x 2"),
        ({"variable": "nothing"}, r"'gt' \(2, 3\)"),
    ],
)  # fmt: skip
def test_mistakes_name_the_file_and_the_values(tmp_path, options, message):
    savemat(tmp_path / "a.mat", {"gt": LABELS})
    with pytest.raises(UserError, match=rf"a\.mat.*{message}"):
        read(tmp_path / "a.mat", **options)


def test_labels_that_are_no_whole_numbers(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[1.5, 1.0]]))
    with pytest.raises(UserError, match=r"a\.npy: labels 1\.5"):
        read(tmp_path / "a.npy", scene_shape=(1, 2))


@pytest.mark.parametrize("layers", [3, 4])
@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_colours_are_labels_when_asked(tmp_path, name, layers):
    wanted = np.array([[1, 2, 0], [2, 2, 1]])
    palette = np.array([[0, 0, 0], [255, 0, 0], [255, 127, 80]], np.uint8)
    picture = np.concatenate([palette[wanted].transpose(2, 0, 1), np.full((1, 2, 3), 255, "u1")])
    path = write_raster(tmp_path / name, picture[:layers])
    options = {"class_names": ["buildings", "cars"], "colours": True}
    labels = {"buildings": 0xFF0000, "cars": 0xFF7F50}
    np.testing.assert_array_equal(read(path, labels=labels, **options), wanted)
    with pytest.raises(UserError, match=r"labels 0xff7f50 are in the file"):
        read(path, labels={"buildings": 0xFF0000}, **options)
    np.save(tmp_path / "b.npy", wanted)
    with pytest.raises(UserError, match=r"b\.npy: 1 layers of int64 are no picture"):
        read(tmp_path / "b.npy", labels=labels, **options)


def test_a_coloured_picture_is_refused(tmp_path):
    path = write_raster(tmp_path / "a.png", np.stack([LABELS] * 3))
    with pytest.raises(UserError, match=r"a\.png: a picture in colours.*0xRRGGBB"):
        read(path)


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"gt\.mat: no such file"):
        read(tmp_path / "gt.mat")


# --- real files ---


def test_samson_and_muufl_give_the_reference_labels(shared):
    for path, variable, stored in (
        ("samson/Samson.mat", "S_GT", "samson_gt.npz"),
        ("muufl/muufl_90x90.mat", "label", "muufl_gt.npz"),
    ):
        with np.load(shared / "pseudo" / stored) as file:
            expected, names = file["gt"], [str(n) for n in file["names"]]
        options = {
            "labels": {name: label for label, name in enumerate(names, 1)},
            "class_names": names,
            "scene_shape": expected.shape,
        }
        labels = read(shared / "data/scenes" / path, variable=variable, **options)
        np.testing.assert_array_equal(labels, expected)
        labels = read(shared / "pseudo" / stored, variable="gt", **options)
        np.testing.assert_array_equal(labels, expected)


def test_enmap_label_tiles(shared):
    tiles = sorted((shared / "data/scenes/enmap_potsdam/labels").glob("*.tif"))
    names = ["roof", "pavement", "low vegetation", "tree", "soil", "water"]
    stored = {name: label for label, name in enumerate(names, 1)}
    labels = read(tiles, labels=stored, class_names=names, scene_shape=(192, 160))
    assert np.bincount(labels.ravel())[1:].tolist() == [505, 953, 1694, 2070, 91, 359]
