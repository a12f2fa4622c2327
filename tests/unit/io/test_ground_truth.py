"""Ground truth: labels and abundances of all formats, matched by name; a mismatch is an error that says so."""

import logging
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import rasterio
from defaults import GROUND_TRUTH
from rasterio.enums import ColorInterp
from scipy.io import savemat

from special_steps.core.errors import UserError
from special_steps.core.store import UNKNOWN, Grid
from special_steps.io import ground_truth
from special_steps.io.ground_truth import match_classes, read_ground_truth
from special_steps.io.record import Source

NAMES = ["water", "tree", "soil"]
LABEL_OF = {"soil": 1, "tree": 2, "water": 4}
LABELS = np.array([[0, 1, 2], [4, 4, 1]], np.uint8)
EXPECTED = np.array([[0, 3, 2], [1, 1, 3]], np.uint8)


def read(path, **options) -> np.ndarray:
    """The labels, with the schema's defaults for what a test does not say."""
    ours = {"labels": LABEL_OF, "class_names": NAMES, "scene_shape": (2, 3), "scene_grid": UNKNOWN}
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
        ({"labels": {"soil": 9}, "unlabelled": [0, 1, 2, 4]}, "no labelled pixel.*6 have a label of"),
        ({"variable": "nothing"}, r"'gt' \(2, 3\)"),
    ],
)  # fmt: skip
def test_mistakes_name_the_file_and_the_values(tmp_path, options, message):
    savemat(tmp_path / "a.mat", {"gt": LABELS})
    with pytest.raises(UserError, match=rf"a\.mat.*{message}"):
        read(tmp_path / "a.mat", **options)


def test_labels_that_are_no_whole_numbers(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[1.5, 1.0]]))
    with pytest.raises(
        UserError, match=r"a\.npy: holds values that are no whole numbers, 1\.5,.*nearest neighbour"
    ):
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
    unknown = r"1 colours are in the file.*: 0xff7f50 .3 pixels, nearest to 0xff0000 of 'buildings'"
    with pytest.raises(UserError, match=unknown):
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


def given(
    monkeypatch,
    layers: np.ndarray,
    masked: np.ndarray | None = None,
    options: dict | None = None,
    **stated,
) -> np.ndarray:
    """The labels of a file that holds the layers and states so much of itself."""
    layers = np.asarray(layers)
    source = Source([Path("gt.tif")], layers.shape, lambda rows, columns: layers[:, rows, columns])
    if masked is not None:
        source = replace(source, masked=lambda rows, columns: masked[rows, columns])
    monkeypatch.setattr(ground_truth, "open_source", lambda *_, **__: replace(source, **stated))
    names = [f"class {i}" for i in range(1, 7)]
    labels = {name: i for i, name in enumerate(names, 1)}
    ours = {"labels": labels, "class_names": names, "scene_shape": layers.shape[1:]}
    return read("gt.tif", **ours | (options or {}))


# --- abundances -----------------------------------------------------------------------------------

SHARES = np.array(  # a pixel a row: three classes
    [[0.2, 0.5, 0.3], [0.9, 0, 0.1], [0, 0, 0], [0, 0.3, 0.7], [1 / 3, 1 / 3, 1 / 3]]
).T[:, None]  # fmt: skip
LARGEST = [[2, 1, 0, 3, 1]]


@pytest.mark.parametrize(
    "layers",
    [
        SHARES,
        SHARES.astype("f4"),
        100 * SHARES,
        np.floor(100 * SHARES).astype("u1"),
        np.round(255 * SHARES).astype("u1"),
        np.round(1e4 * SHARES).astype("i2"),
        np.where(SHARES > 0, SHARES, -1e-6),
    ],
)
def test_abundances_become_labels(monkeypatch, layers):
    np.testing.assert_array_equal(given(monkeypatch, layers), LARGEST)


@pytest.mark.parametrize("kind", ["u1", "i4", "f4", bool])
@pytest.mark.parametrize("photometric", ["rgb", ""])
def test_one_hot_layers(monkeypatch, kind, photometric):
    """GDAL calls any three layers of 8 bits red, green and blue."""
    layers = (np.arange(1, 4)[:, None, None] == np.array([[1, 2], [3, 0]])).astype(kind)
    labels = given(monkeypatch, layers, photometric=photometric)
    np.testing.assert_array_equal(labels, [[1, 2], [3, 0]])


