"""Areas given as polygons: GeoJSON, GeoPackage and shapefiles, in any CRS, and which pixels lie in them."""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from special_steps.core.errors import UserError, one_line
from special_steps.io.record import reading, small_file

if TYPE_CHECKING:
    from affine import Affine
    from rasterio.crs import CRS

log = logging.getLogger("special")

LARGEST = 256 << 20  # bytes of GeoJSON, which takes ten times as many in memory
VECTORS = (".geojson", ".json", ".gpkg", ".shp")
GEOJSON_TYPES = (
    "FeatureCollection", "Feature", "GeometryCollection", "Polygon", "MultiPolygon", "Point", "MultiPoint",
    "LineString", "MultiLineString",
)  # fmt: skip
PIECES = 512  # an edge is at most the scene's diagonal divided by this, so that it bends with the projection


def polygon_files(path: Path) -> list[Path]:
    """The file, and of a shapefile the parts beside it."""
    if path.suffix.lower() != ".shp":
        return [path]
    parts = (_part(path, suffix) for suffix in (".shx", ".dbf", ".prj", ".cpg"))
    return [path, *(p for p in parts if p is not None)]


def read_polygons(path: Path) -> tuple[list[Any], str]:
    """Read the polygons of a file, valid and in two dimensions.

    The format is told by the file's content, never by trying one driver after another. GeoJSON is longitude and
    latitude on WGS 84 (RFC 7946) unless it has a `crs` member (GeoJSON of 2008), whose coordinates are taken as x, y in
    any case, as GDAL does. Of a GeoPackage, the one layer that can hold polygons is read. Rings that cross themselves
    are repaired; lines and points beside polygons are left out; both is logged.

    Returns:
        shapely Polygons and MultiPolygons, at least one; their CRS as WKT2.

    Raises:
        UserError: for a file that is missing, damaged, of another format, without CRS, without polygons, and with
            several layers of them.
    """
    import shapely

    if not path.is_file():
        raise UserError(f"{path}: no such file; check the path in the config")
    with reading(path):
        with path.open("rb") as file:
            start = file.read(100)
        if start.startswith(b"SQLite format 3\0"):
            found, crs = _geopackage(path, start)
        elif start[:4] == b"\0\0\x27\x0a":
            found, crs = _shapefile(path)
        elif start.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"{":
            found, crs = _geojson(path)
        else:
            raise UserError(
                f"{path}: no GeoJSON, GeoPackage or shapefile (.shp); save the area as one of them"
            )
        parts = shapely.get_parts(shapely.force_2d(np.array(found, object)))
        polygons = [p for g in parts for p in polygonal(g, path)]
    kinds = sorted({p.geom_type for p in parts})
    if not polygons:
        held = f"it holds {', '.join(kinds)}" if kinds else "it holds no shapes"
        raise UserError(f"{path}: no polygons in the file ({held}); draw the area as polygons")
    others = [k for k in kinds if k not in ("Polygon", "GeometryCollection")]
    if others:
        log.warning("%s: %s beside polygons left out", path, ", ".join(others))
    return polygons, str(crs.to_wkt(version="WKT2_2019"))


def inside(
    path: Path,
    crs: str | None,
    transform: Sequence[float] | None,
    shape: tuple[int, int],
) -> np.ndarray:
    """Find the pixels whose centres lie in the polygons of a file.

    Args:
        path: GeoJSON, GeoPackage or shapefile, in any CRS.
        crs: of the scene, WKT.
        transform: of the scene: affine map from (x, y) index to CRS, 6 numbers, of corners; also rotated.
        shape: (height, width) of the scene.

    Returns:
        (y, x) bool.

    Raises:
        UserError: see `read_polygons`; for a scene without CRS or transform; when no pixel lies in the polygons.
    """
    from affine import Affine
    from rasterio.crs import CRS
    from rasterio.errors import CRSError
    from rasterio.features import rasterize

    if crs is None or transform is None:
        lacks = "CRS" if crs is None else "transform"
        raise UserError(
            f"{path}: polygons need a georeferenced scene, and this one has no {lacks}; give the area as a"
            " raster mask of the scene's size instead, or the scene in a format with georeference"
        )
    polygons, stated = read_polygons(path)
    grid = Affine(*transform[:6])
    try:
        scene, area = CRS.from_wkt(crs), CRS.from_wkt(stated)
        pixels = in_pixels(polygons, area, scene, grid, shape)
    except CRSError as error:
        raise UserError(
            f"{path}: its coordinates cannot be converted to the scene's CRS ({one_line(error)}); save the"
            " polygons in the scene's CRS"
        ) from error
    mask = np.zeros(shape, np.uint8)
    if pixels:
        # coordinates are pixel indices, so that a turned grid is a plain one too
        rasterize(pixels, out=mask, transform=Affine.identity(), default_value=1)
    if not mask.any():
        raise UserError(
            f"{path}: no pixel of the scene has its centre in the polygons; the scene spans"
            f" {_extent(_outline(grid, shape), scene)}, the polygons {_extent(_corners(polygons), area)}; give"
            " polygons of this scene"
        )
    return mask.view(bool)


