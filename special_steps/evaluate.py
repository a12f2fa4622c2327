"""How right a map is, where there is ground truth: the only step that ever reads it."""

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from special_steps.core.atomic import atomic_write
from special_steps.core.cli import run
from special_steps.core.errors import UserError
from special_steps.core.notes import gathered
from special_steps.core.prediction import kappa
from special_steps.core.store import (
    array_of,
    class_names,
    grid_of,
    open_store,
    read_array,
    tile_rows,
)
from special_steps.io.ground_truth import read_ground_truth

BINS = 10  # of equal width, of the expected calibration error
KEPT = (1.0, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)  # shares of the reject curve


def scores(predicted: np.ndarray, truth: np.ndarray, class_names: list[str]) -> dict[str, Any]:
    """Accuracy of a map over the pixels that have both a prediction and a reference.

    Args:
        predicted: (y, x) uint8, 1..K, 0 = no data.
        truth: (y, x) uint8, 1..K, 0 = unlabelled.
        class_names: the K classes.

    Returns:
        oa (overall accuracy), aa (average accuracy: mean producer's accuracy of the classes that
        the reference has), kappa, pixels; per class producer's accuracy (recall), user's accuracy
        (precision), f1, iou, pixels (null where a class has neither reference nor prediction);
        confusion (reference by prediction, counts).

    Raises:
        UserError: when no pixel has both.
    """
    both = (predicted > 0) & (truth > 0)
    if not both.any():
        raise UserError("the ground truth has no labelled pixel where the map has a class")
    count = len(class_names)
    pairs = (truth[both].astype(int) - 1) * count + predicted[both].astype(int) - 1
    matrix = np.bincount(pairs, minlength=count * count).reshape(count, count)
    total = int(matrix.sum())
    hits, actual, called = np.diag(matrix), matrix.sum(1), matrix.sum(0)
    with np.errstate(invalid="ignore"):
        producers, users = hits / actual, hits / called
        f1, iou = 2 * hits / (actual + called), hits / (actual + called - hits)
    return {
        "oa": float(hits.sum() / total),
        "aa": float(np.nanmean(producers)),
        "kappa": kappa(matrix),
        "pixels": total,
        "classes": [
            {
                "class": name,
                "producers_accuracy": _number(producers[i]),
                "users_accuracy": _number(users[i]),
                "f1": _number(f1[i]),
                "iou": _number(iou[i]),
                "pixels": int(actual[i]),
            }
            for i, name in enumerate(class_names)
        ],
        "confusion": matrix.tolist(),
    }


def kept(
    predicted: np.ndarray, truth: np.ndarray, confidence: np.ndarray, least: float
) -> dict[str, float | None]:
    """How right a map is where it is sure enough to name a class.

    Args:
        predicted: (y, x) uint8, 1..K, 0 = no data.
        truth: (y, x) uint8, 1..K, 0 = unlabelled.
        confidence: (y, x) float32 in [0, 1].
        least: confidence that a pixel needs to keep its class.

    Returns:
        reject (`least`); of the pixels with a reference, share (that keep their class) and oa (accuracy of those; None
        for no pixel).
    """
    both = (predicted > 0) & (truth > 0)
    sure = both & (confidence >= least)
    oa = float((predicted == truth)[sure].mean()) if sure.any() else None
    return {"reject": least, "share": float(sure.sum() / both.sum()), "oa": oa}


