"""Which bands of a source a scene has: their wavelengths, order, scale, and which are good."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from special_steps.core.errors import UserError
from special_steps.io.arrays import read_wavelengths
from special_steps.io.record import Source

Wavelengths = list[float] | dict[str, float | str] | None
DropBands = list[int | str]


class Bands(NamedTuple):
    """The bands that are kept, by wavelength; all arrays are (band,)."""

    position: np.ndarray  # in the source
    nm: np.ndarray
    good: np.ndarray  # bool
    scale: np.ndarray  # reflectance = stored / scale + offset
    offset: np.ndarray
    fwhm: np.ndarray | None  # nm
    notes: tuple[str, ...]  # what a user must know


def choose_bands(
    source: Source,
    *,
    wavelengths: Wavelengths,
    scale: float | None,
    bad_ranges: Sequence[Sequence[float]],
    drop_bands: DropBands,
) -> Bands:
    """Decide on the bands from what the file states and what the config says, which counts first.

    Args:
        source: the opened file.
        wavelengths: the setting, see `choose_wavelengths`.
        scale: what stored values are divided by; None for what the file states.
        bad_ranges: [low, high] in nm, ends included.
        drop_bands: numbers from 1 in the file's order, or ranges such as "104-116".

    Raises:
        UserError: when there are no usable wavelengths or scale, or no good band is left.
    """
    where, count = str(source.files[0]), source.shape[0]
    kept = np.setdiff1d(np.arange(count), dropped(drop_bands, count, where))
    if not len(kept):
        raise UserError(f"{where}: cube.drop_bands leaves none of the {count} bands; leave some")
    nm = choose_wavelengths(wavelengths, source, kept)
    good = np.ones(count, bool) if source.good_bands is None else source.good_bands
    notes = []
    unknown = kept[np.isnan(nm[kept])] + 1
    if len(unknown):
        raise UserError(
            f"{where}: no wavelength (0 or NaN) of bands {', '.join(map(str, unknown[:20]))}"
            f"{', ...' if len(unknown) > 20 else ''}; set scenes.<name>.cube.drop_bands:"
            f" {unknown.tolist()}, or give all in scenes.<name>.cube.wavelengths"
        )
    index = kept[np.argsort(nm[kept], kind="stable")]
    nm, good = nm[index], good[index] & outside_ranges(nm[index], bad_ranges)
    same = np.flatnonzero((np.diff(nm) == 0) & good[:-1] & good[1:])
    if len(same):
        pairs = [f"{index[i] + 1} and {index[i + 1] + 1} ({nm[i]:g} nm)" for i in same[:5]]
        notes.append(
            f"{where}: bands {', '.join(pairs)} have the same wavelength; if one is a copy, name it in"
            " scenes.<name>.cube.drop_bands"
        )
    if not good.any():
        raise UserError(
            f"{where}: no good band is left; check the file's bad-band list, cube.bad_ranges and"
            " cube.drop_bands"
        )
    for name in ("scale", "offset"):
        if scale is None and name in source.doubts:
            raise UserError(source.doubts[name])
    if scale is not None and not (np.isfinite(scale) and scale != 0):
        raise UserError(
            f"{where}: cube.scale is {scale}; values are divided by it, so give another number"
        )
    divisor = np.broadcast_to(source.scale if scale is None else scale, count)[index]
    offset = np.broadcast_to(source.offset if scale is None else 0.0, count)[index]
    fwhm = None if source.fwhm is None else source.fwhm[index]
    return Bands(index, nm, good, divisor, offset, fwhm, tuple(notes))


def choose_wavelengths(option: Wavelengths, source: Source, kept: np.ndarray) -> np.ndarray:
    """Centre wavelengths from the config, else what the file states; never guessed.

    Args:
        option: a list in nm (of all bands, or of those kept), {"first": nm, "last": nm} for even spacing, {"variable":
            name} of the same file, or None.
        source: the opened file.
        kept: indices of the bands that are not dropped.

    Returns:
        (band,) nm of all bands of the file; NaN where the file says that it does not know.

    Raises:
        UserError: when there are none, or not as many plausible ones as bands.
    """
    where, bands = str(source.files[0]), source.shape[0]
    if option is None:
        if source.wavelengths is None:
            raise UserError(
                source.doubts.get("wavelengths")
                or f"{where}: the file states no wavelengths; give scenes.<name>.cube.wavelengths:"
                " a list in nm, {first: nm, last: nm} for even spacing, or {variable: name} in the same"
                " file"
            )
        nm = source.wavelengths
    elif isinstance(option, Mapping):
        if set(option) == {"variable"}:
            nm = _variable(str(option["variable"]), source)
        elif set(option) == {"first", "last"}:
            nm = np.linspace(float(option["first"]), float(option["last"]), bands)
        else:
            raise UserError(
                f"{where}: cube.wavelengths has {sorted(option)};"
                " it is a list in nm, {first, last} or {variable}"
            )
    else:
        nm = np.asarray(option, np.float64)
        if len(nm) == len(kept) != bands:
            spread = np.full(bands, np.nan)
            spread[kept] = nm
            nm = spread
    if len(nm) != bands:
        raise UserError(
            f"{where}: {len(nm)} wavelengths for {bands} bands; fix cube.wavelengths, or cube.axes"
            " if another axis is the bands'"
        )
    used = nm[kept] if option is not None else nm[~np.isnan(nm)]
    if not np.isfinite(used).all() or used.min() < 100 or used.max() > 100_000:
        shown = (
            f"from {used.min():g} to {used.max():g}"
            if np.isfinite(used).all()
            else "with NaN or infinity"
        )
        raise UserError(
            f"{where}: wavelengths {shown} are no nanometres; give them in nm in scenes.<name>.cube.wavelengths"
        )
    return np.asarray(nm, np.float64)


def _variable(name: str, source: Source) -> np.ndarray:
    """The variable that {"variable": name} names, in nm."""
    path = source.files[0]
    if not source.variables:
        raise UserError(
            f"{path}: cube.wavelengths names a variable; only .mat, .h5, .nc and .npz files have any"
        )
    return read_wavelengths(path, name)


def dropped(drop_bands: DropBands, count: int, where: str) -> np.ndarray:
    """Indices from 0 of the bands that numbers from 1, and ranges such as "104-116", name.

    Raises:
        UserError: for what is no band of the file.
    """
    found: list[int] = []
    for item in drop_bands:
        ends = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", str(item))
        first, last = (int(ends[1]), int(ends[2] or ends[1])) if ends else (0, 0)
        if not 1 <= first <= last <= count:
            raise UserError(
                f"{where}: cube.drop_bands: '{item}' is none of the file's bands 1 to {count}, nor a"
                " range of them such as 104-116"
            )
        found += range(first - 1, last)
    return np.array(sorted(set(found)), int)


def outside_ranges(nm: np.ndarray, bad_ranges: Sequence[Sequence[float]]) -> np.ndarray:
    """True (band,) for wavelengths in none of the [low, high] ranges (nm, ends included)."""
    good = np.ones(len(nm), bool)
    for pair in bad_ranges:
        if len(pair) != 2 or not pair[0] <= pair[1]:
            raise UserError(
                f"cube.bad_ranges: {list(pair)} is no [low, high] in nm; write low first"
            )
        good &= ~((nm >= pair[0]) & (nm <= pair[1]))
    return good
