"""Landscapes for simulated_scenes.py: coasts, fields, towns and more, drawn at random on a grid finer than the pixels.

None has anything of the demo scene's layout. Lengths are in metres; `Land.pixel` lets a landscape be as coarse as the
sensor that will look at it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter, zoom
from scipy.spatial import cKDTree

# what a cell can be
WATER, TREES, GRASS, DRY, CROPS, SOIL, SAND, GRAVEL, ASPHALT, CONCRETE, ROOF, BURNT = range(12)
KINDS = 12


@dataclass
class Land:
    """What lies on each cell of the fine grid, (row, column) of `cell` metres."""

    shape: tuple[int, int]
    cell: float
    pixel: float
    rng: np.random.Generator
    kind: np.ndarray = field(init=False)  # WATER to BURNT
    height: np.ndarray = field(init=False)  # m above ground
    relief: np.ndarray = field(init=False)  # m, of the ground
    item: np.ndarray = field(init=False)  # number of the parcel, crown or roof, 0 for none
    depth: np.ndarray = field(init=False)  # m from the bank of the water, positive inside
    items: int = 1

    def __post_init__(self) -> None:
        self.kind = np.full(self.shape, GRASS)
        self.height, self.relief = np.zeros((2, *self.shape), np.float32)
        self.item = np.zeros(self.shape, int)
        self.depth = np.full(self.shape, -1e3)
        self.y, self.x = np.mgrid[0.5 : self.shape[0], 0.5 : self.shape[1]] * self.cell
        self.tall, self.wide = self.shape[0] * self.cell, self.shape[1] * self.cell

    def turned(self, angle: float) -> tuple[np.ndarray, np.ndarray]:
        """Coordinates (m) along and across a direction, from the middle of the land."""
        x, y = self.x - self.wide / 2, self.y - self.tall / 2
        return x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)

    def blobs(self, metres: float) -> np.ndarray:
        """Noise (row, column) of mean 0 and deviation 1, in blobs about `metres` wide."""
        step = max(metres / 2 / self.cell, 1)
        coarse = self.rng.standard_normal([int(n / step) + 5 for n in self.shape])
        noise = zoom(gaussian_filter(coarse, 0.8), step, order=3)
        noise = noise[tuple(slice(int(step), int(step) + n) for n in self.shape)]
        return (noise - noise.mean()) / noise.std()

    def put(self, where: np.ndarray, kind: int) -> None:
        """Cover the ground."""
        self.kind[where], self.height[where], self.item[where] = kind, 0, 0

    def flood(self, bank: np.ndarray) -> None:
        """Water where `bank` (m from the bank, positive inside) is above 0."""
        self.depth = np.maximum(self.depth, bank)
        self.put(bank > 0, WATER)


# --- water


def coast_bank(land: Land, share: float, rough: float) -> np.ndarray:
    """Sea over about a `share` of the land, on one side, with bays `rough` m deep."""
    along, across = land.turned(land.rng.uniform(0, 2 * np.pi))
    bays = rough * land.blobs(8 * rough) + 0.25 * rough * land.blobs(2 * rough)
    bank = across + 0.3 * rough * np.sin(along / (5 * rough)) + bays
    return bank - np.quantile(bank, 1 - share)


def river_bank(land: Land, width: float, wiggle: float, angle: float, off: float) -> np.ndarray:
    """A river's bank; `off` (m) from the middle of the land."""
    along, across = land.turned(angle)
    long = land.rng.uniform(0.5, 0.9) * max(land.tall, land.wide)
    phases = land.rng.uniform(0, 2 * np.pi, 3)
    course, slope = np.zeros_like(along), np.zeros_like(along)
    for turn, (strength, phase) in enumerate(zip((1, 0.45, 0.2), phases, strict=True)):
        k = 2 * np.pi * (1 + 1.7 * turn) / long
        course += wiggle * strength * np.sin(k * along + phase)
        slope += wiggle * strength * k * np.cos(k * along + phase)
    away = abs(across - off - course) / np.sqrt(1 + slope**2)
    return width / 2 * (1 + 0.18 * land.blobs(4 * width)) - away


def lake_bank(land: Land, x: float, y: float, radius: float) -> np.ndarray:
    """A lake's bank."""
    angle, far = np.arctan2(land.y - y, land.x - x), np.hypot(land.x - x, land.y - y)
    edge = np.ones_like(far)
    for k in range(2, 7):
        edge += land.rng.normal(0, 0.3 / k) * np.sin(k * angle + land.rng.uniform(0, 6))
    return radius * edge - far + 0.04 * radius * land.blobs(radius / 4)


# --- fields


