"""Anchored co-training, and how much labels say about spectra."""

import numpy as np
import pytest

from special_steps.classifier.anchored import anchored, information, normalised
from special_steps.classifier.gaussian import fit_views, project


def scene(right: float, pixels: int = 2000) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Spectra of three classes, labels (class, pixel) of which a share is right, and the truth."""
    rng = np.random.default_rng(0)
    truth = rng.integers(3, size=pixels)
    spectra = rng.random((3, 30))[truth] + 0.03 * rng.standard_normal((pixels, 30))
    labels = np.where(rng.random(pixels) < right, truth, rng.integers(3, size=pixels))
    probabilities = 0.1 + 0.7 * np.eye(3)[labels].T
    return spectra.clip(0, 1).astype("f4"), probabilities.astype("f4"), truth


def test_it_finds_the_classes_of_the_spectra_again():
    spectra, probabilities, truth = scene(0.5)
    views = fit_views(spectra)
    _, found = anchored(project(views, spectra), views, probabilities)
    assert (probabilities.argmax(0) == truth).mean() < 0.7
    assert (found.argmax(0) == truth).mean() > 0.99
    np.testing.assert_allclose(found.sum(0), 1, atol=1e-5)


def test_information_by_hand():
    spectra, probabilities, _ = scene(1)
    assert information(spectra, probabilities) > 0.99
    # of labels that are half right, the spectra keep what is right: kappa = 1 - share / (1 - 1 / 3)
    spectra, probabilities, truth = scene(0.5)
    wrong = (probabilities.argmax(0) != truth).mean()
    assert information(spectra, probabilities) == pytest.approx(1 - wrong * 1.5, abs=0.02)
    spectra, probabilities, _ = scene(0)
    assert abs(information(spectra, probabilities)) < 0.25


def test_information_of_one_class_is_whole():
    spectra, _, _ = scene(1, 50)
    assert information(spectra, np.ones((1, 50), "f4")) == 1


def test_normalised():
    found = normalised(np.array([[1.0, 3], [1, 1]], "f4"))
    np.testing.assert_array_equal(found, np.array([[0.5, 0.75], [0.5, 0.25]], "f4"))
