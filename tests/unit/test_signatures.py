"""The picture of the spectral evidence."""

import json

import numpy as np
import pandas as pd
from PIL import Image

from special_steps.core.palette import class_colours
from special_steps.signatures import MOST, signatures, signatures_picture

NM = [500.0, 510, 520, 600, 610]  # a gap after 520
CLASSES = [
    {"class": "water", "spectra": 9, "share": 0.25, "angle": 3.14, "nearest": {"clear_water": 0.9, "mud": 0.1}},
    {"class": "car", "spectra": 0, "share": 0.0, "angle": None, "nearest": {}},
    {"class": "soil", "spectra": 4, "share": 0.0, "angle": None, "nearest": {}},
]  # fmt: skip
ROWS = pd.DataFrame(
    {"class": "water", "material": "clear_water", "wavelength": NM, "pixels": [1, 2, 3, 4, 5], "library": 3.0}
)  # fmt: skip


def test_a_panel_for_each_class():
    figure = signatures_picture(ROWS, CLASSES, {})
    water, car, soil = figure.axes
    assert water.get_title(loc="left") == (
        "water, 25.0% of the scene\nclear water 90%, mud 10%; 3.1° off"
    )
    assert car.get_title(loc="left") == "car\nno spectra: the library has no say"
    assert soil.get_title(loc="left") == "soil\nno pixel"
    assert not car.lines and not soil.lines
    pixels, library = water.lines
    assert pixels.get_color() == class_colours(["water"])[0]
    np.testing.assert_array_equal(pixels.get_xdata(), [*NM[:3], np.nan, *NM[3:]])
    np.testing.assert_array_equal(pixels.get_ydata(), [1, 2, 3, np.nan, 4, 5])
    np.testing.assert_array_equal(library.get_ydata(), [3, 3, 3, np.nan, 3, 3])


def test_of_many_classes_the_largest_in_the_order_of_the_config():
    many = [
        {"class": f"c{i}", "spectra": 1, "share": share, "angle": 1.0, "nearest": {"a": 1.0}}
        for i, share in enumerate([0.0, 0.5, *[0.01] * MOST])
    ]
    rows = pd.concat([ROWS.assign(**{"class": one["class"]}) for one in many[1:]])
    titles = [axis.get_title(loc="left") for axis in signatures_picture(rows, many, {}).axes]
    assert len([title for title in titles if title]) == MOST
    assert titles[0].startswith("c1, 50.0%") and titles[1].startswith("c2, ")


def test_the_step(tmp_path, recwarn):
    ROWS.to_csv(tmp_path / "e.csv", index=False)
    (tmp_path / "e.json").write_text(json.dumps({"classes": CLASSES}))
    files = {
        "table": tmp_path / "e.csv",
        "found": tmp_path / "e.json",
        "picture": tmp_path / "e.png",
    }
    signatures(**files, colours={})
    with Image.open(tmp_path / "e.png") as image:
        assert image.size[0] > 1000
    assert [str(w.message) for w in recwarn] == []


def test_evidence_that_was_not_used(tmp_path, recwarn):
    ROWS[:0].to_csv(tmp_path / "e.csv", index=False)
    bare = [{"class": "car", "spectra": 0}, {"class": "soil", "spectra": 3}]
    (tmp_path / "e.json").write_text(json.dumps({"classes": bare}))
    files = {
        "table": tmp_path / "e.csv",
        "found": tmp_path / "e.json",
        "picture": tmp_path / "e.png",
    }
    signatures(**files, colours={})
    with Image.open(tmp_path / "e.png") as image:
        assert image.format == "PNG"
    assert [str(w.message) for w in recwarn] == []


def test_colours_of_the_users_own():
    water, *_ = signatures_picture(ROWS, CLASSES, {"water": "#010203"}).axes
    assert water.lines[0].get_color() == "#010203"
