"""Class names, synonyms and labels: what is allowed, and the error for every wrong one."""

import pytest

from special_steps.core.classes import classes_by_label, label_number, phrases_of, read_classes
from special_steps.core.errors import UserError


def test_entries_become_names_with_synonyms_in_order():
    found = read_classes(["water", {"trees": ["forest", "wood"]}, "bare soil"], "f")
    assert list(found.items()) == [("water", []), ("trees", ["forest", "wood"]), ("bare soil", [])]


def test_phrases_are_names_then_synonyms_as_they_are_written():
    classes = {"Water ": ["river", "lake"], "trees": []}
    assert phrases_of(classes, "f") == (["Water ", "river", "lake", "trees"], [0, 0, 0, 1])


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([], "the list is empty"),
        (["water", "Water "], "'Water ' appears twice .in 'water' and 'Water '"),
        (["bare  soil", "bare soil"], "'bare soil' appears twice"),
        (["Straße", "STRASSE"], "'STRASSE' appears twice"),
        ([{"water": ["sea"]}, {"lake": ["Sea"]}], "'Sea' appears twice .in 'water' and 'lake'"),
        ([{"water": ["river", "River"]}], "'River' appears twice .in 'water' and 'water'"),
        ([{"water": [" "]}], "is blank"),
        ([""], "is blank"),
        ([f"class {i}" for i in range(256)], "256 classes; a map holds at most 255"),
    ],
)
def test_wrong_classes_are_refused_as_entries_and_as_a_mapping(entries, message):
    with pytest.raises(UserError, match=f"^scenes.a.classes: .*{message}"):
        read_classes(entries, "scenes.a.classes")
    pairs = [next(iter(e.items())) if isinstance(e, dict) else (e, []) for e in entries]
    with pytest.raises(UserError, match=f"^here: .*{message}"):
        phrases_of(dict(pairs), "here")


def test_255_classes_fit():
    names = [f"class {i}" for i in range(255)]
    assert len(read_classes(names, "f")) == 255
    assert len(classes_by_label({names[-1]: 9}, names, [0], "f")) == 1


def test_labels_name_classes():
    labels = {"soil": 7, "water": 0}
    assert classes_by_label(labels, ["water", "trees", "soil"], [], "f") == {7: "soil", 0: "water"}


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({}, "say which label each class has"),
        (
            {"watr": 1},
            "'watr' is not a class of the scene; did you mean 'water'.*: 'water', 'trees'",
        ),
        ({"roof": 1}, "'roof' is not a class of the scene; its classes: 'water', 'trees'"),
        ({"water": 3, "trees": 3}, "'water' and 'trees' both have label 3"),
        ({"water": 9}, "label 9 of 'water' is in 'unlabelled'"),
    ],
)
def test_wrong_labels(labels, message):
    with pytest.raises(UserError, match=f"^here: {message}"):
        classes_by_label(labels, ["water", "trees"], [0, 9], "here")


def test_too_many_classes_for_a_map():
    names = [f"class {i}" for i in range(256)]
    with pytest.raises(UserError, match="here: 256 classes"):
        classes_by_label({names[0]: 1}, names, [0], "here")


@pytest.mark.parametrize(
    ("label", "number"),
    [
        (17, 17), (17.0, 17), ("17", 17), (" -1 ", -1), (0, 0),
        ("0xFF7F50", 0xFF7F50), ("#ff7f50", 0xFF7F50), ("#f75", 0xFF7755), ([255, 127, 80], 0xFF7F50),
    ],
)  # fmt: skip
def test_labels_of_a_config(label, number):
    assert label_number(label, "f") == number


@pytest.mark.parametrize(
    "label", [1.5, "red", "#ff", "#gggggg", "0x1234567", [1, 2], [1, 2, 256], [0.1, 0, 0], True, ""]
)
def test_labels_that_are_none(label):
    with pytest.raises(
        UserError, match=r"f: .* is no label: write a whole number, or a colour as 0x"
    ):
        label_number(label, "f")
