"""Mean spectra of the map's classes."""

import json
import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from stores import make_cube, make_prediction, one_hot, with_confidence

from special_steps.core.errors import UserError
from special_steps.core.store import open_store
from special_steps.io.class_spectra import ClassSpectra, read_class_spectra
from special_steps.materials.told import Nearest
from special_steps.spectra import chunk_sums, class_spectra, joined, spectra, spectra_picture

NAMES = ["water", "trees", "snow"]
NM = [450.0, 550, 660, 800]
GOOD = [True, True, True, True]


class Scene:
    """300 x 280 pixels of two classes, a corner without data; its third class has no pixel."""

    def __init__(self, folder: Path) -> None:
        random = np.random.default_rng(0)
        self.labels = random.integers(1, 3, (300, 280))
        self.labels[:20, :30] = 0
        level = np.array([1000.0, 3000, 2000, 4000])[:, None, None]
        self.cube = (level * self.labels + random.normal(0, 3, (4, 300, 280))).astype("f4")
        self.folder = folder
        make_cube(folder / "cube.zarr", self.cube, NM, [True, True, False, True], self.labels == 0)
        sure = one_hot(self.labels, 3)
        make_prediction(folder / "map.zarr", sure, NAMES, self.labels == 0)

    def found(self) -> ClassSpectra:
        cube, prediction = (open_store(self.folder / f"{n}.zarr") for n in ("cube", "map"))
        return class_spectra(cube, prediction, None)

    def write(self, **others) -> ClassSpectra:
        options = {
            "cube": self.folder / "cube.zarr",
            "prediction": self.folder / "map.zarr",
            "evidence": [],
            "reject": None,
            "colours": {},
            "table": self.folder / "spectra.csv",
            "picture": self.folder / "spectra.png",
        }
        spectra(**options | others)
        return read_class_spectra(self.folder / "spectra.csv", NAMES)


@pytest.fixture
def scene(tmp_path) -> Scene:
    return Scene(tmp_path)


def test_mean_and_spread_equal_a_plain_computation(scene):
    """A spread of a thousandth of the values: squares of float32 would leave rounding."""
    found = scene.found()
    for k in (0, 1):
        pixels = scene.cube[:, scene.labels == k + 1].astype(float)
        assert found.pixels[k] == pixels.shape[1]
        np.testing.assert_allclose(found.mean[k], pixels.mean(1), rtol=1e-6)
        np.testing.assert_allclose(found.spread[k], pixels.std(1), rtol=1e-4)
    assert (
        found.pixels[2] == 0 and np.isnan(found.mean[2]).all() and np.isnan(found.spread[2]).all()
    )


def test_parts_are_joined_as_the_whole():
    random = np.random.default_rng(1)
    values, labels = random.normal(500, 5, (40, 1000)).astype("f4"), random.integers(0, 4, 1000)
    labels[:400][labels[:400] == 3] = 1  # the first part lacks a class
    whole = chunk_sums(values, labels, 3)
    parts = joined(*(chunk_sums(values[:, at], labels[at], 3) for at in (np.s_[:400], np.s_[400:])))
    for one, two in zip(whole, parts, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-4)


def test_the_table(scene):
    found = scene.write()
    table = pd.read_csv(scene.folder / "spectra.csv")
    assert list(table["class"]) == np.repeat(NAMES, 4).tolist()
    assert list(table["wavelength_nm"][:4]) == NM
    assert list(table["good_band"][:4]) == [True, True, False, True]
    assert table["mean"][8:].isna().all() and (table["pixels"][8:] == 0).all()
    np.testing.assert_allclose(found.mean, scene.found().mean, rtol=1e-8)
    with Image.open(scene.folder / "spectra.png") as image:
        assert image.size[0] > 1000


def test_pixels_that_are_not_sure_are_of_no_class(scene, tmp_path):
    with pytest.raises(UserError, match=r"map.zarr: reject 0.6 needs a calibrated confidence"):
        scene.write(reject=0.6)
    sure = np.where(scene.labels == 2, 0.9, 0.4)
    path = with_confidence(tmp_path / "map.zarr", tmp_path / "sure.zarr", sure)
    found = scene.write(prediction=path, reject=0.6)
    assert found.pixels.tolist() == [0, int((scene.labels == 2).sum()), 0]


def evidence(folder: Path) -> list[Path]:
    """Trees without a red edge: what the map calls so has one."""
    rows = [f"trees,tree_canopy,{nm:g},1,0.3" for nm in (550, 660, 800)]
    rows += [f"water,clear_water,{nm:g},1,{v}" for nm, v in ((550, 3), (660, 2), (800, 4))]
    (folder / "e.csv").write_text("\n".join(["class,material,wavelength,pixels,library", *rows]))
    one = {"spectra": 2, "share": 0.5, "angle": 2.0, "nearest": {"tree_canopy": 1.0}}
    told = [{"class": name} | one for name in NAMES[:2]]
    (folder / "e.json").write_text(json.dumps({"classes": told, "warnings": []}))
    return [folder / "e.json", folder / "e.csv"]


def test_conflicts_with_the_library_are_warned_of(tmp_path, caplog):
    scene = Scene(tmp_path)
    make_cube(tmp_path / "cube.zarr", scene.cube, NM, GOOD, scene.labels == 0)
    with caplog.at_level(logging.WARNING, "special"):
        scene.write(evidence=evidence(tmp_path))
    (said,) = (record.getMessage() for record in caplog.records)
    assert said.startswith("what the map calls 'trees' has the red edge of green plants")


def test_the_picture():
    found = ClassSpectra(
        np.array(NM), np.array(GOOD), np.array([30, 0, 10]), np.ones((3, 4)), np.full((3, 4), 0.1)
    )
    near = Nearest("clear_water", np.array([550.0, 660]), np.array([2.0, 2.0]))
    told = {"water": {"nearest": {"clear_water": 0.75, "turbid_water": 0.25}}}
    figure = spectra_picture(
        NAMES, ["#000001", "#000002", "#000003"], found, told, {"water": near}, ["a thing"]
    )
    water, trees, snow = figure.axes
    assert water.get_title(loc="left") == (
        "water, 75.0% of the map\nclear water 75%, turbid water 25%"
    )
    assert trees.get_title(loc="left") == "trees\nno pixel" and not trees.lines
    mean, library = water.lines
    assert mean.get_color() == "#000001" and len(water.collections) == 1
    np.testing.assert_allclose(library.get_ydata(), 1)
    assert len(snow.lines) == 1
    assert figure._supxlabel.get_text() == "A thing."


def test_a_cube_of_another_size_is_refused(scene, tmp_path):
    make_cube(tmp_path / "cube.zarr", scene.cube[:, :5], NM)
    with pytest.raises(UserError, match=r"cube.zarr: 5 x 280 pixels, but .*map.zarr has 300 x 280"):
        scene.write()
    assert not (tmp_path / "spectra.csv").exists()
