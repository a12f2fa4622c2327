"""Small AVIRIS-3 and AVIRIS-5 deliveries, laid out like those of ORNL DAAC (netCDF-4 is HDF5)."""

from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

BANDS, HEIGHT, WIDTH = 7, 40, 53
LINES, SAMPLES = 45, 31
WAVELENGTHS = np.array([390.0, 460.5, 550.0, 865.25, 1380.0, 1650.0, 2300.0], np.float32)
FWHM = np.linspace(7.8, 8.4, BANDS).astype(np.float32)
LEFT, TOP, STEP = 371000.0, 3768000.0, 4.2
UTM11 = (
    'PROJCS["WGS 84 / UTM zone 11N",GEOGCS["WGS 84",DATUM["WGS_1984",SPHEROID["WGS 84",6378137,298.257223563,'
    'AUTHORITY["EPSG","7030"]],AUTHORITY["EPSG","6326"]],PRIMEM["Greenwich",0],UNIT["degree",0.0174532925199433],'
    'AUTHORITY["EPSG","4326"]],PROJECTION["Transverse_Mercator"],PARAMETER["latitude_of_origin",0],PARAMETER['
    '"central_meridian",-117],PARAMETER["scale_factor",0.9996],PARAMETER["false_easting",500000],PARAMETER['
    '"false_northing",0],UNIT["metre",1],AXIS["Easting",EAST],AXIS["Northing",NORTH],AUTHORITY["EPSG","32611"]]'
)


class Scene(NamedTuple):
    path: Path
    values: np.ndarray  # (band, y, x), NaN where there is none
    transform: tuple[float, ...]


def write(
    folder: Path,
    *,
    name: str = "AV320250111t195928_000_L2A_OE_f576f24d_RFL_ORT.nc",
    mapping: str = "transverse_mercator",
    scales: bool = True,
) -> Scene:
    """Write reflectance on a UTM grid; without `scales`, the file does not say which coordinates its axes have."""
    folder.mkdir(parents=True, exist_ok=True)
    values = _numbered(BANDS, HEIGHT, WIDTH)
    values[:, :4, :9] = -9999
    with h5py.File(folder / name, "w") as file:
        _root(file, mapping)
        northing, easting = _coordinates(file)
        group = file.create_group("reflectance")
        wavelength = _bands(group)
        cube = group.create_dataset("reflectance", data=values, chunks=(3, 16, 16), compression=4)
        cube.attrs["_FillValue"] = np.array([-9999], np.float32)
        cube.attrs["units"] = "unitless"
        cube.attrs["grid_mapping"] = mapping
        if scales:
            for axis, scale in enumerate((wavelength, northing, easting)):
                scale.make_scale(scale.name.rsplit("/", 1)[-1])
                cube.dims[axis].attach_scale(scale)
    right = np.where(values == -9999, np.nan, values)
    return Scene(folder / name, right, (STEP, 0.0, LEFT, 0.0, -STEP, TOP))


def write_radiance(
    folder: Path, *, name: str = "AV520250508t173511_000_L1B_RDN_0a1b2c3d_RDN.nc"
) -> Scene:
    """Write radiance in lines and samples, with the table that puts it on the map."""
    folder.mkdir(parents=True, exist_ok=True)
    image = _numbered(BANDS, LINES, SAMPLES)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    line, sample = (y + x) // 2, 18 + (y - x) // 2
    there = (line < LINES) & (sample >= 0) & (sample < SAMPLES)
    line, sample = np.where(there, line, 0), np.where(there, sample, 0)
    sign = np.where(x % 5 == 0, -1, 1)  # of a gap that is filled with its neighbour
    with h5py.File(folder / name, "w") as file:
        _root(file, "transverse_mercator")
        table = file.create_group("geolocation_lookup_table")
        _coordinates(table)
        table["line"] = np.where(there, sign * (line + 1), 0).astype(np.int32)
        table["sample"] = np.where(there, sign * (sample + 1), 0).astype(np.int32)
        group = file.create_group("radiance")
        _bands(group)
        cube = group.create_dataset("radiance", data=image, chunks=(3, 16, 16), compression=4)
        cube.attrs["_FillValue"] = np.array([-9999], np.float32)
        cube.attrs["units"] = "uW nm-1 cm-2 sr-1"
    right = np.where(there, image[:, line, sample], np.nan)
    return Scene(folder / name, right, (STEP, 0.0, LEFT, 0.0, -STEP, TOP))


def _numbered(*shape: int) -> np.ndarray:
    return (np.arange(np.prod(shape)).reshape(shape) / np.prod(shape)).astype(np.float32)


def _root(file: Any, mapping: str) -> None:
    file.attrs["title"] = "AVIRIS-3 L2A Surface Reflectance"
    made = file.create_dataset(mapping, data=np.array(b"", "S1"))
    made.attrs["grid_mapping_name"] = "transverse_mercator"
    made.attrs["spatial_ref"] = made.attrs["crs_wkt"] = UTM11
    made.attrs["GeoTransform"] = f"{LEFT} {STEP} 0 {TOP} 0 {-STEP} "


def _coordinates(group: Any) -> tuple[Any, Any]:
    """Centres of pixels."""
    group["northing"] = TOP - STEP * (np.arange(HEIGHT) + 0.5)
    group["easting"] = LEFT + STEP * (np.arange(WIDTH) + 0.5)
    for name, standard in (("northing", "y"), ("easting", "x")):
        group[name].attrs["standard_name"] = f"projection_{standard}_coordinate"
        group[name].attrs["units"] = "m"
    return group["northing"], group["easting"]


def _bands(group: Any) -> Any:
    group["wavelength"], group["fwhm"] = WAVELENGTHS, FWHM
    group["wavelength"].attrs["units"] = group["fwhm"].attrs["units"] = "nm"
    return group["wavelength"]
