"""Anchored co-training: Gaussian discriminants that learn from labels, label again, and are held near those labels."""

import numpy as np

from special_steps.classifier.gaussian import (
    LINEAR,
    Ensemble,
    Views,
    apply_ensemble,
    class_moments,
    fit_ensemble,
    fit_views,
    project,
)
from special_steps.classifier.sampling import surest
from special_steps.core.prediction import kappa

# Chosen on CLIP's labels of simulated scenes, the half to choose on (tests/benchmarks/simulated_scenes.py):
FIRST, SUREST, ROUNDS = 0.3, 0.6, 10  # shares of each class's pixels at first and in each round
BALANCE = 0.5  # a class that CLIP prefers counts less: probabilities / (their mean) ** BALANCE
ANCHOR = 0.75  # exponent of the balanced pseudo-labels, beside the ensemble's probabilities


def anchored(
    joint: np.ndarray, views: Views, probabilities: np.ndarray
) -> tuple[Ensemble, np.ndarray]:
    """Co-training that the pseudo-labels hold near themselves: learn from the surest pixels, label again.

    Args:
        joint: (pixel, component) float32, from project.
        views: whose components they are.
        probabilities: (class, pixel) float32 of the pseudo-labels, positive.

    Returns:
        The last ensemble, and what it finds, (class, pixel) float32.
    """
    balanced = normalised(probabilities / probabilities.mean(1, keepdims=True) ** BALANCE)
    anchor = balanced**ANCHOR
    labels, found = surest(balanced, FIRST), balanced
    for _ in range(ROUNDS):
        moments = class_moments(joint, labels, len(balanced))
        ensemble = fit_ensemble(moments, views, LINEAR)
        found = apply_ensemble(ensemble, joint)
        labels = surest(normalised((found + np.float32(1e-4)) * anchor), SUREST)
    return ensemble, found


def information(spectra: np.ndarray, probabilities: np.ndarray) -> float:
    """How much labels say about the spectra: Cohen's kappa between them and what co-training makes of them.

    1: classes of the labels are classes of the spectra; 0: labels and spectra have nothing to do with each other.

    Args:
        spectra: (pixel, band) float32 in [0, 1].
        probabilities: (class, pixel) float32, columns sum to 1.
    """
    views = fit_views(spectra)
    _, found = anchored(
        project(views, spectra), views, normalised(probabilities + np.float32(1e-6))
    )
    pairs = np.zeros((len(probabilities),) * 2, np.int64)
    np.add.at(pairs, (probabilities.argmax(0), found.argmax(0)), 1)
    return kappa(pairs)


def normalised(values: np.ndarray) -> np.ndarray:
    """Values (class, pixel) divided by their sum over classes."""
    return values / values.sum(0)
