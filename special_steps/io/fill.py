"""Values that mean no data: those that a file states, and those that it does not."""

import logging
from collections.abc import Sequence

import numpy as np

log = logging.getLogger("special")

SHARE = 0.01  # of the pixels: what one value in all bands may fill before it is told
BORDER = 20  # pixels of one value that reach in from the border, before they are told
MOST = 20  # values that are looked at, the most frequent
HUGE = 1e30
NEGATIVE = -0.05  # noise of dark pixels is not below in all bands
ENOUGH_BANDS = 3  # fewer may well be equal by chance


def missing_values(block: np.ndarray, nodata: Sequence[float]) -> np.ndarray:
    """True, (band, y, x), where a stored value is NaN, infinite or a no-data value."""
    is_float = block.dtype.kind == "f"
    missing = ~np.isfinite(block) if is_float else np.zeros(block.shape, bool)
    for value in nodata:
        if not is_float and fits(value, block.dtype):
            missing |= block == int(value)
        elif is_float and np.isfinite(value):
            # NumPy compares in the data's own type: "-3.4e38" in a header is rounded as the data are
            with np.errstate(
                over="ignore"
            ):  # larger than the type's largest: found above, as infinite
                missing |= block == float(value)
    return missing


def fits(value: float, dtype: np.dtype) -> bool:
    """Whether a value can stand in an array of a dtype at all."""
    if dtype.kind == "f":
        return True
    if dtype.kind == "b":
        return value in (0, 1)
    limits = np.iinfo(dtype)
    return (
        bool(np.isfinite(value)) and float(value).is_integer() and limits.min <= value <= limits.max
    )


def flat_values(block: np.ndarray, good: np.ndarray, among: np.ndarray | None = None) -> np.ndarray:
    """Where all good bands hold one and the same finite value: that value; else NaN. (y, x) float64.

    Args:
        block: (band, y, x) stored values.
        good: (band,) bool.
        among: (y, x) bool, pixels to look at; None for all.
    """
    bands = np.flatnonzero(good)
    flat = np.full(block.shape[1:], np.nan)
    if len(bands) < ENOUGH_BANDS:
        return flat
    first = block[bands[0]]
    same = np.isfinite(first) if among is None else np.isfinite(first) & among
    # two bands tell for nearly all pixels of a scene
    for band in (bands[-1], bands[len(bands) // 2]):
        same &= block[band] == first
    rows, columns = np.nonzero(same)
    for band in bands:
        if not len(rows):
            break
        equal = block[band, rows, columns] == first[rows, columns]
        rows, columns = rows[equal], columns[equal]
    flat[rows, columns] = first[rows, columns]
    return flat


def unstated_fill(flat: np.ndarray) -> dict[float, float]:
    """Values that seem to mean no data though nothing says so, and the share of the pixels that each fills.

    One value in all bands is hardly a measurement where it fills a large share, or reaches in from the border.

    Args:
        flat: (y, x) of the whole scene, see `flat_values`, NaN where masked.
    """
    values, counts = np.unique(flat[~np.isnan(flat)], return_counts=True)
    most = np.sort(
        np.argsort(-counts, kind="stable")[:MOST]
    )  # of scenes in grey, each value is flat
    return {
        float(value): float(count / flat.size)
        for value, count in zip(values[most], counts[most], strict=True)
        if count >= SHARE * flat.size or (count >= BORDER and at_border(flat == value).any())
    }


def at_border(area: np.ndarray) -> np.ndarray:
    """The parts of an area (y, x) bool that reach in from the scene's border, at least BORDER pixels each."""
    from scipy.ndimage import label

    parts, _ = label(area)
    edges = np.unique(np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]]))
    sizes = np.bincount(parts.ravel())
    return np.isin(parts, [part for part in edges if part and sizes[part] >= BORDER])


def is_no_measurement(value: float, reflectance: np.ndarray, dtype: np.dtype) -> bool:
    """Whether a value in all bands cannot be measured: the type's end, or clearly below 0.

    Args:
        value: as stored.
        reflectance: (band,) what it stands for.
        dtype: of the stored values.
    """
    if (
        dtype.kind in "iu"
        and dtype.itemsize > 1
        and value in (np.iinfo(dtype).min, np.iinfo(dtype).max)
    ):
        return value != 0
    return abs(value) > HUGE or bool((reflectance < NEGATIVE).all())
