"""Which pixels an iteration learns from: as many of each class, or any; the confident ones more often, or all alike."""

from collections.abc import Callable

import numpy as np

from special_steps.core.prediction import margins
from special_steps.core.tiling import Tile

# Indices of pixels within a tile, row by row, and their classes from 0; both (n,) int64.
PixelSampler = Callable[[np.random.Generator, Tile], tuple[np.ndarray, np.ndarray]]
FEWEST = 20  # pixels in agreement that a class needs, to be learned from them
# Class from 0, indices of its pixels, and the cumulative sum of their weights.
ClassTable = tuple[int, np.ndarray, np.ndarray]


def class_balanced_sampler(labels: np.ndarray, margin: np.ndarray, count: int) -> PixelSampler:
    """A sampler of `count` pixels per class, with probability proportional to the margin.

    Args:
        labels: (y, x) uint8 pseudo-labels, 1..K, 0 = no data (never drawn).
        margin: (y, x) float32 best-versus-second-best margins.
        count: pixels per class, drawn with replacement; classes that no pixel of the tile has are left out.

    Returns:
        The sampler; it raises ValueError where no pixel of the tile has a label.
    """
    scene_tables = _class_tables(labels, margin)

    def sample(rng: np.random.Generator, tile: Tile) -> tuple[np.ndarray, np.ndarray]:
        whole = labels[tile].shape == labels.shape
        tables = scene_tables if whole else _class_tables(labels[tile], margin[tile])
        drawn = []
        for _, pixels, cumulative in tables:
            places = np.searchsorted(cumulative, rng.random(count) * cumulative[-1], side="right")
            drawn.append(pixels[np.minimum(places, len(pixels) - 1)])
        return np.concatenate(drawn), np.repeat([label for label, _, _ in tables], count)

    return sample


def random_pixels(
    valid: np.ndarray, count: int
) -> Callable[[np.random.Generator, Tile], np.ndarray]:
    """A sampler of `count` pixels of a tile that have data, all alike, drawn with replacement.

    Args:
        valid: (y, x) bool.
        count: pixels to draw.

    Returns:
        The sampler of indices (count,) int64 within the tile, row by row; it raises ValueError where no pixel of
        the tile has data.
    """
    in_scene = np.flatnonzero(valid)

    def sample(rng: np.random.Generator, tile: Tile) -> np.ndarray:
        part = valid[tile]
        pixels = in_scene if part.shape == valid.shape else np.flatnonzero(part)
        return pixels[rng.integers(len(pixels), size=count)]

    return sample


def surest(probabilities: np.ndarray, share: float, least: int = 1) -> np.ndarray:
    """Labels of the share of each class's pixels that has the largest margins.

    All pixels whose margin equals the last one's are taken: the choice does not depend on the order of pixels, also
    where all margins are equal.

    Args:
        probabilities: (class, pixel) float.
        share: of each class's pixels, above 0, at most 1.
        least: pixels of a class at least, where it has them.

    Returns:
        (pixel,) class from 0, or -1.
    """
    best, margin = probabilities.argmax(0), margins(probabilities)
    labels = np.full(len(best), -1)
    for k in np.unique(best):
        pixels = np.flatnonzero(best == k)
        labels[_surest_of(pixels, margin, share, least)] = k
    return labels


def _surest_of(pixels: np.ndarray, margin: np.ndarray, share: float, least: int = 1) -> np.ndarray:
    left_out = len(pixels) - min(len(pixels), max(least, int(np.ceil(share * len(pixels)))))
    last = np.partition(margin[pixels], left_out)[left_out]
    return pixels[margin[pixels] >= last]


def agreement_set(
    pseudo: np.ndarray, found: np.ndarray, margin: np.ndarray, certain: np.ndarray | None = None
) -> np.ndarray:
    """Labels of the pixels where two maps agree.

    A class of fewer than 20 of them takes the surer half of the pixels that were found to be it, all pixels whose
    margin equals the last one's too.

    Args:
        pseudo: (pixel,) pseudo-labels, class from 0, or -1.
        found: (pixel,) what the spectra say of them, class from 0, or -1.
        margin: (pixel,) float32, of what was found.
        certain: (pixel,) bool, pixels whose pseudo-label is known to be right: in the set whatever was found.

    Returns:
        (pixel,) class from 0, or -1; a class that no pixel was found to be has none.
    """
    labels = np.where(found == pseudo, found, -1)
    for k in np.unique(found[found >= 0]):
        if (labels == k).sum() < FEWEST:
            labels[labels == k] = -1
            labels[_surest_of(np.flatnonzero(found == k), margin, 0.5)] = k
    if certain is not None:
        labels[certain] = pseudo[certain]
    return labels


def _class_tables(labels: np.ndarray, margin: np.ndarray) -> list[ClassTable]:
    labels, margin = labels.ravel(), margin.ravel()
    tables = []
    for label in np.unique(labels[labels > 0]):
        pixels = np.flatnonzero(labels == label)
        weights = margin[pixels].astype(np.float64)
        if weights.sum() == 0:
            weights[:] = 1
        tables.append((int(label) - 1, pixels, np.cumsum(weights)))
    return tables
