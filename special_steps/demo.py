"""Demo: a simulated airborne scene of a small landscape, so that the workflow runs without a
download.

Every pixel is a mixture of reflectance spectra of the `earthlib` library (MIT licence): soils,
asphalt, tiles and dry plants were measured in field and laboratory, green canopies come from its
PROSAIL set; water is a bio-optical model. The landscape is drawn on a grid four times finer, lit by
a sun from its height field, and averaged down.
"""

import csv
import logging
import re
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import pairwise, product
from pathlib import Path

import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter, uniform_filter

from special_steps.core.atomic import atomic_write
from special_steps.core.cli import run
from special_steps.core.errors import UserError
from special_steps.io.source import parse_envi_header

log = logging.getLogger("special")

CLASSES = ["water", "trees", "grass", "bare soil", "asphalt", "roof"]  # labels 1..6
WATER, TREES, GRASS, SOIL, ASPHALT, ROOF = range(len(CLASSES))
HEIGHT, WIDTH, PIXEL, FINE = 160, 200, 2.0, 4  # pixels, pixels, m, fine cells along a pixel's side
STEP = PIXEL / FINE  # m
WAVELENGTHS = np.arange(420, 2451, 15.0)  # nm
BAD_RANGES = ((1350, 1420), (1800, 1950))  # nm, where water vapour lets no light through
SUN = np.array([0.55, 0.37, 0.75])  # towards it: x east, y south, z up
HALLS = (  # a school and barns: x, y, length, width (m), angle
    (136, 137, 34, 17, -0.24),
    (225, 118, 30, 16, -0.2),
    (287, 113, 30, 16, -0.1),
    (330, 151, 30, 15, 0.05),
)
SCALE, NODATA = 10_000, -9999
EAST, NORTH, EPSG = 372_000.0, 5_807_000.0, 32633  # upper left corner, UTM 33N
CRS = (
    'PROJCS["WGS_1984_UTM_Zone_33N",GEOGCS["GCS_WGS_1984",DATUM["D_WGS_1984",'
    'SPHEROID["WGS_1984",6378137.0,298.257223563]],PRIMEM["Greenwich",0.0],'
    'UNIT["Degree",0.0174532925199433]],PROJECTION["Transverse_Mercator"],'
    'PARAMETER["False_Easting",500000.0],PARAMETER["False_Northing",0.0],'
    'PARAMETER["Central_Meridian",15.0],PARAMETER["Scale_Factor",0.9996],'
    'PARAMETER["Latitude_Of_Origin",0.0],UNIT["Meter",1.0]]'
)


# --- spectra --------------------------------------------------------------------------------------


def read_library() -> tuple[np.ndarray, np.ndarray, list[dict[str, str]]]:
    """Wavelengths (nm), reflectances (spectrum, wavelength) and their descriptions, from
    `earthlib`'s data files.

    The package is found but not imported, for it imports more than these files need.
    """
    found = find_spec("earthlib")
    if found is None or not found.submodule_search_locations:
        raise UserError(
            "the spectral library package 'earthlib' is not installed; make the environment again "
            "with envs/run.sh"
        )
    table = Path(found.submodule_search_locations[0], "data", "spectra.sli")
    try:
        header = parse_envi_header(table.with_name("spectra.sli.hdr").read_text(), str(table))
        nm = np.array([float(v) for v in header["wavelength"].split(",")]) * 1000
        spectra = np.fromfile(table, "<f4").reshape(int(header["lines"]), len(nm))
        with table.with_name("spectra.csv").open(newline="") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, KeyError, ValueError) as error:
        raise UserError(
            f"{table}: not earthlib 1.1's library ({error}); install that version"
        ) from error
    return nm, spectra, rows


