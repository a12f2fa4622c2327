"""Ingest: any scene file becomes the project's own store: reflectance, wavelengths, masks,
georeference."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from special_steps.core.cli import run
from special_steps.core.errors import UserError
from special_steps.core.store import create_array, new_store, tile_rows, write_array
from special_steps.io.source import Source, open_source, read_variable, to_nm

log = logging.getLogger("special")

Wavelengths = list[float] | dict[str, float | str] | None


def choose_wavelengths(
    option: Wavelengths,
    stated: np.ndarray | None,
    bands: int,
    variable: np.ndarray | None,
    where: str,
) -> np.ndarray:
    """Centre wavelengths (band,) in nm: from the config (`option`), else what the file states;
    never guessed.

    `option` is a list in nm, {"first": nm, "last": nm} for even spacing, {"variable": name} (its
    values are then in `variable`, in nm), or None. Raises UserError when there are none, or not
    `bands` plausible ones.
    """
    if option is None:
        if stated is None:
            raise UserError(
                f"{where}: the file states no wavelengths; give scenes.<name>.cube.wavelengths: a "
                "list in nm, "
                "{first: nm, last: nm} for even spacing, or {variable: name} in the same file"
            )
        nm = stated
    elif isinstance(option, Mapping):
        if set(option) == {"variable"} and variable is not None:
            nm = variable
        elif set(option) == {"first", "last"}:
            nm = np.linspace(float(option["first"]), float(option["last"]), bands)
        else:
            raise UserError(
                f"{where}: cube.wavelengths has {sorted(option)}; it is a list in nm, "
                f"{{first, last}} or {{variable}}"
            )
    else:
        nm = np.asarray(option, np.float64)
    if len(nm) != bands:
        raise UserError(
            f"{where}: {len(nm)} wavelengths for {bands} bands; mend cube.wavelengths, or "
            "cube.axes if another axis "
            "is the bands'"
        )
    if not np.isfinite(nm).all() or nm.min() < 100 or nm.max() > 100_000:
        raise UserError(
            f"{where}: wavelengths from {np.nanmin(nm):g} to {np.nanmax(nm):g} are no nanometres; "
            "give them in nm in "
            "scenes.<name>.cube.wavelengths"
        )
    return nm


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


def missing_values(block: np.ndarray, nodata: float | None) -> np.ndarray:
    """True, (band, y, x), where a stored value is NaN, infinite or the no-data value."""
    if block.dtype.kind != "f":
        whole = nodata is not None and float(nodata).is_integer()
        return block == int(nodata) if whole else np.zeros(block.shape, bool)
    missing = ~np.isfinite(block)
    if nodata is not None and np.isfinite(nodata):
        # NumPy compares in the data's own type: "-3.4e38" in a header is rounded as the data are
        missing |= block == float(nodata)
    return missing


def masked_pixels(
    block: np.ndarray, missing: np.ndarray, good: np.ndarray, nodata: float | None
) -> np.ndarray:
    """True, (y, x), where a pixel has no data: a good band is `missing` (band, y, x) there.

    0 is also a measurement (dark water), so with no-data 0 only a pixel that is 0 in all good
    bands of the `block` counts, and `missing` is to be without the zeros.
    """
    masked = missing[good].any(0)
    return masked | (block[good] == 0).all(0) if nodata == 0 else masked


def calibrate(
    block: np.ndarray, missing: np.ndarray, scale: np.ndarray, offset: np.ndarray
) -> np.ndarray:
    """Stored values (band, y, x) to float32 `value / scale + offset`; 0 where `missing`."""
    values = block.astype(np.float32)
    values /= scale.astype(np.float32)[:, None, None]
    if offset.any():
        values += offset.astype(np.float32)[:, None, None]
    values[missing] = 0
    return values


def _blocks(source: Source, order: np.ndarray, what: str) -> Iterator[tuple[slice, np.ndarray]]:
    """The source's rows, a row of chunks at a time, with bands in the given order."""
    ordered = bool((np.diff(order) > 0).all())
    for rows in tqdm(tile_rows(source.shape[1]), desc=what, disable=None):
        block = source.read(rows.start, rows.stop)
        yield rows, block if ordered else block[order]


def scene_shape(
    cube: list[Path] | Path,
    *,
    variable: str | None = None,
    axes: str | None = None,
    shape: Mapping[str, int] | None = None,
    **others: object,
) -> tuple[int, int]:
    """(height, width) of a scene, from the file's header alone; takes all settings of a scene's
    `cube`."""
    return open_source(cube, variable=variable, axes=axes, shape=shape).shape[1:]


