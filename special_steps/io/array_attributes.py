"""What the attributes of an array in a file say about its values: no data, scale, offset, valid range.

Two conventions use the same words for opposite things. The CF conventions (chapter 8.1) and netCDF: `scale_factor` and
`add_offset`, value = stored * scale_factor + add_offset. NEON (HDF5 of the airborne observation platform):
`Scale_Factor`, value = stored / Scale_Factor. A number is taken when its name and its size say the same.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

FILL = ("fillvalue", "fill", "missingvalue", "missing", "missingdata", "nodata", "nodatavalue", "dataignorevalue",
        "ignorevalue", "datafillvalue", "badvalue")  # fmt: skip
SCALE = (
    "scalefactor",
    "scale",
    "reflectancescalefactor",
    "scalingfactor",
    "datascale",
    "multiplicativefactor",
)
OFFSET = ("addoffset", "offset")
NOT_APPLIED = ("gain", "gains", "slope", "intercept", "bias", "datagainvalues", "dataoffsetvalues")
DIVIDED = "say what stored values are divided by with scenes.<name>.cube.scale"
NO_STATEMENT = ("", "none", "null", "na", "n/a", "undefined")


def plain(name: str) -> str:
    """A name without case, spaces, underscores and the like: "_FillValue" and "fill value" are the same."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def stated_by_attributes(
    attributes: Mapping[str, Any], own_fill: Any, dtype: np.dtype | None, bands: int, where: str
) -> dict[str, Any]:
    """Fields of a Source (nodata, scale, offset, doubts, notes), and how stored values are to be seen.

    Args:
        attributes: of the array, as the file has them.
        own_fill: what the format itself puts where nothing was written; None when it says nothing.
        dtype: of the stored values; None when it is not known.
        bands: how many the array has.
        where: file and variable, for messages.

    Returns:
        the fields; and "seen_as", the dtype that the stored bits stand for (CF `_Unsigned`) or None; and "valid",
        (low, high) in stored values, or None.
    """
    doubts: dict[str, str] = {}
    notes: list[str] = []
    seen_as = _seen_as(attributes, dtype)
    dtype = seen_as or dtype
    nodata: list[float] = []
    for name, value in _named(attributes, FILL):
        found = _numbers(value)
        if found is None:
            doubts["nodata"] = (
                f"{where}: attribute '{name}' is '{_short(value)}', no number; say which stored value"
                " means no data with scenes.<name>.cube.nodata"
            )
            continue
        for number in found:
            number = _wrapped(number, seen_as)
            _add_fill(nodata, number, dtype, f"attribute '{name}'", notes)
    if own_fill is not None:
        for number in _numbers(own_fill) or []:
            number = _wrapped(number, seen_as)
            _add_fill(nodata, number, dtype, "the file's own fill value", notes)
    fields: dict[str, Any] = {"nodata": tuple(dict.fromkeys(nodata))} if nodata else {}
    scale = _scale(attributes, bands, where, doubts)
    if scale is not None:
        fields["scale"] = scale
    offset = _offset(attributes, bands, where, doubts)
    if offset is not None:
        fields["offset"] = offset
    for name, value in _named(attributes, NOT_APPLIED):
        found = _numbers(value)
        identity = (0.0,) if plain(name) in ("intercept", "bias", "dataoffsetvalues") else (1.0,)
        if found is None or any(v not in identity for v in found):
            notes.append(f"attribute '{name}' ({_short(value)}) is not applied to the values")
    valid = _valid(attributes, dtype, seen_as, fields, doubts, notes)
    return fields | {
        "doubts": doubts,
        "notes": tuple(f"{where}: {n}" for n in notes),
        "seen_as": seen_as,
        "valid": valid,
    }


def see(
    block: np.ndarray, seen_as: np.dtype | None, valid: tuple[float, float] | None
) -> np.ndarray:
    """Stored values as the type that they stand for, NaN outside the valid range."""
    if seen_as is not None:
        block = block.view(seen_as)
    if valid is None:
        return block
    inside = (block >= valid[0]) & (block <= valid[1])
    # every whole number of 16 bits is a float32
    wide = np.float32 if block.dtype.itemsize <= 2 or block.dtype == np.float32 else np.float64
    return np.where(inside, block.astype(wide), wide(np.nan))