def voronoi(land: Land, size: float, stretch: float) -> tuple[np.ndarray, np.ndarray]:
    """Parcels about `size` m wide: their numbers, and every cell's distance (m) to its parcel's border."""
    rng = land.rng
    along, across = land.turned(rng.uniform(0, np.pi))
    points = np.stack([along / stretch, across], -1) / size
    low, high = points.min((0, 1)) - 1, points.max((0, 1)) + 1
    grid = np.stack(np.meshgrid(*map(np.arange, low, high), indexing="ij"), -1).reshape(-1, 2)
    sites = grid + rng.uniform(-0.42, 0.42, grid.shape)
    distance, parcel = cKDTree(sites).query(points.reshape(-1, 2), 2)
    gap = np.linalg.norm(sites[parcel[:, 0]] - sites[parcel[:, 1]], axis=1)
    border = (distance[:, 1] ** 2 - distance[:, 0] ** 2) / 2 / gap * size
    return parcel[:, 0].reshape(land.shape), border.reshape(land.shape)


def strips(land: Land, width: float, length: float) -> tuple[np.ndarray, np.ndarray]:
    """Long narrow parcels side by side: their numbers, and distance (m) to the tracks at their ends."""
    rng = land.rng
    along, across = land.turned(rng.uniform(0, np.pi))
    across = across + 0.05 * length * np.sin(along / (2.2 * length))
    reach = land.tall + land.wide
    rows = np.cumsum(rng.uniform(0.7, 1.4, int(reach / length) + 4)) * length - reach / 2 - length
    row = np.searchsorted(rows, across)
    parcel = np.zeros(land.shape, int)
    for r in np.unique(row):
        edges = np.cumsum(rng.gamma(4, width / 4, int(3 * reach / width))) - reach
        here = row == r
        parcel[here] = np.searchsorted(edges, along[here]) + 100_000 * r
    to_track = np.min(abs(across[None] - rows[:, None, None]), 0)
    return np.unique(parcel, return_inverse=True)[1].reshape(land.shape), to_track


def sow(land: Land, parcel: np.ndarray, weights: Mapping[int, float], where: np.ndarray) -> None:
    """Give every parcel a kind by weight, and make it an item of its own."""
    number = parcel.max() + 1
    share = np.array(list(weights.values())) / sum(weights.values())
    kinds = land.rng.permutation(  # as evenly as the weights say, not by luck
        np.repeat(list(weights), np.ceil(share * number).astype(int))
    )[:number]
    if len(kinds) < number:
        kinds = np.resize(kinds, number)
    land.put(where, GRASS)
    land.kind[where] = kinds[parcel[where]]
    land.item[where] = parcel[where] + land.items
    land.items += number


# --- plants


def plant(
    land: Land,
    density: np.ndarray,
    *,
    spacing: float,
    radius: tuple[float, float],
    top: tuple[float, float],
    jitter: float = 0.45,
    angle: float = 0.3,
    on: Sequence[int] = (GRASS, DRY, CROPS, SOIL, SAND, GRAVEL),
) -> None:
    """Put round crowns on a turned grid, moved at random by `jitter` of its spacing.

    Args:
        land: gets the crowns.
        density: (row, column) chance of a crown, at its middle.
        spacing: of the grid, m.
        radius: smallest and largest, m.
        top: lowest and highest, m.
        jitter: 0 for an orchard.
        angle: of the rows.
        on: kinds that trees grow on.
    """
    rng = land.rng
    along, across = (c / spacing for c in land.turned(angle))
    i, j = (np.floor(c).astype(int) for c in (along, across))
    origin = i.min() - 1, j.min() - 1
    size = i.max() - origin[0] + 2, j.max() - origin[1] + 2
    centre_u = np.arange(size[0])[:, None] + origin[0] + 0.5 + rng.uniform(-jitter, jitter, size)
    centre_v = np.arange(size[1])[None] + origin[1] + 0.5 + rng.uniform(-jitter, jitter, size)
    x = spacing * (centre_u * np.cos(angle) - centre_v * np.sin(angle)) + land.wide / 2
    y = spacing * (centre_u * np.sin(angle) + centre_v * np.cos(angle)) + land.tall / 2
    row, column = (np.floor(c / land.cell).astype(int) for c in (y, x))
    inside = (row >= 0) & (row < land.shape[0]) & (column >= 0) & (column < land.shape[1])
    row, column = row.clip(0, land.shape[0] - 1), column.clip(0, land.shape[1] - 1)
    grows = (rng.uniform(size=size) < density[row, column]) & np.isin(land.kind[row, column], on)
    grows &= inside | (density[row, column] > 0.5)
    radii, tops = rng.uniform(*radius, size), rng.uniform(*top, size)
    ground, best = np.isin(land.kind, on), np.zeros(land.shape, np.float32)
    which = np.full(land.shape, -1)
    for di in (-1, 0, 1):
        for dj in (-1, 0, 1):
            a, b = i + di - origin[0], j + dj - origin[1]
            far = np.hypot(along - centre_u[a, b], across - centre_v[a, b]) * spacing / radii[a, b]
            height = tops[a, b] * (0.45 + 0.55 * np.sqrt(np.clip(1 - far**2, 0, 1)))
            higher = grows[a, b] & (far < 1) & (height > best) & ground
            best[higher], which[higher] = height[higher], (a * size[1] + b)[higher]
    crown = which >= 0
    land.kind[crown], land.height[crown] = TREES, best[crown]
    land.item[crown] = which[crown] + land.items
    land.items += size[0] * size[1]


