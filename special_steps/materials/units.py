"""Reflectance, or not: what a scene's values are, by the marks that sun and air leave in radiance.

Distances between shapes of spectra don't mind a scale, so reflectance at any scale may be compared with a library.
Radiance and digital numbers may not: the sun is brighter in blue than in infrared, and the air absorbs. Values are
taken for reflectance unless the marks are plain: a wrong correction is worse than none.
"""

from typing import Literal, NamedTuple

import numpy as np

from special_steps.materials.library import MEASURED, material_spectra

Kind = Literal["reflectance", "radiance"]

# nm, and absorption of water vapour (1/cm) and of oxygen and carbon dioxide (1/air mass): the table of the model
# SPCTRAL2 (Bird and Riordan 1984, SERI/TR-215-2436), where they absorb from 650 to 2500 nm
GAS_NM = [
    650, 667.6, 690, 710, 718, 724.4, 740, 752.5, 757.5, 762.5, 767.5, 780, 800, 816, 823.7, 831.5, 840, 860, 880, 905,
    915, 925, 930, 937, 948, 965, 980, 993.5, 1040, 1070, 1100, 1120, 1130, 1145, 1161, 1170, 1200, 1240, 1270, 1290,
    1320, 1350, 1395, 1442.5, 1462.5, 1477, 1497, 1520, 1539, 1558, 1578, 1592, 1610, 1630, 1646, 1678, 1740, 1800,
    1860, 1920, 1960, 1985, 2005, 2035, 2065, 2100, 2148, 2198, 2270, 2360, 2450, 2500,
]  # fmt: skip
VAPOUR = [
    0, 0, 0.016, 0.0125, 1.8, 2.5, 0.061, 0.0008, 0.0001, 0, 0, 0.0006, 0.036, 1.6, 2.5, 0.5, 0.155, 0, 0.0026, 7, 5, 5,
    27, 55, 45, 4, 1.48, 0.1, 0, 0.001, 3.2, 115, 70, 75, 10, 5, 2, 0.002, 0.002, 0.1, 4, 200, 1000, 185, 80, 80, 12,
    0.16, 0.002, 0.0005, 0.0001, 0, 0.0001, 0.001, 0.01, 0.036, 1.1, 130, 1000, 500, 100, 4, 2.9, 1, 0.4, 0.22, 0.25,
    0.33, 0.5, 4, 80, 310,
]  # fmt: skip
OXYGEN = [
    0, 0, 0.15, 0, 0, 0, 0, 0, 0, 4, 0.35, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0.05, 0.3, 0.02, 0.0002, 0.0001, 0, 0.05, 0.011, 0.005, 0.0006, 0, 0.005, 0.13, 0.04, 0.06, 0.13, 0.001, 0.0014,
    0.0001, 0, 0, 0.0001, 0.001, 4.3, 0.2, 21, 0.13, 1, 0.08, 0.001, 0.0004, 0.001, 0.0005, 0.0001, 0.0001,
]  # fmt: skip


class Mark(NamedTuple):
    """A gas's absorption and the shoulders beside it, ranges in nm."""

    name: str
    left: tuple[float, float]
    core: tuple[float, float]
    right: tuple[float, float]


MARKS = (
    Mark("oxygen at 760 nm", (736, 753), (754, 775), (776, 800)),
    Mark("water vapour at 820 nm", (780, 806), (810, 834), (842, 885)),
    # narrow: green plants' own water absorbs from 950 nm on, most at 970, ice most at 1030
    Mark("water vapour at 940 nm", (850, 888), (926, 956), (1000, 1065)),
    Mark("water vapour at 1140 nm", (1040, 1096), (1110, 1158), (1190, 1260)),
)
THIN = (1.0, 2.0)  # cm of vapour and air masses that marks are measured by: less than usual
LEAST = 0.03  # depth that such air must make at a scene's bands for a mark to count
SHARE = 0.6  # of the depth expected, from which on values are taken for radiance
SUNNY = (
    (1550, 1700, 1.0),
    (2080, 2300, 2.0),
)  # nm, and what light at 450-550 nm is to it in plants and soils at most
NOISE = 0.4  # part of a pixel's bands that are not above zero, from which on it holds noise alone, which has half
DARKEST = 0.005  # part of the pixels
ENDMEMBERS = 15
ROUNDS = 4
GREEN = 0.4  # difference of 850 and 660 nm over their sum, from which on a pixel counts as plants


