"""What a sensor above the air measures of a scene's reflectance, before anybody corrects it: simulated.

    python tests/benchmarks/at_sensor.py

prints, for six simulated scenes and four airs, what radiance and digital numbers are taken for, and the accuracy of the
spectral library's labels from reflectance, from these as they are, and corrected roughly.

The simple spectral model SPCTRAL2 (Bird and Riordan 1984, SERI/TR-215-2436; 1986, Journal of Climate and Applied
Meteorology 25, 87): the sun outside the air, Rayleigh and aerosol scattering, ozone, water vapour, oxygen and carbon
dioxide, at about 10 nm. What the air itself sends up is single scattering (Gordon 1997, JGR 102, 17081).
"""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from special_steps.evidence import class_evidence, class_library, learn_views
from special_steps.materials.units import gases, learn_correction, recognised
from special_steps.materials.words import materials_of_classes

if TYPE_CHECKING:
    from simulated_scenes import Simulated

# nm, W/m2/nm outside the air, 1/(atm cm) of ozone: the table of Bird and Riordan, from 360 to 2500 nm
_NM = [
    360, 370, 380, 390, 400, 410, 420, 430, 440, 450, 460, 470, 480, 490, 500, 510, 520, 530, 540, 550, 570, 593, 610,
    630, 656, 667.6, 690, 710, 718, 724.4, 740, 752.5, 757.5, 762.5, 767.5, 780, 800, 816, 823.7, 831.5, 840, 860, 880,
    905, 915, 925, 930, 937, 948, 965, 980, 993.5, 1040, 1070, 1100, 1120, 1130, 1145, 1161, 1170, 1200, 1240, 1270,
    1290, 1320, 1350, 1395, 1442.5, 1462.5, 1477, 1497, 1520, 1539, 1558, 1578, 1592, 1610, 1630, 1646, 1678, 1740,
    1800, 1860, 1920, 1960, 1985, 2005, 2035, 2065, 2100, 2148, 2198, 2270, 2360, 2450, 2500,
]  # fmt: skip
_SUN = [
    0.9759, 1.1199, 1.1038, 1.0338, 1.4791, 1.7013, 1.7404, 1.5872, 1.837, 2.005, 2.043, 1.987, 2.027, 1.896, 1.909,
    1.927, 1.831, 1.891, 1.898, 1.892, 1.84, 1.768, 1.728, 1.658, 1.524, 1.531, 1.42, 1.399, 1.374, 1.373, 1.298, 1.269,
    1.245, 1.223, 1.205, 1.183, 1.148, 1.091, 1.062, 1.038, 1.022, 0.9987, 0.9472, 0.8932, 0.8682, 0.8297, 0.8303,
    0.814, 0.7869, 0.7683, 0.767, 0.7576, 0.6881, 0.6407, 0.6062, 0.5859, 0.5702, 0.5641, 0.5442, 0.5334, 0.5016,
    0.4775, 0.4427, 0.44, 0.4168, 0.3914, 0.3589, 0.3275, 0.3175, 0.3073, 0.3004, 0.2928, 0.2755, 0.2721, 0.2593,
    0.2469, 0.244, 0.2435, 0.2348, 0.2205, 0.1908, 0.1711, 0.1445, 0.1357, 0.123, 0.1238, 0.113, 0.1085, 0.0975, 0.0924,
    0.0824, 0.0746, 0.0683, 0.0638, 0.0495, 0.0485,
]  # fmt: skip
_OZONE_NM = [
    440, 450, 460, 470, 480, 490, 500, 510, 520, 530, 540, 550, 570, 593, 610, 630, 656, 667.6, 690, 710, 740, 780,
]  # fmt: skip
_OZONE = [
    0, 0.003, 0.006, 0.009, 0.014, 0.021, 0.03, 0.04, 0.048, 0.063, 0.075, 0.085, 0.12, 0.119, 0.12, 0.09, 0.065, 0.051,
    0.028, 0.018, 0.01, 0,
]  # fmt: skip


class Air(NamedTuple):
    """The air, and where the sensor is in it."""

    sun: float = 50.0  # degrees above the horizon
    vapour: float = 1.5  # cm of precipitable water
    turbidity: float = 0.15  # aerosol's optical depth at 500 nm
    ozone: float = 0.3  # atm cm
    below: float = 1.0  # part of the air below the sensor: 1 from orbit, 0.3 at 3 km
    low: float = 1.0  # part of vapour and aerosol below it, which lie lower: 0.78 at 3 km (scale height 2 km)


AIRS = {
    "orbit": Air(),
    "orbit hazy": Air(sun=38, vapour=3.0, turbidity=0.4),
    "aircraft": Air(below=0.3, low=0.78),
    "aircraft dry": Air(sun=60, vapour=0.5, turbidity=0.06, below=0.3, low=0.78),
}


