"""Words that did not work: maps and witnesses made by hand."""

import json
from pathlib import Path

import numpy as np
import pytest
from stores import make_prediction, one_hot

from special_steps.core.errors import UserError
from special_steps.core.store import new_store, write_array, write_names
from special_steps.core.witnesses import LIBRARY, Witness, as_settings
from special_steps.fuse import fuse
from special_steps.presence import overlaps, presence, presences

NAMES = ["water", "sand", "snow"]
BOTH = {"CLIP": [True] * 3, "the spectral library": [True] * 3}
MAP = np.repeat([1, 2, 3], [60, 30, 10])


def told(*witnesses, asked=BOTH, mapped=MAP, names=NAMES):
    """What is said of labels from 1."""
    pairs = {}
    for name, labels in zip(asked, witnesses, strict=False):
        pairs[name] = np.zeros((len(names),) * 2, int)
        np.add.at(pairs[name], (np.asarray(labels) - 1, mapped - 1), 1)
    return presences(pairs, asked, names)


def present(found):
    return [each["present"] for each in found["classes"]]


def changed(label: int) -> np.ndarray:
    """A witness that has another class where the map has snow."""
    return np.where(MAP == 3, label, MAP)


def test_overlaps_by_hand():
    pairs = np.array([[6, 2, 0], [1, 3, 0], [0, 0, 0]])
    np.testing.assert_allclose(overlaps(pairs), [6 / 9, 3 / 6, 0])


def test_all_is_there_when_all_agree():
    found = told(MAP, MAP)
    assert present(found) == [True] * 3 and found["warnings"] == []
    assert found["classes"][2] == {
        "class": "snow",
        "present": True,
        "share": 0.1,
        "overlaps": dict.fromkeys(BOTH, 1.0),
        "score": pytest.approx(1.02),
        "reason": None,
    }


def test_a_word_that_neither_witness_sees_in_its_place():
    found = told(changed(2), changed(1))
    assert present(found) == [True, True, False]
    (warning,) = found["warnings"]
    assert warning == (
        "'snow': this word did not work on this scene: of its pixels on the map, CLIP calls 0% so and 100% 'sand'; the"
        " spectral library calls 0% so and 100% 'water'; use another word, or leave it out"
    )


def test_one_witness_in_just_its_place_is_enough():
    """CLIP never says "dry grass" of some scenes that are full of it."""
    assert present(told(changed(2), MAP)) == present(told(MAP, changed(2))) == [True] * 3


def test_one_witness_who_says_it_of_much_else_is_not_enough():
    everywhere = np.where(MAP == 1, 3, MAP)
    found = told(changed(2), everywhere)
    assert present(found) == [True, True, False]
    assert "calls 100% so, but 6.0 times as many pixels elsewhere, too" in found["warnings"][0]


def test_one_witness_is_enough_for_what_covers_much():
    """A word for nothing seldom gets more than a tenth: where one witness is blind, the other one is believed."""
    for sizes, there in (([62, 30, 8], False), ([60, 20, 20], True)):
        mapped = np.repeat([1, 2, 3], sizes)
        blind = np.where(mapped == 3, 2, mapped)
        half = np.where(np.arange(100) % 2, 2, mapped)  # sees half of each class as sand
        found = told(blind, half, mapped=mapped)
        assert found["classes"][2]["score"] == pytest.approx(np.sqrt(0.02 * 0.52))
        assert present(found) == [True, True, there]
        assert present(told(blind, blind, mapped=mapped)) == [True, True, False]


def test_a_rare_class_is_as_well_there_as_a_common_one():
    mapped = np.repeat([1, 2, 3], [100_000, 100_000, 3])
    assert present(told(mapped, mapped, mapped=mapped)) == [True] * 3


def test_no_pixel():
    found = told(changed(1), changed(1), mapped=changed(1))
    assert present(found) == [True, True, False] and found["classes"][2]["share"] == 0
    assert "no pixel of the map has it" in found["warnings"][0]


def test_a_witness_is_not_asked_about_classes_that_it_cannot_see():
    """The library has no spectra of a car: CLIP alone is asked."""
    blind = {"CLIP": [True] * 3, "the spectral library": [True, True, False]}
    found = told(MAP, changed(1), asked=blind)
    assert present(found) == [True] * 3 and list(found["classes"][2]["overlaps"]) == ["CLIP"]
    assert present(told(changed(2), changed(1), asked=blind)) == [True, True, False]
    nobody = {"the spectral library": [False] * 3}
    found = told(changed(1), asked=nobody)
    assert present(found) == [True] * 3 and found["classes"][2]["score"] is None


