"""Training images made by code: scenes and mosaics as a hyperspectral RGB composite shows them.

A sample is drawn at the ground resolution of a scene (32 to 128 px wide), gets the look of a
composite (gamma, more or less haze, purer colours, white balance, blur, noise, percentile stretch),
and is then enlarged to the model's input, as dense inference enlarges a scene by its scales.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from torch import Tensor

from special_steps.bundled_clip.training.aerial import PARTS, SCENE_NAMES, SCENES, SIDE, Aerial
from special_steps.bundled_clip.training.parts import CELL

SHADOW, WATER = PARTS.index("shadow"), PARTS.index("water")
TALL_PARTS = tuple(PARTS.index(p) for p in ("trees", "roof"))
LINE_PARTS = tuple(
    PARTS.index(p) for p in ("road", "road", "road", "parking", "water", "railway", "soil")
)
SMOOTH_PARTS = tuple(PARTS.index(p) for p in ("road", "parking", "roof"))
BOX_PARTS = tuple(PARTS.index(p) for p in ("roof", "roof", "roof", "road", "parking", "grass"))
CONFIDENT = 0.6
# How often a part is drawn for a region: what users map most, more often. Roofs come as boxes too.
WEIGHTS = np.array([3, 3, 3, 1, 3, 1.5, 1.5, 1, 3, 1, 1.5, 0.5, 0.4, 0.5, 0.3, 1.5])
DRY_SCENES = np.array(["water" not in SCENES[name] for name in SCENE_NAMES])
SHADE, DARK = 0.5, 0.22  # of the median brightness, and at most: darker pixels are in shade


@dataclass(frozen=True)
class Bank:
    """Images with their part probabilities, and where each part is found pure.

    `spots[part]` is (M, 4): image, row and column of the first cell, and side in cells.
    """

    data: Aerial
    parts: np.ndarray
    spots: list[np.ndarray]
    by_scene: list[np.ndarray]


@dataclass(frozen=True)
class Sample:
    """image (3, S, S) in [0, 1]; fractions (part, S/L, S/L) of the area of L px; scene class or -1."""

    image: Tensor
    fractions: Tensor
    scene: int


def make_bank(data: Aerial, parts: np.ndarray, held_out: bool, seed: int = 0) -> Bank:
    """Bank of the training images, or of the held-out ones."""
    rng = np.random.default_rng(seed)
    use = np.flatnonzero(data.held_out == held_out)
    found: list[list[np.ndarray]] = [[] for _ in PARTS]
    for chunk in np.array_split(use, max(1, len(use) // 500)):
        p = torch.from_numpy(np.asarray(parts[chunk])).permute(0, 3, 1, 2).float() / 255
        for side, least in ((2, 0.9), (5, 0.85)):
            pure = F.avg_pool2d(p, side, 1) > least
            for k in range(len(PARTS)):
                image, row, column = (i.numpy() for i in pure[:, k].nonzero(as_tuple=True))
                pick = rng.permutation(len(image))[: 40 * len(chunk) // 10]
                spot = np.stack([chunk[image], row, column, np.full(len(image), side)], 1)[pick]
                found[k].append(spot.astype(np.int32))
    by_scene = [use[data.scenes[use] == s] for s in range(int(data.scenes.max()) + 1)]
    return Bank(data, parts, [np.concatenate(f) for f in found], by_scene)


def mirror(length: int, size: int, start: int) -> np.ndarray:
    """Indices (size,) that walk to and fro over 0..length-1: endless texture without seams."""
    i = (np.arange(size) + start) % (2 * length)
    return np.where(i < length, i, 2 * length - 1 - i)


def texture(bank: Bank, part: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """A (size, size, 3) float texture of a part, in [0, 1]."""
    if part == WATER and rng.random() < 0.1:
        # Clear water is nearly black and smooth in reflectance; aerial pictures rarely show it so.
        colour = rng.uniform(0.01, 0.25) * rng.uniform([0.3, 0.6, 0.7], [0.9, 1.0, 1.2])
        return np.clip(colour + rng.normal(0, 0.008, (size, size, 1)), 0, 1).astype(np.float32)
    image, row, column, side = bank.spots[part][rng.integers(len(bank.spots[part]))]
    y, x, n = row * CELL, column * CELL, side * CELL
    patch = bank.data.images[image, y : y + n, x : x + n].astype(np.float32) / 255
    zoom = int(rng.choice([1, 1, 2, 3])) if n >= 32 else 1
    if zoom > 1:
        m = n // zoom * zoom
        patch = patch[:m, :m].reshape(m // zoom, zoom, m // zoom, zoom, 3).mean((1, 3))
    if rng.random() < 0.5:
        patch = patch.transpose(1, 0, 2)
    n = len(patch)
    rows, columns = (mirror(n, size, int(rng.integers(2 * n))) for _ in range(2))
    out = patch[rows[:, None], columns[None]]
    if part in SMOOTH_PARTS and rng.random() < 0.5:
        # Spots in towns hold cars and whole blocks; one road or one roof is nearly plain.
        plain = patch[rng.integers(n), rng.integers(n)]
        out = plain + 0.15 * (out - out.mean((0, 1)))
    elif rng.random() < 0.5:
        # Coarse pixels and a sensor's blur leave little of a texture: colour has to tell.
        mean = out.mean((0, 1))
        out = mean + rng.uniform(0.1, 1) * (out - mean)
    return out * rng.uniform(0.6, 1.3)


def wobble(size: int, rng: np.random.Generator, strength: float) -> np.ndarray:
    """A smooth displacement field (2, size, size) in pixels."""
    coarse = torch.from_numpy(rng.normal(0, strength, (1, 2, 6, 6)).astype(np.float32))
    return F.interpolate(coarse, (size, size), mode="bicubic")[0].numpy()


def voronoi(size: int, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """Irregular regions: index (size, size) and their number. Regions are 5 to 45 px wide."""
    across = np.exp(rng.uniform(np.log(5), np.log(45)))
    n = int(np.clip((size / across) ** 2, 2, 48))
    sites = rng.uniform(0, size, (n, 2)).astype(np.float32)
    grid = np.mgrid[:size, :size].astype(np.float32)
    grid += wobble(size, rng, rng.uniform(0, 0.35) * across)
    d = sum((grid[a][..., None] - sites[:, a]) ** 2 for a in (0, 1))
    return d.argmin(-1), n


def line_mask(size: int, rng: np.random.Generator) -> np.ndarray:
    """A road- or river-like band (size, size) bool, 2 to 8 px wide, slightly winding."""
    grid = np.mgrid[:size, :size].astype(np.float32)
    grid += wobble(size, rng, rng.choice([0.0, size / 25, size / 10]))
    angle, shift = rng.uniform(0, np.pi), rng.uniform(-0.35, 0.35) * size
    distance = (grid[0] - size / 2) * np.cos(angle) + (grid[1] - size / 2) * np.sin(angle) - shift
    return np.abs(distance) < rng.uniform(1, 4)


def box_mask(size: int, rng: np.random.Generator) -> np.ndarray:
    """A rectangle at any angle (size, size) bool, 4 to 20 px long."""
    y, x = np.mgrid[:size, :size].astype(np.float32)
    cy, cx = rng.uniform(0, size, 2)
    angle = rng.uniform(0, np.pi)
    half = rng.uniform(2, 10, 2)
    u = (y - cy) * np.cos(angle) + (x - cx) * np.sin(angle)
    v = (x - cx) * np.cos(angle) - (y - cy) * np.sin(angle)
    return (np.abs(u) < half[0]) & (np.abs(v) < half[1])


def scene_base(
    bank: Bank, scene: int, size: int, least: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A real scene, cropped and shrunk: image (size, size, 3) and labels (size, size, part)."""
    i = rng.choice(bank.by_scene[scene])
    n = int(rng.uniform(least, 1) * SIDE) // CELL * CELL
    y, x = (int(rng.integers((SIDE - n) // CELL + 1)) * CELL for _ in range(2))
    crop = torch.from_numpy(bank.data.images[i, y : y + n, x : x + n].astype(np.float32) / 255)
    small = partial(F.interpolate, size=(size, size), mode="bilinear", antialias=True)
    image = small(crop.permute(2, 0, 1)[None])[0].permute(1, 2, 0).numpy()
    c, r, q = n // CELL, y // CELL, x // CELL
    label = bank.parts[i, r : r + c, q : q + c].astype(np.float32) / 255
    label[label.max(-1) < CONFIDENT] = 0  # cells nobody is sure of teach nothing
    label[..., SHADOW] = 0  # shadows found by proportions alone are poor
    rows = np.arange(size) * c // size
    label = label[rows[:, None], rows[None]]
    if DRY_SCENES[bank.data.scenes[i]]:
        shade = small(in_shade(crop)[None, None].float())[0, 0].numpy()
        label[shade > 0.2] = 0
        label[shade > 0.6] = np.eye(len(PARTS), dtype=np.float32)[SHADOW]
    turns, flip = int(rng.integers(4)), rng.random() < 0.5
    image, label = np.rot90(image, turns), np.rot90(label, turns)
    if flip:
        image, label = image[:, ::-1], label[:, ::-1]
    return np.ascontiguousarray(image), np.ascontiguousarray(label)


def in_shade(image: Tensor) -> Tensor:
    """Where a picture (S, S, 3) without water is in shade: dark, and much darker than the rest."""
    brightness = image.mean(-1)
    return brightness < min(SHADE * float(brightness.median()), DARK)


def mosaic_base(bank: Bank, size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Regions of a few parts: image (size, size, 3) and labels (size, size, part)."""
    regions, n = voronoi(size, rng)
    some = np.array([len(s) > 0 for s in bank.spots])
    some[SHADOW] = False
    p = WEIGHTS * some
    kinds = rng.choice(len(PARTS), min(int(rng.integers(2, 7)), n), replace=False, p=p / p.sum())
    owner = np.concatenate([kinds, rng.choice(kinds, n - len(kinds))])
    textures = {k: texture(bank, k, size, rng) for k in kinds}
    image = np.empty((size, size, 3), np.float32)
    for k in kinds:
        mask = (owner == k)[regions]
        image[mask] = textures[k][mask]
    # Neighbouring regions of one part differ a little, as fields and roofs do.
    image *= rng.uniform(0.85, 1.15, (n, 1)).astype(np.float32)[regions]
    return image, np.eye(len(PARTS), dtype=np.float32)[owner[regions]]


def put_objects(image: np.ndarray, label: np.ndarray, bank: Bank, rng: np.random.Generator) -> None:
    """Draw lines, boxes and shadows over a base, in place."""
    size = len(image)
    for _ in range(int(rng.choice([0, 1, 1, 2, 3]))):
        put(image, label, line_mask(size, rng), int(rng.choice(LINE_PARTS)), bank, rng)
    for _ in range(int(rng.choice([0, 2, 4, 8]))):
        mask = box_mask(size, rng)
        part = int(rng.choice(BOX_PARTS))
        if part == PARTS.index("roof") and rng.random() < 0.6:
            dy, dx = rng.integers(-4, 5, 2)
            shade(image, label, np.roll(mask, (dy, dx), (0, 1)), rng)
        put(image, label, mask, part, bank, rng)
    if rng.random() < 0.4:  # what is tall throws its shadow on its neighbours
        tall = label[..., TALL_PARTS].max(-1) > CONFIDENT
        dy, dx = rng.integers(-5, 6, 2)
        shade(image, label, np.roll(tall, (dy, dx), (0, 1)) & ~tall, rng)
    if rng.random() < 0.3:
        regions, n = voronoi(size, rng)
        shade(image, label, regions == rng.integers(n), rng)


def put(
    image: np.ndarray,
    label: np.ndarray,
    mask: np.ndarray,
    part: int,
    bank: Bank,
    rng: np.random.Generator,
) -> None:
    """Fill `mask` with a part."""
    if len(bank.spots[part]) and mask.any():
        image[mask] = texture(bank, part, len(image), rng)[mask]
        label[mask] = np.eye(len(PARTS), dtype=np.float32)[part]


def shade(image: np.ndarray, label: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> None:
    """Darken `mask` as a cast shadow does (sky light is blue) and call it shadow."""
    image[mask] *= rng.uniform(0.15, 0.45) * np.array([0.9, 1.0, rng.uniform(1.0, 1.3)], np.float32)
    label[mask] = np.eye(len(PARTS), dtype=np.float32)[SHADOW]


def composite_look(image: np.ndarray, rng: np.random.Generator, strong: bool) -> np.ndarray:
    """Give an aerial picture (S, S, 3) the look of a hyperspectral scene's RGB composite."""
    x = np.clip(image, 0, 1)
    if strong:
        # Pictures are gamma-coded, reflectance is linear: a power of about 2.2 lies between.
        x = x ** np.exp(rng.uniform(np.log(0.7), np.log(2.5)))
        if rng.random() < 0.6:  # reflectance has no haze left, so its colours are purer
            dark = np.minimum(np.quantile(x, 0.005, (0, 1)), 0.12)
            x = np.clip(x - rng.uniform(0, 1) * dark, 0, None)
        grey = x.mean(-1, keepdims=True)
        x = np.clip(grey + np.exp(rng.uniform(-0.3, 0.8)) * (x - grey), 0, None)
        x = x * np.exp(rng.normal(0, 0.11, 3)).astype(np.float32)
        if rng.random() < 0.3:
            x = x + rng.uniform(0, 0.35) * rng.uniform([0.6, 0.8, 0.9], [1, 1, 1.2]) * x.mean() * 2
        if rng.random() < 0.6:
            x = gaussian_filter(x, (*[rng.uniform(0.3, 1.3)] * 2, 0))
        x = x + rng.normal(0, rng.uniform(0, 0.03) * x.std() * 4, x.shape)
        if rng.random() < 0.15:  # a few glints or metal roofs take up the stretch
            spots = rng.integers(len(x), size=(2, int(rng.integers(1, 6))))
            x[spots[0], spots[1]] = x.max() * rng.uniform(1.05, 1.8)
    else:
        x = x * np.exp(rng.normal(0, 0.08, 3)) * rng.uniform(0.8, 1.2)
    low, high = np.quantile(x, (0.001, 0.999))
    if strong and rng.random() < 0.5:
        # The window is a part of a scene whose darkest and brightest pixels lie elsewhere.
        low, high = low * rng.uniform(0, 1), high * rng.uniform(1, 1.9)
    elif not strong and rng.random() < 0.5:
        low, high = 0.0, 1.0
    return np.clip((x - low) / max(high - low, 1e-3), 0, 1).astype(np.float32)


def draw_sample(bank: Bank, rng: np.random.Generator, size: int, label_size: int) -> Sample:
    """One training sample of `size` px, with a label for every `label_size` px.

    A quarter are whole scenes, which also teach pooling.
    """
    kind = rng.random()
    whole = kind < 0.25
    zoom = float(rng.choice([1, 1, 1.5, 2] if whole else [1, 1.5, 2, 2, 3, 4, 4]))
    small = round(size / zoom)
    scene = -1
    if whole:
        scene = int(rng.integers(len(bank.by_scene)))
        image, label = scene_base(bank, scene, small, 0.6, rng)
    elif kind < 0.5:
        image, label = scene_base(bank, int(rng.integers(len(bank.by_scene))), small, 0.3, rng)
    else:
        image, label = mosaic_base(bank, small, rng)
    if not whole and rng.random() < 0.7:
        put_objects(image, label, bank, rng)
    image = composite_look(image, rng, strong=not whole or rng.random() < 0.3)
    x = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None]
    mode = "bilinear" if rng.random() < 0.5 else "bicubic"
    x = F.interpolate(x, (size, size), mode=mode).clamp(0, 1)[0]
    y = torch.from_numpy(np.ascontiguousarray(label)).permute(2, 0, 1)[None]
    return Sample(x, F.adaptive_avg_pool2d(y, size // label_size)[0], scene)
