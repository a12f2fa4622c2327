"""Ground truth: a label or abundance file becomes a label map in the order of the scene's classes."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from special_steps.core.classes import classes_by_label
from special_steps.core.errors import UserError
from special_steps.core.store import Grid
from special_steps.io.fill import missing_values
from special_steps.io.fractions import (
    NEAR,
    NOISE,
    common_colours,
    is_picture,
    missing_fractions,
    whole_of,
)
from special_steps.io.grids import on_scene_grid
from special_steps.io.record import Source
from special_steps.io.source import open_source

log = logging.getLogger("special")

SHOWN = 20  # unknown labels at most in a message
MANY = 16  # unknown colours: more are no forgotten classes
SETTING = "scenes.<name>.ground_truth"


def read_ground_truth(
    path: str | Path | Sequence[str | Path],
    *,
    variable: str | None,
    axes: str | None,
    shape: Mapping[str, int] | None,
    labels: Mapping[str, int],
    unlabelled: Sequence[int],
    colours: bool,
    align: bool,
    class_names: Sequence[str],
    scene_shape: tuple[int, int],
    scene_grid: Grid,
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
        align: whether to bring labels of another grid to the scene's; without it they are refused.
        class_names: the scene's classes, in order.
        scene_shape: the scene's (height, width).
        scene_grid: where the scene's pixels lie.

    Returns:
        (y, x) uint8: 0 = unlabelled, 1..K by position in `class_names`.

    Raises:
        UserError: naming the file, when anything does not fit.
    """
    source = open_source(path, variable=variable, axes=axes, shape=shape, one_layer=True)
    where = str(source.files[0])
    classes = classes_by_label(labels, class_names, unlabelled, f"{where}: ground_truth.labels")
    layers, masked, outside = on_scene_grid(
        source, scene_grid, scene_shape, align=align, what="ground truth"
    )  # fmt: skip
    there = ~(masked | outside)
    if colours:
        stored, empty = colour_labels(layers, source, where)
    elif len(layers) == 1:
        stored, empty = single_labels(layers[0], source, where)
    else:
        stored = largest_layer(layers, there, source, where)
        empty = np.zeros(stored.shape, bool)
    stored[outside] = np.nan
    _without_masked(stored, masked, classes, where)
    _without_nodata(stored, empty, classes, colours, where)
    return match_classes(stored, classes, class_names, unlabelled, where, source, colours)


def single_labels(layer: np.ndarray, source: Source, where: str) -> tuple[np.ndarray, np.ndarray]:
    """One layer (y, x) of labels as floats, NaN for none; and where the file calls the value no data.

    Raises:
        UserError: for values that are no whole numbers.
    """
    labels = layer.astype(np.float64)
    labels[~np.isfinite(labels)] = np.nan
    empty = missing_values(layer, source.nodata)
    empty |= np.isin(layer, _transparent(source))
    broken = (labels != np.round(labels)) & ~np.isnan(labels) & ~empty
    if broken.any():
        found = np.unique(labels[broken])
        raise UserError(
            f"{where}: holds values that are no whole numbers, {_listed([f'{v:g}' for v in found[:5]], len(found))},"
            " so these are measurements, or labels averaged by interpolation; give labels as whole numbers,"
            " resampled by nearest neighbour"
        )
    return labels, empty


def _transparent(source: Source) -> list[int]:
    return [index for index, colour in (source.colours or {}).items() if colour[3] == 0]


# --- pictures in colours --------------------------------------------------------------------------


def colour_labels(layers: np.ndarray, source: Source, where: str) -> tuple[np.ndarray, np.ndarray]:
    """A picture's colours as labels 0xRRGGBB, NaN where it has none; and where the file calls the colour no data.

    Args:
        layers: (layer, y, x): red, green, blue, perhaps alpha (0: no label there); or positions in a palette.
        source: what the file says of itself.
        where: file, for messages.

    Raises:
        UserError: for layers that are no picture in colours of 8 bits, or 16 that hold the same.
    """
    if len(layers) == 1 and source.colours:
        index, empty = single_labels(layers[0], source, where)
        out = np.full(index.shape, np.nan)
        for position, (red, green, blue, _) in source.colours.items():
            out[index == position] = red << 16 | green << 8 | blue
        return out, empty
    if len(layers) not in (3, 4):
        raise UserError(
            f"{where}: {len(layers)} layers of {layers.dtype} are no picture in colours (3 or 4 layers, or one with a"
            " palette); leave ground_truth.colours out"
        )
    missing = np.zeros(layers.shape[1:], bool)
    if layers.dtype.kind == "f":
        missing = ~np.isfinite(layers[:3]).all(0)
    if len(layers) == 4:
        missing |= layers[3] == 0
    empty = missing_values(layers[:3], source.nodata).all(0) & ~missing
    red, green, blue = eight_bits(np.where(missing | empty, 0, layers[:3]), where)
    kept = [int(v) for v in source.nodata if 0 <= v <= 255 and float(v).is_integer()]
    grey = np.zeros(missing.shape, np.int64)  # the colour that is called no data
    for value in kept:
        grey[empty & (layers[0] == value)] = value
    labels = np.where(empty, grey << 16 | grey << 8 | grey, red << 16 | green << 8 | blue).astype(
        float
    )
    labels[missing] = np.nan
    return labels, empty


