"""The configuration: checked early, defaults filled in, every key described."""

import copy
import re
from pathlib import Path

import pytest
import yaml

from special_steps.core import settings
from special_steps.core.errors import UserError
from special_steps.core.settings import METHODS_OF, config_of, default_of, load, page, schema

ROOT = Path(settings.__file__).resolve().parents[2]
SCHEMA = schema()
CONFIG = """
scenes:
  field:
    cube: {path: field.mat}
    classes: [water, {trees: [forest, wood]}, bare soil]
    ground_truth: {path: truth.mat, labels: {water: 1, trees: 2}}
"""


def config(**extra) -> dict:
    return yaml.safe_load(CONFIG) | extra


def with_scene(**changes) -> dict:
    found = config()
    found["scenes"]["field"] |= changes
    return found


def refused(wrong: dict, *words: str) -> None:
    with pytest.raises(UserError) as caught:
        load(wrong)
    message = str(caught.value)
    assert message.startswith("config: ")
    assert "\n" not in message
    for word in words:
        assert word in message


# --- defaults and runs ----------------------------------------------------------------------------


def test_defaults_are_filled_in_at_every_level():
    found = load(config())
    assert found["rgb"] == {"wavelengths": [655, 553, 451], "stretch": [0.1, 99.9]}
    assert found["features"] == {"stretch": [0.01, 99.99], "components": 5}
    assert found["clips"]["bundled"]["global_bias"] == -0.3
    assert found["clips"]["bundled"]["window"] == 224
    cube = found["scenes"]["field"]["cube"]
    assert cube["path"] == "field.mat"
    assert cube["scale"] is None
    assert cube["bad_ranges"] == []
    assert found["scenes"]["field"]["ground_truth"]["unlabelled"] == [0]
    (run,) = found["runs"].items()
    assert run[0] == "hsi"
    assert run[1]["seeds"] == [0, 1, 2]
    assert run[1]["scales"] == [2, 4], "the bundled model's own"
    assert run[1]["classifier"] == {"hidden": 16, "tokens": 4}
    assert run[1]["refine"]["hard_weight"] == 0.1


def test_scales_follow_the_clip_unless_they_are_given():
    clips = {"bundled": {"model": "bundled"}, "other": {"model": "ViT-B-32", "weights": "x"}}
    runs = {"a": {}, "b": {"clip": "other"}, "c": {"clip": "other", "scales": [3]}}
    found = load(config(clips=clips, runs=runs))["runs"]
    assert [found[name]["scales"] for name in "abc"] == [[2, 4], [1, 2], [3]]


def test_classes_become_names_with_synonyms_in_order():
    classes = load(config())["scenes"]["field"]["classes"]
    assert list(classes.items()) == [
        ("water", []),
        ("trees", ["forest", "wood"]),
        ("bare soil", []),
    ]


def test_a_run_overrides_only_what_it_names():
    found = load(
        config(
            seeds=[7],
            method="published",
            training={"epochs": 30, "noise": 0.2},
            runs={"plain": {}, "long": {"seeds": [1, 2], "training": {"epochs": 40}}},
        )
    )["runs"]
    assert found["plain"]["seeds"] == [7]
    assert found["long"]["seeds"] == [1, 2]
    assert found["plain"]["training"]["epochs"] == 30
    assert found["long"]["training"]["epochs"] == 40  # the run's
    assert found["long"]["training"]["noise"] == 0.2  # the common one
    assert found["long"]["training"]["iterations"] == 20  # the default


def test_every_overridable_setting_has_a_value_in_every_run():
    run = load(config())["runs"]["hsi"]
    assert run.keys() == SCHEMA["properties"]["runs"]["additionalProperties"]["properties"].keys()


def test_the_users_config_is_left_as_it_is():
    mine = config(runs={"a": {"method": "published", "training": {"epochs": 40}}})
    before = copy.deepcopy(mine)
    load(mine)
    assert mine == before


def test_runs_do_not_share_parts():
    runs = load(config(runs={"a": {}, "b": {}}))["runs"]
    runs["a"]["training"]["epochs"] = 1
    runs["a"]["seeds"].append(99)
    assert runs["b"]["training"]["epochs"] == 20
    assert runs["b"]["seeds"] == [0, 1, 2]


