"""A small netCDF-4 file after the CF conventions, as the EMIT L3 Gridded Reflectance User Guide has it."""

from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

BANDS, HEIGHT, WIDTH = 5, 21, 34
WAVELENGTHS = np.array([0.45, 0.55, 0.86, 1.38, 2.2])  # micrometres
GOOD = np.array([1, 1, 1, 0, 1], np.uint8)
LEFT, TOP, STEP = -69.3, 12.1, 0.00055
MARK = b"This is a netCDF dimension but not a netCDF variable.         5"


class Cube(NamedTuple):
    path: Path
    values: np.ndarray  # (band, y, x) in units
    stored: np.ndarray
    transform: tuple[float, ...]


def write(
    path: Path,
    *,
    order: str = "band y x",
    geotransform: bool = True,
    crs: bool = True,
    ascending: bool = False,
    unit: str = "um",
    packed: bool = False,
    name: str = "reflectance",
    own_wavelengths: bool = True,
) -> Cube:
    """Write it.

    Args:
        path: file.
        order: of the cube's axes.
        geotransform: whether the grid mapping has GDAL's.
        crs: whether there is a grid mapping.
        ascending: latitudes from south to north.
        unit: of wavelengths, um or nm.
        packed: whether values are integers with scale_factor and add_offset.
        name: of the cube.
        own_wavelengths: whether they are the coordinate of the band axis, or only lie in a group beside.
    """
    stored = np.arange(BANDS * HEIGHT * WIDTH).reshape(BANDS, HEIGHT, WIDTH)
    stored = stored.astype(np.int16 if packed else np.float32) + 1
    if not packed:
        stored /= stored.size
    factor, add = (0.0002, -0.1) if packed else (1.0, 0.0)
    fill = -32768 if packed else -9999
    stored[:, 3:5, 8:13] = fill
    values = np.where(stored == fill, np.nan, stored * factor + add)
    latitude = TOP - STEP * (np.arange(HEIGHT) + 0.5)
    latitude = latitude[::-1] if ascending else latitude
    wavelengths = WAVELENGTHS * (1000 if unit == "nm" else 1)
    with h5py.File(path, "w") as file:
        file["lat"], file["lon"] = latitude, LEFT + STEP * (np.arange(WIDTH) + 0.5)
        file["lat"].attrs["units"], file["lon"].attrs["units"] = "degrees_north", "degrees_east"
        if own_wavelengths:
            file["bands"] = wavelengths.astype(np.float32)
            file["bands"].attrs["units"] = unit
        else:
            file["bands"] = np.zeros(BANDS, np.float32)
        parameters = file.create_group("sensor_band_parameters")
        parameters["wavelengths"], parameters["fwhm"] = wavelengths, wavelengths / 100
        parameters["wavelengths"].attrs["units"] = parameters["fwhm"].attrs["units"] = unit
        parameters["good_wavelengths"] = GOOD
        for scale in ("bands", "lat", "lon"):
            file[scale].make_scale(scale)
        if not own_wavelengths:
            file["bands"].attrs["NAME"] = MARK
        words = order.split()
        axes = tuple(("band", "y", "x").index(w) for w in words)
        cube = file.create_dataset(name, data=stored.transpose(axes))
        cube.attrs["_FillValue"] = np.array([fill], stored.dtype)
        cube.attrs["units"] = "1"
        if packed:
            cube.attrs["scale_factor"], cube.attrs["add_offset"] = [factor], [add]
        for axis, word in enumerate(words):
            cube.dims[axis].attach_scale(file[{"band": "bands", "y": "lat", "x": "lon"}[word]])
        if crs:
            from rasterio.crs import CRS

            file["crs"] = np.array(b"", "S1")
            file["crs"].attrs["crs_wkt"] = CRS.from_epsg(4326).to_wkt()
            file["crs"].attrs["grid_mapping_name"] = "latitude_longitude"
            if geotransform:
                file["crs"].attrs["GeoTransform"] = f"{LEFT} {STEP} 0 {TOP} 0 {-STEP}"
            cube.attrs["grid_mapping"] = "crs: lat lon"
    bottom = TOP - STEP * HEIGHT
    north = (STEP, bottom) if ascending else (-STEP, TOP)
    return Cube(path, values, stored, (STEP, 0.0, LEFT, 0.0, *north))
