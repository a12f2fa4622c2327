"""Layers beside a scene (labels, probabilities, masks): on the scene's grid, or brought to it, never taken for it."""

import logging
import re
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from special_steps.core.errors import UserError
from special_steps.core.store import Grid
from special_steps.io.record import Source

log = logging.getLogger("special")

SAME = 0.1  # pixels: closer is the same grid, and coordinates in another datum of the same zone are
EDGE = 1e-6  # pixels: a centre that lies on the edge of two pixels must not fall to one or the other by rounding
LEAST = 256  # points that are outside a CRS together
ROWS = 32  # of the scene at a time: of much finer layers, a few rows are many values
UNITS = {"metre": "m", "meter": "m", "degree": "degrees"}

Shape = tuple[int, int]  # height, width


class OnGrid(NamedTuple):
    """Layers pixel by pixel on the scene's grid."""

    values: np.ndarray  # (layer, y, x), as stored; 0 where outside
    masked: np.ndarray  # (y, x) bool: the file's own mask, such as its alpha band
    outside: np.ndarray  # (y, x) bool: the layers do not reach there


def on_scene_grid(
    source: Source, scene: Grid, scene_shape: Shape, *, align: bool, what: str
) -> OnGrid:
    """Read layers on the scene's grid, which they must lie on (0.1 pixel), or are warped to by nearest neighbour.

    Where the file or the scene has no georeference, only the size can be compared; a warning says so.

    Args:
        source: the layers.
        scene: where the scene's pixels lie.
        scene_shape: the scene's (height, width).
        align: whether to warp layers of another grid; without it they are refused.
        what: what the layers are, such as "ground truth"; the setting `align` is then ground_truth.align.

    Raises:
        UserError: naming the file, for another size or grid, and for layers that cannot be warped.
    """
    where, setting = str(source.files[0]), f"{re.sub('[ -]', '_', what)}.align"
    given, scene = _known(Grid(source.crs, source.transform)), _known(scene)
    shape = source.shape[1:]
    unknown = _not_comparable(given, shape, scene, scene_shape)
    if unknown and align:
        raise UserError(
            f"{where}: cannot be aligned with the scene: {unknown}; set {setting}: false if its pixels are the"
            " scene's one by one, or give files with a georeference"
        )
    if unknown:
        if shape != tuple(scene_shape):
            raise UserError(
                f"{where}: has {shape[0]} x {shape[1]} pixels (height x width), the scene has"
                f" {scene_shape[0]} x {scene_shape[1]}; check 'axes' and 'shape', or give the {what} of this scene"
            )
        if given.transform or scene.transform:
            log.warning(
                "%s: the position could not be checked, pixels are taken for the scene's one by one:"
                " %s", where, unknown,
            )  # fmt: skip
        return _as_it_is(source)
    corners = _in_pixels(_corners(shape), given, scene)
    if shape == tuple(scene_shape) and _farthest(corners - _corners(shape)) < SAME:
        return _as_it_is(source)
    if not align:
        raise UserError(
            f"{where}: {_difference(corners, given, shape, scene, scene_shape)}. Its grid:"
            f" {_described(given, shape)}; the scene's: {_described(scene, scene_shape)}. Set {setting}: true to have"
            f" it brought to the scene's grid, or give it on that grid; correct its georeference if only that is wrong"
        )
    layers = _warped(source, given, scene, scene_shape)
    if layers.outside.all():
        raise UserError(
            f"{where}: covers no pixel of the scene. Its grid: {_described(given, shape)}; the scene's:"
            f" {_described(scene, scene_shape)}; give the {what} of this scene, or correct the georeference"
        )
    log.info(
        "%s: brought to the scene's grid by nearest neighbour; it covers %.1f %% of the scene",
        where, 100 - 100 * layers.outside.mean(),
    )  # fmt: skip
    return layers


def as_source(source: Source, layers: OnGrid) -> Source:
    """The source as if its file were on the scene's grid: `masked` also where it does not reach."""
    masked = layers.masked | layers.outside
    return replace(
        source,
        shape=layers.values.shape,
        read=lambda rows, columns: layers.values[:, rows, columns],
        masked=(lambda rows, columns: masked[rows, columns]) if masked.any() else None,
        crs=None,
        transform=None,
    )


def _as_it_is(source: Source) -> OnGrid:
    rows, columns = slice(0, source.shape[1]), slice(0, source.shape[2])
    nowhere = np.zeros(source.shape[1:], bool)
    masked = nowhere if source.masked is None else np.asarray(source.masked(rows, columns))
    return OnGrid(np.asarray(source.read(rows, columns)), masked, nowhere)