def gases(wavelengths: np.ndarray, vapour: float, masses: float) -> np.ndarray:
    """What water vapour, oxygen and carbon dioxide let through, (band,) 0 to 1 (SPCTRAL2).

    Args:
        wavelengths: (band,) nm.
        vapour: precipitable water on the light's whole way, cm.
        masses: air on its way, 1 for straight through.
    """
    water = np.interp(wavelengths, GAS_NM, VAPOUR) * vapour
    mixed = np.interp(wavelengths, GAS_NM, OXYGEN) * masses
    return np.exp(-0.2385 * water / (1 + 20.07 * water) ** 0.45) * np.exp(
        -1.41 * mixed / (1 + 118.93 * mixed) ** 0.45
    )


def recognised(
    wavelengths: np.ndarray, fwhm: np.ndarray | None, spectra: np.ndarray
) -> tuple[Kind, str]:
    """Whether values are reflectance, or radiance or digital numbers; nothing but the values is asked.

    Two marks: the air's absorption (see `marks_of`), and, where a scene's bands show none of it, the sun's shape:
    plants and soils, which are brighter at 850 nm than at 500, reflect less at 500 than at 1600 or 2200 nm; in
    radiance they are many times brighter there. Water, snow and ice may be blue, but are not asked. Values are
    reflectance unless a mark says otherwise. Reflectance at the top of the air counts as radiance: the air marked it.

    Args:
        wavelengths: (band,) nm, rising, of good bands, those where the air absorbs among them.
        fwhm: (band,) nm, their widths, or None.
        spectra: (pixel, band), a sample of a scene's pixels at any scale.

    Returns:
        The kind, and why.
    """
    spectra = np.asarray(spectra, np.float64)
    marks = marks_of(np.asarray(wavelengths, np.float64), fwhm, spectra)
    if marks:
        oxygen = [share for name, (share, _) in marks.items() if name.startswith("oxygen")]
        vapour = [pair for name, pair in marks.items() if not name.startswith("oxygen")]
        # air holds both: what shows one alone is reflectance badly corrected for it, or a material's own absorption
        both = list(oxygen)
        if vapour:
            both.append(sum(s * d for s, d in vapour) / sum(d for _, d in vapour))
        share = float(np.mean(both))
        seen = f"{' and '.join(marks)}: {100 * share:.0f} % of the depth that thin air makes in radiance"
        return ("radiance" if share >= SHARE else "reflectance"), seen
    sunny = _sunny(wavelengths, spectra)
    if sunny:
        return "radiance", sunny
    return (
        "reflectance",
        "no band shows the air's absorption, and the colours are those of reflectance",
    )


def _sunny(wavelengths: np.ndarray, spectra: np.ndarray) -> str | None:
    """Why the sun's shape says radiance, if it does."""
    blue, near = ((wavelengths >= a) & (wavelengths <= b) for a, b in ((440, 560), (800, 900)))
    if not (blue.any() and near.any()):
        return None
    visible = spectra[:, blue].mean(1)
    land = (spectra[:, near].mean(1) > visible) & (visible > 0)
    if land.mean() < 0.02:
        return None
    for low, high, most in SUNNY:
        far = (wavelengths >= low) & (wavelengths <= high)
        if far.any():
            infrared = np.maximum(spectra[land][:, far].mean(1), 1e-12)
            ratio = float(np.median(visible[land] / infrared))
            if ratio > most:
                return (
                    f"plants and soils are {ratio:.1f} times as bright at 500 nm as at"
                    f" {(low + high) / 2:.0f} nm"
                )
    return None


def marks_of(
    wavelengths: np.ndarray, fwhm: np.ndarray | None, spectra: np.ndarray
) -> dict[str, tuple[float, float]]:
    """How deep oxygen and water vapour absorb: the median of the brighter half of the pixels.

    Args:
        wavelengths: (band,) nm, rising.
        fwhm: (band,) nm, or None.
        spectra: (pixel, band).

    Returns:
        By the names of those MARKS that the bands can show: the depth as a share of what thin air makes there (least
        squares over the core's bands; 0 none, 1 all of it), and that depth itself, 0 to 1.
    """
    expected = _let_through(wavelengths, fwhm)[None]
    found: dict[str, tuple[float, float]] = {}
    for mark in MARKS:
        wanted = _depths(expected, wavelengths, mark)
        if wanted is None or wanted.max() < LEAST:
            continue
        around = (wavelengths >= mark.left[0]) & (wavelengths <= mark.right[1])
        level = spectra[:, around].mean(1)
        depths = _depths(spectra[level >= np.median(level)], wavelengths, mark)
        if depths is None or not np.isfinite(depths).all(1).any():
            continue
        depth = np.median(depths[np.isfinite(depths).all(1)], 0)
        found[mark.name] = (
            float(depth @ wanted[0] / (wanted[0] @ wanted[0])),
            float(wanted.max()),
        )
    return found


