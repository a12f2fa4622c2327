"""Reflectance spectra of materials, at the bands of a scene: measured, modelled, and mixed of both."""

import re
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np

from special_steps.core.errors import UserError
from special_steps.io.spectra import read_spectra
from special_steps.io.spectral_library import read_library
from special_steps.materials.physics import (
    shaded,
    snow_reflectance,
    water_reflectance,
    wetted,
)
from special_steps.materials.thinning import spread
from special_steps.materials.words import MATERIALS

MOST = 300  # spectra a material
GAP = 20.0  # nm; where the library's own bands lie farther apart, it does not know what is between
EDGE = 5.0  # nm; by so much a user's spectra may fall short of the outermost bands
INFINITE = float("inf")
GLINT = (
    0.002,
    0.01,
    0.03,
)  # under more, a water has the shape of what it mirrors, and is any grey thing's

# Of MATERIALS, those with the names of the library (LEVEL_3); the others are made below
MEASURED = (
    "asphalt", "bark", "bridge", "char", "comp_shingle", "concrete_tile", "dirt", "driveway", "gravel", "litter",
    "metal", "npv", "paint", "parking_lot", "road", "sand", "sidewalk", "soil", "tile", "wood", "wood_shingle",
)  # fmt: skip


class _Library(NamedTuple):
    """The part of the library that evidence may know."""

    nm: np.ndarray  # (band,)
    spectra: np.ndarray  # (spectrum, band) float64
    kind: np.ndarray  # (spectrum,) str, LEVEL_3
    name: np.ndarray  # (spectrum,) str
    leaves: (
        np.ndarray
    )  # (spectrum, 4): leaf area, g/cm2, chlorophyll in ug/cm2, structure N; NaN where no canopy


@cache
def _library() -> _Library:
    nm, spectra, rows = read_library("evidence")
    leaves = np.full((len(rows), 4), np.nan)
    for number, row in enumerate(rows):
        if found := re.fullmatch(r"v-LAI-(.+)-LMA-(.+)-CHL-(.+)-N-(.+)", row["NAME"]):
            leaves[number] = [float(text) for text in found.groups()]
    kind, name = (np.array([row[field] for row in rows]) for field in ("LEVEL_3", "NAME"))
    # three of litter (reeds) have zeros, where the instrument failed
    whole = (spectra > 0.001).all(1)
    return _Library(nm, spectra[whole].astype(np.float64), kind[whole], name[whole], leaves[whole])


def _of_kind(*kinds: str, number: int = MOST) -> np.ndarray:
    """Spectra of the library of these kinds, (spectrum, band); of more than `number` those that differ most."""
    library = _library()
    found = library.spectra[np.isin(library.kind, kinds)]
    return found[spread(found, number=number)]


def _canopies(
    area: tuple[float, float],
    mass: tuple[float, float],
    chlorophyll: tuple[float, float],
    structure: tuple[float, float],
    number: int,
) -> np.ndarray:
    """Green canopies of the library whose parameters lie in these ranges, (spectrum, band)."""
    library = _library()
    low, high = np.array([area, mass, chlorophyll, structure]).T
    inside = ((library.leaves >= low) & (library.leaves <= high)).all(1)
    found = library.spectra[inside]
    return found[spread(found, number=number)]


def _mixed(parts: Iterable[tuple[float, np.ndarray]]) -> np.ndarray:
    """Every mixture of one spectrum of each part, (spectrum, band); each part has its share of the area."""
    shares, members = zip(*parts, strict=True)
    total = np.zeros((1, members[0].shape[1]))
    for share, spectra in zip(shares, members, strict=True):
        total = (total[:, None] + share * spectra[None]).reshape(-1, spectra.shape[1])
    return total


# --- green plants
#
# Leaf traits. Mass per area: Poorter et al. (2009), New Phytologist 182, 565: herbs and grasses about 35 to 60 g/m2,
# leaves of deciduous trees 50 to 110, of evergreens 100 to 250; the library's leaves begin at 50. Chlorophyll: ug/cm2;
# crops with fertilizer 30 to 60, tree leaves in summer 25 to 60, wild grasses and lawns 15 to 40 (Croft and Chen 2018;
# LOPEX and ANGERS data, Feret et al. 2008). Leaf structure N: 1 to 1.5 for monocotyledons, 1.5 to 2.5 for others
# (Jacquemoud and Baret 1990). Leaf area: grassland 1.7 +- 1.2, crops 3.6 +- 2.1, deciduous forest 5.1 +- 1.6, evergreen
# needles 5.5 to 6.7 (Asner et al. 2003, Global Ecology and Biogeography 12, 191). The ranges overlap: spectra do too.