def _warped(source: Source, given: Grid, scene: Grid, scene_shape: Shape) -> OnGrid:
    """Each of the scene's pixels gets the values of the pixel that its centre lies in."""
    height, width = scene_shape
    values: np.ndarray | None = None
    masked, outside = np.zeros(scene_shape, bool), np.ones(scene_shape, bool)
    for top in range(0, height, ROWS):
        strip = slice(top, min(top + ROWS, height))
        y, x = np.mgrid[strip, 0:width] + 0.5
        found = _in_pixels(np.stack([x.ravel(), y.ravel()]), scene, given)
        with np.errstate(invalid="ignore"):
            column, row = np.floor(found + EDGE).reshape(2, *x.shape)
            inside = (
                (column >= 0) & (column < source.shape[2]) & (row >= 0) & (row < source.shape[1])
            )
        if not inside.any():
            continue
        at = row[inside].astype(int), column[inside].astype(int)
        window = tuple(slice(int(i.min()), int(i.max()) + 1) for i in at)
        within = tuple(i - part.start for i, part in zip(at, window, strict=True))
        block = np.asarray(source.read(*window))
        if values is None:
            values = np.zeros((len(block), *scene_shape), block.dtype)
        values[:, strip][:, inside] = block[:, within[0], within[1]]
        if source.masked is not None:
            masked[strip][inside] = np.asarray(source.masked(*window))[within]
        outside[strip] = ~inside
    if values is None:
        values = np.zeros((source.shape[0], *scene_shape), np.uint8)
    return OnGrid(values, masked, outside)


# --- grids compared -------------------------------------------------------------------------------


def _not_comparable(given: Grid, shape: Shape, scene: Grid, scene_shape: Shape) -> str | None:
    """Why it cannot be told where the layers lie in the scene; None where it can."""
    if not _placed(given):
        return "the file has no georeference"
    if not _placed(scene):
        return "the scene has no georeference"
    if bool(given.crs) != bool(
        scene.crs
    ):  # numbers near each other are of one CRS, others may be of any
        ours, theirs = _corners_there(given, shape), _corners_there(scene, scene_shape)
        if (ours.min(1) >= theirs.max(1)).any() or (theirs.min(1) >= ours.max(1)).any():
            return (
                f"the {'scene' if given.crs else 'file'} does not state the CRS of its coordinates"
            )
    return None


def _placed(grid: Grid) -> bool:
    """Whether a grid says where it lies; without a CRS, coordinates that count pixels do not."""
    if grid.transform is None:
        return False
    a, b, c, d, e, f = grid.transform
    counting = grid.crs is None and (a, b, c, d, abs(e)) == (1, 0, 0, 0, 1) and f in (0, 1)
    return a * e - b * d != 0 and bool(np.isfinite(grid.transform).all()) and not counting


def _known(grid: Grid) -> Grid:
    """The grid without a CRS that says nothing to others: a local one, such as ENVI's "Arbitrary", or a damaged one."""
    from rasterio.crs import CRS
    from rasterio.errors import CRSError

    if grid.crs is None or re.match(r"(LOCAL_CS|ENGCRS|ENGINEERINGCRS)\b", grid.crs):
        return grid._replace(crs=None)
    try:
        CRS.from_wkt(grid.crs)
    except CRSError:
        return grid._replace(crs=None)
    return grid


def _converted(points: np.ndarray, start: str, end: str) -> np.ndarray:
    """Coordinates (2, point) of one CRS, x east and y north, in another; infinite where they have none there."""
    from rasterio.crs import CRS
    from rasterio.warp import transform

    there = np.full(points.shape, np.inf)
    finite = np.isfinite(points).all(0)
    if finite.all():
        try:
            there[:] = transform(CRS.from_wkt(start), CRS.from_wkt(end), *points)[:2]
        except Exception:  # of rasterio's private kinds; one point outside makes it refuse all
            if points.shape[1] > LEAST:
                halves = np.array_split(points, 2, axis=1)
                there = np.concatenate([_converted(half, start, end) for half in halves], axis=1)
    elif finite.any():
        there[:, finite] = _converted(points[:, finite], start, end)
    return there


def _in_pixels(points: np.ndarray, start: Grid, end: Grid) -> np.ndarray:
    """Pixel coordinates (2: x and y, point) of one grid in those of another."""
    assert start.transform is not None and end.transform is not None
    there = _applied(start.transform, points)
    if start.crs and end.crs and start.crs != end.crs:
        there = _converted(there, start.crs, end.crs)
    crs = end.crs or start.crs
    if crs and re.match(r"GEOG", crs):  # 190 degrees east are 170 west
        finite = there[0][np.isfinite(there[0])]
        if finite.size:
            near = end.transform[2]
            there[0] -= 360 * np.round((np.median(finite) - near) / 360)
    return _applied(_inverse(end.transform), there)


def _applied(transform: tuple[float, ...], points: np.ndarray) -> np.ndarray:
    a, b, c, d, e, f = transform
    x, y = points
    with np.errstate(invalid="ignore"):
        return np.stack([a * x + b * y + c, d * x + e * y + f])


def _inverse(transform: tuple[float, ...]) -> tuple[float, ...]:
    a, b, c, d, e, f = transform
    det = a * e - b * d
    return (e / det, -b / det, (b * f - c * e) / det, -d / det, a / det, (c * d - a * f) / det)