def test_a_single_class():
    one = np.ones(9, int)
    assert present(told(one, one, asked={"CLIP": [True]}, mapped=one, names=["a"])) == [True]


# --- the step -------------------------------------------------------------------------------------


def witness_store(path: Path, labels, asked=BOTH, names=NAMES) -> Path:
    settings = as_settings([Witness(name, sees, True) for name, sees in asked.items()])
    with new_store(path, step="fuse", settings=settings, inputs=[]) as group:
        write_names(group, names)
        write_array(group, "witnesses", np.stack(labels).astype("u1"), ("witness", "y", "x"))
    return path


def scene(labels):
    """A scene of several tiles, its first column without data."""
    whole = np.tile(labels, (300, 1))
    whole[:, 0] = 0
    return whole


def test_from_stores_to_a_file(tmp_path, caplog):
    nodata = scene(MAP) == 0
    mapped = make_prediction(tmp_path / "map.zarr", one_hot(scene(MAP), 3), NAMES, nodata)
    seen = witness_store(tmp_path / "w.zarr", [scene(changed(2)), scene(changed(1))])
    presence(prediction=mapped, pseudo=seen, out=tmp_path / "p.json")
    found = json.loads((tmp_path / "p.json").read_text())
    assert present(found) == [True, True, False]
    assert [c["share"] for c in found["classes"]] == pytest.approx([59 / 99, 30 / 99, 10 / 99])
    assert [r.getMessage() for r in caplog.records] == found["warnings"]


def test_what_fuse_writes_is_read(tmp_path):
    """With CLIP alone: its labels are the pseudo-labels, those of its own map."""
    nodata = scene(MAP) == 0
    mapped = make_prediction(tmp_path / "scale.zarr", one_hot(scene(MAP), 3), NAMES, nodata)
    fuse(
        maps=[mapped],
        align=False,
        evidence=[],
        features=None,
        rgb=mapped,
        out=tmp_path / "pseudo.zarr",
        witnesses=tmp_path / "w.json",
        class_names=NAMES,
        given=[],
    )
    other = make_prediction(tmp_path / "map.zarr", one_hot(scene(changed(2)), 3), NAMES, nodata)
    for prediction, wanted in ((mapped, [True] * 3), (other, [True, True, False])):
        presence(prediction=prediction, pseudo=tmp_path / "pseudo.zarr", out=tmp_path / "p.json")
        found = json.loads((tmp_path / "p.json").read_text())
        assert present(found) == wanted and list(found["classes"][0]["overlaps"]) == ["CLIP"]


def test_the_order_of_the_witnesses_is_that_of_their_labels(tmp_path):
    nodata = scene(MAP) == 0
    mapped = make_prediction(tmp_path / "map.zarr", one_hot(scene(MAP), 3), NAMES, nodata)
    asked = {"your own map": [True] * 3, "the spectral library": [True] * 3}
    seen = witness_store(tmp_path / "p.zarr", [scene(MAP), scene(changed(1))], asked)
    presence(prediction=mapped, pseudo=seen, out=tmp_path / "p.json")
    snow = json.loads((tmp_path / "p.json").read_text())["classes"][2]
    assert snow["overlaps"] == {"your own map": 1, "the spectral library": 0}


def test_who_is_not_heard_does_not_judge_and_the_library_alone_neither(tmp_path):
    mapped = make_prediction(tmp_path / "map.zarr", one_hot(scene(MAP), 3), NAMES, scene(MAP) == 0)
    told = [Witness("CLIP", [True] * 3, False), Witness(LIBRARY, [True] * 3, True)]
    with new_store(
        tmp_path / "p.zarr", step="fuse", settings=as_settings(told), inputs=[]
    ) as group:
        write_names(group, NAMES)
        labels = np.stack([scene(changed(2)), scene(changed(1))]).astype("u1")
        write_array(group, "witnesses", labels, ("witness", "y", "x"))
    presence(prediction=mapped, pseudo=tmp_path / "p.zarr", out=tmp_path / "p.json")
    found = json.loads((tmp_path / "p.json").read_text())
    assert present(found) == [True] * 3 and found["classes"][2]["score"] is None


def test_stores_of_different_scenes_are_refused(tmp_path):
    mapped = make_prediction(tmp_path / "map.zarr", one_hot(scene(MAP), 3), NAMES)
    for name, labels, names in (("a", scene(MAP)[:9], NAMES), ("b", scene(MAP), ["x", "y", "z"])):
        seen = witness_store(tmp_path / f"{name}.zarr", [labels, labels], names=names)
        with pytest.raises(UserError, match=r"not of the same classes or size as .*map\.zarr"):
            presence(prediction=mapped, pseudo=seen, out=tmp_path / "p.json")
    assert not (tmp_path / "p.json").exists()