def _tree_leaves(number: int) -> np.ndarray:
    return _canopies((3, 12), (0.0075, 0.025), (25, 60), (1.4, 2.5), number)


def _grass_leaves(number: int) -> np.ndarray:
    return _canopies((0.8, 4.5), (0, 0.01), (12, 42), (1.3, 1.8), number)


def _crop_leaves(number: int) -> np.ndarray:
    return _canopies((1.5, 6.5), (0, 0.011), (25, 60), (1.3, 2.2), number)


def _tree_canopy() -> np.ndarray:
    """Crowns that shade themselves: sunlit and shaded leaves (Li and Strahler 1985); a part shows twigs and bark."""
    nm = _library().nm
    twigs = _of_kind("bark", number=3)
    leaves = np.concatenate(
        [_tree_leaves(60), _mixed([(0.8, _tree_leaves(12)), (0.2, twigs)])],
    )
    dark = shaded(leaves, nm, turbidity=0.15, through=0.5)
    return np.concatenate([sun * leaves + (1 - sun) * dark for sun in (0.8, 0.55, 0.3)])


def _grass_canopy() -> np.ndarray:
    """Green blades, alone and with a fifth and two fifths of dry ones."""
    green, few = _grass_leaves(100), _grass_leaves(25)
    dry = _straw(4)
    return np.concatenate([green, *(_mixed([(1 - s, few), (s, dry)]) for s in (0.2, 0.4))])


def _crop_canopy() -> np.ndarray:
    """Closed stands, and rows with a quarter of the soil showing."""
    rows = _mixed([(0.75, _crop_leaves(30)), (0.25, _of_kind("soil", number=6))])
    return np.concatenate([_crop_leaves(120), rows])


def _straw(number: int) -> np.ndarray:
    """Dead leaves and stems: litter and npv of the library, without logs."""
    library = _library()
    wanted = np.isin(library.kind, ["litter", "npv"])
    logs = np.char.find(library.name, "CWD") >= 0  # coarse woody debris
    found = library.spectra[wanted & ~logs]
    return found[spread(found, number=number)]


def _dry_vegetation() -> np.ndarray:
    """Senescent plants: dead leaves and stems, also with a little green and with soil between."""
    green = np.concatenate([_grass_leaves(4), _tree_leaves(2)])
    return np.concatenate(
        [
            _straw(MOST),
            _mixed([(0.85, _straw(12)), (0.15, green)]),
            _mixed([(0.65, _straw(10)), (0.35, green)]),
            _mixed([(0.7, _straw(12)), (0.3, _of_kind("soil", number=6))]),
        ]
    )


def _sparse_vegetation() -> np.ndarray:
    """Green plants over 20 to 60 % of soil."""
    plants = np.concatenate([_grass_leaves(5), _crop_leaves(3), _tree_leaves(4)])
    soils = _of_kind("soil", number=8)
    return np.concatenate([_mixed([(s, plants), (1 - s, soils)]) for s in (0.2, 0.4, 0.6)])


# --- water, snow, wet soil, shadow


def _waters(
    depths: Sequence[float],
    bottoms: Sequence[np.ndarray],
    chlorophyll: Sequence[float],
    sediment: Sequence[float],
    dissolved: Sequence[float],
    glint: Sequence[float],
) -> np.ndarray:
    """Waters of all combinations of these; deep ones once, whatever the bottom."""
    nm = _library().nm
    grounds = [(depth, bottom) for depth in depths for bottom in bottoms[: 1 + np.isfinite(depth)]]
    return np.array(
        [
            water_reflectance(
                nm, depth=d, bottom=b, chlorophyll=c, sediment=s, dissolved=y, glint=g
            )
            for (d, b), c, s, y, g in product(grounds, chlorophyll, sediment, dissolved, glint)
        ]
    )


def _bottoms() -> list[np.ndarray]:
    """Pale sand and dark mud."""
    return [np.median(_of_kind("sand"), 0), 0.35 * np.median(_of_kind("soil"), 0)]


def _clear_water() -> np.ndarray:
    return _waters(
        (0.5, 2, INFINITE), _bottoms(), (1, 4), (0.5, 3), (0.05, 0.5, 3), GLINT
    )  # fmt: skip


