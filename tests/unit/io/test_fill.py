"""Values that mean no data, stated or not."""

import numpy as np
import pytest

from special_steps.io.fill import fits, flat_values, missing_values, unstated_fill


def test_float_no_data_is_rounded_like_the_data():
    block = np.full((1, 1, 2), np.float32(-3.4028235e38))
    block[0, 0, 1] = 1
    assert missing_values(block, [-3.40282347e38]).tolist() == [[[True, False]]]
    block[0, 0, 0] = -9999.9
    assert missing_values(block, [-9999.9]).tolist() == [[[True, False]]]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dtype", ["f4", "f8", "f2", "i1", "u1", "i2", "u2", "i8", "u8", "?"])
def test_any_value_can_be_stated_for_any_type(dtype):
    block = np.ones((2, 2, 2), dtype)
    values = [-9999, 0, 0.5, 255, 1e39, -1.7e308, 2.0**63, 2.0**64, -(2.0**63), np.nan, np.inf]
    assert not missing_values(block, values).any()
    assert missing_values(block, [*values, 1]).all()


def test_no_numbers_are_missing():
    block = np.array([1, np.nan, np.inf, -np.inf, -9999, -1, 7], np.float32)[None, None]
    expected = [False, True, True, True, True, False, True]
    assert missing_values(block, [-9999, 7])[0, 0].tolist() == expected


def test_largest_integers():
    for dtype in ("i8", "u8"):
        largest = np.iinfo(dtype).max
        block = np.array([largest, 0, 1], dtype)[None, None]
        assert missing_values(block, [largest])[0, 0].tolist() == [True, False, False]


def test_which_values_fit():
    assert (
        fits(255, np.dtype("u1")) and not fits(256, np.dtype("u1")) and not fits(-1, np.dtype("u1"))
    )
    assert not fits(0.5, np.dtype("i2")) and not fits(np.nan, np.dtype("i2"))
    assert fits(np.nan, np.dtype("f4")) and fits(1, np.dtype("?")) and not fits(2, np.dtype("?"))


def test_flat_values():
    block = np.random.default_rng(0).random((5, 4, 3))
    block[:, 1, 2], block[:, 3, 0], block[:4, 0, 0] = -9999, np.nan, 7
    flat = flat_values(block, np.ones(5, bool))
    assert np.argwhere(~np.isnan(flat)).tolist() == [[1, 2]] and flat[1, 2] == -9999
    flat = flat_values(block, np.array([1, 1, 1, 1, 0], bool))
    assert np.argwhere(~np.isnan(flat)).tolist() == [[0, 0], [1, 2]] and flat[0, 0] == 7
    assert np.isnan(flat_values(block, np.array([1, 1, 0, 0, 0], bool))).all()  # too few bands


def test_fill_is_found_by_its_share_or_at_the_border():
    flat = np.full((100, 100), np.nan)
    assert unstated_fill(flat) == {}
    flat[10:20, 10:25] = -9999  # 1.5 %, inside
    flat[:5, :5] = 0  # 0.25 %, at the border
    flat[50:55, 50:55] = 7  # as many, inside
    assert unstated_fill(flat) == {-9999: 0.015, 0: 0.0025}


def test_scenes_in_grey_take_no_time():
    flat = np.repeat(np.arange(20_000.0), 20).reshape(400, 1000)
    assert len(unstated_fill(flat)) < 100