def wood(land: Land, where: np.ndarray, density: float = 1.0) -> None:
    """A closed wood."""
    close = max(4.8, 1.6 * land.cell)
    plant(
        land,
        np.where(where, density, 0.0),
        spacing=close,
        radius=(0.5 * close, 0.85 * close),
        top=(8, 18),
    )


# --- towns


def line_distance(land: Land, points: np.ndarray) -> np.ndarray:
    """Distance (m) of every cell to a polyline (point, x and y)."""
    nearest = np.full(land.shape, np.inf)
    for (x0, y0), (x1, y1) in pairwise(points):
        dx, dy = x1 - x0, y1 - y0
        t = np.clip(((land.x - x0) * dx + (land.y - y0) * dy) / (dx * dx + dy * dy), 0, 1)
        np.minimum(nearest, np.hypot(land.x - x0 - t * dx, land.y - y0 - t * dy), out=nearest)
    return nearest


def winding(land: Land, start: tuple[float, float], angle: float, bend: float) -> np.ndarray:
    """A road that wanders through the land, (point, x and y)."""
    step = max(land.tall, land.wide) / 16
    points, turn = [np.array(start)], 0.0
    for _ in range(26):
        turn = 0.6 * turn + land.rng.normal(0, bend)
        angle += turn
        points.append(points[-1] + step * np.array([np.cos(angle), np.sin(angle)]))
    return np.array(points)


def box(
    land: Land, x: float, y: float, sides: tuple[float, float], angle: float, top: float,
    *, gable: bool, free: np.ndarray, gap: float, kind: int = ROOF,
) -> bool:  # fmt: skip
    """A building, where its ground and `gap` m around are `free`; whether it was. A gable's halves are two items."""
    reach = np.hypot(*sides) / 2 + gap + land.cell
    rows, columns = (
        slice(max(0, int((c - reach) / land.cell)), max(0, int((c + reach) / land.cell) + 1))
        for c in (y, x)
    )
    near_x, near_y = land.x[rows, columns] - x, land.y[rows, columns] - y
    u = near_x * np.cos(angle) + near_y * np.sin(angle)
    v = near_y * np.cos(angle) - near_x * np.sin(angle)
    ground = (abs(u) < sides[0] / 2 + gap) & (abs(v) < sides[1] / 2 + gap)
    covered = (abs(u) < sides[0] / 2) & (abs(v) < sides[1] / 2)
    if not covered.any() or not free[rows, columns][ground].all():
        return False
    land.kind[rows, columns][covered] = kind
    rise = 0.32 * (sides[1] - 2 * abs(v[covered])) if gable else 0
    land.height[rows, columns][covered] = top + rise
    land.item[rows, columns][covered] = land.items
    free[rows, columns][ground] = False
    land.items += 1
    return True


def along_road(
    land: Land, points: np.ndarray, free: np.ndarray, *, set_back: float, every: float,
    sides: tuple[float, float], chance: float,
) -> None:  # fmt: skip
    """Houses on both sides of a road, with gardens where there is grass."""
    rng = land.rng
    for (x0, y0), (x1, y1) in pairwise(points):
        angle, long = np.arctan2(y1 - y0, x1 - x0), np.hypot(x1 - x0, y1 - y0)
        for t in np.arange(every / 2, long, every):
            for side in (-1, 1):
                if rng.uniform() > chance:
                    continue
                away = side * (set_back + rng.uniform(0, 3))
                x = x0 + t * np.cos(angle) - away * np.sin(angle)
                y = y0 + t * np.sin(angle) + away * np.cos(angle)
                size = sides[0] * rng.uniform(0.8, 1.3), sides[1] * rng.uniform(0.85, 1.15)
                turn = angle + rng.choice([0, np.pi / 2]) + rng.normal(0, 0.06)
                box(land, x, y, size, turn, rng.uniform(3.5, 6), gable=True, free=free, gap=1.5)


@dataclass
class Blocks:
    """A street grid: distance (m) to the kerb, negative on streets, and the blocks' middles, sizes and angle."""

    to_street: np.ndarray
    number: np.ndarray
    blocks: list[tuple[float, float, float, float]]  # x, y, length, width
    angle: float