def _geojson(path: Path) -> tuple[list[Any], "CRS"]:
    """Shapes of a GeoJSON file, read here: GDAL would try other kinds of JSON too, some of which name other files."""
    from shapely.geometry import shape

    content = read_json(path)
    kind = content.get("type") if isinstance(content, dict) else None
    if kind not in GEOJSON_TYPES:
        raise UserError(
            f"{path}: JSON of type {str(kind)[:40]!r} is no GeoJSON; save the area as GeoJSON"
        )
    features = content.get("features", []) if kind == "FeatureCollection" else [content]
    try:
        geometries = [f.get("geometry") if f.get("type") == "Feature" else f for f in features]
        found = [shape(g) for g in geometries if g]
    except Exception as error:  # shapely raises kinds of its own for rings of two points, text, ...
        raise UserError(
            f"{path}: a shape is not as GeoJSON has it ({one_line(error)}); save the file again"
        ) from error
    return found, geojson_crs(content, found, path)


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        UserError: for text that is no JSON, and files larger than LARGEST.
    """
    try:
        return json.loads(small_file(path, LARGEST).read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise UserError(f"{path}: no valid JSON ({one_line(error)}); save it again") from error


def geojson_crs(content: Mapping[str, Any], shapes: Sequence[Any], path: Path) -> "CRS":
    """CRS of GeoJSON: longitude and latitude on WGS 84, unless it has a `crs` member.

    Args:
        content: of the file.
        shapes: its shapely geometries.
        path: the file.

    Raises:
        UserError: for a `crs` that is not known, and coordinates that are no longitude and latitude.
    """
    import shapely
    from rasterio.crs import CRS

    if "crs" in content:
        return _named_crs(content["crs"], path)
    west, south, east, north = shapely.total_bounds(shapes) if len(shapes) else (0, 0, 0, 0)
    if west < -361 or east > 361 or south < -91 or north > 91:
        raise UserError(
            f"{path}: coordinates up to {max(abs(west), abs(east)):g}, {max(abs(south), abs(north)):g} are no"
            " longitude and latitude, which GeoJSON without 'crs' must have; save it in EPSG:4326, or as"
            " GeoPackage"
        )
    return CRS.from_epsg(4326)


def layer_crs(stated: str | None, path: Path) -> "CRS":
    """CRS that GDAL states for a layer.

    Raises:
        UserError: where it states none.
    """
    from rasterio.crs import CRS

    # GeoPackages without a CRS are given an engineering one by GDAL
    if not stated or "Undefined" in stated:
        raise UserError(
            f"{path}: states no CRS; set it in QGIS (layer properties, source), or with ogr2ogr -a_srs EPSG:..."
        )
    return CRS.from_user_input(stated)


def _named_crs(member: Any, path: Path) -> "CRS":
    """CRS in a `crs` member of GeoJSON of 2008; only named ones."""
    from rasterio.crs import CRS
    from rasterio.errors import CRSError

    try:
        return CRS.from_user_input(member["properties"]["name"])
    except (CRSError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: 'crs' is {json.dumps(member)[:100]}, no CRS known here; save the file in EPSG:4326"
        ) from error


def _geopackage(path: Path, start: bytes) -> tuple[list[Any], "CRS"]:
    """Shapes of the one layer that can hold polygons."""
    import pyogrio

    if start[68:70] != b"GP":  # SQLite's application_id: GPKG, or GP10 and GP11 of early versions
        raise UserError(
            f"{path}: an SQLite file that is no GeoPackage; save the area as GeoPackage"
        )
    layers = [
        str(name)
        for name, kind in pyogrio.list_layers(path)
        if kind and not any(word in kind for word in ("Point", "Line"))
    ]
    if not layers:
        every = ", ".join(f"{name} ({kind})" for name, kind in pyogrio.list_layers(path))
        raise UserError(f"{path}: no layer of polygons in the file (it has {every or 'none'})")
    if len(layers) > 1:
        raise UserError(
            f"{path}: several layers may hold polygons ({', '.join(layers)}); save the one that is meant in a"
            " file of its own"
        )
    return _read(path, layers[0])


def _shapefile(path: Path) -> tuple[list[Any], "CRS"]:
    for suffix in (".shx", ".prj"):
        if _part(path, suffix) is None:
            raise UserError(
                f"{path.with_suffix(suffix)}: no such file, but a shapefile needs it"
                f" ({'its CRS' if suffix == '.prj' else 'its index'}); put all parts in one folder"
            )
    return _read(path, None)


def _part(path: Path, suffix: str) -> Path | None:
    """A shapefile's part beside it, in upper or lower case."""
    both = (path.with_suffix(suffix), path.with_suffix(suffix.upper()))
    return next((p for p in both if p.is_file()), None)


