"""Ingest: any scene file becomes the project's own store: reflectance, wavelengths, masks, georeference."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from special_steps.core.cli import run
from special_steps.core.errors import UserError
from special_steps.core.store import (
    Grid,
    create_array,
    new_store,
    tile_rows,
    write_array,
)
from special_steps.io.arrays import read_variable
from special_steps.io.record import Source
from special_steps.io.source import open_source
from special_steps.io.wavelengths import to_nm

log = logging.getLogger("special")

Wavelengths = list[float] | dict[str, float | str] | None


def choose_wavelengths(
    option: Wavelengths,
    stated: np.ndarray | None,
    bands: int,
    variable: np.ndarray | None,
    where: str,
) -> np.ndarray:
    """Centre wavelengths from the config, else what the file states; never guessed.

    Args:
        option: a list in nm, {"first": nm, "last": nm} for even spacing, {"variable": name}, or None.
        stated: the file's, (band,) nm.
        bands: how many there are.
        variable: values of the variable that the option names, nm.
        where: file, for messages.

    Returns:
        (band,) nm.

    Raises:
        UserError: when there are none, or not `bands` plausible ones.
    """
    if option is None:
        if stated is None:
            raise UserError(
                f"{where}: the file states no wavelengths; give scenes.<name>.cube.wavelengths:"
                " a list in nm, {first: nm, last: nm} for even spacing, or {variable: name} in the same"
                " file"
            )
        nm = stated
    elif isinstance(option, Mapping):
        if set(option) == {"variable"} and variable is not None:
            nm = variable
        elif set(option) == {"first", "last"}:
            nm = np.linspace(float(option["first"]), float(option["last"]), bands)
        else:
            raise UserError(
                f"{where}: cube.wavelengths has {sorted(option)};"
                " it is a list in nm, {first, last} or {variable}"
            )
    else:
        nm = np.asarray(option, np.float64)
    if len(nm) != bands:
        raise UserError(
            f"{where}: {len(nm)} wavelengths for {bands} bands; fix cube.wavelengths, or cube.axes"
            " if another axis is the bands'"
        )
    if not np.isfinite(nm).all() or nm.min() < 100 or nm.max() > 100_000:
        raise UserError(
            f"{where}: wavelengths from {np.nanmin(nm):g} to {np.nanmax(nm):g} are no nanometres;"
            " give them in nm in scenes.<name>.cube.wavelengths"
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
        if nodata is None or not float(nodata).is_integer():
            return np.zeros(block.shape, bool)
        return np.asarray(block == int(nodata))
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


def ingest(
    *,
    cube: list[Path] | Path,
    out: Path,
    variable: str | None,
    axes: str | None,
    shape: dict[str, int] | None,
    wavelengths: Wavelengths,
    scale: float | None,
    nodata: float | None,
    bad_ranges: list[list[float]],
) -> None:
    """Read a hyperspectral scene and write it as cube.zarr.

    A band is good unless the file's bad-band list or `bad_ranges` names it or it has no value anywhere. A pixel is
    masked when a good band has no value there (NaN, infinite, no-data value, or outside all tiles); masked pixels are 0
    in all bands. Bands are sorted by wavelength.

    Args:
        cube: scene file: ENVI (.hdr or the data file beside it), MATLAB (.mat), HDF5 (.h5), NumPy, GeoTIFF; or a list
            of GeoTIFF tiles of one grid
        out: cube.zarr to write
        variable: name of the array in a .mat, .h5 or .npz file (path inside the file for .h5); null when the file has
            one 3-D array only
        axes: what the array's axes are, such as "y x band" (also what null means), "band y x", or "band (x y)" for
            pixels in one axis, column after column
        shape: lengths of the axes that `axes` joins, such as {"x": 95, "y": 95}
        wavelengths: band centres: a list in nm, {"first": nm, "last": nm} when evenly spaced, {"variable": name} in the
            same file, or null for what the file states
        scale: stored values are divided by it; null for what the file states, else 1
        nodata: stored value that means no data; null for what the file states
        bad_ranges: wavelength ranges [low, high] in nm whose bands are not good
    """
    source = open_source(cube, variable=variable, axes=axes, shape=shape)
    where = str(source.files[0])
    bands, height, width = source.shape
    nm = choose_wavelengths(
        wavelengths, source.wavelengths, bands, _wavelength_variable(wavelengths, source), where
    )
    _check_source(source, scale)
    nodata = source.nodata if nodata is None else nodata
    divisor = np.broadcast_to(source.scale if scale is None else scale, bands)
    offset = np.broadcast_to(source.offset if scale is None else 0.0, bands)
    order = np.argsort(nm, kind="stable")
    if (np.diff(order) < 0).any():
        moved = (order != np.arange(bands)).sum()
        log.info("%s: bands sorted by wavelength; %d were not in order", where, moved)
    nm, divisor, offset = nm[order], divisor[order], offset[order]
    good = outside_ranges(nm, bad_ranges) & _bands_with_values(source, order, nodata)
    if source.good_bands is not None:
        good &= source.good_bands[order]
    if not good.any():
        raise UserError(
            f"{where}: no good band is left; check the file's bad-band list and cube.bad_ranges"
        )

    bands_are = {"band": nm, "good_band": good}
    if source.fwhm is not None:
        bands_are["fwhm"] = source.fwhm[order]
    grid = Grid(source.crs, source.transform)
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
    with new_store(out, step="ingest", settings=settings, inputs=source.files, grid=grid) as group:
        for name, values in bands_are.items():
            write_array(group, name, values, ("band",))
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
                f"{where}: every pixel lacks some good band, most often {nm[worst]:.0f} nm;"
                " name such bands in cube.bad_ranges"
            )
        write_array(group, "nodata", mask, ("y", "x"))
    log.info(
        "%s: %d x %d pixels, %d bands of which %d good, %.0f to %.0f nm, %.1f %% of the pixels masked",
        where, height, width, bands, good.sum(), nm[0], nm[-1], 100 * mask.mean(),
    )  # fmt: skip


def _wavelength_variable(option: Wavelengths, source: Source) -> np.ndarray | None:
    """The variable that {"variable": name} names, in nm; its unit follows from its size, as in headers without one."""
    if not isinstance(option, Mapping) or "variable" not in option:
        return None
    path, name = source.files[0], str(option["variable"])
    if not source.variables:
        raise UserError(
            f"{path}: cube.wavelengths names a variable; only .mat, .h5 and .npz have any"
        )
    return to_nm(read_variable(path, name), None, f"{path}, '{name}'")


def _check_source(source: Source, scale: float | None) -> None:
    where, bands = source.files[0], source.shape[0]
    for name in ("good_bands", "fwhm"):
        values = getattr(source, name)
        if values is not None and len(values) != bands:
            raise UserError(
                f"{where}: {len(values)} values of {name} for {bands} bands; fix the file's header"
            )
    if scale is not None and not (np.isfinite(scale) and scale != 0):
        raise UserError(
            f"{where}: cube.scale is {scale}; values are divided by it, so give another number"
        )


def _bands_with_values(source: Source, order: np.ndarray, nodata: float | None) -> np.ndarray:
    """True (band,), in the given order, for bands that have a value somewhere."""
    present = np.zeros(len(order), bool)
    for _, block in _blocks(source, order, "looking for empty bands"):
        present |= ~missing_values(block, nodata).all((1, 2))
    if not present.any():
        raise UserError(
            f"{source.files[0]}: no pixel has data, all values are NaN or no-data ({nodata});"
            " check cube.nodata"
        )
    return present


def _blocks(source: Source, order: np.ndarray, what: str) -> Iterator[tuple[slice, np.ndarray]]:
    """The source's rows, a row of chunks at a time, with bands in the given order."""
    ordered = bool((np.diff(order) > 0).all())
    for rows in tqdm(tile_rows(source.shape[1]), desc=what, disable=None):
        block = source.read(rows.start, rows.stop)
        yield rows, block if ordered else block[order]


if __name__ == "__main__":
    run(ingest)
