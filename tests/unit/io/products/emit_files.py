"""A small EMIT granule, laid out like those of LP DAAC (netCDF-4 is HDF5), with a map turned against the image."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

LINES, SAMPLES, BANDS = 70, 50, 6
HEIGHT, WIDTH = 90, 96
WAVELENGTHS = np.array([381.0, 550.5, 865.25, 1380.0, 1900.0, 2300.0], np.float32)
FWHM = np.array([8.4, 8.5, 8.6, 8.7, 8.8, 8.9], np.float32)
GOOD = np.array([1, 1, 1, 0, 0, 1], np.uint8)
LEFT, TOP, STEP = 15.25, -24.5, 0.000542
V001 = ("Cloud flag", "Cirrus flag", "Water flag", "Spacecraft Flag", "Dilated Cloud Flag", "AOD550", "H2O (g cm-2)",
        "Aggregate Flag")  # fmt: skip
V002 = ("Cloud Flag", "Cirrus Flag", "Water Flag", "Spacecraft Flag", "Dilated Cloud Flag", "AOD550", "H2O (g cm-2)",
        "Aggregate Flag", "SpecTf-Cloud Probability", "SpecTf-Cloud Flag", "SpecTf-Buffer Distance")  # fmt: skip
V003 = ("Cloud Flag", "Cirrus Flag", "Water Flag", "Dilated Cloud Flag", "SpecTf-Cloud Probability",
        "SpecTf-Cloud Flag", "SpecTf-Buffer Distance")  # fmt: skip


class Granule(NamedTuple):
    path: Path
    mask: Path | None
    values: np.ndarray  # (band, y, x) on the map, NaN where it has no pixel
    masked: np.ndarray  # (y, x)
    flags: dict[
        str, np.ndarray
    ]  # (y, x) on the map by the product's name of the flag, False without pixel
    transform: tuple[float, ...]


def write(
    folder: Path,
    *,
    content: str = "reflectance",
    name: str = "EMIT_L2A_RFL_001_20220810T034103_2222203_001.nc",
    mask: str | None = "EMIT_L2A_MASK_001_20220810T034103_2222203_001.nc",
    mask_bands: tuple[str, ...] = V001,
    chunks: tuple[int, int, int] | None = None,
    filled: bool = False,
    cube: np.ndarray | None = None,
    size: tuple[int, int] = (LINES, SAMPLES),
    nm: np.ndarray = WAVELENGTHS,
    good: np.ndarray = GOOD,
    on_map: Mapping[str, np.ndarray] | None = None,
) -> Granule:
    """Write it.

    Args:
        folder: is made if need be.
        content: "reflectance" or "radiance".
        name: of the file.
        mask: name of the mask beside it; None for none.
        mask_bands: names of what the mask holds.
        chunks: of the image.
        filled: makes the table's numbers negative in a part of the map, as for gaps filled by neighbours.
        cube: (band, y, x) reflectance on the map, which the image's pixels are taken from along their turned grid, the
            nearest; None: different values everywhere.
        size: of the image, (lines, samples).
        nm: the bands' wavelengths.
        good: which are good, 1 or 0.
        on_map: with `cube`: where flags hold on the map, (y, x) bool by name in `mask_bands`; others hold nowhere.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lines, samples = size
    shape = (HEIGHT, WIDTH) if cube is None else cube.shape[1:]
    line, sample, there = _table(shape, size)
    y, x, band = np.meshgrid(
        np.arange(lines), np.arange(samples), np.arange(len(nm)), indexing="ij"
    )
    here = _places(shape, size)
    if cube is None:
        image = (0.01 + (band * 4000 + y * samples + x) / 30000).astype(np.float32)
    else:
        image = cube[:, *here].transpose(1, 2, 0).astype(np.float32)
    if content == "reflectance":
        image[..., good == 0] = -0.01
    image[5:9, 3:7] = -9999  # not measured: cloud screened on board
    glt_y, glt_x = np.where(there, line + 1, 0), np.where(there, sample + 1, 0)
    if filled:
        glt_y[20:40], glt_x[20:40] = -glt_y[20:40], -glt_x[20:40]
    with h5py.File(folder / name, "w") as file:
        _root(file)
        _variable(file, content, image, ("downtrack", "crosstrack", "bands"), chunks)
        file[content].attrs["units"] = "unitless" if content == "reflectance" else "uW/cm^2/SR/nm"
        _location(file, glt_y, glt_x, size)
        bands = file.create_group("sensor_band_parameters")
        _variable(bands, "wavelengths", nm.astype(np.float32), ("bands",))
        bands["wavelengths"].attrs["units"] = "nm"
        _variable(bands, "fwhm", np.interp(nm, WAVELENGTHS, FWHM).astype(np.float32), ("bands",))
        if content == "reflectance":
            bands["good_wavelengths"] = good
    flags = {n: _pattern(i, size) for i, n in enumerate(mask_bands)}
    if cube is not None:
        nowhere = np.zeros(shape, bool)
        flags = {n: (on_map or {}).get(n, nowhere)[here] for n in mask_bands}
    if mask is not None:
        with h5py.File(folder / mask, "w") as file:
            _root(file)
            stack = np.stack(list(flags.values()), axis=-1).astype(np.float32)
            for i, n in enumerate(mask_bands):
                if "Flag" not in n and "flag" not in n:
                    stack[..., i] = 0.3 + stack[..., i]  # a measure, not a flag
            stack[5:9, 3:7] = -9999
            _variable(file, "mask", stack, ("downtrack", "crosstrack", "bands"))
            _variable(file, "band_mask", np.zeros((lines, samples, 36), np.uint8), ())
            _location(file, glt_y, glt_x, size)
            names = file.create_group("sensor_band_parameters")
            names.create_dataset("mask_bands", data=list(mask_bands), dtype=h5py.string_dtype())
    values = np.where(there, image[line, sample].transpose(2, 0, 1), np.nan)
    screened = np.zeros(size, bool)
    screened[5:9, 3:7] = True
    return Granule(
        folder / name,
        None if mask is None else folder / mask,
        values,
        ~there,
        {n: there & (f & ~screened)[line, sample] for n, f in flags.items()},
        (STEP, 0.0, LEFT, 0.0, -STEP, TOP),
    )