def _let_through(wavelengths: np.ndarray, fwhm: np.ndarray | None) -> np.ndarray:
    """What air as in THIN lets through in a scene's bands, (band,); bands of unknown width touch their neighbours."""
    nm = np.arange(680, 1300, 1.0)
    apart = np.gradient(wavelengths) if len(wavelengths) > 1 else np.full(1, 10.0)
    widths = apart if fwhm is None else np.where(np.isfinite(fwhm), fwhm, apart)
    widths = np.clip(widths, 2, 400)[:, None]
    weights = np.exp(-4 * np.log(2) * ((nm - wavelengths[:, None]) / widths) ** 2) + 1e-12
    return weights @ gases(nm, *THIN) / weights.sum(1)


def _depths(values: np.ndarray, wavelengths: np.ndarray, mark: Mark) -> np.ndarray | None:
    """How far values (pixel, band) dip below the line between a mark's shoulders, (pixel, band of its core).

    None where the scene has no band in a shoulder or in the core; NaN in pixels whose line is not above zero.
    """
    left, core, right = ((wavelengths >= a) & (wavelengths <= b) for a, b in mark[1:])
    if not (left.any() and core.any() and right.any()):
        return None
    a, b = wavelengths[left].mean(), wavelengths[right].mean()
    low, high = values[:, left].mean(1, keepdims=True), values[:, right].mean(1, keepdims=True)
    line = low + (high - low) * (wavelengths[core] - a) / (b - a)
    return 1 - values[:, core] / np.where(line > 0, line, np.nan)


# --- a rough correction


class Correction(NamedTuple):
    """Values become reflectance, but for one factor: (value - dark) x gain, both (band,) float32."""

    dark: np.ndarray
    gain: np.ndarray

    def __call__(self, spectra: np.ndarray) -> np.ndarray:
        """Correct spectra (pixel, band)."""
        return (spectra - self.dark) * self.gain


def typical(wavelengths: np.ndarray, fwhm: np.ndarray | None) -> np.ndarray:
    """The mean of what lands are made of, plants and waters left out: (band,) reflectance, each material counting once.

    Such a mean is much the same in all scenes (Bernstein et al. 2005, 2012).
    """
    names = [name for name in MEASURED if name != "char"] + ["dry_vegetation"]
    made = material_spectra(names, wavelengths, fwhm)
    return np.mean([spectra.mean(0) for spectra in made.values()], 0)


def learn_correction(
    wavelengths: np.ndarray, fwhm: np.ndarray | None, spectra: np.ndarray
) -> Correction | None:
    """Gains that make a scene's own extremes as bright as such things are in the mean, after QUAC.

    Bernstein et al. (2005), Proc. SPIE 5806, 668, and (2012), Optical Engineering 51, 111719: the darkest pixels are
    the air's own light; the mean of the endmembers that are neither plants nor water is made the typical mean of such
    materials. Ours in the simplest form: endmembers are the pixels farthest apart in angle, one after the other;
    which of them are plants or water is asked again after each correction, for it can't be told before.

    Args:
        wavelengths: (band,) nm, of bands that the library covers.
        fwhm: (band,) nm, or None.
        spectra: (pixel, band), a sample of radiance or digital numbers.

    Returns:
        The correction, or None where the pixels are too much alike to learn one from, or bands are not positive.
    """
    spectra = np.asarray(spectra, np.float64)
    dark = np.maximum(np.quantile(spectra, DARKEST, axis=0), 0)
    whole = spectra.mean(0)
    if not (whole > 0).all():
        return None
    infrared = wavelengths >= min(750, wavelengths.max())
    if np.median((dark / whole)[infrared]) > 0.5:  # nothing in the scene is dark
        dark = np.zeros_like(dark)
    light = spectra - dark
    mean = light.mean(0)
    level = (light / mean).mean(1)
    lit = light[level >= np.quantile(level, 0.2)] / mean
    ends = lit[_farthest(lit, ENDMEMBERS)]
    ends /= np.maximum(ends.mean(1, keepdims=True), 1e-9)
    wanted = typical(wavelengths, fwhm)
    gain = wanted.copy()
    for _ in range(ROUNDS):
        gain = wanted / np.maximum(ends[_neither(ends * gain, wavelengths)].mean(0), 1e-3)
    return Correction(dark.astype(np.float32), (gain / mean).astype(np.float32))


