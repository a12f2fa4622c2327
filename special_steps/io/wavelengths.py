"""Wavelengths as files state them, in units or in the names of bands, in nm."""

import logging
import re
from collections.abc import Mapping, Sequence

import numpy as np

from special_steps.core.errors import UserError

log = logging.getLogger("special")

LENGTHS = {  # nm in one of them
    r"nm|nano.*": 1.0,
    r"um|µm|μm|micro.*|micron.*": 1e3,
    r"mm|milli.*": 1e6,
    r"cm|centi.*": 1e7,
    r"m|met(er|re)s?": 1e9,
    r"å|a|ang.*": 0.1,
}
# nm times one of them: the value falls as the wavelength rises
RECIPROCALS = {
    r"wave ?numbers?.*|cm-1|cm\^-1|1/cm|cm\^\(-1\)|cm⁻¹|/cm|kayser": 1e7,
    r"ghz|giga.*": 299_792_458.0,
    r"mhz|mega.*": 299_792_458_000.0,
    r"thz|tera.*": 299_792.458,
}
UNSTATED = r"|unknown|none|undefined|unspecified|n/?a|unitless|-"
SETTING = "give them in nm in scenes.<name>.cube.wavelengths"


def to_nm(values: np.ndarray, units: str | None, where: str) -> np.ndarray | None:
    """Convert wavelengths to nm.

    Where no unit is stated, numbers that are all below 100 are micrometres (no imaging spectrometer measures at 100 nm,
    none at 100 micrometres): the only guess, and it is logged.

    Args:
        values: (band,), also with axes of length 1, as MATLAB stores vectors; 0 and NaN stand for "not known".
        units: such as "Nanometers", "um", "cm-1", "Index"; None where nothing is said.
        where: file, and variable, for messages.

    Returns:
        (band,) float64, NaN where not known; None when the numbers are said to be no wavelengths ("Index").

    Raises:
        UserError: for numbers that are no wavelengths in this unit, and units that are not of wavelengths.
    """
    values = np.asarray(values, np.float64).ravel()
    unit = " ".join((units or "").strip().lower().split())
    if unit.startswith("index"):
        return None
    numbered = is_numbering(values)
    known = np.isfinite(values) & (values != 0)
    if not known.any():
        raise UserError(f"{where}: all wavelengths are 0 or NaN; {SETTING}")
    if numbered:
        raise UserError(
            f"{where}: the 'wavelengths' {values[0]:g}, {values[1]:g}, ... {values[-1]:g} are the"
            f" bands' numbers, no wavelengths; {SETTING}"
        )
    values = np.where(known, values, np.nan)
    if np.nanmin(values) < 0:
        raise UserError(f"{where}: wavelength {np.nanmin(values):g} is negative; {SETTING}")
    factor = next((f for name, f in LENGTHS.items() if re.fullmatch(name, unit)), None)
    reciprocal = next((f for name, f in RECIPROCALS.items() if re.fullmatch(name, unit)), None)
    if factor is not None:
        nm = values * factor
    elif reciprocal is not None:
        nm = reciprocal / values
    elif re.fullmatch(UNSTATED, unit):
        nm = _in_unstated_unit(values, where)
    else:
        raise UserError(
            f"{where}: wavelengths in '{(units or '')[:40]}', which is no unit known here; {SETTING}"
        )
    low, high = np.nanmin(nm), np.nanmax(nm)
    if low < 100 or high > 100_000:
        raise UserError(
            f"{where}: wavelengths from {np.nanmin(values):g} to {np.nanmax(values):g}"
            f" {(units or 'of no stated unit').strip()[:40]} are none (a wrong unit, or two units mixed);"
            f" {SETTING}"
        )
    return nm


def is_unit(text: str) -> bool:
    """Whether a text is a unit of wavelengths that is known here."""
    unit = " ".join(text.lower().split())
    return any(re.fullmatch(name, unit) for name in (*LENGTHS, *RECIPROCALS))


def _in_unstated_unit(values: np.ndarray, where: str) -> np.ndarray:
    low, high = np.nanmin(values), np.nanmax(values)
    if high < 100 and len(values) > 2 and (np.abs(np.diff(values)) == 1).all():
        raise UserError(
            f"{where}: the 'wavelengths' {values[0]:g}, {values[1]:g}, ... {values[-1]:g} of no stated unit"
            f" look like bands' numbers; {SETTING}"
        )
    if high < 100:
        log.info("%s: no wavelength unit stated; numbers below 100, so taken as micrometres", where)
        return values * 1000
    if low < 100:
        raise UserError(
            f"{where}: wavelengths from {low:g} to {high:g} of no stated unit: two units mixed? {SETTING}"
        )
    log.info("%s: no wavelength unit stated; taken as nanometres", where)
    return values


