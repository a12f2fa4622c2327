"""The landscape: what lies where, and how high, on a grid finer than the pixels."""

from dataclasses import dataclass, field
from itertools import pairwise, product

import numpy as np
from scipy.ndimage import distance_transform_edt, uniform_filter

CLASSES = ["water", "trees", "grass", "bare soil", "asphalt", "roof"]
WATER, TREES, GRASS, SOIL, ASPHALT, ROOF = range(len(CLASSES))
HEIGHT, WIDTH, PIXEL, FINE = 160, 200, 2.0, 4  # pixels, pixels, m, fine cells along a pixel's side
STEP = PIXEL / FINE  # m
HALLS = (  # a school and barns: x, y, length, width (m), angle
    (136, 137, 34, 17, -0.24),
    (225, 118, 30, 16, -0.2),
    (287, 113, 30, 16, -0.1),
    (330, 151, 30, 15, 0.05),
)


@dataclass
class Landscape:
    """What lies on each cell of the fine grid, (row, column) of STEP metres."""

    kind: np.ndarray  # class, by position in CLASSES
    height: np.ndarray  # m above ground
    item: np.ndarray  # number of the crown or house, -1 for ground
    items: int = 0  # how many crowns and houses there are
    x: np.ndarray = field(init=False)  # m from the left
    y: np.ndarray = field(init=False)  # m from the top

    def __post_init__(self) -> None:
        """Lay out the coordinates of the cells' centres."""
        rows, columns = self.kind.shape
        self.y, self.x = np.mgrid[0.5:rows, 0.5:columns] * STEP

    def window(self, x: float, y: float, reach: float) -> tuple[slice, slice]:
        """The cells within `reach` metres of a point."""
        rows, columns = (
            slice(max(0, int((c - reach) / STEP)), max(0, int((c + reach) / STEP) + 1))
            for c in (y, x)
        )
        return rows, columns


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], metres: float) -> np.ndarray:
    """Noise (row, column) float32 of mean 0 and deviation 1, in blobs about `metres` wide."""
    noise = rng.standard_normal(shape)
    for _ in range(3):  # three running means are close to a Gaussian, and fast
        noise = uniform_filter(noise, round(metres / STEP), mode="wrap")
    return ((noise - noise.mean()) / noise.std()).astype(np.float32)


def distance_to_line(land: Landscape, points: list[tuple[float, float]]) -> np.ndarray:
    """Distance (m) of every cell to a polyline of (x, y) points, (row, column)."""
    nearest = np.full(land.kind.shape, np.inf)
    for (x0, y0), (x1, y1) in pairwise(points):
        dx, dy = x1 - x0, y1 - y0
        t = np.clip(((land.x - x0) * dx + (land.y - y0) * dy) / (dx * dx + dy * dy), 0, 1)
        np.minimum(nearest, np.hypot(land.x - x0 - t * dx, land.y - y0 - t * dy), out=nearest)
    return nearest


def add_crown(land: Landscape, x: float, y: float, radius: float, top: float) -> None:
    """Put a round tree crown on the land where it is the highest thing."""
    near = land.window(x, y, radius)
    far = np.hypot(land.x[near] - x, land.y[near] - y) / radius
    angle = np.arctan2(land.y[near] - y, land.x[near] - x)
    # not a perfect circle
    far *= 1 + 0.1 * np.sin(3 * angle + 7 * x) + 0.07 * np.sin(5 * angle + 5 * y)
    height = top - 0.55 * top * (1 - np.sqrt(np.clip(1 - far**2, 0, 1)))
    higher = (far < 1) & (height > land.height[near])
    land.kind[near][higher], land.height[near][higher] = TREES, height[higher]
    land.item[near][higher] = land.items
    land.items += 1


def add_house(
    land: Landscape, x: float, y: float, length: float, width: float, angle: float, free: np.ndarray
) -> bool:
    """Put a house with a gable roof on the land, if all its ground and 2 m around it is `free`; whether it was."""
    near = land.window(x, y, length)
    u = (land.x[near] - x) * np.cos(angle) + (land.y[near] - y) * np.sin(angle)
    v = (land.y[near] - y) * np.cos(angle) - (land.x[near] - x) * np.sin(angle)
    ground = (abs(u) < length / 2 + 2) & (abs(v) < width / 2 + 2)
    inside = length < x < WIDTH * PIXEL - length and length < y < HEIGHT * PIXEL - length
    if not inside or not free[near][ground].all():
        return False
    roof = (abs(u) < length / 2) & (abs(v) < width / 2)
    land.kind[near][roof], land.item[near][roof] = ROOF, land.items
    land.height[near][roof] = 4 + 0.32 * (width - 2 * abs(v[roof]))
    free[near][ground] = False
    land.items += 1
    return True


