"""What the classifier and the mixtures see: stretched bands and principal components.

The cube is gone through in rows of tiles, so that memory does not grow with its height.
"""

from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Literal

import numpy as np

from special_steps.core.cli import run
from special_steps.core.spectral import joint_percentiles, stretch
from special_steps.core.store import (
    array_of,
    create_array,
    grid_of,
    new_store,
    open_store,
    read_array,
    tile_rows,
    write_array,
    write_strips,
)

Read = Callable[[slice], np.ndarray]  # rows of the scene, (band, rows, x) float32


def principal_components(read: Read, nodata: np.ndarray, count: int) -> Iterator[np.ndarray]:
    """Leading principal components of the valid pixels' spectra.

    Args:
        read: gives rows of the scene; all are read twice.
        nodata: (y, x) bool; these pixels take no part and get 0.
        count: number of components; fewer where there are fewer bands or pixels.

    Yields:
        Rows from top to bottom, (component, rows, x) float32, zero mean over valid pixels.
    """
    valid = ~nodata
    pixels = int(valid.sum())
    centre = total = scatter = np.zeros(0)
    for rows in tile_rows(len(nodata)):
        for spectra in _spectra(read(rows), valid[rows]):
            if not centre.size:  # sums around a typical spectrum lose no digits
                centre = spectra.mean(0)
                total, scatter = np.zeros_like(centre), np.zeros((len(centre), len(centre)))
            spectra -= centre
            total += spectra.sum(0)
            scatter += spectra.T @ spectra
    mean = centre + total / pixels
    scatter -= np.outer(total, total) / pixels
    count = min(count, pixels, len(mean))
    axes = np.linalg.eigh(scatter)[1][:, ::-1][:, :count]
    # an axis has no sign of its own: its largest weight is positive, on every machine
    axes = axes * np.sign(axes[np.abs(axes).argmax(0), np.arange(count)])
    for rows in tile_rows(len(nodata)):
        out = np.zeros((count, *valid[rows].shape), np.float32)
        scores = [(spectra - mean) @ axes for spectra in _spectra(read(rows), valid[rows])]
        if scores:
            out[:, valid[rows]] = np.concatenate(scores).T
        yield out


def _spectra(bands: np.ndarray, valid: np.ndarray) -> Iterator[np.ndarray]:
    """The valid pixels' spectra (pixel, band) as float64, for exact sums; a few rows at a time."""
    for y in range(0, len(valid), 32):
        rows = slice(y, y + 32)
        if valid[rows].any():
            yield bands[:, rows][:, valid[rows]].T.astype(np.float64)


def features(
    *,
    source: Path,
    out: Path,
    input: Literal["hsi", "rgb"],
    percentiles: list[float],
    components: int,
) -> None:
    """Prepare the classifier's input.

    Args:
        source: the cube's store for `hsi`, the RGB store for `rgb`.
        out: store to write: `features` (band, y, x) in [0, 1] and `components`; its attribute `limits` are the values
            that became 0 and 1.
        input: all good bands, stretched jointly, or the RGB image as it is.
        percentiles: percentiles over all good bands that become 0 and 1.
        components: number of principal components.
    """
    name = "reflectance" if input == "hsi" else "rgb"
    store = open_store(source, **{name: ("band", "y", "x")}, nodata=("y", "x"))
    array, nodata = array_of(store, name), read_array(store, "nodata")
    is_good = read_array(store, "good_band") if input == "hsi" else np.ones(3, bool)
    good = np.flatnonzero(is_good)

    def read(rows: slice) -> np.ndarray:
        bands = np.asarray(array[:, rows])
        # No second copy where all are good.
        return bands if len(good) == len(bands) else bands[good]

    def values() -> Iterator[np.ndarray]:
        for rows in tile_rows(len(nodata)):
            valid = ~nodata[rows]
            yield from (band[valid] for band in read(rows))

    limits = joint_percentiles(values, percentiles) if input == "hsi" else None

    def stretched() -> Iterator[np.ndarray]:
        for rows in tile_rows(len(nodata)):
            bands = read(rows)
            if limits:
                stretch(bands, limits)
                bands[:, nodata[rows]] = 0
            yield bands
            del bands  # before the next ones are read

    with new_store(
        out,
        step="features",
        settings={"input": input, "percentiles": percentiles, "components": components},
        inputs=[source],
        grid=grid_of(store),
    ) as group:
        write_array(group, "band", read_array(store, "band")[good], ("band",))
        if "fwhm" in store:
            write_array(group, "fwhm", read_array(store, "fwhm")[good], ("band",))
        group.attrs["limits"] = limits  # another scene's values are stretched by them, too
        prepared = create_array(group, "features", (len(good), *nodata.shape), ("band", "y", "x"))
        write_strips(prepared, stretched())
        scores = principal_components(
            lambda rows: np.asarray(prepared[:, rows]), nodata, components
        )
        first = next(scores)
        shape = (len(first), *nodata.shape)
        reduced = create_array(group, "components", shape, ("component", "y", "x"))
        write_strips(reduced, chain([first], scores))
        write_array(group, "nodata", nodata, ("y", "x"))


if __name__ == "__main__":
    run(features)