def is_numbering(values: np.ndarray) -> bool:
    """Whether numbers count the bands: 0, 1, 2, ... or 1, 2, 3, ..., or the same backwards."""
    ends, steps = (values[0], values[-1]) if len(values) > 2 else (np.nan, np.nan), np.diff(values)
    return min(ends) in (0, 1) and bool((steps == 1).all() or (steps == -1).all())


def widths_in_nm(
    fwhm: np.ndarray, wavelengths: np.ndarray, nm: np.ndarray, units: str | None
) -> np.ndarray:
    """Widths of bands, stated in the unit of their centres `wavelengths`, in nm.

    Where the unit is a reciprocal one (wavenumbers), the width in nm follows from the derivative at the centre.
    """
    unit = " ".join((units or "").strip().lower().split())
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = np.abs(nm / wavelengths)
        if any(re.fullmatch(name, unit) for name in RECIPROCALS):
            return np.asarray(fwhm * slope)
        linear = np.nanmedian(slope)
    return np.asarray(fwhm * linear)


def stated_bands(
    wavelengths: np.ndarray | None,
    fwhm: np.ndarray | None,
    units: str | None,
    bands: int | None,
    where: str,
) -> dict[str, object]:
    """What a file says of its bands' centres and widths, as fields of a Source.

    Args:
        wavelengths: as stated, None where nothing is.
        fwhm: in the same unit.
        units: see `to_nm`.
        bands: how many the file has; None where that is not known yet.
        where: file, for messages.

    Returns:
        wavelengths (None where they cannot be used, and `doubts` says why), fwhm, doubts, notes.
    """
    doubts: dict[str, str] = {}
    notes: tuple[str, ...] = ()
    nm = None
    if wavelengths is not None:
        try:
            if bands is not None and len(wavelengths) != bands:
                raise UserError(
                    f"{where}: {len(wavelengths)} wavelengths for {bands} bands; {SETTING}"
                )
            nm = to_nm(wavelengths, units, where)
        except UserError as error:
            doubts["wavelengths"] = str(error)
    widths = None
    if fwhm is not None and bands is not None and len(fwhm) != bands:
        notes = (f"{where}: {len(fwhm)} values of fwhm for {bands} bands; they are left out",)
    elif fwhm is not None and nm is not None and wavelengths is not None:
        widths = widths_in_nm(fwhm, np.ravel(wavelengths), nm, units)
        known = np.isfinite(widths) & np.isfinite(nm)
        if not known.any() or not np.median(widths[known]) > 0.01 or (widths >= nm)[known].any():
            shown = f"{np.min(fwhm):g} to {np.max(fwhm):g}"
            notes = (f"{where}: fwhm of {shown} are no widths of such bands; they are left out",)
            widths = None
    return {"wavelengths": nm, "fwhm": widths, "doubts": doubts, "notes": notes}


def wavelengths_in_names(names: Sequence[str | None], where: str) -> np.ndarray | None:
    """Wavelengths (nm) in band names that end like "(426.820007)" or "(418.24 Nanometers)", or are like "550 nm".

    None when not all do.
    """
    ends = r"\(([\d.]+)\s*([^\d\s()]*)\)\s*$"
    alone = r"(?<![\d.–-])([\d.]+)\s*(nm|nanometers?|um|µm|μm|micrometers?)\s*$"  # but no range
    found = [
        m
        for name in names
        if (m := re.search(ends, name or "") or re.search(alone, name or "", re.IGNORECASE))
    ]
    if not found or len(found) < len(names) or len({m.group(2).lower() for m in found}) > 1:
        return None
    texts = [m.group(1) for m in found]
    unit = found[0].group(2)
    try:
        values = np.array([float(t) for t in texts])
        # a bare whole number in brackets is as likely a band's number, and small ones may be anything: widths, shares
        small = values.max() < 100 and not (np.diff(values) > 0).all()
        if not unit and (small or not all("." in t for t in texts)):
            return None
        return to_nm(values, unit, where)
    except (ValueError, UserError):
        return None


def merged(*stated: Mapping[str, object]) -> dict[str, object]:
    """Fields of a Source from several places of a file: the first that states one counts; all notes are kept.

    A doubt counts only where no place states the field in a way that can be used.
    """
    found: dict[str, object] = {}
    doubts: dict[str, str] = {}
    notes: list[str] = []
    for place in stated:
        for name, value in place.items():
            if name == "doubts":
                doubts = {**value, **doubts}  # type: ignore[dict-item]
            elif name == "notes":
                notes += [n for n in value if n not in notes]  # type: ignore[attr-defined]
            elif found.get(name) is None:
                found[name] = value
    doubts = {name: why for name, why in doubts.items() if found.get(name) is None}
    return found | {"doubts": doubts, "notes": tuple(notes)}
