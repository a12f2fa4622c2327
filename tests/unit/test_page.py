"""The page: what it holds, how large it gets, and what it does in a browser."""

import base64
import json
import re
import shutil
import zlib
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from browser import Browser
from stores import make_cube, make_prediction, make_rgb, with_confidence

from special_steps import page as module
from special_steps.core.errors import UserError
from special_steps.core.store import Grid, open_store
from special_steps.io.class_spectra import write_class_spectra
from special_steps.page import (
    area_text,
    directions,
    middles,
    page,
    quantised,
    read_layers,
    read_spectra,
    share_text,
    thinning,
)
from special_steps.spectra import class_spectra

UTM = (
    'PROJCS["WGS 84 / UTM zone 33N",GEOGCS["WGS 84",DATUM["WGS_1984",SPHEROID["WGS 84",6378137,298.257223563]],'
    'PRIMEM["Greenwich",0],UNIT["degree",0.0174532925199433]],PROJECTION["Transverse_Mercator"],'
    'PARAMETER["latitude_of_origin",0],PARAMETER["central_meridian",15],PARAMETER["scale_factor",0.9996],'
    'PARAMETER["false_easting",500000],PARAMETER["false_northing",0],UNIT["metre",1],AUTHORITY["EPSG","32633"]]'
)
NAMES = ["water", "trees & <shrubs>", "bare soil"]
COLOURS = {"water": "#0000ff", "trees & <shrubs>": "#00ff00", "bare soil": "#ff8000"}
RGB = [(0, 0, 255), (0, 255, 0), (255, 128, 0)]
CONFIG = {"scenes": {"lake": {"classes": NAMES, "cube": {"path": "lake </script> Ä.img"}}}}


def write_spectra(
    folder: Path, names: list[str], prediction: str = "map.zarr", reject: float | None = None
) -> None:
    """The table that spectra writes."""
    cube, predicted = open_store(folder / "cube.zarr"), open_store(folder / prediction)
    write_class_spectra(folder / "spectra.csv", names, class_spectra(cube, predicted, reject))


