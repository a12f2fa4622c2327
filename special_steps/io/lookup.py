"""Images in the sensor's own lines and samples, put on a map by the lookup table that comes with them.

The table has the map's shape and says which pixel of the image lies at each place: the nearest one, so that values are
never mixed. Lines and samples are counted from 1; 0 is "none". A negative number is the pixel of that number too, where
the producer filled a gap with its neighbour (JPL's SpectralUtil: "Negatives assumed as interpolation values").
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from special_steps.core.errors import UserError
from special_steps.io.hdf5 import dataset, numbers, open_hdf5
from special_steps.io.record import Window

NONE = (
    0,
    -9999,
)  # in a table: no pixel here; -9999 is the fill value that JPL's netCDF files state
LINES = 32  # of an image that is stored without chunks, read at a time
BYTES = 64_000_000  # read at a time


@dataclass(frozen=True)
class Lookup:
    """Where a table is, and the image's size."""

    path: Path
    line: str  # name of the table's line numbers in the file, (map y, map x)
    sample: str
    lines: int
    samples: int
    shape: tuple[int, int]  # of the map: y, x

    def at(self, rows: slice, columns: slice) -> tuple[np.ndarray, np.ndarray]:
        """Line and sample, from 0, of each place of a window of the map; (row, column), -1 where there is none.

        Raises:
            UserError: for numbers beyond the image.
        """
        with open_hdf5(self.path) as file:
            tables = [dataset(file, name) for name in (self.line, self.sample)]
            stored = [table[rows, columns] for table in tables]
            fills = [{*NONE, *numbers(t.attrs.get("_FillValue", ()))} for t in tables]
        there = ~np.logical_or(*(np.isin(s, list(f)) for s, f in zip(stored, fills, strict=True)))
        found = [np.where(there, np.abs(s).astype(np.int64) - 1, -1) for s in stored]
        for numbers_, size, name in zip(
            found, (self.lines, self.samples), (self.line, self.sample), strict=True
        ):
            if numbers_.size and numbers_.max() >= size:
                raise UserError(
                    f"{self.path}: '{name}' points to number {numbers_.max() + 1} of an image with"
                    f" {size}; the image was cut without its lookup table, get the whole file"
                )
        return found[0], found[1]

    def masked(self, rows: slice, columns: slice) -> np.ndarray:
        """Where the map has no pixel of the image, (row, column) bool."""
        return self.at(rows, columns)[0] < 0


def open_lookup(path: Path, line: str, sample: str, image: tuple[int, int]) -> Lookup:
    """Find a table in a file, for an image of so many lines and samples.

    Raises:
        UserError: when there is none, or its two halves differ in shape.
    """
    with open_hdf5(path) as file:
        shapes = [dataset(file, name).shape for name in (line, sample)]
    if shapes[0] != shapes[1] or len(shapes[0]) != 2:
        raise UserError(
            f"{path}: '{line}' {shapes[0]} and '{sample}' {shapes[1]} are no lookup table of one"
            " map; the file seems damaged, get it again"
        )
    return Lookup(path, line, sample, *image, shapes[0])


def on_map(
    lookup: Lookup, path: Path, name: str, *, band_first: bool, fill: float, bands: slice = slice(None)
) -> Window:  # fmt: skip
    """The function that reads a window of the map, (band, row, column), from an image.

    Of the image it reads strips of a few lines, of each the samples between the first and the last that are needed: for
    all windows of a map together little more than the image once, in bounded memory, however the map is turned against
    the image.

    Args:
        lookup: its table.
        path: the image's file; it may be another than the table's.
        name: of the image in it, (line, sample, band), or (band, line, sample) with `band_first`.
        band_first: see there.
        fill: value where the map has no pixel.
        bands: which to read.
    """

    def read(rows: slice, columns: slice) -> np.ndarray:
        line, sample = lookup.at(rows, columns)
        with open_hdf5(path) as file:
            return _gather(dataset(file, name), line, sample, band_first, fill, bands)

    return read


def flag_on_map(
    lookup: Lookup, path: Path, name: str, bands: list[int], is_set: Callable[[np.ndarray], np.ndarray]
) -> Window:  # fmt: skip
    """The function that reads a window (row, column) bool of the map: where one of some bands of an image is set."""
    reads = [
        on_map(lookup, path, name, band_first=False, fill=0, bands=slice(b, b + 1)) for b in bands
    ]

    def read(rows: slice, columns: slice) -> np.ndarray:
        return np.any([is_set(r(rows, columns)[0]) for r in reads], axis=0)

    return read


def _gather(
    image: Any, line: np.ndarray, sample: np.ndarray, band_first: bool, fill: float, bands: slice
) -> np.ndarray:
    """Values (band, y, x) of an image at lines and samples (y, x); `fill` where they are -1."""
    wanted = range(*bands.indices(image.shape[0 if band_first else 2]))
    out = np.full((len(wanted), *line.shape), fill, image.dtype)
    flat = out.reshape(len(wanted), -1)
    places = np.flatnonzero(line.ravel() >= 0)
    places = places[np.argsort(line.ravel()[places], kind="stable")]
    lines, samples = line.ravel()[places], sample.ravel()[places]
    chunks = image.chunks or (1,) * 3
    band_chunk, height = (chunks[0], chunks[1]) if band_first else (chunks[2], chunks[0])
    height = height if image.chunks else LINES
    for first in range(0, int(lines[-1]) + 1 if len(lines) else 0, height):
        here = slice(*np.searchsorted(lines, (first, first + height)))
        if here.start == here.stop:
            continue
        top, bottom = lines[here][0], lines[here][-1] + 1
        left, right = samples[here].min(), samples[here].max() + 1
        one_band = (bottom - top) * (right - left) * image.dtype.itemsize
        for part in _parts(wanted, max(1, BYTES // int(one_band)), band_chunk):
            of_image = slice(wanted[part.start], wanted[part.stop - 1] + 1)
            if band_first:
                block = image[of_image, top:bottom, left:right]
            else:
                block = image[top:bottom, left:right, of_image].transpose(2, 0, 1)
            flat[part, places[here]] = block[:, lines[here] - top, samples[here] - left]
    return out


def _parts(wanted: range, most: int, chunk: int) -> Iterator[slice]:
    """Positions in `wanted`, at most so many at a time, whole chunks where they fit."""
    step = most - most % chunk or most
    for start in range(0, len(wanted), step):
        yield slice(start, min(start + step, len(wanted)))
