"""Fewer spectra for almost the same distances: each one that is dropped lies near one that is kept."""

from typing import Literal

import numpy as np

Space = Literal["angle", "log"]
FLOOR = 1e-4  # reflectances below it count as it: no instrument tells them apart, and a logarithm has to exist


def shapes(spectra: np.ndarray, space: Space) -> np.ndarray:
    """Spectra without their brightness, in which a distance is a difference of shape.

    Args:
        spectra: (spectrum, band) reflectance, finite.
        space: angle: of unit length, so that distances are chords of the spectral angle; log: logarithms less their
            mean over the bands, divided by the root of the number of bands.

    Returns:
        (spectrum, band) float64.
    """
    values = np.maximum(np.asarray(spectra, np.float64), FLOOR)
    if space == "angle":
        return values / np.linalg.norm(values, axis=1, keepdims=True)
    logs = np.log(values)
    return (logs - logs.mean(1, keepdims=True)) / np.sqrt(logs.shape[1])


def spread(
    spectra: np.ndarray,
    *,
    number: int | None = None,
    tolerance: float = 0.0,
    space: Space = "angle",
) -> np.ndarray:
    """Choose spectra that are far from each other: farthest-point clustering (Gonzalez 1985).

    The first is the one nearest to the mean, each further one the one farthest from those chosen so far. The choice
    does not depend on the order of the spectra: they are sorted by their values first.

    Args:
        spectra: (spectrum, band) reflectance, finite.
        number: at most so many are chosen; None for no limit.
        tolerance: it ends when every spectrum lies within this distance of a chosen one, in `space`.
        space: see `shapes`.

    Returns:
        (chosen,) indices into `spectra`, in the order in which they were chosen.
    """
    if not len(spectra) or number == 0:
        return np.zeros(0, np.int64)
    order = np.lexsort(np.asarray(spectra).T[::-1])
    points = shapes(np.asarray(spectra)[order], space)
    squares = (points**2).sum(1)

    def squared_distances(index: int) -> np.ndarray:
        return np.maximum(squares + squares[index] - 2 * (points @ points[index]), 0)

    middle = points.mean(0)
    chosen = [int(np.argmin(squares - 2 * (points @ middle)))]
    nearest = squared_distances(chosen[0])
    limit = max(tolerance, 1e-7) ** 2  # below it is what rounding leaves between equal spectra
    while (number is None or len(chosen) < number) and nearest.max() > limit:
        chosen.append(int(np.argmax(nearest)))
        nearest = np.minimum(nearest, squared_distances(chosen[-1]))
    return order[chosen]


def thinned(spectra: np.ndarray, tolerance: float, space: Space = "angle") -> np.ndarray:
    """The spectra less those that lie within `tolerance` of another one that stays.

    A pixel's distance to the nearest spectrum grows by this by no more than the tolerance (the triangle inequality), on
    average by much less.

    Args:
        spectra: (spectrum, band) reflectance, finite.
        tolerance: a distance in `space`, see `shapes`; 0 drops only equal shapes.
        space: see `shapes`.

    Returns:
        (kept, band), as they were given; the same whatever their order was.

    Raises:
        ValueError: when a value is not finite.
    """
    if not np.isfinite(spectra).all():
        raise ValueError("spectra to thin have values that are not finite; leave out those bands")
    return np.asarray(spectra)[spread(spectra, tolerance=tolerance, space=space)]
