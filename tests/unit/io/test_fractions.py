"""Layers of fractions are told from pictures, labels and measurements."""

import numpy as np
import pytest

from special_steps.io.fractions import common_colours, missing_fractions, total_of, whole_of


def test_what_layers_add_up_to():
    assert total_of(np.array([[20, 100], [79, 0]])) == 100
    assert total_of(np.array([[0.2, 1], [0.8, 0]])) == 1
    assert total_of(np.array([[2, 100], [79, 0]])) is None
    assert total_of(np.array([[200, 255], [55, 0]]), [1, 100]) is None
    assert total_of(np.zeros((3, 0))) is None


@pytest.mark.parametrize(("picture", "whole"), [(False, 1), (True, None)])
def test_fractions_of_1_may_be_a_picture(picture, whole):
    assert whole_of(np.array([[0.5, 0.3], [0.25, 0.2], [0.9, 0.1]]), picture) == whole


def test_layers_that_are_all_equal_are_no_fractions():
    assert whole_of(np.array([[0.5, 0.3]] * 3), False) is None
    assert whole_of(np.array([[0.5, 0.3]]), False) == 1


def test_a_no_data_value_that_may_be_a_fraction_counts_in_all_layers_only():
    layers = np.array([[[0, 0, 1, 2]], [[0, 1, -9, 3]]])
    np.testing.assert_array_equal(missing_fractions(layers, [0, -9]), [[True, False, True, False]])
    assert not missing_fractions(layers.astype("u1"), [-9.5, 300]).any()
    layers = np.array([[[np.nan, 1]], [[0.5, 0]]])
    np.testing.assert_array_equal(missing_fractions(layers, [0]), [[True, False]])


def test_the_commonest_colours():
    picture = np.array([[[255, 255, 0]], [[127, 127, 0]], [[80, 80, 0]]], np.uint8)
    assert common_colours(picture) == "0xff7f50 (66.7 %), 0x000000 (33.3 %)"
    assert common_colours(picture, 1) == "0xff7f50 (66.7 %), ..."
