"""Which spectra of a library lie nearest to the pixels of each class: what people can look at."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

BLOCK = 4096  # pixels at a time
LEAST = np.float32(1e-15)  # least length to divide by; radiance in large units is small


class Near(NamedTuple):
    """The pixels of a class, and what is nearest to them among the class's spectra."""

    share: float  # of all pixels
    angle: (
        float | None
    )  # degrees from a pixel to its nearest spectrum, the median; None without spectra or pixels
    materials: dict[
        str, float
    ]  # whose spectra are nearest, and to which share of the pixels; the most first
    mean: np.ndarray | None  # (band,) of the pixels
    spectrum: np.ndarray | None  # (band,) the nearest to the mean, made as bright as it
    material: str | None  # whose that is


def nearest(
    pixels: np.ndarray,
    labels: np.ndarray,
    library: Sequence[np.ndarray | None],
    owners: Sequence[Sequence[str]],
) -> list[Near]:
    """Look up, by spectral angle, which of its class's spectra is nearest to each pixel.

    Args:
        pixels: (pixel, band) float32, at any scale.
        labels: (pixel,) class of each, from 0.
        library: by class, (spectrum, band) float32; None: no spectra.
        owners: by class, each spectrum's material.
    """
    units = unit_length(pixels)
    found = []
    for k, known in enumerate(library):
        mine = np.flatnonzero(labels == k)
        share = len(mine) / len(pixels)
        mean = pixels[mine].mean(0) if len(mine) else None
        if known is None or mean is None:
            found.append(Near(share, None, {}, mean, None, None))
            continue
        directions = unit_length(known)
        best, cosines = np.empty(len(mine), np.intp), np.empty(len(mine), np.float32)
        for start in range(0, len(mine), BLOCK):
            part = slice(start, start + BLOCK)
            likeness = units[mine[part]] @ directions.T
            best[part], cosines[part] = likeness.argmax(1), likeness.max(1)
        counts = Counter(owners[k][i] for i in best.tolist())
        materials = {name: n / len(mine) for name, n in counts.most_common()}
        own = int((directions @ mean).argmax())
        spectrum = known[own] * (known[own] @ mean) / max(known[own] @ known[own], 1e-12)
        angle = float(np.degrees(np.median(np.arccos(np.clip(cosines, -1, 1)))))
        found.append(Near(share, angle, materials, mean, spectrum, owners[k][own]))
    return found


def unit_length(spectra: np.ndarray) -> np.ndarray:
    """Spectra (spectrum, band) float32 at any scale, each divided by its length."""
    lengths = np.sqrt(np.einsum("ij,ij->i", spectra, spectra))[:, None]
    return spectra / np.maximum(lengths, LEAST)
