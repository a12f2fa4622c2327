"""Simple spectral classifiers that learn from the surest pseudo-labels: what the second stage has to beat.

Each is a few lines on top of scikit-learn, with one fixed definition for all scenes and no randomness. The numbers
below were chosen in the methods' favour, with ground truth: on controlled labels of Samson and MUUFL and the maps to
choose by of tests/benchmarks/noisy_labels.py.
"""

import logging
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from sklearn.cluster import KMeans
from sklearn.covariance import EmpiricalCovariance
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis, QuadraticDiscriminantAnalysis

from special_steps.classifier.sampling import surest
from special_steps.core.cli import run
from special_steps.core.prediction import given_labels, write_prediction
from special_steps.core.store import class_names, grid_of, open_store, read_array

log = logging.getLogger("special")

Method = Literal["lda", "qda", "spectral_angle", "kmeans"]
COMPONENTS = 20
CLUSTERS = 40
SURE = 0.2  # share of each class's pixels to learn from at first
KEEP, ROUNDS = 0.9, 10  # share of its own labels to learn from, how often
LEAST = 30  # pixels that a class learns from, where it has them
SHRINKAGE = {"lda": 0.01, "qda": 0.2}  # of covariances towards that of all pixels
MOST = 100_000  # pixels that components and clusters are made from: more do not move them
BLOCK = 65_536  # pixels at a time


