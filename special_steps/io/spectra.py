"""Users' own spectra: ENVI spectral libraries, tables, and the text files of ECOSTRESS (ASTER) and of the USGS."""

import csv
import logging
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from special_steps.core.errors import UserError
from special_steps.io.envi import stated_by
from special_steps.io.envi_header import DATA_TYPES, is_number, parse_envi_header
from special_steps.io.record import reading
from special_steps.io.wavelengths import SETTING, to_nm

log = logging.getLogger("special")

HIGHEST = 1.5  # reflectance: glittering things exceed 1, but not by more
FEW = 0.1  # part of a spectrum's bands that may be filled in
WIDEST = 200.0  # nm that may be filled in at once: the ranges of water vapour are up to 170 nm wide
PERCENT = re.compile(r"percent|[(\[]\s*%\s*[)\]]", re.IGNORECASE)
FRACTION = re.compile(r"[(\[]\s*(fraction|decimal|unitless|-)\s*[)\]]", re.IGNORECASE)


def read_spectra(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read spectra from a file of the user.

    Kinds of files, told apart by suffix and first lines:
    - ENVI spectral library: .sli with .hdr or .sli.hdr beside it; either is given;
    - ECOSTRESS or ASTER library: text whose lines "Name: ...", "X Units: ...", "Y Units: ..." come first;
    - USGS splib07: text with one line of title and a column of values, whose wavelengths are in a file of their own
      beside it or one folder up or two; splib06: three columns, wavelength first;
    - table: first column wavelengths, each further one a spectrum, a line of titles or none; separated by commas,
      semicolons (then with commas in numbers), tabs or blanks.

    Values that mark what is not there (NaN, empty, -1.23e34, -9999) are left out at the ends, and in between filled in
    linearly where they are few. Reflectances are fractions or percent as the file states; where it does not, the
    largest value decides, and a warning says so.

    Args:
        path: the file.

    Returns:
        Wavelengths (band,) nm, rising, float64; reflectances (spectrum, band) float64, as fractions from 0 to HIGHEST.

    Raises:
        UserError: for a file that is none of these, and for values that are no reflectances.
    """
    if not path.is_file():
        raise UserError(f"{path}: there is no such file of spectra; correct the path")
    if path.suffix.lower() in (".sli", ".hdr"):
        nm, spectra, scale = _read_envi(path)
    else:
        with reading(path):
            text = path.read_text(encoding="utf-8-sig", errors="replace")
        lines = [line for line in text.splitlines() if line.strip()]
        head = "\n".join(lines[:40])
        if re.search(r"^\s*X Units\s*:", head, re.MULTILINE | re.IGNORECASE):
            nm, spectra, scale = _read_ecostress(lines, path)
        elif lines and re.search(r"splib\d|USGS Digital Spectral Library", lines[0]):
            nm, spectra, scale = _read_usgs(lines, path)
        else:
            nm, spectra, scale = _read_table(lines, path)
    return _checked(nm, spectra, scale, path)


def _read_envi(path: Path) -> tuple[np.ndarray, np.ndarray, float | None]:
    """An ENVI spectral library: wavelengths (nm), values (spectrum, band), and what they are divided by, if stated."""
    if path.suffix.lower() == ".hdr":
        stem = path.with_suffix("")
        header, tables = path, [stem, *(stem.with_name(stem.name + s) for s in (".sli", ".SLI"))]
    else:
        headers = [path.with_name(path.name + ".hdr"), path.with_suffix(".hdr")]
        header, tables = next((h for h in headers if h.is_file()), headers[1]), [path]
    table = next((t for t in tables if t.is_file()), None)
    if not header.is_file() or table is None:
        raise UserError(
            f"{path}: an ENVI spectral library is two files, NAME.sli and NAME.hdr (or NAME.sli.hdr);"
            " put both into one folder"
        )
    fields = parse_envi_header(header.read_text(encoding="latin-1"), str(header))
    try:
        bands, number, kind = (int(fields[n]) for n in ("samples", "lines", "data type"))
        planes = int(fields.get("bands", 1))
        offset, order = int(fields.get("header offset", 0)), int(fields.get("byte order", 0))
    except (KeyError, ValueError) as error:
        raise UserError(f"{header}: field missing or no whole number: {error}; fix it") from error
    if kind not in DATA_TYPES or planes != 1:
        raise UserError(
            f"{header}: not a spectral library (data type {kind}, {planes} bands); save the spectra as"
            " one, or as CSV"
        )
    dtype = np.dtype((">" if order else "<") + DATA_TYPES[kind])
    values = np.fromfile(table, dtype, bands * number, offset=offset).astype(np.float64)
    if values.size < bands * number:
        raise UserError(
            f"{table}: the file is truncated: {values.size} values, but {header.name} describes"
            f" {number} spectra of {bands}; get it again"
        )
    stated = stated_by(fields, header)
    nm = stated.get("wavelengths")
    if nm is None:
        raise UserError(
            stated["doubts"].get("wavelengths", "").replace(SETTING, "correct the header")
            or f"{header}: states no wavelengths; add 'wavelength' and 'wavelength units'"
        )
    values[np.isin(values, stated.get("nodata", ()))] = np.nan
    scale = (
        stated["scale"] if fields.get("reflectance scale factor") and "scale" in stated else None
    )
    return nm, values.reshape(number, bands), scale


def _read_ecostress(
    lines: Sequence[str], path: Path
) -> tuple[np.ndarray, np.ndarray, float | None]:
    """A text file of the ECOSTRESS or ASTER library: "Name: value" lines, then two columns."""
    header: dict[str, str] = {}
    for line in lines:
        if found := re.match(r"\s*([A-Za-z][\w .-]*?)\s*:(.*)", line):
            header.setdefault(found[1].lower(), found[2].strip())
    quantity = header.get("y units", "").lower()
    if "reflect" not in quantity:
        raise UserError(f"{path}: 'Y Units: {quantity}' is no reflectance; take another file")
    unit = re.search(r"\((.*?)\)", header["x units"])
    table = _columns([_numbers(line.split()) for line in lines], path)[:, :2]
    nm = _nm(table[:, 0], unit[1] if unit else None, path)
    return nm, table[:, 1:].T, _scale_in(quantity)


def _read_usgs(lines: Sequence[str], path: Path) -> tuple[np.ndarray, np.ndarray, float | None]:
    """A text file of the USGS library: splib07 (values alone) or splib06 (wavelength, value, deviation); fractions."""
    table = _columns([_numbers(line.split()) for line in lines[1:]], path)
    if table.shape[1] > 1:
        return _nm(table[:, 0], None, path), table[:, 1:2].T, 1.0
    for folder in path.resolve().parents[:3]:
        for file in sorted(folder.glob("*avelengths*.txt")):
            with reading(file):
                text = file.read_text(errors="replace").splitlines()[1:]
            values = [numbers[0] for line in text if (numbers := _numbers(line.split()))]
            if len(values) == len(table):
                return _nm(np.array(values), None, file), table.T, 1.0
    raise UserError(
        f"{path}: a USGS spectrum's wavelengths are in a file of their own, such as"
        f" splib07a_Wavelengths_ASD_....txt; put the one with {len(table)} values beside it"
    )


def _read_table(lines: Sequence[str], path: Path) -> tuple[np.ndarray, np.ndarray, float | None]:
    """A table: wavelengths in the first column, a spectrum in each further one."""
    lines = [line for line in lines if not line.lstrip().startswith("#")]
    if not lines:
        raise UserError(f"{path}: the file is empty; give one with wavelengths and spectra")
    mark = next((m for m in (";", "\t", ",") if m in lines[-1]), None)
    if mark is None:
        cells = [line.split() for line in lines]
    else:
        cells = [[c.strip() for c in row] for row in csv.reader(lines, delimiter=mark)]
    if mark == ";":
        cells = [[c.replace(",", ".") if is_number(c.replace(",", ".")) else c for c in row]
                 for row in cells]  # fmt: skip
    titles = [] if is_number(cells[0][0]) else cells[0]
    rows = []
    for number, row in enumerate(cells[1:] if titles else cells, 1 + bool(titles)):
        if not all(is_number(c) or c.lower() in ("", "nan", "na", "n/a") for c in row):
            raise UserError(
                f"{path}: row {number} holds '{' '.join(row)[:60]}', not numbers alone; give a table"
                " with wavelengths in its first column and a spectrum in each other one"
            )
        rows.append([float(c) if is_number(c) else np.nan for c in row])
    table = _columns(rows, path)
    if table.shape[1] < 2:
        raise UserError(f"{path}: one column only; give wavelengths first, then spectra")
    first = titles[0].lower() if titles else ""
    unit = re.search(r"nanomet|micromet|micron|\bnm\b|\bum\b|µm|μm", first.replace("_", " "))
    nm = _nm(table[:, 0], unit[0] if unit else None, path)
    return nm, table[:, 1:].T, _scale_in(" ".join(titles[1:]))


def _numbers(words: Sequence[str]) -> list[float]:
    """A line's numbers; none when it holds anything else."""
    return [float(w) for w in words] if all(map(is_number, words)) else []


def _columns(rows: Sequence[Sequence[float]], path: Path) -> np.ndarray:
    """Rows as an array (row, column): those after the last one that holds no numbers (titles, a header)."""
    start = max((number for number, row in enumerate(rows, 1) if not row), default=0)
    lengths = {len(row) for row in rows[start:]}
    if len(rows) - start < 2 or len(lengths) > 1:
        raise UserError(
            f"{path}: no table of spectra: {len(rows) - start} rows of numbers, with"
            f" {' or '.join(map(str, sorted(lengths))) or 0} columns; give an ENVI library (.sli),"
            " CSV, or a text file of ECOSTRESS or the USGS"
        )
    return np.array(rows[start:], np.float64)


def _nm(values: np.ndarray, unit: str | None, path: Path) -> np.ndarray:
    """Wavelengths in nm, see `to_nm`; here the file itself is the place to correct them."""
    try:
        nm = to_nm(values, unit, str(path))
    except UserError as error:
        raise UserError(str(error).replace(SETTING, "write them in nm")) from error
    if nm is None:
        raise UserError(f"{path}: states an index instead of wavelengths; give them in nm")
    return nm


def _scale_in(text: str) -> float | None:
    """What values are divided by to be fractions, from words that state their unit; None where they do not."""
    if PERCENT.search(text):
        return 100.0
    return 1.0 if FRACTION.search(text) else None


def _checked(
    nm: np.ndarray, spectra: np.ndarray, scale: float | None, path: Path
) -> tuple[np.ndarray, np.ndarray]:
    """Wavelengths in rising order, spectra as whole fractions; see `read_spectra`."""
    if len(nm) != spectra.shape[1]:
        raise UserError(
            f"{path}: {len(nm)} wavelengths, but {spectra.shape[1]} values a spectrum; fix the file"
        )
    order = np.argsort(nm, kind="stable")
    nm, spectra = nm[order], spectra[:, order]
    if not (np.isfinite(nm).all() and nm[0] > 100) or len(nm) < 2:
        raise UserError(
            f"{path}: wavelengths from {nm[0]:g} to {nm[-1]:g} nm are none; the first column must be"
            " wavelengths in nm or micrometres"
        )
    if (np.diff(nm) == 0).any():
        twice = nm[1:][np.diff(nm) == 0][0]
        raise UserError(f"{path}: wavelength {twice:g} nm is there twice; take one of them out")
    with np.errstate(invalid="ignore"):
        # noise goes a little below 0; what is far below stands for "deleted"
        spectra = np.where((abs(spectra) < 1e30) & (spectra > -0.1 * (scale or 1)), spectra, np.nan)
    nm, spectra = _filled(nm, spectra, path)
    largest = float(spectra.max())
    if scale is None:
        scale = next((s for s in (1.0, 100.0, 10_000.0) if largest <= HIGHEST * s), None)
        if scale not in (None, 1.0):
            unit = "percent" if scale == 100 else "fractions times 10000"
            log.warning("%s: values up to %g, no unit stated; taken as %s", path, largest, unit)
    if scale is None or largest > HIGHEST * scale or largest <= 0:
        raise UserError(
            f"{path}: values up to {largest:g} are no reflectances; give fractions, or percent"
        )
    return nm, np.clip(spectra / scale, 0, HIGHEST)


def _filled(nm: np.ndarray, spectra: np.ndarray, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Without ends that not all spectra have, and with what is missing in between filled in, if it is little."""
    there = np.isfinite(spectra)
    if not there.any(1).all():
        number = int(np.argmin(there.any(1)))
        raise UserError(f"{path}: spectrum {number + 1} has no value; take it out")
    first, last = there.argmax(1).max(), len(nm) - there[:, ::-1].argmax(1).max()
    nm, spectra, there = nm[first:last], spectra[:, first:last], there[:, first:last]
    if len(nm) < 2:
        raise UserError(f"{path}: its spectra have no range in common; give a file for each")
    for number, (values, known) in enumerate(zip(spectra, there, strict=True), 1):
        if known.all():
            continue
        widest = float(np.diff(nm[known]).max())
        if known.mean() < 1 - FEW or widest > WIDEST:
            raise UserError(
                f"{path}: spectrum {number} lacks {(~known).sum()} of {len(nm)} values, up to {widest:.0f}"
                f" nm at once; give spectra that lack {100 * FEW:.0f} % at most, and {WIDEST:.0f} nm at once"
            )
        log.warning("%s: spectrum %d: %d values filled in", path, number, (~known).sum())
        values[~known] = np.interp(nm[~known], nm[known], values[known])
    return nm, spectra
