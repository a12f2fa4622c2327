"""Arithmetic on spectra that several steps share."""

import math
from collections.abc import Callable, Iterable

import numpy as np

from special_steps.core.errors import UserError

WIDEST = 60.0  # nm between neighbouring bands that values are interpolated across
SAME = 0.05  # of the distance to the nearest band: so near, a band of two sensors is the same
DEAD = 4  # times the usual distance between bands that may lie between two: a few dead ones
GAP = 40.0  # nm without a band: a line over it would show what nobody measured


def gap_of(wavelengths: np.ndarray) -> float:
    """The distance in nm that drawn lines do not cross: GAP, or more where all bands are far apart.

    Args:
        wavelengths: (band,) of the bands that are drawn, nm, increasing.
    """
    return max(GAP, 3 * float(np.median(np.diff(wavelengths)))) if len(wavelengths) > 1 else GAP


def interpolate(
    reflectance: np.ndarray, wavelengths: np.ndarray, wanted: list[float]
) -> np.ndarray:
    """Interpolate spectra linearly at the wanted wavelengths (SPECIAL, section on spectral RGB).

    Args:
        reflectance: (band, ...) float32.
        wavelengths: (band,) band centres in nm, increasing.
        wanted: wavelengths in nm; up to one band spacing outside the range counts as its end.

    Returns:
        (len(wanted), ...) float32.
    """
    planes = []
    for position in np.interp(wanted, wavelengths, np.arange(len(wavelengths))):  # in bands
        left = min(int(position), len(wavelengths) - 2)
        share = float(position - left)  # Python's float keeps float32 arrays as they are
        planes.append((1 - share) * reflectance[left] + share * reflectance[left + 1])
    return np.stack(planes)


def check_coverage(wavelengths: np.ndarray, wanted: list[float], source: str) -> None:
    """Raise UserError, naming the ranges that `source` has, when a wanted wavelength lies in none of them.

    Bands are one range where neighbours are at most WIDEST apart; the tolerance at the ends of all bands is one band
    spacing (the median one), and WIDEST at most.
    """
    if len(wavelengths) < 2:
        raise UserError(f"{source}: {len(wavelengths)} good band(s); at least 2 are needed")
    spacing = np.diff(wavelengths)
    reach = min(float(np.median(spacing)), WIDEST)
    gaps = np.flatnonzero(spacing > WIDEST)
    first = wavelengths[np.concatenate([[0], gaps + 1])]
    last = wavelengths[np.concatenate([gaps, [len(wavelengths) - 1]])]
    low, high = first - 0.01, last + 0.01  # users write what the message shows, which is rounded
    low[0] -= reach
    high[-1] += reach
    outside = [w for w in wanted if not ((low <= w) & (w <= high)).any()]
    if outside:
        ranges = ", ".join(
            f"{a:g}-{b:g}" if a < b else f"{a:g}" for a, b in zip(first, last, strict=True)
        )
        raise UserError(
            f"{source}: good bands cover {ranges} nm, which leaves out"
            f" {', '.join(f'{w:g}' for w in outside)} nm; set rgb.wavelengths to three within, where the"
            " picture still looks like something"
        )


def band_weights(
    wanted: np.ndarray,
    given: np.ndarray,
    *,
    wanted_fwhm: np.ndarray | None = None,
    given_fwhm: np.ndarray | None = None,
    source: str,
) -> np.ndarray:
    """How much of each band of one sensor makes a band of another one.

    Bands at most half as wide as the wanted one are averaged with the weights of a Gaussian of the width that is
    missing. Else a band at the same place is taken as it is, and so is the last one before a gap, up to half a band
    from it; other values are interpolated between the two neighbours.

    Args:
        wanted: (wanted band,) centres in nm, increasing.
        given: (given band,) centres in nm, increasing.
        wanted_fwhm: (wanted band,) widths in nm, NaN where unknown; None for the distance to the nearest neighbour.
        given_fwhm: (given band,) the same.
        source: what has the given bands, for the message.

    Returns:
        (wanted band, given band) float32, rows sum to 1.

    Raises:
        UserError: for wanted bands that lie in a gap of the given ones, or outside.
    """
    apart, spacing = _nearest_distances(wanted), _nearest_distances(given)
    if wanted_fwhm is None or given_fwhm is None:  # widths of one kind are compared
        wanted_fwhm = given_fwhm = None
    width, own = _widths(wanted_fwhm, apart), _widths(given_fwhm, spacing)
    widest = min(WIDEST, DEAD * float(max(np.median(apart), np.median(spacing))))
    weights = np.zeros((len(wanted), len(given)), np.float32)
    missing = []
    for i, nm in enumerate(wanted):
        nearest = int(np.abs(given - nm).argmin())
        finer = 2 * own[nearest] <= width[i]
        if not finer and abs(given[nearest] - nm) <= SAME * min(apart[i], spacing[nearest]):
            weights[i, nearest] = 1
            continue
        right = int(np.searchsorted(given, nm))
        inside = 0 < right < len(given)
        gap = given[right] - given[right - 1] if inside else np.inf
        if gap > widest:  # beside a range of bands
            if abs(given[nearest] - nm) > 0.51 * spacing[nearest]:
                missing.append(i)
            weights[i, nearest] = 1
            continue
        if finer:
            near = np.abs(given - nm) <= width[i]
            lacking = np.maximum(width[i] ** 2 - own[near] ** 2, own[near] ** 2)
            shape = np.exp(-4 * np.log(2) * (given[near] - nm) ** 2 / lacking)
            weights[i, near] = shape / shape.sum()
            continue
        share = (nm - given[right - 1]) / gap
        weights[i, right - 1 : right + 1] = 1 - share, share
    if missing:
        runs = np.split(missing, np.flatnonzero(np.diff(missing) > 1) + 1)
        ends = ", ".join(
            f"[{np.floor(wanted[run[0]]):.0f}, {np.ceil(wanted[run[-1]]):.0f}]" for run in runs
        )
        raise UserError(
            f"{source}: no good bands around {wanted[missing[0]]:g} nm, and {len(missing)} of the {len(wanted)} bands"
            f" that the model looks at are missing so; to go without them, set cube.bad_ranges: [{ends}] in the scene"
            " that it learns from"
        )
    return weights


