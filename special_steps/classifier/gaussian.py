"""Gaussian discriminants in spectral views: what the co-training's ensembles are made of.

A view is a set of principal components: of the spectra (`brightness` and shape), of the spectra scaled to unit length
(`shape` alone: sun and shade look alike), or both side by side (`joint`). A member is a view and a share: how much of
a class's covariance is the one pooled over classes. Class moments are computed once, in the joint view; every member
takes its part of them.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

COMPONENTS = 20  # of each of the two views
OFFSET = 0.01  # added to reflectance before it is scaled to unit length: dark pixels have little but noise
TEMPERATURE = (
    4.0  # log-likelihoods are divided by it: neighbouring bands are no independent witnesses
)
BLOCK = 4096  # pixels at a time, so that what is computed between two products stays in the cache

Member = tuple[str, float]  # view, share of the pooled covariance
LINEAR: tuple[Member, ...] = (("brightness", 1), ("shape", 1), ("joint", 1), ("joint", 0.5))
QUADRATIC: tuple[Member, ...] = (
    ("brightness", 0.5),
    ("shape", 0.5),
    ("joint", 0.5),
    ("joint", 0.1),
)


class Views(NamedTuple):
    """The projections to both views' components."""

    means: tuple[np.ndarray, np.ndarray]  # (band,) float32 each: of brightness, of shape
    axes: tuple[np.ndarray, np.ndarray]  # (band, component) float32 each, scaled

    @property
    def parts(self) -> dict[str, slice]:
        """Where each view lies among the joint components."""
        brightness, shape = (axes.shape[1] for axes in self.axes)
        return {
            "brightness": slice(0, brightness),
            "shape": slice(brightness, brightness + shape),
            "joint": slice(0, brightness + shape),
        }


class Moments(NamedTuple):
    """Of the pixels that stand for each class, in the joint view."""

    counts: np.ndarray  # (class,) pixels
    means: np.ndarray  # (class, component) float64
    covariances: (
        np.ndarray
    )  # (class, component, component) float64; zero for a class without pixels


class Ensemble(NamedTuple):
    """Discriminants ready to be applied: linear members as weights, the others as whitening."""

    present: np.ndarray  # (class,) bool: the others get probability 0
    linear: list[
        tuple[slice, np.ndarray, np.ndarray]
    ]  # part, weights (component, class), bias (class,)
    quadratic: list[tuple[slice, np.ndarray, np.ndarray, np.ndarray]]
    # part, whitening (component, class x component), its shift (class x component), log determinant (class,)


def unit_length(spectra: np.ndarray) -> np.ndarray:
    """Spectra (pixel, band) without their brightness: (x + 0.01) / |x + 0.01|."""
    shifted = spectra + np.float32(OFFSET)
    norms = np.sqrt(np.einsum("ij,ij->i", shifted, shifted))[:, None]
    return np.divide(shifted, norms, out=shifted, where=norms > 0)


def fit_views(spectra: np.ndarray) -> Views:
    """The leading components of both views; each view is divided by the deviation of its first component.

    Args:
        spectra: (pixel, band) float32 in [0, 1]. Constant bands and fewer pixels or bands than components are fine: a
            view then has fewer components, at least one.
    """
    fitted = [_principal_axes(spectra, lambda block: block), _principal_axes(spectra, unit_length)]
    return Views((fitted[0][0], fitted[1][0]), (fitted[0][1], fitted[1][1]))