def street_grid(land: Land, length: float, width: float, street: float) -> Blocks:
    """Streets at irregular distances, at right angles; asphalt is not laid yet."""
    rng, angle = land.rng, land.rng.uniform(-0.6, 0.6)
    reach = 0.75 * (land.tall + land.wide)
    lines, distance, index = [], [], []
    for coordinate, size in zip(land.turned(angle), (length, width), strict=True):
        at = np.cumsum(rng.uniform(0.75, 1.3, int(2.6 * reach / size)) * (size + street)) - reach
        broad = np.where(np.arange(len(at)) % 4 == 0, 1.6, 1.0) * street / 2
        i = np.searchsorted(at, coordinate).clip(1, len(at) - 1)
        distance.append(
            np.minimum(coordinate - at[i - 1] - broad[i - 1], at[i] - broad[i] - coordinate)
        )
        lines.append((at, broad))
        index.append(i)
    blocks: list[tuple[float, float, float, float]] = []
    number = np.full(land.shape, -1)
    for a in np.unique(index[0]):
        for b in np.unique(index[1][index[0] == a]):
            (u0, u1), (v0, v1) = (
                (at[i - 1] + broad[i - 1], at[i] - broad[i])
                for i, (at, broad) in zip((a, b), lines, strict=True)
            )
            u, v = (u0 + u1) / 2, (v0 + v1) / 2
            x = u * np.cos(angle) - v * np.sin(angle) + land.wide / 2
            y = u * np.sin(angle) + v * np.cos(angle) + land.tall / 2
            number[(index[0] == a) & (index[1] == b)] = len(blocks)
            blocks.append((x, y, u1 - u0, v1 - v0))
    return Blocks(np.minimum(*distance), number, blocks, angle)


def fill_block(land: Land, grid: Blocks, block: int, use: str, free: np.ndarray) -> None:
    """Build on a block: houses, court (closed around a yard), slabs, hall, park, paved, or bare."""
    rng, (x, y, length, width), angle = land.rng, grid.blocks[block], grid.angle
    inside = (grid.number == block) & (grid.to_street > 0)

    def place(
        u: float, v: float, sides: tuple[float, float], turn: float = 0, **more: float
    ) -> None:
        px = x + u * np.cos(angle) - v * np.sin(angle)
        py = y + u * np.sin(angle) + v * np.cos(angle)
        gable, top = bool(more.get("gable", 0)), more.get("top", 6)
        box(land, px, py, sides, angle + turn, top, gable=gable, free=free, gap=more.get("gap", 1))

    if use == "houses":
        for v in (-width / 2 + 9, width / 2 - 9):
            for u in np.arange(-length / 2 + 9, length / 2 - 7, 17):
                sides = rng.uniform(10, 14), rng.uniform(8, 10)
                place(
                    u + rng.normal(0, 0.7), v, sides, rng.choice([0, np.pi / 2]), gable=1, top=4.5
                )
        plant(land, np.where(inside & free, 0.13, 0), spacing=6, radius=(2, 3.8), top=(5, 10))
    elif use == "court":
        deep, top = rng.uniform(10, 13), rng.uniform(10, 16)
        for v in (-1, 1):
            place(0, v * (width / 2 - 3 - deep / 2), (length - 6, deep), top=top, gable=1, gap=0)
        for u in (-1, 1):
            place(u * (length / 2 - 3 - deep / 2), 0, (deep, width - 6 - 2 * deep), top=top, gap=0)
        yard = inside & free & (grid.to_street > deep + 4)
        land.put(yard & (land.blobs(14) > 0.2), int(rng.choice([CONCRETE, ASPHALT])))
        plant(land, np.where(yard, 0.3, 0), spacing=7, radius=(2, 4), top=(6, 11))
    elif use == "slabs":
        for v in np.arange(-width / 2 + 14, width / 2 - 8, 34):
            place(
                rng.uniform(-6, 6),
                v,
                (length * rng.uniform(0.5, 0.75), 12),
                top=rng.uniform(14, 28),
            )
        plant(land, np.where(inside & free, 0.1, 0), spacing=8, radius=(2.4, 4.5), top=(7, 13))
    elif use == "hall":
        land.put(inside & (grid.to_street > 2), int(rng.choice([ASPHALT, CONCRETE])))
        parts = int(rng.integers(1, 4))
        for n in range(parts):
            u = (n + 0.5) / parts * length - length / 2
            sides = length / parts * rng.uniform(0.6, 0.85), width * rng.uniform(0.4, 0.75)
            place(u, rng.uniform(-0.08, 0.08) * width, sides, top=rng.uniform(7, 12))
    elif use == "park":
        density = np.where(inside & (land.blobs(40) > 0.1), 0.75, 0.06) * inside
        plant(land, density, spacing=6.5, radius=(2.4, 4.6), top=(7, 14))
    elif use == "paved":
        land.put(inside & (grid.to_street > 1.5), ASPHALT)
        rows = np.where(inside, 0.5, 0)
        plant(
            land,
            rows,
            spacing=16,
            radius=(1.8, 2.6),
            top=(4, 6),
            jitter=0.03,
            angle=angle,
            on=(ASPHALT,),
        )
    elif use == "bare":
        land.put(inside & (grid.to_street > 1), SOIL)


# --- whole landscapes: each puts its own mixture of the above on the land; `dry` and `busy` vary it


