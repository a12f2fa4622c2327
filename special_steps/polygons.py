"""The class map as polygons, and how much ground each class covers."""

import csv
import logging
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from special_steps.core.atomic import atomic_write
from special_steps.core.cli import run
from special_steps.core.errors import UserError
from special_steps.core.palette import class_colours
from special_steps.io.class_map import read_class_map, read_confidence
from special_steps.io.ground_area import pixel_areas
from special_steps.io.legend import polygon_style

log = logging.getLogger("special")

FEWEST = 4  # pixels of a patch, where the config does not say
TURNS = 10  # of sieving at most; two or three are enough


class Patches(NamedTuple):
    """Connected pixels of one class: what becomes a polygon."""

    number: np.ndarray  # (y, x) int32 from 1, 0 = no data
    label: np.ndarray  # (patch,) uint8
    pixels: np.ndarray  # (patch,) int64
    confidence: np.ndarray  # (patch,) float64, the mean
    area: np.ndarray | None  # (patch,) float64, m2


def smallest_patch(min_area: float | None, areas: np.ndarray | None, mapped: int) -> int:
    """Pixels that a patch needs to be kept.

    Args:
        min_area: m2, or pixels where areas are None; None for a few pixels.
        areas: (y,) m2 of a pixel, or None.
        mapped: pixels with data.

    Raises:
        UserError: for more than the whole map.
    """
    if min_area is None:
        return min(FEWEST, max(mapped, 1))
    unit = float(np.mean(areas)) if areas is not None else 1.0
    fewest = int(np.ceil(min_area / unit - 1e-9))
    if fewest > mapped:
        name = "pixels" if areas is None else "m2"
        raise UserError(
            f"config: export.min_area: {min_area:g} {name} is more than the whole map, which has"
            f" {mapped * unit:.6g} {name}; make it smaller, or leave it out"
        )
    return max(fewest, 1)


def sieved(labels: np.ndarray, fewest: int) -> np.ndarray:
    """Give patches of fewer pixels to their largest neighbour; those with no neighbour but no data stay.

    Args:
        labels: (y, x) uint8, 0 = no data, which neither takes nor gives.
        fewest: pixels of a patch that stays; pixels of a patch touch by their sides.
    """
    from rasterio.features import sieve

    mask = labels > 0
    if fewest < 2 or not mask.any():
        return labels
    # From small to large: where all neighbours are small, GDAL's sieve has none to give a patch to. And again until
    # nothing changes: a patch whose largest neighbour also goes waits for the next turn.
    sizes = [2**i for i in range(1, 32) if 2**i < fewest]
    for size in sizes + [fewest] * TURNS:
        done = sieve(labels, size, mask=mask, connectivity=4)
        if size == fewest and (done == labels).all():
            break
        labels = done
    return labels


def patches(labels: np.ndarray, confidence: np.ndarray, areas: np.ndarray | None) -> Patches:
    """Number the patches of a class map, and measure them.

    Args:
        labels: (y, x) uint8, 0 = no data.
        confidence: (y, x) float32.
        areas: (y,) m2 of a row's pixels, or None.
    """
    from scipy.ndimage import label

    number = np.zeros(labels.shape, np.int32)
    kinds: list[np.ndarray] = []
    count = 0
    for value in np.unique(labels[labels > 0]):
        one = labels == value
        found, more = label(one, output=np.int32)
        found[one] += count
        number += found
        kinds.append(np.full(more, value, np.uint8))
        count += more
    flat = number.ravel()
    pixels = np.bincount(flat, minlength=count + 1)[1:]
    mean = np.bincount(flat, np.nan_to_num(confidence).ravel(), count + 1)[1:] / pixels
    area = None
    if areas is not None and (areas == areas[0]).all():
        area = pixels * areas[0]
    elif areas is not None:
        area = np.bincount(flat, np.repeat(areas, labels.shape[1]), count + 1)[1:]
    label_of = np.concatenate(kinds) if kinds else np.zeros(0, np.uint8)
    return Patches(number, label_of, pixels, mean, area)


def outlines(number: np.ndarray, transform: Any) -> np.ndarray:
    """Draw the patches along the sides of their pixels, valid by the OGC's rules.

    Args:
        number: (y, x) int32 from 1, 0 = no data.
        transform: affine map from (x, y) index to coordinates.

    Returns:
        (patch,) shapely Polygons, or MultiPolygons, in the order of their numbers.
    """
    import shapely
    from rasterio.features import shapes

    drawn = np.empty(int(number.max(initial=0)), object)
    for shape, value in shapes(number, number > 0, connectivity=4, transform=transform):
        shell, *holes = shape["coordinates"]
        drawn[int(value) - 1] = shapely.Polygon(shell, holes)
    for i in np.flatnonzero(~shapely.is_valid(drawn)):
        repaired = shapely.make_valid(drawn[i])
        parts = [
            p for p in shapely.get_parts(repaired) if p.geom_type in ("Polygon", "MultiPolygon")
        ]
        drawn[i] = shapely.union_all(parts)
    return drawn


