"""A sample of reference points: what is drawn, and apart from it, what the map says there.

Who interprets the points shall not see the map's classes (Olofsson et al. 2014, section 4), but estimates need them:
they lie in a second file.
"""

import csv
import io
from pathlib import Path
from typing import NamedTuple

import numpy as np

from special_steps.core.atomic import atomic_write
from special_steps.core.errors import UserError

COLUMNS = ["id", "x", "y", "stratum", "stratum_pixels", "sample"]
OTHER = "other"  # a reference that is none of the map's classes


class Strata(NamedTuple):
    """How a sample was drawn."""

    ids: list[str]  # of each point
    x: np.ndarray  # (point,) in the CRS of the map that it was drawn from
    y: np.ndarray
    stratum: list[str]  # that map's class at each point
    pixels: dict[str, int]  # of that map, by class
    digest: str  # of that map


def strata_file(points: Path) -> Path:
    """Where the strata of a sample lie: beside its points."""
    return points.with_name(f"{points.stem}.strata.csv")


def write_strata(path: Path, strata: Strata) -> None:
    """Write how a sample was drawn."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(COLUMNS)
    for i, x, y, name in zip(strata.ids, strata.x, strata.y, strata.stratum, strict=True):
        writer.writerow(
            [i, repr(float(x)), repr(float(y)), name, strata.pixels[name], strata.digest]
        )
    with atomic_write(path) as file:
        file.write_text(table.getvalue(), encoding="utf-8")


def read_strata(path: Path) -> Strata:
    """Read how a sample was drawn.

    Raises:
        UserError: for a file that is missing or not as `write_strata` writes it.
    """
    if not path.is_file():
        raise UserError(
            f"{path}: no such file; give the .strata.csv that was written with the sample"
        )
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.DictReader(stream))
        ids = [row["id"] for row in rows]
        x, y = (np.array([float(row[key]) for row in rows]) for key in ("x", "y"))
        names = [row["stratum"] for row in rows]
        pixels = {row["stratum"]: int(row["stratum_pixels"]) for row in rows}
        digests = {row["sample"] for row in rows}
        if len(digests) != 1 or len(set(ids)) != len(ids):
            raise ValueError("rows of several samples, or none")
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise UserError(
            f"{path}: not as special_steps.reference_points writes it ({error}); draw the sample again with its"
            " --seed, or take the file from a copy"
        ) from error
    return Strata(ids, x, y, names, pixels, digests.pop())