@pytest.mark.parametrize("fill", [-9999, -1, np.nan, np.inf, 255, 1e20])
@pytest.mark.parametrize("layer", [slice(None), 1])
def test_abundances_with_fill_that_nobody_states(monkeypatch, fill, layer, caplog):
    layers = SHARES.copy()
    layers[layer, 0, 1] = fill
    if fill in (255, 1e20) and layer == 1:
        with pytest.raises(UserError, match="layers that are no abundances"):
            given(monkeypatch, layers)
        return
    np.testing.assert_array_equal(given(monkeypatch, layers), [[2, 0, 0, 3, 1]])
    assert np.isnan(fill) or fill == np.inf or "1 pixels hold negative abundances" in caplog.text


def test_no_data_of_abundances(monkeypatch):
    layers = SHARES.copy()
    layers[1, 0, 0] = 7
    labels = given(monkeypatch, layers, nodata=(7.0, 0.0))
    np.testing.assert_array_equal(labels, [[0, 1, 0, 3, 1]])
    scaled = given(monkeypatch, 2 * SHARES - 3, scale=2.0, offset=1.5)
    np.testing.assert_array_equal(scaled, LARGEST)


RGB = np.array([[[128, 70, 107]], [[64, 70, 142]], [[128, 70, 35]]], np.uint8)


@pytest.mark.parametrize(
    ("layers", "photometric", "words"),
    [
        (RGB, "rgb", ["a picture in colours", "ground_truth.colours: true", "0x804080 (33.3 %)"]),
        (RGB.astype("u2") * 257, "rgb", ["a picture in colours", "0x804080"]),
        (np.concatenate([RGB, RGB[:1]]), "rgb", ["a picture in colours"]),
        (RGB, "", ["a picture in colours", "0x804080"]),
        (255 * np.eye(3, dtype="u1")[:, None], "rgb", ["a picture in colours", "0xff0000"]),
        (np.array([[[1, 2, 4]]] * 3, "u1"), "rgb", ["a picture in colours", "0x010101"]),
        (np.array([[[1, 1, 0]]] * 3, "u1"), "rgb", ["a picture in colours", "0x010101"]),
        (RGB / 255, "rgb", ["a picture in colours"]),
        (RGB.astype("f8"), "", ["3 layers that are no abundances", "ground_truth.colours: true"]),
        (np.array([[[1, 2, 3]], [[90, 80, 85]]]), "", ["2 layers that are no abundances", "a file of its own"]),
        (np.array([[[1, 2]]] * 5), "", ["5 layers that are no abundances", "sums from 5 to 10"]),
        (np.array([[[1, 2, 1, 3]]] * 2), "", ["2 layers that are no abundances"]),
        (np.random.default_rng(0).integers(100, 3000, (9, 2, 2)), "", ["9 layers that are no"]),
    ],
)  # fmt: skip
def test_layers_that_are_no_labels(monkeypatch, layers, photometric, words):
    with pytest.raises(UserError) as caught:
        given(monkeypatch, layers, photometric=photometric)
    for word in ("gt.tif: ", *words):
        assert word in str(caught.value)


def test_a_variable_of_several_layers_may_be_the_wrong_one(monkeypatch):
    layers = np.array([[[1, 2, 3]], [[90, 80, 85]]])
    with pytest.raises(UserError, match=r"ground_truth\.variable.*ground_truth\.axes"):
        given(monkeypatch, layers, variables={"a": (1, 3, 2)})


# --- masks and no data ----------------------------------------------------------------------------


def test_labels_under_a_mask_are_none(monkeypatch, caplog):
    layer, masked = np.array([[[1, 2, 1, 0]]]), np.array([[False, False, True, True]])
    np.testing.assert_array_equal(given(monkeypatch, layer, masked), [[1, 2, 0, 0]])
    assert "1 of 3 pixels with a label are hidden by the file's mask or alpha band" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.INFO, "special"):
        layer[0, 0, 2] = 0
        given(monkeypatch, layer, masked)
    assert "no label where the file's mask or alpha band says so" in caplog.text