def pick_spectra(rng: np.random.Generator) -> dict[int, np.ndarray]:
    """Draw spectra (spectrum, band) at WAVELENGTHS for each class but water, in typical colours."""
    nm, spectra, rows = read_library()
    blue, red, infrared = (spectra[:, np.searchsorted(nm, w)] for w in (450, 650, 850))
    kind = np.array([r["LEVEL_3"] for r in rows])
    chlorophyll = np.array(
        [float(m[1]) if (m := re.search(r"CHL-([\d.]+)", r["NAME"])) else 0 for r in rows]
    )
    dry = np.array([r["NAME"][:8] in ("goldgras", "deadgras") for r in rows])

    def draw(which: np.ndarray, number: int) -> np.ndarray:
        chosen = rng.choice(np.flatnonzero(which), number, replace=False)
        return np.array([np.interp(WAVELENGTHS, nm, spectra[i]) for i in chosen])

    canopy = kind == "canopy"
    brown = (
        (kind == "soil")
        & (red > 1.7 * blue)
        & (red < 2.3 * blue)
        & (red > 0.14)
        & (red < 0.24)
        & (infrared < 0.36)
    )
    grey = (
        np.isin(kind, ["road", "asphalt", "parking_lot"])
        & (red < 1.35 * blue)
        & (red < 0.13)
        & (red > 0.07)
    )
    green = draw(canopy & (chlorophyll > 14) & (chlorophyll < 26) & (infrared < 0.5), 5)
    return {
        TREES: draw(canopy & (chlorophyll > 30) & (chlorophyll < 50) & (infrared > 0.45), 6),
        GRASS: np.concatenate([green, 0.5 * draw(dry, 1) + 0.5 * green[:1]]),  # one half dry
        SOIL: draw(brown, 5),
        ASPHALT: draw(grey, 5),
        ROOF: draw((kind == "tile") & (red > 0.17), 5),
    }


def water_reflectance(depth: float, sediment: float, bottom: np.ndarray) -> np.ndarray:
    """Reflectance (band,) of a water column over a `bottom` reflectance; `depth` in m, `sediment`
    as backscatter 1/m.

    Deep-water reflectance 0.33 bb / (a + bb) (Gordon et al. 1975) and exponential damping of the
    bottom (Lee et al. 1998); absorption is pure water's (rounded from Pope and Fry 1997, Kou et al.
    1993) with dissolved organic matter.
    """
    nm = [400, 450, 500, 550, 600, 650, 700, 750, 800, 850, 900, 950, 1000, 1100, 2500]
    pure = [0.007, 0.009, 0.02, 0.057, 0.22, 0.34, 0.62, 2.5, 2.0, 4.3, 6.8, 38, 36, 100, 1000]
    absorption = np.interp(WAVELENGTHS, nm, pure) + 0.16 * np.exp(-0.014 * (WAVELENGTHS - 440))
    backscatter = 0.001 * (500 / WAVELENGTHS) ** 4 + sediment * 550 / WAVELENGTHS
    deep = 0.33 * backscatter / (absorption + backscatter)
    through = np.exp(-2.4 * (absorption + backscatter) * depth)
    return 0.012 + deep * (1 - through) + bottom * through  # 0.012: sky mirrored by the surface


# --- landscape ------------------------------------------------------------------------------------


@dataclass
class Landscape:
    """The fine grid (rows, columns of STEP metres): class, height above ground (m), and which
    object it is."""

    kind: np.ndarray
    height: np.ndarray
    item: np.ndarray  # number of the crown or house, -1 for ground
    items: int = 0
    x: np.ndarray = field(init=False)  # m from the left
    y: np.ndarray = field(init=False)  # m from the top

    def __post_init__(self) -> None:
        """Lay out the coordinates of the cells' centres."""
        rows, columns = self.kind.shape
        self.y, self.x = np.mgrid[0.5:rows, 0.5:columns] * STEP

    def window(self, x: float, y: float, reach: float) -> tuple[slice, slice]:
        """The cells within `reach` metres of a point."""
        return tuple(
            slice(max(0, int((c - reach) / STEP)), max(0, int((c + reach) / STEP) + 1))
            for c in (y, x)
        )


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], metres: float) -> np.ndarray:
    """Noise of mean 0 and deviation 1 whose blobs are about `metres` wide, (rows, columns)."""
    noise = rng.standard_normal(shape)
    for _ in range(3):  # three running means are close to a Gaussian, and fast
        noise = uniform_filter(noise, round(metres / STEP), mode="wrap")
    return ((noise - noise.mean()) / noise.std()).astype(np.float32)


