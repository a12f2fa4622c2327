"""ENVI scenes: a text header and a binary file of values beside it.

Format: https://www.nv5geospatialsoftware.com/docs/ENVIHeaderFiles.html
"""

import difflib
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from special_steps.core.errors import UserError, one_line
from special_steps.io.envi_header import DATA_TYPES, TWICE, numbers_in, read_envi_header
from special_steps.io.folders import names_by_lower_case
from special_steps.io.map_info import corners_transform
from special_steps.io.record import Source, reading
from special_steps.io.wavelengths import UNSTATED, stated_bands, wavelengths_in_names

DATA_SUFFIXES = (
    "",
    ".img",
    ".dat",
    ".raw",
    ".bsq",
    ".bil",
    ".bip",
    ".bin",
    ".envi",
    ".sli",
    ".cub",
)
PLACE = ("map info", "projection info", "coordinate system string")  # fields that say where it lies
READ = (  # fields whose misspelling would go unnoticed
    "wavelength", "wavelength units", "data ignore value", "reflectance scale factor", "data gain values",
    "data offset values", "map info",
)  # fmt: skip
SETTINGS = ("wavelengths", "nodata", "scale")  # that the config has too
LAYOUTS = {  # axes of the stored array as (band, line, sample) letters, and what makes it (band, y, x)
    "bsq": ("bls", (0, 1, 2)),
    "bil": ("lbs", (1, 0, 2)),
    "bip": ("lsb", (2, 0, 1)),
}


def find_pair(path: Path) -> tuple[Path | None, Path | None]:
    """Find (header, data file) from either of the two, upper or lower case; None for what is not there.

    `scene.img.hdr` belongs to `scene.img`; `scene.hdr` to `scene` or a data file `scene.*` without a header of its own.

    Raises:
        UserError: when several data files fit a header.
    """
    beside = _names(path.parent)
    if path.suffix.lower() != ".hdr":
        for name in (f"{path.name}.hdr", f"{path.stem}.hdr"):
            headers = [n for n in beside.get(name.lower(), []) if path.with_name(n).is_file()]
            if headers:
                return _pick(path, headers), path
        return None, path
    stem = path.stem
    fitting = []
    for suffix in DATA_SUFFIXES:
        found = [path.with_name(name) for name in beside.get(f"{stem}{suffix}".lower(), [])]
        found = [file for file in found if file.is_file() and file != path]
        if suffix == "" and found:
            return path, _pick(path, [file.name for file in found])
        own = beside.get(f"{stem}{suffix}.hdr".lower(), [])
        own = [name for name in own if path.with_name(name).is_file()]
        if suffix and own and path.name not in own:
            continue
        fitting += found
    fitting = [file for file in fitting if file.stem == stem] or fitting
    if len(fitting) > 1:
        raise UserError(
            f"{path}: which data file belongs to this header, {' or '.join(f.name for f in fitting)}?"
            " Give that data file as path"
        )
    return path, fitting[0] if fitting else None


def _names(folder: Path) -> Mapping[str, Sequence[str]]:
    """Names in a folder by their lower-case form; nothing where it cannot be listed."""
    try:
        return names_by_lower_case(folder)
    except OSError:
        return {}


def _pick(path: Path, names: Sequence[str]) -> Path:
    """Of names that differ in case only, the one written like `path`."""
    alike = [name for name in names if name[: len(path.stem)] == path.stem]
    return path.with_name((alike or names)[0])