def _named(attributes: Mapping[str, Any], names: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    for name, value in attributes.items():
        if plain(name) in names:
            yield name, value


def _short(value: Any) -> str:
    texts = [
        v.decode(errors="replace") if isinstance(v, bytes) else str(v) for v in np.ravel(value)
    ]
    return ", ".join(texts)[:80]


def _numbers(value: Any) -> list[float] | None:
    """Numbers of an attribute, whole ones exact, also written as text; [] for a text that says "none"."""
    found: list[float] = []
    for item in np.ravel(value):
        item = item.decode(errors="replace") if isinstance(item, bytes) else item
        if isinstance(item, str):
            text = item.strip("\0 \t\r\n{}[]()")
            if text.lower() in NO_STATEMENT:
                continue
            for word in re.split(r"[,;\s]+", text):
                try:
                    found.append(float(word))
                except ValueError:
                    return None
        elif isinstance(item, np.integer | np.bool_ | int):
            found.append(int(item))
        else:
            try:
                found.append(float(item))
            except (TypeError, ValueError):
                return None
    return found


def _seen_as(attributes: Mapping[str, Any], dtype: np.dtype | None) -> np.dtype | None:
    """netCDF 3 has no unsigned types: `_Unsigned` = "true" says that signed ones stand for them (and the reverse)."""
    said = next((_short(v).lower() for n, v in attributes.items() if n.lower() == "_unsigned"), "")
    kinds = {("i", "true"): "u", ("u", "false"): "i", ("i", "1"): "u"}
    kind = kinds.get((dtype.kind, said)) if dtype is not None else None
    return np.dtype(f"{kind}{dtype.itemsize}") if kind and dtype is not None else None


def _in_type(number: float, dtype: np.dtype | None) -> float | None:
    """The number as a value of the type has it; None when none of them can be it."""
    if dtype is None:
        return number
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            stored = float(np.array(number, np.float64).astype(dtype))
        return stored if np.isfinite(stored) or not np.isfinite(number) else None
    if not np.isfinite(number) or number != int(number):
        return None
    whole = int(number)
    if dtype.kind == "b":
        return whole if whole in (0, 1) else None
    limits = np.iinfo(dtype)
    return whole if limits.min <= whole <= limits.max else None


def _wrapped(number: float, dtype: np.dtype | None) -> float:
    """A negative number for unsigned values: the attribute is of the signed type that the file has."""
    if dtype is not None and dtype.kind == "u" and np.isfinite(number) and number < 0:
        return int(number) + 2 ** (8 * dtype.itemsize)
    return number


def _add_fill(
    nodata: list[float], number: float, dtype: np.dtype | None, what: str, notes: list[str]
) -> None:
    stored = _in_type(number, dtype)
    if stored is None:
        notes.append(
            f"no {dtype} value can be {number:g}, so {what} is not used; if some stored value"
            " means no data, say which with scenes.<name>.cube.nodata"
        )
    elif np.isfinite(stored):  # NaN and infinite are no data anyway
        nodata.append(stored)


def _scale(
    attributes: Mapping[str, Any], bands: int, where: str, doubts: dict[str, str]
) -> float | np.ndarray | None:
    """The divisor: value = stored / scale + offset."""
    found = []
    for name, value in _named(attributes, SCALE):
        numbers = _numbers(value)
        if numbers == []:
            continue
        says = f"{where}: attribute '{name}' is '{_short(value)}'"
        if numbers is None or len(numbers) not in (1, bands):
            what = "no number" if numbers is None else f"{len(numbers)} numbers for {bands} bands"
            doubts["scale"] = f"{says}, {what}; {DIVIDED}"
            return None
        scale = np.array(numbers, np.float64)
        if not np.isfinite(scale).all() or (scale <= 0).any():
            doubts["scale"] = f"{says}; {DIVIDED}"
            return None
        multiplies = name == "scale_factor"
        if (scale == 1).all():
            divisor = scale
        elif (scale <= 1).all() and (multiplies or (scale <= 0.1).all()):
            divisor = 1 / scale
        elif (scale >= 1).all() and not multiplies:
            divisor = scale
        else:
            first = float(scale[0])
            doubts["scale"] = (
                f"{says}: values may be meant to be multiplied by it (CF's scale_factor) or divided (NEON's"
                f" Scale_Factor); write scenes.<name>.cube.scale: {1 / first:g} to multiply by"
                f" {first:g}, or scale: {first:g} to divide"
            )
            return None
        found.append(divisor)
    if not found:
        return None
    if any(not np.allclose(divisor, found[0]) for divisor in found[1:]):
        doubts["scale"] = f"{where}: several attributes state different scales; {DIVIDED}"
        return None
    return float(found[0][0]) if len(found[0]) == 1 else found[0]


def _offset(
    attributes: Mapping[str, Any], bands: int, where: str, doubts: dict[str, str]
) -> float | np.ndarray | None:
    """What is added to scaled values. Only `add_offset` is defined; an `offset` may be meant before the scale."""
    for name, value in _named(attributes, OFFSET):
        numbers = _numbers(value)
        if numbers == [] or (numbers is not None and not any(numbers)):
            continue
        clear = (
            plain(name) == "addoffset"
            and numbers is not None
            and len(numbers) in (1, bands)
            and bool(np.isfinite(numbers).all())
        )
        if not clear or numbers is None:
            doubts["offset"] = (
                f"{where}: attribute '{name}' is '{_short(value)}'; how it is to be added to the values is"
                " not clear; give scenes.<name>.cube.scale to have the file's scale and offset left out"
            )
            return None
        return float(numbers[0]) if len(numbers) == 1 else np.array(numbers)
    return None


def _valid(
    attributes: Mapping[str, Any],
    dtype: np.dtype | None,
    seen_as: np.dtype | None,
    fields: Mapping[str, Any],
    doubts: Mapping[str, str],
    notes: list[str],
) -> tuple[float, float] | None:
    """(low, high) of stored values: `valid_range`, `valid_min`, `valid_max` (NetCDF Users' Guide, appendix A).

    They are in stored values, except that floating numbers for whole stored values with a scale are in scaled ones.
    """
    low, high, names, floating = -np.inf, np.inf, [], False
    for name, value in attributes.items():
        key = plain(name)
        if key not in ("validrange", "validmin", "validmax"):
            continue
        numbers = _numbers(value)
        if numbers == []:
            continue
        if (
            numbers is None
            or len(numbers) != (2 if key == "validrange" else 1)
            or np.isnan(numbers).any()
        ):
            notes.append(
                f"attribute '{name}' ({_short(value)}) is no range of numbers; it is not used"
            )
            continue
        names.append(f"'{name}'")
        floating |= np.asarray(value).dtype.kind == "f"
        if key != "validmax":
            low = max(low, numbers[0])
        if key != "validmin":
            high = min(high, numbers[-1])
    if not names:
        return None
    scaled = "scale" in fields or "offset" in fields or bool({"scale", "offset"} & set(doubts))
    if dtype is not None and dtype.kind in "iu":
        if floating and scaled:
            scale, offset = fields.get("scale", 1.0), fields.get("offset", 0.0)
            if doubts.keys() & {"scale", "offset"} or np.ndim(scale) or np.ndim(offset):
                notes.append(f"{', '.join(names)} (in scaled values) is not used")
                return None
            low, high = ((v - offset) * scale for v in (low, high))
        else:
            low, high = _wrapped(low, seen_as), _wrapped(high, seen_as)
    if low > high:
        notes.append(f"{', '.join(names)} leaves no value between {low:g} and {high:g}; not used")
        return None
    limits = None if dtype is None or dtype.kind not in "iu" else np.iinfo(dtype)
    if limits is not None and low <= limits.min and high >= limits.max:
        return None
    notes.append(f"stored values outside {low:g} to {high:g} ({', '.join(names)}) count as no data")
    return low, high
