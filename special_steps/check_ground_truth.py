"""Check a scene's ground truth before anything is computed."""

import logging
from pathlib import Path
from typing import Any

import numpy as np

from special_steps.core.cli import run
from special_steps.io.ground_truth import read_ground_truth
from special_steps.io.source import open_source

log = logging.getLogger("special")


def check_ground_truth(
    *, cube: dict[str, Any], ground_truth: dict[str, Any], class_names: list[str]
) -> None:
    """Check a scene's ground truth against the scene's header and class names.

    Does nothing when the scene's file does not exist yet (a scene that the workflow itself makes).

    Args:
        cube: the scene's settings `cube`
        ground_truth: the scene's settings `ground_truth`
        class_names: the scene's classes, in order
    """
    path, truth = cube["path"], dict(ground_truth)
    if not all(Path(p).is_file() for p in ([path] if isinstance(path, str) else path)):
        return
    scene = open_source(path, **{key: cube[key] for key in ("variable", "axes", "shape")})
    labels = read_ground_truth(
        truth.pop("path"), class_names=class_names, scene_shape=scene.shape[1:], **truth
    )
    shares = np.bincount(labels.ravel(), minlength=len(class_names) + 1) / labels.size
    parts = zip(("unlabelled", *class_names), shares, strict=True)
    log.info("ground truth fits: %s", ", ".join(f"{n} {100 * s:.1f} %" for n, s in parts))


if __name__ == "__main__":
    run(check_ground_truth)