def coast(land: Land, dry: bool, busy: bool) -> None:
    """Sea, beach, dunes, a pine wood behind; when busy, a village with a road."""
    px = land.pixel
    bank = coast_bank(land, land.rng.uniform(0.3, 0.42), 7 * px)
    land.put(land.kind >= 0, DRY if dry else GRASS)
    dune = -bank + 3 * px * land.blobs(16 * px)
    land.put((dune < 22 * px) & (land.blobs(9 * px) > -0.4), DRY)
    beach = 5 * px + 2.5 * px * land.blobs(30 * px)
    land.put(-bank < beach, SAND)
    land.put((dune < 26 * px) & (land.blobs(6 * px) > 1.25), SAND)
    free = -bank > beach + 4
    if busy:
        _villages(land, free, roads=2, every=17)
    land.flood(bank)
    wood(land, free & (dune > 20 * px) & (land.blobs(22 * px) > 0.1) & _apart(land, 5))
    plant(land, np.where(free, 0.05, 0), spacing=7, radius=(1.8, 3.4), top=(4, 9))


def lake(land: Land, dry: bool, busy: bool) -> None:
    """A lake or two in woods with clearings; when busy, ploughed fields."""
    rng, px = land.rng, land.pixel
    land.put(land.kind >= 0, DRY if dry else GRASS)
    if busy:
        parcel, _ = voronoi(land, 26 * px, 1.5)
        sow(land, parcel, {SOIL: 3, GRASS: 3, DRY: int(dry)}, land.kind >= 0)
    far = min(land.tall, land.wide)
    bank = lake_bank(
        land, land.wide * rng.uniform(0.25, 0.5), land.tall * rng.uniform(0.3, 0.6), 0.24 * far
    )
    second = lake_bank(land, land.wide * 0.82, land.tall * rng.uniform(0.15, 0.85), 0.1 * far)
    bank = np.maximum(bank, second)
    land.flood(bank)
    forest = land.blobs(24 * px) + 0.35 * land.blobs(7 * px) + np.clip(-bank / (30 * px), 0, 1)
    wood(land, (forest > (0.9 if busy else 0.35)) & (bank < -px))
    plant(
        land,
        np.where((bank < -2) & (bank > -4 * px), 0.35, 0.02),
        spacing=6,
        radius=(2, 4),
        top=(5, 11),
    )


def valley(land: Land, dry: bool, busy: bool) -> None:
    """A river between fields, with trees on its banks and a road over a bridge."""
    rng, px = land.rng, land.pixel
    angle = rng.uniform(0, np.pi)
    parcel, border = voronoi(land, 22 * px, 2.0)
    sow(land, parcel, {GRASS: 4, SOIL: 3, DRY if dry else CROPS: 2}, land.kind >= 0)
    bank = river_bank(land, 10 * px, 14 * px, angle, rng.uniform(-10, 10) * px)
    land.flood(bank)
    wood(land, (bank < -1) & (bank > -6 * px) & (land.blobs(14 * px) > -0.1))
    wood(land, (bank < -8 * px) & (land.blobs(26 * px) > 1.15))
    plant(land, np.where(border < 2.5, 0.3, 0.004), spacing=6, radius=(2, 3.6), top=(4, 9))
    middle = land.wide * rng.uniform(0.3, 0.7), land.tall * rng.uniform(0.3, 0.7)
    across = 2000 * np.array([-np.sin(angle), np.cos(angle)])
    road = np.array([middle - across, middle + across])
    land.put(line_distance(land, road) < max(4.5, 0.9 * px), ASPHALT)
    if busy:
        free = (bank < -8) & (land.kind == GRASS)
        _villages(land, free, roads=2, every=14)


def mosaic(land: Land, dry: bool, busy: bool) -> None:
    """Fields of all kinds with hedges and tracks; when busy, farms."""
    rng, px = land.rng, land.pixel
    parcel, border = voronoi(land, rng.uniform(17, 24) * px, rng.uniform(1.2, 2.2))
    sow(land, parcel, {CROPS: 4, SOIL: 3, DRY if dry else GRASS: 3}, land.kind >= 0)
    track = border < max(1.6, 0.35 * px)
    land.put(track, GRASS if not dry else SOIL)
    hedge = (border < max(3.5, 0.7 * px)) & (np.sin(parcel * 12.9898) > -0.1)
    wood(land, hedge)
    wood(land, land.blobs(30 * px) > 1.35)
    if busy:
        _farms(land, 5)


def village(land: Land, dry: bool, busy: bool) -> None:
    """Strip fields around a village street with gardens."""
    px = land.pixel
    parcel, track = strips(land, 8 * px, 45 * px)
    sow(land, parcel, {CROPS: 3, SOIL: 3, GRASS: 2, DRY: 2 if dry else 0.01}, land.kind >= 0)
    land.put(track < max(1.8, 0.4 * px), SOIL if dry else GRASS)
    along, across = land.turned(land.rng.uniform(0, np.pi))
    green = 22 * px + 4 * px * land.blobs(20 * px) - abs(across)
    land.put((green > 0) & (abs(along) < 0.42 * land.wide), GRASS)
    _villages(land, green > 2, roads=3 if busy else 2, every=15.5)
    plant(land, np.where(green > 0, 0.12, 0.003), spacing=6, radius=(2, 3.8), top=(4, 10))
    wood(land, (green < -12 * px) & (land.blobs(26 * px) > 1.2))


