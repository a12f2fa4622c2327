"""Which pixels are drawn."""

import numpy as np
import pytest

from special_steps.classifier.sampling import (
    agreement_set,
    class_balanced_sampler,
    random_pixels,
    surest,
)


def sampled(labels, margin, count, tile=None):
    """Pixels and classes, of the whole scene unless a tile is given."""
    tile = tile or tuple(slice(0, n) for n in labels.shape)
    return class_balanced_sampler(labels, margin, count)(np.random.default_rng(0), tile)


def test_samples_are_class_balanced_and_follow_the_margin():
    labels = np.array([[1, 1, 1, 3, 0]], np.uint8)
    margin = np.array([[0.0, 0.3, 0.1, 0.5, 0.9]], np.float32)
    pixels, classes = sampled(labels, margin, 20_000)
    counts = np.bincount(pixels, minlength=5)
    assert len(pixels) == 40_000
    assert counts[4] == 0, "a pixel without data was drawn"
    assert counts[0] == 0
    assert counts[3] == 20_000
    assert counts[1] / counts[2] == pytest.approx(3, rel=0.05)
    np.testing.assert_array_equal(classes, labels.ravel()[pixels].astype(int) - 1)


def test_samples_without_margins_are_uniform():
    labels, margin = np.ones((2, 2), np.uint8), np.zeros((2, 2), np.float32)
    pixels, _ = sampled(labels, margin, 8000)
    np.testing.assert_allclose(np.bincount(pixels) / 8000, 0.25, atol=0.02)


def test_samples_of_a_tile_are_those_of_the_tile_as_a_scene():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 4, (20, 30)).astype(np.uint8)
    margin = rng.random(labels.shape, np.float32)
    tile = (slice(4, 12), slice(10, 30))
    wanted = sampled(labels[tile], margin[tile], 50)
    for mine, theirs in zip(sampled(labels, margin, 50, tile), wanted, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_classes_that_the_tile_has_not_are_left_out():
    labels = np.array([[1, 1, 2, 2]], np.uint8)
    margin = np.ones(labels.shape, np.float32)
    _, classes = sampled(labels, margin, 7, (slice(0, 1), slice(0, 2)))
    assert classes.tolist() == [0] * 7


def test_a_tile_without_labels_is_an_error():
    with pytest.raises(ValueError):
        sampled(np.zeros((2, 2), np.uint8), np.ones((2, 2), np.float32), 3)


def test_random_pixels_are_all_that_have_data_alike():
    valid = np.array([[True, False, True], [True, False, True]])
    extent = (slice(0, 2), slice(0, 3))
    found = random_pixels(valid, 8000)(np.random.default_rng(0), extent)
    counts = np.bincount(found, minlength=6)
    np.testing.assert_allclose(counts / 8000, [0.25, 0, 0.25, 0.25, 0, 0.25], atol=0.02)


def test_random_pixels_of_a_tile_have_the_tiles_places():
    valid = np.zeros((6, 8), bool)
    valid[3, 5] = valid[0, 0] = True
    tile = (slice(2, 5), slice(4, 8))
    found = random_pixels(valid, 9)(np.random.default_rng(0), tile)
    assert found.tolist() == [1 * 4 + 1] * 9
    assert found.dtype == np.int64


def test_random_pixels_of_a_tile_without_data_are_an_error():
    with pytest.raises(ValueError):
        random_pixels(np.zeros((2, 2), bool), 3)(
            np.random.default_rng(0), (slice(0, 2), slice(0, 2))
        )


def test_the_surest_share_of_each_class():
    probabilities = np.array([[0.9, 0.8, 0.7, 0.6, 0.4], [0.1, 0.2, 0.3, 0.4, 0.6]], "f4")
    assert surest(probabilities, 0.5).tolist() == [0, 0, -1, -1, 1]
    assert surest(np.full((2, 4), 0.5, "f4"), 0.5).tolist() == [0] * 4  # equal margins go together


# --- the agreement set ----------------------------------------------------------------------------


def test_the_agreement_set_by_hand():
    pseudo = np.repeat([0, 1, -1], [25, 25, 1])
    found = np.repeat([0, 1, -1], [24, 26, 1])
    labels = agreement_set(pseudo, found, np.linspace(0, 1, 51, dtype=np.float32))
    np.testing.assert_array_equal(labels, np.repeat([0, -1, 1, -1], [24, 1, 25, 1]))


def test_a_class_with_few_pixels_in_agreement_takes_its_surer_half():
    pseudo, found = np.zeros(50, int), np.zeros(50, int)
    found[30:37] = 1  # seven, of which the labels say the same of one
    pseudo[30] = 1
    margin = np.zeros(50, np.float32)
    margin[30:37] = [0.1, 0.9, 0.3, 0.8, 0.7, 0.2, 0.6]
    labels = agreement_set(pseudo, found, margin)
    assert np.flatnonzero(labels == 1).tolist() == [31, 33, 34, 36]
    assert (labels == 0).sum() == 43


def test_of_equal_margins_all_are_taken_and_a_class_that_nothing_was_found_to_be_has_none():
    labels = agreement_set(np.full(40, 2), np.zeros(40, int), np.zeros(40, np.float32))
    assert (labels == 0).all()


def test_twenty_pixels_in_agreement_are_enough():
    pseudo, found = np.zeros(40, int), np.zeros(40, int)
    pseudo[20:] = 1
    labels = agreement_set(pseudo, found, np.zeros(40, np.float32))
    np.testing.assert_array_equal(labels, np.repeat([0, -1], 20))


def test_pixels_that_are_certain_are_in_the_agreement_whatever_was_found():
    """Five pixels of a class that no other pixel was found to be are not dropped, though they are few."""
    pseudo, found = np.zeros(60, int), np.zeros(60, int)
    certain = np.zeros(60, bool)
    certain[:5] = True
    pseudo[certain] = 1
    labels = agreement_set(pseudo, found, np.ones(60, np.float32), certain)
    assert (labels == np.where(certain, 1, 0)).all()
