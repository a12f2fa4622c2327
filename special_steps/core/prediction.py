"""Class probabilities of a scene and what follows from them: labels and margins."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from special_steps.core.errors import UserError
from special_steps.core.store import (
    Grid,
    array_of,
    create_array,
    new_store,
    read_array,
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


def averaged(networks: Sequence[np.ndarray], cotrained: np.ndarray | None = None) -> np.ndarray:
    """The networks' mean; where there is co-training, half of it and half of that.

    Args:
        networks: (class, y, x) float32, one for each seed.
        cotrained: of the same shape.

    Returns:
        (class, y, x) float32.
    """
    total = np.zeros_like(networks[0], np.float32)
    for probabilities in networks:
        total += probabilities
    total /= len(networks)
    return total if cotrained is None else (total + cotrained) / 2


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


def given_labels(store: zarr.Group) -> np.ndarray | None:
    """(y, x) uint8 labels that people gave, 0 for none, as a store of class probabilities keeps them; None without."""
    return read_array(store, "given") if "given" in store else None


def check_reject(path: Path, store: zarr.Group, reject: float | None) -> None:
    """Raise UserError, naming the store, when pixels shall be rejected by a confidence that it does not have."""
    if reject is not None and "confidence" not in store:
        raise UserError(
            f"{path}: reject {reject:g} needs a calibrated confidence, and this map has none; take reject out of the"
            " config, or the map of a run of method agreement or published"
        )


def shown_labels(store: zarr.Group, part: Any, reject: float | None) -> np.ndarray:
    """Labels of a map as people see it.

    Args:
        store: with `labels` and, where `reject` is given, `confidence`.
        part: index of rows and columns.
        reject: pixels of less confidence are unknown; None for none.

    Returns:
        (y, x) uint8: 1..K, K + 1 = unknown, 0 = no data.
    """
    found = np.asarray(array_of(store, "labels")[part])
    if reject is None:
        return found
    unknown = array_of(store, "class").shape[0] + 1
    sure = np.asarray(array_of(store, "confidence")[part]) >= reject
    return np.where((found == 0) | sure, found, np.uint8(unknown))


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
    given: np.ndarray | None = None,
    witnesses: np.ndarray | None = None,
    confidence: Confidence | None = None,
) -> None:
    """Write a store of `probabilities`, `labels`, `margin` and `nodata`; zeros where no data.

    Args:
        out: the store.
        probabilities: (class, y, x) float32.
        nodata: (y, x) bool.
        step: what made them; settings and inputs as in new_store.
        class_names: the classes, in order.
        grid: where the pixels lie.
        given: (y, x) uint8 labels that people gave, 0 for none: certain whatever the probabilities say, and kept in
            the store as `given` for the steps that follow.
        witnesses: (witness, y, x) uint8 labels from 1 of the maps that these were joined from, kept beside them.
        confidence: how sure each label is; the store then holds it as `confidence`.
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
        given=given,
        witnesses=witnesses,
        confidence=confidence,
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
    given: np.ndarray | None = None,
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
        given: as in write_prediction.
        witnesses: as in write_prediction.
        confidence: as in write_prediction.

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
        if given is not None:
            create_array(group, "given", shape, ("y", "x"), "uint8")[:] = given
        sure = create_array(group, "confidence", shape, ("y", "x")) if confidence else None
        if witnesses is not None:
            write_array(group, "witnesses", witnesses, ("witness", "y", "x"))
        y = 0
        for part, nodata in strips:
            part = part.astype(np.float32, copy=True)
            rows = slice(y, y + len(nodata))
            if given is not None:
                certain = given[rows] > 0
                part[:, certain] = np.arange(1, len(part) + 1)[:, None] == given[rows][certain]
            part_margin = margins(part)
            part[:, nodata] = 0
            part_margin[nodata] = 0
            probabilities[:, rows] = part
            best[rows] = labels(part, nodata)
            margin[rows] = part_margin
            missing[rows] = nodata
            if sure is not None and confidence is not None:
                known = confidence(part, rows)
                if given is not None:
                    known[given[rows] > 0] = 1
                sure[rows] = np.where(nodata, 0, known)
            y = rows.stop
        if y != shape[0]:
            raise ValueError(f"the strips have {y} rows, the scene {shape[0]}")