def _turbid_water() -> np.ndarray:
    return _waters(
        (0.3, INFINITE), _bottoms()[1:], (2, 12), (10, 25, 60, 150, 400, 1000), (0.3, 1.5), GLINT
    )  # fmt: skip


def _algal_water() -> np.ndarray:
    return _waters(
        (INFINITE,), _bottoms(), (20, 45, 100, 220), (1, 5, 20), (0.3, 1.5), GLINT
    )  # fmt: skip


def _snow() -> np.ndarray:
    """Grains from new snow (0.1 mm) to wet old snow (3 mm), clean and dusty."""
    nm = _library().nm
    grid = product((0.1, 0.2, 0.4, 0.8, 1.5, 3.0), (0, 1, 5, 25))
    return np.array([snow_reflectance(nm, grain=g, dust=d) for g, d in grid])


def _ice() -> np.ndarray:
    """Ice with few bubbles, clean to dirty, under a surface that mirrors a little."""
    nm = _library().nm
    grid = product((10, 20, 40), (0.3, 1, 3), (0.01, 0.04))
    return np.array([snow_reflectance(nm, grain=g, dust=d) + mirror for g, d, mirror in grid])


def _wet_soil() -> np.ndarray:
    """Half wet, and wet with films of 0.1 and 0.3 mm (Bach and Mauser 1994 found 0 to 0.3)."""
    nm, dry = _library().nm, _of_kind("soil", "sand", "dirt", number=80)
    wetness = ((0.5, 0.1), (1.0, 0.1), (1.0, 0.3))
    return np.concatenate([wetted(dry, nm, cover=c, film=f) for c, f in wetness])


def _mud() -> np.ndarray:
    """Soil under so much water that it stands or shines on it."""
    nm, dry = _library().nm, _of_kind("soil", "sand", "dirt", number=60)
    films = product((0.6, 2.0), (0.004, 0.02))
    return np.concatenate([wetted(dry, nm, cover=1, film=f, glint=g) for f, g in films])


def _shadow() -> np.ndarray:
    """Materials lit by the sky alone, or by a little of the sun."""
    nm = _library().nm
    lit = np.concatenate(
        [
            _tree_leaves(5),
            _grass_leaves(5),
            _straw(4),
            _of_kind("soil", number=8),
            _of_kind("road", "asphalt", "parking_lot", number=8),
            _of_kind("sidewalk", "bridge", number=4),
            _of_kind("tile", "comp_shingle", number=6),
        ]
    )
    grid = product((0.1, 0.4), (0.02, 0.08))
    return np.concatenate([shaded(lit, nm, turbidity=t, light=light) for t, light in grid])


_MADE: dict[str, Callable[[], np.ndarray]] = {
    "tree_canopy": _tree_canopy,
    "grass_canopy": _grass_canopy,
    "crop_canopy": _crop_canopy,
    "dry_vegetation": _dry_vegetation,
    "sparse_vegetation": _sparse_vegetation,
    "clear_water": _clear_water,
    "turbid_water": _turbid_water,
    "algal_water": _algal_water,
    "snow": _snow,
    "ice": _ice,
    "wet_soil": _wet_soil,
    "mud": _mud,
    "shadow": _shadow,
}


@cache
def _spectra_of(material: str) -> np.ndarray:
    """A material's spectra at the library's own bands, (spectrum, band)."""
    spectra = _MADE[material]() if material in _MADE else _of_kind(material)
    return np.clip(spectra, 0, 1.5)


# --- bands of a scene