def distance_to_line(land: Landscape, points: list[tuple[float, float]]) -> np.ndarray:
    """Distance (m) of every cell to a polyline of (x, y) points."""
    nearest = np.full(land.kind.shape, np.inf)
    for (x0, y0), (x1, y1) in pairwise(points):
        dx, dy = x1 - x0, y1 - y0
        t = np.clip(((land.x - x0) * dx + (land.y - y0) * dy) / (dx * dx + dy * dy), 0, 1)
        np.minimum(nearest, np.hypot(land.x - x0 - t * dx, land.y - y0 - t * dy), out=nearest)
    return nearest


def add_crown(land: Landscape, x: float, y: float, radius: float, top: float) -> None:
    """Put a round tree crown on the land where it is the highest thing."""
    rows = land.window(x, y, radius)
    far = np.hypot(land.x[rows] - x, land.y[rows] - y) / radius
    angle = np.arctan2(land.y[rows] - y, land.x[rows] - x)
    far *= (
        1 + 0.1 * np.sin(3 * angle + 7 * x) + 0.07 * np.sin(5 * angle + 5 * y)
    )  # not a perfect circle
    height = top - 0.55 * top * (1 - np.sqrt(np.clip(1 - far**2, 0, 1)))
    higher = (far < 1) & (height > land.height[rows])
    land.kind[rows][higher], land.height[rows][higher] = TREES, height[higher]
    land.item[rows][higher] = land.items
    land.items += 1


def add_house(
    land: Landscape, x: float, y: float, length: float, width: float, angle: float, free: np.ndarray
) -> bool:
    """Put a house with a gable roof on the land, if all its ground and 2 m around it is `free`."""
    rows = land.window(x, y, length)
    u = (land.x[rows] - x) * np.cos(angle) + (land.y[rows] - y) * np.sin(angle)
    v = (land.y[rows] - y) * np.cos(angle) - (land.x[rows] - x) * np.sin(angle)
    near = (abs(u) < length / 2 + 2) & (abs(v) < width / 2 + 2)
    inside = length < x < WIDTH * PIXEL - length and length < y < HEIGHT * PIXEL - length
    if not inside or not free[rows][near].all():
        return False
    on = (abs(u) < length / 2) & (abs(v) < width / 2)
    land.kind[rows][on], land.item[rows][on] = ROOF, land.items
    land.height[rows][on] = 4 + 0.32 * (width - 2 * abs(v[on]))
    free[rows][near] = False
    land.items += 1
    return True