def test_an_alias_is_the_same_setting():
    old, new = (
        load(config(clips={"bundled": {"model": "bundled", "upsampling": name}}))
        for name in ("guided", "joint_bilateral")
    )
    assert old == new == load(config())


RUNS = {
    "hsi": {},
    "alone": {"clip": "none", "scales": [2], "seeds": [3]},
    "published": {"method": "published", "training": {"epochs": 30}},
    "lda": {"method": "lda", "input": "rgb"},
    "mine": {"pseudo_labels": "{scene}.tif"},
}


@pytest.mark.parametrize("run", RUNS)
def test_the_config_of_one_run_makes_it_again(run):
    """Also where settings of other methods, other scenes and their colours are common."""
    common = {"network": {"epochs": 7}, "refine": {"hard_weight": 0.3}, "rgb": {"stretch": [1, 99]}}
    common |= {"runs": RUNS, "colours": {"water": "#0000ff", "sea": "#00ffff"}, "seeds": [4, 5]}
    given = with_scene(materials={"trees": ["tree_canopy"]})
    given["scenes"]["coast"] = given["scenes"]["field"] | {"classes": ["sea"], "ground_truth": None}
    given["scenes"]["coast"] |= {"materials": {}}
    whole = load(given | common)
    again = config_of(whole, "field", run)
    found = load(again)
    assert found["scenes"] == {"field": whole["scenes"]["field"]}
    wanted = whole["runs"][run]
    for key, value in wanted.items():
        if wanted["method"] in METHODS_OF.get(key, [wanted["method"]]):
            assert found["runs"][run][key] == value
    assert found["rgb"] == whole["rgb"]
    assert yaml.safe_load(yaml.safe_dump(again)) == again
    assert config_of(found, "field", run) == again
    assert "features" not in again and "export" not in again


def test_default_of_a_setting_by_its_name_in_the_table():
    assert default_of("clips.NAME.window") == 224
    assert default_of("scenes.NAME.cube.scale") is None
    assert default_of("runs.NAME.seeds") == default_of("seeds") == [0, 1, 2]


def test_names_that_yaml_reads_as_numbers_become_words():
    found = load({"scenes": {2020: yaml.safe_load(CONFIG)["scenes"]["field"]}})
    assert list(found["scenes"]) == ["2020"]


def test_the_default_config_is_valid():
    found = load(yaml.safe_load((ROOT / "config.yaml").read_text()))
    assert list(found["scenes"]) == ["demo"]
    assert found["runs"]["hsi"]["seeds"] == [0, 1, 2]
    assert len(found["scenes"]["demo"]["classes"]) == 6


@pytest.mark.parametrize(
    "path", sorted((ROOT / "workflow" / "benchmarks").glob("*.yaml")), ids=lambda p: p.name
)
def test_the_benchmark_configs_are_valid(path):
    """Without scenes, they are for the default config's or any other."""
    default = yaml.safe_load((ROOT / "config.yaml").read_text())
    load({"scenes": default["scenes"]} | yaml.safe_load(path.read_text()))


# --- unknown keys ---------------------------------------------------------------------------------


def objects(rule: dict, at: tuple[str, ...] = ()):
    """(path, schema) of every mapping with named settings; NAME stands for the user's own names."""
    if "$ref" in rule:
        (key,) = rule["$ref"].removeprefix("#/properties/").split("/")
        rule = SCHEMA["properties"][key]
    if "properties" in rule:
        yield at, rule
        for key, inner in rule["properties"].items():
            yield from objects(inner, (*at, key))
    if isinstance(rule.get("additionalProperties"), dict):
        yield from objects(rule["additionalProperties"], (*at, "NAME"))


EXAMPLES = {"scenes": "field", "clips": "bundled", "runs": "hsi"}
LEVELS = [at for at, _ in objects(SCHEMA)]


def test_all_levels_are_known():
    assert len(LEVELS) > 12
    assert ("runs", "NAME", "training") in LEVELS
    assert ("scenes", "NAME", "cube", "wavelengths") in LEVELS


