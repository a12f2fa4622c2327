"""Where an array lies on the ground, as the variables beside it say: NEON's, ENVI's map info, CF's coordinates."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from special_steps.core.errors import one_line
from special_steps.io.array_attributes import plain
from special_steps.io.array_file import ArrayFile
from special_steps.io.map_info import corners_transform

Place = dict[str, Any]  # fields of a Source


def beside(file: ArrayFile, name: str) -> Callable[[str], str | None]:
    """Finds variables by name in the same group as `name`, or in a group that this one is in; name or None."""
    every: dict[str, str] = {}
    for known in (*file.shapes, *file.others):
        every.setdefault(known.replace(".", "/").strip("/"), known)
    groups = name.replace(".", "/").strip("/").split("/")[:-1]

    def find(wanted: str) -> str | None:
        for depth in range(len(groups), -1, -1):
            found = every.get("/".join([*groups[:depth], wanted]))
            if found is not None:
                return found
        return None

    return find


def georeference(file: ArrayFile, name: str, axes: tuple[str, ...]) -> Place:
    """CRS and transform (of corners) of an array; {} where the file does not say, notes where it says it unusably.

    Args:
        file: the file.
        name: of the array.
        axes: names of its dimensions, for (y, x), where the file has them; else ().
    """
    find = beside(file, name)
    info = find("Metadata/Coordinate_System/Map_Info") or find("map info") or find("Map_Info")
    if info is not None and (text := file.text(info)):
        return _map_info(file, find, text, f"{file.path}, '{info}'")
    return _cf(file, find, name, axes) if len(axes) == 2 else {}


def _map_info(file: ArrayFile, find: Callable[[str], str | None], info: str, where: str) -> Place:
    """ENVI's map info: projection, x and y of a pixel (corner 1, 1), its east and north, pixel sizes, more.

    The CRS is the EPSG code beside it, else the UTM zone that it names, where the datum is WGS-84.
    """
    words = [w.strip() for w in info.strip("{} ").split(",")]
    try:
        place: Place = {"transform": corners_transform(words)}
    except ValueError:
        return {"notes": (f"{where}: no georeference: '{info[:60]}' is no map info",)}
    code = find("Metadata/Coordinate_System/EPSG Code") or find("EPSG Code")
    text = _scalar_text(file, code) if code else ""
    zone = (
        re.fullmatch(r"\d{1,2}", words[7]) if len(words) > 8 and plain(words[0]) == "utm" else None
    )
    if zone and not text and "wgs84" in plain(info):
        text = f"{326 if words[8].lower().startswith('n') else 327}{int(words[7]):02d}"
    crs = find("Metadata/Coordinate_System/Coordinate_System_String") or find(
        "coordinate system string"
    )
    return place | _crs(text or (file.text(crs) if crs else "") or "", where)


def _cf(
    file: ArrayFile, find: Callable[[str], str | None], name: str, axes: tuple[str, ...]
) -> Place:
    """CF: coordinate variables named as the dimensions hold pixel centres; `grid_mapping` names what holds the CRS."""
    from affine import Affine

    place: Place = {}
    mapping = file.attributes(name).get("grid_mapping")
    held = find(_text(mapping).split(":")[0].strip()) if mapping is not None else None
    about = file.attributes(held) if held else {}
    wkt = next((_text(about[k]) for k in ("crs_wkt", "spatial_ref") if k in about), "")
    where = f"{file.path}, '{name}'"
    names = [find(axis) for axis in axes]
    vectors = [n for n in names if n is not None and len(file.shapes.get(n, ())) == 1]
    if len(vectors) < 2:
        return place
    steps = []
    for vector in vectors:
        centres = np.asarray(file.whole(vector), np.float64)
        if len(centres) < 2:
            return place
        step = (centres[-1] - centres[0]) / (len(centres) - 1)
        even = np.abs(centres - centres[0] - step * np.arange(len(centres))).max()
        if not step or not even <= 0.05 * abs(step):
            return {
                "notes": (
                    f"{where}: '{vector}' is not evenly spaced, so the map gets no georeference",
                )
            }
        steps.append((float(centres[0]), float(step)))
    (top, dy), (left, dx) = steps
    units = [plain(_text(file.attributes(v).get("units", ""))) for v in vectors]
    scale = {"km": 1000.0, "kilometer": 1000.0, "kilometre": 1000.0}.get(units[0], 1.0)
    grid = Affine(dx * scale, 0, (left - dx / 2) * scale, 0, dy * scale, (top - dy / 2) * scale)
    place["transform"] = tuple(float(v) for v in grid)[:6]
    if (
        not wkt
        and units[0].startswith("degree")
        and units[1].startswith("degree")
        and mapping is None
    ):
        wkt = "4326"
    return place | _crs(wkt, where)


def _crs(text: str, where: str) -> Place:
    """A CRS (EPSG code or WKT) as WKT2."""
    from rasterio.crs import CRS
    from rasterio.errors import CRSError

    if not text.strip():
        return {}
    try:
        code = re.fullmatch(r"(?:EPSG:)?\s*(\d+)(?:\.0)?", text.strip(), re.IGNORECASE)
        crs = CRS.from_epsg(int(code.group(1))) if code else CRS.from_wkt(text)
        return {"crs": crs.to_wkt(version="WKT2_2019")}
    except (CRSError, ValueError) as error:
        return {
            "notes": (
                f"{where}: no coordinate system: '{text[:60]}' is none ({one_line(error, 80)})",
            )
        }


def _scalar_text(file: ArrayFile, name: str) -> str:
    """A text, or a number as one."""
    if name in file.shapes:
        values = np.ravel(file.whole(name))
        return f"{values[0]:.0f}" if values.size else ""
    return file.text(name) or ""


def _text(value: Any) -> str:
    first = np.ravel(value)[0] if np.size(value) else ""
    return first.decode(errors="replace") if isinstance(first, bytes) else str(first)