def town(land: Land, dry: bool, busy: bool) -> None:
    """A street grid with closed blocks, slabs, parks."""
    land.put(land.kind >= 0, DRY if dry else GRASS)
    grid = street_grid(land, 95 if busy else 80, 62, 11)
    land.put(grid.to_street < 0, ASPHALT)
    land.put((grid.to_street >= 0) & (grid.to_street < 2.2), CONCRETE)
    free = grid.to_street > 2
    uses = ["court", "court", "court", "slabs", "houses", "park", "paved"]
    if not busy:
        uses = ["houses", "houses", "slabs", "court", "park", "hall", "houses"]
    order = land.rng.permutation(np.resize(uses, len(grid.blocks)))
    for block, use in enumerate(order):
        fill_block(land, grid, block, str(use), free)
    row = np.where(abs(grid.to_street - 1.5) < 1.5, 0.35, 0)
    plant(land, row, spacing=9, radius=(2, 3.4), top=(6, 10), on=(GRASS, DRY, CONCRETE))


def suburb(land: Land, dry: bool, busy: bool) -> None:
    """Winding streets with single houses under trees, and ponds."""
    rng = land.rng
    land.put(land.kind >= 0, DRY if dry else GRASS)
    if busy:
        bank = lake_bank(
            land,
            land.wide * rng.uniform(0.6, 0.8),
            land.tall * rng.uniform(0.2, 0.4),
            0.16 * land.tall,
        )
        bank = np.maximum(bank, lake_bank(land, land.wide * 0.2, land.tall * 0.8, 0.09 * land.tall))
        land.flood(bank)
    free = land.depth < -6
    _villages(land, free, roads=round(8 * np.sqrt(land.tall * land.wide) / 400), every=16.5)
    lots = np.where(land.depth < -1, 0.16 + 0.14 * (land.blobs(70) > 0), 0)
    plant(land, lots, spacing=6.5, radius=(2.2, 4.6), top=(6, 14))
    wood(land, (land.blobs(120) > 1.1) & _apart(land, 6) & (land.depth < -3))


def industry(land: Land, dry: bool, busy: bool) -> None:
    """Halls, yards, parking lots and waste ground on a wide street grid; when busy, with a canal."""
    land.put(land.kind >= 0, DRY if dry else GRASS)
    grid = street_grid(land, 150, 105, 14)
    land.put(grid.to_street < 0, ASPHALT)
    free = grid.to_street > 3
    uses = ["hall", "hall", "paved", "hall", "bare", "park"]
    for block, use in enumerate(land.rng.permutation(np.resize(uses, len(grid.blocks)))):
        fill_block(land, grid, block, str(use), free)
    land.put((land.kind == SOIL) & (land.blobs(25) > 0.8), GRAVEL)
    land.put((land.kind == SOIL) & (land.blobs(18) > 0.9), DRY)
    if busy:
        canal = 5 * land.pixel - abs(land.turned(grid.angle + 0.35)[1] - 0.12 * land.tall)
        land.flood(canal)
        land.put((canal <= 0) & (canal > -2.5), CONCRETE)
    wood(land, (land.blobs(60) > 1.2) & (land.kind == GRASS))


def orchard(land: Land, dry: bool, busy: bool) -> None:
    """Rows of fruit trees over soil or grass, parcel by parcel, among fields."""
    rng, px = land.rng, land.pixel
    parcel, border = voronoi(land, 27 * px, 1.5)
    floor = {SOIL: 4, DRY: 3} if dry else {GRASS: 4, SOIL: 3, CROPS: 1}
    sow(land, parcel, floor, land.kind >= 0)
    inner = border > max(2.5, 0.8 * px)
    for group in range(3):
        rows = np.where(inner & (parcel % 5 == group), 0.96, 0)
        gap = max(rng.uniform(5.5, 7.5), 1.3 * px)
        plant(
            land,
            rows,
            spacing=gap,
            radius=(0.36 * gap, 0.5 * gap),
            top=(3, 5),
            jitter=0.05,
            angle=rng.uniform(0, 3),
        )
    land.put(border < max(1.8, 0.4 * px), SOIL if rng.uniform() < 0.6 else ASPHALT)
    if busy:
        bank = lake_bank(
            land,
            land.wide * rng.uniform(0.3, 0.7),
            land.tall * rng.uniform(0.3, 0.7),
            0.12 * land.tall,
        )
        land.flood(bank)
    _farms(land, 6)


def savanna(land: Land, dry: bool, busy: bool) -> None:
    """Dry grass and bare patches with single trees, a dirt track; when burnt, scars."""
    px = land.pixel
    land.put(land.kind >= 0, DRY)
    bare = land.blobs(18 * px) + 0.6 * land.blobs(5 * px)
    land.put(bare > 0.75, SOIL)
    wet = abs(land.blobs(70 * px))
    if not dry:
        land.put(wet < 0.09, GRASS)
    if busy:
        land.put((land.blobs(30 * px) + 0.4 * land.blobs(6 * px) > 0.7), BURNT)
    _hills(land, 9 * px, 60 * px)
    land.put(
        line_distance(land, winding(land, (0, land.tall / 2), 0, 0.15)) < max(2.5, 0.6 * px), SOIL
    )
    density = np.where(wet < 0.14, 0.5, 0.04) + 0.12 * (land.blobs(35 * px) > 0.9)
    size = max(7.0, 1.6 * px)
    plant(
        land,
        density,
        spacing=size,
        radius=(0.3 * size, 0.5 * size),
        top=(4, 9),
        on=(DRY, SOIL, GRASS),
    )


