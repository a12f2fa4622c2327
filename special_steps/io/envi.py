"""ENVI scenes: a text header and a binary file of values beside it."""

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from special_steps.core.errors import UserError
from special_steps.io.envi_header import DATA_TYPES, parse_envi_header
from special_steps.io.raster import georeference
from special_steps.io.record import Source, reading
from special_steps.io.wavelengths import bands_in_nm, wavelengths_in_names

log = logging.getLogger("special")

DATA_SUFFIXES = ("", ".img", ".dat", ".raw", ".bsq", ".bil", ".bip", ".bin", ".envi")


def find_pair(path: Path) -> tuple[Path | None, Path | None]:
    """Find (header, data file) from either of the two; None for what is not there."""
    if path.suffix.lower() == ".hdr":
        stem = path.with_suffix("")
        suffixes = [*DATA_SUFFIXES, *(s.upper() for s in DATA_SUFFIXES if s)]
        candidates = (path.with_name(stem.name + suffix) for suffix in suffixes)
        return path, next((data for data in candidates if data.is_file()), None)
    for header in (path.with_name(path.name + ".hdr"), path.with_suffix(".hdr")):
        if header.is_file():
            return header, path
    return None, path


def open_envi(header: Path, data: Path | None) -> Source:
    """Read an ENVI header; values come from a memory map of the data file.

    Raises:
        UserError: for a header that does not describe the data, for compressed and truncated data.
    """
    fields = parse_envi_header(header.read_text(encoding="latin-1"), str(header))
    if data is None or not data.is_file():
        raise UserError(
            f"{header}: no data file beside this header (tried {', '.join(DATA_SUFFIXES[1:])} and"
            " no suffix); give the data file as path"
        )
    try:
        samples, lines, bands, kind = (
            int(fields[n]) for n in ("samples", "lines", "bands", "data type")
        )
        offset = int(fields.get("header offset", 0))
        interleave = fields.get("interleave", "bsq").lower()
        order = ">" if int(fields.get("byte order", 0)) else "<"
    except (KeyError, ValueError) as error:
        raise UserError(f"{header}: field missing or no whole number: {error}; fix it") from error
    if kind not in DATA_TYPES:
        raise UserError(
            f"{header}: data type {kind} is not one of {sorted(DATA_TYPES)}; convert it"
        )
    layouts = {  # stored shape, and the order of its axes that makes it (band, y, x)
        "bsq": ((bands, lines, samples), (0, 1, 2)),
        "bil": ((lines, bands, samples), (1, 0, 2)),
        "bip": ((lines, samples, bands), (2, 0, 1)),
    }
    if interleave not in layouts:
        raise UserError(f"{header}: interleave '{interleave}' is not one of bsq, bil, bip; fix it")
    if fields.get("file compression", "0") != "0":
        raise UserError(f"{data}: the data file is compressed; uncompress it")
    dtype = np.dtype(order + DATA_TYPES[kind])
    size, needed = data.stat().st_size, offset + samples * lines * bands * dtype.itemsize
    if size < needed:
        raise UserError(
            f"{data}: the file is truncated: {size} bytes, but {header.name} describes {needed};"
            " get it again"
        )
    stored, axes = layouts[interleave]

    def read(start: int, stop: int) -> np.ndarray:
        with reading(data):
            whole = np.memmap(data, dtype, "r", offset=offset, shape=stored).transpose(axes)
            return np.array(whole[:, start:stop], dtype.newbyteorder("="))

    crs, transform = georeference(data)
    stated = stated_by(fields, header) | {"crs": crs, "transform": transform}
    return Source([data, header], (bands, lines, samples), read, **stated)


def stated_by(fields: Mapping[str, str], where: Path) -> dict[str, Any]:
    """What an ENVI header's fields say of bands and values, as fields of a Source.

    Raises:
        UserError: for a field that should hold numbers and does not.
    """
    wavelengths, fwhm = bands_in_nm(
        _numbers(fields, "wavelength", where),
        _numbers(fields, "fwhm", where),
        fields.get("wavelength units"),
        str(where),
    )
    if wavelengths is None and fields.get("band names"):
        wavelengths = wavelengths_in_names(fields["band names"].split(","), str(where))
    if fields.get("data gain values") or fields.get("data offset values"):
        log.warning("%s: 'data gain values' and 'data offset values' are not applied", where)
    bbl = _numbers(fields, "bbl", where)
    scale = _numbers(fields, "reflectance scale factor", where)
    nodata = _numbers(fields, "data ignore value", where)
    return {
        "wavelengths": wavelengths,
        "fwhm": fwhm,
        "good_bands": None if bbl is None else bbl > 0,
        "scale": 1.0 if scale is None else float(scale[0]),
        "nodata": None if nodata is None else float(nodata[0]),
    }


def _numbers(fields: Mapping[str, str], name: str, where: Path) -> np.ndarray | None:
    """A field's numbers, None when it is not there or empty."""
    if not fields.get(name):
        return None
    try:
        return np.array([float(v) for v in re.split(r"[,\s]+", fields[name].strip(", \n"))])
    except ValueError as error:
        raise UserError(f"{where}: field '{name}' is not a list of numbers; fix it") from error
