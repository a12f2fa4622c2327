"""Rasters that say which pixels of a scene are to be masked."""

import logging
from collections.abc import Sequence

import numpy as np

from special_steps.core.errors import UserError
from special_steps.io.record import Source

log = logging.getLogger("special")

ROWS = 256  # read at a time
MOST_LISTED = 20  # values named in a message
MOST_KEPT = 1000  # values remembered: a raster of measurements has millions


def read_mask(source: Source, values: Sequence[float] | None, where: str) -> np.ndarray:
    """Read which pixels a raster of one band masks.

    What the file states as no data, and NaN, is not masked: nobody has said anything about these pixels. A value that
    is named in `values` is masked all the same.

    Args:
        source: the raster.
        values: stored values that mean masked; None: every value but 0.
        where: file, or setting, for messages.

    Returns:
        (y, x) bool, True where masked. Whether that is none or all of the pixels, and which of the values do not occur,
        is logged.

    Raises:
        UserError: for several bands, and for an empty list of values.
    """
    bands, height, width = source.shape
    if bands != 1:
        raise UserError(
            f"{where}: {bands} bands, but a mask has one; give a file of the band that holds it, for example"
            " made by: gdal_translate -b 1 in.tif out.tif"
        )
    if values is not None and len(values) == 0:
        raise UserError(
            f"{where}: the list of masked values is empty; name them, or leave the setting out to mask"
            " every value but 0"
        )
    mask = np.zeros((height, width), bool)
    found: set[float] = set()
    for start in range(0, height, ROWS):
        rows = slice(start, min(start + ROWS, height))
        stored = source.read(rows, slice(0, width))[0]
        if len(found) <= MOST_KEPT:
            found.update(np.unique(stored[~np.isnan(stored)])[: MOST_KEPT + 1].tolist())
        if values is None:
            mask[rows] = (stored != 0) & ~_unstated(source, stored, rows)
        else:
            mask[rows] = np.isin(stored, np.asarray(values))
    _say(mask, values, found, where)
    return mask


def _unstated(source: Source, stored: np.ndarray, rows: slice) -> np.ndarray:
    """Where the raster has no data, (row, x) bool."""
    empty = np.isin(stored, np.asarray(source.nodata)) | np.isnan(stored)
    if source.masked is not None:
        empty |= source.masked(rows, slice(0, source.shape[2]))
    return np.asarray(empty)


def _say(mask: np.ndarray, values: Sequence[float] | None, found: set[float], where: str) -> None:
    shown = sorted(found)[:MOST_LISTED]
    there = ", ".join(f"{v:g}" for v in shown) + (", ..." if len(found) > len(shown) else "")
    absent = [v for v in values or () if v not in found]
    if not mask.any():
        log.warning("%s: masks no pixel; its values are %s", where, there)
    elif mask.all():
        log.warning("%s: masks every pixel; its values are %s", where, there)
    elif absent and len(found) <= MOST_KEPT:
        log.info("%s: %s not in the file", where, ", ".join(f"{v:g}" for v in absent))
