"""Line charts as SVG."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from special_steps.core.svg import Line, line_chart, ticks

TITLES = {"label": "a < b", "x_title": "wavelength (nm)", "y_title": "values"}


def drawn(chart: str, kind: str = "line") -> list[str]:
    """The paths of a kind."""
    root = ElementTree.fromstring(chart)
    return [each.get("d", "") for each in root.iter("path") if each.get("class") == kind]


@pytest.mark.parametrize(
    ("low", "high", "wanted"),
    [
        (0, 1, [0, 0.25, 0.5, 0.75, 1]),
        (420, 2300, [500, 1000, 1500, 2000]),
        (0, 0.43, [0, 0.2, 0.4]),
    ],
)
def test_ticks_are_round(low, high, wanted):
    assert ticks(low, high, 5) == wanted


@pytest.mark.parametrize("seed", range(20))
def test_ticks_are_inside_and_few(seed):
    low, size = np.random.default_rng(seed).normal(size=2) * 10.0 ** (seed - 10)
    found = ticks(low, low + abs(size))
    assert 1 <= len(found) <= 5
    assert min(found) >= low - abs(size) * 1e-6 and max(found) <= low + abs(size) * (1 + 1e-6)


def test_ticks_of_counts_are_whole():
    assert ticks(1, 2, 6, whole=True) == [1, 2]


def test_a_line_breaks_at_gaps_and_at_nan():
    x = np.array([400.0, 410, 420, 900, 910, 920])
    y = np.array([1.0, 2, 3, 4, np.nan, 6])
    paths = drawn(line_chart([Line(x, y, "stroke:red")], gap=40, **TITLES))
    assert [path.count("L") + 1 for path in paths] == [3, 2, 2]  # one point is a short stroke


def test_a_spread_is_closed_and_inside_the_chart():
    x, y = np.arange(5.0), np.array([0.0, 1, 4, 2, 1])
    (path,) = drawn(line_chart([Line(x, y, "stroke:red", y / 2)], **TITLES), "spread")
    assert path.endswith("Z")
    points = np.array(re.findall(r"([\d.]+) ([\d.-]+)", path), float)
    assert points.min() >= 0 and (points <= [340, 190]).all()


def test_the_label_is_escaped():
    chart = line_chart([Line(np.arange(2.0), np.arange(2.0), "")], **TITLES)
    assert ElementTree.fromstring(chart).get("aria-label") == "a < b"


def test_a_flat_line_and_one_of_nan():
    for y in (np.ones(3), np.full(3, np.nan)):
        assert "nan" not in line_chart([Line(np.arange(3.0), y, "")], **TITLES)
