"""EMIT L2A reflectance and L1B radiance (netCDF4), orthorectified by their lookup table.

Sources: the producer's writers, emit-sds/emit-utils `daac_converter.py` and emit-sds/emit-sds-l2a
`output_conversion.py`; NASA LP DAAC's reader nasa/EMIT-Data-Resources `emit_tools.py` (1-based table, geotransform of
the upper left corner, pixel centres half a pixel inside) with its `test_quality_mask.py` (mask bands of V001 and V002,
read from granules); emit-sds/SpectralUtil; the EMIT L2A Mask ATBD (SpecTf).

The file holds `reflectance` or `radiance` (downtrack, crosstrack, bands) float32 as a fraction of 1 or in
uW/cm^2/nm/sr, fill -9999; `sensor_band_parameters/wavelengths`, `fwhm` (nm) and, of reflectance, `good_wavelengths`
(1 good: 0 marks deep water-vapour bands, whose values are -0.01 or without meaning); `location/glt_x` (crosstrack) and
`glt_y` (downtrack) on the map's grid; root attributes `geotransform` (GDAL's order) and `spatial_ref`. The map is in
longitude and latitude, north up.

Quality comes from EMIT_L2A_MASK beside the file, of the same acquisition: V001 is named like the reflectance, V002 and
V003 are a collection of their own with other version numbers, and V002 reflectance has no orbit and scene in its name,
so the two are matched by the time of acquisition.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np

from special_steps.core.errors import UserError
from special_steps.io.folders import names_in
from special_steps.io.hdf5 import dataset, numbers, open_hdf5, text
from special_steps.io.lookup import Lookup, flag_on_map, on_map, open_lookup
from special_steps.io.products.cf import nodata_of, wkt2
from special_steps.io.record import Source, Window
from special_steps.io.wavelengths import stated_bands

# level and content, version, time of acquisition
NAME = re.compile(r"EMIT_(L2A_RFL|L1B_RAD|L2A_MASK)_(\d{3})_(\d{8}T\d{6}).*\.nc4?", re.IGNORECASE)
MAIN = ("L2A_RFL", "L1B_RAD")  # reflectance first: taken where a folder has both
TABLE = ("location/glt_y", "location/glt_x")
# V002 has two cloud flags: by thresholds, and by the network SpecTf; either counts
FLAGS = {
    "cloud": ("cloud flag", "spectf-cloud flag"),
    "cirrus": ("cirrus flag",),
    "water": ("water flag",),
    "spacecraft": ("spacecraft flag",),
    "dilated_cloud": ("dilated cloud flag",),
}


def files_of(path: Path) -> list[Path]:
    """The reflectance (or radiance) file and the mask beside it; [] when `path` is not one or a folder with one.

    Of several versions of the same acquisition the highest counts.

    Raises:
        UserError: for a folder with several acquisitions.
    """
    is_folder = path.is_dir()
    folder = path if is_folder else path.parent
    if not (is_folder or (NAME.fullmatch(path.name) and folder.is_dir())):
        return []
    named = {folder / n: m for n in names_in(folder) if (m := NAME.fullmatch(n))}
    if is_folder:
        mains = [p for p, m in named.items() if m[1].upper() in MAIN]
        times = sorted({named[p][3].upper() for p in mains})
        if len(times) > 1:
            raise UserError(
                f"{path}: holds {len(times)} EMIT acquisitions, {times[0]}, {times[1]} ...; give one file"
            )
        mains.sort(key=lambda p: (-MAIN.index(named[p][1].upper()), named[p][2]))
        if not mains:
            return []
        path = mains[-1]
    found = named.get(path)
    if found is None or found[1].upper() not in MAIN:
        return []
    masks = [
        (m[2], p)
        for p, m in named.items()
        if m[1].upper() == "L2A_MASK" and m[3].upper() == found[3].upper()
    ]
    return [path, *([max(masks)[1]] if masks else [])]


def holds(file: Any) -> bool:
    """Whether an open HDF5 file is EMIT reflectance or radiance, whatever its name."""
    return (
        all(name in file for name in TABLE)
        and "sensor_band_parameters/wavelengths" in file
        and _content(file) is not None
    )


def _content(file: Any) -> str | None:
    return next(
        (n for n in ("reflectance", "radiance") if len(getattr(file.get(n), "shape", ())) == 3), None
    )  # fmt: skip


def open_product(path: Path) -> Source:
    """Open a file (of any name), or a folder with one, as a map.

    Raises:
        UserError: for a damaged or incomplete file, and for a mask of another image.
    """
    files = files_of(path) or [path]
    if files[0].is_dir():
        raise UserError(f"{path}: no EMIT_L2A_RFL_*.nc or EMIT_L1B_RAD_*.nc in this folder")
    main = files[0]
    with open_hdf5(main) as file:
        name = _content(file)
        if name is None:
            raise UserError(
                f"{main}: no 'reflectance' or 'radiance' (downtrack, crosstrack, bands) in the file;"
                " it may be cut, get it again"
            )
        image = dataset(file, name)
        lines, samples, bands = image.shape
        nodata = nodata_of(image) or (-9999.0,)
        centres = dataset(file, "sensor_band_parameters/wavelengths")
        fwhm = file.get("sensor_band_parameters/fwhm")
        good = file.get("sensor_band_parameters/good_wavelengths")
        stated: dict[str, Any] = stated_bands(
            centres[()], None if fwhm is None else fwhm[()], text(centres.attrs.get("units", "nm")), bands, str(main)
        )  # fmt: skip
        doubts = dict(stated.pop("doubts"))
        good_bands = None if good is None or good.shape != (bands,) else good[()] == 1
        corner = numbers(file.attrs.get("geotransform", ()))
        crs = wkt2(text(file.attrs.get("spatial_ref", "")))
        units = text(image.attrs.get("units", ""))
    if len(corner) != 6:
        doubts["transform"] = (
            f"{main}: no attribute 'geotransform' of 6 numbers; get the file again"
        )
    if crs is None:
        doubts["crs"] = f"{main}: no attribute 'spatial_ref' that is a CRS; get the file again"
    lookup = open_lookup(main, *TABLE, (lines, samples))
    notes = stated.pop("notes")
    if name == "radiance":
        notes += (
            f"{main}: values are radiances ({units or 'units not stated'}), not reflectances",
        )
    return Source(
        files,
        (bands, *lookup.shape),
        on_map(lookup, main, name, band_first=False, fill=nodata[0]),
        good_bands=good_bands,
        nodata=nodata,
        masked=lookup.masked,
        quality=_quality(lookup, files[1]) if files[1:] else {},
        crs=crs,
        transform=tuple(float(corner[i]) for i in (1, 2, 0, 4, 5, 3)) if len(corner) == 6 else None,
        doubts=doubts,
        notes=notes,
        kind="EMIT L2A" if name == "reflectance" else "EMIT L1B",
        **stated,
    )


def _quality(lookup: Lookup, mask: Path) -> dict[str, Window]:
    """The flags that a mask file has; their order differs between versions, so by name.

    `mask` is (downtrack, crosstrack, bands) float32, 1 where a flag holds, -9999 where nothing was measured.
    """
    with open_hdf5(mask) as file:
        shape = dataset(file, "mask").shape
        bands = dataset(file, "sensor_band_parameters/mask_bands")[()]
    if shape[:2] != (lookup.lines, lookup.samples):
        raise UserError(
            f"{mask}: a mask of {shape[:2]} pixels beside an image of {(lookup.lines, lookup.samples)};"
            " get both again, or move the mask away to do without it"
        )
    names = [" ".join(text(b).lower().split()) for b in np.ravel(bands)]
    found = {q: [names.index(f) for f in flags if f in names] for q, flags in FLAGS.items()}
    return {q: flag_on_map(lookup, mask, "mask", b, _is_one) for q, b in found.items() if b}


def _is_one(values: np.ndarray) -> np.ndarray:
    return np.asarray(values == 1)
