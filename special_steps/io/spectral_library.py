"""The spectral library of the package `earthlib`: reflectance spectra of materials, measured and modelled."""

import csv
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from special_steps.core.errors import UserError
from special_steps.io.envi_header import parse_envi_header


def read_library() -> tuple[np.ndarray, np.ndarray, list[dict[str, str]]]:
    """Read the library from its data files; the package is not imported, for it imports more than they need.

    Returns:
        Wavelengths (nm), reflectances (spectrum, wavelength) float32, and each spectrum's description.

    Raises:
        UserError: when the package is not installed, or is another version.
    """
    found = find_spec("earthlib")
    if found is None or not found.submodule_search_locations:
        raise UserError(
            "the spectral library package 'earthlib' is not installed;"
            " make the environment again with envs/run.sh"
        )
    table = Path(found.submodule_search_locations[0], "data", "spectra.sli")
    try:
        header = parse_envi_header(table.with_name("spectra.sli.hdr").read_text(), str(table))
        nm = np.array([float(v) for v in header["wavelength"].split(",")]) * 1000
        spectra = np.fromfile(table, "<f4").reshape(int(header["lines"]), len(nm))
        with table.with_name("spectra.csv").open(newline="") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, KeyError, ValueError) as error:
        raise UserError(
            f"{table}: not earthlib 1.1's library ({error}); install that version"
        ) from error
    return nm, spectra, rows
