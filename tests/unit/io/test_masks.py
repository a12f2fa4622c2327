"""Rasters that mask pixels: which values count, what is said about it, and what is refused."""

import logging
from pathlib import Path

import numpy as np
import pytest

from special_steps.core.errors import UserError
from special_steps.io.masks import read_mask
from special_steps.io.record import Source


def raster(values, **stated) -> Source:
    cube = np.array(values) if np.ndim(values) == 3 else np.array(values)[None]
    return Source(
        [Path("m.tif")], cube.shape, lambda rows, columns: cube[:, rows, columns], **stated
    )


VALUES = np.array([[0, 1, 2], [3, 255, 0]], "u1")


def test_every_value_but_0():
    assert read_mask(raster(VALUES), None, "m").tolist() == [[0, 1, 1], [1, 1, 0]]
    assert read_mask(raster(VALUES > 1), None, "m").tolist() == [[0, 0, 1], [1, 1, 0]]


def test_named_values():
    assert read_mask(raster(VALUES), [2, 255], "m").tolist() == [[0, 0, 1], [0, 1, 0]]
    assert read_mask(raster(VALUES), [0], "m").tolist() == [[1, 0, 0], [0, 0, 1]]
    assert read_mask(raster(VALUES / 2), [0.5, 1.5], "m").tolist() == [[0, 1, 0], [1, 0, 0]]


def test_no_data_is_not_masked_unless_it_is_named():
    source = raster(VALUES, nodata=(255.0,))
    assert read_mask(source, None, "m").tolist() == [[0, 1, 1], [1, 0, 0]]
    assert read_mask(source, [1, 255], "m").tolist() == [[0, 1, 0], [0, 1, 0]]
    none = np.array([[0, 1, 0], [0, 0, 0]], bool)
    source = raster(VALUES, masked=lambda rows, columns: none[rows, columns])
    assert read_mask(source, None, "m").tolist() == [[0, 0, 1], [1, 1, 0]]
    assert read_mask(raster([[0, np.nan, 1]]), None, "m").tolist() == [[0, 0, 1]]


def test_more_rows_than_are_read_at_a_time():
    values = np.random.default_rng(0).integers(0, 3, (700, 5))
    none = np.random.default_rng(1).random((700, 5)) < 0.1
    source = raster(values, masked=lambda rows, columns: none[rows, columns])
    np.testing.assert_array_equal(read_mask(source, None, "m"), (values != 0) & ~none)


@pytest.mark.parametrize(
    ("values", "level", "text"),
    [
        ([7], logging.WARNING, "m: masks no pixel; its values are 0, 1, 2, 3, 255"),
        (
            [0, 1, 2, 3, 255],
            logging.WARNING,
            "m: masks every pixel; its values are 0, 1, 2, 3, 255",
        ),
        ([1, 7, 9], logging.INFO, "m: 7, 9 not in the file"),
    ],
)
def test_what_is_said(caplog, values, level, text):
    caplog.set_level(logging.INFO, "special")
    read_mask(raster(VALUES), values, "m")
    assert [(r.levelno, r.getMessage()) for r in caplog.records] == [(level, text)]


def test_nothing_is_said_of_a_plain_mask(caplog):
    caplog.set_level(logging.INFO, "special")
    read_mask(raster(VALUES), [1, 3], "m")
    assert not caplog.records


def test_few_of_many_values_are_shown(caplog):
    read_mask(raster(np.arange(1, 5001).reshape(50, 100)), None, "m")
    assert caplog.messages[0].endswith("18, 19, 20, ...")


def test_several_bands():
    with pytest.raises(UserError, match="m: 3 bands, but a mask has one; give a file of the band"):
        read_mask(raster(np.zeros((3, 2, 2))), None, "m")


def test_no_values():
    with pytest.raises(UserError, match="the list of masked values is empty"):
        read_mask(raster(VALUES), [], "m")
