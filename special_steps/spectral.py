"""Arithmetic on spectra that several steps share."""

import numpy as np


def stretch(values: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    """Map `limits` to 0 and 1, linearly, and clip; a scene without contrast becomes 0.5.

    Args:
        values: array of any shape, float32; changed in place.
        limits: the values that become 0 and 1.

    Returns:
        `values`, stretched, same shape and dtype.
    """
    low, high = limits
    if high <= low:
        values[...] = 0.5
        return values
    values -= np.float32(low)
    values *= np.float32(1 / (high - low))
    return np.clip(values, 0, 1, out=values)


def joint_percentiles(values: np.ndarray, percentiles: list[float]) -> tuple[float, float]:
    """Two percentiles over all values of all bands together; `values` is reordered in place."""
    flat = values.ravel(order="K")  # in the order of memory, so without a copy
    low, high = np.percentile(flat, percentiles, overwrite_input=True)
    return float(low), float(high)
