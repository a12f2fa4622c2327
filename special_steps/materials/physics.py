"""Spectra that no library has, from simple published physics: waters, snow and ice, wet soil, shadow.

All functions take wavelengths in nm between 400 and 2500 and give reflectances, as fractions.
"""

import numpy as np

_NM = np.r_[400:1000:10, 1000:2501:20].astype(np.float64)
# 1/m. To 700 nm: Pope and Fry (1997), Applied Optics 36, 8710; from 710 nm on: Kou, Labrie and Chylek (1993), Applied
# Optics 32, 3531, and what the leaf model PROSPECT (Jacquemoud and Baret 1990; Feret et al. 2008) took into its table.
_WATER = [
    0.00663, 0.00473, 0.00454, 0.00495, 0.00635, 0.00922, 0.00979, 0.0106, 0.0127, 0.015, 0.0204, 0.0325, 0.0409,
    0.0434, 0.0474, 0.0565, 0.0619, 0.0695, 0.0896, 0.135, 0.222, 0.264, 0.276, 0.292, 0.311, 0.34, 0.41, 0.439, 0.465,
    0.516, 0.624, 0.741, 1.07, 1.62, 2.53, 2.73, 2.77, 2.75, 2.66, 2.47, 2.25, 2.19, 2.33, 3.21, 3.95, 4.2, 4.45, 4.75,
    5.3, 5.83, 6.41, 7.08, 8.53, 12.5, 18.2, 29.8, 43.9, 48, 48.2, 45.3, 40.7, 29.6, 19.8, 14.8, 14.4, 19.1, 25.3,
    60.5, 117, 124, 127, 121, 116, 109, 112, 132, 183, 270, 370, 624, 1710, 2700, 3040, 3000, 2520, 1970, 1520, 1190,
    966, 810, 699, 634, 591, 562, 552, 557, 593, 657, 767, 854, 879, 885, 963, 1380, 3500, 9720, 12900, 12600, 10700,
    8610, 6920, 5630, 4640, 3870, 3250, 2780, 2420, 2160, 1990, 1880, 1830, 1840, 1890, 2000, 2180, 2430, 2740, 3140,
    3590, 4150, 4760, 5460, 6320, 7380, 8510, 9530,
]  # fmt: skip
# 1/m, from the imaginary index of Warren and Brandt (2008), JGR 113, D14220; every 20 nm
_ICE = [
    0.000743, 0.000938, 0.00179, 0.00362, 0.00749, 0.0148, 0.026, 0.0422, 0.0637, 0.0901, 0.12, 0.174, 0.24, 0.316,
    0.386, 0.521, 0.703, 0.835, 1.17, 1.64, 2.1, 2.19, 2.26, 3.14, 4.78, 5.86, 6.47, 7.39, 9.88, 14.4, 20.4, 27.7, 28.2,
    23.2, 20.2, 19.4, 20.4, 24.8, 32.9, 50.8, 70.3, 105, 124, 132, 131, 128, 126, 126, 131, 144, 178, 527, 1320, 2530,
    4110, 4550, 4170, 3700, 3170, 2630, 2260, 2020, 1870, 1700, 1530, 1390, 1260, 1160, 1090, 1030, 985, 923, 895, 967,
    1370, 2310, 4220, 6840, 9120, 10200, 10300, 9740, 9010, 7830, 6370, 4860, 3610, 2700, 2100, 1710, 1450, 1260, 1140,
    1160, 1290, 1540, 1880, 2260, 2600, 2850, 3030, 3170, 3320, 3480, 3630, 3780,
]  # fmt: skip
# Absorption of phytoplankton, relative, and how it changes with the logarithm of its amount: Lee et al. (1998),
# Applied Optics 37, 6329, table 2; every 10 nm from 400 to 720
_ALGAE = [
    0.6843, 0.7782, 0.8637, 0.9603, 1.0, 0.9634, 0.9311, 0.8697, 0.789, 0.7558, 0.7333, 0.6911, 0.6327, 0.5681, 0.5046,
    0.4262, 0.3433, 0.295, 0.2784, 0.2595, 0.2389, 0.2745, 0.3197, 0.3421, 0.3331, 0.3502, 0.561, 0.8435, 0.7485, 0.389,
    0.136, 0.0545, 0.025,
]  # fmt: skip
_ALGAE_CHANGE = [
    0.0205, 0.0129, 0.006, 0.002, 0.0, 0.006, 0.0109, 0.0157, 0.0152, 0.0256, 0.0559, 0.0865, 0.0981, 0.0969, 0.09,
    0.0781, 0.0659, 0.06, 0.0581, 0.054, 0.0495, 0.0578, 0.0674, 0.0718, 0.0685, 0.0713, 0.1128, 0.1595, 0.1388, 0.0812,
    0.0317, 0.0128, 0.005,
]  # fmt: skip
_ALGAE_NM = np.arange(400.0, 721, 10)

