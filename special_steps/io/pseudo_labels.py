"""Class probabilities to fuse: stores of the scales, or one file of the user's own."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from special_steps.core.errors import UserError
from special_steps.core.store import open_store, read_array
from special_steps.io.arrays import read_variable
from special_steps.io.source import open_source


def read_probabilities(path: Path, class_names: Sequence[str], nodata: np.ndarray) -> np.ndarray:
    """Read a map of class probabilities.

    Args:
        path: store made by clip_scale; or .npz with `probs` (y, x, class); or another file that scenes can be read
            from, with one band per class, in the order of the config's classes.
        class_names: the scene's classes.
        nodata: (y, x) bool; the map's values there do not matter.

    Returns:
        (class, y, x) float32, 0 where no data.

    Raises:
        UserError: for another shape or number of classes, or values that are no probabilities.
    """
    data = _read_store(path) if path.suffix == ".zarr" else _read_file(path)
    if data.shape != (len(class_names), *nodata.shape):
        raise UserError(
            f"{path}: {data.shape[0]} classes of {data.shape[1:]} pixels (y, x), but the scene has"
            f" {len(class_names)} classes ({', '.join(class_names)}) of {nodata.shape} pixels"
        )
    if data.dtype.kind not in "buif":
        raise UserError(f"{path}: holds {data.dtype} values; probabilities are numbers")
    data = np.where(nodata, np.float32(0), data.astype(np.float32))
    if not np.isfinite(data).all() or data.min() < 0:
        raise UserError(
            f"{path}: probabilities must be finite and not negative where the scene has data"
        )
    return data


def _read_store(path: Path) -> np.ndarray:
    return read_array(open_store(path, probabilities=("class", "y", "x")), "probabilities")


def _read_file(path: Path) -> np.ndarray:
    """(class, y, x) as stored: a scale factor or no-data value of the file is not looked at."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; set pseudo_labels to an existing one")
    if path.suffix.lower() != ".npz":
        source = open_source(path, one_layer=True)
        return source.read(0, source.shape[1])
    data = read_variable(path, "probs")
    if data.ndim != 3:
        raise UserError(f"{path}: 'probs' has shape {data.shape}; it must be (y, x, class)")
    return data.transpose(2, 0, 1)