def open_envi(header: Path, data: Path | None) -> Source:
    """Read an ENVI header; values come from a memory map of the data file.

    Raises:
        UserError: for a header that does not describe the data, for compressed data and spectral libraries.
    """
    fields = read_envi_header(header)
    if "library" in fields.get("file type", "").lower():
        raise UserError(
            f"{header}: a spectral library, no scene; give it in scenes.<name>.spectra, by class"
        )
    if data is None or not data.is_file():
        alike = [f for f in header.parent.glob("*") if f.stem == header.stem and f != header]
        others = [f.name for f in sorted(alike) if f.is_file() and f.suffix.lower() != ".hdr"]
        raise UserError(
            f"{header}: no data file beside this header (tried {', '.join(DATA_SUFFIXES[1:])} and"
            f" no suffix); give the data file as path{': ' + ' or '.join(others) if others else ''}"
        )
    sizes = {name: _whole(fields, name, header) for name in ("samples", "lines", "bands")}
    for name, size in sizes.items():
        if size < 1:
            raise UserError(f"{header}: {name} = {size}; write how many the data file has")
    offset = _whole(fields, "header offset", header, 0)
    kind = _whole(fields, "data type", header)
    if kind in (6, 9):
        raise UserError(f"{header}: data type {kind}: complex values; give real reflectances")
    if kind not in DATA_TYPES:
        raise UserError(
            f"{header}: data type {kind} is not one of {sorted(DATA_TYPES)}; convert it"
        )
    if "interleave" not in fields:
        raise UserError(
            f"{header}: no field 'interleave'; write how the bands lie in the data: bsq, bil or bip"
        )
    interleave = fields["interleave"].lower()
    if interleave not in LAYOUTS:
        raise UserError(
            f"{header}: interleave '{interleave[:40]}' is not one of bsq, bil, bip; fix it"
        )
    if fields.get("file compression", "0") not in ("", "0"):
        raise UserError(f"{data}: the data file is compressed; uncompress it")
    dtype = np.dtype(DATA_TYPES[kind])
    order = _whole(fields, "byte order", header, None if dtype.itemsize > 1 else 0)
    if order not in (0, 1):
        raise UserError(
            f"{header}: byte order = {order}; write 0 (little-endian) or 1 (big-endian)"
        )
    dtype = dtype.newbyteorder("big" if order else "little")
    letters, axes = LAYOUTS[interleave]
    lengths = {"b": sizes["bands"], "l": sizes["lines"], "s": sizes["samples"]}
    stored = tuple(lengths[letter] for letter in letters)
    major, minor = (_frame(fields, f"{name} frame offsets", header) for name in ("major", "minor"))
    inner = sum(minor) + stored[2] * dtype.itemsize
    outer = sum(major) + stored[1] * inner
    size, needed = data.stat().st_size, offset + stored[0] * outer
    if size != needed:
        wrong = "cut short" if size < needed else "longer than that"
        raise UserError(
            f"{data}: the file has {size} bytes, but {header.name} describes {needed}: {wrong};"
            " get the file again, or correct samples, lines, bands, data type or header offset"
        )
    first = offset + major[0] + minor[0]

    def read(rows: slice, columns: slice) -> np.ndarray:
        with reading(data):
            raw = np.memmap(data, np.uint8, "r")
            framed = np.ndarray(stored, dtype, raw, first, (outer, inner, dtype.itemsize))
            window = framed.transpose(axes)[:, rows, columns]
            return np.array(window, dtype.newbyteorder("="), order="C")

    stated = stated_by(fields, header, sizes["bands"])
    place = _georeference(fields, header)
    notes = (*stated.pop("notes"), *place.pop("notes"))
    shape = (sizes["bands"], sizes["lines"], sizes["samples"])
    return Source([data, header], shape, read, kind="ENVI", notes=notes, **stated, **place)


def _whole(fields: Mapping[str, str], name: str, header: Path, default: int | None = None) -> int:
    """A field's whole number."""
    text = fields.get(name, "")
    if not text and default is not None:
        return default
    try:
        value = int(text)
    except ValueError as error:
        stated = f"'{text[:40]}' is no whole number" if text else "is missing"
        raise UserError(f"{header}: field '{name}' {stated}; write the right one") from error
    if value < 0:
        raise UserError(f"{header}: {name} = {value} is negative; write the right one")
    return value