def eight_bits(colours: np.ndarray, where: str) -> np.ndarray:
    """Colours (3, y, x) as int64 from 0 to 255: of 16 bits that are stretched 8 bits, and of fractions of 1, too.

    Raises:
        UserError: for values that are neither.
    """
    top = colours.max(initial=0)
    if colours.dtype.kind == "f" and top <= 1:
        colours = np.where(
            np.abs(255 * colours - np.round(255 * colours)) < 1e-3, np.round(255 * colours), -1
        )
    elif colours.dtype.kind == "u" and top > 255:
        for factor in (257, 256):
            if (colours % factor == 0).all():
                colours = colours // factor
                break
    if colours.min(initial=0) < 0 or colours.max(initial=0) > 255 or (colours % 1 != 0).any():
        raise UserError(
            f"{where}: a picture in colours of {colours.dtype}, whose values are not 8 bits; convert it, such as with"
            " gdal_translate -ot Byte -scale 0 65535 0 255"
        )
    return colours.astype(np.int64)


# --- abundances -----------------------------------------------------------------------------------


def largest_layer(layers: np.ndarray, there: np.ndarray, source: Source, where: str) -> np.ndarray:
    """Position, from 1, of the largest of several abundances (layer, y, x); NaN where all are 0 or one is missing.

    Args:
        layers: as stored.
        there: (y, x) bool: where they count at all.
        source: what the file says of itself.
        where: file, for messages.

    Raises:
        UserError: for layers that are no abundances, with what to do.
    """
    usable = there & ~missing_fractions(layers, source.nodata)
    plain = np.all(source.scale == 1) and np.all(source.offset == 0)
    values = layers.astype(np.float64)
    if not plain:
        scale, offset = (
            np.broadcast_to(v, len(layers))[:, None, None] for v in (source.scale, source.offset)
        )
        values = values / scale + offset
    values[:, ~usable] = 0
    least = -NOISE * min(max(1.0, values.max(initial=0)), 100.0)
    filled = (values < least).any(0)
    values = np.where(filled, 0, np.maximum(values, 0))
    labelled = values.any(0)
    if not labelled.any():
        return np.full(labelled.shape, np.nan)
    picture, sums = is_picture(source), values.sum(0)
    even = labelled & (values == values[0]).all(0) & (values[0] > 1) & (not picture)
    whole = None if (even == labelled).all() else whole_of(values[:, labelled & ~even], picture)
    if whole is None:
        raise _no_abundances(layers, values[:, labelled], source, where)
    filled |= even & (sums > (1 + NEAR) * whole)  # such as 255 in all layers
    if filled.any():
        log.warning(
            "%s: %d pixels hold negative abundances, or too large ones that are equal in all layers: taken for no"
            " data, so without a label", where, filled.sum(),
        )  # fmt: skip
    return np.where(labelled & ~filled, values.argmax(0) + 1.0, np.nan)


def _no_abundances(layers: np.ndarray, values: np.ndarray, source: Source, where: str) -> UserError:
    """Says what several layers are, as far as that can be told, and what to do."""
    if len(layers) in (3, 4):
        try:
            colours = common_colours(eight_bits(np.nan_to_num(layers[:3]), where))
        except UserError:
            colours = f"of {layers.dtype}"
        if is_picture(source) or layers.dtype == np.uint8:
            return UserError(
                f"{where}: a picture in colours, not labels; give an image of one band, or set ground_truth.colours:"
                f" true and each label as 0xRRGGBB (its commonest colours: {colours})"
            )
    sums = values.sum(0)
    fix = "give the layer of the labels as a file of its own"
    if source.variables:
        fix += ", name the right one with ground_truth.variable, or say in ground_truth.axes what the axes are"
    if len(layers) in (3, 4):
        fix += "; if it is a picture in colours, set ground_truth.colours: true"
    return UserError(
        f"{where}: {len(layers)} layers that are no abundances: their values go from {values.min():g} to"
        f" {values.max():g}, their sums from {sums.min():g} to {sums.max():g} (abundances are from 0 to 1, or add up to"
        f" 1 or 100); {fix}"
    )


# --- labels and classes ---------------------------------------------------------------------------


