"""Axes patterns: how a stored array becomes (band, y, x)."""

import numpy as np
import pytest
from rasters import CUBE

from special_steps.core.errors import UserError
from special_steps.io.axes import read_axes


@pytest.mark.parametrize(
    ("axes", "shape", "stored"),
    [
        ("y x band", None, CUBE.transpose(1, 2, 0)),
        ("band, y, x", None, CUBE),
        ("x band y", None, CUBE.transpose(2, 0, 1)),
        ("band (x y)", {"x": 4, "y": 5}, CUBE.transpose(0, 2, 1).reshape(3, 20)),
        ("band (y x)", {"y": 5}, CUBE.reshape(3, 20)),
        ("(y x) band", {"x": 4}, CUBE.transpose(1, 2, 0).reshape(20, 3)),
        ("(band y x)", {"x": 4, "y": 5, "band": 3}, CUBE.reshape(60)),
        ("y x class", {"class": 3}, CUBE.transpose(1, 2, 0)),
    ],
)
def test_axes(axes, shape, stored):
    layout = read_axes(axes, stored.shape, shape, "f")
    assert layout.shape == CUBE.shape
    np.testing.assert_array_equal(layout.arrange(stored), CUBE)


@pytest.mark.parametrize(
    ("axes", "shape", "message"),
    [
        ("y x", None, "name 2 axes, but the array has 3"),
        ("y x wavelength", None, "no pattern"),
        ("y y band", None, "no pattern"),
        ("y x band)", None, "no pattern"),
        ("band x", None, "no pattern"),
        ("y x band", {"y": 9}, "does not fit axis 'y' of length 5"),
        ("y x band", {"z": 9}, "not in axes"),
    ],
)
def test_wrong_axes(axes, shape, message):
    with pytest.raises(UserError, match=message):
        read_axes(axes, (5, 4, 3), shape, "f")


@pytest.mark.parametrize("shape", [{"x": 3, "y": 5}, {"x": 7}, {"x": 0, "y": 5}])
def test_wrong_shape_of_joined_axes(shape):
    with pytest.raises(UserError, match=r"does not fit axis 'x y' of length 20"):
        read_axes("band (x y)", (3, 20), shape, "f")
    with pytest.raises(UserError, match="how long are x and y"):
        read_axes("band (x y)", (3, 20), None, "f")