def _frame(fields: Mapping[str, str], name: str, header: Path) -> tuple[int, int]:
    """Bytes before and after each frame of the data."""
    try:
        values = [int(v) for v in numbers_in(fields.get(name, "") or "0 0")]
    except (ValueError, OverflowError) as error:
        raise UserError(f"{header}: field '{name}' holds no whole numbers; fix it") from error
    if len(values) != 2 or min(values) < 0:
        raise UserError(f"{header}: field '{name}' must hold two byte counts, before and after")
    return values[0], values[1]


def stated_by(fields: Mapping[str, str], where: Path, bands: int | None = None) -> dict[str, Any]:
    """What an ENVI header's fields say of bands and values, as fields of a Source; always with doubts and notes.

    Args:
        fields: as `parse_envi_header` gives them.
        where: the file that they come from.
        bands: how many bands the data have; None where that is not known.
    """
    doubts: dict[str, str] = {}
    notes: list[str] = []

    def numbers(name: str, field: str) -> np.ndarray | None:
        """A list's numbers; None when it is missing, empty or (a doubt about `field`) no numbers."""
        if not fields.get(name):
            return None
        try:
            return np.array(numbers_in(fields[name]), np.float64)
        except ValueError:
            shown = " ".join(fields[name].split())
            shown = TWICE[1:-1] if shown.endswith(TWICE) else shown[:40]
            fix = f"; give them in scenes.<name>.cube.{field}" if field in SETTINGS else ""
            doubts[field] = f"{where}: field '{name}' is not a list of numbers ({shown}){fix}"
            return None

    found = stated_bands(
        numbers("wavelength", "wavelengths"),
        numbers("fwhm", "fwhm"),
        fields.get("wavelength units"),
        bands,
        str(where),
    )
    doubts.update(dict(found["doubts"]))  # type: ignore[call-overload]
    notes += found["notes"]  # type: ignore[arg-type]
    result: dict[str, Any] = {"wavelengths": found["wavelengths"], "fwhm": found["fwhm"]}
    if result["wavelengths"] is None and fields.get("band names"):
        result["wavelengths"] = wavelengths_in_names(fields["band names"].split(","), str(where))
    bbl = numbers("bbl", "good_bands")
    if bbl is not None and bands is not None and len(bbl) != bands:
        notes.append(
            f"{where}: bbl has {len(bbl)} values for {bands} bands; it is left out, so name bad bands"
            " in cube.drop_bands or cube.bad_ranges"
        )
    elif bbl is not None:
        result["good_bands"] = bbl > 0
    result |= _scaling(fields, where, bands, numbers, doubts)
    ignored = fields.get("data ignore value", "")
    if re.fullmatch(r"-?[1-9]\d{0,2}(,\d{3})+(\.\d*)?", ignored):
        doubts["nodata"] = (
            f"{where}: data ignore value = {ignored}: one number or several? Give it, or a list of them,"
            " in scenes.<name>.cube.nodata"
        )
    elif not re.fullmatch(UNSTATED, ignored.lower()):
        nodata = numbers("data ignore value", "nodata")
        result["nodata"] = None if nodata is None else tuple(float(v) for v in nodata)
    for name in ("fwhm", "good_bands"):  # nothing needs them
        if name in doubts:
            notes.append(f"{doubts.pop(name)}; it is left out")
    for name in fields:
        alike = [] if name in READ else difflib.get_close_matches(name, READ, 1, 0.85)
        if alike and alike[0] not in fields:
            notes.append(
                f"{where}: field '{name}' is not known; if it is '{alike[0]}', write it so"
            )
    if any(fields.get(f"data reflectance {name} values") for name in ("gain", "offset")):
        notes.append(
            f"{where}: 'data reflectance gain values' are not used, so values are not those reflectances;"
            " convert them where they are wanted"
        )
    stated = {name: value for name, value in result.items() if value is not None}
    doubts = {name: why for name, why in doubts.items() if stated.get(name) is None}
    return stated | {"doubts": doubts, "notes": tuple(notes)}