WATER_INDEX, SOIL_INDEX = 1.33, 1.5  # refractive indices; the soil's as in Lekner and Dorf (1988)


def water_absorption(wavelengths: np.ndarray) -> np.ndarray:
    """Absorption of pure water, (band,) 1/m (natural logarithm); sources at the table."""
    return np.exp(np.interp(wavelengths, _NM, np.log(_WATER)))


def ice_absorption(wavelengths: np.ndarray) -> np.ndarray:
    """Absorption of pure ice, (band,) 1/m (natural logarithm); source at the table."""
    return np.exp(np.interp(wavelengths, np.arange(400.0, 2501, 20), np.log(_ICE)))


def algae_absorption(chlorophyll: float, wavelengths: np.ndarray) -> np.ndarray:
    """Absorption of phytoplankton, (band,) 1/m.

    0.06 chlorophyll^0.65 at 440 nm (Morel and Maritorena 2001), shape by Lee et al. (1998); none from 730 nm on.

    Args:
        chlorophyll: a, mg/m3.
        wavelengths: (band,) nm.
    """
    at_440 = 0.06 * chlorophyll**0.65
    shape = np.array(_ALGAE) + np.array(_ALGAE_CHANGE) * np.log(at_440)
    return at_440 * np.interp(wavelengths, _ALGAE_NM, np.maximum(shape, 0.01), right=0)


def water_reflectance(
    wavelengths: np.ndarray,
    *,
    depth: float,
    bottom: np.ndarray,
    chlorophyll: float,
    sediment: float,
    dissolved: float,
    glint: float,
) -> np.ndarray:
    """Reflectance of a water seen from above, bottom and surface included.

    The semi-analytical model of shallow water by Lee et al. (1998, 1999), Applied Optics 37, 6329 and 38, 3831, for sun
    and view near the zenith. Backscatter: pure water's after Morel (1974); mineral particles' 0.0086 m2/g at 550 nm
    (Heege 2000, as in the model WASI, Gege 2004) and absorption 0.041 m2/g at 443 nm (Babin et al. 2003); algae scatter
    0.416 chlorophyll^0.766 (Loisel and Morel 1998), of which 1 % goes back.

    Args:
        wavelengths: (band,) nm.
        depth: m; inf for deep water.
        bottom: (band,) its reflectance.
        chlorophyll: a, mg/m3.
        sediment: mineral particles, g/m3.
        dissolved: absorption of dissolved organic matter at 440 nm, 1/m.
        glint: what surface and foam mirror of sun and sky, a fraction that is the same at all wavelengths.

    Returns:
        (band,) reflectance.
    """
    absorption = (
        water_absorption(wavelengths)
        + algae_absorption(chlorophyll, wavelengths)
        + dissolved * np.exp(-0.015 * (wavelengths - 440))
        + 0.041 * sediment * np.exp(-0.0123 * (wavelengths - 443))
    )
    backscatter = (
        0.00144 * (wavelengths / 500) ** -4.32
        + 0.0086 * sediment * (wavelengths / 550) ** -0.7
        + 0.00416 * chlorophyll**0.766 * (wavelengths / 550) ** -0.5
    )
    attenuation = absorption + backscatter
    share = backscatter / attenuation
    deep = (0.084 + 0.17 * share) * share
    if np.isfinite(depth):
        down_and_up = 1 + 1.03 * np.sqrt(1 + 2.4 * share)
        from_bottom = 1 + 1.04 * np.sqrt(1 + 5.4 * share)
        below = deep * (1 - np.exp(-down_and_up * attenuation * depth))
        below = below + bottom / np.pi * np.exp(-from_bottom * attenuation * depth)
    else:
        below = deep
    return np.pi * 0.5 * below / (1 - 1.5 * below) + glint


def snow_reflectance(wavelengths: np.ndarray, *, grain: float, dust: float) -> np.ndarray:
    """Reflectance of a thick layer of snow, or of ice full of bubbles, whose "grains" are large.

    Asymptotic radiative transfer: exp(-4.3 sqrt(absorption x grain diameter)), Kokhanovsky and Zege (2004), Applied
    Optics 43, 1589, with the shape factor that Picard et al. (2009) measured; ice's absorption by Warren and Brandt
    (2008). Dust adds absorption that falls with the cube of wavelength, as that of mineral dust about does (Kokhanovsky
    et al. 2018). Where ice absorbs all that enters it, the grains' surfaces still mirror about a hundredth.

    Args:
        wavelengths: (band,) nm.
        grain: optical diameter of grains, mm.
        dust: its absorption at 550 nm, 1/m of ice.
    """
    absorption = ice_absorption(wavelengths) + dust * (wavelengths / 550) ** -3
    inside = np.exp(-4.3 * np.sqrt(absorption * grain / 1000))
    return inside + 0.01 * (1 - inside)