@pytest.mark.parametrize("at", LEVELS, ids=".".join)
def test_unknown_settings_are_refused_with_a_suggestion(at):
    known = next(rule for path, rule in objects(SCHEMA) if path == at)
    right = max(known["properties"], key=len)
    wrong = right[:-1]
    mine = config()
    here = mine
    for before, part in zip(("", *at), at, strict=False):
        name = EXAMPLES[before] if part == "NAME" else part
        if not isinstance(here.get(name), dict):
            here[name] = {"model": "bundled"} if before == "clips" else {}
        here = here[name]
    here[wrong] = 1
    refused(mine, f"unknown setting '{wrong}'", f"did you mean '{right}'?")


def test_an_unknown_setting_like_no_other_lists_the_known_ones():
    refused(config(rgb={"qqq": 1}), "rgb: unknown setting 'qqq'", "wavelengths, stretch")


RENAMED = [
    (at, old, new)
    for at, rule in objects(SCHEMA)
    for old, new in rule.get("x-renamed", {}).items()
    if at[:1] != ("runs",)
]


def test_renamed_settings_are_known_by_their_new_names():
    assert (("training",), "rounds", "epochs") in RENAMED
    assert (("training",), "warmup_rounds", "warmup_epochs") in RENAMED
    for at, old, new in RENAMED:
        known = next(rule["properties"] for path, rule in objects(SCHEMA) if path == at)
        assert new in known
        assert old not in known


def test_old_names_are_refused_with_the_new_ones():
    both = {"rounds": 8, "warmup_rounds": 2}
    words = ["'rounds' is now 'epochs'", "'warmup_rounds' is now 'warmup_epochs'"]
    refused(config(training=both), "training: ", *words)
    refused(config(runs={"a": {"training": both}}), "runs.a.training: ", *words)
    refused(config(training={"rounds": 8, "nois": 1}), words[0])


def test_settings_that_are_not_a_runs_are_not_taken_for_one():
    refused(config(runs={"a": {"rgb": {}}}), "runs.a: unknown setting 'rgb'")


# --- values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({}, ["'scenes' is a required property"]),
        ({"scenes": {}}, ["scenes", "non-empty"]),
        ({"scenes": {"a b": {}}}, ["'a b'", "letters, digits"]),
        ({"scenes": {"../a": {}}}, ["'../a'", "letters, digits"]),
        (with_scene(cube={}), ["scenes.field.cube", "'path' is a required property"]),
        (with_scene(cube={"path": []}), ["scenes.field.cube.path", "empty"]),
        (config(seeds=[]), ["seeds: the list is empty"]),
        (config(seeds=[0, 0]), ["seeds", "non-unique"]),
        (config(seeds=[1.0]), ["seeds.0: 1.0 is not of type 'integer'"]),
        (config(seeds=[True]), ["seeds.0: True is not of type 'integer'"]),
        (config(scales=[0]), ["scales.0"]),
        (config(training={"noise": "1e-1"}), ["training.noise: '1e-1' is text", "4.0e-4"]),
        (
            config(method="published", training={"epochs": 10}),
            ["epochs: 10 of 10", "no refinement"],
        ),
        (
            config(runs={"a": {"method": "published", "training": {"epochs": 5}}}),
            ["runs.a.training.warmup_epochs"],
        ),
        (config(method="svm"), ["method", "spectral_angle"]),
        (config(runs={}), ["runs", "non-empty"]),
        (config(runs={"a": None}), ["runs.a", "{} for nothing"]),
        (config(clip="openai"), ["no 'openai' in clips", "bundled"]),
        (config(runs={"a": {"clip": "x"}}), ["runs.a.clip: no 'x' in clips"]),
        (config(classifier={"hidden": 16, "tokens": 5}), ["hidden", "multiple of tokens"]),
        (config(rgb={"stretch": [99, 1]}), ["rgb.stretch: [99, 1] must rise"]),
        (config(features={"stretch": [5, 5]}), ["features.stretch: [5, 5] must rise"]),
        (config(clips={"bundled": {"model": "ViT-B-32"}}), ["clips.bundled.weights", "openai"]),
        (
            config(clips={"bundled": {"model": "bundled", "upsampling": "jbu"}}),
            ["clips.bundled.jbu_weights", "joint_bilateral"],
        ),
        (
            config(clips={"bundled": {"model": "bundled", "stride": 300}}),
            ["clips.bundled.stride: 300", "224"],
        ),
        (config(clips={"bundled": {"model": "bundled", "attention": "x"}}), ["segearth"]),
    ],
    ids=lambda v: None if isinstance(v, dict) else v[0].split(":")[0].replace(" ", "_"),
)
def test_wrong_values(wrong, words):
    refused(wrong, *words)


