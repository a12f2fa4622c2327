"""Light and sensor: what a camera in an aeroplane measures of a landscape."""

import numpy as np
from scipy.ndimage import gaussian_filter

from special_steps.simulated_scene.landscape import (
    ASPHALT,
    CLASSES,
    FINE,
    GRASS,
    HEIGHT,
    ROOF,
    SOIL,
    STEP,
    TREES,
    WATER,
    WIDTH,
    Landscape,
    smooth_noise,
)
from special_steps.simulated_scene.spectra import pick_spectra, water_reflectance

WAVELENGTHS = np.arange(420, 2451, 15.0)  # nm
BAD_RANGES = ((1350, 1420), (1800, 1950))  # nm, where water vapour lets no light through
SUN = np.array([0.55, 0.37, 0.75])  # towards it: x east, y south, z up


def illumination(height: np.ndarray) -> np.ndarray:
    """Direct sunlight relative to flat open ground: slope towards the sun, and cast shadows.

    Args:
        height: (row, column) of fine cells, m.

    Returns:
        (row, column) float32.
    """
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


def soft_shares(rng: np.random.Generator, number: int, shape: tuple[int, int]) -> np.ndarray:
    """Shares (number, row, column), summing to 1, that change smoothly: patches that flow into each other."""
    fields = np.stack([smooth_noise(rng, shape, m) for m in rng.uniform(6, 40, number)])
    shares = np.exp(1.6 * fields)
    return shares / shares.sum(0)


def brightness(rng: np.random.Generator, land: Landscape) -> np.ndarray:
    """How bright each cell's material is, (row, column) around 1: furrows, worn lanes, rows of tiles, leaves."""
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
    # crowns seen from above show their sunlit leaves
    bright *= np.where(land.kind == TREES, 1.35, 1)
    return np.clip(bright + each[land.item], 0.4, 2).astype(np.float32)


def to_pixels(cells: np.ndarray) -> np.ndarray:
    """Average fine cells (row, column) to pixels (y, x), through the optics' blur."""
    half = FINE // 2
    quarters = cells.reshape(2 * HEIGHT, half, 2 * WIDTH, half).mean((1, 3))
    blurred = gaussian_filter(quarters, 0.45 * 2, mode="nearest")  # 0.45 pixels
    return blurred.reshape(HEIGHT, 2, WIDTH, 2).mean((1, 3))


def simulate_reflectance(rng: np.random.Generator, land: Landscape, bank: np.ndarray) -> np.ndarray:
    """Every material's share of light in a pixel times its spectrum, without noise.

    Light is direct sun plus blue skylight, which is all that a shadow gets.

    Args:
        rng: draws spectra, and where they mix.
        land: the landscape.
        bank: (row, column) of fine cells, m inside the water.

    Returns:
        (band, y, x) reflectance at WAVELENGTHS.
    """
    spectra = pick_spectra(rng, WAVELENGTHS)
    bottom = 0.6 * spectra[SOIL].mean(0)
    depths, sediments = (0.25, 1.2, 4.0, 4.0), (0.05, 0.05, 0.045, 0.07)
    spectra[WATER] = np.stack(
        [
            water_reflectance(depth, sediment, bottom, WAVELENGTHS)
            for depth, sediment in zip(depths, sediments, strict=True)
        ]
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


def bad_bands() -> np.ndarray:
    """Which bands lie in BAD_RANGES, (band,) bool."""
    return np.any(
        [(low <= WAVELENGTHS) & (high >= WAVELENGTHS) for low, high in BAD_RANGES], axis=0
    )


def add_noise(rng: np.random.Generator, cube: np.ndarray, bad: np.ndarray) -> np.ndarray:
    """Add what the sensor does: a tilt of brightness, noise by wavelength, stripes, dead bands.

    Args:
        rng: draws the noise.
        cube: (band, y, x) reflectance.
        bad: (band,) bool, bands that are nothing but noise.

    Returns:
        (band, y, x) reflectance.
    """
    across = 1 + 0.05 * np.linspace(-1, 1, WIDTH)
    short, long = np.exp(-(WAVELENGTHS - 420) / 60), np.clip((WAVELENGTHS - 1900) / 550, 0, 1)
    sigma = (0.0015 + 0.004 * short + 0.006 * long)[:, None, None]
    cube = cube * across
    cube += rng.standard_normal(cube.shape) * (sigma + 0.006 * cube)
    cube += rng.normal(0, 0.3, (len(WAVELENGTHS), 1, WIDTH)) * sigma
    cube[bad] = rng.normal(0.05, 0.3, (bad.sum(), HEIGHT, WIDTH))
    return cube