def at_bands(
    known: np.ndarray, spectra: np.ndarray, wavelengths: np.ndarray, fwhm: np.ndarray | None
) -> np.ndarray:
    """What the bands of a scene make of spectra.

    Args:
        known: (n,) nm, rising: the spectra's own wavelengths.
        spectra: (spectrum, n).
        wavelengths: (band,) nm, the centres of the scene's bands.
        fwhm: (band,) nm, full widths at half maximum of Gaussian responses, or None. A band is the value at its
            centre, linearly between its neighbours, where this is NaN or None, and where the spectra are sampled no
            finer than half of it: such spectra are as blurred as the band, or more.

    Returns:
        (spectrum, band) float64; NaN in bands whose centre is not `covered`.
    """
    wavelengths = np.asarray(wavelengths, np.float64)
    inside = covered(known, wavelengths)
    made = np.full((len(spectra), len(wavelengths)), np.nan)
    made[:, inside] = [np.interp(wavelengths[inside], known, values) for values in spectra]
    right = np.clip(np.searchsorted(known, wavelengths), 1, len(known) - 1)
    widths = np.full(len(wavelengths), np.nan) if fwhm is None else np.asarray(fwhm, np.float64)
    broad = np.flatnonzero(inside & (widths > 2 * (known[right] - known[right - 1])))
    if len(broad) == 0:
        return made
    fine = np.arange(wavelengths[broad].min() - 500, wavelengths[broad].max() + 500, 1.0)
    fine = fine[covered(known, fine)]
    off = (fine - wavelengths[broad, None]) / widths[broad, None]
    weights = np.exp(-4 * np.log(2) * off**2)
    weights /= weights.sum(1, keepdims=True)
    made[:, broad] = np.array([np.interp(fine, known, values) for values in spectra]) @ weights.T
    return made


def covered(known: np.ndarray, wavelengths: np.ndarray) -> np.ndarray:
    """Which wavelengths spectra that are sampled at `known` tell something of.

    Args:
        known: (n,) nm, rising.
        wavelengths: (band,) nm.

    Returns:
        (band,) bool: not outside the ends of `known`, nor where two of it are more than GAP apart, or, of coarser
        spectra, more than three times as far as usual.
    """
    gap = max(GAP, 3 * float(np.median(np.diff(known))))
    right = np.clip(np.searchsorted(known, wavelengths), 1, len(known) - 1)
    near = known[right] - known[right - 1] <= gap
    near |= (wavelengths == known[right]) | (wavelengths == known[right - 1])
    return near & (wavelengths >= known[0]) & (wavelengths <= known[-1])


def material_spectra(
    names: Iterable[str], wavelengths: np.ndarray, fwhm: np.ndarray | None
) -> dict[str, np.ndarray]:
    """Spectra of materials at a scene's bands, none of those that scenes are simulated from.

    The library is sampled every 10 nm from 400 to 2450 nm, but for what water vapour hides: 1350 to 1460 and 1790 to
    1960 nm.

    Args:
        names: of MATERIALS.
        wavelengths: (band,) nm, centres of the scene's bands.
        fwhm: (band,) nm, their widths, or None; see `at_bands`.

    Returns:
        (spectrum, band) float32 reflectance from 0 to 1.5 for each name, at most MOST spectra; NaN in bands whose
        centre the library does not cover, the same for all materials.

    Raises:
        UserError: for a name that is none of MATERIALS.
    """
    names = list(names)
    if unknown := [name for name in names if name not in MATERIALS]:
        raise UserError(
            f"no spectra of a material '{unknown[0]}'; there are: {', '.join(MATERIALS)}"
        )
    nm = _library().nm
    return {
        name: at_bands(nm, _spectra_of(name), wavelengths, fwhm).astype(np.float32)
        for name in names
    }


def own_spectra(path: Path, wavelengths: np.ndarray, fwhm: np.ndarray | None) -> np.ndarray:
    """A user's spectra at a scene's bands, to stand beside those of `material_spectra`.

    Args:
        path: a file that `read_spectra` reads.
        wavelengths: (band,) nm, centres of the scene's bands.
        fwhm: (band,) nm, their widths, or None; see `at_bands`.

    Returns:
        (spectrum, band) float32 reflectance from 0 to 1.5; NaN in the bands where those of the library are.

    Raises:
        UserError: for a file that cannot be read, or does not cover all bands that the library covers.
    """
    known, spectra = read_spectra(path)
    wavelengths = np.asarray(wavelengths, np.float64)
    wanted = covered(_library().nm, wavelengths)
    # files begin and end some nm beside the round number
    near_end = np.clip(wavelengths, known[0], known[-1])
    centres = np.where(abs(near_end - wavelengths) <= EDGE, near_end, wavelengths)
    missing = wavelengths[wanted & ~covered(known, centres)]
    if len(missing):
        raise UserError(
            f"{path}: its spectra ({known[0]:.0f} to {known[-1]:.0f} nm) lack {len(missing)} of the scene's bands,"
            f" {missing.min():.0f} to {missing.max():.0f} nm; give spectra that have them, or leave these"
            " bands out of the scene with bad_ranges"
        )
    made = at_bands(known, spectra, centres, fwhm)
    made[:, ~wanted] = np.nan
    return made.astype(np.float32)
