"""Mean spectra of a map's classes as a table: a row for each class and band."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from special_steps.core.atomic import atomic_write

COLUMNS = ["class", "wavelength_nm", "mean", "standard_deviation", "pixels", "good_band"]


class ClassSpectra(NamedTuple):
    """What the pixels of each class are like, in all bands of the scene."""

    wavelengths: np.ndarray  # (band,) float64, nm
    good: np.ndarray  # (band,) bool
    pixels: np.ndarray  # (class,) int64
    mean: np.ndarray  # (class, band) float64, the scene's values; NaN for a class without a pixel
    spread: np.ndarray  # (class, band) float64, standard deviation

    def good_bands(self) -> "ClassSpectra":
        """The same in the good bands only: what is drawn."""
        good = self.good
        mean, spread = self.mean[:, good], self.spread[:, good]
        return ClassSpectra(self.wavelengths[good], good[good], self.pixels, mean, spread)


def write_class_spectra(path: Path, class_names: Sequence[str], spectra: ClassSpectra) -> None:
    """Write the table; what is not known is left empty."""
    with atomic_write(path) as file, file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        for name, count, mean, spread in zip(
            class_names, spectra.pixels.tolist(), spectra.mean, spectra.spread, strict=True
        ):
            for nm, good, *values in zip(
                spectra.wavelengths, spectra.good, mean, spread, strict=True
            ):
                said = [f"{value:.9g}" if np.isfinite(value) else "" for value in values]
                writer.writerow([name, f"{nm:.10g}", *said, count, str(bool(good)).lower()])


def read_class_spectra(path: Path, class_names: Sequence[str]) -> ClassSpectra:
    """Read the table of these classes.

    Raises:
        ValueError: for a table of others.
    """
    with path.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    bands = len(rows) // max(len(class_names), 1)
    if [row["class"] for row in rows] != [name for name in class_names for _ in range(bands)]:
        raise ValueError(f"{path}: spectra of other classes than {list(class_names)}")
    first = rows[:bands]
    mean, spread = (
        np.array([float(row[key] or "nan") for row in rows]).reshape(-1, bands)
        for key in ("mean", "standard_deviation")
    )
    return ClassSpectra(
        np.array([float(row["wavelength_nm"]) for row in first]),
        np.array([row["good_band"] == "true" for row in first], bool),
        np.array([int(row["pixels"]) for row in rows[::bands]]),
        mean,
        spread,
    )
