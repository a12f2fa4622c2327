"""A class map as a step wrote it (a store) or as it was exported (GeoTIFF): labels, names, place, digest."""

import hashlib
import re
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np

from special_steps.core.errors import UserError
from special_steps.core.store import Grid, class_names, grid_of, open_store, read_array
from special_steps.io.ground_area import pixel_areas
from special_steps.io.record import reading

UNKNOWN_TAG = "UNKNOWN"  # of a GeoTIFF's header: the value of pixels whose class is unknown


class ClassMap(NamedTuple):
    """A map of classes."""

    labels: np.ndarray  # (y, x) uint8: 1..K, 0 = no data; K + 1 = unknown
    names: list[str]  # the K classes, and UNKNOWN where the map has it
    grid: Grid
    unknown: bool = False  # whether it is a map with UNKNOWN, the last of the names

    @property
    def classes(self) -> list[str]:
        """The K classes."""
        return self.names[:-1] if self.unknown else self.names

    @property
    def digest(self) -> str:
        """What the map says and where, in 16 digits: the same for a store and a GeoTIFF of it without `unknown`."""
        digest = hashlib.sha256()
        place = [f"{v:.12g}" for v in self.grid.transform or ()]
        digest.update(f"{self.labels.shape} {place} {self.names}".encode())
        digest.update(np.ascontiguousarray(self.labels).tobytes())
        return digest.hexdigest()[:16]

    def pixel_area(self) -> float | None:
        """Area of a pixel in m2, the mean over those with a class; None where the place on the ground is not known."""
        areas = pixel_areas(self.grid, self.labels.shape)
        if areas is None:
            return None
        return float(np.average(areas, weights=(self.labels > 0).sum(1)))

    def places(self, rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """X and y of the centres of pixels, in the map's CRS.

        Without a transform x runs with the columns and y against the rows, one unit a pixel: where GIS show such a map.
        """
        a, b, c, d, e, f = self.grid.transform or (1, 0, 0, 0, -1, 0)
        x, y = columns + 0.5, rows + 0.5
        return a * x + b * y + c, d * x + e * y + f

    def pixels(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows and columns of the pixels that hold places, (place,) int64; -1, -1 outside of the map."""
        return pixels_of(self.grid, self.labels.shape, x, y)


def pixels_of(
    grid: Grid, shape: tuple[int, ...], x: np.ndarray, y: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the pixels that hold places, (place,) int64; -1, -1 outside.

    Args:
        grid: of the scene or map; without a transform as in `ClassMap.places`.
        shape: y and x of the scene or map.
        x: (place,) in its CRS.
        y: the same.
    """
    from affine import Affine

    back = ~Affine(*(grid.transform or (1, 0, 0, 0, -1, 0)))
    columns = np.floor(back.a * x + back.b * y + back.c)
    rows = np.floor(back.d * x + back.e * y + back.f)
    inside = (rows >= 0) & (rows < shape[0]) & (columns >= 0) & (columns < shape[1])
    return (
        np.where(inside, rows, -1).astype(np.int64),
        np.where(inside, columns, -1).astype(np.int64),
    )


def read_class_map(path: Path) -> ClassMap:
    """Read a map: `map.tif` as the workflow exports it, or a store with `labels`.

    Raises:
        UserError: for a file that is missing, damaged, no such map or without a class.
    """
    if path.is_dir():
        store = open_store(path, labels=("y", "x"))
        found = ClassMap(read_array(store, "labels"), class_names(store), grid_of(store))
    else:
        found = _geotiff(path)
    if not found.labels.any():
        raise UserError(f"{path}: no pixel of the map has a class; give another map")
    return found


def _geotiff(path: Path) -> ClassMap:
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning

    if not path.is_file():
        raise UserError(f"{path}: no such file; give the map.tif of a run")
    with warnings.catch_warnings(), reading(path):
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # as scenes are
        raster = rasterio.open(path)
    with reading(path), raster:
        if raster.count != 1 or raster.dtypes[0] != "uint8":
            raise UserError(
                f"{path}: {raster.count} bands of {raster.dtypes[0]}, not one of uint8; give the map.tif of a run"
            )
        tags = {
            int(found[1]): name
            for tag, name in raster.tags().items()
            if (found := re.fullmatch(r"CLASS_(\d+)", tag))
        }
        stored = raster.read(1)
        crs = raster.crs.to_wkt() if raster.crs else None
        placed = raster.crs is not None or not raster.transform.is_identity
        transform = tuple(raster.transform)[:6] if placed else None
        empty = raster.nodata
        unknown = raster.tags().get(UNKNOWN_TAG)
    if not tags:
        raise UserError(
            f"{path}: names no classes (tags CLASS_1, CLASS_2, ...); give the map.tif of a run"
        )
    place = np.zeros(256, np.uint8)
    for position, value in enumerate(sorted(tags), 1):
        place[value] = position
    if empty is not None:
        place[int(empty)] = 0
    unnamed = [v for v in np.unique(stored) if not place[v] and v not in (0, empty)]
    if unnamed:
        raise UserError(
            f"{path}: value {unnamed[0]} is in the map, but no class has it; give the map.tif of a run"
        )
    names = [tags[v] for v in sorted(tags)]
    if unknown is not None and unknown != str(max(tags)):
        raise UserError(
            f"{path}: tag {UNKNOWN_TAG} is {unknown}, not the last of the map's values, {max(tags)}; give the map.tif"
            " of a run"
        )
    return ClassMap(place[stored], names, Grid(crs, transform), unknown is not None)


def read_confidence(path: Path, given: Path | None) -> np.ndarray | None:
    """The confidence of each pixel, (y, x) float32, NaN for no data.

    Args:
        path: the map: a store with `margin`, or a GeoTIFF with confidence.tif beside it.
        given: another GeoTIFF of it.

    Returns:
        None where there is none.

    Raises:
        UserError: for a file that is missing or damaged.
    """
    import rasterio

    if given is None and path.is_dir():
        store = open_store(path, margin=("y", "x"), nodata=("y", "x"))
        margin = read_array(store, "margin")
        margin[read_array(store, "nodata")] = np.nan
        return margin
    beside = given or path.with_name("confidence.tif")
    if not beside.is_file():
        if given:
            raise UserError(f"{given}: no such file; give the confidence.tif of the map")
        return None
    with reading(beside), rasterio.open(beside) as raster:
        return raster.read(1, masked=True).astype(np.float32).filled(np.nan)
