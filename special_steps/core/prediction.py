"""Class probabilities of a scene and what follows from them: labels and margins."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from special_steps.core.store import (
    Grid,
    new_store,
    write_array,
    write_names,
)


def margins(probabilities: np.ndarray) -> np.ndarray:
    """Best minus second best probability (BvSB), the confidence; 1 for a single class.

    Args:
        probabilities: (class, ...) float32.

    Returns:
        (...) float32 in [0, 1].
    """
    if len(probabilities) == 1:
        return np.ones(probabilities.shape[1:], np.float32)
    best = np.partition(probabilities, len(probabilities) - 2, axis=0)[-2:]
    return best[1] - best[0]


def labels(probabilities: np.ndarray, nodata: np.ndarray) -> np.ndarray:
    """Most probable class per pixel, from 1, and 0 where there is no data.

    Args:
        probabilities: (class, y, x) float32.
        nodata: (y, x) bool.

    Returns:
        (y, x) uint8.
    """
    best = (probabilities.argmax(0) + 1).astype(np.uint8)
    best[nodata] = 0
    return best


def write_prediction(
    out: Path,
    probabilities: np.ndarray,
    nodata: np.ndarray,
    *,
    step: str,
    settings: Mapping[str, Any],
    inputs: Sequence[Path],
    class_names: Sequence[str],
    grid: Grid,
) -> None:
    """Write a store of `probabilities`, `labels`, `margin` and `nodata`; zeros where no data.

    Args:
        out: the store.
        probabilities: (class, y, x) float32.
        nodata: (y, x) bool.
        step: what made them; settings and inputs as in new_store.
        class_names: the classes, in order.
        grid: where the pixels lie.
    """
    probabilities = probabilities.astype(np.float32, copy=True)
    margin = margins(probabilities)
    probabilities[:, nodata] = 0
    margin[nodata] = 0
    with new_store(out, step=step, settings=settings, inputs=inputs, grid=grid) as group:
        write_names(group, class_names)
        write_array(group, "probabilities", probabilities, ("class", "y", "x"))
        write_array(group, "labels", labels(probabilities, nodata), ("y", "x"))
        write_array(group, "margin", margin, ("y", "x"))
        write_array(group, "nodata", nodata, ("y", "x"))
