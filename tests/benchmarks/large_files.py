"""Large scenes as files of several formats, written a strip of rows at a time: synthetic, deterministic.

A scene is patches of a few spectra with noise. EMIT's chunks are those that netCDF's library chooses by itself, a fifth
of each axis (256 x 249 x 57 of 1280 x 1242 x 285). The other HDF5 is contiguous, as sizes of PRISMA files say of them.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import rasterio
from rasterio.transform import from_origin

SPECTRA, PATCH, STRIP = 4, 40, 256
ANGLE = 35  # degrees that the image of EMIT is turned on the map


def strips(height: int, width: int, bands: int) -> Iterator[np.ndarray]:
    """Reflectance (band, row, column) float32 of strips of rows; one block of noise, moved along for each."""
    rng = np.random.default_rng(0)
    spectra = rng.random((SPECTRA, bands), np.float32).cumsum(1) / bands + np.float32(0.02)
    noise = 0.01 * rng.standard_normal((bands, STRIP, width), np.float32)
    patches = rng.integers(SPECTRA, size=(height // PATCH + 1, width // PATCH + 1))
    for number, y in enumerate(range(0, height, STRIP)):
        rows = min(STRIP, height - y)
        kinds = patches[np.arange(y, y + rows) // PATCH].repeat(PATCH, 1)[:, :width]
        strip = np.moveaxis(spectra[kinds], 2, 0)
        yield strip + np.roll(noise[:, :rows], 97 * number, 2)


def stored(strip: np.ndarray) -> np.ndarray:
    """Reflectance x 10,000 as int16; never 0."""
    return np.clip(np.round(strip * 10_000), 1, 30_000).astype(np.int16)


def size_of(gigabytes: float, bands: int, itemsize: int, rows: int | None) -> tuple[int, int]:
    """Height and width, about 2 to 1, of a scene of so many bytes; `rows` cuts the height."""
    width = max(int((gigabytes * 1e9 / bands / itemsize / 2) ** 0.5), PATCH)
    height = max(int(gigabytes * 1e9 / bands / itemsize / width), PATCH)
    return min(height, rows or height), width


def centres(bands: int) -> np.ndarray:
    """Wavelengths, nm."""
    return np.linspace(420, 2450, bands)


def write_envi(folder: Path, gigabytes: float, rows: int | None, interleave: str) -> Path:
    """float32, band interleaved by line or by band."""
    bands = 200
    height, width = size_of(gigabytes, bands, 4, rows)
    axes = {"bil": (1, 0, 2), "bsq": (0, 1, 2)}[interleave]
    shape = tuple((bands, height, width)[a] for a in axes)
    image = np.memmap(folder / "scene.img", "<f4", "w+", shape=shape)
    cube = image.transpose(np.argsort(axes))
    for y, strip in zip(range(0, height, STRIP), strips(height, width, bands), strict=True):
        cube[:, y : y + strip.shape[1]] = strip
    image.flush()
    nm = ", ".join(f"{v:.1f}" for v in centres(bands))
    (folder / "scene.hdr").write_text(
        f"ENVI\nsamples = {width}\nlines = {height}\nbands = {bands}\nheader offset = 0\n"
        f"data type = 4\ninterleave = {interleave}\nbyte order = 0\nwavelength units = nm\n"
        f"wavelength = {{{nm}}}\n"
    )
    return folder / "scene.img"


def write_tif(folder: Path, gigabytes: float, rows: int | None, **layout: Any) -> Path:
    """int16, deflate."""
    bands = 200
    height, width = size_of(gigabytes, bands, 2, rows)
    profile = {
        "driver": "GTiff", "width": width, "height": height, "count": bands, "dtype": "int16", "nodata": -32768,
        "compress": "deflate", "zlevel": 1, "num_threads": 2, "bigtiff": "if_safer", "crs": "EPSG:32633",
        "transform": from_origin(372_000, 5_807_000, 30, 30), **layout,
    }  # fmt: skip
    with rasterio.open(folder / "scene.tif", "w", **profile) as file:
        for band, nm in enumerate(centres(bands), 1):
            file.update_tags(band, wavelength=f"{nm:.2f}", wavelength_units="nanometers")
        file.scales = [1e-4] * bands
        for y, strip in zip(range(0, height, STRIP), strips(height, width, bands), strict=True):
            window = rasterio.windows.Window(0, y, width, strip.shape[1])
            file.write(stored(strip), window=window)
    return folder / "scene.tif"


def write_prisma(folder: Path, gigabytes: float, rows: int | None = None) -> Path:
    """L2D: uint16, (line, band, sample), two detectors."""
    count = {"Vnir": 66, "Swir": 173}
    height, width = size_of(gigabytes, sum(count.values()), 2, rows)
    path = folder / "PRS_L2D_STD_20200524103704_20200524103708_0001.he5"
    west, north = 500_010.0, 4_500_000.0
    with h5py.File(path, "w") as file:
        made = {}
        for name, (low, high) in {"Vnir": (402.0, 972.0), "Swir": (943.0, 2497.0)}.items():
            nm = np.linspace(high, low, count[name]).astype(np.float32)
            nm[:3] = nm[:3] if name == "Swir" else 0  # not acquired
            file.attrs[f"List_Cw_{name}"] = nm
            file.attrs[f"List_Fwhm_{name}"] = np.where(nm > 0, np.float32(11), 0)
            file.attrs[f"List_Cw_{name}_Flags"] = (nm > 0).astype(np.uint8)
            for end, limit in (("Min", 0), ("Max", 1.2)):
                file.attrs[f"L2Scale{name}{end}"] = np.float32(limit)
            made[name] = file.create_dataset(
                f"HDFEOS/SWATHS/PRS_L2D_HCO/Data Fields/{name.upper()}_Cube",
                (height, count[name], width), np.uint16,
            )  # fmt: skip
        file.attrs["Epsg_Code"] = np.uint32(32632)
        for corner, x, y in (
            ("UL", west, north), ("LR", west + 30 * (width - 1), north - 30 * (height - 1))
        ):  # fmt: skip
            file.attrs[f"Product_{corner}corner_easting"] = float(x)
            file.attrs[f"Product_{corner}corner_northing"] = float(y)
        for y, strip in zip(
            range(0, height, STRIP), strips(height, width, sum(count.values())), strict=True
        ):
            lines = stored(strip).astype(np.uint16).transpose(1, 0, 2)
            made["Vnir"][y : y + strip.shape[1]] = lines[:, : count["Vnir"]]
            made["Swir"][y : y + strip.shape[1]] = lines[:, count["Vnir"] :]
    return path


def write_emit(folder: Path, gigabytes: float, rows: int | None = None) -> Path:
    """L2A: float32, (line, sample, band), with the table of a map that the image is turned on."""
    bands = 285
    height, width = size_of(gigabytes, bands, 4, rows)
    path = folder / "EMIT_L2A_RFL_001_20220810T034103_2222203_001.nc"
    with h5py.File(path, "w") as file:
        file.attrs["geotransform"] = np.array([15.25, 0.000542, 0.0, -24.5, 0.0, -0.000542])
        file.attrs["spatial_ref"] = rasterio.CRS.from_epsg(4326).to_wkt()
        image = file.create_dataset(
            "reflectance", (height, width, bands), np.float32, compression=1,
            chunks=tuple(-(-n // 5) for n in (min(height, 1280), min(width, 1242), bands)),
        )  # fmt: skip
        image.attrs["_FillValue"] = np.float32(-9999)
        for y, strip in zip(range(0, height, STRIP), strips(height, width, bands), strict=True):
            image[y : y + strip.shape[1]] = np.round(strip, 4).transpose(1, 2, 0)
        centre = file.create_dataset("sensor_band_parameters/wavelengths", data=centres(bands))
        centre.attrs["units"] = "nm"
        for name, table in zip(("glt_y", "glt_x"), _table(height, width), strict=True):
            file.create_dataset(f"location/{name}", data=table, compression=4)
    return path


def _table(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Line and sample, from 1, of each place of the map; 0 where there is none."""
    c, s = np.cos(np.radians(ANGLE)), np.sin(np.radians(ANGLE))
    rows, columns = int(c * height + s * width), int(s * height + c * width)
    y = np.arange(rows, dtype=np.float32)[:, None] - rows / 2
    x = np.arange(columns, dtype=np.float32) - columns / 2
    line = np.round(c * y - s * x + height / 2).astype(np.int32)
    sample = np.round(s * y + c * x + width / 2).astype(np.int32)
    there = (line >= 0) & (line < height) & (sample >= 0) & (sample < width)
    return np.where(there, line + 1, 0), np.where(there, sample + 1, 0)


Writer = Callable[[Path, float, int | None], Path]  # folder, gigabytes, rows at most


def _envi(interleave: str) -> Writer:
    return lambda folder, gigabytes, rows: write_envi(folder, gigabytes, rows, interleave)


def _tif(interleave: str, **layout: Any) -> Writer:
    return lambda folder, gigabytes, rows: write_tif(
        folder, gigabytes, rows, interleave=interleave, **layout
    )


TILES = {"tiled": True, "blockxsize": 256, "blockysize": 256}
WRITERS: dict[str, Writer] = {
    "envi-bil": _envi("bil"),
    "envi-bsq": _envi("bsq"),
    "tif-tiled": _tif("pixel", **TILES),
    "tif-tiled-bands": _tif("band", **TILES),
    "tif-striped": _tif("pixel"),
    "tif-striped-bands": _tif("band"),
    "prisma": write_prisma,
    "emit": write_emit,
}
