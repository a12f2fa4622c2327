"""Labels that people give: points and polygons with a column `class`, brought to a scene's grid."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from affine import Affine

from special_steps.core.classes import check_class
from special_steps.core.errors import UserError, one_line
from special_steps.core.store import Grid
from special_steps.io.class_map import pixels_of
from special_steps.io.points import read_features
from special_steps.io.vectors import in_pixels, polygonal, projected

if TYPE_CHECKING:
    from rasterio.crs import CRS

log = logging.getLogger("special")

COLUMN = "class"


def read_given_labels(
    path: Path,
    class_names: Sequence[str],
    grid: Grid,
    shape: tuple[int, int],
    nodata: np.ndarray | None = None,
) -> np.ndarray:
    """Read labels of pixels: those that hold a point, and those whose centre lies in a polygon.

    GeoPackage and GeoJSON may be in any CRS. A CSV has columns x and y in the scene's CRS; of a scene without
    georeference, x is the column and y the row with a minus, 0 at the upper left, as GIS show such a scene. Case and
    blanks of class names do not matter. Shapes without a class are left out; so are, with a warning, those outside of
    the scene and where it has no data.

    Args:
        path: the file.
        class_names: the scene's classes.
        grid: where its pixels lie.
        shape: y and x of the scene.
        nodata: (y, x) bool; None where that is not known yet.

    Returns:
        (y, x) uint8: 1..K, 0 for pixels without a label.

    Raises:
        UserError: for a file that is missing, damaged, without CRS, shapes or classes; for words that are no class; for
            two classes at one pixel; and when no shape is of use.
    """
    found = read_features(path)
    classes = _classes(path, found.columns, class_names)
    ids = found.columns.get("id") or [str(i) for i in range(1, len(classes) + 1)]
    if found.crs is not None and (grid.crs is None or grid.transform is None):
        raise UserError(
            f"{path}: the scene has no {'CRS' if grid.crs is None else 'transform'}, so shapes with a CRS cannot be"
            " placed on it; give a CSV with x, the column, and y, the row with a minus, 0 at the upper left"
        )
    labels, owner = np.zeros(shape, np.uint8), np.zeros(shape, np.int32)
    outside = empty = 0
    for i in np.flatnonzero(classes):
        rows, columns = _pixels(path, found.shapes[i], ids[i], found.crs, grid, shape)
        if not len(rows):
            outside += 1
            continue
        if nodata is not None:
            valid = ~nodata[rows, columns]
            empty += not valid.any()
            rows, columns = rows[valid], columns[valid]
        other = np.flatnonzero((labels[rows, columns] > 0) & (labels[rows, columns] != classes[i]))
        if len(other):
            y, x = rows[other[0]], columns[other[0]]
            raise UserError(
                f"{path}: shapes {ids[owner[y, x]]} ('{class_names[labels[y, x] - 1]}') and {ids[i]}"
                f" ('{class_names[classes[i] - 1]}') give one pixel (row {y}, column {x}, from 0) two classes; delete"
                " the wrong one"
            )
        labels[rows, columns], owner[rows, columns] = classes[i], i
    count = int((classes > 0).sum())
    if not labels.any():
        where = "outside of the scene" if outside else "where the scene has no data"
        where = "outside of the scene or where it has no data" if outside and empty else where
        raise UserError(f"{path}: all shapes lie {where}; give labels of this scene")
    for number, where in ((outside, "outside of the scene"), (empty, "where it has no data")):
        if number:
            log.warning("%s: %d of %d shapes lie %s and are left out", path, number, count, where)
    if count < len(classes):
        log.info("%s: %d shapes without a class are left out", path, len(classes) - count)
    return labels


def _classes(path: Path, columns: dict[str, list[str]], class_names: Sequence[str]) -> np.ndarray:
    """(shape,) int64 label of each shape, from 1; 0 for none."""
    if COLUMN not in columns:
        raise UserError(
            f"{path}: no column '{COLUMN}' (its columns: {', '.join(columns) or 'none'}); write there which class"
            " each shape is"
        )
    known = {" ".join(name.casefold().split()): i for i, name in enumerate(class_names, 1)}
    for word in dict.fromkeys(columns[COLUMN]):
        if word and word.casefold() not in known:
            check_class(word, class_names, f"{path}: column '{COLUMN}'")
    found = np.array([known[w.casefold()] if w else 0 for w in columns[COLUMN]], np.int64)
    if not found.any():
        raise UserError(
            f"{path}: column '{COLUMN}' is empty at all shapes; write there which class each shape is"
        )
    return found


def _pixels(
    path: Path, shape: Any, name: str, own: "CRS | None", grid: Grid, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of a shape's pixels within the scene.

    Args:
        path: the file, for messages.
        shape: shapely.
        name: which one it is.
        own: CRS of the file; None for a CSV.
        grid: of the scene.
        size: y and x of the scene.
    """
    import shapely
    from rasterio.crs import CRS
    from rasterio.errors import CRSError

    if shape is None or shape.is_empty:
        raise UserError(f"{path}: shape {name} has no place; delete its row, or place it")
    scene = None if grid.crs is None else CRS.from_wkt(grid.crs)
    try:
        if shape.geom_type in ("Point", "MultiPoint"):
            places = shapely.get_coordinates(shape)
            if own is not None and scene is not None:
                places = projected(places, own, scene)
            rows, columns = pixels_of(grid, size, *places.T)
            return rows[rows >= 0], columns[rows >= 0]
        if shape.geom_type in ("Polygon", "MultiPolygon"):
            assert own is not None and scene is not None and grid.transform is not None
            given = polygonal(shapely.force_2d(shape), path)
            return _within(in_pixels(given, own, scene, Affine(*grid.transform[:6]), size), size)
    except CRSError as error:
        raise UserError(
            f"{path}: its coordinates cannot be converted to the scene's CRS ({one_line(error)}); save it in the"
            " scene's CRS"
        ) from error
    raise UserError(f"{path}: shape {name} is a {shape.geom_type}; give points and polygons only")


def _within(polygons: list[Any], size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the pixels whose centres lie in polygons, given in pixel coordinates (column, row)."""
    import shapely
    from rasterio.features import rasterize

    left, top, right, bottom = shapely.total_bounds(polygons) if polygons else (0, 0, -1, -1)
    y, x = max(0, int(top)), max(0, int(left))
    height, width = min(size[0], int(bottom) + 1) - y, min(size[1], int(right) + 1) - x
    if right < 0 or bottom < 0 or height < 1 or width < 1:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    mask = rasterize(polygons, out_shape=(height, width), transform=Affine.translation(x, y))
    rows, columns = np.nonzero(mask)
    return rows + y, columns + x