def _table(
    shape: tuple[int, ...], size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Line and sample, from 0, of each place of the map, and where there is one; the image is turned by 35 degrees."""
    (height, width), (lines, samples) = shape, size
    y, x = np.mgrid[:height, :width]
    c, s = np.cos(np.radians(35)), np.sin(np.radians(35))
    line = np.round(c * (y - height / 2) - s * (x - width / 2) + lines / 2).astype(int)
    sample = np.round(s * (y - height / 2) + c * (x - width / 2) + samples / 2).astype(int)
    there = (line >= 0) & (line < lines) & (sample >= 0) & (sample < samples)
    return np.where(there, line, 0), np.where(there, sample, 0), there


def _places(shape: tuple[int, ...], size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of the map under the centre of each pixel of the image, at its edge for those beyond it."""
    (height, width), (lines, samples) = shape, size
    line, sample = np.mgrid[:lines, :samples]
    c, s = np.cos(np.radians(35)), np.sin(np.radians(35))
    y = c * (line - lines / 2) + s * (sample - samples / 2) + height / 2
    x = c * (sample - samples / 2) - s * (line - lines / 2) + width / 2
    rows, columns = np.round(y).astype(int), np.round(x).astype(int)
    return np.clip(rows, 0, height - 1), np.clip(columns, 0, width - 1)


def _pattern(number: int, size: tuple[int, int]) -> np.ndarray:
    y, x = np.mgrid[: size[0], : size[1]]
    return (y * 7 + x * 3 + number * 5) % (11 + number) < 3


def _root(file: Any) -> None:
    file.attrs["title"] = "EMIT L2A Estimated Surface Reflectance 60 m V001"
    file.attrs["geotransform"] = np.array([LEFT, STEP, -0.0, TOP, -0.0, -STEP])
    file.attrs["spatialResolution"] = STEP
    file.attrs["spatial_ref"] = (
        'GEOGCS["WGS 84",DATUM["WGS_1984",SPHEROID["WGS 84",6378137,298.257223563,AUTHORITY["EPSG",'
        '"7030"]],AUTHORITY["EPSG","6326"]],PRIMEM["Greenwich",0,AUTHORITY["EPSG","8901"]],UNIT['
        '"degree",0.0174532925199433,AUTHORITY["EPSG","9122"]],AXIS["Latitude",NORTH],AXIS['
        '"Longitude",EAST],AUTHORITY["EPSG","4326"]]'
    )


def _location(file: Any, glt_y: np.ndarray, glt_x: np.ndarray, size: tuple[int, int]) -> None:
    location = file.create_group("location")
    for name, values in (("glt_x", glt_x), ("glt_y", glt_y)):
        location.create_dataset(name, data=values.astype(np.int32), chunks=(45, 48), compression=4)
        location[name].attrs["_FillValue"] = np.array([0], np.int32)
    y, x = np.mgrid[: size[0], : size[1]]
    location["lat"], location["lon"] = TOP - y * STEP, LEFT + x * STEP


def _variable(
    group: Any, name: str, values: np.ndarray, dimensions: tuple[str, ...], chunks: Any = None
) -> None:
    made = group.create_dataset(name, data=values, chunks=chunks, compression=4 if chunks else None)
    made.attrs["_FillValue"] = np.array([-9999 if values.dtype.kind == "f" else 255], values.dtype)
    for axis, label in enumerate(dimensions):
        made.dims[axis].label = label