def _principal_axes(
    spectra: np.ndarray, see: Callable[[np.ndarray], np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Mean (band,) and scaled axes (band, component) of what a view sees of the spectra."""
    pixels, bands = spectra.shape
    centre = see(spectra[:BLOCK]).mean(0)  # sums around a typical spectrum lose no digits
    total, scatter = np.zeros(bands), np.zeros((bands, bands))
    for start in range(0, pixels, BLOCK):
        block = see(spectra[start : start + BLOCK]) - centre
        total += block.sum(0, dtype=np.float64)
        scatter += block.T @ block
    mean = total / pixels
    covariance = scatter / pixels - np.outer(mean, mean)
    variances, axes = np.linalg.eigh(covariance)
    variances, axes = variances[::-1], axes[:, ::-1]
    # what is left of constant or copied bands is rounding
    count = max(1, min(COMPONENTS, int((variances > 1e-9 * max(variances[0], 0)).sum())))
    axes = axes[:, :count] / np.sqrt(variances[0] if variances[0] > 0 else 1)
    return (centre + mean).astype(np.float32), axes.astype(np.float32)


def project(views: Views, spectra: np.ndarray) -> np.ndarray:
    """Spectra (pixel, band) float32 in the joint view, (pixel, component) float32."""
    both, offset = np.concatenate(views.axes, 1), np.float32(OFFSET)
    shape = views.parts["shape"]
    # (x + c) / |x + c| without a copy of the spectra: the product is linear, the length follows from two sums
    shift = np.concatenate([-views.means[0] @ views.axes[0], offset * views.axes[1].sum(0)])
    mean = views.means[1] @ views.axes[1]
    out = np.empty((len(spectra), both.shape[1]), np.float32)
    for start in range(0, len(spectra), BLOCK):
        part = spectra[start : start + BLOCK]
        block = np.matmul(part, both, out=out[start : start + BLOCK])
        block += shift
        squares = np.einsum("ij,ij->i", part, part) + 2 * offset * part.sum(1)
        lengths = np.sqrt(squares + spectra.shape[1] * offset**2)
        block[:, shape] /= np.where(lengths > 0, lengths, 1)[:, None]
        block[:, shape] -= mean
    return out


def class_moments(joint: np.ndarray, labels: np.ndarray, classes: int) -> Moments:
    """Count, mean and covariance of each class's pixels.

    Args:
        joint: (pixel, component) float32.
        labels: (pixel,) class from 0; -1 takes no part.
        classes: K.
    """
    size = joint.shape[1]
    counts = np.bincount(labels[labels >= 0], minlength=classes)
    means, covariances = np.zeros((classes, size)), np.zeros((classes, size, size))
    for k in np.flatnonzero(counts):
        pixels = joint[labels == k]
        means[k] = pixels.mean(0, dtype=np.float64)
        pixels -= means[k].astype(np.float32)
        covariances[k] = pixels.T @ pixels / counts[k]
    return Moments(counts, means, covariances)


def fit_ensemble(moments: Moments, views: Views, members: tuple[Member, ...]) -> Ensemble:
    """Discriminants of the classes that have pixels; none has a prior.

    A class's covariance is l S + (1 - l) S_k: S is pooled over classes (each counts the same), with 1e-3 of its
    diagonal and 1e-6 of the mean variance added; l is the member's share, or 2 d / n where a class has few pixels.

    Args:
        moments: in the joint view.
        views: whose parts they are.
        members: views and shares.
    """
    present = moments.counts > 0
    linear, quadratic = [], []
    for view, share in members:
        part = views.parts[view]
        means = moments.means[present][:, part]
        own = moments.covariances[present][:, part, part]
        size = means.shape[1]
        pooled = own.mean(0)
        variance = np.trace(pooled) / size or 1.0
        pooled = pooled + np.diag(1e-3 * np.diag(pooled) + 1e-6 * variance)
        if share == 1:
            weights = np.linalg.solve(pooled, means.T)
            bias = -0.5 * np.einsum("kd,dk->k", means, weights)
            linear.append((part, weights.astype(np.float32), bias.astype(np.float32)))
            continue
        shares = np.clip(2 * size / moments.counts[present], share, 1)[:, None, None]
        factors = np.linalg.cholesky(shares * pooled + (1 - shares) * own)
        inverse = np.linalg.inv(factors)
        shift = np.einsum("kij,kj->ki", inverse, means)
        half_log = np.log(np.einsum("kii->ki", factors)).sum(1)
        whitening = np.concatenate(list(inverse)).T  # (component, class x component)
        quadratic.append(
            (
                part,
                np.ascontiguousarray(whitening, np.float32),
                shift.ravel().astype(np.float32),
                half_log.astype(np.float32),
            )
        )
    return Ensemble(present, linear, quadratic)


def nearest_distances(moments: Moments, joint: np.ndarray) -> np.ndarray:
    """How far spectra are from the class that they are nearest to: squared Mahalanobis distance, (pixel,) float32.

    Args:
        moments: of the classes; those without pixels are left out. Half of a covariance is the one pooled over classes.
        joint: (pixel, component) float32.
    """
    present = moments.counts > 0
    own = moments.covariances[present]
    size = own.shape[1]
    pooled = own.mean(0)
    pooled = pooled + np.diag(1e-3 * np.diag(pooled) + 1e-6 * (np.trace(pooled) / size or 1.0))
    nearest = np.full(len(joint), np.inf, np.float32)
    for mean, covariance in zip(moments.means[present], own, strict=True):
        whitening = np.linalg.inv(np.linalg.cholesky((pooled + covariance) / 2)).T
        white = (joint - mean.astype(np.float32)) @ whitening.astype(np.float32)
        np.minimum(nearest, np.einsum("ij,ij->i", white, white), out=nearest)
    return nearest


def apply_ensemble(ensemble: Ensemble, joint: np.ndarray) -> np.ndarray:
    """Mean of the members' class probabilities, (class, pixel) float32; 0 for a class without pixels.

    Args:
        ensemble: made by fit_ensemble.
        joint: (pixel, component) float32.
    """
    classes = int(ensemble.present.sum())
    found = np.empty((classes, len(joint)), np.float32)
    members = len(ensemble.linear) + len(ensemble.quadratic)
    for start in range(0, len(joint), BLOCK):
        block = joint[start : start + BLOCK]
        total = np.zeros((len(block), classes), np.float32)
        for part, weights, bias in ensemble.linear:
            total += _softmax(block[:, part] @ weights + bias)
        for part, whitening, shift, half_log in ensemble.quadratic:
            white = (block[:, part] @ whitening - shift).reshape(len(block), classes, -1)
            total += _softmax(-0.5 * np.einsum("nkd,nkd->nk", white, white) - half_log)
        found[:, start : start + len(block)] = (total / members).T
    if ensemble.present.all():
        return found
    out = np.zeros((len(ensemble.present), len(joint)), np.float32)
    out[ensemble.present] = found
    return out


def _softmax(likelihood: np.ndarray) -> np.ndarray:
    """Of tempered log-likelihoods (pixel, class), in place."""
    likelihood -= likelihood.max(1, keepdims=True)
    likelihood /= TEMPERATURE
    np.exp(likelihood, out=likelihood)
    likelihood /= likelihood.sum(1, keepdims=True)
    return likelihood