def classify(method: Method, spectra: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Class probabilities from spectra alone, learned from the pseudo-labels' surest pixels.

    `lda` and `qda`: discriminant analysis of 20 whitened principal components, on the fifth of each class's pixels
    with the largest margins; then ten times on the surest nine tenths of its own prediction. `spectral_angle`: the
    angle to each class's mean spectrum, over the surest fifth of its pixels. `kmeans`: 40 clusters of the components,
    each with the mean probabilities of its pixels.

    Classes that no pixel is labelled with have probability 0. Where there is nothing to learn (labels of one class,
    spectra that are all equal, a single pixel), the result is the pseudo-labels, with a warning.

    Args:
        method: which of the four.
        spectra: (pixel, band) float, finite.
        probabilities: (pixel, class) float, rows sum to 1.

    Returns:
        (pixel, class) float32, rows sum to 1; the same for the same input, whatever the order of pixels (up to
        rounding; for `kmeans` in this order).

    Raises:
        ValueError: for another method.
    """
    if method not in get_args(Method):
        raise ValueError(f"no method '{method}'; there are {', '.join(get_args(Method))}")
    named = np.unique(probabilities.argmax(1))
    constant = len(spectra) < 2 or not np.ptp(spectra, axis=0).any()
    if len(named) < 2 or constant:
        why = "all spectra are equal" if constant else f"all are of class {named[0] + 1}"
        log.warning("%s: nothing to learn from these pseudo-labels (%s); they stay", method, why)
        return probabilities.astype(np.float32)
    if method == "kmeans":
        found = _clustered(spectra, probabilities)
    elif method == "spectral_angle":
        found = _nearest_by_angle(spectra, probabilities)
    else:
        found = _self_trained(method, spectra, probabilities)
    only = np.zeros_like(found)
    only[:, named] = found[:, named]
    sums = only.sum(1, keepdims=True)
    lost = sums[:, 0] <= 0  # of a class that is named nowhere: spread over those that are
    only[np.ix_(lost, named)], sums[lost] = 1 / len(named), 1
    return (only / sums).astype(np.float32)


def surest_pixels(probabilities: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray]:
    """The share of each class's pixels that has the largest margins, at least 30 of a class, where it has them.

    Args:
        probabilities: (pixel, class) float.
        share: above 0, at most 1.

    Returns:
        Indices (n,) int64, ascending within a class, and their classes (n,) int64 from 0.
    """
    labels = surest(np.ascontiguousarray(probabilities.T), share, LEAST)
    pixels = np.argsort(labels, kind="stable")[np.count_nonzero(labels < 0) :]
    return pixels, labels[pixels]


def principal_components(spectra: np.ndarray, *, whiten: bool) -> np.ndarray:
    """At most 20 leading principal components, without those that are rounding errors.

    Args:
        spectra: (pixel, band) float, at least two pixels that differ.
        whiten: scale each component to variance 1.

    Returns:
        (pixel, component) float64.
    """
    sample = _sample(spectra)
    count = min(COMPONENTS, *sample.shape)
    model = PCA(count, svd_solver="covariance_eigh").fit(sample)
    kept = model.explained_variance_ > 1e-9 * model.explained_variance_[0]
    axes = model.components_[kept].T
    if whiten:
        axes = axes / np.sqrt(model.explained_variance_[kept])
    blocks = (spectra[i : i + BLOCK] for i in range(0, len(spectra), BLOCK))
    return np.concatenate([(block - model.mean_) @ axes for block in blocks])


def _sample(spectra: np.ndarray) -> np.ndarray:
    """At most 100,000 pixels, evenly spaced, as float64; all, where they are fewer or these are all equal."""
    step = -(-len(spectra) // MOST)
    sample = spectra[::step].astype(np.float64)
    return sample if np.ptp(sample, axis=0).any() else spectra.astype(np.float64)


class _TowardsTotal(EmpiricalCovariance):
    """Covariance of a class, shrunk towards that of all pixels, which is the identity in whitened components.

    So it has full rank for any number of pixels, one included.
    """

    def __init__(self, shrinkage: float) -> None:
        super().__init__()
        self.shrinkage = shrinkage

    def fit(self, X: np.ndarray, y: None = None) -> "_TowardsTotal":
        """Set `covariance_` (component, component) from X (pixel, component)."""
        covariance = np.atleast_2d(np.cov(X.T, bias=True))
        self.covariance_ = (1 - self.shrinkage) * covariance + self.shrinkage * np.eye(X.shape[1])
        return self


def _self_trained(
    method: Literal["lda", "qda"], spectra: np.ndarray, probabilities: np.ndarray
) -> np.ndarray:
    """Discriminant analysis that learns from the surest labels, then from its own; (pixel, class)."""
    scores = principal_components(spectra, whiten=True)
    covariance = _TowardsTotal(SHRINKAGE[method])
    found = probabilities
    for turn in range(ROUNDS + 1):
        pixels, labels = surest_pixels(found, SURE if turn == 0 else KEEP)
        classes, counts = np.unique(labels, return_counts=True)
        if len(classes) < 2:  # it has lost all classes but one: the turn before stands
            log.warning("%s: self-training ended at turn %d with one class", method, turn)
            break
        alone = np.isin(labels, classes[counts == 1])  # twice: scikit-learn refuses single pixels
        pixels = np.concatenate([pixels, pixels[alone]])
        labels = np.concatenate([labels, labels[alone]])
        model = (
            LinearDiscriminantAnalysis(solver="lsqr", covariance_estimator=covariance)
            if method == "lda"
            else QuadraticDiscriminantAnalysis(solver="eigen", covariance_estimator=covariance)
        ).fit(scores[pixels], labels)
        found = np.zeros(probabilities.shape)
        for i in range(0, len(scores), BLOCK):
            found[i : i + BLOCK, classes] = model.predict_proba(scores[i : i + BLOCK])
    return found


def _nearest_by_angle(spectra: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Softmax of angles to the classes' mean spectra; (pixel, class). Black pixels keep their labels."""
    pixels, labels = surest_pixels(probabilities, SURE)
    means = np.zeros((probabilities.shape[1], spectra.shape[1]))
    for label in np.unique(labels):
        means[label] = spectra[pixels[labels == label]].mean(0, dtype=np.float64)
    lengths = np.linalg.norm(means, axis=1)
    usable = np.flatnonzero(lengths > 0)
    if not len(usable):
        return probabilities
    means = means[usable] / lengths[usable, None]
    cosines = np.zeros((len(spectra), len(usable)))
    black = np.zeros(len(spectra), bool)
    for i in range(0, len(spectra), BLOCK):
        block = spectra[i : i + BLOCK].astype(np.float64)
        length = np.linalg.norm(block, axis=1)
        black[i : i + BLOCK] = length == 0
        cosines[i : i + BLOCK] = block @ means.T / np.where(length > 0, length, 1)[:, None]
    angles = np.arccos(np.clip(cosines, -1, 1))
    nearest = angles.min(1, keepdims=True)
    typical = np.median(nearest[~black])  # the scale of a difference that means something
    evidence = np.exp((nearest - angles) / max(typical, 1e-6))
    found = np.zeros(probabilities.shape)
    found[:, usable] = evidence / evidence.sum(1, keepdims=True)
    found[black] = probabilities[black]
    return found


def _clustered(spectra: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Mean probabilities of the pixels of each k-means cluster; (pixel, class)."""
    scores = principal_components(spectra, whiten=False)
    sample = _sample(scores)
    count = min(CLUSTERS, len(np.unique(sample, axis=0)))
    model = KMeans(count, n_init=1, random_state=0).fit(sample)
    cluster = model.predict(scores)
    sizes = np.bincount(cluster, minlength=model.n_clusters)
    sums = [np.bincount(cluster, column, model.n_clusters) for column in probabilities.T]
    means = np.stack(sums, 1) / np.maximum(sizes, 1)[:, None]
    return means[cluster]


def baseline(*, features: Path, pseudo: Path, method: Method, out: Path) -> None:
    """Map the scene by a simple classifier of spectra that learns from the pseudo-labels.

    The scene's valid pixels are in memory at once.

    Args:
        features: store with the classifier's input.
        pseudo: store with the pseudo-labels' probabilities.
        method: self-trained linear (lda) or quadratic (qda) discriminant analysis, spectral_angle to the mean of the
            surest pixels, or kmeans clusters that vote
        out: store to write.
    """
    prepared = open_store(features, features=("band", "y", "x"), nodata=("y", "x"))
    labelled = open_store(pseudo, probabilities=("class", "y", "x"), nodata=("y", "x"))
    names, nodata = class_names(labelled), read_array(prepared, "nodata")
    given = read_array(labelled, "probabilities")
    probabilities = np.zeros_like(given)
    spectra = read_array(prepared, "features")[:, ~nodata].T
    probabilities[:, ~nodata] = classify(method, spectra, given[:, ~nodata].T).T
    counts = np.bincount(probabilities[:, ~nodata].argmax(0), minlength=len(names))
    parts = (
        f"{name} {100 * n / len(spectra):.1f} %" for name, n in zip(names, counts, strict=True)
    )
    log.info("%s: %s", method, ", ".join(parts))
    write_prediction(
        out,
        probabilities,
        nodata,
        step="baseline",
        settings={"method": method},
        inputs=[features, pseudo],
        class_names=names,
        grid=grid_of(labelled),
        given=given_labels(labelled),
    )


if __name__ == "__main__":
    run(baseline)
