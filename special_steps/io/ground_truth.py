"""Ground truth: a label or abundance file becomes a label map in the order of the scene's classes."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from special_steps.core.classes import classes_by_label
from special_steps.core.errors import UserError
from special_steps.io.source import open_source


def read_ground_truth(
    path: str | Path | Sequence[str | Path],
    *,
    variable: str | None,
    axes: str | None,
    shape: Mapping[str, int] | None,
    labels: Mapping[str, int],
    unlabelled: Sequence[int],
    colours: bool,
    class_names: Sequence[str],
    scene_shape: tuple[int, int],
) -> np.ndarray:
    """Read labels, or abundances, in the order of the scene's classes.

    Args:
        path: the file, or GeoTIFF tiles; `variable`, `axes` and `shape` are as for scenes (see `open_source`), but a
            2-D array is "y x", and abundances are "y x class".
        variable: name of the array inside the file.
        axes: what the array's axes are.
        shape: lengths of the axes that `axes` joins.
        labels: label of each class, by class name; of abundances, the position, from 1; of colours, 0xRRGGBB.
        unlabelled: labels that mean "no reference here".
        colours: whether the file is a picture, and its colours are labels.
        class_names: the scene's classes, in order.
        scene_shape: the scene's (height, width), which the map must have.

    Returns:
        (y, x) uint8: 0 = unlabelled, 1..K by position in `class_names`.

    Raises:
        UserError: naming the file, when anything does not fit.
    """
    source = open_source(path, variable=variable, axes=axes, shape=shape, one_layer=True)
    where = str(source.files[0])
    classes = classes_by_label(labels, class_names, unlabelled, f"{where}: ground_truth.labels")
    if source.shape[1:] != tuple(scene_shape):
        raise UserError(
            f"{where}: the ground truth has {source.shape[1]} x {source.shape[2]} pixels (height x"
            f" width), the scene has {scene_shape[0]} x {scene_shape[1]}; check 'axes' and 'shape',"
            " or give the ground truth of this scene"
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
    stored = colour_labels(layers) if colours else label_map(layers, source.nodata)
    return match_classes(stored, classes, class_names, unlabelled, where)


def label_map(layers: np.ndarray, nodata: float | None) -> np.ndarray:
    """Stored values (layer, y, x) to float labels (y, x); NaN where there is none.

    One layer holds labels; several are abundances, one a class, whose largest is the label, 1 for the first layer (no
    label where all are 0 or one is NaN).
    """
    values = layers.astype(np.float64)
    if nodata is not None:
        values[values == nodata] = np.nan
    if len(values) == 1:
        return values[0]
    empty = np.isnan(values).any(0) | (values == 0).all(0)
    return np.where(empty, np.nan, np.nan_to_num(values).argmax(0) + 1.0)


def colour_labels(layers: np.ndarray) -> np.ndarray:
    """Colours (3, y, x), 8 bits each (a fourth layer is ignored), to labels 0xRRGGBB (y, x)."""
    red, green, blue = layers[:3].astype(np.int64)
    return (red << 16 | green << 8 | blue).astype(np.float64)


def match_classes(
    labels: np.ndarray,
    classes: Mapping[int, str],
    class_names: Sequence[str],
    unlabelled: Sequence[int],
    where: str,
) -> np.ndarray:
    """A file's labels (y, x), NaN for none, to uint8: 1..K by position in `class_names`, 0 = unlabelled.

    Several labels may belong to one class.

    Raises:
        UserError: for labels that are neither a class's nor unlabelled.
    """
    found = np.unique(labels[~np.isnan(labels)])
    unknown = [
        f"{int(v):#08x}" if v > 0xFFFF else f"{v:g}"
        for v in found
        if v not in classes and v not in unlabelled
    ]
    if unknown:
        more = ", ..." if len(unknown) > 20 else ""
        raise UserError(
            f"{where}: labels {', '.join(unknown[:20])}{more} are in the file but not in the config;"
            " add them to scenes.<name>.ground_truth.labels or .unlabelled"
        )
    out = np.zeros(labels.shape, np.uint8)
    for label, name in classes.items():
        out[labels == label] = list(class_names).index(name) + 1
    return out
