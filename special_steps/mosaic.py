"""One map of a campaign: a virtual raster (VRT) over the maps of its scenes, for GDAL and GIS."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from special_steps.core.atomic import atomic_write
from special_steps.core.cli import run
from special_steps.core.errors import UserError
from special_steps.core.palette import class_colours, rgb_of
from special_steps.core.store import TILE, Grid
from special_steps.io.class_map import UNKNOWN_TAG, read_class_map
from special_steps.io.legend import MISSING

log = logging.getLogger("special")


class Part(NamedTuple):
    """A scene's map."""

    scene: str
    path: Path
    shape: tuple[int, int]  # height, width
    grid: Grid


def misfit(first: Grid, other: Grid) -> str | None:
    """Why a map can't lie beside the first one in a mosaic; None where it can.

    Places of pixels may differ by less than one: GDAL takes the nearest.
    """
    from rasterio.crs import CRS

    if other.crs is None or other.transform is None:
        return "it has no georeference"
    if first.crs is None or first.transform is None:
        return "the first map has no georeference"
    if CRS.from_wkt(other.crs) != CRS.from_wkt(first.crs):
        return f"its CRS ({CRS.from_wkt(other.crs).to_string()}) is another"
    a, b, _, d, e, _ = first.transform
    p, q, _, r, s, _ = other.transform
    if b or d or q or r:
        return "its grid, or the first one's, is rotated; export: {north_up: null} turns such maps"
    if abs(p - a) > 1e-6 * abs(a) or abs(s - e) > 1e-6 * abs(e):
        return f"its pixels are {abs(p):g} x {abs(s):g}, not {abs(a):g} x {abs(e):g}"
    return None


def virtual_raster(
    parts: Sequence[Part],
    out: Path,
    class_names: Sequence[str],
    colours: Sequence[str],
    unknown: bool = False,
) -> str:
    """The text of a VRT of class maps: where they overlap, the later one counts, but for its no-data.

    Args:
        parts: maps on one CRS, of one size of pixels.
        out: where it will lie: paths of maps are relative to it.
        class_names: the K classes, and UNKNOWN where the maps have it.
        colours: their colours, #rrggbb.
        unknown: whether the maps have it.
    """
    grid = parts[0].grid
    places = []  # column and row of each map's corner, from the first one's
    for part in parts:
        if grid.transform is None or part.grid.transform is None:
            places.append((0.0, 0.0))
            continue
        a, _, c, _, e, f = grid.transform
        places.append(((part.grid.transform[2] - c) / a, (part.grid.transform[5] - f) / e))
    left, top = (min(values) for values in zip(*places, strict=True))
    ends = [(x + p.shape[1], y + p.shape[0]) for (x, y), p in zip(places, parts, strict=True)]
    right, bottom = (max(values) for values in zip(*ends, strict=True))
    width, height = round(right - left), round(bottom - top)
    root = ElementTree.Element("VRTDataset", rasterXSize=str(width), rasterYSize=str(height))
    if grid.crs is not None:
        _add(root, "SRS", grid.crs, dataAxisToSRSAxisMapping="1,2")
    if grid.transform is not None:
        a, b, c, d, e, f = grid.transform
        corner = (c + a * left + b * top, a, b, f + d * left + e * top, d, e)  # GDAL's order
        _add(root, "GeoTransform", ", ".join(f"{value:.17g}" for value in corner))
    metadata = _add(root, "Metadata")
    for i, name in enumerate(class_names, 1):
        _add(metadata, "MDI", name, key=f"CLASS_{i}")
    if unknown:
        _add(metadata, "MDI", str(len(class_names)), key=UNKNOWN_TAG)
    band = _add(root, "VRTRasterBand", dataType="Byte", band="1")
    _add(band, "Description", "land cover")
    _add(band, "NoDataValue", "0")
    _add(band, "ColorInterp", "Palette")
    names = _add(band, "CategoryNames")
    for name in (MISSING, *class_names):
        _add(names, "Category", name)
    table = _add(band, "ColorTable")
    _entry(table, (0, 0, 0), 0)
    for colour in colours:
        _entry(table, rgb_of(colour), 255)
    for part, (x, y) in zip(parts, places, strict=True):
        rows, columns = part.shape
        size = {"xSize": str(columns), "ySize": str(rows)}
        source = _add(band, "ComplexSource")
        path = Path(os.path.relpath(part.path, out.parent)).as_posix()
        _add(source, "SourceFilename", path, relativeToVRT="1")
        _add(source, "SourceBand", "1")
        _add(source, "SourceProperties", RasterXSize=size["xSize"], RasterYSize=size["ySize"],
             DataType="Byte", BlockXSize=str(TILE), BlockYSize=str(TILE))  # fmt: skip
        _add(source, "SrcRect", xOff="0", yOff="0", **size)
        _add(source, "DstRect", xOff=f"{x - left:.12g}", yOff=f"{y - top:.12g}", **size)
        _add(source, "NODATA", "0")
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def _add(
    parent: ElementTree.Element, name: str, text: str | None = None, **attributes: str
) -> ElementTree.Element:
    child = ElementTree.SubElement(parent, name, attributes)
    child.text = text
    return child


def _entry(table: ElementTree.Element, rgb: tuple[int, int, int], alpha: int) -> None:
    values = dict(zip(("c1", "c2", "c3", "c4"), map(str, (*rgb, alpha)), strict=True))
    _add(table, "Entry", **values)


def mosaic(*, scenes: list[str], maps: list[Path], colours: dict[str, str], out: Path) -> None:
    """Write a virtual raster over the maps of a campaign's scenes.

    Maps of another CRS or size of pixels than the first one's are left out, with a warning.

    Args:
        scenes: their names, for warnings.
        maps: of each: map.tif, as export writes it.
        colours: the user's own colours (#rrggbb) of classes.
        out: VRT to write; it points at the maps by relative paths.
    """
    read = [read_class_map(path) for path in maps]
    names, grid, unknown = read[0].names, read[0].grid, read[0].unknown
    parts: list[Part] = []
    for scene, path, found in zip(scenes, maps, read, strict=True):
        if found.names != names:
            raise UserError(
                f"{path}: classes {', '.join(found.names)}, but {maps[0]} has {', '.join(names)};"
                " delete both and run again"
            )
        reason = misfit(grid, found.grid) if parts else None
        if reason is None:
            height, width = found.labels.shape
            parts.append(Part(scene, path, (height, width), found.grid))
        else:
            log.warning("%s: %s is not in it beside %s: %s", out, scene, parts[0].scene, reason)
    with atomic_write(out) as file:
        palette = class_colours(names, colours, unknown)
        text = virtual_raster(parts, out, names, palette, unknown)
        file.write_text(text, encoding="utf-8")
    log.info("%s: %d of %d maps", out, len(parts), len(maps))


if __name__ == "__main__":
    run(mosaic)
