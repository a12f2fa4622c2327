"""GeoTIFF and other rasters that GDAL reads, and GeoTIFF tiles of one grid as one raster."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from special_steps.core.errors import UserError
from special_steps.io.record import Source, reading
from special_steps.io.wavelengths import bands_in_nm, wavelengths_in_names

if TYPE_CHECKING:
    from affine import Affine

log = logging.getLogger("special")

RASTER = (".tif", ".tiff", ".png")


def open_rasters(paths: list[Path]) -> Source:
    """Read the tags of a raster, or of tiles of one grid, whose gaps and no-data values are then NaN.

    Raises:
        UserError: for a damaged file, tags that are no numbers, and tiles that do not fit each other.
    """
    tiles = [_open_raster(path) for path in paths]
    return tiles[0] if len(tiles) == 1 else _mosaic(paths, tiles)


def georeference(path: Path) -> tuple[str | None, tuple[float, ...] | None]:
    """CRS (WKT) and transform as GDAL understands them; None, None where GDAL cannot."""
    import rasterio

    try:
        with _quiet(), rasterio.open(path) as raster:
            return _crs_and_transform(raster)
    except rasterio.errors.RasterioError as error:
        log.warning("%s: no georeference (%s)", path, error)
        return None, None


def _crs_and_transform(raster: Any) -> tuple[str | None, tuple[float, ...] | None]:
    crs = raster.crs.to_wkt(version="WKT2_2019") if raster.crs else None
    return crs, None if raster.transform.is_identity else tuple(raster.transform)[:6]


@contextmanager
def _quiet() -> Iterator[None]:
    """No warning about rasters without georeference: labels and crops often have none."""
    import rasterio.errors

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        yield


def _open_raster(path: Path) -> Source:
    import rasterio
    from rasterio.windows import Window

    with reading(path), _quiet(), rasterio.open(path) as raster:
        shape = (raster.count, raster.height, raster.width)
        tags = [_lower(raster.tags(i)) for i in raster.indexes]
        imagery = [_lower(raster.tags(i, ns="IMAGERY")) for i in raster.indexes]
        names = list(raster.descriptions)
        scales, offsets = np.array(raster.scales), np.array(raster.offsets)
        nodata = raster.nodata
        crs, transform = _crs_and_transform(raster)
    wavelengths, fwhm = _tagged_bands(tags, imagery, path)
    if wavelengths is None:
        wavelengths = wavelengths_in_names(names, str(path))
    bbl = _numbers(tags, "bbl", path)

    def read(start: int, stop: int) -> np.ndarray:
        with reading(path), _quiet(), rasterio.open(path) as raster:
            return raster.read(window=Window(0, start, shape[2], stop - start))

    plain = np.all(scales == 1) and np.all(offsets == 0)
    return Source(
        [path],
        shape,
        read,
        wavelengths=wavelengths,
        fwhm=fwhm,
        good_bands=None if bbl is None else bbl > 0,
        scale=1.0 if plain else 1 / scales,
        offset=0.0 if plain else offsets,
        nodata=nodata,
        crs=crs,
        transform=transform,
    )


def _tagged_bands(
    tags: list[dict[str, str]], imagery: list[dict[str, str]], path: Path
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Centres and widths (nm) of bands from their tags, None where not every band has one.

    A band's own tags are exact. GDAL's IMAGERY tags are micrometres rounded to three decimals, so they only serve where
    the own ones are missing: GDAL's copy of an ENVI scene has no other width.
    """
    units = tags[0].get("wavelength_units")
    wavelengths, fwhm = bands_in_nm(
        _numbers(tags, "wavelength", path), _numbers(tags, "fwhm", path), units, str(path)
    )
    rounded, rounded_fwhm = bands_in_nm(
        _numbers(imagery, "central_wavelength_um", path), _numbers(imagery, "fwhm_um", path), "um", str(path)
    )  # fmt: skip
    return (
        rounded if wavelengths is None else wavelengths,
        rounded_fwhm if fwhm is None else fwhm,
    )


def _lower(tags: dict[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in tags.items()}


def _numbers(tags: Sequence[dict[str, str]], name: str, path: Path) -> np.ndarray | None:
    """One number a band from its tag, None when not every band has the tag."""
    if not all(t.get(name) for t in tags):
        return None
    try:
        return np.array([float(t[name]) for t in tags])
    except ValueError as error:
        raise UserError(f"{path}: band tag '{name}' is no number ({error}); fix it") from error


def _mosaic(paths: list[Path], tiles: list[Source]) -> Source:
    """Join tiles of one grid; where no tile lies, and where a tile has its no-data value, is NaN."""
    from affine import Affine
    from rasterio.merge import merge

    first = tiles[0]
    if first.transform is None:
        raise UserError(f"{paths[0]}: has no georeference, so the tiles cannot be joined")
    grid = Affine(*first.transform)
    if grid.b or grid.d or grid.a <= 0 or grid.e >= 0:
        raise UserError(f"{paths[0]}: tiles of a rotated or flipped grid cannot be joined")
    corners = [_corner(tile, first, grid) for tile in tiles]
    left, top = min(x for x, _ in corners), min(y for _, y in corners)
    rows_of = [(y - top, y - top + t.shape[1]) for (_, y), t in zip(corners, tiles, strict=True)]
    height = max(stop for _, stop in rows_of)
    width = max(x - left + t.shape[2] for (x, _), t in zip(corners, tiles, strict=True))
    transform = grid @ Affine.translation(left, top)

    def read(start: int, stop: int) -> np.ndarray:
        west, north = transform @ (0, start)
        east, south = transform @ (width, stop)
        here = [p for p, (a, b) in zip(paths, rows_of, strict=True) if a < stop and b > start]
        if not here:
            return np.full((first.shape[0], stop - start, width), np.nan, np.float32)
        with reading(here[0]), _quiet():
            rows, _ = merge(here, bounds=(west, south, east, north), nodata=np.nan, dtype="float32")
        return rows

    return replace(
        first,
        files=paths,
        shape=(first.shape[0], height, width),
        read=read,
        transform=tuple(transform)[:6],
    )


def _corner(tile: Source, first: Source, grid: "Affine") -> tuple[int, int]:
    """Column and row of a tile's upper left pixel on the grid of the first tile.

    Raises:
        UserError: for a tile on another grid, or whose bands or values are others.
    """
    from affine import Affine

    path, first_path = tile.files[0], first.files[0]
    refused = UserError(
        f"{path}: not on the grid of {first_path} (CRS, pixel size, bands); give one of them"
    )
    if tile.transform is None or tile.crs != first.crs or tile.shape[0] != first.shape[0]:
        raise refused
    offset = ~grid @ Affine(*tile.transform)
    corner = np.array([offset.c, offset.f])
    same_pixels = np.allclose([offset.a, offset.b, offset.d, offset.e], [1, 0, 0, 1], atol=1e-6)
    if not same_pixels or not np.allclose(corner, np.round(corner), atol=0.01):
        raise refused
    for name in ("wavelengths", "scale", "offset", "nodata"):
        mine, other = getattr(tile, name), getattr(first, name)
        if (mine is None) != (other is None) or (mine is not None and not np.allclose(mine, other)):
            raise UserError(
                f"{path}: its {name} differ from those of {first_path}; give one of them"
            )
    return round(offset.c), round(offset.f)
