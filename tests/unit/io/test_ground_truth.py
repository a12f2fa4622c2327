"""Ground truth: labels and abundances of all formats, matched by name; a mismatch is an error that says so."""

import json
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import rasterio
from scipy.io import savemat

from special_steps.core.errors import UserError
from special_steps.io.ground_truth import check, label_map, match_classes, read_ground_truth

NAMES = ["water", "tree", "soil"]
CLASSES = {1: "soil", 2: "tree", 4: "water"}
LABEL_OF = {name: label for label, name in CLASSES.items()}
LABELS = np.array([[0, 1, 2], [4, 4, 1]], np.uint8)
EXPECTED = np.array([[0, 3, 2], [1, 1, 3]], np.uint8)


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
    labels = read_ground_truth(label_file, classes=CLASSES, class_names=NAMES, scene=(2, 3))
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, EXPECTED)


def test_named_variable_and_axes(tmp_path):
    np.savez(tmp_path / "a.npz", gt=LABELS.T.ravel(), other=LABELS)
    labels = read_ground_truth(
        tmp_path / "a.npz", variable="gt", axes="(x y)", shape={"y": 2}, classes=CLASSES, class_names=NAMES
    )  # fmt: skip
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
    labels = label_map(shares)
    np.testing.assert_array_equal(labels, [[2, 1, np.nan, np.nan]])


def test_no_data_and_nan_are_unlabelled(tmp_path):
    path = write_raster(tmp_path / "a.tif", LABELS, nodata=2)
    labels = read_ground_truth(path, classes={1: "soil", 4: "water"}, class_names=NAMES)
    np.testing.assert_array_equal(labels, np.where(EXPECTED == 2, 0, EXPECTED))
    path = write_raster(tmp_path / "b.tif", np.where(LABELS == 0, np.nan, LABELS).astype("f4"))
    labels = read_ground_truth(path, classes=CLASSES, class_names=NAMES, unlabelled=[])
    np.testing.assert_array_equal(labels, EXPECTED)


def test_classes_from_json_have_text_keys(tmp_path):
    np.save(tmp_path / "a.npy", LABELS)
    classes = json.loads(json.dumps(CLASSES))
    labels = read_ground_truth(tmp_path / "a.npy", classes=classes, class_names=NAMES)
    np.testing.assert_array_equal(labels, EXPECTED)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": {1: "soil", 2: "trees", 4: "water"}}, r"'trees' is not among.*'water', 'tree', 'soil'"),
        ({"classes": {1: "soil"}}, r"labels 2, 4 are in the file.*\.unlabelled"),
        ({"unlabelled": [0, 4]}, r"\[4\] are in 'labels' and in 'unlabelled'"),
        ({"unlabelled": []}, "labels 0 are in the file"),
        ({"scene": (3, 2)}, "has 2 x 3 pixels.*scene has 3 x 2"),
        ({"variable": "nothing"}, r"'gt' \(2, 3\)"),
    ],
)  # fmt: skip
def test_mistakes_name_the_file_and_the_values(tmp_path, options, message):
    savemat(tmp_path / "a.mat", {"gt": LABELS})
    settings = {"classes": CLASSES, "class_names": NAMES} | options
    with pytest.raises(UserError, match=rf"a\.mat.*{message}"):
        read_ground_truth(tmp_path / "a.mat", **settings)


def test_labels_that_are_no_whole_numbers(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[1.5, 1.0]]))
    with pytest.raises(UserError, match=r"a\.npy: labels 1\.5"):
        read_ground_truth(tmp_path / "a.npy", classes=CLASSES, class_names=NAMES)


@pytest.mark.parametrize("layers", [3, 4])
@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_colours_are_labels_when_asked(tmp_path, name, layers):
    wanted = np.array([[1, 2, 0], [2, 2, 1]])
    palette = np.array([[0, 0, 0], [255, 0, 0], [255, 127, 80]], np.uint8)
    picture = np.concatenate([palette[wanted].transpose(2, 0, 1), np.full((1, 2, 3), 255, "u1")])
    path = write_raster(tmp_path / name, picture[:layers])
    options = {"class_names": ["buildings", "cars"], "colours": True}
    classes = {0xFF0000: "buildings", 0xFF7F50: "cars"}
    np.testing.assert_array_equal(read_ground_truth(path, classes=classes, **options), wanted)
    with pytest.raises(UserError, match=r"labels 0xff7f50 are in the file"):
        read_ground_truth(path, classes={0xFF0000: "buildings"}, **options)
    np.save(tmp_path / "b.npy", wanted)
    with pytest.raises(UserError, match=r"b\.npy: 1 layers of int64 are no picture"):
        read_ground_truth(tmp_path / "b.npy", classes=classes, **options)


