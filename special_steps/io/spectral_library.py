"""The spectral library of the package `earthlib`: reflectance spectra of materials, measured and modelled.

Simulated scenes and the evidence of spectra must not know the same spectra: a map of a simulated scene would then be
good by the circle alone. So the library is in two parts, and no source (a series of measurements, a place where soils
were taken) is in both.
"""

import csv
import zlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np

from special_steps.core.errors import UserError
from special_steps.io.envi_header import parse_envi_header

Row = dict[str, str]


def read_library(
    part: Literal["simulation", "evidence"],
) -> tuple[np.ndarray, np.ndarray, list[Row]]:
    """Read one of the library's two parts.

    Args:
        part: simulation: about a third of each material, by source, that scenes are simulated from; a material of one
            source is not in it. evidence: all else.

    Returns:
        Wavelengths (nm), reflectances (spectrum, wavelength) float32, and each spectrum's description.

    Raises:
        UserError: when the package is not installed, or is another version.
    """
    nm, spectra, rows = _read_all()
    chosen = reserved(rows) == (part == "simulation")
    return nm, spectra[chosen], [row for row, here in zip(rows, chosen, strict=True) if here]


def _read_all() -> tuple[np.ndarray, np.ndarray, list[Row]]:
    """The whole library from its data files; the package is not imported, for it imports more than they need."""
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


def source_of(row: Mapping[str, str]) -> str:
    """What a spectrum shares with its nearest relatives: its series of measurements, or the place.

    Soils of the ICRAF database and HyspIRI's field plots: the place (to 0.01 degree for plots: some metres lie between
    their spectra); where none is stated, ten neighbouring numbers of the database, which are mostly of one profile.
    All others: the name before its first dot ("fttrmm.004-" is of series fttrmm); canopies, modelled each with its
    own parameters, have none in common.
    """
    name, place = row["NAME"], (row["LAT"], row["LON"])
    if row["SOURCE"].startswith("icraf"):
        return name[:-1] if place in (("", ""), ("0", "0")) else "/".join(place)
    if row["SOURCE"] == "specevo":
        return "/".join(f"{float(degrees):.2f}" for degrees in place)
    return name if row["SOURCE"] == "prosail" else name.split(".")[0]


def reserved(rows: Sequence[Mapping[str, str]]) -> np.ndarray:
    """Which spectra are for simulation only, (spectrum,) bool.

    Sources are taken in the order of a hash of their names until a third of a material (LEVEL_3) is reserved. A source
    that would take more than half of a material stays with the evidence, and so does a material's only one. A source
    of two materials is wholly in one part. The order of `rows` does not matter.
    """
    members: dict[str, list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        members[source_of(row)].append(index)
    totals = Counter(row["LEVEL_3"] for row in rows)
    taken: Counter[str] = Counter()
    chosen = np.zeros(len(rows), bool)
    for source in sorted(members, key=lambda name: (zlib.crc32(name.encode()), name)):
        parts = Counter(rows[index]["LEVEL_3"] for index in members[source])
        if all(
            3 * taken[kind] < totals[kind] and 2 * (taken[kind] + number) <= totals[kind]
            for kind, number in parts.items()
        ):
            taken += parts
            chosen[members[source]] = True
    return chosen