# --- settings of a method -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"training": {"epochs": 30}}, ["training:", "'published'", "'network'"]),
        ({"refine": {}}, ["refine:", "'published'", "'network'"]),
        ({"method": "published", "network": {}}, ["network:", "'agreement'", "'training'"]),
        ({"method": "lda", "network": {}}, ["network:", "'method: agreement'"]),
        ({"runs": {"a": {"training": {}}}}, ["runs.a.training:", "'method: published'"]),
        (
            {"runs": {"a": {"method": "published", "network": {}}}},
            ["runs.a.network:", "'published'", "'training' and 'refine'"],
        ),
        ({"runs": {"a": {"method": "qda", "seeds": [1]}}}, ["runs.a.seeds:", "'qda'"]),
        ({"runs": {"a": {"method": "none", "classifier": {}}}}, ["runs.a.classifier:", "'none'"]),
    ],
    ids=str,
)
def test_settings_that_would_be_ignored_are_refused(wrong, words):
    refused(config(**wrong), *words)


def test_common_settings_may_be_some_runs_only():
    methods = {"a": {}, "b": {"method": "published"}, "c": {"method": "kmeans"}}
    common = {"training": {"epochs": 30}, "network": {"epochs": 3}, "seeds": [4]}
    found = load(config(runs=methods, **common))["runs"]
    assert {name: run["method"] for name, run in found.items()} == {
        "a": "agreement", "b": "published", "c": "kmeans",
    }  # fmt: skip
    assert found["a"]["network"]["epochs"] == 3
    assert found["b"]["training"]["epochs"] == 30
    assert load(config(method="lda", seeds=[4]))["runs"]["hsi"]["method"] == "lda"


# --- words and spectra ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("run", "wanted"),
    [
        ({}, "library"),
        ({"method": "lda"}, "library"),
        ({"method": "published"}, "none"),  # the paper's method does not have it
        ({"method": "none"}, "none"),  # nor do dense-CLIP baselines
        ({"input": "rgb"}, "none"),  # which is to show what comes without the bands
        ({"pseudo_labels": "own.tif"}, "none"),
        ({"pseudo_labels": "own.tif", "evidence": "library"}, "library"),
        ({"method": "published", "evidence": "library"}, "library"),
        ({"method": "none", "clip": "none", "evidence": "library"}, "library"),
        ({"evidence": "none"}, "none"),
        ({"clip": "none"}, "library"),
    ],
    ids=str,
)
def test_evidence_is_asked_by_default_where_it_is_no_foreign_body(run, wanted):
    assert load(config(runs={"a": run}))["runs"]["a"]["evidence"] == wanted


def test_a_run_may_ask_where_the_others_do_not():
    found = load(config(evidence="none", runs={"a": {}, "b": {"evidence": "library"}}))["runs"]
    assert [found[name]["evidence"] for name in "ab"] == ["none", "library"]


def test_without_a_clip_there_are_no_scales():
    found = load(config(clip="none", scales=[2, 3]))["runs"]["hsi"]
    assert found["scales"] == []
    assert found["evidence"] == "library"
    assert load(config(clip="none", pseudo_labels="own.tif"))["runs"]["hsi"]["evidence"] == "none"


@pytest.mark.parametrize(
    "run",
    [{"evidence": "none"}, {"method": "published"}, {"method": "none"}, {"input": "rgb"}],
    ids=str,
)
def test_a_run_without_clip_and_evidence_is_refused(run):
    refused(config(runs={"a": {"clip": "none"} | run}), "runs.a:", "evidence: library", "bundled")