def at_sensor(
    reflectance: np.ndarray, wavelengths: np.ndarray, fwhm: np.ndarray | float | None, air: Air
) -> np.ndarray:
    """Radiance at the sensor, W/m2/sr/nm.

    Args:
        reflectance: (band, ...) of the ground.
        wavelengths: (band,) nm.
        fwhm: (band,) nm or one for all, of Gaussian responses; None: as far as the bands are apart.
        air: between sun, ground and sensor.

    Returns:
        (band, ...) float32.
    """
    nm = np.arange(360, 2501, 1.0)
    um, up = nm / 1000, 1.0
    height = np.sin(np.radians(air.sun))
    down = 1 / height
    rayleigh = 1 / (um**4 * (115.6406 - 1.335 / um**2))
    aerosol = air.turbidity * (nm / 500) ** -1.14
    scatter, absorb = 0.94 * aerosol, 0.06 * aerosol
    # direct and sky light on the ground (equations 2-1, 3-5 and 3-6)
    thin = np.exp(-down * rayleigh)
    light = thin * np.exp(-down * scatter) + 0.5 * (1 - thin**0.95)
    light += thin**1.5 * 0.82 * (1 - np.exp(-down * scatter))
    light *= np.exp(-down * absorb)
    # half of Rayleigh's and a sixth of aerosol's scattering is lost to a wide view on its way up (Gordon 1997)
    lost = 0.5 * rayleigh * air.below + (scatter / 6 + absorb) * air.low
    gas = gases(nm, air.vapour * (down + up * air.low), down + up * air.below)
    gas *= np.exp(-np.interp(nm, _OZONE_NM, _OZONE, left=0, right=0) * air.ozone * (down + up))
    # single scattering towards the nadir, cosine of the angle -height; Henyey and Greenstein with g 0.65
    phase = 0.75 * (1 + height**2)
    haze = (1 - 0.65**2) / (1 + 0.65**2 + 2 * 0.65 * height) ** 1.5
    path = (rayleigh * air.below * phase + scatter * air.low * haze) / (4 * height)
    # scattered light has gone through less air: half of the way up and down below the sensor
    short = gases(nm, air.vapour * (down + up) * 0.4, (down + up) * 0.7)
    sun = np.interp(nm, _NM, _SUN) * height / np.pi
    widths = spacing(wavelengths) if fwhm is None else np.broadcast_to(fwhm, wavelengths.shape)
    response = np.exp(-4 * np.log(2) * ((nm - wavelengths[:, None]) / widths[:, None]) ** 2)
    response /= response.sum(1, keepdims=True)
    factor, added = response @ (sun * gas * light * np.exp(-lost)), response @ (sun * path * short)
    shape = (-1,) + (1,) * (reflectance.ndim - 1)
    made = reflectance * factor.reshape(shape) + added.reshape(shape)
    return made.astype(np.float32)


def spacing(wavelengths: np.ndarray) -> np.ndarray:
    """How far bands are apart, (band,) nm."""
    return np.gradient(wavelengths)


def digital_numbers(radiance: np.ndarray, wavelengths: np.ndarray) -> np.ndarray:
    """Counts of two detectors, silicon to 1000 nm and another beyond: their sensitivity falls to both ends.

    Args:
        radiance: (band, ...).
        wavelengths: (band,) nm.

    Returns:
        (band, ...) float32, whole numbers to about 4000.
    """
    silicon = np.exp(-(((wavelengths - 650) / 300) ** 2))
    other = 3 * np.exp(-(((wavelengths - 1700) / 700) ** 2))
    gain = np.where(wavelengths < 1000, silicon, other).reshape((-1,) + (1,) * (radiance.ndim - 1))
    counts = radiance * gain
    return np.round(counts * (4000 / np.quantile(counts, 0.999))).astype(np.float32)


def accuracy(values: np.ndarray, scene: "Simulated", correct: bool = False) -> float:
    """Share of a scene's valid pixels that the library labels as the truth does, from values (band, pixel)."""
    meant = materials_of_classes({name: [] for name in scene.class_names}, {})
    bands, library, _ = class_library(meant, {}, scene.wavelengths, None, scene.good)
    pixels = np.ascontiguousarray(values[bands].T)
    if correct:
        correction = learn_correction(scene.wavelengths[bands], None, pixels[::3])
        pixels = pixels if correction is None else correction(pixels)
    views, known = learn_views(pixels[::3], library)
    truth = scene.truth[~scene.nodata]
    found = class_evidence(views, pixels, known).argmax(0) + 1
    return float((found == truth)[truth > 0].mean())


def main() -> None:
    """Print the table."""
    from simulated_scenes import simulate  # imports CLIP: tests of the air do without

    print("| scene | air | values | taken for | reflectance | as they are | corrected |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name in ("village-1", "suburb-1", "lake-1", "valley-1", "coast-1", "town-1"):
        scene = simulate(name)
        reflectance = scene.cube[:, ~scene.nodata]
        best = accuracy(reflectance, scene)
        for air, what in AIRS.items():
            radiance = at_sensor(reflectance, scene.wavelengths, None, what)
            counts = digital_numbers(radiance, scene.wavelengths)
            for kind, values in (("radiance", radiance), ("counts", counts)):
                good = scene.good
                taken, _ = recognised(scene.wavelengths[good], None, values[good].T[::5])
                row = best, accuracy(values, scene), accuracy(values, scene, correct=True)
                print(
                    f"| {name} | {air} | {kind} | {taken} | {' | '.join(f'{v:.2f}' for v in row)} |"
                )


if __name__ == "__main__":
    main()
