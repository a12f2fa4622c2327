"""Scenes that share a model: what the config may say, and who maps whom."""

from copy import deepcopy

import pytest

from special_steps.core.campaigns import TOGETHER, learned_on, runs_of
from special_steps.core.errors import UserError
from special_steps.core.settings import config_of, load

CLASSES = ["water", {"trees": ["forest"]}, "roof"]


def scene(**settings):
    return {"cube": {"path": "a.hdr"}} | settings


def campaign(**settings):
    scenes = {
        "line1": scene(classes=CLASSES),
        "line2": scene(apply={"from": "line1/hsi"}),
        "alone": scene(classes=["sand"]),
    }
    runs = {"hsi": {}, "paper": {"method": "published"}, "simple": {"method": "lda"}}
    return deepcopy({"scenes": scenes, "runs": runs} | settings)


def joint(**settings):
    found = campaign(train_together=["line1", "line3"])
    found["scenes"]["line3"] = scene(classes=["water", "trees", {"roof": ["house"]}]) | settings
    return found


def with_scene(name, **settings):
    found = campaign()
    found["scenes"][name] = found["scenes"].get(name, scene()) | settings
    return found


def test_an_applied_scene_takes_classes_and_colours_and_has_one_run():
    given = campaign()
    given["scenes"]["line1"]["colours"] = {"water": "#00f"}
    settings = load(given)
    line2 = settings["scenes"]["line2"]
    assert line2["classes"] == {"water": [], "trees": ["forest"], "roof": []}
    assert line2["colours"] == {"water": "#0000ff"}
    assert runs_of(settings, "line2") == ["hsi"]
    assert runs_of(settings, "line1") == ["hsi", "paper", "simple"]
    assert learned_on(settings, "line2", "hsi") == "line1"
    assert learned_on(settings, "line1", "hsi") == "line1"


def test_the_same_classes_may_be_written():
    settings = load(with_scene("line2", classes=["water", "trees", "roof"]))
    assert list(settings["scenes"]["line2"]["classes"]) == ["water", "trees", "roof"]


def test_scenes_that_learn_together():
    given = joint()
    given["scenes"]["line2"]["apply"] = {"from": "line3/hsi"}
    given["scenes"]["line4"] = scene(apply={"from": "line3/paper"})
    settings = load(given)
    learned = {
        (s, r): learned_on(settings, s, r) for s in settings["scenes"] for r in runs_of(settings, s)
    }
    assert [s for (s, r), of in learned.items() if of == TOGETHER] == ["line1", "line2", "line3"]
    assert learned["line3", "simple"] == "line3"
    assert learned["line4", "paper"] == "line3"


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (with_scene("line2", apply={"from": "line9/hsi"}), "no other scene.*line1, alone; add it"),
        (with_scene("line2", apply={"from": "line2/hsi"}), "no other scene"),
        (with_scene("line2", apply={"from": "line1/deep"}), "names no run; write line1/ and one of hsi, paper"),
        (with_scene("line2", apply={"from": "line1/simple"}), "method lda.*has no model.*hsi, paper"),
        (with_scene("line2", apply={"from": "line1"}), "apply.from.*does not match"),
        (with_scene("line3", apply={"from": "line2/hsi"}), "learns nothing itself; write from: line1/hsi"),
        (with_scene("line2", classes=["water", "roof"]), "line2.classes.*leave them out"),
        (with_scene("line2", spectra={"water": "a.csv"}), "line2.spectra: .*leave it out"),
        (with_scene("line2", colours={"water": "#f00"}), "line2.colours: .*top level"),
        (with_scene("mosaic", classes=CLASSES), "scenes.mosaic.*another name"),
        (with_scene("line3"), "line3: 'classes' is missing.*apply"),
        (campaign(train_together=["line1", "line9"]), "no scene 'line9'; there are: line1"),
        (campaign(train_together=["line1", "line2"]), "'line2' is mapped by what line1/hsi learned"),
        (campaign(train_together=["line1", "alone"]), r"alone \(sand\) are not those of line1"),
        (campaign(train_together=["line1"]), "train_together"),
        (joint() | {"runs": {"simple": {"method": "lda"}}}, "no run has method agreement"),
        (joint(colours={"water": "#f00"}), "line3.colours"),
        (joint() | {"scenes": joint()["scenes"] | {"together": scene(classes=CLASSES)}}, "scenes.together"),
    ],
)  # fmt: skip
def test_what_can_not_be_is_refused(config, words):
    if "together" in config["scenes"]:
        config["scenes"] = {k: v for k, v in config["scenes"].items() if k != "line2"}
    if list(config["runs"]) == ["simple"]:
        del config["scenes"]["line2"]
    with pytest.raises(UserError, match=words):
        load(config)


def test_a_scene_without_campaign_may_be_called_anything():
    scenes = {name: scene(classes=CLASSES) for name in ("together", "mosaic")}
    assert list(load({"scenes": scenes})["scenes"]) == ["together", "mosaic"]


def test_a_config_to_map_a_scene_again_has_what_it_learns_from():
    settings = load(campaign())
    again = config_of(settings, "line2", "hsi")
    assert list(again["scenes"]) == ["line1", "line2"]
    assert again["scenes"]["line2"] == scene(apply={"from": "line1/hsi"})
    assert load(again)["scenes"]["line2"] == settings["scenes"]["line2"]
    settings = load(joint())
    again = config_of(settings, "line3", "hsi")
    assert again["train_together"] == ["line1", "line3"]
    assert list(again["scenes"]) == ["line1", "line3"]
    assert "train_together" not in config_of(settings, "alone", "hsi")
    assert list(config_of(settings, "line3", "simple")["scenes"]) == ["line3"]
    load(again)
