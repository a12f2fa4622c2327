"""Resizing of images and maps by strips of rows, so that none is in memory as a whole."""

import math
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F


def resized_rows(
    read: Callable[[int, int], np.ndarray],
    size: tuple[int, int],
    target: tuple[int, int],
    first: int,
    last: int,
) -> np.ndarray:
    """Rows first..last of an image in [0, 1] resized bicubically, antialiased when it shrinks.

    Args:
        read: gives rows of the image, (3, rows, x) float32; asked for those that matter only.
        size: y and x of the image.
        target: y and x after resizing.
        first: first row wanted, of the target.
        last: the row after the last wanted one.

    Returns:
        (3, last - first, x) float32.
    """
    if size == target:
        return read(first, last)
    step = size[0] / target[0]
    reach = 2 * max(step, 1) + 1  # rows that a bicubic kernel sees to each side
    top = max(math.floor(first * step - reach), 0)
    bottom = min(math.ceil(last * step + reach), size[0])
    planes = read(top, bottom)
    box = (0, first * step - top, size[1], min(last * step, bottom) - top)
    shape = (target[1], last - first)
    rows = [Image.fromarray(p).resize(shape, Image.Resampling.BICUBIC, box) for p in planes]
    return np.stack([np.asarray(row) for row in rows]).clip(0, 1)


def resized_back(
    strips: Iterable[np.ndarray], source: tuple[int, int], target: tuple[int, int]
) -> Iterator[np.ndarray]:
    """Resize probabilities to the scene: area means when they shrink, else bilinearly.

    Args:
        strips: rows of the maps from top to bottom, (class, rows, x) float32.
        source: y and x of the maps.
        target: y and x of the scene.

    Yields:
        Rows of the scene from top to bottom, (class, rows, x) float32, as soon as they are known.
    """
    if source == target:
        yield from strips
        return
    shrinks = source[0] >= target[0] and source[1] >= target[1]
    mode, ratio = "area" if shrinks else "bilinear", source[0] / target[0]

    def weights(row: int) -> tuple[int, np.ndarray]:
        """First row of the maps that this row of the scene needs, and the weights from there."""
        if shrinks:
            first = row * source[0] // target[0]
            count = -(-(row + 1) * source[0] // target[0]) - first
            return first, np.full(count, 1 / count, np.float32)
        centre = min(max((row + 0.5) * ratio - 0.5, 0), source[0] - 1)
        first = int(centre)
        share = centre - first
        return first, np.array([1 - share, share] if share else [1], np.float32)

    held = np.empty((0, 0, 0), np.float32)  # rows from `base` on
    base = row = 0
    for strip in strips:
        maps = torch.from_numpy(strip)[None]
        rows = F.interpolate(maps, (strip.shape[1], target[1]), mode=mode)[0].numpy()
        held = np.concatenate([held, rows], 1) if held.size else rows
        done = []
        while row < target[0]:
            first, share = weights(row)
            if first + len(share) > base + held.shape[1]:
                break
            at = first - base
            done.append(np.einsum("kyx,y->kx", held[:, at : at + len(share)], share))
            row += 1
        if done:
            yield np.stack(done, 1)
            drop = min((weights(row)[0] if row < target[0] else source[0]) - base, held.shape[1])
            held, base = held[:, drop:], base + drop