def test_none_is_no_name_of_a_clip():
    refused(config(clips={"none": {"model": "bundled"}}, clip="none"), "clips.none")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"spectra": {"watr": "w.csv"}}, ["spectra: 'watr' is not a class", "'water'?"]),
        ({"spectra": {"forest": "w.csv"}}, ["'forest' is not a class", "'water', 'trees'"]),
        ({"spectra": {"water": ""}}, ["spectra.water"]),
        ({"spectra": {"water": ["w.csv"]}}, ["spectra.water", "not of type 'string'"]),
        ({"materials": {"water": "ice"}}, ["materials.water", "not of type 'array'"]),
        ({"materials": ["ice"]}, ["materials", "not of type 'object'"]),
    ],
    ids=str,
)
def test_wrong_materials_and_spectra(wrong, words):
    refused(with_scene(**wrong), "scenes.field.", *words)


# --- classes and labels ---------------------------------------------------------------------------

CLASSES = "scenes.field.classes"


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        ([], ["the list is empty"]),
        (["water", "trees", "Water "], ["'Water ' appears twice", "'water'"]),
        (["bare  soil", "bare soil"], ["appears twice"]),
        (["water", {"trees": ["water"]}], ["'water' appears twice", "'water' and 'trees'"]),
        ([{"trees": ["wood", "wood"]}], ["'wood' appears twice"]),
        (["  "], ["blank"]),
        ([{"trees": [" "]}], ["blank"]),
        ([""], ["a class name"]),
        ([3], ["a class name"]),
        ([{"a": [], "b": []}], ["one class name"]),
        ([{"a": None}], ["list of its synonyms"]),
        ("water", ["not of type 'array'"]),
        ([f"class {i}" for i in range(256)], ["256 classes", "at most 255"]),
    ],
    ids=str,
)
def test_wrong_classes(classes, words):
    refused(with_scene(classes=classes, ground_truth=None), CLASSES, *words)


def test_one_class_is_enough():
    found = load(with_scene(classes=["water"], ground_truth=None))
    assert found["scenes"]["field"]["classes"] == {"water": []}
    assert found["scenes"]["field"]["ground_truth"] is None


@pytest.mark.parametrize(
    ("truth", "words"),
    [
        ({}, ["ground_truth", "'path' is a required property"]),
        ({"path": "x"}, ["say which label each class has"]),
        ({"path": "x", "labels": {"watr": 1}}, ["'watr' is not a class", "did you mean 'water'?"]),
        (
            {"path": "x", "labels": {"roof": 1}},
            ["'roof'", "classes: 'water', 'trees', 'bare soil'"],
        ),
        ({"path": "x", "labels": {"forest": 1}}, ["'forest' is not a class"]),
        (
            {"path": "x", "labels": {"water": 3, "trees": 3}},
            ["'water' and 'trees' both have label 3"],
        ),
        ({"path": "x", "labels": {"water": 0}}, ["label 0 of 'water' is in 'unlabelled'"]),
        ({"path": "x", "labels": {"water": "one"}}, ["labels", "'one' is no label"]),
        ({"path": "x", "labels": {"water": 1.0}}, ["labels.water", "whole number"]),
        ({"path": "x", "labels": {"water": -1}}, ["labels.water"]),
    ],
    ids=str,
)
def test_wrong_ground_truth(truth, words):
    refused(with_scene(ground_truth=truth), "scenes.field.ground_truth", *words)


def test_label_0_is_a_class_where_it_is_not_unlabelled():
    truth = {"path": "x", "labels": {"water": 0}, "unlabelled": [255]}
    found = load(with_scene(ground_truth=truth))["scenes"]["field"]["ground_truth"]
    assert found["labels"] == {"water": 0}


# --- described ------------------------------------------------------------------------------------


def test_every_setting_is_described():
    missing = [
        ".".join((*at, key))
        for at, rule in objects(SCHEMA)
        for key, inner in rule["properties"].items()
        if "$ref" not in inner and len(inner.get("description", "").split()) < 1
    ]
    assert missing == []