def quarry(land: Land, dry: bool, busy: bool) -> None:
    """Pits of gravel and sand with ponds in them, amid fields or waste land."""
    rng, px = land.rng, land.pixel
    land.put(land.kind >= 0, DRY if dry else GRASS)
    parcel, _ = voronoi(land, 30 * px, 1.6)
    sow(land, parcel, {GRASS: 1.5, DRY: 2 if dry else 0.3, SOIL: 1.5}, land.kind >= 0)
    far = min(land.tall, land.wide)
    pit = lake_bank(
        land, land.wide * rng.uniform(0.4, 0.6), land.tall * rng.uniform(0.4, 0.6), 0.36 * far
    )
    land.put(pit > 0, GRAVEL)
    land.put((pit > 0) & (land.blobs(16 * px) > 0.35), SAND)
    land.put((pit > 0) & (pit < 2.5 * px), SOIL)
    land.relief -= (np.clip(pit, 0, 14 * px) * 0.35).astype(np.float32)
    pond = pit - 0.15 * far + 4 * px * land.blobs(20 * px)
    land.flood(pond)
    wood(land, (pit < -3) & (land.blobs(28 * px) > 0.55))
    road = line_distance(land, winding(land, (0, land.tall * rng.uniform(0.3, 0.7)), 0, 0.08))
    land.put((road < max(4, 0.7 * px)) & (pit < 0), ASPHALT)
    if busy:
        _farms(land, 4)


def satellite(land: Land, dry: bool, busy: bool) -> None:
    """A region seen from orbit: woods, big fields, a lake and a river, towns as blurs of roofs and streets."""
    rng, px = land.rng, land.pixel
    parcel, border = voronoi(land, 9 * px, 1.5)
    sow(land, parcel, {CROPS: 4, SOIL: 3, DRY if dry else GRASS: 3}, land.kind >= 0)
    _hills(land, 3 * px, 50 * px)
    land.put(border < 5, GRASS)
    far = min(land.tall, land.wide)
    bank = np.maximum(
        lake_bank(
            land, land.wide * rng.uniform(0.2, 0.8), land.tall * rng.uniform(0.2, 0.8), 0.14 * far
        ),
        river_bank(land, 3.2 * px, 12 * px, rng.uniform(0, np.pi), rng.uniform(-15, 15) * px),
    )
    forest = land.blobs(26 * px) + 0.35 * land.blobs(6 * px)
    wood(land, forest > 0.55)
    built = land.blobs(34 * px) + 0.4 * land.blobs(7 * px) - 0.5 * forest
    grid = street_grid(land, 130, 90, 16)
    urban = built > (0.95 if busy else 1.25)
    core = built > (1.5 if busy else 1.8)
    land.put(urban, GRASS)
    roofs, _ = voronoi(land, 24, 1.4)
    chosen = land.rng.uniform(size=roofs.max() + 1)[roofs]
    houses = urban & (chosen < np.where(core, 0.72, 0.4)) & (grid.to_street > 3)
    land.put(houses, ROOF)
    land.item[houses], land.items = roofs[houses] + land.items, land.items + roofs.max() + 1
    land.put(urban & (grid.to_street < 0), ASPHALT)
    land.put(urban & core & (land.kind == GRASS), CONCRETE)
    plant(land, np.where(urban, 0.25, 0), spacing=10, radius=(3, 5), top=(6, 12))
    road = line_distance(land, winding(land, (0, land.tall * rng.uniform(0.2, 0.8)), 0, 0.1))
    land.put(road < 0.45 * px, ASPHALT)
    land.flood(bank)


def delta(land: Land, dry: bool, busy: bool) -> None:
    """Braided channels with mud and sand banks, reed and willows."""
    rng, px = land.rng, land.pixel
    angle = rng.uniform(0, np.pi)
    land.put(land.kind >= 0, GRASS)
    far = min(land.tall, land.wide)
    arms = [
        river_bank(
            land,
            rng.uniform(0.035, 0.08) * far,
            rng.uniform(0.04, 0.09) * far,
            angle + rng.normal(0, 0.3),
            off * far,
        )
        for off in (-0.26, -0.03, 0.2)
    ]
    bank = np.maximum.reduce(arms)
    flat = bank + 4 * px * land.blobs(12 * px)
    land.put(flat > -5 * px, SOIL)
    land.put((flat > -3 * px) & (land.blobs(22 * px) > 0.3), SAND if dry else SOIL)
    reed = (flat < -5 * px) & (land.blobs(16 * px) > 0.5)
    land.put(reed, DRY)
    land.flood(bank)
    wood(land, (bank < -9 * px) & (land.blobs(20 * px) > 0.35))
    plant(land, np.where(flat < -4 * px, 0.04, 0), spacing=6, radius=(1.6, 3), top=(3, 7))
    if busy:
        parcel, _ = voronoi(land, 18 * px, 1.8)
        inland = bank < -22 * px
        sow(land, parcel, {CROPS: 2, SOIL: 2, GRASS: 1}, inland & (land.kind != TREES))


