"""Points with columns, for and from a GIS: GeoPackage, GeoJSON and CSV."""

import csv
import io
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from special_steps.core.atomic import atomic_write
from special_steps.core.errors import UserError, one_line
from special_steps.io.record import reading, small_file
from special_steps.io.vectors import LARGEST, geojson_crs, layer_crs, projected, read_json

if TYPE_CHECKING:
    from rasterio.crs import CRS

FORMATS = (".gpkg", ".geojson", ".csv")


class Points(NamedTuple):
    """Points of a file and what its columns say of them."""

    x: np.ndarray  # (point,) float64, in the CRS that was asked for
    y: np.ndarray
    columns: dict[
        str, list[str]
    ]  # by name in lower case: text without blanks around it, "" for none


def write_points(
    path: Path, x: np.ndarray, y: np.ndarray, columns: Mapping[str, Sequence[Any]], crs: str | None
) -> None:
    """Write points as the file's name ends: .gpkg and .csv in the given CRS, .geojson in longitude and latitude.

    Args:
        path: the file.
        x: (point,) coordinates in the CRS.
        y: the same.
        columns: a value per point, by name: all whole numbers, all other numbers, or text and None.
        crs: WKT; None (no georeference) for CSV only.

    Raises:
        UserError: for another ending, and for a file that needs a CRS where there is none.
    """
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise UserError(
            f"{path}: no format of points; write a name that ends in {', '.join(FORMATS)}"
        )
    if suffix != ".csv" and crs is None:
        raise UserError(
            f"{path}: the map has no CRS, which {suffix} needs; write a name that ends in .csv"
        )
    if suffix == ".csv":
        table = io.StringIO()
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
        with atomic_write(path) as file:
            file.write_text(table.getvalue(), encoding="utf-8")
    elif suffix == ".geojson":
        with atomic_write(path) as file:
            file.write_text(_as_geojson(x, y, columns, str(crs)), encoding="utf-8")
    else:
        with atomic_write(path) as file:
            _write_geopackage(file, path.stem, x, y, columns, str(crs))


def _as_geojson(
    x: np.ndarray, y: np.ndarray, columns: Mapping[str, Sequence[Any]], crs: str
) -> str:
    from rasterio.crs import CRS

    places = projected(np.stack([x, y], 1), CRS.from_wkt(crs), CRS.from_epsg(4326))
    features = []
    for place, row in zip(places, zip(*columns.values(), strict=True), strict=True):
        features.append(
            {
                "type": "Feature",
                "properties": dict(zip(columns, row, strict=True)),
                # 9 decimals are a tenth of a millimetre
                "geometry": {"type": "Point", "coordinates": [round(float(v), 9) for v in place]},
            }
        )
    lines = ",\n".join(json.dumps(f, ensure_ascii=False, allow_nan=False) for f in features)
    return f'{{"type": "FeatureCollection", "features": [\n{lines}\n]}}\n'


def _write_geopackage(
    file: Path,
    layer: str,
    x: np.ndarray,
    y: np.ndarray,
    columns: Mapping[str, Sequence[Any]],
    crs: str,
) -> None:
    import pyogrio.raw
    import shapely

    logging.getLogger("pyogrio").setLevel(logging.WARNING)  # it tells how many it has written
    fields = []
    for values in columns.values():
        numbers = all(isinstance(v, int | float) for v in values)
        fields.append(np.array(values) if numbers else np.array(values, object))
    pyogrio.raw.write(
        file,
        geometry=np.array(shapely.to_wkb(shapely.points(x, y)), object),
        field_data=fields,
        fields=list(columns),
        layer=layer,
        driver="GPKG",
        geometry_type="Point",
        crs=crs,
        dataset_options={"VERSION": "1.2"},  # GIS of some years ago warn of newer ones
    )


class Features(NamedTuple):
    """What a file holds: shapes and what its columns say of them."""

    shapes: list[Any]  # shapely; None where a row has no place
    columns: dict[str, list[str]]  # as those of Points
    crs: "CRS | None"  # None: of a CSV, which has that of the scene