class Scene:
    """A scene of three classes in columns, the upper left corner without data, as the steps write it."""

    def __init__(self, folder: Path, height: int = 60, width: int = 90, seeds: int = 2) -> None:
        random = np.random.default_rng(0)
        self.labels = np.repeat(np.arange(width) * 3 // width + 1, height).reshape(width, height).T
        self.nodata = np.zeros((height, width), bool)
        self.nodata[:6, :9] = True
        chances = np.full((3, height, width), 0.1, "f4")
        np.put_along_axis(chances, self.labels[None] - 1, 0.8, 0)
        self.nm = np.array([400.0, 500, 600, 900, 910, 2000])
        self.means = np.array([[4, 3, 2, 0, 9, 1], [1, 2, 1, 0, 8, 4], [2, 4, 6, 0, 7, 9.0]]) / 10
        cube = self.means[self.labels - 1] + random.normal(0, 0.01, (height, width, 6))
        self.cube = np.where(self.nodata, 0, cube.transpose(2, 0, 1)).astype("f4")
        self.image = np.where(self.nodata, 0, self.labels / 4.0)[None] * np.ones((3, 1, 1))
        self.labels = np.where(self.nodata, 0, self.labels)
        good = [True, True, True, False, True, True]
        make_cube(folder / "cube.zarr", self.cube, self.nm, good, self.nodata)
        make_rgb(folder / "rgb.zarr", self.nodata, self.image.astype("f4"))
        place = {"crs": UTM, "transform": [2.0, 0, 372000, 0, -2, 5807000]}
        make_prediction(folder / "map.zarr", chances, NAMES, self.nodata, **place)
        for seed in range(seeds):  # the second one calls all soil water
            votes = chances if seed == 0 else chances[[2, 1, 0]]
            make_prediction(folder / f"seed-{seed}.zarr", votes, NAMES, self.nodata)
        write_spectra(folder, NAMES)
        self.folder, self.seeds = folder, [folder / f"seed-{seed}.zarr" for seed in range(seeds)]

    def write(self, out: str = "index.html", **others: Any) -> str:
        options: dict[str, Any] = {
            "cube": self.folder / "cube.zarr",
            "rgb": self.folder / "rgb.zarr",
            "prediction": self.folder / "map.zarr",
            "seeds": self.seeds,
            "map_id": {"scene": "lake", "run": "hsi", "stage": "consensus", "seed": None},
            "spectra": self.folder / "spectra.csv",
            "evidence": [],
            "told": [],
            "metrics": [],
            "assessment": [],
            "tables": {},
            "config": CONFIG,
            "colours": COLOURS,
            "reject": None,
            "out": self.folder / out,
        }
        page(**options | others)
        return (self.folder / out).read_text(encoding="utf-8")

    def file(self, name: str, content: Any) -> Path:
        path = self.folder / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path


@pytest.fixture
def scene(tmp_path) -> Scene:
    return Scene(tmp_path)


@pytest.fixture(scope="module")
def shared_scene(tmp_path_factory) -> Scene:
    return Scene(tmp_path_factory.mktemp("scene"))


def data_of(text: str) -> dict[str, Any]:
    """What the page's script reads."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found
    return json.loads(found[1])


def unpacked(text: str, kind: str) -> np.ndarray:
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), kind)


class Text(HTMLParser):
    """A page's text, and its tags with their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(page)
        assert self.open == [], "each element is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "input", "br", "path", "link"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("script", "style"):
            self.words.append(data)

    @property
    def said(self) -> str:
        return " ".join("".join(self.words).split())


# --- what it is made of ---------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 9), (100, 3), (2000, 4000), (1, 5000)])
@pytest.mark.parametrize("most", [1, 10, 1000])
def test_thinning_keeps_to_the_bound_and_no_more(height, width, most):
    step = thinning(height, width, most)
    blocks = [-(-height // s) * -(-width // s) for s in (step, step - 1) if s]
    assert blocks[0] <= most
    assert step == 1 or blocks[1] > most


def test_middles_lie_in_their_blocks():
    for size in range(1, 30):
        for step in range(1, 12):
            assert (middles(size, step) // step == np.arange(-(-size // step))).all()


@pytest.mark.parametrize("most", [10**6, 1000])
def test_layers_equal_a_plain_computation(tmp_path, monkeypatch, most):
    scene = Scene(tmp_path, 300, 280)  # two rows and columns of chunks
    monkeypatch.setattr(module, "PIXELS", most)
    stores = [open_store(path) for path in scene.seeds]
    found = read_layers(
        open_store(tmp_path / "rgb.zarr"), open_store(tmp_path / "map.zarr"), stores, None
    )
    step = found.step
    ys, xs = middles(300, step), middles(280, step)
    np.testing.assert_array_equal(found.labels, scene.labels[np.ix_(ys, xs)])
    np.testing.assert_array_equal(found.confidence, np.where(found.labels, 70, 0))
    np.testing.assert_array_equal(found.disagreement, np.where(found.labels % 2, 50, 0))
    counts = np.bincount(scene.labels.ravel(), minlength=5)
    np.testing.assert_array_equal(found.pixels.sum(0), counts)
    valid = ~scene.nodata
    for y, x in [(0, 0), (3, 4), (len(ys) - 1, len(xs) - 1)]:
        block = (slice(y * step, y * step + step), slice(x * step, x * step + step))
        values = scene.image[0][block][valid[block]]
        wanted = round(255 * values.mean()) if len(values) else 0
        assert abs(int(found.image[y, x, 0]) - wanted) <= 1


def test_spectra_equal_a_plain_computation(tmp_path, monkeypatch):
    scene = Scene(tmp_path, 300, 280)
    monkeypatch.setattr(module, "SPECTRA", 20_000)
    found = read_spectra(open_store(tmp_path / "cube.zarr"), open_store(tmp_path / "map.zarr"))
    assert len(found.values) * (5 + 3 + 16) <= 20_000
    good = [0, 1, 2, 4, 5]
    np.testing.assert_array_equal(found.values, scene.cube[good][:, found.rows, found.columns].T)
    assert not scene.nodata[found.rows, found.columns].any()
    assert found.probabilities.max(1) == pytest.approx(0.8)


def test_quantised_spectra_are_right_to_a_512th_of_their_range():
    values = np.random.default_rng(0).normal(1000, 300, (50, 20)).astype("f4")
    values[3] = 7
    steps, low, height = quantised(values)
    back = low[:, None] + height[:, None] * steps / 255
    assert (np.abs(back - values) <= np.ptp(values, axis=1)[:, None] / 509 + 1e-3).all()
    assert quantised(values[:0])[0].shape == (0, 20)


def test_numbers_as_people_say_them():
    assert area_text(1234, "m2") == "1,234 m²"
    assert area_text(123_400, "m2") == "12.3 ha"
    assert area_text(2_000_000, "m2") == "200 ha"
    assert area_text(34_000_000, "m2") == "34.0 km²"
    assert area_text(1234, "pixels") == "1,234 px"
    assert [share_text(v) for v in (0, 1e-6, 0.5)] == ["0.0 %", "< 0.1 %", "50.0 %"]


# --- the page -------------------------------------------------------------------------------------


def test_the_page_is_whole_and_asks_for_nothing(scene):
    text = scene.write()
    page = Text(text)
    assert "{{" not in text.partition("<body>")[2].partition("<script")[0]
    links = [
        value
        for _, attributes in page.tags
        for key in ("src", "href")
        if (value := attributes.get(key))
    ]
    assert links and all(link.startswith(("data:image/", "#")) for link in links)
    assert not [tag for tag, _ in page.tags if tag in ("link", "iframe", "object")]
    policy = next(a["content"] for _, a in page.tags if a.get("http-equiv"))
    assert "default-src 'none'" in str(policy)


def test_the_same_run_makes_the_same_bytes(scene):
    assert scene.write("a.html") == scene.write("b.html")


def test_the_legend_has_areas_and_switches(scene):
    page = Text(scene.write())
    pixels = np.bincount(scene.labels.ravel())
    for name, count in zip(NAMES, pixels[1:], strict=True):
        share = 100 * count / pixels[1:].sum()
        assert f"{name}{share:.1f} %{4 * count:,} m²" in page.said  # pixels of 2 m
    assert f"no data{4 * pixels[0]} m²" in page.said
    switches = [a for tag, a in page.tags if tag == "input" and a["type"] == "checkbox"]
    assert [a["data-class"] for a in switches] == ["1", "2", "3"]


def test_the_data_are_the_map(scene):
    data = data_of(scene.write())
    assert data["names"] == NAMES and data["colours"] == list(COLOURS.values())
    labels = unpacked(data["maps"]["labels"], "u1").reshape(data["rows"], data["columns"])
    np.testing.assert_array_equal(labels, scene.labels)
    assert data["wavelengths"] == [400, 500, 600, 910, 2000]
    spectra = data["spectra"]
    places = unpacked(spectra["places"], "<u4").reshape(-1, 2)
    assert len(places) == spectra["count"] == (scene.labels > 0).sum()
    steps = unpacked(spectra["values"], "u1").reshape(len(places), 5) / 255
    low, height = (unpacked(spectra[name], "<f4")[:, None] for name in ("low", "height"))
    wanted = scene.cube[[0, 1, 2, 4, 5]][:, places[:, 0], places[:, 1]].T
    np.testing.assert_allclose(low + height * steps, wanted, atol=0.003)


def test_config_to_run_it_again(scene):
    text = scene.write()
    shown = re.search(r'<pre id="config"[^>]*>(.*?)</pre>', text, re.DOTALL)
    assert shown
    assert yaml.safe_load("".join(Text(shown[0]).words)) == CONFIG


def test_warnings_are_said_once_with_the_scene(scene):
    told = [
        scene.file("witnesses.json", {"warnings": ["one: set scenes.<name>.cube", "two <b>"]}),
        scene.file("cotrain.json", {"warnings": ["two <b>"]}),
    ]
    page = Text(scene.write(told=told))
    assert page.said.count("Two <b>.") == 1
    assert "One: set scenes.lake.cube." in page.said
    assert "There are 2 things to know first" in page.said


def test_what_given_labels_changed_is_no_warning(scene):
    told = scene.file("witnesses.json", {"warnings": [], "notes": ["labels of 5 pixels: <roof>"]})
    page = Text(scene.write(told=[told]))
    assert "Notes" in page.said and "Labels of 5 pixels: <roof>." in page.said
    assert 'href="#warnings"' not in scene.write(told=[told])


def test_without_warnings_none_is_promised(scene):
    assert 'href="#warnings"' not in scene.write()


METRICS: dict[str, Any] = {
    "scene": "lake", "run": "hsi", "seed": None, "oa": 0.875, "aa": 0.8, "kappa": 0.75, "pixels": 160,
    "classes": [
        {"class": name, "producers_accuracy": p, "users_accuracy": 0.5, "f1": 0.6, "iou": 0.4, "pixels": 50}
        for name, p in zip(NAMES, (0.9, None, 0.7), strict=True)
    ],
    "confusion": [[50, 0, 3], [0, 50, 0], [17, 0, 40]],
    "warnings": ["the ground truth lacks a place"],
}  # fmt: skip


def test_accuracy(scene):
    files = [
        scene.file(f"{stage}{i}.json", METRICS | {"stage": stage, "oa": oa})
        for i, (stage, oa) in enumerate(
            [("pseudo", 0.5), ("network", 0.6), ("network", 0.8), ("consensus", 0.875)]
        )
    ]
    page = Text(scene.write(metrics=files))
    assert "at 160 pixels" in page.said and "87.5 % of them are mapped right" in page.said
    assert "bare soil is mapped as water: 17 pixels" in page.said
    assert "0.700 ± 0.141" in page.said
    assert "trees & <shrubs>–50.0 %60.0 %50" in page.said
    assert "The ground truth lacks a place." in page.said


def test_reference_points_come_with_their_intervals(scene):
    def estimated(value: float) -> dict[str, float]:
        return {"value": value, "error": 0.01, "low": value - 0.02, "high": value + 0.02}

    classes = [
        {"class": name, "map_area": 4000.0, "map_points": 9, "reference_points": 9}
        | {"users_accuracy": estimated(0.9), "producers_accuracy": estimated(0.8)}
        | {"share": estimated(0.3), "area": estimated(5000.0)}
        for name in NAMES
    ]
    found = {
        "design": "stratified",
        "drawn": 30,
        "interpreted": 27,
        "unit": "m2",
        "classes": classes,
    }
    found |= {"overall_accuracy": estimated(0.85), "warnings": ["few points"]}
    said = Text(scene.write(assessment=[scene.file("assessment.json", found)])).said
    assert "overall accuracy 0.850 (0.830 to 0.870); 27 of 30 points" in said
    assert "trees & <shrubs>0.900 (0.880 to 0.920)0.800 (0.780 to 0.820)" in said
    assert "Few points." in said and "nothing here proves" not in said


def test_without_ground_truth_it_says_what_confidence_is_not(scene):
    said = Text(scene.write()).said
    assert "nothing here proves how right the map is" in said
    assert "how clearly one class won" in said


def test_confidence_that_is_calibrated_is_called_so(scene):
    text = scene.write()
    assert "far the most probable class is ahead" in text and "It is not calibrated" in text
    sure = np.full(scene.labels.shape, 0.9)
    path = with_confidence(scene.folder / "map.zarr", scene.folder / "sure.zarr", sure)
    text = scene.write(prediction=path)
    assert set(unpacked(data_of(text)["maps"]["confidence"], "u1")) == {90}
    assert "calibrated without ground truth" in text
    assert "Confidence is the run&#x27;s own estimate" in text


def evidence(scene: Scene) -> list[Path]:
    classes = [
        {
            "class": "water",
            "spectra": 3,
            "share": 0.4,
            "angle": 20.4,
            "nearest": {"clear_water": 0.9},
        },
        {"class": NAMES[1], "spectra": 0},
        {"class": "bare soil", "spectra": 2, "share": 0.2, "angle": 3.0, "nearest": {"soil": 1.0}},
    ]
    rows = [f"water,clear_water,{nm:g},0.1,{0.2 if nm < 700 else 0.1}" for nm in (400, 500, 910)]
    table = "\n".join(["class,material,wavelength,pixels,library", *rows])
    found = {"used": True, "classes": classes, "warnings": ["water is far"]}
    return [scene.file("evidence.json", found), scene.file("evidence.csv", table)]


def test_spectra_beside_words(scene):
    text = scene.write(evidence=evidence(scene))
    said = Text(text).said
    assert "Nearest materials: clear water (90%)" in said and "20°, which is far" in said
    assert "no spectrum for this word" in said
    assert "Water is far." in said
    assert text.count("stroke-dasharray:5 3") - text.count("`;stroke-dasharray") >= 1


def test_a_map_that_contradicts_the_library_is_warned_of(scene):
    files = evidence(scene)
    edge = [f"water,clear_water,{nm:g},0.1,{v}" for nm, v in ((400, 0.1), (660, 0.1), (790, 0.9))]
    files[1].write_text("\n".join(["class,material,wavelength,pixels,library", *edge]))
    cube = np.ones((6, 60, 90))
    make_cube(scene.folder / "cube.zarr", cube, [400, 500, 600, 660, 790, 2000])
    write_spectra(scene.folder, NAMES)
    said = Text(scene.write(evidence=files)).said
    assert "What the map calls 'water' lacks the red edge of green plants" in said


def test_what_was_corrected_for_the_library_is_not_drawn_beside_it(scene):
    files = evidence(scene)
    found = json.loads(files[0].read_text()) | {"units": {"correction": "quac"}}
    files[0].write_text(json.dumps(found))
    text = scene.write(evidence=files)
    assert "Nearest materials: clear water" in text and "Dashes: the nearest" not in text


CALIBRATION: dict[str, Any] = {
    "ece": 0.0412,
    "reliability": [
        {"confidence": 0.9, "accuracy": 0.8, "pixels": 40},
        {"confidence": 0.3, "accuracy": 0.5, "pixels": 60},
        {"confidence": 0.5, "accuracy": None, "pixels": 0},
    ],
    "reject_curve": [{"kept": 1.0, "accuracy": 0.7}, {"kept": 0.4, "accuracy": 0.9}],
}


def test_calibration_and_what_rejecting_gains(scene):
    metrics = scene.file("metrics.json", METRICS | {"stage": "consensus"} | CALIBRATION)
    text = scene.write(metrics=[metrics])
    said = Text(text).said
    assert "Probability of the best class and accuracy differ by 4.1 percentage points" in said
    assert "Of the surest half of the pixels 86.7 % are right, of all 70.0 %." in said
    labels = [attributes.get("aria-label") for tag, attributes in Text(text).tags if tag == "svg"]
    assert sum("Accuracy of" in str(label) for label in labels) == 2


def test_metrics_of_a_margin_have_no_calibration(scene):
    partly = {"ece": None, "reliability": [], "reject_curve": []}
    for more in ({}, partly):
        metrics = scene.file("metrics.json", METRICS | {"stage": "consensus"} | more)
        said = Text(scene.write(metrics=[metrics])).said
        assert "calibration error" not in said and "surest half" not in said


def rejecting(scene: Scene, **others: Any) -> str:
    """A page of the scene whose lower half is less sure than asked for."""
    sure = np.where(scene.nodata, 0, 0.9)
    sure[30:] = 0.4
    path = with_confidence(scene.folder / "map.zarr", scene.folder / "sure.zarr", sure)
    write_spectra(scene.folder, NAMES, path.name, 0.5)
    text = scene.write("reject.html", prediction=path, reject=0.5, **others)
    write_spectra(scene.folder, NAMES)
    return text


def test_unknown_pixels(scene):
    metrics = scene.file("metrics.json", METRICS | {"stage": "consensus"} | CALIBRATION)
    text = rejecting(scene, metrics=[metrics])
    data, said = data_of(text), Text(text).said
    labels = unpacked(data["maps"]["labels"], "u1").reshape(60, 90)
    assert (labels[30:] == 4).all() and set(labels[:30].ravel()) == {0, 1, 2, 3}
    assert len(data["names"]) == 3 and len(data["colours"]) == 4
    assert "unknown50.5 %10,800 m²" in said and "bare soil16.8 %3,600 m²" in said
    assert "Unknown: confidence under 50 %." in said
    assert "Confidence and accuracy differ by 4.1 percentage points" in said
    assert "shown as unknown count here by their most probable class" in said
    votes = unpacked(data["maps"]["disagreement"], "u1").reshape(60, 90)
    assert (votes[30:, 30:60] == 0).all(), "rejected pixels have a label, too"
    assert "Confidence, calibrated without ground truth" in text
    half = scene.cube[0][:30][scene.labels[:30] == 3].mean()
    assert data["mean"][2][0] == pytest.approx(half, rel=1e-3)


def test_what_has_no_probability_cannot_be_rejected(scene):
    with pytest.raises(UserError, match=r"map.zarr: reject 0.5 needs a calibrated confidence"):
        scene.write(reject=0.5)


def test_notes_are_told_apart_from_warnings(scene):
    told = scene.file("presence.json", {"warnings": ["snow is not there"], "notes": ["5 clicks."]})
    said = Text(scene.write(told=[told])).said
    assert "There is one thing to know first" in said
    assert "What you should know Snow is not there. Notes 5 clicks." in re.sub(
        r"(know|there\.|Notes)(?=\S)", r"\1 ", said
    )


def test_a_run_without_training_has_no_curves(scene):
    said = Text(scene.write(seeds=[], tables={"seed-0": []})).said
    assert "How the training went" not in said


@pytest.mark.parametrize(
    ("transform", "where"),
    [
        ([2.0, 0, 0, 0, -2, 0], None),
        ([2.0, 0, 0, 0, 2, 0], "north is down, and the picture is mirrored"),
        ([-2.0, 0, 0, 0, 2, 0], "north is down."),
        ([0, 2.0, 0, 2, 0, 0], "north is 90° to the right of up."),
        ([1.732, 1, 0, 1, -1.732, 0], "north is 30° to the right of up."),
    ],
)
def test_where_north_is(transform, where):
    said = directions(Grid(UTM, tuple(transform)))
    assert (where in said) if where else said == ""


def test_curves_of_each_seed(scene):
    rows = (
        "epoch,stage,loss_agreed,loss_soft,agreement\n1,network,2.0,1.5,\n2,network,1.0,1.2,0.9\n"
    )
    tables = {f"seed-{i}": [scene.file(f"{i}.csv", rows)] for i in (0, 1)}
    text = scene.write(tables=tables)
    assert "One line for each of 2 seeds" in text
    assert "Loss by epoch" in text and "Pixels that keep their label by epoch" in text
    assert "How the training went" not in scene.write()


def test_one_seed_cannot_disagree(tmp_path):
    scene = Scene(tmp_path, seeds=1)
    text = scene.write()
    assert "disagreement" not in data_of(text)["maps"]
    assert re.search(
        r'<label class="choice" hidden disabled><input [^>]*value="disagreement"', text
    )


def test_without_a_place_areas_are_pixels(scene):
    make_prediction(
        scene.folder / "map.zarr", np.full((3, 60, 90), 1 / 3, "f4"), NAMES, scene.nodata
    )
    text = scene.write()
    assert "5,346 px" in text and data_of(text)["transform"] is None


def test_a_map_of_another_size_is_refused(scene):
    make_prediction(scene.seeds[0], np.full((3, 5, 5), 1 / 3, "f4"), NAMES)
    with pytest.raises(UserError, match=r"seed-0.zarr: 5 x 5 pixels, but .*map.zarr has 60 x 90"):
        scene.write()


def test_noise_stays_under_the_bound(tmp_path, monkeypatch):
    """The worst case, at a fiftieth of the bound: nothing can be compressed."""
    part = 50
    monkeypatch.setattr(module, "PIXELS", module.PIXELS // part)
    monkeypatch.setattr(module, "SPECTRA", module.SPECTRA // part)
    random = np.random.default_rng(0)
    height, width, classes, bands = 300, 290, 40, 30
    nodata = np.zeros((height, width), bool)
    names = [f"class {k}" for k in range(classes)]
    make_cube(
        tmp_path / "cube.zarr", random.random((bands, height, width)), np.arange(bands) * 20 + 400
    )
    make_rgb(tmp_path / "rgb.zarr", nodata, random.random((3, height, width)).astype("f4"))
    for name in ("map", "seed-0", "seed-1"):
        chances = random.dirichlet(np.full(classes, 0.1), (height, width)).transpose(2, 0, 1)
        make_prediction(tmp_path / f"{name}.zarr", chances.astype("f4"), names)
    write_spectra(tmp_path, names)
    scene = Scene.__new__(Scene)
    scene.folder, scene.seeds = tmp_path, [tmp_path / f"seed-{i}.zarr" for i in (0, 1)]
    text = scene.write()
    data = data_of(text)
    pictures = sum(map(len, re.findall(r'src="(data:[^"]*)"', text)))
    arrays = sum(map(len, data["maps"].values()))
    spectra = sum(len(v) for v in data["spectra"].values() if isinstance(v, str))
    assert part * (pictures + arrays + spectra) < 9.2e6


# --- in a browser ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chromium(tmp_path_factory) -> Iterator[Browser]:
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("chromium is not installed (apt: chromium)")
    with Browser(program, tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


READY = "!document.querySelector('#viewer').classList.contains('hidden')"


@pytest.fixture
def browser(chromium, shared_scene) -> Iterator[Browser]:
    """A browser that shows the page."""
    shared_scene.write(evidence=evidence(shared_scene))
    chromium.open(shared_scene.folder / "index.html")
    chromium.until(READY)
    yield chromium
    assert chromium.errors() == []
    assert chromium.asked() == []


def seen(browser: Browser, x: float, y: float) -> tuple[int, ...]:
    """The colour at a share of the map's width and height."""
    place = f"canvas.width * {x}, canvas.height * {y}"
    return tuple(browser.evaluate(f"[...context.getImageData({place}, 1, 1).data]")[:3])


def grey(pixel: tuple[int, ...]) -> bool:
    return max(pixel) - min(pixel) < 6


def test_image_and_map_meet_in_the_middle(browser):
    assert grey(seen(browser, 0.2, 0.7))
    assert seen(browser, 0.6, 0.7) == RGB[1] and seen(browser, 0.9, 0.7) == RGB[2]


def test_the_swipe_follows_the_mouse(browser):
    browser.drag(browser.place("#handle"), browser.place("#viewer", 0.1))
    assert seen(browser, 0.2, 0.7) == RGB[0]
    assert browser.evaluate("document.querySelector('#swipe').value") == "10"
    browser.drag(browser.place("#handle"), browser.place("#viewer", 0.95))
    assert grey(seen(browser, 0.9, 0.7))


def test_the_swipe_follows_the_keyboard(browser):
    browser.evaluate("document.querySelector('#swipe').focus()")
    for _ in range(25):
        browser.press("ArrowLeft")
    assert browser.evaluate("view.split") == 0.25
    assert seen(browser, 0.3, 0.7) == RGB[0]


def test_a_class_is_switched_off_and_on(browser):
    browser.click("[data-class='3']")
    assert grey(seen(browser, 0.9, 0.7)) and seen(browser, 0.6, 0.7) == RGB[1]
    browser.click("#no")
    assert grey(seen(browser, 0.6, 0.7))
    browser.click("#all")
    assert seen(browser, 0.9, 0.7) == RGB[2]


def test_a_click_shows_the_pixel(browser):
    browser.click("#canvas", 0.905, 0.71)
    told = browser.evaluate("document.querySelector('#pixel').innerText")
    column, row = int(0.905 * 90) + 1, int(0.71 * 60) + 1
    assert f"{row}, {column}" in told
    x, y = 372000 + 2 * (column - 0.5), 5807000 - 2 * (row - 0.5)
    assert f"{x:.1f}, {y:.1f}" in told
    assert "bare soil" in told and "70 %" in told and "50 %" in told
    assert re.search(r"bare soil\s+80 %", told)
    assert "Spectrum of the pixel, and mean spectra of bare soil" in browser.said("image")[0]
    path = browser.evaluate("document.querySelector('#own').getAttribute('d')")
    assert path.count("M") == 2, "the line breaks where bands are far apart"


def test_where_there_is_no_data(browser):
    browser.click("#canvas", 0.02, 0.02)
    assert "no data" in browser.evaluate("document.querySelector('#told').innerText")
    assert browser.evaluate("document.querySelector('#chances').innerText") == ""


def test_layers(browser):
    browser.click("input[value=confidence]")
    assert seen(browser, 0.9, 0.7) == seen(browser, 0.6, 0.7) != RGB[1]
    assert "how far the most probable class" in browser.evaluate("document.body.innerText")
    browser.click("input[value=disagreement]")
    assert seen(browser, 0.9, 0.7) != seen(browser, 0.6, 0.7)
    assert "share of the 2 trainings" in browser.evaluate("document.body.innerText")


def test_unknown_is_grey_switched_and_told(browser, shared_scene):
    rejecting(shared_scene)
    browser.open(shared_scene.folder / "reject.html")
    browser.until(READY)
    assert seen(browser, 0.9, 0.3) == RGB[2] and seen(browser, 0.9, 0.7) == (189, 189, 189)
    browser.click("#canvas", 0.9, 0.7)
    told = browser.evaluate("document.querySelector('#pixel').innerText")
    assert "unknown: confidence under 50 %" in told
    assert re.search(r"bare soil\s+80 %", told), "what it may be is in the probabilities"
    browser.click("[data-class='4']")
    pixel = seen(browser, 0.9, 0.7)
    assert grey(pixel) and pixel != (189, 189, 189), "the image is seen"
    assert browser.said("checkbox") == [*NAMES, "unknown"]
    browser.open(shared_scene.folder / "index.html")


CONTRAST = """(() => {
  const light = (text) => {
    const [r, g, b] = text.match(/[\\d.]+/g).map((v) => v / 255)
      .map((v) => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const back = (e) => {
    for (; e; e = e.parentElement) {
      const colour = getComputedStyle(e).backgroundColor;
      if (!/, 0\\)$/.test(colour)) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const found = [];
  for (const e of document.querySelectorAll("body *:not(.viewer *):not(script)")) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || !e.checkVisibility()) continue;
    const style = getComputedStyle(e), behind = light(back(e));
    const front = light(e.closest("svg") ? style.fill : style.color);
    const ratio = (Math.max(front, behind) + .05) / (Math.min(front, behind) + .05);
    if (ratio < 4.5) found.push(`${e.tagName} ${e.textContent.slice(0, 30)}: ${ratio.toFixed(1)}`);
  }
  return found;
})()"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_stand_out_from_what_is_behind_them(browser, scheme):
    """WCAG 2.1, level AA: 4.5 to 1."""
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.ask("Emulation.setEmulatedMedia", features=[feature])
    try:
        dark = browser.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
        assert dark == (scheme == "dark")
        assert browser.evaluate(CONTRAST) == []
    finally:
        browser.ask("Emulation.setEmulatedMedia", features=[])


def test_on_paper_nothing_is_left_that_asks_for_a_click(browser):
    browser.ask("Emulation.setEmulatedMedia", media="print")
    try:
        shown = "[...document.querySelectorAll('{}')].filter((e) => e.checkVisibility()).length"
        assert browser.evaluate(shown.format("button, .handle, .tools, #hint, fieldset")) == 0
        assert browser.evaluate(shown.format("#canvas, #legend tr, .panel, #config")) >= 9
    finally:
        browser.ask("Emulation.setEmulatedMedia", media="")


def test_zoom_by_buttons_wheel_and_keys(browser):
    browser.click("#in")
    assert browser.evaluate("view.zoom") == 1.5
    browser.click("#fit")
    x, y = browser.place("#canvas", 0.9, 0.5)
    browser.mouse("mouseWheel", x, y, deltaX=0, deltaY=-100)
    browser.until("view.zoom > 1.2")
    browser.evaluate("fit()")
    browser.evaluate("canvas.focus()")
    browser.press("+")
    assert browser.evaluate("view.zoom") == 1.5
    browser.press("0")
    assert browser.evaluate("view.zoom") == 1


def test_dragging_moves_the_map_and_chooses_nothing(browser):
    for _ in range(3):
        browser.click("#in")
    before = browser.evaluate("view.x")
    browser.drag(browser.place("#canvas", 0.8, 0.5), browser.place("#canvas", 0.6, 0.5))
    assert browser.evaluate("view.x") > before
    assert browser.evaluate("chosen") is None


def test_the_mark_goes_by_keys_and_is_told(browser):
    browser.evaluate("canvas.focus()")
    browser.press("Enter")
    first = browser.evaluate("chosen.at")
    browser.press("ArrowRight", shift=True)
    browser.press("ArrowUp")
    assert browser.evaluate("chosen.at") == [first[0] + 10, first[1] - 1]
    assert "trees" in browser.evaluate("document.querySelector('[role=status]').innerText")


def test_all_is_reached_by_tab(browser):
    wanted = {
        "labels",
        "canvas",
        "swipe",
        "out",
        "in",
        "fit",
        "1",
        "2",
        "3",
        "all",
        "no",
        "copy",
        "config",
    }
    found = set()
    for _ in range(30):
        browser.press("Tab")
        found.add(
            browser.evaluate(
                "(() => { const e = document.activeElement; return e.dataset.class || e.id || e.value })()"
            )
        )
    assert wanted <= found


def test_a_screen_reader_has_names_for_all(browser):
    assert browser.said("checkbox") == NAMES
    assert browser.said("radio") == ["land cover", "confidence", "disagreement"]
    assert all(
        browser.said(role) and all(browser.said(role)) for role in ("slider", "button", "image")
    )
    assert browser.said("application") == ["Image left of the line, map right of it"]
    assert "Legend" in browser.said("heading")


@pytest.mark.parametrize("width", [1400, 400])
def test_nothing_sticks_out(browser, shared_scene, width):
    browser.open(shared_scene.folder / "index.html", width, 900)
    browser.until(READY)
    assert browser.evaluate("document.documentElement.scrollWidth") <= width


def test_fingers(browser, shared_scene):
    browser.open(shared_scene.folder / "index.html", 400, 900, touch=True)
    browser.until(READY)
    place = browser.place
    browser.fingers(
        [place("#canvas", 0.4), place("#canvas", 0.6)],
        [place("#canvas", 0.3), place("#canvas", 0.7)],
        [place("#canvas", 0.2), place("#canvas", 0.8)],
    )
    browser.until("view.zoom > 1.3")
    assert browser.evaluate("chosen") is None
    browser.fingers([place("#canvas", 0.9)])
    browser.until("chosen !== null")
    browser.open(shared_scene.folder / "index.html")


def test_without_scripts_pictures_and_tables_are_there(browser, shared_scene):
    browser.ask("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.ask("Page.navigate", url=(shared_scene.folder / "index.html").as_uri())
        names = []
        for _ in range(100):
            names = browser.said("image")
            if len(names) >= 5:
                break
        assert {
            "The scene in natural colours",
            "The land-cover map; its colours are in the legend",
        } <= set(names)
    finally:
        browser.ask("Emulation.setScriptExecutionDisabled", value=False)