def _farthest(spectra: np.ndarray, number: int) -> list[int]:
    """Pixels that lie farthest from each other in angle: each the one farthest from all before."""
    units = spectra / np.maximum(np.linalg.norm(spectra, axis=1, keepdims=True), 1e-12)
    chosen = [int((units @ units.mean(0)).argmin())]
    nearest = units @ units[chosen[0]]
    while len(chosen) < min(number, len(spectra)):
        chosen.append(int(nearest.argmin()))
        nearest = np.maximum(nearest, units @ units[chosen[-1]])
    return chosen


def _neither(reflectance: np.ndarray, wavelengths: np.ndarray) -> np.ndarray:
    """Which spectra (spectrum, band) are neither plants nor water, at least the three least green, (spectrum,) bool."""
    red, near = (wavelengths > 640) & (wavelengths < 680), (wavelengths > 780) & (wavelengths < 900)
    if not (red.any() and near.any()):
        return np.ones(len(reflectance), bool)
    reds, nears = reflectance[:, red].mean(1), reflectance[:, near].mean(1)
    green = (nears - reds) / np.maximum(nears + reds, 1e-9)
    infrared = reflectance[:, wavelengths > 780].mean(1)
    kept = (green < GREEN) & (infrared > 0.7 * reflectance[:, wavelengths < 600].mean(1))
    if kept.sum() < 3:
        kept = green <= np.sort(green)[min(2, len(green) - 1)]
    return kept


# --- what a scene is compared as


def what_units(
    units: str, wavelengths: np.ndarray, fwhm: np.ndarray | None, sample: np.ndarray
) -> tuple[str, str]:
    """What a scene's values are, reflectance or radiance, and why: as the config says, else by their looks.

    Args:
        units: auto, reflectance or radiance.
        wavelengths: (band,) nm.
        fwhm: (band,) nm, or None.
        sample: (pixel, band).
    """
    if units != "auto":
        return units, f"the config says units: {units}"
    return recognised(wavelengths, fwhm, sample)


def all_dark(sample: np.ndarray) -> bool:
    """Whether nearly all pixels of a sample (pixel, band) are noise around zero; whatever the values' scale."""
    return bool(((sample <= 0).mean(1) >= NOISE).mean() > 0.99)


def units_of(
    units: str,
    wavelengths: np.ndarray,
    fwhm: np.ndarray | None,
    sample: np.ndarray,
    good: np.ndarray,
    bands: np.ndarray,
) -> tuple[Correction | None, dict[str, str | None], str | None]:
    """What a scene's values are, and what makes reflectance of them.

    Args:
        units: auto, reflectance or radiance.
        wavelengths: (band,) nm.
        fwhm: (band,) nm, or None.
        sample: (band, pixel).
        good: (band,) bool: which bands are asked for marks of sun and air.
        bands: (band,) bool: which of them are compared with the library.

    Returns:
        The correction of (pixel, band) in `bands`, or None; kind, reason and correction for the report; and why the
        library has no say, or None.
    """
    widths = np.full(len(good), np.nan) if fwhm is None else fwhm
    kind, why = what_units(units, wavelengths[good], widths[good], sample[good].T)
    said: dict[str, str | None] = {"kind": kind, "reason": why, "correction": None}
    pixels = sample[bands].T
    if all_dark(pixels):
        return None, said, "all its pixels are dark, and what is left is noise"
    if kind == "reflectance":
        return None, said, None
    if units == "auto":
        # corrected, simulated radiance was .22 to .97 right where reflectance is .66 to .97
        return (
            None,
            said,
            (
                f"its values look like radiance or digital numbers, not reflectance ({why}); give reflectance, or write"
                " units: radiance for a rough correction, units: reflectance if they are"
            ),
        )
    correction = learn_correction(wavelengths[bands], widths[bands], pixels)
    if correction is None:
        return None, said, "its values are no reflectance, and too uniform to be corrected"
    return correction, said | {"correction": "quac"}, None
