"""What evidence says, in words, and where a map contradicts it."""

import json

import numpy as np
import pytest

from special_steps.io.class_spectra import ClassSpectra
from special_steps.materials.told import (
    Nearest,
    as_bright,
    conflicts,
    nearest_words,
    read_evidence,
)

NM = np.arange(450.0, 1000, 25)
PLANT = np.where(NM < 700, 0.05, 0.5)
ROAD = np.full(len(NM), 0.2)
SOIL = np.linspace(0.1, 0.4, len(NM))
LIBRARY = {
    "trees": Nearest("tree_canopy", NM, PLANT),
    "road": Nearest("sidewalk", NM, ROAD),
    "soil": Nearest("soil", NM, SOIL),
}


def spectra(*means: np.ndarray, pixels: int = 9) -> ClassSpectra:
    mean = np.array(means)
    good = np.ones(len(NM), bool)
    return ClassSpectra(NM, good, np.full(len(mean), pixels), mean, np.zeros(mean.shape))


def test_a_map_that_agrees_has_no_conflict():
    bright = spectra(3 * PLANT, 9 * ROAD, 2 * SOIL)
    assert conflicts(list(LIBRARY), bright, LIBRARY) == []


def test_the_red_edge():
    lost, found = conflicts(["trees", "road"], spectra(ROAD, PLANT), LIBRARY)
    assert lost == (
        "what the map calls 'trees' lacks the red edge of green plants, which its nearest material in the library"
        " (tree canopy) has: part of it may be something else"
    )
    assert (
        found.startswith("what the map calls 'road' has the red edge")
        and "sidewalk) has not" in found
    )


def test_another_class_s_shape():
    (said,) = conflicts(["road"], spectra(SOIL), LIBRARY)
    assert said.startswith("what the map calls 'road' looks more like 'soil' (soil, 0 degrees off)")


@pytest.mark.parametrize("nm", [np.arange(1000.0, 1550, 25), NM])
def test_without_bands_or_light_there_is_no_edge(nm):
    """Values of 0, as of deep water, and bands beyond the edge: nothing is said, and nothing fails."""
    zeros = spectra(np.zeros(len(NM)))._replace(wavelengths=nm)
    assert all("red edge" not in said for said in conflicts(["road"], zeros, LIBRARY))


def test_classes_without_pixels_or_spectra_are_left_out():
    assert conflicts(["trees", "car"], spectra(ROAD, ROAD, pixels=0), LIBRARY) == []
    assert conflicts(["car"], spectra(ROAD), LIBRARY) == []
    assert conflicts(["trees"], spectra(ROAD), {}) == []


def test_as_bright():
    near = Nearest("x", NM[5:9], ROAD[5:9])
    np.testing.assert_allclose(as_bright(near, NM, 5 * ROAD), 1.0)


def test_words():
    one = {"spectra": 3, "share": 0.4, "angle": 20.4, "nearest": {"clear_water": 0.9, "mud": 0.1}}
    assert nearest_words(one) == (
        "Nearest materials: clear water (90%), mud (10%). Typical angle to the nearest spectrum: 20°, which is far."
    )
    assert "no spectrum for this word" in nearest_words({"spectra": 0})
    assert nearest_words({"spectra": 3, "share": 0.0}) == nearest_words(None) == ""


def test_reading(tmp_path):
    files = [tmp_path / "e.json", tmp_path / "e.csv"]
    told = {"classes": [{"class": "water", "spectra": 2}], "units": {"correction": None}}
    files[0].write_text(json.dumps(told))
    files[1].write_text("class,material,wavelength,pixels,library\nwater,clear,400,1,2\n")
    classes, nearest = read_evidence(files)
    assert classes["water"]["spectra"] == 2 and nearest["water"].material == "clear"
    files[0].write_text(json.dumps(told | {"units": {"correction": "quac"}}))
    assert read_evidence(files) == (classes, {})
    assert read_evidence([]) == ({}, {})
