"""A cube read as another sensor sees it: its bands matched by wavelength."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import zarr

from special_steps.core.spectral import band_weights, weighted_bands
from special_steps.core.store import (
    Grid,
    array_of,
    grid_of,
    open_store,
    read_array,
    read_pixels,
)
from special_steps.core.tiling import Tile


class Bands(NamedTuple):
    """What a model sees of a spectrum."""

    nm: np.ndarray  # (band,) float64 centres, increasing
    fwhm: np.ndarray | None  # (band,) float64 widths in nm


class Matched(NamedTuple):
    """A cube with the bands of another one."""

    read: Callable[
        [Tile], np.ndarray
    ]  # rows and columns to (band, y, x) float32, values as they are in the cube
    sample: Callable[
        [int], np.ndarray
    ]  # most pixels to (pixel, band) float32, drawn with a fixed seed
    nodata: np.ndarray  # (y, x) bool
    grid: Grid
    resampled: bool  # whether bands were computed, not only chosen


def bands_of(store: zarr.Group) -> Bands:
    """The good bands of a cube, or all of a store of features."""
    nm = read_array(store, "band")
    good = read_array(store, "good_band") if "good_band" in store else np.ones(len(nm), bool)
    return Bands(nm[good], read_array(store, "fwhm")[good] if "fwhm" in store else None)


def open_matched(cube: Path, wanted: Bands) -> Matched:
    """Open a cube, as its good bands say it at those wanted.

    Args:
        cube: store made by ingest.
        wanted: the bands of another cube.

    Raises:
        UserError: for a band that the cube has nothing around.
    """
    image = ("y", "x")
    store = open_store(cube, reflectance=("band", *image), good_band=("band",), nodata=image)
    array, nodata = array_of(store, "reflectance"), read_array(store, "nodata")
    good, own = np.flatnonzero(read_array(store, "good_band")), bands_of(store)
    found = band_weights(
        wanted.nm, own.nm, wanted_fwhm=wanted.fwhm, given_fwhm=own.fwhm, source=str(cube)
    )
    weights = np.zeros((len(wanted.nm), array.shape[0]), np.float32)
    weights[:, good] = found

    def read(tile: Tile) -> np.ndarray:
        return weighted_bands(np.asarray(array[:, *tile]), weights)

    def sample(most: int) -> np.ndarray:
        (pixels,) = read_pixels([array], nodata, most)
        return np.ascontiguousarray(weighted_bands(pixels, weights).T)

    return Matched(read, sample, nodata, grid_of(store), bool((found.max(1) < 1).any()))
