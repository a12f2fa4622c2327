"""The confident and the hard set, and their soft labels."""

import numpy as np
import pytest

from special_steps.classifier import sets


def rng():
    return np.random.default_rng(0)


def test_split_takes_the_highest_and_the_lowest_component():
    source = rng()
    parts = [source.normal(mean, 0.02, 400) for mean in (0.1, 0.5, 0.9)]
    margin = np.clip(np.concatenate(parts * 2), 0, 1).astype(np.float32)
    labels = np.repeat([1, 2], 1200).astype(np.uint8)
    confident, hard = sets.split_by_margin(labels, margin, 3, rng())
    for label in (1, 2):
        own = labels == label
        assert margin[own & confident].min() > 0.75
        assert margin[own & hard].max() < 0.25
        assert 380 <= (own & confident).sum() <= 420
        assert 380 <= (own & hard).sum() <= 420


def test_split_leaves_out_pixels_without_data():
    labels = np.array([0] * 50 + [1] * 200, np.uint8)
    confident, hard = sets.split_by_margin(labels, rng().random(250).astype(np.float32), 3, rng())
    assert not confident[:50].any()
    assert not hard[:50].any()


def test_a_class_of_few_pixels_is_confident_and_reported(caplog):
    labels = np.array([1] * 300 + [2] * 5, np.uint8)
    margin = rng().random(305).astype(np.float32)
    confident, hard = sets.split_by_margin(labels, margin, 3, rng())
    assert confident[300:].all()
    assert not hard[300:].any()
    assert "class 2" in caplog.text


def test_equal_margins_do_not_break_the_split():
    labels, margin = np.ones(500, np.uint8), np.ones(500, np.float32)
    confident, _ = sets.split_by_margin(labels, margin, 3, rng())
    assert confident.any()


def two_blobs(distance):
    source = rng()
    spectra = np.concatenate([source.normal(0, 1, (300, 5)), source.normal(distance, 1, (300, 5))])
    labels = np.repeat([1, 2], 300).astype(np.uint8)
    return spectra, labels


def test_soft_labels_correct_a_wrong_pixel():
    spectra, labels = two_blobs(6)
    confident = np.ones(600, bool)
    confident[:5] = False
    labels[:5] = 2  # five pixels of the first blob, predicted as the second class
    soft = sets.soft_labels(spectra, labels, confident, np.arange(600), 2, 5, rng())
    assert soft.dtype == np.float32
    np.testing.assert_allclose(soft.sum(1), 1, rtol=1e-5)
    assert (soft[:5, 0] > 0.9).all()


def test_soft_labels_survive_densities_that_underflow():
    spectra, labels = two_blobs(6)
    far = np.full((1, 5), 4000.0)  # its density is 0 in float64 for both classes
    spectra, labels = np.vstack([spectra, far]), np.append(labels, 1).astype(np.uint8)
    confident = np.ones(601, bool)
    confident[600] = False
    soft = sets.soft_labels(spectra, labels, confident, np.array([600]), 2, 1, rng())
    assert np.isfinite(soft).all()
    assert soft.sum() == pytest.approx(1)


def test_a_class_without_a_mixture_keeps_its_one_hot_labels():
    spectra, labels = two_blobs(6)
    labels[:4] = 3
    soft = sets.soft_labels(spectra, labels, np.ones(600, bool), np.arange(600), 4, 5, rng())
    np.testing.assert_array_equal(soft[:4], np.eye(4)[[2] * 4])
    assert (soft[4:, 2:] == 0).all()


def settings(**other):
    return {
        "margin_components": 3,
        "confident_fraction": 0.2,
        "class_components": 5,
        "random_weight": 1.0,
        "hard_weight": 0.1,
        "confident_weight": 1.0,
    } | other


def test_sets_use_a_share_of_the_confident_and_never_no_data():
    source = rng()
    probabilities = source.dirichlet([0.4] * 3, (40, 50)).transpose(2, 0, 1).astype(np.float32)
    nodata = np.zeros((40, 50), bool)
    nodata[:10] = True
    spectra = source.normal(size=(2000, 5))
    part = sets.confident_and_hard_sets(probabilities, nodata, spectra, settings(), rng())
    whole = sets.confident_and_hard_sets(
        probabilities, nodata, spectra, settings(confident_fraction=1.0), rng()
    )
    share = len(part["confident"][0]) / len(whole["confident"][0])
    assert share == pytest.approx(0.2, abs=0.01)
    for pixels, soft in part.values():
        assert len(pixels)
        assert not nodata.ravel()[pixels].any()
        assert soft.shape == (len(pixels), 3)


def test_one_class_works():
    found = sets.confident_and_hard_sets(
        np.ones((1, 9, 9), np.float32),
        np.zeros((9, 9), bool),
        rng().normal(size=(81, 2)),
        settings(),
        rng(),
    )
    assert (found["confident"][1] == 1).all()