def _without_masked(
    labels: np.ndarray, masked: np.ndarray, classes: Mapping[int, str], where: str
) -> None:
    """Take labels away where the file's mask hides them, and say so."""
    hidden = masked & np.isin(labels, list(classes))
    if hidden.any():
        log.warning(
            "%s: %d of %d pixels with a label are hidden by the file's mask or alpha band: no label there",
            where, hidden.sum(), np.isin(labels, list(classes)).sum(),
        )  # fmt: skip
    elif masked.any():
        log.info("%s: no label where the file's mask or alpha band says so", where)
    labels[masked] = np.nan


def _without_nodata(
    labels: np.ndarray, empty: np.ndarray, classes: Mapping[int, str], colours: bool, where: str
) -> None:
    """Take labels away that the file calls no data, except those that the config gives to a class, which it says."""
    kept = empty & np.isin(labels, list(classes))
    for label in np.unique(labels[kept]):
        log.warning(
            "%s: the file calls %s no data (or transparent), but ground_truth.labels has it as '%s', and so it is"
            " read, in %d pixels; if there is no reference there, take it out of ground_truth.labels",
            where, _text(label, colours), classes[int(label)], (labels[kept] == label).sum(),
        )  # fmt: skip
    labels[empty & ~kept] = np.nan


def match_classes(
    labels: np.ndarray,
    classes: Mapping[int, str],
    class_names: Sequence[str],
    unlabelled: Sequence[int],
    where: str,
    source: Source | None = None,
    colours: bool = False,
) -> np.ndarray:
    """A file's labels (y, x), NaN for none, to uint8: 1..K by position in `class_names`, 0 = unlabelled.

    Several labels may belong to one class. Labels of the config that the file does not have are told.

    Raises:
        UserError: for labels that are neither a class's nor unlabelled, and when no pixel has a class.
    """
    found, counts = np.unique(labels[~np.isnan(labels)], return_counts=True)
    known = np.isin(found, [*classes, *unlabelled])
    if not known.all():
        raise _unknown(found[~known], counts[~known], classes, where, source, colours)
    out = np.zeros(labels.shape, np.uint8)
    for label, name in classes.items():
        out[labels == label] = list(class_names).index(name) + 1
    if not out.any():
        without = int(counts.sum())
        raise UserError(
            f"{where}: no labelled pixel: of {labels.size} pixels of the scene, {without} have a label of"
            f" ground_truth.unlabelled, {labels.size - without} none (no data, masked or outside); check whether it"
            " is the ground truth of this scene, and ground_truth.labels"
        )
    absent = [
        f"{_text(label, colours)} ('{name}')"
        for label, name in classes.items()
        if label not in found
    ]
    if absent:
        log.warning(
            "%s: %s of ground_truth.labels %s in no pixel of it",
            where, _listed(absent[:SHOWN], len(absent)), "is" if len(absent) == 1 else "are",
        )  # fmt: skip
    return out


def _unknown(
    found: np.ndarray,
    counts: np.ndarray,
    classes: Mapping[int, str],
    where: str,
    source: Source | None,
    colours: bool,
) -> UserError:
    """Labels that the config does not have; of colours, the commonest, each with the nearest one that it has."""
    fix = f"add them to {SETTING}.labels or .unlabelled"
    if not colours:
        told = _listed([_text(v, False) for v in found[:SHOWN]], len(found))
        if source is not None and source.colours and min(classes) > 255:
            fix = "its labels are positions in a palette: set ground_truth.colours: true to read the colours"
        return UserError(f"{where}: labels {told} are in the file but not in the config; {fix}")
    listed = []
    for i in np.argsort(-counts, kind="stable")[:SHOWN]:
        nearest = min(classes, key=lambda label: _distance(label, int(found[i])))
        listed.append(
            f"{_text(found[i], True)} ({counts[i]} pixels, nearest to {_text(nearest, True)} of '{classes[nearest]}')"
        )
    if len(found) > MANY:
        fix = (
            "so many colours suggest a picture compressed with loss (JPEG) or interpolated: give it as PNG or GeoTIFF"
            " without loss, resampled by nearest neighbour"
        )
    elif source is not None and source.colours and max(classes) <= 255:
        fix = f"if labels are positions in its palette, leave ground_truth.colours out; else {fix}"
    return UserError(
        f"{where}: {len(found)} colours are in the file but not in the config: {_listed(listed, len(found))}; {fix}"
    )


def _distance(first: int, second: int) -> int:
    """Squared distance of two colours."""
    return sum(((first >> bits & 255) - (second >> bits & 255)) ** 2 for bits in (0, 8, 16))


def _text(label: float, colours: bool) -> str:
    return f"0x{int(label):06x}" if colours or label > 0xFFFF else f"{label:g}"


def _listed(shown: Sequence[str], number: int) -> str:
    return ", ".join(shown) + (", ..." if number > len(shown) else "")
