"""A STAC item: what a run's files are, where they lie, and how they were made, for catalogues and programs."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from special_steps import __version__
from special_steps.core.atomic import atomic_write
from special_steps.core.cli import run
from special_steps.core.palette import class_colours
from special_steps.core.store import Grid, file_digest, open_store, read_array
from special_steps.io.class_map import read_class_map

SCHEMAS = "https://stac-extensions.github.io"
EXTENSIONS = {  # by the prefix of their fields
    "classification": "classification/v2.0.0",
    "proj": "projection/v2.0.0",
    "raster": "raster/v2.0.0",
    "file": "file/v2.1.0",
    "processing": "processing/v1.1.0",
    "eo": "eo/v2.0.0",
    "hsi": "hsi/v1.0.0",
}
COG = "image/tiff; application=geotiff; profile=cloud-optimized"
# file of a run -> key, title, media type, roles, type of data, its no-data value
KINDS: dict[str, tuple[str, str, str, list[str], str | None, Any]] = {
    "map.tif": ("map", "Land cover", COG, ["data"], "uint8", 0),
    "confidence.tif": ("confidence", "Confidence", COG, ["data"], "float32", "nan"),
    "disagreement.tif": ("disagreement", "Share of networks that see another class", COG, ["data"], "float32", "nan"),
    "probabilities.tif": ("probabilities", "Probability of each class", COG, ["data"], "uint8", 255),
    "polygons.gpkg": ("polygons", "Land cover as polygons", "application/geopackage+sqlite3", ["data"], None, None),
    "areas.csv": ("areas", "Area of each class", "text/csv", ["data"], None, None),
    "spectra.csv": ("spectra", "Mean spectrum of each class", "text/csv", ["data"], None, None),
    "spectra.png": ("spectra-plot", "Mean spectrum of each class, drawn", "image/png", ["overview"], None, None),
    "map.tif.aux.xml": ("attribute-table", "GDAL's attribute table of the map", "text/xml", ["metadata"], None, None),
    "map.qml": ("style", "QGIS's style of the map", "text/xml", ["metadata"], None, None),
    "polygons.qml": ("polygon-style", "QGIS's style of the polygons", "text/xml", ["metadata"], None, None),
    "map.png": ("overview", "Image, land cover and confidence", "image/png", ["overview"], None, None),
}  # fmt: skip
PIECES = 8  # a side of the footprint is drawn in so many pieces, as it bends in degrees


def footprint(grid: Grid, shape: tuple[int, int]) -> list[list[float]] | None:
    """The map's outline in longitude and latitude, a closed ring counter-clockwise.

    Args:
        grid: where the pixels lie.
        shape: (height, width).

    Returns:
        Pairs of degrees (WGS 84); None where the place on the ground is not known.
    """
    import shapely
    from affine import Affine
    from rasterio._err import CPLE_BaseError  # of CRSs that have nothing to do with the Earth
    from rasterio.crs import CRS
    from rasterio.errors import CRSError
    from rasterio.warp import transform

    if grid.crs is None or grid.transform is None:
        return None
    height, width = shape
    part = np.linspace(0, 1, PIECES, endpoint=False)
    x = np.concatenate([part * width, np.full(PIECES, width), (1 - part) * width, np.zeros(PIECES)])
    y = np.concatenate(
        [np.zeros(PIECES), part * height, np.full(PIECES, height), (1 - part) * height]
    )
    try:
        places = Affine(*grid.transform) @ np.stack([x, y])
        degrees = transform(CRS.from_wkt(grid.crs), "EPSG:4326", *places)
    except (CRSError, CPLE_BaseError):
        return None
    if not np.isfinite(degrees).all():
        return None
    ring = shapely.Polygon(np.round(np.array(degrees).T, 7)).normalize().exterior
    if not ring.is_ccw:
        ring = ring.reverse()
    return [[float(v) for v in place] for place in ring.coords]


def lineage(prediction: Path) -> list[dict[str, Any]]:
    """What made a store, and what made its inputs, from the scene's files to the map.

    Returns:
        For each store, in the order of making: `file`, `digest`, `step`, `settings`, `inputs` with their SHA-256 or
        digests, `versions` of packages. Folders of the user's machine are left out of names.
    """
    seen: set[Path] = set()
    found: list[dict[str, Any]] = []

    def follow(path: Path) -> None:
        if path in seen or not path.is_dir():
            return
        seen.add(path)
        attributes = open_store(path).attrs.asdict()
        made: Any = attributes["provenance"]
        for name in made["inputs"]:
            follow(Path(name))
        found.append(
            {
                "file": _name(path),
                "digest": attributes["digest"],
                "step": made["step"],
                "settings": _without_folders(made["settings"]),
                "inputs": {_name(Path(name)): digest for name, digest in made["inputs"].items()},
                "versions": made["versions"],
            }
        )

    follow(prediction)
    return found


def _name(path: Path) -> str:
    """A file's name for others: without the folders of this machine."""
    here = path.is_absolute() or ".." in path.parts
    return path.name if here else path.as_posix()