def test_grey_and_alpha_are_labels_and_a_mask(tmp_path):
    for name in ("a.tif", "a.png"):
        layers = np.stack([LABELS, np.where(LABELS == 2, 0, 255)]).astype("u1")
        path = write_raster(tmp_path / name, layers)
        if name == "a.tif":
            with rasterio.open(path, "r+") as raster:
                raster.colorinterp = [ColorInterp.gray, ColorInterp.alpha]
        np.testing.assert_array_equal(read(path), np.where(LABELS == 2, 0, EXPECTED))


@pytest.mark.parametrize("kind", ["u1", "i2", "f4"])
def test_a_label_that_the_file_calls_no_data_is_kept_and_told(monkeypatch, kind, caplog):
    layer = np.array([[[0, 0, 1, 9]]], kind)
    options = {"labels": {"class 1": 0, "class 2": 1}, "unlabelled": [9]}
    labels = given(monkeypatch, layer, options=options, nodata=(0.0, -9999.0, np.nan))
    np.testing.assert_array_equal(labels, [[1, 1, 2, 0]])
    assert "the file calls 0 no data (or transparent)" in caplog.text
    assert "as 'class 1', and so it is read, in 2 pixels" in caplog.text


def test_a_transparent_colour_of_a_palette_is_a_label_and_told(monkeypatch, caplog):
    palette = {0: (0, 0, 0, 255), 1: (255, 0, 0, 255), 2: (0, 255, 0, 0), 3: (9, 9, 9, 0)}
    layer, stated = np.array([[[1, 2, 3, 0]]], "u1"), {"colours": palette, "photometric": "palette"}
    options = {"labels": {"class 1": 1, "class 2": 2}}
    np.testing.assert_array_equal(
        given(monkeypatch, layer, options=options, **stated), [[1, 2, 0, 0]]
    )
    assert "calls 2 no data (or transparent)" in caplog.text and "'class 2'" in caplog.text


# --- colours --------------------------------------------------------------------------------------

COLOURS = {"labels": {"class 1": 0x804080, "class 2": 0x464646}, "unlabelled": [0x6B8E23]}
IN_COLOURS = {"options": COLOURS | {"colours": True}}


@pytest.mark.parametrize(
    "layers",
    [
        RGB,
        RGB.astype("f8"),
        RGB / 255,
        RGB.astype("u2"),
        RGB.astype("u2") * 257,
        RGB.astype("u2") * 256,
        RGB.astype("i4"),
        np.concatenate([RGB, np.full((1, 1, 3), 255, "u1")]),
    ],
)
def test_colours_of_all_types(monkeypatch, layers):
    np.testing.assert_array_equal(given(monkeypatch, layers, **IN_COLOURS), [[1, 2, 0]])


def test_what_is_no_label_in_a_picture(monkeypatch, caplog):
    alpha = np.concatenate([RGB, np.array([[[0, 255, 255]]], "u1")])
    np.testing.assert_array_equal(given(monkeypatch, alpha, **IN_COLOURS), [[0, 2, 0]])
    gaps = RGB.astype("f4")
    gaps[:, 0, 0] = np.nan
    np.testing.assert_array_equal(given(monkeypatch, gaps, **IN_COLOURS), [[0, 2, 0]])
    black = RGB.copy()
    black[:, 0, 1] = 0
    black[0, 0, 0] = 128
    np.testing.assert_array_equal(
        given(monkeypatch, black, nodata=(0.0,), **IN_COLOURS), [[1, 0, 0]]
    )
    caplog.clear()
    labels = given(monkeypatch, RGB, nodata=(70.0,), **IN_COLOURS)
    np.testing.assert_array_equal(labels, [[1, 2, 0]])
    assert "the file calls 0x464646 no data" in caplog.text