def ingest(
    *,
    cube: list[Path] | Path,
    out: Path,
    variable: str | None = None,
    axes: str | None = None,
    shape: dict[str, int] | None = None,
    wavelengths: list[float] | dict[str, float | str] | None = None,
    scale: float | None = None,
    nodata: float | None = None,
    bad_ranges: list[list[float]] | None = None,
) -> None:
    """Read a hyperspectral scene and write it as cube.zarr.

    A band is good unless the file's bad-band list or `bad_ranges` names it or it has no value
    anywhere. A pixel is masked when a good band has no value there (NaN, infinite, no-data value,
    or outside all tiles); masked pixels are 0 in all bands. Bands are sorted by wavelength.

    Args:
        cube: scene file: ENVI (.hdr or the data file beside it), MATLAB (.mat), HDF5 (.h5), NumPy,
            GeoTIFF; or a list of GeoTIFF tiles of one grid
        out: cube.zarr to write
        variable: name of the array in a .mat, .h5 or .npz file (path inside the file for .h5); may
            be left out when the file has one 3-D array only
        axes: what the array's axes are, such as "y x band" (the default), "band y x", or "band (x
            y)" for pixels in one axis, column after column
        shape: lengths of the axes that `axes` joins, such as {"x": 95, "y": 95}
        wavelengths: band centres: a list in nm, {"first": nm, "last": nm} when evenly spaced, or
            {"variable": name} in the same file; default: what the file states
        scale: stored values are divided by it; default: what the file states, else 1
        nodata: stored value that means no data; default: what the file states
        bad_ranges: wavelength ranges [low, high] in nm whose bands are not good
    """
    source = open_source(cube, variable=variable, axes=axes, shape=shape)
    where = str(source.files[0])
    bands, height, width = source.shape
    nm = choose_wavelengths(
        wavelengths, source.wavelengths, bands, _wavelength_variable(wavelengths, source), where
    )
    for name in ("good_bands", "fwhm"):
        values = getattr(source, name)
        if values is not None and len(values) != bands:
            raise UserError(
                f"{where}: {len(values)} values of {name} for {bands} bands; mend the file's header"
            )
    if scale is not None and not (np.isfinite(scale) and scale != 0):
        raise UserError(
            f"{where}: cube.scale is {scale}; values are divided by it, so give another number"
        )
    nodata = source.nodata if nodata is None else nodata
    divisor = np.broadcast_to(source.scale if scale is None else scale, bands)
    offset = np.broadcast_to(source.offset if scale is None else 0.0, bands)
    order = np.argsort(nm, kind="stable")
    if (np.diff(order) < 0).any():
        log.info(
            "%s: bands sorted by wavelength; %d were not in order",
            where,
            (order != np.arange(bands)).sum(),
        )
    nm, divisor, offset = nm[order], divisor[order], offset[order]
    stated = np.ones(bands, bool) if source.good_bands is None else source.good_bands[order]
    good = stated & outside_ranges(nm, bad_ranges or [])

    present = np.zeros(bands, bool)
    for _, block in _blocks(source, order, "looking for empty bands"):
        present |= ~missing_values(block, nodata).all((1, 2))
    if not present.any():
        raise UserError(
            f"{where}: no pixel has data, all values are NaN or no-data ({nodata}); check "
            "cube.nodata"
        )
    good &= present
    if not good.any():
        raise UserError(
            f"{where}: no good band is left; check the file's bad-band list and cube.bad_ranges"
        )

    attributes = {
        "wavelengths": nm.tolist(),
        "good_bands": good.tolist(),
        "fwhm": None if source.fwhm is None else source.fwhm[order].tolist(),
        "crs": source.crs,
        "transform": None if source.transform is None else list(source.transform),
        "units": {"wavelengths": "nm", "fwhm": "nm", "reflectance": "stored value / scale"},
    }
    settings = {
        "variable": variable,
        "axes": axes,
        "shape": shape,
        "wavelengths": wavelengths,
        "scale": scale,
        "nodata": nodata,
        "bad_ranges": bad_ranges,
    }
    mask = np.zeros((height, width), bool)
    gaps = np.zeros(bands, np.int64)
    with new_store(
        out, step="ingest", settings=settings, inputs=source.files, attributes=attributes
    ) as group:
        array = create_array(group, "reflectance", source.shape, ("band", "y", "x"))
        for rows, block in _blocks(source, order, "ingest"):
            missing = missing_values(block, nodata if nodata != 0 else None)
            mask[rows] = masked_pixels(block, missing, good, nodata)
            gaps += missing.sum((1, 2))
            missing |= mask[rows]
            array[:, rows] = calibrate(block, missing, divisor, offset)
        if mask.all():
            worst = int(np.argmax(np.where(good, gaps, -1)))
            raise UserError(
                f"{where}: every pixel lacks some good band, most often {nm[worst]:.0f} nm; name "
                "such bands in "
                "cube.bad_ranges"
            )
        write_array(group, "nodata", mask, ("y", "x"))
    log.info(
        "%s: %d x %d pixels, %d bands of which %d good, %.0f to %.0f nm, %.1f %% of the pixels "
        "masked",
        where, height, width, bands, good.sum(), nm[0], nm[-1], 100 * mask.mean(),
    )  # fmt: skip


def _wavelength_variable(option: Wavelengths, source: Source) -> np.ndarray | None:
    """The variable that {"variable": name} names, in nm; its unit is told from its size, as in
    headers."""
    if not isinstance(option, Mapping) or "variable" not in option:
        return None
    name = str(option["variable"])
    if not source.variables:
        raise UserError(
            f"{source.files[0]}: cube.wavelengths names a variable; only .mat, .h5 and .npz have "
            "any"
        )
    return to_nm(read_variable(source.files[0], name), None, f"{source.files[0]}, '{name}'")


if __name__ == "__main__":
    run(ingest)