def test_a_coloured_picture_is_refused(tmp_path):
    path = write_raster(tmp_path / "a.png", np.stack([LABELS] * 3))
    with pytest.raises(UserError, match=r"a\.png: a picture in colours.*0xRRGGBB"):
        read_ground_truth(path, classes=CLASSES, class_names=NAMES)


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"gt\.mat: no such file"):
        read_ground_truth(tmp_path / "gt.mat", classes=CLASSES, class_names=NAMES)


# --- check ---


def settings(folder: Path) -> dict:
    savemat(folder / "scene.mat", {"cube": np.ones((2, 3, 5))})
    np.save(folder / "gt.npy", LABELS)
    return {
        "cube": {"path": str(folder / "scene.mat"), "wavelengths": None, "scale": 2},
        "ground_truth": {"path": str(folder / "gt.npy"), "labels": LABEL_OF, "variable": None},
        "class_names": NAMES,
    }


def test_check_passes_what_fits(tmp_path):
    check(**settings(tmp_path), out=tmp_path / "new" / "ok")
    assert (tmp_path / "new" / "ok").is_file()


def test_check_finds_another_shape_and_a_missing_file(tmp_path):
    wrong = settings(tmp_path)
    savemat(tmp_path / "scene.mat", {"cube": np.ones((3, 3, 5))})
    with pytest.raises(UserError, match=r"2 x 3 pixels.*3 x 3"):
        check(**wrong, out=tmp_path / "ok")
    assert not (tmp_path / "ok").exists()
    (tmp_path / "gt.npy").unlink()
    with pytest.raises(UserError, match=r"gt\.npy: no such file"):
        check(**wrong)


def test_check_waits_for_a_scene_that_is_not_there_yet(tmp_path):
    later = settings(tmp_path)
    (tmp_path / "scene.mat").unlink()
    check(**later)
    check(**(later | {"cube": {"path": [str(tmp_path / "scene.mat"), str(tmp_path / "b.tif")]}}))


def test_check_from_the_command_line(tmp_path):
    options = settings(tmp_path)
    arguments = [item for k, v in options.items() for item in (f"--{k}", json.dumps(v))]

    def call() -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "-m", "special_steps.io.ground_truth", *arguments],
            capture_output=True, text=True, cwd=Path(__file__).parents[3],
        )  # fmt: skip

    assert call().returncode == 0
    np.save(tmp_path / "gt.npy", LABELS + 1)
    wrong = call()
    assert wrong.returncode == 1 and "labels 3, 5" in wrong.stderr and "Trace" not in wrong.stderr


# --- real files ---


def test_samson_and_muufl_give_the_reference_labels(shared):
    for path, variable, stored in (
        ("samson/Samson.mat", "S_GT", "samson_gt.npz"),
        ("muufl/muufl_90x90.mat", "label", "muufl_gt.npz"),
    ):
        with np.load(shared / "pseudo" / stored) as file:
            expected, names = file["gt"], [str(n) for n in file["names"]]
        options = {
            "classes": dict(enumerate(names, 1)),
            "class_names": names,
            "scene": expected.shape,
        }
        labels = read_ground_truth(shared / "data/scenes" / path, variable=variable, **options)
        np.testing.assert_array_equal(labels, expected)
        labels = read_ground_truth(shared / "pseudo" / stored, variable="gt", **options)
        np.testing.assert_array_equal(labels, expected)


def test_enmap_label_tiles(shared):
    tiles = sorted((shared / "data/scenes/enmap_potsdam/labels").glob("*.tif"))
    names = ["roof", "pavement", "low vegetation", "tree", "soil", "water"]
    labels = read_ground_truth(
        tiles, classes=dict(enumerate(names, 1)), class_names=names, scene=(192, 160)
    )
    assert np.bincount(labels.ravel())[1:].tolist() == [505, 953, 1694, 2070, 91, 359]
