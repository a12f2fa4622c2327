"""A scene as the network sees it: whole, or in tiles where memory does not allow that."""

import logging
import math
from collections.abc import Callable
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
import zarr

from special_steps.classifier.mambahsi import MambaHSI, predict
from special_steps.classifier.sampling import PixelSampler
from special_steps.core.store import array_of, read_array
from special_steps.core.tiling import Tile, tile_starts

log = logging.getLogger("special")

SIDES_PER_OVERLAP = 4  # tiles of a prediction overlap by this part of their side
# Measured: an iteration takes about (3 bands + 850) float32 values a pixel beside the libraries.
ITERATION_MEMORY = 4e9  # bytes that an iteration may take where the config names no tile


class Scene(NamedTuple):
    """The features of a scene, and how much of it the network sees at a time."""

    read: Callable[[Tile], torch.Tensor]  # (1, band, y, x) float32 on the model's device
    bands: int
    nodata: np.ndarray  # (y, x) bool
    tile_side: int  # pixels along a side that a tile has at most

    @property
    def extent(self) -> Tile:
        """The tile that is the whole scene."""
        height, width = self.nodata.shape
        return slice(0, height), slice(0, width)

    @property
    def is_one_tile(self) -> bool:
        """Whether the network sees the scene whole."""
        return max(self.nodata.shape) <= self.tile_side


def largest_tile_side(bands: int, shape: tuple[int, int]) -> int:
    """Side of the largest tile that ITERATION_MEMORY allows; the scene's own longer side when it fits whole."""
    pixels = ITERATION_MEMORY / (4 * (3 * bands + 850))
    return max(shape) if math.prod(shape) <= pixels else math.isqrt(int(pixels))


def open_scene(store: zarr.Group, tile_side: int | None, device: torch.device) -> Scene:
    """The scene of a features store: in memory when it is no larger than a tile, else read in parts.

    Args:
        store: with `features` (band, y, x) float32 and `nodata` (y, x) bool.
        tile_side: pixels along a side of a tile; None for the largest that memory allows.
        device: where the network computes.
    """
    features, nodata = array_of(store, "features"), read_array(store, "nodata")
    bands, height, width = features.shape

    def read(tile: Tile) -> torch.Tensor:
        part = torch.from_numpy(np.asarray(features[:, *tile]))[None]
        return part.to(device, memory_format=torch.channels_last)

    scene = Scene(read, bands, nodata, tile_side or largest_tile_side(bands, (height, width)))
    if scene.is_one_tile:
        whole = read(scene.extent)
        return scene._replace(read=lambda _: whole)
    log.info("the scene is larger than a tile of %d pixels: training on tiles", scene.tile_side)
    return scene


def random_tile(scene: Scene, sampler: PixelSampler, rng: np.random.Generator) -> Tile:
    """The whole scene, or a tile of it around a sampled pixel, so that rare classes get their turn."""
    if scene.is_one_tile:
        return scene.extent
    pixels, _ = sampler(rng, scene.extent)
    centre = np.unravel_index(rng.choice(pixels), scene.nodata.shape)

    def around(pixel: int, size: int) -> slice:
        side = min(scene.tile_side, size)
        first = min(max(pixel - int(rng.integers(side)), 0), size - side)
        return slice(first, first + side)

    rows, columns = (around(int(p), n) for p, n in zip(centre, scene.nodata.shape, strict=True))
    return rows, columns


def pixels_in_tile(
    pixels: np.ndarray, tile: Tile, shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Which of a scene's pixels lie in a tile.

    Args:
        pixels: (n,) indices within the scene, row by row.
        tile: rows and columns.
        shape: the scene's.

    Returns:
        A mask (n,) over the pixels, and the indices within the tile of those that lie in it.
    """
    y, x = np.divmod(pixels, shape[1])
    rows, columns = tile
    mask = (y >= rows.start) & (y < rows.stop) & (x >= columns.start) & (x < columns.stop)
    width = columns.stop - columns.start
    return mask, (y[mask] - rows.start) * width + x[mask] - columns.start


def predict_scene(model: MambaHSI, scene: Scene) -> np.ndarray:
    """Class probabilities (class, y, x) float32 of the scene."""
    return blended(scene, lambda tile: predict(model, scene.read(tile)[0]))


def blended(scene: Scene, predict_tile: Callable[[Tile], np.ndarray]) -> np.ndarray:
    """What is predicted of a scene's tiles, as one image.

    Overlapping tiles are blended: a tile counts less towards its edges, where it sees less.

    Args:
        scene: whose tiles they are.
        predict_tile: gives class probabilities (class, y, x) float32 of a tile.

    Returns:
        (class, y, x) float32 of the scene.
    """
    if scene.is_one_tile:
        return predict_tile(scene.extent)
    shape = scene.nodata.shape
    overlap = max(scene.tile_side // SIDES_PER_OVERLAP, 1)
    height, width = (min(scene.tile_side, size) for size in shape)
    weight = _ramps(height, overlap)[:, None] * _ramps(width, overlap)
    sums, weights = np.zeros(0, np.float32), np.zeros(shape, np.float32)
    starts = (
        tile_starts(size, side, max(side - overlap, 1))
        for size, side in zip(shape, (height, width), strict=True)
    )
    for y, x in product(*starts):
        tile = slice(y, y + height), slice(x, x + width)
        tile_probabilities = predict_tile(tile)
        if not sums.size:
            sums = np.zeros((len(tile_probabilities), *shape), np.float32)
        sums[:, *tile] += tile_probabilities * weight
        weights[tile] += weight
    sums /= weights
    return sums


def _ramps(side: int, overlap: int) -> np.ndarray:
    """Weights along a tile's side: rising to 1 within the overlap, falling at the other end."""
    rising = np.arange(side) + 1
    ramps = np.minimum(np.minimum(rising, rising[::-1]), overlap)
    return ramps.astype(np.float32) / overlap