def _nearest_distances(wavelengths: np.ndarray) -> np.ndarray:
    """How far each band's nearest neighbour is, (band,) nm; 10 for a single band."""
    if len(wavelengths) < 2:
        return np.full(len(wavelengths), 10.0)
    apart = np.diff(wavelengths)
    return np.minimum(np.append(apart, np.inf), np.insert(apart, 0, np.inf))


def _widths(fwhm: np.ndarray | None, spacing: np.ndarray) -> np.ndarray:
    """Widths of bands, (band,) nm; those that are not known touch their neighbours."""
    if fwhm is None:
        return spacing
    return np.where(np.isfinite(fwhm) & (fwhm > 0), fwhm, spacing)


def weighted_bands(bands: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Bands (given band, ...) as another sensor has them, (wanted band, ...) float32; a copy.

    Args:
        bands: float32.
        weights: (wanted band, given band) float32, of `band_weights`.
    """
    if (weights.max(1) == 1).all():  # no band is changed, to the last bit
        return bands[weights.argmax(1)]
    return np.tensordot(weights, bands, 1)


def stretch(values: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    """Map `limits` to 0 and 1, linearly, and clip; a scene without contrast becomes 0.5.

    Args:
        values: array of any shape, float32; changed in place.
        limits: the values that become 0 and 1.

    Returns:
        `values`, stretched, same shape and dtype.
    """
    low, high = limits
    if high <= low:
        values[...] = 0.5
        return values
    values -= np.float32(low)
    values *= np.float32(1 / (high - low))
    return np.clip(values, 0, 1, out=values)


def joint_percentiles(
    blocks: Callable[[], Iterable[np.ndarray]], percentiles: list[float]
) -> tuple[float, float]:
    """Two percentiles over the values of all blocks together, exactly, with a block in memory.

    Selection by counting: one pass counts the upper halves of the values' bits, which are in the
    values' order, a second one the lower halves where the wanted ranks lie.

    Args:
        blocks: gives all values, in arrays of any shape, float32, no NaN; called twice.
        percentiles: the lower and the higher one.

    Returns:
        As numpy.percentile has them (linear between neighbours).
    """
    upper = np.zeros(2**16, np.int64)
    for block in blocks():
        upper += np.bincount(_keys(block) >> 16, minlength=2**16)
    below = np.cumsum(upper)
    positions = [(below[-1] - 1) * p / 100 for p in percentiles]
    ranks = sorted({r for p in positions for r in (math.floor(p), math.ceil(p))})
    homes = {rank: int(np.searchsorted(below, rank, side="right")) for rank in ranks}
    lower = {home: np.zeros(2**16, np.int64) for home in homes.values()}
    for block in blocks():
        keys = _keys(block)
        top = keys >> 16
        for home, counts in lower.items():
            counts += np.bincount(keys[top == home] & 0xFFFF, minlength=2**16)
    value = {}
    for rank, home in homes.items():
        within = rank - (below[home] - upper[home])
        low = int(np.searchsorted(np.cumsum(lower[home]), within, side="right"))
        value[rank] = _value(home << 16 | low)
    first, last = (
        value[math.floor(p)] + (p % 1) * (value[math.ceil(p)] - value[math.floor(p)])
        for p in positions
    )
    return first, last


def _keys(values: np.ndarray) -> np.ndarray:
    """float32 values as uint32 numbers of the same order, flat."""
    bits = np.ascontiguousarray(values, np.float32).ravel().view(np.uint32)
    return np.where(bits >> 31, ~bits, bits | np.uint32(2**31))


def _value(key: int) -> float:
    """The float32 value of a key."""
    bits = key ^ 2**31 if key >> 31 else key ^ 0xFFFFFFFF
    return float(np.uint32(bits).view(np.float32))