def _mirrored(index: float) -> float:
    """Reflectivity of a smooth surface for light from all sides, from the thinner side: Stern's formula.

    As in Lekner and Dorf (1988), Applied Optics 27, 1278. The index is above 1, relative.
    """
    n = index
    return (
        (3 * n**2 + 2 * n + 1) / (3 * (n + 1) ** 2)
        - 2 * n**3 * (n**2 + 2 * n - 1) / ((n**2 + 1) ** 2 * (n**2 - 1))
        + n**2 * (n**2 + 1) / (n**2 - 1) ** 2 * np.log(n)
        - n**2 * (n**2 - 1) ** 2 / (n**2 + 1) ** 3 * np.log(n * (n + 1) / (n - 1))
    )


def wetted(
    dry: np.ndarray, wavelengths: np.ndarray, *, cover: float, film: float, glint: float = 0.0
) -> np.ndarray:
    """Reflectance of a soil under a film of water.

    Light that the grains scatter is partly kept in by the film's surface, and grains in water let more light in: Lekner
    and Dorf (1988), Applied Optics 27, 1278. The film's own absorption comes on top: Bach and Mauser (1994), IGARSS 94.

    Args:
        dry: (..., band) reflectance of the dry soil.
        wavelengths: (band,) nm.
        cover: part of the area that is wet, 0 to 1.
        film: length of light's path in the water, mm.
        glint: what the wet surface mirrors, see `water_reflectance`.

    Returns:
        (..., band) reflectance; below `dry` at every band, without glint.
    """
    kept = 1 - (1 - _mirrored(WATER_INDEX)) / WATER_INDEX**2
    let_in = (1 - _mirrored(SOIL_INDEX / WATER_INDEX)) / (1 - _mirrored(SOIL_INDEX))
    taken = 1 - dry  # absorbed by the dry soil
    at_grains = taken * ((1 - taken) * let_in + taken)
    wet = 1 - at_grains / (1 - kept * (1 - at_grains))
    wet = wet * np.exp(-water_absorption(wavelengths) * film / 1000) + glint
    return (1 - cover) * dry + cover * wet


def skylight(wavelengths: np.ndarray, *, turbidity: float, height: float = 50.0) -> np.ndarray:
    """Skylight's part of all light on open level ground under a clear sky, (band,) 0 to 1.

    Bird and Riordan (1986), Journal of Climate and Applied Meteorology 25, 87: half of what the air scatters
    (Rayleigh), and 82 % of what aerosol scatters (Angstrom's law with exponent 1.14, 94 % scattering), comes down.

    Args:
        wavelengths: (band,) nm.
        turbidity: aerosol's optical depth at 500 nm: 0.1 clear, 0.4 hazy.
        height: of the sun, degrees above the horizon.
    """
    path = 1 / np.sin(np.radians(height))
    micrometres = wavelengths / 1000
    air = np.exp(-path / (micrometres**4 * (115.6406 - 1.335 / micrometres**2)))
    scattered = 0.94 * turbidity * (micrometres / 0.5) ** -1.14
    aerosol = np.exp(-path * scattered)
    absorbed = np.exp(-path * scattered * 0.06 / 0.94)
    direct = air * aerosol * absorbed
    diffuse = absorbed * (0.5 * (1 - air**0.95) + air**1.5 * 0.82 * (1 - aerosol))
    return diffuse / (direct + diffuse)


def shaded(
    reflectance: np.ndarray,
    wavelengths: np.ndarray,
    *,
    turbidity: float,
    light: float = 0.0,
    through: float = 0.0,
) -> np.ndarray:
    """What a shadowed surface seems to reflect, measured against the light on open ground.

    Args:
        reflectance: (..., band) of the surface.
        wavelengths: (band,) nm.
        turbidity: of the sky, see `skylight`.
        light: part of the direct light that comes in all the same, at all wavelengths alike: half shadow, bright walls.
        through: part of the direct light that comes in by leaves around, times their reflectance, which is about the
            light that goes through a leaf too.

    Returns:
        (..., band) reflectance.
    """
    sky = skylight(wavelengths, turbidity=turbidity)
    return reflectance * (sky + (1 - sky) * (light + through * reflectance))
