"""How much ground a pixel covers, in square metres."""

import numpy as np

from special_steps.core.store import Grid

FAITHFUL = (
    0.01  # a projection whose areas are wrong by less counts as true: UTM's are, by under 0.1 %
)
LINES = 33  # places along the scene at which areas are compared


def pixel_areas(grid: Grid, shape: tuple[int, int]) -> np.ndarray | None:
    """Area of the pixels of each row.

    Where the CRS is projected and true in areas to 1 %, sides are multiplied, as everybody does. Else (degrees, Web
    Mercator) it is the area in Lambert's equal-area projection about the scene's centre, along its middle column.

    Args:
        grid: where the pixels lie.
        shape: (height, width).

    Returns:
        (y,) float64, m2; None where the place on the ground is not known: no transform, no CRS, or one of its own.
    """
    from affine import Affine
    from rasterio._err import (
        CPLE_BaseError,
    )  # what transform raises between CRSs that have no common ground
    from rasterio.crs import CRS
    from rasterio.errors import CRSError
    from rasterio.warp import transform

    if grid.crs is None or grid.transform is None:
        return None
    crs, place = CRS.from_wkt(grid.crs), Affine(*grid.transform)
    if not (crs.is_geographic or crs.is_projected):  # a site's own grid
        return None
    height, width = shape
    plane = None
    if crs.is_projected:
        plane = abs(place.determinant) * crs.linear_units_factor[1] ** 2
    try:
        (longitude,), (latitude,) = transform(
            crs, "EPSG:4326", *([v] for v in place @ (width / 2, height / 2))
        )
        equal = CRS.from_string(
            f"+proj=laea +lon_0={longitude:.9f} +lat_0={latitude:.9f} +datum=WGS84 +units=m"
        )
        rows = np.linspace(0, height - 1, min(height, LINES))
        corners = [
            place @ np.array([np.full(len(rows), width / 2 + dx), rows + dy])
            for dx, dy in ((-0.5, 0), (0.5, 0), (0.5, 1), (-0.5, 1))
        ]
        x, y = np.array([transform(crs, equal, *corner) for corner in corners]).transpose(1, 0, 2)
    except (CRSError, CPLE_BaseError):  # on another planet
        return None if plane is None else np.full(height, plane)
    # half the cross product of the diagonals
    true = abs((x[2] - x[0]) * (y[3] - y[1]) - (x[3] - x[1]) * (y[2] - y[0])) / 2
    if not np.isfinite(true).all():
        return None if plane is None else np.full(height, plane)
    if plane is not None and np.abs(true / plane - 1).max() < FAITHFUL:
        return np.full(height, plane)
    return np.interp(np.arange(height), rows, true)