def _without_folders(value: Any) -> Any:
    """Settings for others: of absolute paths the names are left."""
    if isinstance(value, Mapping):
        return {key: _without_folders(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_folders(inner) for inner in value]
    if isinstance(value, str) and Path(value).is_absolute():
        return Path(value).name
    return value


def item(
    *,
    identifier: str,
    files: Mapping[str, Mapping[str, Any]],
    grid: Grid,
    shape: tuple[int, int],
    class_names: Sequence[str],
    probabilities: Sequence[str],
    colours: Sequence[str],
    shares: Sequence[float],
    scene: Mapping[str, Any],
    provenance: Sequence[Mapping[str, Any]],
    prompts: Mapping[str, Any],
    created: datetime,
) -> dict[str, Any]:
    """The item, by STAC 1.1.0 and its extensions classification, projection, raster, file, processing, eo and hsi.

    Args:
        identifier: the item's.
        files: by file name: `size` in bytes, `sha256`.
        grid: where the map's pixels lie.
        shape: its (height, width).
        class_names: of the map: the K classes, and `unknown` where it has that.
        probabilities: the bands of probabilities.tif: the K classes.
        colours: their colours, #rrggbb.
        shares: share of each class in the pixels with data, 0 to 1.
        scene: `href` of the cube, `wavelengths` of its bands and, where they are known, their `fwhm`, nm.
        provenance: what `lineage` found.
        prompts: what the words were and which CLIP read them.
        created: when the map was made.
    """
    from rasterio.crs import CRS

    ring = footprint(grid, shape)
    place: dict[str, Any] = {"proj:shape": list(shape)}
    if grid.crs:
        code = CRS.from_wkt(grid.crs).to_authority()
        place["proj:code"] = ":".join(code) if code else None
        place["proj:wkt2"] = grid.crs
    if grid.transform:
        place["proj:transform"] = list(grid.transform)
    stamp = created.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    classes = [{"value": 0, "name": "no-data", "title": "no data", "nodata": True}] + [
        {
            "value": i,
            "name": re.sub(r"[^0-9A-Za-z_-]+", "-", name).strip("-") or f"class-{i}",
            "title": name,
            "description": name,
            "color_hint": colour.removeprefix("#").upper(),
            "percentage": round(100 * share, 4),
        }
        for i, (name, colour, share) in enumerate(zip(class_names, colours, shares, strict=True), 1)
    ]
    assets: dict[str, Any] = {}
    for file, (key, title, media, roles, kind, nodata) in KINDS.items():
        if file not in files:
            continue
        told = files[file]
        asset: dict[str, Any] = {
            "href": f"./{file}",
            "title": title,
            "type": media,
            "roles": roles,
            "file:size": told["size"],
            "file:checksum": f"1220{told['sha256']}",  # multihash: SHA-256, 32 bytes
        }
        if kind:
            asset |= {"data_type": kind, "nodata": nodata}
        if key == "map":
            asset["classification:classes"] = classes
        if key == "probabilities":
            asset |= {"raster:scale": 0.004, "raster:offset": 0}
            asset["bands"] = [{"name": name} for name in probabilities]
        assets[key] = asset
    bands = [
        {"name": f"{nm:g} nm", "eo:center_wavelength": round(nm / 1e3, 6)}
        for nm in scene["wavelengths"]
    ]
    for band, width in zip(bands, scene.get("fwhm") or (), strict=False):
        band["eo:full_width_half_max"] = round(width / 1e3, 6)
    assets["scene"] = {
        "href": scene["href"],
        "title": "The scene, as it was mapped",
        "type": "application/vnd.zarr; version=3",
        "roles": ["source"],
        "data_type": "float32",
        "bands": bands,
    }
    found: dict[str, Any] = {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": [],
        "id": identifier,
        "geometry": ring and {"type": "Polygon", "coordinates": [ring]},
    }
    if ring:
        corners = np.array(ring)
        found["bbox"] = [*corners.min(0).tolist(), *corners.max(0).tolist()]
    versions = {k: v for made in provenance for k, v in made["versions"].items()}
    found["properties"] = {
        "title": f"Land cover of {identifier}",
        "description": "Land cover from a hyperspectral scene and class names in plain words. The time is that of"
        " processing: the files do not say when the scene was taken.",
        "datetime": stamp,
        "created": stamp,
        "hsi:wavelength_min": round(min(scene["wavelengths"]) / 1e3, 6),
        "hsi:wavelength_max": round(max(scene["wavelengths"]) / 1e3, 6),
        **place,
        "processing:level": "L4",
        "processing:software": {"SPECIAL": __version__} | versions,
        "processing:lineage": ", then ".join(made["step"] for made in provenance),
        "special:prompts": dict(prompts),
        "special:provenance": list(provenance),
    }  # fmt: skip
    found |= {"links": [], "assets": assets}
    text = json.dumps(found)
    found["stac_extensions"] = [
        f"{SCHEMAS}/{place}/schema.json"
        for prefix, place in EXTENSIONS.items()
        if f'"{prefix}:' in text
    ]
    return found


def stac(
    *,
    files: list[Path],
    prediction: Path,
    cube: Path,
    identifier: str,
    colours: dict[str, str],
    prompts: dict[str, Any],
    out: Path,
) -> None:
    """Write the STAC item of a run's files.

    Args:
        files: the files, in one folder; `map.tif` among them.
        prediction: the store that the map was made from.
        cube: the scene, for its wavelengths.
        identifier: the item's.
        colours: the user's own colours (#rrggbb) of classes.
        prompts: `classes` with their synonyms, and `clip`, the model that read them, with its weights, or null; digests
            of its own files are added.
        out: JSON to write, in the same folder.
    """
    class_map = read_class_map(next(path for path in files if path.name == "map.tif"))
    names = class_map.names
    counts = np.bincount(class_map.labels.ravel(), minlength=len(names) + 1)[1:]
    told = {}
    for path in files:
        told[path.name] = {"size": path.stat().st_size, "sha256": file_digest(path)}
    store = open_store(cube, band=("band",))
    scene = {
        "href": Path(os.path.relpath(cube, out.parent)).as_posix(),
        "wavelengths": read_array(store, "band").tolist(),
        "fwhm": read_array(store, "fwhm").tolist() if "fwhm" in store else None,
    }
    clip = prompts["clip"] or {}
    own = {k: Path(v) for k, v in clip.items() if isinstance(v, str) and Path(v).is_file()}
    if own:
        digests = {path.name: file_digest(path) for path in own.values()}
        clip = clip | {k: path.name for k, path in own.items()} | {"sha256": digests}
        prompts = prompts | {"clip": clip}
    height, width = class_map.labels.shape
    found = item(
        identifier=identifier,
        files=told,
        grid=class_map.grid,
        shape=(height, width),
        class_names=names,
        probabilities=class_map.classes,
        colours=class_colours(names, colours, class_map.unknown),
        shares=(counts / max(counts.sum(), 1)).tolist(),
        scene=scene,
        provenance=lineage(prediction),
        prompts=prompts,
        created=datetime.fromtimestamp((prediction / "zarr.json").stat().st_mtime, UTC),
    )
    with atomic_write(out) as file:
        file.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run(stac)
