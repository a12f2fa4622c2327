"""The refinement's sets: confident and hard pixels, with soft labels of class mixtures."""

import logging
import warnings
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from special_steps.core.prediction import labels as best_labels
from special_steps.core.prediction import margins

log = logging.getLogger("special")

# Pixels that a mixture is fitted on at most: more do not move it, they cost time.
MAX_FITTED = 50_000
PIXELS_PER_COMPONENT = 20  # that a mixture needs at least


def fit_mixture(
    samples: np.ndarray, components: int, rng: np.random.Generator
) -> GaussianMixture | None:
    """Fit a full-covariance Gaussian mixture; fewer components, or None, where samples are few.

    Args:
        samples: (pixel, dimension) float.
        components: components wanted.
        rng: for the start and for the choice of at most 50,000 samples.
    """
    if len(samples) > MAX_FITTED:
        samples = samples[np.sort(rng.choice(len(samples), MAX_FITTED, replace=False))]
    distinct = len(np.unique(samples, axis=0)) if len(samples) < 1000 else len(samples)
    components = min(components, len(samples) // PIXELS_PER_COMPONENT, distinct)
    if components < 1:
        return None
    mixture = GaussianMixture(components, random_state=int(rng.integers(2**31)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # 100 steps are enough for a split
        return mixture.fit(samples)


def split_by_margin(
    labels: np.ndarray, margin: np.ndarray, components: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Split each class's pixels by their margins into a confident and a hard set.

    A 1-D Gaussian mixture is fitted per class: its component with the highest mean is the
    confident set, the lowest the hard set (SPECIAL, refinement stage). Where there are too few
    pixels for two components, all of the class's pixels are confident.

    Args:
        labels: (pixel,) uint8 predicted labels, 1..K, 0 = no data.
        margin: (pixel,) float32 best-versus-second-best margins.
        components: mixture components.
        rng: for the mixtures.

    Returns:
        confident and hard, (pixel,) bool.
    """
    confident, hard = np.zeros(len(labels), bool), np.zeros(len(labels), bool)
    for label in np.unique(labels[labels > 0]):
        pixels = np.flatnonzero(labels == label)
        values = margin[pixels, None].astype(np.float64)
        mixture = fit_mixture(values, components, rng)
        if mixture is None or len(mixture.means_) < 2:
            log.warning("class %d: too few pixels (%d) to split by margin", label, len(pixels))
            confident[pixels] = True
            continue
        component, means = mixture.predict(values), mixture.means_[:, 0]
        confident[pixels[component == means.argmax()]] = True
        hard[pixels[component == means.argmin()]] = True
    return confident, hard


def soft_labels(
    spectra: np.ndarray,
    labels: np.ndarray,
    confident: np.ndarray,
    wanted: np.ndarray,
    classes: int,
    components: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Class probabilities of pixels from one mixture per class, fitted on its confident pixels.

    Likelihoods are normalised over classes in log space: the densities themselves underflow.
    Pixels predicted as a class that has no mixture keep their one-hot label.

    Args:
        spectra: (pixel, component) principal components.
        labels: (pixel,) uint8 predicted labels, 1..K, 0 = no data.
        confident: (pixel,) bool.
        wanted: (n,) indices of the pixels to label.
        classes: K.
        components: mixture components per class.
        rng: for the mixtures.

    Returns:
        (n, class) float32, rows sum to 1.
    """
    likelihood = np.full((len(wanted), classes), -np.inf)
    for i in range(classes):
        mixture = fit_mixture(spectra[confident & (labels == i + 1)], components, rng)
        if mixture is not None and len(wanted):
            likelihood[:, i] = mixture.score_samples(spectra[wanted])
    missing = ~np.isfinite(likelihood).any(0)
    own = labels[wanted].astype(np.int64) - 1
    with np.errstate(invalid="ignore"):
        soft = np.exp(likelihood - np.logaddexp.reduce(likelihood, 1, keepdims=True))
    one_hot = missing[own] | ~np.isfinite(soft).all(1)
    soft[one_hot] = np.eye(classes)[own[one_hot]]
    return soft.astype(np.float32)


def confident_and_hard_sets(
    probabilities: np.ndarray,
    nodata: np.ndarray,
    spectra: np.ndarray,
    settings: dict[str, Any],
    rng: np.random.Generator,
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The confident and the hard set of an epoch.

    Args:
        probabilities: (class, y, x) float32, the network's prediction.
        nodata: (y, x) bool.
        spectra: (pixel, component) principal components.
        settings: margin_components, confident_fraction, class_components.
        rng: for the mixtures, and for the share of the confident pixels that is used.

    Returns:
        By name, confident and hard, indices of pixels (n,) int64 and soft labels (n, class) float32.
    """
    labels = best_labels(probabilities, nodata).ravel()
    confident, hard = split_by_margin(
        labels, margins(probabilities).ravel(), settings["margin_components"], rng
    )
    candidates = np.flatnonzero(confident)
    count = int(np.ceil(len(candidates) * settings["confident_fraction"]))
    chosen = np.sort(rng.choice(candidates, count, replace=False))
    both = np.concatenate([chosen, np.flatnonzero(hard)])
    soft = soft_labels(
        spectra, labels, confident, both, len(probabilities), settings["class_components"], rng
    )
    return {"confident": (both[:count], soft[:count]), "hard": (both[count:], soft[count:])}