def draw_landscape(rng: np.random.Generator) -> tuple[Landscape, np.ndarray]:
    """A river, woods, meadows, two ploughed fields and a village; also the distance (m) from the
    river's bank."""
    shape = (HEIGHT * FINE, WIDTH * FINE)
    land = Landscape(np.full(shape, GRASS), np.zeros(shape, np.float32), np.full(shape, -1))
    x, y = land.x, land.y

    fields = (x > 284 + 0.04 * y) & (y > 162) & (abs(y - 236 - 0.1 * (x - 340)) > 2.5) & (y < 314)
    land.kind[fields] = SOIL

    centre = 72 + 26 * np.sin(2 * np.pi * (y + 40) / 290) + 6 * np.sin(2 * np.pi * y / 97)
    bank = (
        21 + 3 * np.sin(y / 31) + 0.5 * smooth_noise(rng, shape, 9) - abs(x - centre)
    )  # m inside the water
    pond = 17 + 1.5 * smooth_noise(rng, shape, 16) - np.hypot((x - 208) / 1.25, y - 60)
    bank = np.maximum(bank, pond)
    land.kind[bank > 0] = WATER

    main = [(-9, 196), (40, 186), (110, 170), (180, 152), (260, 136), (330, 132), (409, 140)]
    streets = [
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
                turns = angle + rng.normal(0, 0.05) + rng.permutation([0, np.pi / 2])
                # eaves or gable to the road; where one is too tight, the other
                if 105 < x < 290 and any(add_house(land, x, y, *size, t, free) for t in turns):
                    _draw_driveway(land, (x, y), (door_x, door_y))


def _draw_driveway(land: Landscape, house: tuple[float, float], door: tuple[float, float]) -> None:
    """Three metres of asphalt from a house to its road, where there is grass."""
    rows = land.window(*house, 22)
    part = Landscape(land.kind[rows], land.height[rows], land.item[rows])
    part.x, part.y = land.x[rows], land.y[rows]
    way = distance_to_line(part, [house, door]) < 1.6
    part.kind[way & (part.kind == GRASS)] = ASPHALT


def _draw_trees(
    rng: np.random.Generator,
    land: Landscape,
    wood: np.ndarray,
    bank: np.ndarray,
    to_road: np.ndarray,
) -> None:
    """Crowns close together in the wood, in rows along the river, and single ones in gardens and
    meadows."""
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


def illumination(height: np.ndarray) -> np.ndarray:
    """Direct sunlight (rows, columns) relative to flat open ground: slope towards the sun, and cast
    shadows."""
    down, right = np.gradient(gaussian_filter(height, 0.8), STEP)
    facing = (SUN[2] - right * SUN[0] - down * SUN[1]) / np.sqrt(1 + right**2 + down**2)
    light = np.clip(facing / SUN[2], 0, 1.35)
    across = np.hypot(SUN[0], SUN[1])
    for distance in np.arange(1, height.max() * across / SUN[2], STEP):
        rows, columns = (round(distance * SUN[i] / across / STEP) for i in (1, 0))
        towards = np.roll(height, (-rows, -columns), (0, 1)) - distance * SUN[2] / across
        shaded = towards > height + 0.3
        shaded[height.shape[0] - rows :], shaded[:, height.shape[1] - columns :] = False, False
        light[shaded] = 0  # (beyond the edges of the land nothing stands that could throw a shadow)
    return gaussian_filter(light, 0.7).astype(np.float32)


# --- light and sensor -----------------------------------------------------------------------------


def soft_shares(rng: np.random.Generator, number: int, shape: tuple[int, int]) -> np.ndarray:
    """Shares (number, rows, columns), summing to 1, that change smoothly: patches that flow into
    each other."""
    fields = np.stack([smooth_noise(rng, shape, m) for m in rng.uniform(6, 40, number)])
    shares = np.exp(1.6 * fields)
    return shares / shares.sum(0)


def brightness(rng: np.random.Generator, land: Landscape) -> np.ndarray:
    """How bright each cell's material is, (rows, columns) around 1: furrows, worn lanes, rows of
    tiles, leaves."""
    shape = land.kind.shape
    fine, coarse = smooth_noise(rng, shape, 2.5), smooth_noise(rng, shape, 25)
    grain = {WATER: 0.01, TREES: 0.14, GRASS: 0.07, SOIL: 0.05, ASPHALT: 0.06, ROOF: 0.05}
    bright = 1 + np.choose(land.kind, [grain[k] for k in range(len(CLASSES))]) * (
        0.7 * fine + 0.6 * coarse
    )
    lower = land.y > 236 + 0.1 * (land.x - 340)  # the second field is ploughed the other way
    along = np.where(lower, 0.97 * land.x - 0.2 * land.y, land.y + 0.12 * land.x)
    furrows = 0.09 * np.sin(2 * np.pi * along / 6.4) + 0.05 * np.sin(2 * np.pi * along / 23)
    bright += np.where(land.kind == SOIL, furrows + np.where(lower, -0.16, 0.04), 0)
    mown = 0.06 * np.sign(np.sin(2 * np.pi * (land.x + 0.3 * land.y) / 17)) * (land.y < 120)
    bright += np.where(land.kind == GRASS, mown, 0)
    each = rng.normal(0, 0.13, land.items + 1)  # every crown and roof a little different
    each[-1] = 0
    bright *= np.where(
        land.kind == TREES, 1.35, 1
    )  # crowns seen from above show their sunlit leaves
    return np.clip(bright + each[land.item], 0.4, 2).astype(np.float32)


def to_pixels(cells: np.ndarray) -> np.ndarray:
    """Average fine cells (rows, columns) to pixels (y, x), through the optics' blur."""
    half = FINE // 2
    quarters = cells.reshape(2 * HEIGHT, half, 2 * WIDTH, half).mean((1, 3))
    blurred = gaussian_filter(quarters, 0.45 * 2, mode="nearest")  # 0.45 pixels
    return blurred.reshape(HEIGHT, 2, WIDTH, 2).mean((1, 3))


def simulate_reflectance(rng: np.random.Generator, land: Landscape, bank: np.ndarray) -> np.ndarray:
    """Reflectance (band, y, x) without noise: every material's share of light in a pixel times its
    spectrum.

    Light is direct sun plus blue skylight, which is all that a shadow gets.
    """
    spectra = pick_spectra(rng)
    bottom = 0.6 * spectra[SOIL].mean(0)
    depths, sediments = (0.25, 1.2, 4.0, 4.0), (0.05, 0.05, 0.045, 0.07)
    spectra[WATER] = np.stack(
        [water_reflectance(d, s, bottom) for d, s in zip(depths, sediments, strict=True)]
    )
    sky = np.clip(0.2 * (WAVELENGTHS / 550) ** -1.3, 0.02, 0.4)  # part of the light on open ground
    direct, bright = illumination(land.height), brightness(rng, land)
    light_shares, colours = [], []
    for kind, members in spectra.items():
        shares = soft_shares(rng, len(members), land.kind.shape)
        if kind == WATER:
            deep = np.clip(bank / 9, 0, 1)
            shallow = np.clip(1 - bank / 2.5, 0, 1)
            rest = soft_shares(rng, 2, land.kind.shape) * deep
            shares = np.stack([shallow * (1 - deep), (1 - shallow) * (1 - deep), *rest])
        elif kind in (TREES, ROOF):  # one mixture a crown or roof
            own = rng.dirichlet(np.full(len(members), 0.5), land.items + 1).T
            shares = np.where(land.item >= 0, own[:, land.item], shares)
        for share, spectrum in zip(shares, members, strict=True):
            cells = share * bright * (land.kind == kind)
            for light, colour in ((direct, 1 - sky), (np.float32(1), sky)):
                light_shares.append(to_pixels(cells * light))
                colours.append(spectrum * colour)
    return np.tensordot(np.array(colours), np.array(light_shares), (0, 0))


def add_noise(rng: np.random.Generator, cube: np.ndarray, bad: np.ndarray) -> np.ndarray:
    """Add what the sensor does to (band, y, x): a tilt of brightness, noise by wavelength, stripes,
    dead bands."""
    across = 1 + 0.05 * np.linspace(-1, 1, WIDTH)
    short, long = np.exp(-(WAVELENGTHS - 420) / 60), np.clip((WAVELENGTHS - 1900) / 550, 0, 1)
    sigma = (0.0015 + 0.004 * short + 0.006 * long)[:, None, None]
    cube = cube * across
    cube += rng.standard_normal(cube.shape) * (sigma + 0.006 * cube)
    cube += rng.normal(0, 0.3, (len(WAVELENGTHS), 1, WIDTH)) * sigma
    cube[bad] = rng.normal(0.05, 0.3, (bad.sum(), HEIGHT, WIDTH))
    return cube


def label_pixels(kind: np.ndarray) -> np.ndarray:
    """Labels (y, x) uint8, 1..6: the class that covers most of a pixel's cells."""
    cells = kind.reshape(HEIGHT, FINE, WIDTH, FINE)
    cover = np.stack([(cells == k).sum((1, 3)) for k in range(len(CLASSES))])
    return (cover.argmax(0) + 1).astype(np.uint8)


def simulate(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Stored values (band, y, x) int16, labels (y, x) uint8, and which bands are bad (band,)
    bool."""
    rng = np.random.default_rng(seed)
    land, bank = draw_landscape(rng)
    bad = np.any([(low <= WAVELENGTHS) & (high >= WAVELENGTHS) for low, high in BAD_RANGES], axis=0)
    cube = add_noise(rng, simulate_reflectance(rng, land, bank), bad)
    stored = np.clip(np.round(cube * SCALE), -5000, 20_000).astype(np.int16)
    labels = label_pixels(land.kind)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    outside = 0.5 * x + y < 36  # the swath ends askew
    stored[:, outside], labels[outside] = NODATA, 0
    return stored, labels, bad


# --- files ----------------------------------------------------------------------------------------


def envi_header(bad: np.ndarray) -> str:
    """The ENVI header of the scene."""

    def listing(values: np.ndarray, form: str) -> str:
        texts = [format(v, form) for v in values]
        return (
            "{\n" + ",\n".join(", ".join(texts[i : i + 12]) for i in range(0, len(texts), 12)) + "}"
        )

    return "\n".join(
        [
            "ENVI",
            "description = {SPECIAL demo scene, simulated from the earthlib spectral library}",
            f"samples = {WIDTH}",
            f"lines = {HEIGHT}",
            f"bands = {len(WAVELENGTHS)}",
            "header offset = 0",
            "file type = ENVI Standard",
            "data type = 2",
            "interleave = bil",
            "byte order = 0",
            f"reflectance scale factor = {SCALE}",
            f"data ignore value = {NODATA}",
            f"map info = "
            f"{{UTM, 1, 1, {EAST}, {NORTH}, {PIXEL}, {PIXEL}, 33, North, WGS-84, units=Meters}}",
            f"coordinate system string = {{{CRS}}}",
            "wavelength units = Nanometers",
            f"wavelength = {listing(WAVELENGTHS, '.1f')}",
            f"fwhm = {listing(np.full(len(WAVELENGTHS), 15.0), '.1f')}",
            f"bbl = {listing((~bad).astype(int), 'd')}",
            "",
        ]
    )


def demo(*, out: Path, seed: int = 0) -> None:
    """Simulate the demo scene: scene.img with scene.hdr (ENVI), and ground_truth.tif with labels
    1..6.

    Args:
        out: folder to write the three files to
        seed: another seed is another landscape of the same kind
    """
    import rasterio

    stored, labels, bad = simulate(seed)
    with atomic_write(out / "scene.img") as path:
        stored.transpose(1, 0, 2).astype("<i2").tofile(path)  # by line, all bands of a line: BIL
    with (
        atomic_write(out / "ground_truth.tif") as path,
        rasterio.open(
            path,
            "w",
            driver="GTiff",
            height=HEIGHT,
            width=WIDTH,
            count=1,
            dtype="uint8",
            nodata=0,
            compress="deflate",
            crs=f"EPSG:{EPSG}",
            transform=rasterio.Affine(PIXEL, 0, EAST, 0, -PIXEL, NORTH),
        ) as raster,
    ):
        raster.write(labels, 1)
        raster.update_tags(1, **{f"class_{i}": name for i, name in enumerate(CLASSES, 1)})
    with atomic_write(out / "scene.hdr") as path:
        path.write_text(envi_header(bad))
    shares = np.bincount(labels.ravel(), minlength=len(CLASSES) + 1) / labels.size
    parts = zip(("no data", *CLASSES), shares, strict=True)
    log.info("demo scene: %s", ", ".join(f"{name} {100 * s:.1f} %" for name, s in parts))


if __name__ == "__main__":
    run(demo)
