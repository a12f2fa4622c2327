"""Class probabilities to fuse: stores of the scales, or one file of the user's own."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from special_steps.core.errors import UserError
from special_steps.core.store import Grid, open_store, read_array
from special_steps.io.arrays import read_variable
from special_steps.io.fractions import TOTALS, is_picture, missing_fractions, total_of
from special_steps.io.grids import OnGrid, on_scene_grid
from special_steps.io.record import Source
from special_steps.io.source import open_source

log = logging.getLogger("special")

ONE_HOT = "write a band for each class, 1 where the pixel is of it, else 0"


def read_probabilities(
    path: Path, class_names: Sequence[str], nodata: np.ndarray, *, grid: Grid, align: bool
) -> np.ndarray:
    """Read a map of class probabilities.

    Where a file has none by its own account (no-data value, mask, or it does not reach there), all classes are 0.

    Args:
        path: store made by clip_scale; or .npz with `probs` (y, x, class); or another file that scenes can be read
            from, with one band per class, in the order of the config's classes.
        class_names: the scene's classes.
        nodata: (y, x) bool; the map's values there do not matter.
        grid: where the scene's pixels lie; stores lie there.
        align: whether to bring a file of another grid to the scene's; without it it is refused.

    Returns:
        (class, y, x) float32, 0 where no data.

    Raises:
        UserError: for another shape, grid or number of classes, or values that are no probabilities.
    """
    if path.suffix == ".zarr":
        data = read_array(open_store(path, probabilities=("class", "y", "x")), "probabilities")
        missing = np.zeros(data.shape[1:], bool)
        _check_shape(path, data.shape, class_names, nodata.shape)
    else:
        source = _open(path)
        if source.shape[0] != len(class_names):
            _check_shape(path, source.shape, class_names, nodata.shape, _single(source))
        layers = on_scene_grid(
            source, grid, nodata.shape, align=align, what="pseudo-labels"
        )  # fmt: skip
        data, missing = _values(layers, source, nodata, path)
    if data.dtype.kind not in "buif":
        raise UserError(f"{path}: holds {data.dtype} values; probabilities are numbers")
    data = np.where(nodata | missing, np.float32(0), data.astype(np.float32))
    wrong = ~np.isfinite(data) | (data < 0)
    if wrong.any():
        raise UserError(
            f"{path}: probabilities must be finite and not negative where the scene has data, but {wrong.any(0).sum()}"
            f" pixels are not, such as {data[wrong][0]:g}; if that means no data, state it as the file's no-data value"
        )
    if not data.any() and not nodata.all():
        raise UserError(
            f"{path}: no pixel of the scene has a probability over 0; give the map of this scene"
        )
    lost = missing & ~nodata
    if lost.any():
        log.warning(
            "%s: no probabilities in %.1f %% of the scene (no data, masked, or not covered): all classes are alike"
            " there", path, 100 * lost.sum() / (~nodata).sum(),
        )  # fmt: skip
    return data


def _check_shape(
    path: Path,
    found: tuple[int, ...],
    class_names: Sequence[str],
    scene_shape: tuple[int, ...],
    more: str = "",
) -> None:
    if tuple(found) != (len(class_names), *scene_shape):
        raise UserError(
            f"{path}: {found[0]} classes of {tuple(found[1:])} pixels (y, x), but the scene has"
            f" {len(class_names)} classes ({', '.join(class_names)}) of {tuple(scene_shape)} pixels{more}"
        )


def _single(source: Source) -> str:
    """What to say of one layer where several are needed: it may be a map of labels."""
    if source.shape[0] > 1:
        return ""
    return f"; a map of labels is no map of probabilities: {ONE_HOT}"


def _open(path: Path) -> Source:
    """A file's layers (class, y, x); only .npz has them by name."""
    if not path.exists():
        raise UserError(f"{path}: no such file; set pseudo_labels to an existing one")
    if path.suffix.lower() != ".npz":
        return open_source(path, one_layer=True)
    data = read_variable(path, "probs")
    if data.ndim != 3:
        raise UserError(f"{path}: 'probs' has shape {data.shape}; it must be (y, x, class)")
    layers = data.transpose(2, 0, 1)
    return Source([path], layers.shape, lambda rows, columns: layers[:, rows, columns])


def _values(
    layers: OnGrid, source: Source, nodata: np.ndarray, path: Path
) -> tuple[np.ndarray, np.ndarray]:
    """Values (class, y, x) in the file's units, and where by its own account it has none.

    Raises:
        UserError: for whole numbers that are no probabilities: pictures and labels.
    """
    stored = layers.values
    stated = missing_fractions(
        np.nan_to_num(stored, nan=-1), source.nodata
    )  # unstated NaN is an error
    missing = layers.masked | layers.outside | stated
    if any(np.isnan(source.nodata)):
        missing |= np.isnan(stored).any(0)
    _check_whole_numbers(stored[:, ~(missing | nodata)], source, path)
    if np.all(source.scale == 1) and np.all(source.offset == 0):
        return stored, missing
    scale, offset = (
        np.broadcast_to(v, len(stored))[:, None, None] for v in (source.scale, source.offset)
    )
    return stored / scale + offset, missing


def _check_whole_numbers(values: np.ndarray, source: Source, path: Path) -> None:
    """Refuse whole numbers (class, pixel) that do not add up to one number in all pixels, such as labels."""
    values = values[:, values.any(0)]
    if (
        not values.size
        or not np.isfinite(values).all()
        or values.min() < 0
        or (values % 1 != 0).any()
    ):
        return
    picture = is_picture(source)
    pure = (
        values.max() in (255, 65535) and values.astype(bool).sum(0).max() == 1
    )  # red, green or blue
    if len(values) == 1 or values.max() <= 1:
        if len(values) > 1 or len(np.unique(values)) == 1:
            return
    elif total_of(values.astype(np.float64), TOTALS) is not None and not (picture and pure):
        return
    if source.colours or picture or (source.shape[0] in (3, 4) and source.kind == "PNG"):
        raise UserError(
            f"{path}: a picture in colours, no probabilities; {ONE_HOT}, or its probability"
        )
    sums = values.sum(0, dtype=np.float64)
    raise UserError(
        f"{path}: whole numbers that are no probabilities (up to {values.max():g}, sums from {sums.min():g} to"
        f" {sums.max():g}); of labels, {ONE_HOT}; divide counts by their sum"
    )