def _scaling(
    fields: Mapping[str, str], where: Path, bands: int | None, numbers: Any, doubts: dict[str, str]
) -> dict[str, Any]:
    """Scale and offset: ENVI's gains multiply stored values, its reflectance scale factor divides them."""
    factor = numbers("reflectance scale factor", "scale")
    gain = numbers("data gain values", "scale")
    offset = numbers("data offset values", "scale")
    why = None
    for name, values in (("data gain values", gain), ("data offset values", offset)):
        if values is not None and bands is not None and len(values) not in (1, bands):
            why = f"{where}: {len(values)} {name} for {bands} bands"
    if factor is not None and not (len(factor) == 1 and np.isfinite(factor[0]) and factor[0] > 0):
        why = f"{where}: reflectance scale factor = {fields['reflectance scale factor']}"
    if gain is not None and not (np.isfinite(gain).all() and (gain != 0).all()):
        why = f"{where}: data gain values hold 0 or no number"
    if offset is not None and not np.isfinite(offset).all():
        why = f"{where}: data offset values hold what is no number"
    trivial = (gain is None or (gain == 1).all()) and (offset is None or (offset == 0).all())
    if factor is not None and not trivial:
        why = f"{where}: both gains (or offsets) and a reflectance scale factor are stated"
    if why:
        doubts["scale"] = (
            f"{why}; say in scenes.<name>.cube.scale what stored values are divided by (1: nothing)"
        )
    if "scale" in doubts:
        return {}
    if not trivial:
        return {
            "scale": 1.0 if gain is None else 1 / _one_or_all(gain, bands),
            "offset": 0.0 if offset is None else _one_or_all(offset, bands),
        }
    return {} if factor is None else {"scale": float(factor[0]), "offset": 0.0}


def _one_or_all(values: np.ndarray, bands: int | None) -> np.ndarray:
    return np.repeat(values, bands) if len(values) == 1 and bands else values


def _georeference(fields: Mapping[str, str], header: Path) -> dict[str, Any]:
    """CRS as GDAL understands the header's fields, whatever the data file looks like; transform as ENVI defines it."""
    import warnings

    import rasterio

    place = {name: fields[name] for name in PLACE if fields.get(name)}
    if "map info" not in place:
        other = [name for name in ("geo points", "rpc info") if fields.get(name)]
        notes = [
            f"{header}: no georeference: '{n}' is not used, only 'map info'" for n in other[:1]
        ]
        return {"notes": tuple(notes)}
    shown = " ".join(place["map info"].split())[:60]
    if any(value.endswith(TWICE) for value in place.values()):
        return {
            "notes": (
                f"{header}: no georeference: it is {TWICE[1:-1]} in different ways ({shown})",
            )
        }
    lines = [f"{name} = {{{' '.join(value.split())}}}" for name, value in place.items()]
    tiny = (
        "ENVI\nsamples = 1\nlines = 1\nbands = 1\ndata type = 1\ninterleave = bsq\nbyte order = 0\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder, "place.img")
        image.write_bytes(b"\0\0")  # GDAL takes one byte for no image
        image.with_suffix(".hdr").write_text(tiny + "\n".join(lines) + "\n", "utf-8")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
                with rasterio.open(image, driver="ENVI") as raster:
                    crs = raster.crs.to_wkt(version="WKT2_2019") if raster.crs else None
            transform = corners_transform(place["map info"].split(","))
        except (rasterio.errors.RasterioError, ValueError) as error:
            why = one_line(error).replace(str(image), header.name)
            return {"notes": (f"{header}: no georeference: 'map info' cannot be read ({why})",)}
    note = f"{header}: no coordinate system: 'map info' says {shown}"
    return {"crs": crs, "transform": transform, "notes": () if crs else (note,)}
