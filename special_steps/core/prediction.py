"""Class probabilities of a scene and what follows from them: labels and margins."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from special_steps.core.store import (
    Grid,
    create_array,
    new_store,
    tile_rows,
    write_array,
    write_names,
)

# From a strip's probabilities (class, rows, x) and its rows to the probability that a label is right, (rows, x) float32
Confidence = Callable[[np.ndarray, slice], np.ndarray]


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


def kappa(pairs: np.ndarray) -> float:
    """Cohen's kappa of two maps: agreement beyond chance; 1 where both are of one class, which leaves it 0/0.

    Args:
        pairs: (class, class) pixels by their labels in both.
    """
    total = int(pairs.sum())
    agreement = np.trace(pairs) / total
    chance = float(pairs.sum(1) @ pairs.sum(0)) / total**2
    return float((agreement - chance) / (1 - chance)) if chance < 1 else 1.0


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
    witnesses: np.ndarray | None = None,
) -> None:
    """Write a store of `probabilities`, `labels`, `margin` and `nodata`; zeros where no data.

    Args:
        out: the store.
        probabilities: (class, y, x) float32.
        nodata: (y, x) bool.
        step: what made them; settings and inputs as in new_store.
        class_names: the classes, in order.
        grid: where the pixels lie.
        witnesses: (witness, y, x) uint8 labels from 1 of the maps that these were joined from, kept beside them.
    """
    write_prediction_strips(
        out,
        ((probabilities[:, rows], nodata[rows]) for rows in tile_rows(len(nodata))),
        nodata.shape,
        step=step,
        settings=settings,
        inputs=inputs,
        class_names=class_names,
        grid=grid,
        witnesses=witnesses,
    )


def write_prediction_strips(
    out: Path,
    strips: Iterable[tuple[np.ndarray, np.ndarray]],
    shape: tuple[int, ...],
    *,
    step: str,
    settings: Mapping[str, Any],
    inputs: Sequence[Path],
    class_names: Sequence[str],
    grid: Grid,
    witnesses: np.ndarray | None = None,
    confidence: Confidence | None = None,
) -> None:
    """The same store as write_prediction's, from strips of rows: memory does not grow with the scene's height.

    Args:
        out: the store.
        strips: probabilities (class, rows, x) float32 and nodata (rows, x) bool, top to bottom; rows are best
            those of tile_rows, so that a chunk is written once.
        shape: y and x of the scene.
        step: what made them; settings and inputs as in new_store.
        class_names: the classes, in order.
        grid: where the pixels lie.
        witnesses: as in write_prediction.
        confidence: how sure each label is; the store then holds it as `confidence`.

    Raises:
        ValueError: when the strips do not fill the scene.
    """
    with new_store(out, step=step, settings=settings, inputs=inputs, grid=grid) as group:
        write_names(group, class_names)
        probabilities = create_array(
            group, "probabilities", (len(class_names), *shape), ("class", "y", "x")
        )
        best = create_array(group, "labels", shape, ("y", "x"), "uint8")
        margin = create_array(group, "margin", shape, ("y", "x"))
        missing = create_array(group, "nodata", shape, ("y", "x"), "bool")
        sure = create_array(group, "confidence", shape, ("y", "x")) if confidence else None
        if witnesses is not None:
            write_array(group, "witnesses", witnesses, ("witness", "y", "x"))
        y = 0
        for part, nodata in strips:
            part = part.astype(np.float32, copy=True)
            part_margin = margins(part)
            part[:, nodata] = 0
            part_margin[nodata] = 0
            rows = slice(y, y + len(nodata))
            probabilities[:, rows] = part
            best[rows] = labels(part, nodata)
            margin[rows] = part_margin
            missing[rows] = nodata
            if sure is not None and confidence is not None:
                sure[rows] = np.where(nodata, 0, confidence(part, rows))
            y = rows.stop
        if y != shape[0]:
            raise ValueError(f"the strips have {y} rows, the scene {shape[0]}")
