"""Rasters that several tests read: written here, without the package."""

from pathlib import Path

import numpy as np
import rasterio

from special_steps.io.record import Source

CUBE = np.arange(3 * 5 * 4, dtype=np.int16).reshape(3, 5, 4) * 7 - 60  # band, y, x


def whole(source: Source) -> np.ndarray:
    """All of it, read in parts of rows and columns so that a mistake in the offsets shows."""
    _, height, width = source.shape
    rows = [slice(a, min(b, height)) for a, b in ((0, 2), (2, height)) if a < height]
    columns = [slice(a, min(b, width)) for a, b in ((0, 1), (1, 3), (3, width)) if a < width]
    parts = [np.concatenate([source.read(r, c) for c in columns], axis=2) for r in rows]
    return np.concatenate(parts, axis=1)


def write_envi(
    folder: Path, cube: np.ndarray = CUBE, layout: str = "bsq", order: int = 0, **fields: str
) -> Path:
    """Write an ENVI pair, header beside scene.img; the header's path."""
    kinds = {"u1": 1, "i2": 2, "i4": 3, "f4": 4, "f8": 5, "u2": 12}
    ways = {"bsq": (0, 1, 2), "bil": (1, 0, 2), "bip": (1, 2, 0)}
    stored = cube.transpose(ways[layout]).astype(cube.dtype.newbyteorder("<>"[order]))
    offset = int(fields.get("header offset", 0))
    (folder / "scene.img").write_bytes(b"\0" * offset + stored.tobytes())
    lines = {
        "samples": cube.shape[2],
        "lines": cube.shape[1],
        "bands": cube.shape[0],
        "data type": kinds[cube.dtype.str[1:]],
        "interleave": layout,
        "byte order": order,
    } | fields
    header = folder / "scene.hdr"
    header.write_text("ENVI\n" + "\n".join(f"{k} = {v}" for k, v in lines.items()) + "\n")
    return header


def write_tiff(path: Path, cube: np.ndarray = CUBE, x: float = 0, y: float = 0, **options) -> Path:
    """Write a GeoTIFF whose upper left corner is (x, y), 30 m pixels, wavelengths in its band tags."""
    tags = options.pop("tags", [{"wavelength": str(500 + 100 * i)} for i in range(len(cube))])
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=cube.shape[0],
        height=cube.shape[1],
        width=cube.shape[2],
        dtype=cube.dtype,
        **({"crs": "EPSG:32633", "transform": rasterio.Affine(30, 0, x, 0, -30, y)} | options),
    ) as raster:
        raster.write(cube)
        for band, items in enumerate(tags, 1):
            raster.update_tags(band, **items)
    return path