def test_colours_of_a_palette(monkeypatch):
    palette = {i: (*map(int, RGB[:, 0, i]), 255) for i in range(3)}
    layer = np.array([[[2, 1, 0]]], "u1")
    labels = given(monkeypatch, layer, colours=palette, **IN_COLOURS)
    np.testing.assert_array_equal(labels, [[0, 2, 1]])
    with pytest.raises(UserError, match=r"labels 0 are.*set ground_truth\.colours: true"):
        given(monkeypatch, layer, colours=palette, options=COLOURS | {"unlabelled": [1, 2]})
    with pytest.raises(
        UserError, match=r"positions in its palette, leave ground_truth\.colours out"
    ):
        given(monkeypatch, layer, colours=palette, options={"colours": True})


@pytest.mark.parametrize(
    "layers", [RGB.astype("u2") * 200, -RGB.astype("i2"), RGB + 0.5, RGB / 255 + 0.001]
)
def test_colours_that_are_not_of_8_bits(monkeypatch, layers):
    with pytest.raises(UserError, match=r"not 8 bits; convert it, such as with gdal_translate"):
        given(monkeypatch, layers, **IN_COLOURS)


def test_colours_changed_by_compression(monkeypatch):
    noise = np.random.default_rng(0).integers(-3, 4, (3, 20, 20))
    layers = (np.array([128, 64, 128])[:, None, None] + noise).astype("u1")
    with pytest.raises(UserError) as caught:
        given(monkeypatch, layers, **IN_COLOURS)
    for word in ("colours are in the file", "nearest to 0x804080 of 'class 1'", ", ...", "(JPEG)"):
        assert word in str(caught.value)


# --- labels of the config -------------------------------------------------------------------------


def test_labels_that_never_occur_are_told(monkeypatch, caplog):
    given(
        monkeypatch,
        np.array([[[1, 2, 3]]]),
        options={"labels": {"class 1": 1, "class 2": 2, "class 3": 3}},
    )
    assert not caplog.records
    given(monkeypatch, np.array([[[1, 2, 3, 5]]]))
    assert "4 ('class 4'), 6 ('class 6') of ground_truth.labels are in no pixel" in caplog.text


def test_nothing_labelled(monkeypatch):
    with pytest.raises(UserError, match=r"no labelled pixel: of 3 pixels.*2 have.*1 none"):
        given(monkeypatch, np.array([[[0, 0, np.nan]]]))
    with pytest.raises(UserError, match="no labelled pixel"):
        given(monkeypatch, np.array([[[1, 1]]]), np.ones((1, 2), bool))
    with pytest.raises(UserError, match="no labelled pixel"):
        given(monkeypatch, np.zeros((3, 1, 2)))


# --- where it lies --------------------------------------------------------------------------------


def test_another_grid_is_refused_or_aligned(tmp_path):
    scene = Grid(
        rasterio.crs.CRS.from_epsg(32633).to_wkt(version="WKT2_2019"), (10.0, 0, 0, 0, -10.0, 0)
    )
    place = {"crs": "EPSG:32633", "transform": rasterio.Affine(10, 0, -10, 0, -10, 0)}
    path = write_raster(tmp_path / "a.tif", LABELS, **place)
    with pytest.raises(
        UserError, match=r"10 m west of the scene .1 pixel in x.*ground_truth\.align: true"
    ):
        read(path, scene_grid=scene)
    labels = read(path, scene_grid=scene, align=True)
    np.testing.assert_array_equal(labels, [[3, 2, 0], [1, 3, 0]])


def test_what_lies_outside_is_no_label_even_when_0_is_one(tmp_path):
    scene = Grid(
        rasterio.crs.CRS.from_epsg(32633).to_wkt(version="WKT2_2019"), (10.0, 0, 0, 0, -10.0, 0)
    )
    place = {"crs": "EPSG:32633", "transform": rasterio.Affine(10, 0, -10, 0, -10, 0)}
    path = write_raster(tmp_path / "a.tif", LABELS, **place)
    options = {"labels": {"water": 0, "soil": 1, "tree": 2}, "unlabelled": [4], "align": True}
    np.testing.assert_array_equal(read(path, scene_grid=scene, **options), [[3, 2, 0], [0, 3, 0]])


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