def test_the_table_has_a_row_for_every_setting():
    rows = [line.split("|") for line in page().splitlines() if line.startswith("|")]
    assert {len(row) for row in rows} == {5}  # a | in a description would break the table
    names = [row[1].strip().strip("`") for row in rows[2:]]
    wanted = {
        ".".join((*at, key))
        for at, rule in objects(SCHEMA)
        for key, inner in rule["properties"].items()
        if "$ref" not in inner and at[:1] != ("runs",)
    }
    assert set(names) == wanted
    assert len(names) == len(wanted)


def test_the_table_shows_defaults():
    lines = page().splitlines()
    assert any(re.match(r"\| `seeds` \| `\[0, 1, 2\]` \| Random seeds", line) for line in lines)
    assert any(line.startswith("| `scenes.NAME.cube` | required |") for line in lines)
    assert any(line.startswith("| `clips.NAME.weights` | `null` |") for line in lines)


def test_the_page_of_settings_is_the_schemas():
    """Make it again: python -m special_steps.core.settings > workflow/docs/SETTINGS.md."""
    assert (ROOT / "workflow" / "docs" / "SETTINGS.md").read_text() == page()


# --- colours --------------------------------------------------------------------------------------


def test_colours_of_a_scene_are_over_those_of_all():
    found = with_scene(colours={"trees": "#0f0"}) | {
        "colours": {"water": "#00F", "trees": [1, 2, 3]}
    }
    found["scenes"]["other"] = {"cube": {"path": "a.mat"}, "classes": ["water", "ice"]}
    scenes = load(found)["scenes"]
    assert scenes["field"]["colours"] == {"water": "#0000ff", "trees": "#00ff00"}
    assert scenes["other"]["colours"] == {"water": "#0000ff"}
    assert load(config())["scenes"]["field"]["colours"] == {}


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (config(colours={"watr": "#00f"}), ["colours: 'watr' is not a class", "'water'"]),
        (with_scene(colours={"forest": "#00f"}), ["scenes.field.colours: 'forest' is not a class"]),
        (config(colours={"water": "blue"}), ["colours: 'blue' of 'water' is no colour", "#0000ff"]),
        (config(colours={"water": None}), ["colours: None of 'water' is no colour", "comment"]),
        (config(colours={"water": "#00f", "trees": "#00f"}), ["'water' and 'trees' both have"]),
        (
            with_scene(colours={"water": "#00f"}) | {"colours": {"trees": "#0000ff"}},
            ["colours and scenes.field.colours", "both have #0000ff"],
        ),
        (config(colours=["#00f"]), ["colours"]),
        (config(export={"min_area": -1}), ["export.min_area"]),
        (config(export={"min_area": "500 m2"}), ["export.min_area"]),
    ],
)
def test_wrong_colours_and_areas(wrong, words):
    refused(wrong, *words)


# --- reject ---------------------------------------------------------------------------------------


def test_reject_is_of_runs_whose_confidence_is_calibrated():
    runs = {"a": {}, "b": {"reject": 0.8}, "c": {"method": "lda"}, "d": {"reject": None}}
    found = load(config(reject=0.5, runs=runs))["runs"]
    assert [found[name]["reject"] for name in "abcd"] == [0.5, 0.8, None, None]
    assert load(config())["runs"]["hsi"]["reject"] is None


@pytest.mark.parametrize("value", [1.5, 1, 0, -0.2, "half", "0.5", True])
def test_what_is_no_share_to_reject_below(value):
    refused(config(reject=value), "reject")
    refused(config(runs={"a": {"reject": value}}), "runs.a.reject")


def test_reject_of_methods_with_a_margin_alone():
    refused(config(runs={"a": {"method": "lda", "reject": 0.5}}), "runs.a.reject", "'lda'")
    refused(config(reject=0.5, runs={"a": {"method": "none"}}), "reject", "no run has")


def test_unknown_needs_its_name_and_a_value():
    own = with_scene(classes=["water", "Unknown "], ground_truth=None)
    assert load(own)["scenes"]["field"]["classes"]
    refused(own | {"reject": 0.5}, "scenes.field.classes", "'Unknown '", "another name")
    many = with_scene(classes=[f"kind {i}" for i in range(255)], ground_truth=None)
    refused(many | {"reject": 0.5}, "runs.hsi.reject", "255 classes", "254")