def read_features(path: Path, kind: Literal["Point", ""] = "") -> Features:
    """Read shapes with their columns.

    The format is told by the file's content. GeoJSON is longitude and latitude unless it has a `crs` member (see
    `vectors`); of a GeoPackage, the one layer that can hold shapes of the kind is read. A CSV, with commas, semicolons
    or tabs, has columns x and y.

    Args:
        path: the file.
        kind: of shapes that are looked for; "" for any.

    Raises:
        UserError: for a file that is missing, damaged, of another format, without CRS or shapes.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; check the path")
    with path.open("rb") as file:
        start = file.read(100)
    if start.startswith(b"SQLite format 3\0"):
        with reading(path):
            found = _geopackage(path, kind)
    elif start.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"{":
        found = _geojson(path)
    elif path.suffix.lower() in (".csv", ".txt", ".tsv"):
        found = _csv(path)
    else:
        raise UserError(f"{path}: no GeoPackage, GeoJSON or CSV; save the points as one of them")
    if not found.shapes:
        raise UserError(f"{path}: no points in the file; give the file that was filled")
    return found


def read_points(path: Path, crs: str | None) -> Points:
    """Read points with their columns, as `read_features` does.

    Args:
        path: the file.
        crs: WKT of the CRS to give coordinates in; None: of a map without, which takes a CSV only.

    Raises:
        UserError: for a file that is missing, damaged, of another format, without CRS or points, and for shapes that
            are no points.
    """
    shapes, columns, own = read_features(path, "Point")
    if own is None:
        x, y = _coordinates(shapes)
        return Points(x, y, columns)
    if crs is None:
        raise UserError(
            f"{path}: the map has no CRS, so points with one cannot be placed on it; give a CSV with x and y as"
            " special_steps.reference_points writes them"
        )
    x, y = _placed(path, shapes, own, crs)
    return Points(x, y, columns)


def _coordinates(shapes: Sequence[Any]) -> np.ndarray:
    import shapely

    return shapely.get_coordinates(shapes).T


def _placed(path: Path, shapes: list[Any], own: "CRS", crs: str) -> np.ndarray:
    """(2, point) x and y of points, or of multipoints of one point, in the CRS asked for."""
    import shapely
    from rasterio.crs import CRS
    from rasterio.errors import CRSError

    for number, shape in enumerate(shapes, 1):
        if shape is None or shape.is_empty:
            raise UserError(f"{path}: point {number} has no place; delete its row, or place it")
        if shape.geom_type not in ("Point", "MultiPoint") or len(shapely.get_parts(shape)) > 1:
            raise UserError(
                f"{path}: shape {number} is a {shape.geom_type}, no single point; give points only"
            )
    try:
        places = projected(shapely.get_coordinates(shapes), own, CRS.from_wkt(crs))
    except CRSError as error:
        raise UserError(
            f"{path}: its coordinates cannot be converted to the map's CRS ({one_line(error)}); save the points in"
            " the map's CRS"
        ) from error
    return places.T


def _geojson(path: Path) -> Features:
    from shapely.geometry import shape

    content = read_json(path)
    kind = content.get("type") if isinstance(content, dict) else None
    if kind != "FeatureCollection" or not isinstance(content.get("features"), list):
        raise UserError(
            f"{path}: JSON of type {str(kind)[:40]!r}, no GeoJSON FeatureCollection; save the points as GeoJSON"
        )
    features = content["features"]
    try:
        shapes = [shape(f["geometry"]) if f["geometry"] else None for f in features]
        rows = [{str(k): v for k, v in (f.get("properties") or {}).items()} for f in features]
    except Exception as error:  # shapely raises kinds of its own
        raise UserError(
            f"{path}: a feature is not as GeoJSON has it ({one_line(error)}); save the file again"
        ) from error
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {name: [row.get(name) for row in rows] for name in names}
    there = [s for s in shapes if s is not None and not s.is_empty]
    return Features(shapes, _texts(columns, path), geojson_crs(content, there, path))


def _geopackage(path: Path, wanted: str) -> Features:
    import pyogrio
    import pyogrio.raw
    import shapely

    every = [(str(name), str(kind)) for name, kind in pyogrio.list_layers(path)]
    layers = [
        name for name, kind in every if kind != "None" and (wanted in kind or kind == "Unknown")
    ]
    if len(layers) != 1:
        listed = ", ".join(f"{name} ({kind})" for name, kind in every) or "none"
        of = f" of {wanted.lower()}s" if wanted else ""
        what = f"several layers{of}" if layers else f"no layer{of}"
        raise UserError(
            f"{path}: {what} in the file (its layers: {listed}); save the one that is meant in a file of its own"
        )
    meta, _, shapes, fields = pyogrio.raw.read(path, layer=layers[0], force_2d=True)
    crs = layer_crs(meta["crs"], path)
    columns = {str(n): list(v) for n, v in zip(meta["fields"], fields, strict=True)}
    found = [None if s is None else shapely.from_wkb(s) for s in shapes]
    return Features(found, _texts(columns, path), crs)


def _csv(path: Path) -> Features:
    import shapely

    try:
        text = small_file(path, LARGEST).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: no UTF-8 text; save it as CSV in UTF-8") from error
    first = text.partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    rows = [r for r in csv.reader(io.StringIO(text), delimiter=delimiter) if any(map(str.strip, r))]
    if len(rows) < 2:
        raise UserError(f"{path}: no points in the file; give the file that was filled")
    head, *body = rows
    for number, row in enumerate(body, 2):
        if len(row) != len(head):
            raise UserError(
                f"{path}: row {number} has {len(row)} columns, the first row {len(head)}; save it again as CSV"
            )
    columns = _texts({name: [row[i] for row in body] for i, name in enumerate(head)}, path)
    places = []
    for name in ("x", "y"):
        if name not in columns:
            raise UserError(
                f"{path}: no column '{name}' (it has {', '.join(columns)}); a CSV needs x and y in the map's CRS"
            )
        for number, value in enumerate(columns[name], 2):
            if not _is_number(value):
                raise UserError(
                    f"{path}: row {number}: {name} is '{value}', no number; write it as 123.5"
                )
        places.append(np.array(columns[name], float))
    return Features(list(shapely.points(*places)), columns, None)


def _is_number(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False


def _texts(columns: Mapping[str, list[Any]], path: Path) -> dict[str, list[str]]:
    """Columns as text, by names in lower case."""
    found: dict[str, list[str]] = {}
    for name, values in columns.items():
        key = name.strip().lower()
        if key in found:
            raise UserError(f"{path}: two columns are called '{key}'; delete one")
        found[key] = [_text(value) for value in values]
    return found


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float | np.floating):  # a column of whole numbers with gaps is of floats
        if np.isnan(value):
            return ""
        return f"{int(value)}" if float(value).is_integer() else f"{value}"
    return " ".join(str(value).split())
