"""What the classes of the map look like in all bands: mean and spread of their pixels, as a table and a picture."""

import logging
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

from special_steps.core.atomic import atomic_write
from special_steps.core.cli import run
from special_steps.core.errors import UserError
from special_steps.core.palette import class_colours
from special_steps.core.panels import MOST, Panel, spectra_figure
from special_steps.core.prediction import check_reject, shown_labels
from special_steps.core.store import array_of, class_names, open_store, read_array, tile_rows
from special_steps.io.class_spectra import ClassSpectra, write_class_spectra
from special_steps.materials.told import Nearest, as_bright, conflicts, read_evidence

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger("special")

READERS = 2  # chunks of the cube in memory
BANDS = 32  # of a chunk at a time
Sums = tuple[np.ndarray, np.ndarray, np.ndarray]  # (class,) pixels, (class, band) means, squares


def chunk_sums(values: np.ndarray, labels: np.ndarray, classes: int) -> Sums:
    """Pixels, means, and sums of squared differences to them, of each class.

    Args:
        values: (band, pixel) float32.
        labels: (pixel,) 1..classes; others count for none.
        classes: how many.

    Returns:
        (class,) int64, (class, band) and (class, band) float64; 0 for a class without a pixel.
    """
    order = np.argsort(labels, kind="stable")  # each class's pixels lie side by side
    ends = np.searchsorted(labels[order], np.arange(1, classes + 2))
    mean, squares = np.zeros((2, classes, len(values)))
    for start in range(0, len(values), BANDS):
        bands = slice(start, start + BANDS)
        part = values[bands].take(order, axis=1)
        for k in range(classes):
            mine = part[:, ends[k] : ends[k + 1]]
            if not mine.shape[1]:
                continue
            middle = mine.mean(1)
            # about the chunk's own mean: squares of the values themselves would leave rounding as the spread
            mine -= middle[:, None]
            rest = mine.mean(1, dtype=np.float64)  # what float32 left of the mean
            mean[k, bands] = middle + rest
            squares[k, bands] = np.einsum("ij,ij->i", mine, mine) - mine.shape[1] * rest**2
    return np.diff(ends), mean, np.maximum(squares, 0)


def joined(one: Sums, two: Sums) -> Sums:
    """Sums of two parts as those of the whole (Chan, Golub and LeVeque 1983)."""
    (n, mean, squares), (m, other, more) = one, two
    both = np.maximum(n + m, 1)[:, None]
    apart = other - mean
    whole = mean + apart * m[:, None] / both
    return n + m, whole, squares + more + apart**2 * (n * m)[:, None] / both


def class_spectra(cube: zarr.Group, prediction: zarr.Group, reject: float | None) -> ClassSpectra:
    """Mean and standard deviation of each class's pixels in all bands; two chunks in memory.

    Args:
        cube: store with `reflectance`, `band` and `good_band`.
        prediction: store with `labels`, and with `confidence` where `reject` is given.
        reject: pixels of less confidence are no class's.
    """
    reflectance, classes = array_of(cube, "reflectance"), len(class_names(prediction))
    height, width = reflectance.shape[1:]

    def read(tile: tuple[slice, slice]) -> Sums:
        here = shown_labels(prediction, tile, reject).ravel()
        values = np.asarray(reflectance[(slice(None), *tile)])
        return chunk_sums(values.reshape(len(values), -1), here, classes)

    tiles = [(rows, columns) for rows in tile_rows(height) for columns in tile_rows(width)]
    bands = reflectance.shape[0]
    whole: Sums = (np.zeros(classes, np.int64), *np.zeros((2, classes, bands)))
    with ThreadPoolExecutor(READERS) as pool:
        for part in pool.map(read, tiles):
            whole = joined(whole, part)
    pixels, mean, squares = whole
    spread = np.sqrt(squares / np.maximum(pixels, 1)[:, None])
    mean[pixels == 0] = spread[pixels == 0] = np.nan
    wavelengths, good = read_array(cube, "band"), read_array(cube, "good_band")
    return ClassSpectra(wavelengths, good, pixels, mean, spread)


def spectra_picture(
    names: list[str],
    colours: list[str],
    found: ClassSpectra,
    told: dict[str, dict[str, Any]],
    nearest: dict[str, Nearest],
    sentences: list[str],
) -> "Figure":
    """A panel for each class, the largest of many.

    Args:
        names: the classes.
        colours: theirs, #rrggbb.
        found: in good bands.
        told: what evidence says of each class.
        nearest: the library's nearest spectra.
        sentences: to write below.
    """
    total = max(int(found.pixels.sum()), 1)
    panels = []
    for k in sorted(np.argsort(-found.pixels, kind="stable")[:MOST]):
        name = names[k]
        if not found.pixels[k]:
            panels.append(Panel(f"{name}\nno pixel", colours[k]))
            continue
        title = f"{name}, {found.pixels[k] / total:.1%} of the map\n"
        most = list(told.get(name, {}).get("nearest", {}).items())[:2]
        title += ", ".join(f"{material.replace('_', ' ')} {share:.0%}" for material, share in most)
        panel = Panel(title, colours[k], found.wavelengths, found.mean[k], found.spread[k])
        if name in nearest:
            line = as_bright(nearest[name], found.wavelengths, found.mean[k])
            panel = panel._replace(library=(nearest[name].wavelengths, line))
        panels.append(panel)
    heading = "Line: mean of the map's pixels of each class; band: standard deviation"
    heading += "; dashes: the spectral library's nearest, as bright" * bool(nearest)
    text = [text[:1].upper() + text[1:] + "." for text in sentences]
    wide = 70 * min(3, len(panels))  # letters over the panels of a row
    foot = "\n".join(line for each in text for line in textwrap.wrap(each, wide))
    return spectra_figure(panels, heading, foot)


def spectra(
    *,
    cube: Path,
    prediction: Path,
    evidence: list[Path],
    reject: float | None,
    colours: dict[str, str],
    table: Path,
    picture: Path,
) -> None:
    """Write mean and spread of the map's classes in all bands.

    Args:
        cube: store made by ingest.
        prediction: store with the map's `labels`.
        evidence: JSON and CSV file made by evidence, or none.
        reject: pixels of less confidence are `unknown`, and no class's; null for none.
        colours: the user's own colours (#rrggbb) of classes.
        table: CSV to write: class, wavelength_nm, mean and standard_deviation (the scene's values), pixels, good_band.
        picture: PNG to write: a panel for each class, beside the library's nearest spectrum where it was asked.
    """
    pixels = open_store(cube, reflectance=("band", "y", "x"), good_band=("band",))
    predicted = open_store(prediction, labels=("y", "x"))
    check_reject(prediction, predicted, reject)
    size = array_of(pixels, "reflectance").shape[1:]
    shape = array_of(predicted, "labels").shape
    if size != shape:
        raise UserError(
            f"{cube}: {size[0]} x {size[1]} pixels, but {prediction} has {shape[0]} x {shape[1]}; delete both and"
            " run again"
        )
    names = class_names(predicted)
    found = class_spectra(pixels, predicted, reject)
    told, nearest = read_evidence(evidence)
    drawn = found.good_bands()
    sentences = conflicts(names, drawn, nearest)
    for sentence in sentences:
        log.warning(sentence)
    write_class_spectra(table, names, found)
    with atomic_write(picture) as file:
        figure = spectra_picture(
            names, class_colours(names, colours), drawn, told, nearest, sentences
        )
        figure.savefig(file, dpi=110)


if __name__ == "__main__":
    run(spectra)
