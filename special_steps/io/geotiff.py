"""Maps as cloud-optimised GeoTIFFs: tiled, compressed, with overviews, written a strip of rows at a time."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from special_steps.core.atomic import atomic_write, scratch_folder
from special_steps.core.store import TILE, Grid, tile_rows


def strips_of(data: np.ndarray) -> Iterable[np.ndarray]:
    """A map of one band (y, x) as strips (1, rows, x), as `write_raster` takes them."""
    return (data[None, rows] for rows in tile_rows(len(data)))


def write_raster(
    path: Path,
    strips: Iterable[np.ndarray],
    shape: tuple[int, int],
    dtype: str,
    bands: Sequence[str],
    grid: Grid,
    *,
    nodata: float,
    resampling: str,
    colours: Mapping[int, tuple[int, int, int, int]] | None = None,
    tags: Mapping[str, str] | None = None,
    scale: float | None = None,
) -> None:
    """Write a map as a cloud-optimised GeoTIFF, georeferenced where the scene is.

    GDAL's driver for these copies a whole raster, as overviews lie before the data: a plain GeoTIFF is made on the way.

    Args:
        path: the file.
        strips: (band, rows, x) of `dtype`, top to bottom; together the map.
        shape: its (height, width).
        dtype: uint8 or float32.
        bands: what each band holds.
        grid: where the pixels lie.
        nodata: value that means no data.
        resampling: of overviews: "mode" for classes, "average" for others.
        colours: red, green, blue and alpha (0 to 255) of values; one band only.
        tags: names and texts for the file's header.
        scale: what a stored value is multiplied by.

    Raises:
        ValueError: when the strips do not fill the map.
    """
    import rasterio  # loaded when it is used, it takes time
    import rasterio.shutil
    from rasterio.crs import CRS
    from rasterio.transform import Affine

    profile = {
        "driver": "GTiff",
        "height": shape[0],
        "width": shape[1],
        "count": len(bands),
        "dtype": dtype,
        "interleave": "band",
        "tiled": True,
        "blockxsize": TILE,
        "blockysize": TILE,
        "nodata": nodata,
        "bigtiff": "if_safer",
    }
    if colours:
        profile["photometric"] = "palette"
    if grid.crs:
        profile["crs"] = CRS.from_wkt(grid.crs)
    if grid.transform:
        profile["transform"] = Affine(*grid.transform)
    with scratch_folder(path) as folder, atomic_write(path) as file:
        with rasterio.open(folder / "plain.tif", "w", **profile) as raster:
            if colours:  # before the data: the file's kind is settled with the first
                raster.write_colormap(1, dict(colours))
            y = 0
            for strip in strips:
                rows = strip.shape[1]
                raster.write(strip, window=((y, y + rows), (0, shape[1])))
                y += rows
            if y != shape[0]:
                raise ValueError(f"the strips have {y} rows, the map {shape[0]}")
            for band, description in enumerate(bands, 1):
                raster.set_band_description(band, description)
            if scale is not None:
                raster.scales = [scale] * len(bands)
            raster.update_tags(**(tags or {}))
        options = {
            "COMPRESS": "DEFLATE",
            "BLOCKSIZE": str(TILE),
            "OVERVIEW_RESAMPLING": resampling.upper(),
            "BIGTIFF": "IF_SAFER",
        }
        if dtype == "float32":
            options["PREDICTOR"] = "FLOATING_POINT"
        with rasterio.Env(CPL_TMPDIR=str(folder)):
            rasterio.shutil.copy(folder / "plain.tif", folder / "cog.tif", driver="COG", **options)
        os.replace(folder / "cog.tif", file)


def is_turned(grid: Grid) -> bool:
    """Whether a grid's rows do not run from west to east."""
    return grid.transform is not None and (grid.transform[1] != 0 or grid.transform[3] != 0)


def turned_north(grid: Grid, shape: tuple[int, int]) -> tuple[Grid, np.ndarray]:
    """A north-up grid over a scene's, and which of the scene's pixels lies at each place of it.

    Pixels keep their area; where the scene's grid is only flipped or turned by 90 degrees, also their sides, so that
    every pixel is there once.

    Args:
        grid: with a transform.
        shape: the scene's (height, width).

    Returns:
        The grid, and (y, x) int64: position in the flattened scene of the pixel whose area holds the centre of each
        new pixel; -1 where none does.
    """
    from affine import Affine

    assert grid.transform is not None
    height, width = shape
    place = Affine(*grid.transform)
    a, b, _, d, e, _ = grid.transform
    area = float(np.sqrt(abs(place.determinant)))
    if b == d == 0:
        across, down = abs(a), abs(e)
    elif a == e == 0:
        across, down = abs(b), abs(d)
    else:
        across, down = area, area
    corners = [place @ corner for corner in ((0, 0), (width, 0), (0, height), (width, height))]
    left, right = min(x for x, _ in corners), max(x for x, _ in corners)
    bottom, top = min(y for _, y in corners), max(y for _, y in corners)
    columns, rows = (
        int(np.ceil(n - 1e-6)) for n in ((right - left) / across, (top - bottom) / down)
    )
    new = Affine(across, 0, left, 0, -down, top)
    back = ~place @ new
    found = np.full((rows, columns), -1, np.int64)
    x = np.arange(columns) + 0.5
    for row in range(rows):
        column_of = back.a * x + back.b * (row + 0.5) + back.c
        row_of = back.d * x + back.e * (row + 0.5) + back.f
        inside = (column_of >= 0) & (column_of < width) & (row_of >= 0) & (row_of < height)
        pixel = row_of[inside].astype(np.int64) * width + column_of[inside].astype(np.int64)
        found[row, inside] = pixel
    return Grid(grid.crs, tuple(new)[:6]), found


def map_grid(
    grid: Grid, shape: tuple[int, int], north_up: bool | None
) -> tuple[Grid, np.ndarray | None]:
    """The grid that a scene's maps are written on, and which pixel of the scene lies at each place of it.

    Args:
        grid: the scene's.
        shape: the scene's (height, width).
        north_up: whether maps are turned north up; None for scenes on a rotated grid only.

    Returns:
        The scene's grid and None, or those of `turned_north`.
    """
    wanted = is_turned(grid) if north_up is None else north_up
    return turned_north(grid, shape) if wanted and grid.transform is not None else (grid, None)


def moved(values: np.ndarray, pixel: np.ndarray | None, missing: float) -> np.ndarray:
    """A scene's values on the grid of its maps, by nearest neighbour.

    Args:
        values: (y, x) of the scene.
        pixel: what `map_grid` found.
        missing: value where the scene has no pixel.

    Returns:
        (y, x) of the map, of the values' type.
    """
    if pixel is None:
        return values
    return np.where(pixel < 0, values.dtype.type(missing), values.ravel()[pixel])
