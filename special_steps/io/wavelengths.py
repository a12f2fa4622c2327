"""Wavelengths as files state them, in units or in the names of bands, in nm."""

import logging
import re
from collections.abc import Sequence

import numpy as np

from special_steps.core.errors import UserError

log = logging.getLogger("special")


def to_nm(values: np.ndarray, units: str | None, where: str) -> np.ndarray | None:
    """Convert wavelengths to nm.

    Where no unit is stated, numbers that are all below 100 are micrometres (no imaging spectrometer measures at 100 nm,
    none at 100 micrometres): the only guess, and it is logged.

    Args:
        values: (band,), also with axes of length 1, as MATLAB stores vectors.
        units: such as "Nanometers", "um", "Index"; None where nothing is said.
        where: file, and variable, for messages.

    Returns:
        (band,) float64; None when the numbers are said to be no wavelengths ("Index").

    Raises:
        UserError: for units that are no lengths, or unusual ones.
    """
    values = np.asarray(values, np.float64).ravel()
    unit = (units or "").strip().lower()
    if unit.startswith(("nano", "nm")):
        return values
    if unit.startswith(("micro", "um", "µm", "μm")):
        return values * 1000
    if unit.startswith("index"):
        return None
    if unit.startswith(("wavenumber", "ghz", "mhz", "angstrom", "milli", "cent", "meter")):
        raise UserError(f"{where}: wavelengths in '{units}'; give them in nm in the config")
    if values.size and np.nanmax(values) < 100:
        log.info("%s: no wavelength unit stated; numbers below 100, so taken as micrometres", where)
        return values * 1000
    log.info("%s: no wavelength unit stated; taken as nanometres", where)
    return values


def bands_in_nm(
    wavelengths: np.ndarray | None, fwhm: np.ndarray | None, units: str | None, where: str
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Centres and widths of bands, stated in the same unit, in nm; widths only where there are centres."""
    nm = None if wavelengths is None else to_nm(wavelengths, units, where)
    if nm is None or wavelengths is None or fwhm is None:
        return nm, None
    return nm, fwhm * (nm[0] / wavelengths[0])


def wavelengths_in_names(names: Sequence[str | None], where: str) -> np.ndarray | None:
    """Wavelengths (nm) in band names that end like "(426.820007)" or "(418.24 Nanometers)"; None when not all do."""
    found = [
        m for name in names if (m := re.search(r"\(([\d.]+)\s*([^\d\s()]*)\)\s*$", name or ""))
    ]
    if not found or len(found) < len(names):
        return None
    texts = [m.group(1) for m in found]
    unit = found[0].group(2)
    # a bare whole number in brackets is as likely a band's number
    if not unit and not all("." in t for t in texts):
        return None
    try:
        values = np.array([float(t) for t in texts])
    except ValueError:
        return None
    return to_nm(values, unit, where)