def _read(path: Path, layer: str | None) -> tuple[list[Any], "CRS"]:
    """All shapes of a layer, by GDAL."""
    import pyogrio.raw
    import shapely

    meta, _, shapes, _ = pyogrio.raw.read(path, layer=layer, columns=[], force_2d=True)
    return list(shapely.from_wkb([s for s in shapes if s])), layer_crs(meta["crs"], path)


def polygonal(geometry: Any, path: Path) -> list[Any]:
    """The polygons of a shape, repaired where rings cross themselves; lines and points are left out."""
    import shapely

    if geometry.is_empty or geometry.geom_type.endswith(("Point", "LineString", "LinearRing")):
        return []
    if not geometry.is_valid:
        log.info("%s: polygon repaired (%s)", path, shapely.is_valid_reason(geometry))
        geometry = shapely.make_valid(geometry)
    parts = shapely.get_parts(geometry)
    if geometry.geom_type == "GeometryCollection":
        return [p for part in parts for p in polygonal(part, path)]
    return [p for p in parts if p.geom_type == "Polygon" and not p.is_empty]


def in_pixels(
    polygons: list[Any], area: "CRS", scene: "CRS", grid: "Affine", shape: tuple[int, int]
) -> list[Any]:
    """Polygons near the scene in its pixel coordinates (column, row), edges bent as the projection bends them.

    Args:
        polygons: shapely.
        area: their CRS.
        scene: the scene's.
        grid: its affine map from (x, y) index to CRS, of corners.
        shape: y and x of the scene.

    Raises:
        CRSError: when there is no way from one CRS to the other.
    """
    import shapely

    around = projected(_outline(grid, shape), scene, area)
    around = around[np.isfinite(around).all(1)]
    if not len(around):
        return []
    low, high = around.min(0), around.max(0)
    margin = 0.1 * np.hypot(*(high - low))
    # what is far away may have no place in the scene's projection; the box's edges lie outside the scene
    box = shapely.box(*(low - margin), *(high + margin))
    near = shapely.intersection(np.array(polygons, object), box)
    near = [p for p in shapely.get_parts(near) if p.geom_type == "Polygon" and not p.is_empty]
    near = shapely.segmentize(np.array(near, object), margin * 10 / PIECES)
    backward = ~grid

    def index(points: np.ndarray) -> np.ndarray:
        x, y = projected(points, area, scene).T
        return np.stack(
            [
                backward.a * x + backward.b * y + backward.c,
                backward.d * x + backward.e * y + backward.f,
            ],
            axis=1,
        )

    moved = [shapely.transform(g, index) for g in near]
    return [g for g in moved if np.isfinite(shapely.get_coordinates(g)).all()]


def projected(points: np.ndarray, source: "CRS", target: "CRS") -> np.ndarray:
    """(n, 2) coordinates in another CRS, x before y in both.

    Raises:
        CRSError: when there is no way from one to the other.
    """
    from rasterio.errors import CRSError
    from rasterio.warp import transform

    if source == target or not len(points):
        return points
    try:
        return np.stack(transform(source, target, points[:, 0], points[:, 1]), axis=1)
    except Exception as error:  # GDAL's own kinds, which rasterio does not turn into its own here
        raise CRSError(one_line(error)) from error


def _outline(grid: "Affine", shape: tuple[int, int]) -> np.ndarray:
    """(n, 2) points in the scene's CRS, from corner to corner."""
    steps = np.linspace(0, 1, 21)
    x, y = (a.ravel() for a in np.meshgrid(steps * shape[1], steps * shape[0]))
    return np.stack([grid.a * x + grid.b * y + grid.c, grid.d * x + grid.e * y + grid.f], axis=1)


def _corners(polygons: list[Any]) -> np.ndarray:
    """(4, 2) corners of the polygons' bounding box."""
    import shapely

    west, south, east, north = shapely.total_bounds(polygons)
    return np.array([[west, south], [east, south], [east, north], [west, north]])


def _extent(points: np.ndarray, crs: "CRS") -> str:
    """Where points lie, in words: in their CRS, and in longitude and latitude."""
    from rasterio.crs import CRS
    from rasterio.errors import CRSError

    def span(values: np.ndarray, digits: str) -> str:
        return f"{values.min():{digits}} to {values.max():{digits}}"

    try:
        lon, lat = projected(points, crs, CRS.from_epsg(4326)).T
        world = f"longitude {span(lon, '.5f')}, latitude {span(lat, '.5f')}"
    except CRSError:
        world = "no known longitude and latitude"
    if crs.is_geographic:
        return world
    x, y = points.T
    return f"x {span(x, '.1f')}, y {span(y, '.1f')} ({world})"
