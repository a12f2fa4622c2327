"""What labels of a few pixels say of all others: a third witness, beside CLIP and the spectral library.

People label some pixels. Where pseudo-labels and spectra miss a class there, they are not believed on it: what the
pseudo-labels call such pixels tells which of them may hide the class, and the spectra tell which pixels it takes.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from special_steps.classifier.anchored import normalised
from special_steps.classifier.gaussian import (
    LINEAR,
    Ensemble,
    Moments,
    Views,
    apply_ensemble,
    class_moments,
    fit_ensemble,
    fit_views,
    project,
)
from special_steps.classifier.sampling import surest

# Chosen on simulated scenes, the half to choose on, with and without a class that is never found
# (tests/benchmarks/clicks.py):
SHARE = 0.3  # of each class's pixels, that stand for it where people labelled none
ROUNDS = 4  # how often these are chosen
EXPONENT = 3  # of the spectra's probabilities, beside the pseudo-labels'
PRIOR = 1  # pixels that the pseudo-labels' own account of a class counts as
ANYTHING = 0.02  # of that account: they may call it anything
LEAST = np.float32(1e-3)  # nothing is ruled out by them


class Taught(NamedTuple):
    """What was learned, ready for any pixel of the scene."""

    views: Views
    ensemble: Ensemble
    called: np.ndarray  # (class, class) float32: what pseudo-labels call a class's pixels, a column
    missed: np.ndarray  # (class,) float32: how little a class is seen in its given pixels


def learn(spectra: np.ndarray, probabilities: np.ndarray, given: np.ndarray) -> Taught:
    """Learn from given labels, and for classes without from the surest pseudo-labels.

    Args:
        spectra: (pixel, band) float32 in [0, 1].
        probabilities: (class, pixel) float32 of the pseudo-labels, columns sum to 1.
        given: (pixel,) int, class from 0 that people gave, or -1; at least one.
    """
    classes = len(probabilities)
    views = fit_views(spectra)
    joint = project(views, spectra)
    known = given >= 0
    people = [joint[given == k] for k in range(classes)]
    # what spectra make of the pseudo-labels alone: co-training mends much without anybody's help
    moments = class_moments(joint, surest(probabilities, SHARE), classes)
    alone = apply_ensemble(fit_ensemble(moments, views, LINEAR), joint)
    called = np.eye(classes, dtype=np.float32)
    missed = np.zeros(classes, np.float32)
    for k in np.unique(given[known]):
        said = probabilities[:, given == k]
        prior = PRIOR * ((1 - ANYTHING) * called[:, k] + ANYTHING / classes)
        called[:, k] = (said.sum(1) + prior) / (said.shape[1] + PRIOR)
        missed[k] = 1 - alone[k, given == k].mean()
    certain = np.arange(classes)[:, None] == given[known]
    found = probabilities
    for _ in range(ROUNDS):
        labels = surest(found, SHARE)
        labels[known] = -1
        ensemble = fit_ensemble(_moments(joint, labels, people), views, LINEAR)
        found = _joined(ensemble, called, joint, probabilities)
        found[:, known] = certain
    return Taught(views, ensemble, called, missed)


def corrected(taught: Taught, spectra: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """The pseudo-labels' probabilities, where they are believed; elsewhere what labels and spectra make of them.

    Args:
        taught: made by learn.
        spectra: (pixel, band) float32 in [0, 1], any pixels of the scene.
        probabilities: (class, pixel) float32 of their pseudo-labels.

    Returns:
        (class, pixel) float32; hardly changed where pseudo-labels and spectra see the given pixels' classes.
    """
    joint = project(taught.views, spectra)
    found = _joined(taught.ensemble, taught.called, joint, probabilities)
    doubt = taught.missed @ found
    return (1 - doubt) * probabilities + doubt * found


def _moments(joint: np.ndarray, labels: np.ndarray, people: Sequence[np.ndarray]) -> Moments:
    """Moments of labels, where classes that people labelled have their centre, and few pixels the pooled covariance."""
    counts, means, covariances = class_moments(joint, labels, len(people))
    many = counts >= 2 * joint.shape[1]
    enough = counts > 1
    pooled = covariances[enough].mean(0) if enough.any() else np.cov(joint.T, bias=True)
    pooled = np.atleast_2d(pooled)
    given = np.array([len(pixels) > 0 for pixels in people])
    for mean, pixels in zip(means, people, strict=True):
        if len(pixels):
            mean[:] = _centre(pixels, pooled)
    covariances[given & ~many] = pooled
    # as for many pixels: the ensemble shall not shrink what is pooled already
    return Moments(np.where(given, np.maximum(counts, 1000), counts), means, covariances)


def _centre(pixels: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Geometric median of pixels (pixel, component) by Mahalanobis distance: one wrong of five moves it little."""
    size = len(covariance)
    ridge = np.diag(1e-3 * np.diag(covariance) + 1e-9 * (np.trace(covariance) / size or 1.0))
    white = np.linalg.solve(np.linalg.cholesky(covariance + ridge), pixels.T.astype(np.float64)).T
    weights = np.full(len(pixels), 1 / len(pixels))
    for _ in range(20):  # Weiszfeld
        weights = 1 / np.sqrt(np.square(white - weights @ white).sum(1) + 1e-6)
        weights /= weights.sum()
    return weights @ pixels


def _joined(
    ensemble: Ensemble, called: np.ndarray, joint: np.ndarray, probabilities: np.ndarray
) -> np.ndarray:
    """(class, pixel) float32 from spectra, and from what pseudo-labels call pixels of each class."""
    by_spectra = apply_ensemble(ensemble, joint) + np.float32(1e-4)
    return normalised(by_spectra**EXPONENT * (called.T @ probabilities + LEAST))