def class_areas(
    labels: np.ndarray, class_names: list[str], areas: np.ndarray | None
) -> list[dict[str, Any]]:
    """What each class covers, in the order of the classes: pixels, share of the pixels with data, m2 and ha.

    Args:
        labels: (y, x) uint8, 0 = no data.
        class_names: the classes.
        areas: (y,) m2 of a row's pixels, or None: then areas are None, too.
    """
    most = len(class_names) + 1
    pixels = np.bincount(labels.ravel(), minlength=most)[1:]
    ground = None
    if areas is not None:
        rows = np.stack([np.bincount(row, minlength=most)[1:] for row in labels])
        ground = (rows * areas[:, None]).sum(0)
    total = max(int(pixels.sum()), 1)
    return [
        {
            "class": name,
            "pixels": int(pixels[i]),
            "share": round(float(pixels[i] / total), 6),
            "area_m2": None if ground is None else round(float(ground[i]), 2),
            "area_ha": None if ground is None else round(float(ground[i]) / 1e4, 6),
        }
        for i, name in enumerate(class_names)
    ]


def polygons(
    *,
    class_map: Path,
    confidence_map: Path,
    out: Path,
    style: Path,
    table: Path,
    colours: dict[str, str],
    min_area: float | None,
) -> None:
    """Write a class map as polygons, and the area of each class.

    Args:
        class_map: GeoTIFF that export has made.
        confidence_map: the same, of confidence.
        out: GeoPackage to write: a polygon for each patch of the sieved map, with `class`, `label` (its value in the
            class map), `pixels`, `area_m2` (where the place on the ground is known) and `confidence`, the mean of its
            pixels. Without georeference, x counts pixels to the right and y up: as QGIS shows the map, first row at 0.
        style: QGIS's style of the polygons to write, `.qml`.
        table: CSV to write: `class`, `pixels`, `share`, `area_m2`, `area_ha` of the class map itself, not sieved; a
            line for `unknown` where the map has it.
        colours: the user's own colours (#rrggbb) of classes.
        min_area: smaller patches are given to their largest neighbour; m2, or pixels where the place on the ground is
            not known; null for 4 pixels, 0 for none.

    Raises:
        UserError: for min_area larger than the map.
    """
    import shapely
    from rasterio.transform import Affine

    found_map = read_class_map(class_map)
    labels, names, grid = found_map.labels, found_map.names, found_map.grid
    palette = class_colours(names, colours, found_map.unknown)
    confidence = read_confidence(class_map, confidence_map)
    assert confidence is not None
    areas = pixel_areas(grid, labels.shape)
    fewest = smallest_patch(min_area, areas, int((labels > 0).sum()))
    rows = class_areas(labels, names, areas)
    labels = sieved(labels, fewest)
    found = patches(labels, confidence, areas)
    shapes = outlines(found.number, Affine(*(grid.transform or (1, 0, 0, 0, -1, 0))))
    log.info("%d polygons, of at least %d pixels where they have a neighbour", len(shapes), fewest)
    fields: dict[str, np.ndarray] = {
        "class": np.array(["", *names], object)[found.label],
        "label": found.label.astype(np.int32),
        "pixels": found.pixels,
    }
    if found.area is not None:
        fields["area_m2"] = found.area
    fields["confidence"] = found.confidence
    with atomic_write(out) as file:
        write_geopackage(file, shapely.to_wkb(shapes), fields, grid.crs)
    with atomic_write(style) as file:
        file.write_text(polygon_style(names, palette), encoding="utf-8")
    with atomic_write(table) as file, file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def write_geopackage(
    path: Path, shapes: np.ndarray, fields: dict[str, np.ndarray], crs: str | None
) -> None:
    """Write a layer `land_cover`.

    Args:
        path: the file.
        shapes: (patch,) as WKB.
        fields: values (patch,) by name.
        crs: WKT, or None.
    """
    import pyogrio.raw

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="'crs' was not provided")
        pyogrio.raw.write(
            path,
            shapes,
            list(fields.values()),
            list(fields),
            layer="land_cover",
            driver="GPKG",
            geometry_type="MultiPolygon",
            promote_to_multi=True,
            crs=crs,
            dataset_options={"VERSION": "1.2"},  # GIS of some years ago warn of newer ones
        )


if __name__ == "__main__":
    run(polygons)