def draw_landscape(rng: np.random.Generator) -> tuple[Landscape, np.ndarray]:
    """Draw a river, woods, meadows, two ploughed fields and a village.

    Returns:
        The land, and the distance (m) from the bank of the water, (row, column), positive inside.
    """
    shape = (HEIGHT * FINE, WIDTH * FINE)
    land = Landscape(np.full(shape, GRASS), np.zeros(shape, np.float32), np.full(shape, -1))
    x, y = land.x, land.y

    fields = (x > 284 + 0.04 * y) & (y > 162) & (abs(y - 236 - 0.1 * (x - 340)) > 2.5) & (y < 314)
    land.kind[fields] = SOIL

    centre = 72 + 26 * np.sin(2 * np.pi * (y + 40) / 290) + 6 * np.sin(2 * np.pi * y / 97)
    bank = 21 + 3 * np.sin(y / 31) + 0.5 * smooth_noise(rng, shape, 9) - abs(x - centre)
    pond = 17 + 1.5 * smooth_noise(rng, shape, 16) - np.hypot((x - 208) / 1.25, y - 60)
    bank = np.maximum(bank, pond)
    land.kind[bank > 0] = WATER

    main: list[tuple[float, float]] = [
        (-9, 196),
        (40, 186),
        (110, 170),
        (180, 152),
        (260, 136),
        (330, 132),
        (409, 140),
    ]
    streets: list[list[tuple[float, float]]] = [
        [(150, 160), (143, 220), (148, 329)],
        [(212, 146), (218, 220), (209, 329)],
        [(262, 136), (272, 200), (264, 329)],
        [(143, 240), (218, 240), (269, 236)],
    ]
    to_road = distance_to_line(land, main) - 4.8
    for street in streets:
        np.minimum(to_road, distance_to_line(land, street) - 3.4, out=to_road)
    parking = (abs(x - 176) < 15) & (abs(y - 128 + 0.25 * (x - 176)) < 11)
    land.kind[(to_road < 0) | parking] = ASPHALT  # also over the river: a bridge

    free = (land.kind == GRASS) & (to_road > 2.5) & (bank < -6) & ~parking
    _draw_houses(rng, land, [main, *streets], free)

    ragged = 9 * smooth_noise(rng, shape, 60) + 5 * smooth_noise(rng, shape, 22)
    wood = np.minimum(x - 234, 100 - y + 0.05 * (x - 250)) + ragged  # m inside the wood
    grove = 34 - np.hypot(x - 8, (y - 285) * 0.8) + 6 * smooth_noise(rng, shape, 30)
    apart = distance_transform_edt(land.kind != ROOF) * STEP > 6
    wood = np.where((to_road > 5) & apart, np.maximum(wood, grove), -1)
    land.kind[(wood > 2) & (land.kind == GRASS)] = TREES
    _draw_trees(rng, land, wood, bank, to_road)
    return land, bank


def _draw_houses(
    rng: np.random.Generator,
    land: Landscape,
    roads: list[list[tuple[float, float]]],
    free: np.ndarray,
) -> None:
    """A school and barns at given places, then houses along the roads, each with a driveway."""
    for hall in HALLS:
        add_house(land, *hall, free)
    for road in roads:
        for (x0, y0), (x1, y1) in pairwise(road):
            angle, long = np.arctan2(y1 - y0, x1 - x0), np.hypot(x1 - x0, y1 - y0)
            for along, side in product(np.arange(8, long - 4, 17.5), (-1, 1)):
                door_x, door_y = x0 + along * np.cos(angle), y0 + along * np.sin(angle)
                away = side * (15 + rng.uniform(-1, 2.5))
                x, y = door_x - away * np.sin(angle), door_y + away * np.cos(angle)
                size = rng.uniform(13, 17), rng.uniform(10, 12.5)
                angles = angle + rng.normal(0, 0.05) + rng.permutation([0, np.pi / 2])
                # eaves or gable to the road; where one is too tight, the other
                if 105 < x < 290 and any(add_house(land, x, y, *size, a, free) for a in angles):
                    _draw_driveway(land, (x, y), (door_x, door_y))


def _draw_driveway(land: Landscape, house: tuple[float, float], door: tuple[float, float]) -> None:
    """Three metres of asphalt from a house to its road, where there is grass."""
    near = land.window(*house, 22)
    part = Landscape(land.kind[near], land.height[near], land.item[near])
    part.x, part.y = land.x[near], land.y[near]
    driveway = distance_to_line(part, [house, door]) < 1.6
    part.kind[driveway & (part.kind == GRASS)] = ASPHALT


def _draw_trees(
    rng: np.random.Generator,
    land: Landscape,
    wood: np.ndarray,
    bank: np.ndarray,
    to_road: np.ndarray,
) -> None:
    """Crowns close together in the wood, in rows along the river, and single ones in gardens and meadows."""
    place = smooth_noise(rng, land.kind.shape, 60)
    for x in np.arange(2, WIDTH * PIXEL, 4.6):
        for y in np.arange(2, HEIGHT * PIXEL, 4.6):
            cx, cy = x + rng.uniform(-1.9, 1.9), y + rng.uniform(-1.9, 1.9)
            radius, top, chance = rng.uniform(2.4, 4.1), rng.uniform(8, 15), rng.uniform()
            row = min(max(int(cy / STEP), 0), land.kind.shape[0] - 1)
            column = min(max(int(cx / STEP), 0), land.kind.shape[1] - 1)
            if wood[row, column] > 1.5:
                add_crown(land, cx, cy, radius, top)
            elif land.kind[row, column] == GRASS and to_road[row, column] > radius:
                riverside = -9 < bank[row, column] < -1.5 and place[row, column] > 0
                if chance < (0.75 if riverside else 0.022):
                    add_crown(land, cx, cy, radius, 0.7 * top)


def label_pixels(kind: np.ndarray) -> np.ndarray:
    """The class that covers most of a pixel's cells, (y, x) uint8, from 1 by position in CLASSES."""
    cells = kind.reshape(HEIGHT, FINE, WIDTH, FINE)
    cover = np.stack([(cells == k).sum((1, 3)) for k in range(len(CLASSES))])
    return (cover.argmax(0) + 1).astype(np.uint8)