def hills(land: Land, dry: bool, busy: bool) -> None:
    """Steep ground: woods on some slopes, meadows, scree and bare rock high up; when busy, a fire scar."""
    px = land.pixel
    _hills(land, 26 * px, 55 * px)
    land.put(land.kind >= 0, DRY if dry else GRASS)
    high = (land.relief - land.relief.mean()) / land.relief.std()
    rock = high + 0.5 * land.blobs(9 * px)
    land.put(rock > 1.05, GRAVEL)
    land.put((rock > 0.7) & (rock <= 1.05) & (land.blobs(5 * px) > 0.2), SOIL)
    if busy:
        land.put((rock < 0.7) & (land.blobs(34 * px) > 0.8), BURNT)
    wood(land, (rock < 0.6) & (land.blobs(24 * px) + 0.3 * land.blobs(5 * px) > 0.0), 0.95)
    plant(land, np.where(rock < 0.8, 0.03, 0), spacing=7, radius=(2, 3.6), top=(5, 10))
    track = line_distance(land, winding(land, (0, land.tall * 0.6), -0.2, 0.2))
    land.put(track < max(2.5, 0.55 * px), SOIL)


def _apart(land: Land, metres: float) -> np.ndarray:
    """Where no building or road is near."""
    return distance_transform_edt(~np.isin(land.kind, (ROOF, ASPHALT))) * land.cell > metres


def _hills(land: Land, height: float, wide: float) -> None:
    """Raise smooth hills."""
    land.relief += (height * (land.blobs(wide) + 0.3 * land.blobs(wide / 3)) / 2).astype(np.float32)


def _villages(land: Land, free: np.ndarray, roads: int, every: float) -> None:
    """Winding roads with houses beside them, where the land is free."""
    rng = land.rng
    half = max(3.2, 0.62 * land.pixel)
    lines = []
    for n in range(max(roads, 1)):
        if n % 2 == 0:
            start, angle = (-5.0, land.tall * rng.uniform(0.1, 0.9)), rng.normal(0, 0.2)
        else:
            start, angle = (land.wide * rng.uniform(0.1, 0.9), -5.0), np.pi / 2 + rng.normal(0, 0.2)
        lines.append(winding(land, start, angle, 0.12))
    to_road = np.min([line_distance(land, line) for line in lines], 0) - half
    land.put((to_road < 0) & (free | (land.depth < -1e2)), ASPHALT)
    ground = free & (to_road > 1.5) & ~np.isin(land.kind, (WATER, ASPHALT, ROOF))
    big = max(1.0, land.pixel / 4)
    for line in lines:
        along_road(
            land, line, ground, set_back=half + 8 * big, every=every * big,
            sides=(13 * big, 9.5 * big), chance=0.85,
        )  # fmt: skip


def _farms(land: Land, number: int) -> None:
    """Groups of barns around paved yards."""
    rng = land.rng
    big = max(1.0, land.pixel / 3.5)
    for _ in range(number):
        x, y = land.wide * rng.uniform(0.08, 0.92), land.tall * rng.uniform(0.08, 0.92)
        if land.kind[int(y / land.cell), int(x / land.cell)] == WATER:
            continue
        angle = rng.uniform(0, np.pi)
        yard = np.hypot(land.x - x, land.y - y) < rng.uniform(9, 18) * big * (
            1 + 0.2 * land.blobs(12 * big)
        )
        land.put(yard & (land.kind != WATER), int(rng.choice([CONCRETE, ASPHALT, SOIL])))
        free = land.kind != WATER
        for turn in range(int(rng.integers(2, 5))):
            direction, away = angle + turn * np.pi / 2, rng.uniform(13, 24) * big
            size = rng.uniform(13, 32) * big, rng.uniform(8, 14) * big
            box(
                land, x + away * np.cos(direction), y + away * np.sin(direction), size,
                direction + np.pi / 2, 6, gable=True, free=free, gap=0,
            )  # fmt: skip


LANDSCAPES: dict[str, Callable[[Land, bool, bool], None]] = {
    f.__name__: f
    for f in (
        coast, lake, valley, mosaic, village, town, suburb, industry, orchard, savanna, quarry,
        satellite, delta, hills,
    )
}  # fmt: skip


def draw(
    name: str, rng: np.random.Generator, size: tuple[int, int], pixel: float, fine: int,
    *, dry: bool, busy: bool,
) -> Land:  # fmt: skip
    """Draw a landscape of `size` pixels of `pixel` metres, with `fine` cells along a pixel's side."""
    land = Land((size[0] * fine, size[1] * fine), pixel / fine, pixel, rng)
    LANDSCAPES[name](land, dry, busy)
    return land
