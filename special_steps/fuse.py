"""Pseudo-labels: CLIP's scales, and what the spectral library says, become class probabilities with margins."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from special_steps.core.cli import run
from special_steps.core.errors import UserError
from special_steps.core.prediction import write_prediction
from special_steps.core.store import (
    grid_of,
    open_store,
    read_array,
)
from special_steps.io.pseudo_labels import read_probabilities


def fused(maps: Sequence[np.ndarray]) -> np.ndarray:
    """Mean of the scales' class probabilities, normalised over classes.

    Args:
        maps: (class, y, x) float32 each, all of one shape, non-negative.

    Returns:
        (class, y, x) float32; pixels that are zero in all classes become uniform.
    """
    total = maps[0].astype(np.float32, copy=True)
    for other in maps[1:]:
        total += other
    sums = total.sum(0)
    total[:, sums == 0] = 1 / len(total)
    return np.divide(total, sums, out=total, where=sums > 0)


def joined(clip: np.ndarray, evidence: np.ndarray) -> np.ndarray:
    """Both witnesses' class probabilities as one: their product, weighted by exponents, normalised over classes.

    Args:
        clip: (class, y, x) float32.
        evidence: (class, y, x) float32.

    Returns:
        (class, y, x) float32.
    """
    least = np.float32(1e-6)  # neither rules out a class
    product = np.sqrt(clip + least) * (evidence + least) ** 2
    return np.divide(product, product.sum(0), out=product)


def fuse(
    *,
    maps: list[Path],
    evidence: list[Path],
    rgb: Path,
    out: Path,
    class_names: list[str],
) -> None:
    """Fuse maps of class probabilities into pseudo-labels.

    Args:
        maps: the scales' stores, or one file of your own; none: the spectral library alone.
        evidence: the spectral library's store, and what it found (JSON); or nothing.
        rgb: the scene's RGB store: its size, no-data mask and georeference.
        out: store to write.
        class_names: the scene's classes, in order.

    Raises:
        UserError: when there is nothing to fuse.
    """
    scene = open_store(rgb, nodata=("y", "x"))
    nodata = read_array(scene, "nodata")
    pseudo, informed = None, False
    if maps:
        pseudo = fused([read_probabilities(path, class_names, nodata) for path in maps])
    if evidence:
        library, found = evidence
        said = json.loads(found.read_text())
        informed = said["used"]
        if informed:
            known = read_probabilities(library, class_names, nodata)
            pseudo = fused([known]) if pseudo is None else joined(pseudo, known)
        elif pseudo is None:
            raise UserError(
                f"there is nothing to label this scene with: {said['warnings'][-1]}; take a CLIP with clip,"
                " or name materials"
            )
    if pseudo is None:
        raise UserError("there is nothing to label this scene with: no CLIP, and no evidence")
    write_prediction(
        out,
        pseudo,
        nodata,
        step="fuse",
        settings={"class_names": class_names, "informed": informed},
        inputs=[*maps, *evidence, rgb],
        class_names=class_names,
        grid=grid_of(scene),
    )


if __name__ == "__main__":
    run(fuse)
