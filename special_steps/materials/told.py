"""What evidence says of a scene's classes, in words and lines: for pictures and pages."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from special_steps.io.class_spectra import ClassSpectra

RED, INFRARED = 670.0, 800.0  # nm, on both sides of the edge that green plants have between them
REACH = 30.0  # nm from there to a band
# A class's mean has the edge, its library's nearest not, or the other way round: difference of the normalised
# difference indices. Mixed and shadowed pixels move it by a tenth or two.
EDGE = 0.3
FARTHER = 6.0  # degrees that a class is farther from its own spectrum than from another class's
ALIKE = 8.0  # degrees: spectra under it have one shape; classes whose own spectra are so near are not told apart


class Nearest(NamedTuple):
    """The library's nearest spectrum to the pixels that it calls a class."""

    material: str
    wavelengths: np.ndarray  # (band,) nm
    values: np.ndarray  # (band,)


def read_evidence(files: Sequence[Path]) -> tuple[dict[str, dict[str, Any]], dict[str, Nearest]]:
    """What evidence found, by class.

    Args:
        files: the JSON and the CSV file that evidence writes, or none.

    Returns:
        What the JSON says of each class, and the nearest spectra. None of the latter where the library was compared
        with corrected values: beside the scene's own they would show nothing.
    """
    if not files:
        return {}, {}
    told = json.loads(files[0].read_text())
    classes = {one["class"]: one for one in told["classes"]}
    if told.get("units", {}).get("correction"):
        return classes, {}
    with files[1].open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    nearest: dict[str, Nearest] = {}
    for name in dict.fromkeys(row["class"] for row in rows):
        mine = [row for row in rows if row["class"] == name]
        nm, values = (
            np.array([float(row[key]) for row in mine]) for key in ("wavelength", "library")
        )
        nearest[name] = Nearest(mine[0]["material"], nm, values)
    return classes, nearest


def as_bright(near: Nearest, wavelengths: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """A library's spectrum (band,) at its own bands, made as bright as a class's mean (band,)."""
    there = np.interp(near.wavelengths, wavelengths, mean)
    size = float(there @ near.values / max(near.values @ near.values, 1e-30))
    return size * near.values


def nearest_words(one: Mapping[str, Any] | None) -> str:
    """The nearest materials of the library to what it calls a class, in a sentence or two."""
    if one is None:
        return ""
    if not one.get("spectra"):
        return (
            "The spectral library has no spectrum for this word, so it has no say about this class."
        )
    if not one.get("share"):
        return ""
    most = list(one["nearest"].items())[:3]
    near = ", ".join(f"{name.replace('_', ' ')} ({share:.0%})" for name, share in most)
    far = one["angle"]
    return f"Nearest materials: {near}. Typical angle to the nearest spectrum: {far:.0f}°" + (
        ", which is far." if far > 15 else "."
    )


def conflicts(
    class_names: Sequence[str], spectra: ClassSpectra, nearest: Mapping[str, Nearest]
) -> list[str]:
    """Where the mean of a class's pixels contradicts what the library knows of the class: a sentence each.

    Args:
        class_names: the classes.
        spectra: of the map, in good bands.
        nearest: what `read_evidence` found.
    """
    found = []
    for k, name in enumerate(class_names):
        if name not in nearest or not spectra.pixels[k]:
            continue
        mean, own = spectra.mean[k], nearest[name]
        material = own.material.replace("_", " ")
        more = _edge(spectra.wavelengths, mean) - _edge(own.wavelengths, own.values)
        if abs(more) > EDGE:
            has, has_not = ("has", "has not") if more > 0 else ("lacks", "has")
            found.append(
                f"what the map calls '{name}' {has} the red edge of green plants, which its nearest material in the"
                f" library ({material}) {has_not}: part of it may be something else"
            )
            continue
        angles = {other: _angle(spectra.wavelengths, mean, near) for other, near in nearest.items()}
        best = min(angles, key=angles.__getitem__)
        if angles[name] - angles[best] > FARTHER and angles[best] < ALIKE:
            found.append(
                f"what the map calls '{name}' looks more like '{best}'"
                f" ({nearest[best].material.replace('_', ' ')}, {angles[best]:.0f} degrees off) than like '{name}'"
                f" ({material}, {angles[name]:.0f} degrees): part of it may be '{best}'"
            )
    return found


def _edge(wavelengths: np.ndarray, values: np.ndarray) -> float:
    """The normalised difference over the red edge; NaN where bands lack, or are not positive."""
    both = []
    for nm in (RED, INFRARED):
        at = int(np.abs(wavelengths - nm).argmin())
        near = abs(wavelengths[at] - nm) <= REACH and values[at] > 0
        both.append(float(values[at]) if near else np.nan)
    red, infrared = both
    return (infrared - red) / (infrared + red)


def _angle(wavelengths: np.ndarray, mean: np.ndarray, near: Nearest) -> float:
    """Spectral angle between a mean and a library's spectrum, degrees."""
    there = np.interp(near.wavelengths, wavelengths, mean)
    cosine = there @ near.values / max(np.linalg.norm(there) * np.linalg.norm(near.values), 1e-30)
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))
