"""Layers that say how much of a pixel is of each class: how to tell them from pictures, labels and measurements."""

from collections.abc import Sequence

import numpy as np

from special_steps.io.fill import missing_values
from special_steps.io.record import Source

TOTALS = (1, 100, 255, 1000, 10_000)  # as fractions, in percent, and in the usual whole numbers
NEAR = 0.05  # of the total: what rounding and unmixing leave
MOST = 0.95  # of the pixels have to add up
NOISE = 1e-3  # of the total: below 0 by less is 0


def missing_fractions(layers: np.ndarray, nodata: Sequence[float]) -> np.ndarray:
    """True, (y, x), where a layer is NaN, infinite or a no-data value; one that may be a fraction counts in all only.

    Args:
        layers: (layer, y, x) as stored.
        nodata: stored values that mean no data.
    """
    possible = [value for value in nodata if 0 <= value <= 1]
    others = [value for value in nodata if not 0 <= value <= 1]
    missing = missing_values(layers, others).any(0)
    if possible:
        missing |= missing_values(layers, possible).all(0)
    return np.asarray(missing)


def total_of(values: np.ndarray, totals: Sequence[float] = TOTALS) -> float | None:
    """The number of `totals` that the layers add up to in nearly all pixels; None where there is none.

    Args:
        values: (layer, pixel) of pixels that are not 0 in all layers.
        totals: what they may add up to.
    """
    sums = values.sum(0)
    for total in totals:
        rounding = min(len(values), 0.2 * total) if total > 1 else 0
        near = np.abs(sums - total) <= max(NEAR * total, rounding)
        if sums.size and near.mean() >= MOST:
            return total
    return None


def whole_of(values: np.ndarray, picture: bool) -> float | None:
    """What a whole pixel is in layers of fractions: 1, or what they add up to; None where they are no fractions.

    A picture in colours may also lie in [0, 1] or add up to 255 (pure red, green and blue), so of layers that GDAL
    takes for a picture less is believed; all are equal where a grey picture was saved in colours.

    Args:
        values: (layer, pixel) of pixels that are not 0 in all layers, not negative.
        picture: whether the file calls its layers red, green and blue.
    """
    if not values.size or (len(values) > 1 and (values == values[0]).all()):
        return None
    small = values.max() <= 1 + NEAR
    if small and not (picture and (values % 1 != 0).any()):
        return 1
    return total_of(values, TOTALS[:2] if picture else TOTALS)


def is_picture(source: Source) -> bool:
    """Whether a file calls its layers red, green and blue; GDAL does so of any three layers of 8 bits."""
    return source.photometric == "rgb" and source.shape[0] in (3, 4)


def common_colours(layers: np.ndarray, most: int = 5) -> str:
    """The commonest colours of a picture (3 or more, y, x) in 8 bits, such as "0xff7f50 (12 %), 0x000000 (3 %)"."""
    red, green, blue = layers[:3].astype(np.int64)
    found, counts = np.unique(red << 16 | green << 8 | blue, return_counts=True)
    first = np.argsort(-counts, kind="stable")[:most]
    told = ", ".join(f"0x{found[i]:06x} ({100 * counts[i] / red.size:.3g} %)" for i in first)
    return told + (", ..." if len(found) > most else "")
