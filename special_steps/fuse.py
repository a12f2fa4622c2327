"""Resolution scaling, second half: the scales' probabilities become pseudo-labels with margins."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from special_steps.core.cli import run
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


def fuse(*, maps: list[Path], rgb: Path, out: Path, class_names: list[str]) -> None:
    """Fuse maps of class probabilities into pseudo-labels.

    Args:
        maps: the scales' stores, or one file of your own.
        rgb: the scene's RGB store: its size, no-data mask and georeference.
        out: store to write.
        class_names: the scene's classes, in order.
    """
    scene = open_store(rgb, nodata=("y", "x"))
    nodata = read_array(scene, "nodata")
    loaded = [read_probabilities(path, class_names, nodata) for path in maps]
    write_prediction(
        out,
        fused(loaded),
        nodata,
        step="fuse",
        settings={"class_names": class_names},
        inputs=[*maps, rgb],
        class_names=class_names,
        grid=grid_of(scene),
    )


if __name__ == "__main__":
    run(fuse)
