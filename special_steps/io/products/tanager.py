"""Tanager-1 (Planet) scenes: one HDF-EOS5 file, `<scene>_ortho_sr_hdf5.h5` and its like.

What is read, after "Tanager Product Specification" (Planet Labs, November 2025, section 3.6 "Tanager HDF5 product
components and format"), and what public readers add to it (marked *):

- `HDFEOS/GRIDS/HYP` of ortho products, `HDFEOS/SWATHS/HYP` of basic ones; in `Data Fields` the cube
  `surface_reflectance` or `toa_radiance`, float32, (band, y, x), in the unit itself, fill -9999 (`_FillValue`)*.
- Attributes of the cube: `wavelengths` and `fwhm` (nm), of reflectances also `good_wavelengths`: 0 in bands where the
  atmosphere absorbs. Their values are no fill but mostly -0.01*, so nothing else tells them from measurements.
- `nodata_pixels`, `beta_cloud_mask`, `beta_cirrus_mask`: 1 where so; 255 is their fill*.
- `epsg_code` of the grid*, and `UpperLeftPointMtrs`, `LowerRightMtrs` in `HDFEOS INFORMATION/StructMetadata.0`. In the
  specification's example these lie exactly XDim and YDim pixels of 30 m apart: they are outer corners.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np

from special_steps.core.errors import UserError
from special_steps.io.folders import best_named, only_one
from special_steps.io.hdf5 import dataset, numbers, open_hdf5, text
from special_steps.io.products.cf import wkt2
from special_steps.io.record import Source, Window

STEM = re.compile(r".+_(ortho_sr|basic_sr|ortho_radiance|basic_radiance)_hdf5\.h5", re.IGNORECASE)
ASSETS = ("ortho_sr", "basic_sr", "ortho_radiance", "basic_radiance")  # first of a folder is taken
GROUPS = ("HDFEOS/GRIDS/HYP", "HDFEOS/SWATHS/HYP")
CUBES = ("surface_reflectance", "toa_radiance")
STRUCTURE = "HDFEOS INFORMATION/StructMetadata.0"
FILL = -9999.0
QUALITY = {"cloud": "beta_cloud_mask", "cirrus": "beta_cirrus_mask"}


def files_of(path: Path) -> list[Path]:
    """The file of the product at `path` (the file, or a folder that has it); [] when there is none, or several.

    Of a folder's files of one scene, the orthorectified reflectance is taken first, then the basic, then radiance.
    """
    found = best_named(path, STEM, ASSETS)
    return found if len(found) == 1 else []


def holds(file: Any) -> bool:
    """Whether an open HDF5 file is a Tanager scene, by its grid or swath HYP."""
    return _cube(file) is not None


def open_product(path: Path) -> Source:
    """Open a product, given its file or its folder.

    Basic products are in the sensor's geometry and have no georeference (`Planet_Ortho_Framing` is the grid of the
    ortho product, not theirs); their latitudes and longitudes are not read.

    Quality layers: cloud, cirrus. Pixels whose `nodata_pixels` is not 0 have no data.

    Raises:
        UserError: for a folder without such a file or with several, a damaged file, and a file without wavelengths.
    """
    named = best_named(path, STEM, ASSETS)
    main = only_one(
        path, named, "Tanager", "an ..._ortho_sr_hdf5.h5 file", several="Tanager scenes"
    )
    with open_hdf5(main) as file:
        found = _cube(file)
        if found is None:
            raise UserError(
                f"{main}: no surface_reflectance or toa_radiance of Tanager in the file; give an _ortho_sr_hdf5.h5 file"
            )
        group, cube = found
        fields, name = f"{group}/Data Fields", f"{group}/Data Fields/{cube}"
        array = dataset(file, name)
        if array.ndim != 3:
            raise UserError(
                f"{main}: {cube} is {array.shape}, not (band, y, x); get the file again"
            )
        bands, height, width = array.shape
        wavelengths = _per_band(array, "wavelengths", main)
        if wavelengths is None:
            raise UserError(
                f"{main}: {cube} has no attribute 'wavelengths'; get the file again, or give cube.wavelengths"
            )
        fwhm = _per_band(array, "fwhm", main)
        good = _per_band(array, "good_wavelengths", main)
        fill = float(numbers(array.attrs["_FillValue"])[0]) if "_FillValue" in array.attrs else FILL
        ortho = group == GROUPS[0]
        crs, transform, doubts = (
            _georeference(file, height, width, main) if ortho else (None, None, {})
        )
        masks = {
            layer
            for layer in ("nodata_pixels", *QUALITY.values())
            if layer in file[fields] and file[f"{fields}/{layer}"].shape == (height, width)
        }

    def read(rows: slice, columns: slice) -> np.ndarray:
        with open_hdf5(main) as file:
            return np.asarray(dataset(file, name)[:, rows, columns])

    def masked(rows: slice, columns: slice) -> np.ndarray:
        # 255, the layer's own fill, is no promise of data either
        with open_hdf5(main) as file:
            return np.asarray(dataset(file, f"{fields}/nodata_pixels")[rows, columns] != 0)

    radiance = cube == "toa_radiance"
    asset = f"{'ortho' if ortho else 'basic'} {'radiance' if radiance else 'surface reflectance'}"
    notes = []
    if radiance:
        notes.append(
            f"Tanager {asset}: values are radiances at the top of the atmosphere (W m-2 sr-1 um-1), not reflectances;"
            " its sr product has those"
        )
    if not ortho:
        notes.append(
            f"Tanager {asset}: in the sensor's geometry, so maps of it have no georeference; those of its ortho"
            " product have"
        )
    return Source(
        files=[main],
        shape=(bands, height, width),
        read=read,
        wavelengths=wavelengths,
        fwhm=fwhm,
        good_bands=None if good is None else good == 1,
        nodata=(fill,),
        masked=masked if "nodata_pixels" in masks else None,
        quality={
            what: _is_one(main, f"{fields}/{layer}")
            for what, layer in QUALITY.items()
            if layer in masks
        },
        crs=crs,
        transform=transform,
        doubts=doubts,
        notes=tuple(notes),
        kind=f"Tanager {asset}",
    )


def _cube(file: Any) -> tuple[str, str] | None:
    """Group and name of the cube: reflectance before radiance."""
    for group in GROUPS:
        for cube in CUBES:
            if f"{group}/Data Fields/{cube}" in file:
                return group, cube
    return None


def _per_band(array: Any, name: str, path: Path) -> np.ndarray | None:
    if name not in array.attrs:
        return None
    values = numbers(array.attrs[name])
    if len(values) != array.shape[0]:
        raise UserError(
            f"{path}: attribute {name} has {len(values)} numbers for a cube of {array.shape[0]} bands;"
            " get the file again"
        )
    return values


def _is_one(path: Path, name: str) -> Window:
    def read(rows: slice, columns: slice) -> np.ndarray:
        with open_hdf5(path) as file:
            return np.asarray(dataset(file, name)[rows, columns] == 1)

    return read


def _georeference(
    file: Any, height: int, width: int, path: Path
) -> tuple[str | None, tuple[float, ...] | None, dict[str, str]]:
    """CRS as WKT2, affine map of pixel corners, and why one of them cannot be had."""
    code = text(file[GROUPS[0]].attrs.get("epsg_code", ""))
    crs = wkt2(f"EPSG:{code}")
    if crs is None:
        why = f"{path}: the grid's epsg_code is '{code}', no code of a CRS; get the file again"
        return None, None, {"crs": why}
    structure = text(dataset(file, STRUCTURE)[()]) if STRUCTURE in file else ""
    west, north = _pair(structure, "UpperLeftPointMtrs")
    east, south = _pair(structure, "LowerRightMtrs")
    x, y = (east - west) / width, (north - south) / height
    if not (np.isfinite([west, north, x, y]).all() and x > 0 and y > 0):
        why = f"{path}: {STRUCTURE} does not say where the grid's corners are; get the file again"
        return None, None, {"transform": why}
    return crs, (x, 0.0, west, 0.0, -y, north), {}


def _pair(structure: str, name: str) -> tuple[float, float]:
    """Two numbers of `name=(a,b)`; NaN where there are none."""
    match = re.search(rf"\b{name}=\(([^,()]+),([^,()]+)\)", structure)
    try:
        return (float(match.group(1)), float(match.group(2))) if match else (np.nan, np.nan)
    except ValueError:
        return np.nan, np.nan
