"""Colours of classes."""

import itertools

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from special_steps.core.errors import UserError
from special_steps.core.palette import NO_DATA, class_colours, read_colours

NAMES = ["water", "trees", "bare soil"]
MANY = [
    "water", "trees", "grass", "bare soil", "asphalt", "metal roof", "self-blocking bricks",
    "bitumen", "tiles", "shadows", "meadows", "broad-leaved woodland", "solar panels", "railway",
    "concrete pavement", "artificial turf", "parking lot with cars", "swimming pool", "greenhouse",
    "quarry", "cropland", "vineyard", "sand", "wetland", "snow",
]  # fmt: skip


@pytest.mark.parametrize("count", [1, 6, 20, 25])
@pytest.mark.parametrize("kind", ["known and unknown", "unknown"])
def test_colours_differ_to_the_eye(count, kind):
    names = MANY[:count] if kind == "known and unknown" else [f"kind {i}" for i in range(count)]
    found = class_colours(names)
    assert len(found) == count
    for a, b in itertools.combinations([*found, NO_DATA], 2):
        assert np.linalg.norm(np.subtract(to_rgb(a), to_rgb(b))) > 0.15, (a, b)


def test_colours_of_255_classes_differ():
    found = class_colours([f"kind {i}" for i in range(255)])
    assert len(set(found)) == 255
    assert NO_DATA not in found


def test_colours_are_stable_and_do_not_depend_on_the_order_for_known_words():
    assert class_colours(MANY) == class_colours(list(MANY))
    first = dict(zip(NAMES, class_colours(NAMES), strict=True))
    mixed = ["something", *reversed(NAMES), "else"]
    assert {n: c for n, c in zip(mixed, class_colours(mixed), strict=True) if n in NAMES} == first


def test_known_words_have_their_usual_colour():
    blue, green, brown = (
        to_rgb(c) for c in class_colours(["Lake water", "Pine forest", "Bare soil"])
    )
    assert max(blue) == blue[2]
    assert max(green) == green[1]
    assert brown[0] > brown[1] > brown[2]


def test_a_word_inside_another_word_does_not_count():
    assert class_colours(["broadband mast"])[0] != class_colours(["road"])[0]
    assert class_colours(["roads"]) == class_colours(["road"])


def test_two_classes_of_one_word_differ():
    assert len(set(class_colours(["deep water", "shallow water", "waterway"]))) == 3


# --- the user's own -------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["#0000ff", " #0000FF ", "#00f", "0x0000ff", 255, [0, 0, 255]])
def test_ways_to_write_a_colour(value):
    assert read_colours({"water": value}, "config: colours") == {"water": "#0000ff"}


@pytest.mark.parametrize(
    "value", ["blue", "#00", "#0000fg", "", 1 << 24, -1, 1.5, True, [0, 0], [0, 0, 256], [0, 0, True], {}]
)  # fmt: skip
def test_what_is_no_colour_is_refused(value):
    with pytest.raises(UserError, match=r"config: colours: .*'water' is no colour.*#0000ff"):
        read_colours({"water": value}, "config: colours")


def test_a_colour_without_quotes_is_a_comment_in_yaml():
    with pytest.raises(UserError, match="without quotes, YAML takes # for a comment"):
        read_colours({"water": None}, "config: colours")


def test_equal_colours_are_refused():
    given = {"water": "#00f", "roof": "#ff0000", "sea": [0, 0, 255]}
    with pytest.raises(UserError, match="config: colours: 'water' and 'sea' both have #0000ff"):
        read_colours(given, "config: colours")


def test_own_colours_come_first_and_others_keep_away():
    own = {"bare soil": "#1e6b2e", "elsewhere": "#ffffff"}  # trees' usual green
    found = dict(zip(NAMES, class_colours(NAMES, own), strict=True))
    assert found["bare soil"] == "#1e6b2e"
    assert found["water"] == class_colours(NAMES)[0]
    assert len(set(found.values())) == 3
    assert class_colours(["snow", "x"], {"snow": NO_DATA})[0] == NO_DATA
    assert class_colours(NAMES, {}) == class_colours(NAMES)


def test_unknown_is_grey_and_no_class_has_its_colour():
    plain, found = class_colours(NAMES), class_colours([*NAMES, "unknown"], unknown=True)
    assert found == [*plain, "#bdbdbd"]
    taken = class_colours(["fog", "unknown"], {"fog": "#bdbdbd"}, unknown=True)
    assert taken == ["#bdbdbd", "#bcbcbc"]