def _corners(shape: Shape) -> np.ndarray:
    """(2: x and y, corner), in pixels."""
    height, width = shape
    return np.array([[0, width, 0, width], [0, 0, height, height]], np.float64)


def _corners_there(grid: Grid, shape: Shape) -> np.ndarray:
    """The same in the CRS."""
    assert grid.transform is not None
    return _applied(grid.transform, _corners(shape))


def _farthest(away: np.ndarray) -> float:
    """The largest of distances (2, point); infinite where one is not known."""
    distance = np.hypot(*away)
    return float(distance.max()) if np.isfinite(distance).all() else np.inf


# --- differences told -----------------------------------------------------------------------------


def _difference(
    corners: np.ndarray, given: Grid, shape: Shape, scene: Grid, scene_shape: Shape
) -> str:
    """How a grid differs from the scene's; its `corners` are in the scene's pixels."""
    if not np.isfinite(corners).all():
        return "lies where the scene's CRS does not reach"
    assert scene.transform is not None
    unit = _unit(scene.crs or given.crs)
    linear = (*scene.transform[:2], 0.0, *scene.transform[3:5], 0.0)
    away = corners - _corners(shape)
    moved, there = away[:, 0], _applied(linear, away)
    if _farthest(away - moved[:, None]) < SAME:  # the same pixels, elsewhere
        told = []
        if _farthest(away) >= SAME:
            told.append(f"lies {_shift(moved, there[:, 0], unit)}")
            if np.allclose(np.abs(moved[np.abs(moved) > 0.01]), 0.5, atol=0.02):
                told[0] += ": one of the two gives pixels by their centres where corners are meant"
        if shape != tuple(scene_shape):
            told.append(f"has {_size(shape)} pixels, the scene has {_size(scene_shape)}")
        return " and ".join(told)
    told = []
    right, down = (corners[:, i] - corners[:, 0] for i in (1, 2))
    size = np.hypot(*right) / shape[1], np.hypot(*down) / shape[0]  # in the scene's pixels
    turned = np.degrees(np.arctan2(right[1], right[0]))
    if right[0] * down[1] - right[1] * down[0] < 0:  # one axis runs the other way
        if abs(turned) < 90:
            told.append("is upside down (its rows run the other way, as in south-up files)")
        else:
            told.append("is mirrored (its columns run the other way)")
        turned = 0.0
    if (np.abs(np.subtract(size, 1)) * shape[::-1] > SAME / 2).any():
        told.append(f"has pixels {size[0]:.4g} x {size[1]:.4g} times as large as the scene's")
    if abs(turned) > 0.05:
        told.append(f"is turned by {abs(turned):.3g} degrees")
    if shape != tuple(scene_shape):
        told.append(f"has {_size(shape)} pixels, the scene has {_size(scene_shape)}")
    away = corners - _corners(scene_shape)
    far = int(np.argmax(np.hypot(*away)))
    metres = np.hypot(*_applied(linear, away))[far]
    told.append(
        f"has a corner {metres:.4g} {unit} ({_pixels(np.hypot(*away)[far])}) away from the scene's"
    )
    return ", ".join(told)


def _shift(pixels: np.ndarray, there: np.ndarray, unit: str) -> str:
    """Such as "30 m east of the scene (3 pixels in x)"."""
    ways = [("east", "west"), ("north", "south")]
    least = 1e-3 * np.abs(there).max()
    told = [
        f"{abs(v):.4g} {unit} {ways[i][int(v < 0)]}" for i, v in enumerate(there) if abs(v) > least
    ]
    counted = [
        f"{_pixels(abs(v))} in {name}"
        for v, name in zip(pixels, "xy", strict=True)
        if abs(v) > 0.005
    ]
    return f"{' and '.join(told)} of the scene ({', '.join(counted)})"


def _pixels(number: float) -> str:
    text = f"{number:.0f}" if number >= 1000 else f"{number:.3g}"
    return f"{text} pixel{'' if text == '1' else 's'}"


def _size(shape: Shape) -> str:
    return f"{shape[0]} x {shape[1]}"


def _unit(crs: str | None) -> str:
    from rasterio.crs import CRS

    if crs is None:
        return "units"
    unit = str(CRS.from_wkt(crs).units_factor[0])
    return UNITS.get(unit, unit)


def _described(grid: Grid, shape: Shape) -> str:
    assert grid.transform is not None
    a, b, c, d, e, f = grid.transform
    pixel = f"{np.hypot(a, d):.6g} x {np.hypot(b, e):.6g}"
    return f"{_name(grid.crs)}, first corner ({c:.10g}, {f:.10g}), {_size(shape)} pixels of {pixel}"


def _name(crs: str | None) -> str:
    """A CRS's own name, the first one in its WKT."""
    found = re.search(r'"([^"]*)"', crs or "")
    return f"'{found[1]}'" if found else "no CRS"
