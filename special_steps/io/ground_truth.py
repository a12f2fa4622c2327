"""Ground truth: a label or abundance file becomes a label map in the order of the scene's
classes."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from special_steps.core.cli import run
from special_steps.core.errors import UserError
from special_steps.ingest import scene_shape
from special_steps.io.source import open_source

log = logging.getLogger("special")


def label_map(layers: np.ndarray, nodata: float | None = None) -> np.ndarray:
    """File values (layer, y, x) to float labels (y, x); NaN where there is none.

    One layer holds labels; several are abundances, one a class, whose largest is the label, 1 for
    the first layer (no label where all are 0 or one is NaN).
    """
    values = layers.astype(np.float64)
    if nodata is not None:
        values[values == nodata] = np.nan
    if len(values) == 1:
        return values[0]
    empty = np.isnan(values).any(0) | (values == 0).all(0)
    return np.where(empty, np.nan, np.nan_to_num(values).argmax(0) + 1.0)


def colour_labels(layers: np.ndarray) -> np.ndarray:
    """Colours (3, y, x), 8 bits each (a fourth layer is not looked at), to labels 0xRRGGBB (y, x)."""
    red, green, blue = layers[:3].astype(np.int64)
    return (red << 16 | green << 8 | blue).astype(np.float64)


def match_classes(
    labels: np.ndarray,
    classes: Mapping[int, str],
    class_names: Sequence[str],
    unlabelled: Sequence[int],
    where: str,
) -> np.ndarray:
    """File labels (y, x), NaN for none, to uint8 positions: 1..K in `class_names`, 0 = unlabelled.

    Several labels may belong to one class. Raises UserError for a class that the scene does not
    have, and for labels that are neither a class's nor unlabelled.
    """
    classes = {int(label): name for label, name in classes.items()}
    strange = sorted(set(classes.values()) - set(class_names))
    if strange:
        raise UserError(
            f"{where}: ground-truth class {_quoted(strange)} is not among the scene's classes "
            f"{_quoted(class_names)}; use the same names in scenes.<name>.ground_truth.labels"
        )
    both = sorted(set(classes) & set(unlabelled))
    if both:
        raise UserError(
            f"{where}: labels {both} are in 'labels' and in 'unlabelled'; take them out of one"
        )
    found = np.unique(labels[~np.isnan(labels)])
    unknown = [
        f"{int(v):#08x}" if v > 0xFFFF else f"{v:g}"
        for v in found
        if v not in classes and v not in unlabelled
    ]
    if unknown:
        more = ", ..." if len(unknown) > 20 else ""
        raise UserError(
            f"{where}: labels {', '.join(unknown[:20])}{more} are in the file but not in the "
            "config; add them to "
            "scenes.<name>.ground_truth.labels or .unlabelled"
        )
    out = np.zeros(labels.shape, np.uint8)
    for label, name in classes.items():
        out[labels == label] = list(class_names).index(name) + 1
    return out


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(f"'{n}'" for n in names)


def read_ground_truth(
    path: list[Path] | Path,
    *,
    variable: str | None = None,
    axes: str | None = None,
    shape: Mapping[str, int] | None = None,
    classes: Mapping[int, str],
    class_names: Sequence[str],
    unlabelled: Sequence[int] = (0,),
    colours: bool = False,
    scene: tuple[int, int] | None = None,
) -> np.ndarray:
    """Read labels, or abundances, as (y, x) uint8: 0 = unlabelled, 1..K by position in
    `class_names`.

    Files and the options `variable`, `axes`, `shape` are as for scenes (a 2-D array is "y x";
    abundances are "y x class"). `classes` names the file's labels; for abundances 1 is the first
    layer. With `colours` the file is a picture and a label a colour, 0xRRGGBB. `scene` is the
    (height, width) that the map must have. Raises UserError naming the file when anything does not fit.
    """
    source = open_source(path, variable=variable, axes=axes, shape=shape, labels=True)
    where = str(source.files[0])
    if len(class_names) > 255:
        raise UserError(f"{where}: {len(class_names)} classes; at most 255 are possible")
    if scene is not None and source.shape[1:] != tuple(scene):
        raise UserError(
            f"{where}: the ground truth has {source.shape[1]} x {source.shape[2]} pixels (height x "
            "width), the scene "
            f"has {scene[0]} x {scene[1]}; check 'axes' and 'shape', or give the ground truth of "
            "this scene"
        )
    layers = source.read(0, source.shape[1])
    if colours and (len(layers) not in (3, 4) or layers.dtype != np.uint8):
        raise UserError(
            f"{where}: {len(layers)} layers of {layers.dtype} are no picture in colours (3 or 4 of"
            " uint8); leave ground_truth.colours out"
        )
    if not colours and len(layers) > 1 and source.files[0].suffix.lower() == ".png":
        raise UserError(
            f"{where}: a picture in colours, not labels; give an image of one band, or set"
            " ground_truth.colours and each label as 0xRRGGBB"
        )
    labels = colour_labels(layers) if colours else label_map(layers, source.nodata)
    return match_classes(labels, classes, class_names, unlabelled, where)


def check(
    *,
    cube: dict[str, Any],
    ground_truth: dict[str, Any],
    class_names: list[str],
    out: Path | None = None,
) -> None:
    """Check a scene's ground truth against the scene's header and class names, before anything else
    runs.

    Does nothing when the scene's file does not exist yet (a scene that the workflow itself makes).

    Args:
        cube: the scene's settings `cube`, with `path`
        ground_truth: the scene's settings `ground_truth`, with `path` and `labels` (by class name)
        class_names: the scene's classes, in order
        out: file to touch when all is well, for a workflow that needs one
    """
    scene, truth = dict(cube), dict(ground_truth)
    paths = scene.pop("path")
    if all(Path(p).is_file() for p in ([paths] if isinstance(paths, str | Path) else paths)):
        labels = read_ground_truth(
            truth.pop("path"),
            classes={int(label): name for name, label in truth.pop("labels").items()},
            class_names=class_names,
            scene=scene_shape(paths, **scene),
            **{k: v for k, v in truth.items() if v is not None},
        )
        shares = np.bincount(labels.ravel(), minlength=len(class_names) + 1) / labels.size
        parts = zip(("unlabelled", *class_names), shares, strict=True)
        log.info("ground truth fits: %s", ", ".join(f"{n} {100 * s:.1f} %" for n, s in parts))
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.touch()


if __name__ == "__main__":
    run(check)
