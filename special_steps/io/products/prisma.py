"""PRISMA (ASI) L1, L2B, L2C and L2D products: one HDF-EOS5 file, `PRS_<level>_..._0001.he5`.

What is read, as the readers of SNAP, EnMAP-Box, prismaread and prisma4sen2like do, who follow the PRISMA Products
Specification Document (ASI, issue 2.3, 2020); where they differ is said:

- Cubes `HDFEOS/SWATHS/PRS_<level>_HCO/Data Fields/VNIR_Cube` and `SWIR_Cube`: uint16, (line, band, sample). L1 also has
  a swath `HRC`, whose two detectors are not registered to each other; it is not read.
- `List_Cw_Vnir`, `List_Fwhm_Vnir`, `List_Cw_Vnir_Flags` (and Swir) at the root: nm, descending; bands that were not
  acquired have wavelength 0 (in listings of files the first three of VNIR, the last two of SWIR). They are left out.
- Values: L2 `min + DN (max - min) / 65535`, with `L2ScaleVnirMin` and so on; L1 `DN / ScaleFactor_Vnir - Offset_Vnir`.
- 0 in all bands is outside of the acquired strip (L2D; EnMAP-Box masks the same). 0 in one band is the lowest value.
- `VNIR_PIXEL_L2_ERR_MATRIX`: 0 good, 1 invalid in L1, 2 negative after the atmospheric correction, 3 (SNAP) or
  4 (EnMAP-Box) saturated. `VNIR_PIXEL_SAT_ERR_MATRIX` of L1 (SNAP): 0 good, 1 known defective, 2 saturated, 3 of lower
  confidence, 4 NaN or infinite.
- `Cloud_Mask` (1 cloud) and `LandCover_Mask` (0 water, 1 snow), in L1 only and not always (SNAP, prisma4sen2like).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from special_steps.core.errors import UserError
from special_steps.io.folders import best_named, only_one
from special_steps.io.hdf5 import dataset, numbers, open_hdf5, text
from special_steps.io.products.cf import wkt2
from special_steps.io.record import Source, Window

STEM = re.compile(r"PRS_L(1|2B|2C|2D)_.*\.he5", re.IGNORECASE)
LEVELS = ("2D", "2C", "2B", "1")  # the first of them that a folder has is taken
PIXEL = 30.0  # m, of the hyperspectral cubes (PAN has 5 m)
CORNER_TOLERANCE = 2.0  # m: corners are float32, which is 0.5 m in a northing
# flags are per band, and absorption bands often have one: only a pixel with so many is defective
DEFECTIVE_SHARE = 0.1
# values of the error matrices, by first letter of the level
NOT_DEFECTIVE = {"1": (0, 3), "2": (0, 2)}


@dataclass(frozen=True)
class _Detector:
    """One of the two cubes: where it is, and which of its bands are used."""

    name: str  # "Vnir" or "Swir", as attributes spell it
    kept: np.ndarray  # (band,) positions in the cube of the bands that were acquired
    wavelengths: np.ndarray  # (band,) nm, of those
    fwhm: np.ndarray | None  # (band,) nm
    good: np.ndarray  # (band,) bool
    scale: float
    offset: float


def files_of(path: Path) -> list[Path]:
    """The file of the product at `path` (the file, or a folder that has it); [] when there is none, or several.

    Of one acquisition's levels in a folder, the one nearest to a map is taken: L2D, then L2C, L2B, L1.
    """
    found = best_named(path, STEM, LEVELS)
    return found if len(found) == 1 else []


def holds(file: Any) -> bool:
    """Whether an open HDF5 file is a PRISMA product, by its swaths."""
    return _level(file) is not None


def open_product(path: Path) -> Source:
    """Open a product, given its file or its folder.

    SWIR starts at about 943 nm and VNIR ends at about 973 nm. The VNIR bands that lie within SWIR's range are not good;
    those of SWIR are (prismaread's default is the same). Nor are bands whose flag in `List_Cw_*_Flags` is 0.

    L2D has a map grid. `Product_ULcorner_easting` and its like are the centres of the corner pixels when they lie one
    pixel less apart than the cube is long, as EnMAP-Box and SNAP compute (EnMAP-Box then adds half a pixel on each
    side; SNAP does not, and EnMAP-Box issue 1072 wants none either). When they lie as far apart as the cube is long,
    they are its outer corners. L1, L2B and L2C are in the sensor's geometry and have no georeference; their latitudes
    and longitudes are not read.

    Quality layers: defective (a tenth or more of the good bands flagged as invalid or saturated), of L1 also cloud,
    water and snow.

    Raises:
        UserError: for a folder without such a file or with several, a damaged file, and a file without what is needed.
    """
    named = best_named(path, STEM, LEVELS)
    main = only_one(
        path, named, "PRISMA", "a PRS_L2D_....he5 file", several="PRISMA files of the same level"
    )
    with open_hdf5(main) as file:
        level = _level(file)
        if level is None:
            raise UserError(
                f"{main}: no PRISMA swath with hyperspectral cubes in the file; give a PRS_L2D or PRS_L2C .he5 file"
            )
        fields = f"HDFEOS/SWATHS/PRS_L{level}_HCO/Data Fields"
        cubes = {name: dataset(file, f"{fields}/{name.upper()}_Cube") for name in ("Vnir", "Swir")}
        shapes = {name: cube.shape for name, cube in cubes.items()}
        _check_shapes(shapes, main)
        for name, cube in cubes.items():
            if cube.dtype != np.uint16:
                raise UserError(
                    f"{main}: {name.upper()}_Cube is {cube.dtype}, not uint16 as PRISMA's are; get the file again"
                )
        vnir, swir = (
            _detector(file.attrs, name, level, shapes[name][1], main) for name in ("Vnir", "Swir")
        )
        detectors = (_without_overlap(vnir, swir), swir)
        shape = (sum(len(d.kept) for d in detectors), shapes["Vnir"][0], shapes["Vnir"][2])
        crs, transform, doubts = (
            _georeference(file.attrs, shape[1], shape[2], main)
            if level == "2D"
            else (None, None, {})
        )
        members = set(file[fields])
        alike = {n for n in members if file[f"{fields}/{n}"].shape == shape[1:]}

    def read(rows: slice, columns: slice) -> np.ndarray:
        lines, samples = range(shape[1])[rows], range(shape[2])[columns]
        out = np.empty((shape[0], len(lines), len(samples)), np.uint16)
        at = 0
        with open_hdf5(main) as file:
            for d in detectors:
                cube = dataset(file, f"{fields}/{d.name.upper()}_Cube")
                out[at : at + len(d.kept)] = _window(cube, d.kept, rows, columns)
                at += len(d.kept)
        return out

    quality: dict[str, Window] = {}
    matrix = "PIXEL_SAT_ERR_MATRIX" if level == "1" else "PIXEL_L2_ERR_MATRIX"
    if {f"{d.name.upper()}_{matrix}" for d in detectors} <= members:
        quality["defective"] = _defective(main, fields, matrix, detectors, NOT_DEFECTIVE[level[0]])
    for name, layer, value in (
        ("cloud", "Cloud_Mask", 1),
        ("water", "LandCover_Mask", 0),
        ("snow", "LandCover_Mask", 1),
    ):
        # cameras that bin pixels give maps of half or a quarter of the size
        if layer in alike:
            quality[name] = _equal(main, f"{fields}/{layer}", value)

    fwhms = [d.fwhm for d in detectors]
    return Source(
        files=[main],
        shape=shape,
        read=read,
        wavelengths=np.concatenate([d.wavelengths for d in detectors]),
        fwhm=np.concatenate([f for f in fwhms if f is not None])
        if all(f is not None for f in fwhms)
        else None,
        good_bands=np.concatenate([d.good for d in detectors]),
        scale=np.concatenate([np.full(len(d.kept), d.scale) for d in detectors]),
        offset=np.concatenate([np.full(len(d.kept), d.offset) for d in detectors]),
        nodata=(0.0,),
        quality=quality,
        crs=crs,
        transform=transform,
        doubts=doubts,
        notes=_notes(level),
        kind=f"PRISMA L{level}",
    )


def _level(file: Any) -> str | None:
    for level in LEVELS:
        if f"HDFEOS/SWATHS/PRS_L{level}_HCO/Data Fields" in file:
            return level
    return None


def _check_shapes(shapes: Mapping[str, tuple[int, ...]], path: Path) -> None:
    vnir, swir = shapes["Vnir"], shapes["Swir"]
    if len(vnir) != 3 or len(swir) != 3 or (vnir[0], vnir[2]) != (swir[0], swir[2]):
        raise UserError(
            f"{path}: VNIR_Cube is {vnir} and SWIR_Cube {swir}, not both (line, band, sample) of one"
            " size; get the file again"
        )


def _detector(attrs: Mapping[str, Any], name: str, level: str, bands: int, path: Path) -> _Detector:
    centres = _per_band(attrs, f"List_Cw_{name}", bands, path)
    if centres is None:
        raise UserError(f"{path}: no attribute List_Cw_{name}, the wavelengths; get the file again")
    widths = _per_band(attrs, f"List_Fwhm_{name}", bands, path)
    flags = _per_band(attrs, f"List_Cw_{name}_Flags", bands, path)
    kept = np.flatnonzero(centres > 0)
    if not len(kept):
        raise UserError(f"{path}: all wavelengths in List_Cw_{name} are 0; get the file again")
    scale, offset = _calibration(attrs, name, level, path)
    return _Detector(
        name=name,
        kept=kept,
        wavelengths=centres[kept],
        fwhm=None if widths is None else widths[kept],
        good=np.ones(len(kept), bool) if flags is None else flags[kept] != 0,
        scale=scale,
        offset=offset,
    )


def _per_band(attrs: Mapping[str, Any], name: str, bands: int, path: Path) -> np.ndarray | None:
    if name not in attrs:
        return None
    values = numbers(attrs[name])
    if len(values) != bands:
        raise UserError(
            f"{path}: attribute {name} has {len(values)} numbers for a cube of {bands} bands; get the file again"
        )
    return values


def _number(attrs: Mapping[str, Any], name: str, path: Path) -> float:
    if name not in attrs:
        raise UserError(f"{path}: no attribute {name}; get the file again")
    value = float(numbers(attrs[name])[0])
    if not np.isfinite(value):
        raise UserError(f"{path}: attribute {name} is {value}; get the file again")
    return value


def _calibration(
    attrs: Mapping[str, Any], name: str, level: str, path: Path
) -> tuple[float, float]:
    """Divisor and offset of stored values."""
    if level == "1":
        factor = _number(attrs, f"ScaleFactor_{name}", path)
        if factor <= 0:
            raise UserError(f"{path}: ScaleFactor_{name} is {factor}; get the file again")
        return factor, -_number(attrs, f"Offset_{name}", path)
    low, high = (_number(attrs, f"L2Scale{name}{end}", path) for end in ("Min", "Max"))
    if high <= low:
        raise UserError(
            f"{path}: L2Scale{name}Min is {low} and L2Scale{name}Max {high}, no range of values; get the file again"
        )
    return 65535 / (high - low), low


def _without_overlap(vnir: _Detector, swir: _Detector) -> _Detector:
    """VNIR with its bands that lie within SWIR's range as not good."""
    good = vnir.good & (vnir.wavelengths < swir.wavelengths.min())
    return _Detector(
        vnir.name, vnir.kept, vnir.wavelengths, vnir.fwhm, good, vnir.scale, vnir.offset
    )


def _window(cube: Any, kept: np.ndarray, rows: slice, columns: slice) -> np.ndarray:
    """(band, row, column) of a cube (line, band, sample)."""
    if not len(kept):
        return np.empty((0, rows.stop - rows.start, columns.stop - columns.start), cube.dtype)
    first, last = int(kept[0]), int(kept[-1])
    block = cube[rows, first : last + 1, columns].transpose(1, 0, 2)
    return np.asarray(block if len(kept) == len(block) else block[kept - first])


def _defective(
    path: Path,
    fields: str,
    matrix: str,
    detectors: tuple[_Detector, ...],
    fine: tuple[int, ...],
) -> Window:
    bands = sum(int(d.good.sum()) for d in detectors)

    def read(rows: slice, columns: slice) -> np.ndarray:
        count: Any = 0
        with open_hdf5(path) as file:
            for d in detectors:
                if d.good.any():
                    layer = dataset(file, f"{fields}/{d.name.upper()}_{matrix}")
                    block = _window(layer, d.kept[d.good], rows, columns)
                    flagged = np.all([block != value for value in fine], 0)
                    count = count + flagged.sum(0)
        return np.asarray(count >= DEFECTIVE_SHARE * bands)

    return read


def _equal(path: Path, name: str, value: int) -> Window:
    def read(rows: slice, columns: slice) -> np.ndarray:
        with open_hdf5(path) as file:
            return np.asarray(dataset(file, name)[rows, columns] == value)

    return read


def _georeference(
    attrs: Mapping[str, Any], height: int, width: int, path: Path
) -> tuple[str | None, tuple[float, ...] | None, dict[str, str]]:
    """CRS as WKT2, affine map of pixel corners, and why one of them cannot be had."""
    corners = ("ULcorner_easting", "ULcorner_northing", "LRcorner_easting", "LRcorner_northing")
    names = [f"Product_{corner}" for corner in corners]
    missing = [name for name in ("Epsg_Code", *names) if name not in attrs]
    if missing:
        why = f"{path}: no attribute {missing[0]}, so no georeference; get the file again"
        return None, None, {"transform": why}
    code = text(attrs["Epsg_Code"])
    crs = wkt2(f"EPSG:{code}")
    if crs is None:
        why = f"{path}: Epsg_Code is '{code}', no code of a CRS; get the file again"
        return None, None, {"crs": why}
    west, north, east, south = (float(numbers(attrs[name])[0]) for name in names)
    for half in (PIXEL / 2, 0.0):  # the corners are centres of pixels, or outer corners
        length = np.array([east - west, north - south]) + 2 * half
        if (np.abs(length - np.array([width, height]) * PIXEL) <= CORNER_TOLERANCE).all():
            return crs, (PIXEL, 0.0, west - half, 0.0, -PIXEL, north + half), {}
    why = (
        f"{path}: the corners are {east - west:.0f} m by {north - south:.0f} m apart, which {width} x {height} pixels"
        f" of {PIXEL:.0f} m do not fill; get the file again"
    )
    return None, None, {"transform": why}


def _notes(level: str) -> tuple[str, ...]:
    notes = []
    if level in ("1", "2B"):
        where = "at the top of the atmosphere" if level == "1" else "at the surface"
        notes.append(
            f"PRISMA L{level}: values are radiances {where} (W m-2 sr-1 um-1), not reflectances; L2D has those"
        )
    if level != "2D":
        notes.append(
            f"PRISMA L{level} is in the sensor's geometry: maps of it have no georeference; those of its L2D file have"
        )
    return tuple(notes)
