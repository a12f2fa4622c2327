"""AVIRIS-3, AVIRIS-5 and AVIRIS-NG deliveries in netCDF4: L2A reflectance, L1B radiance.

Sources: ORNL DAAC user guides AV3_L2A_RFL and AV5_L2A_RFL; readers by the producer and others that name groups and
attributes alike: emit-sds/SpectralUtil `spec_io.py`, EnSpec/hytools `io/netcdf.py`, opengeos/HyperCoast `aviris.py`.

L2A (AV3YYYYMMDDtHHMMSS_NNN_L2A_OE_hash_RFL_ORT.nc): `reflectance/reflectance` (wavelength, northing, easting) float32,
fraction of 1, fill -9999, `reflectance/wavelength` and `fwhm` (nm), on a north-up UTM grid: `northing` and `easting`
at the root, `transverse_mercator` (or `projection`) with `spatial_ref` and `GeoTransform`.

L1B (..._L1B_RDN_hash_RDN.nc): `radiance/radiance` (wavelength, line, sample) in the sensor's own grid, with
`geolocation_lookup_table/line` and `sample` on the map's grid: put on the map by this table. Uncertainty (UNC_ORT),
geometry (OBS) and quicklooks beside the file are not read. There are no quality layers in these files.
"""

import re
from pathlib import Path
from typing import Any

from special_steps.core.errors import UserError
from special_steps.io.hdf5 import dataset, open_hdf5
from special_steps.io.lookup import on_map, open_lookup
from special_steps.io.products.cf import (
    Cube,
    bands_of,
    georeference,
    nodata_of,
    open_cube,
    packing,
    radiance_note,
)
from special_steps.io.record import Source

# sensor, flight line and part of it; level; the processor and its hash; content (others: UNC, OBS, BANDMASK)
NAME = re.compile(
    r"(AV3|AV5|ANG)\d{8}T\d{6}(?:_\d{3})?_L(?:1B|2A)_\w+?_[0-9A-F]{8}_(RFL|RDN)(?:_ORT)?(?:_\w+)?\.nc4?",
    re.IGNORECASE,
)
SENSORS = {"AV3": "AVIRIS-3", "AV5": "AVIRIS-5", "ANG": "AVIRIS-NG"}
CONTENTS = ("reflectance", "radiance")
MAPPINGS = ("transverse_mercator", "projection")
TABLE = ("geolocation_lookup_table/line", "geolocation_lookup_table/sample")


def files_of(path: Path) -> list[Path]:
    """The reflectance (or radiance) file; [] when `path` is not one or a folder with one.

    Raises:
        UserError: for a folder with several flight lines, or several files of one.
    """
    if path.is_file():
        return [path] if NAME.fullmatch(path.name) else []
    if not path.is_dir():
        return []
    named = [(p, m) for p in sorted(path.iterdir()) if (m := NAME.fullmatch(p.name))]
    reflectance = [(p, m) for p, m in named if m[2].upper() == "RFL"]
    named = reflectance or named
    if len(named) > 1:
        raise UserError(
            f"{path}: holds {len(named)} AVIRIS scenes, {named[0][0].name}, {named[1][0].name} ...;"
            " give one file"
        )
    return [named[0][0]] if named else []


def holds(file: Any) -> bool:
    """Whether an open HDF5 file is such a delivery, whatever its name."""
    return _content(file) is not None and any(m in file for m in MAPPINGS)


def _content(file: Any) -> str | None:
    return next(
        (c for c in CONTENTS if f"{c}/wavelength" in file and len(getattr(file.get(f"{c}/{c}"), "shape", ())) == 3),
        None,
    )  # fmt: skip


def open_product(path: Path) -> Source:
    """Open a file (of any name), or a folder with one.

    Raises:
        UserError: for a damaged or incomplete file.
    """
    files = files_of(path) or [path]
    if files[0].is_dir():
        raise UserError(f"{path}: no AVIRIS file such as AV3..._RFL_ORT.nc in this folder")
    main = files[0]
    with open_hdf5(main) as file:
        content = _content(file)
        if content is None:
            raise UserError(
                f"{main}: neither 'reflectance/reflectance' nor 'radiance/radiance' with its"
                " 'wavelength' in the file; it may be cut, get it again"
            )
        data = dataset(file, f"{content}/{content}")
        on_sensor_grid = TABLE[0] in file and dataset(file, TABLE[0]).shape != data.shape[1:]
        places = ("geolocation_lookup_table/", "") if on_sensor_grid else ("", f"{content}/")
        y, x = (
            next((p + n for p in places if p + n in file), None) for n in ("northing", "easting")
        )
    kind = f"{_sensor(main)} {'L2A' if content == 'reflectance' else 'L1B'}"
    if y is None or x is None:
        raise UserError(
            f"{main}: no 'northing' and 'easting' in the file, so nothing says where its pixels lie; get"
            f" it again, or give variable: {content}/{content} with axes: 'band y x' to read it without"
        )
    cube = Cube(f"{content}/{content}", 0, 1, 2, f"{content}/wavelength", y, x)
    return (
        _from_sensor_grid(main, cube, kind)
        if on_sensor_grid
        else open_cube(main, cube, kind, MAPPINGS)
    )


def _sensor(path: Path) -> str:
    found = NAME.fullmatch(path.name)
    return SENSORS[found[1].upper()] if found else "AVIRIS"


def _from_sensor_grid(path: Path, cube: Cube, kind: str) -> Source:
    """Radiance in lines and samples, put on the map by the file's table."""
    with open_hdf5(path) as file:
        data = dataset(file, cube.name)
        bands, lines, samples = data.shape
        stated = bands_of(file, cube.wavelengths, bands, str(path))
        doubts = dict(stated.pop("doubts"))
        nodata = nodata_of(data) or (-9999.0,)
        scale, offset = packing(data)
        crs, transform, unsure = georeference(
            file, data, dataset(file, cube.x), dataset(file, cube.y), MAPPINGS
        )
        notes = stated.pop("notes") + radiance_note(path, data)
    lookup = open_lookup(path, *TABLE, (lines, samples))
    return Source(
        [path],
        (bands, *lookup.shape),
        on_map(lookup, path, cube.name, band_first=True, fill=nodata[0]),
        scale=scale,
        offset=offset,
        nodata=nodata,
        masked=lookup.masked,
        crs=crs,
        transform=transform,
        doubts={**doubts, **{n: f"{path}: {why}" for n, why in unsure.items()}},
        notes=notes,
        kind=kind,
        **stated,
    )
