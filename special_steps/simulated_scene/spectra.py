"""Reflectance spectra of the landscape's materials: drawn from a library, and for water modelled."""

import re

import numpy as np

from special_steps.io.spectral_library import read_library
from special_steps.simulated_scene.landscape import ASPHALT, GRASS, ROOF, SOIL, TREES


def pick_spectra(rng: np.random.Generator, wavelengths: np.ndarray) -> dict[int, np.ndarray]:
    """Draw spectra of typical colours for each class but water, from the library's part for simulation.

    Args:
        rng: draws which ones.
        wavelengths: (band,) nm.

    Returns:
        (spectrum, band) reflectance by class.
    """
    library_nm, spectra, rows = read_library("simulation")
    blue, red, infrared = (spectra[:, np.searchsorted(library_nm, w)] for w in (450, 650, 850))
    kind = np.array([r["LEVEL_3"] for r in rows])
    chlorophyll = np.array(
        [float(m[1]) if (m := re.search(r"CHL-([\d.]+)", r["NAME"])) else 0 for r in rows]
    )
    dry = np.array([r["NAME"] == "deadgras" for r in rows])

    def draw(which: np.ndarray, number: int) -> np.ndarray:
        found = np.flatnonzero(which)
        chosen = rng.choice(found, min(number, len(found)), replace=False)
        return np.array([np.interp(wavelengths, library_nm, spectra[i]) for i in chosen])

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
        ROOF: draw(kind == "tile", 4),
    }


def water_reflectance(
    depth: float, sediment: float, bottom: np.ndarray, wavelengths: np.ndarray
) -> np.ndarray:
    """Reflectance of a water column over a bottom.

    Deep-water reflectance 0.33 bb / (a + bb) (Gordon et al. 1975) and exponential damping of the bottom (Lee et al.
    1998); absorption is pure water's (rounded from Pope and Fry 1997, Kou et al. 1993) with dissolved organic matter.

    Args:
        depth: m.
        sediment: backscatter at 550 nm, 1/m.
        bottom: (band,) reflectance.
        wavelengths: (band,) nm.

    Returns:
        (band,) reflectance.
    """
    nm = [400, 450, 500, 550, 600, 650, 700, 750, 800, 850, 900, 950, 1000, 1100, 2500]
    pure = [0.007, 0.009, 0.02, 0.057, 0.22, 0.34, 0.62, 2.5, 2.0, 4.3, 6.8, 38, 36, 100, 1000]
    absorption = np.interp(wavelengths, nm, pure) + 0.16 * np.exp(-0.014 * (wavelengths - 440))
    backscatter = 0.001 * (500 / wavelengths) ** 4 + sediment * 550 / wavelengths
    deep = 0.33 * backscatter / (absorption + backscatter)
    through = np.exp(-2.4 * (absorption + backscatter) * depth)
    return 0.012 + deep * (1 - through) + bottom * through  # 0.012: sky mirrored by the surface