def trust(claimed: np.ndarray, order: np.ndarray, right: np.ndarray) -> dict[str, Any]:
    """How far a map's confidence can be trusted: as a probability, and as an order.

    Args:
        claimed: (pixel,) in [0, 1], the probability that the label is right, as the map has it.
        order: (pixel,), larger where the map is surer; pixels of one value count as their mean.
        right: (pixel,) bool.

    Returns:
        ece: expected calibration error, the mean over pixels of |accuracy - mean confidence| of their bin (Guo et al.,
        ICML 2017); reliability: confidence, accuracy and pixels of each bin that has any, 10 of equal width;
        reject_curve: accuracy of the surest share of the pixels.
    """
    bins = np.minimum((claimed * BINS).astype(int), BINS - 1)
    pixels = np.bincount(bins, minlength=BINS)
    sums, hits = (np.bincount(bins, values, BINS) for values in (claimed, right))
    _, inverse, ties = np.unique(-order, return_inverse=True, return_counts=True)
    fair = (np.bincount(inverse, right) / ties).repeat(ties)  # surest first
    upto = np.concatenate([[0], np.cumsum(fair)])
    counts = [max(1, round(share * len(right))) for share in KEPT]
    return {
        "ece": float(np.abs(hits - sums).sum() / len(right)),
        "reliability": [
            {"confidence": float(c / n), "accuracy": float(h / n), "pixels": int(n)}
            for c, h, n in zip(sums, hits, pixels, strict=True)
            if n
        ],
        "reject_curve": [
            {"kept": share, "accuracy": float(upto[n] / n)}
            for share, n in zip(KEPT, counts, strict=True)
        ],
    }


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def evaluate(
    *,
    prediction: Path,
    ground_truth: list[Path],
    variable: str | None,
    axes: str | None,
    shape: dict[str, int] | None,
    labels: dict[str, int],
    unlabelled: list[int],
    colours: bool,
    align: bool,
    map_id: dict[str, Any],
    reject: float | None,
    metrics: Path,
    class_scores: Path,
    confusion_matrix: Path,
) -> None:
    """Compare a map, and how sure it is, with the ground truth.

    How sure it is, is its `confidence`; of a map without one the best class's probability, and, for the reject curve,
    the margin.

    Args:
        prediction: store with `labels`, `probabilities` and `margin`, or `confidence`.
        ground_truth: the file, or the tiles of it.
        variable: name of the array inside the file.
        axes: order of the array's axes.
        shape: sizes of axes that are flattened together.
        labels: label of each class, by class name; of abundances, the position, from 1.
        unlabelled: labels that mean "no reference here".
        colours: whether the file is a picture, and labels are its colours, 0xRRGGBB.
        align: whether to bring labels of another grid to the scene's; without it they are refused.
        map_id: which map it is (scene, run, seed, stage): copied into the metrics.
        reject: confidence under which the exported map's pixels are unknown, null for none; the metrics then say, too,
            how right the others are.
        metrics: JSON file to write, everything, also what reading the ground truth warns of.
        class_scores: CSV file to write, a row per class.
        confusion_matrix: CSV file to write, a row per reference class, a column per predicted one.
    """
    store = open_store(prediction, labels=("y", "x"))
    names = class_names(store)
    predicted = read_array(store, "labels")
    with gathered() as told:
        reference = read_ground_truth(
            ground_truth,
            variable=variable,
            axes=axes,
            shape=shape,
            labels=labels,
            unlabelled=unlabelled,
            colours=colours,
            align=align,
            class_names=names,
            scene_shape=predicted.shape,
            scene_grid=grid_of(store),
        )
    try:
        found = map_id | scores(predicted, reference, names)
    except UserError as error:
        raise UserError(f"{ground_truth[0]}: {error}") from error
    both = (predicted > 0) & (reference > 0)
    right = predicted[both] == reference[both]
    found |= trust(*_sure(store, both), right) | {"warnings": told}
    if reject is not None and "confidence" in store:  # without it, export says so
        sure = read_array(store, "confidence")
        found["kept"] = kept(predicted, reference, sure, reject)
    with atomic_write(metrics) as file:
        file.write_text(json.dumps(found, indent=1) + "\n")
    _write_csv(class_scores, list(found["classes"][0]), [c.values() for c in found["classes"]])
    rows = [[name, *row] for name, row in zip(names, found["confusion"], strict=True)]
    _write_csv(confusion_matrix, ["reference", *names], rows)


def _sure(store: zarr.Group, where: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What a map claims and what orders its pixels, surest first, (pixel,) float32 each, of some pixels (y, x) bool."""
    if "confidence" in store:
        confidence = read_array(store, "confidence")[where]
        return confidence, confidence
    probabilities = array_of(store, "probabilities")
    best = [
        np.asarray(probabilities[:, rows]).max(0)[where[rows]] for rows in tile_rows(len(where))
    ]
    return np.concatenate(best), read_array(store, "margin")[where]


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Iterable[Any]]) -> None:
    with atomic_write(path) as file, file.open("w", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerows([header, *rows])


if __name__ == "__main__":
    run(evaluate)
