"""Ingest: any scene file becomes the project's own store: reflectance, wavelengths, masks, georeference."""

import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from tqdm import tqdm

from special_steps.core.cli import run
from special_steps.core.errors import UserError
from special_steps.core.notes import as_yaml, gathered
from special_steps.core.store import (
    TILE,
    Grid,
    create_array,
    new_store,
    tile_rows,
    write_array,
)
from special_steps.io.bands import Bands, DropBands, Wavelengths, choose_bands
from special_steps.io.fill import (
    SHARE,
    at_border,
    fits,
    flat_values,
    is_no_measurement,
    missing_values,
    unstated_fill,
)
from special_steps.io.record import Source
from special_steps.io.scene_mask import scene_mask
from special_steps.io.source import open_source

log = logging.getLogger("special")

BLOCK = 400 << 20  # bytes of a scene that are read at once
WRITERS = 2  # tiles that are compressed and written while the next one is computed
NEVER = np.iinfo(np.int64).max
MANY = 0.1  # of the pixels: what bands with gaps may mask before it is told
MOST = 0.9  # of the pixels: what may be masked before it is told
BANDS_BY = ("wavelengths", "scale", "bad_ranges", "drop_bands")  # settings that choose_bands takes


def calibrate(
    block: np.ndarray, missing: np.ndarray, scale: np.ndarray, offset: np.ndarray
) -> np.ndarray:
    """Stored values (band, y, x) to float32 `value / scale + offset`; 0 where `missing`.

    What float32 cannot hold becomes infinite, without a warning.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        values = block.astype(np.float32)
        values /= scale.astype(np.float32)[:, None, None]
        if offset.any():
            values += offset.astype(np.float32)[:, None, None]
    values[missing] = 0
    return values


class Found:
    """What is known of a scene's bands and pixels after some tiles of it."""

    def __init__(self, bands: int, height: int, width: int) -> None:
        """Begin, before the first tile."""
        self.mask = np.zeros((height, width), bool)
        self.partly = np.zeros((height, width), bool)  # masked, though some good band has a value
        self.flat = np.full(
            (height, width), np.nan
        )  # the value that all bands have, see flat_values
        self.gaps = np.zeros(bands, np.int64)  # pixels masked in part that lack the band
        self.first_tile = np.full(bands, NEVER)  # tile where the first value lies
        self.not_zero = np.zeros(bands, bool)
        self.infinite = 0  # pixels
        self.left_out = 0  # pixels
        self.stated = False  # whether a no-data value of file or config occurs
        self.tiles: list[tuple[slice, slice]] = []


def ingest_tile(
    found: Found,
    tile: tuple[slice, slice],
    block: np.ndarray,
    left_out: np.ndarray,
    bands: Bands,
    nodata: Sequence[float],
) -> np.ndarray:
    """Reflectances (band, y, x) float32 of a tile, 0 where masked; `found` learns what the tile shows.

    A band without any value so far does not mask: whether it is empty is known at the end only.

    Args:
        found: of the tiles before; changed.
        tile: rows and columns.
        block: (band, y, x) stored values.
        left_out: (y, x) bool, masked for other reasons.
        bands: of the scene.
        nodata: stored values that mean no data.
    """
    others, zero_is_nodata = [value for value in nodata if value != 0], 0 in nodata
    now, size = len(found.tiles), block.shape[1:]
    values = np.empty(block.shape, np.float32)
    # of the bands that count: missing in some, without a value in all, 0 in all
    some, every, zero = np.zeros(size, bool), np.ones(size, bool), np.ones(size, bool)
    counts, infinite = False, np.zeros(size, bool)
    gaps: dict[int, np.ndarray] = {}
    for band in range(len(block)):  # one at a time stays in the processor's cache
        stored, one = block[band], slice(band, band + 1)
        missing = missing_values(stored, others)
        if not found.stated:
            found.stated = bool((missing & np.isfinite(stored)).any())
        values[one] = calibrate(block[one], missing[None], bands.scale[one], bands.offset[one])
        beyond = ~np.isfinite(values[band])
        if beyond.any():
            missing |= beyond
            values[band][beyond] = 0
        if missing.any():
            gaps[band] = missing
            if bands.good[band]:
                infinite |= beyond | np.isinf(stored)
        if found.first_tile[band] == NEVER and not missing.all():
            found.first_tile[band] = now
        if not found.not_zero[band]:
            found.not_zero[band] = ((stored != 0) & ~missing).any()
        without = missing
        if zero_is_nodata:
            is_zero = stored == 0
            found.stated |= bool(is_zero.any())
            without = missing | is_zero
        if bands.good[band] and found.first_tile[band] <= now:
            counts = True
            some |= missing
            every &= without
            if zero_is_nodata:
                zero &= is_zero
    # 0 is also a measurement (dark water): where it means no data, a pixel must be 0 in all bands that count
    mask = some | zero if zero_is_nodata and counts else some
    partly = mask & ~every & ~left_out
    if partly.any():
        for band, missing in gaps.items():
            found.gaps[band] += np.count_nonzero(missing & partly)
    found.partly[tile] = partly
    found.infinite += int(np.count_nonzero(infinite))
    found.left_out += int(np.count_nonzero(left_out))
    mask = mask | left_out
    known = bands.good & (found.first_tile <= now)
    flat_in = known & found.not_zero if (known & found.not_zero).any() else known
    found.flat[tile] = flat_values(block, flat_in, ~mask)
    found.mask[tile] = mask
    found.tiles.append(tile)
    np.copyto(values, 0, where=mask)
    return values


def settle(found: Found, bands: Bands, array: zarr.Array) -> np.ndarray:
    """Which bands are good, (band,) bool; pixels before a good band's first value become masked after all."""
    good = bands.good & (found.first_tile < NEVER)
    if found.not_zero.any():
        good &= found.not_zero
    late = int(found.first_tile[good].max()) if good.any() else 0
    for number, tile in enumerate(found.tiles[:late]):
        new = ~found.mask[tile]
        if not new.any():
            continue
        if (found.first_tile[good] <= number).any():  # else no band has a value there
            found.partly[tile] |= new
            found.gaps[good & (found.first_tile > number)] += new.sum()
        found.mask[tile] = True
        array[(slice(None), *tile)] = 0
    found.flat[found.mask] = np.nan
    return good


def mask_fill(found: Found, bands: Bands, array: zarr.Array, dtype: np.dtype, where: str) -> None:
    """Mask what fills pixels in all bands and cannot be a measurement, though nothing says so; and tell it.

    0 may be one, of dark water: it counts only around the scene, where it reaches in from the border.
    """
    for value, share in unstated_fill(found.flat).items():
        new = found.flat == value
        if not is_no_measurement(value, value / bands.scale + bands.offset, dtype):
            new = at_border(new) if value == 0 and share >= SHARE else np.zeros_like(new)
        if not new.any() or (new | found.mask).all():
            continue
        found.mask |= new
        found.flat[new] = np.nan
        for tile in found.tiles if value or bands.offset.any() else ():
            if new[tile].any():
                values = np.asarray(array[(slice(None), *tile)])
                values[:, new[tile]] = 0
                array[(slice(None), *tile)] = values
        log.warning(
            "%s: %s fills %.1f %% of the pixels in all bands, and is taken for no data; to keep them, set"
            " scenes.<name>.cube.nodata: []",
            where, as_yaml(value, dtype), 100 * new.mean(),
        )  # fmt: skip


def ingest(
    *,
    cube: list[Path] | Path,
    out: Path,
    variable: str | None,
    axes: str | None,
    shape: dict[str, int] | None,
    wavelengths: Wavelengths,
    scale: float | None,
    nodata: float | list[float] | None,
    bad_ranges: list[list[float]],
    drop_bands: DropBands,
    mask: dict[str, Any] | None,
    mask_quality: list[str] | None,
    area: Path | None,
) -> None:
    """Read a hyperspectral scene and write it as cube.zarr.

    A band is good unless the file's bad-band list or `bad_ranges` names it, or it has no value but 0 anywhere. A pixel
    is masked when a good band has no value there (NaN, infinite, no-data value, or outside all tiles), when a value
    that cannot be measured fills all its bands, or when the file's own mask, `mask`, `mask_quality` or `area` leave it
    out; masked pixels are 0 in all bands. Bands are sorted by wavelength.

    Args:
        cube: scene file or folder of a product; or a list of GeoTIFFs, tiles of one grid or files of some bands each
        out: cube.zarr to write
        variable: name of the array in a .mat, .h5, .nc or .npz file (path inside the file for .h5); null when the file
            has one 3-D array only
        axes: what the array's axes are, such as "y x band" (also what null means), "band y x", or "band (x y)" for
            pixels in one axis, column after column
        shape: lengths of the axes that `axes` joins, such as {"x": 95, "y": 95}
        wavelengths: band centres: a list in nm, {"first": nm, "last": nm} when evenly spaced, {"variable": name} in the
            same file, or null for what the file states
        scale: stored values are divided by it; null for what the file states, else 1
        nodata: stored values that mean no data; null for what the file states
        bad_ranges: wavelength ranges [low, high] in nm whose bands are not good
        drop_bands: bands to leave out, by numbers from 1 in the file's order, or ranges such as "104-116"
        mask: a raster of what to leave out: {"path": file, "values": those that mean masked or null, "align": whether
            to warp it to the scene's grid}; null for none
        mask_quality: layers of the product's own quality files whose pixels are left out; null for clouds and their
            shadows where there are any
        area: polygons (GeoJSON or GeoPackage) outside of which all is left out; null for the whole scene
    """
    settings = {k: v for k, v in locals().items() if k not in ("cube", "out")}
    settings["area"] = None if area is None else str(area)
    with gathered() as told:
        source = open_source(cube, variable=variable, axes=axes, shape=shape)
        ingest_source(source, out=out, settings=settings, inputs=source.files, told=told)


def ingest_source(
    source: Source,
    *,
    out: Path,
    settings: Mapping[str, Any],
    inputs: Sequence[Path],
    told: list[str],
) -> None:
    """Write a scene that is opened, or in memory, as cube.zarr.

    Args:
        source: the scene.
        out: cube.zarr to write.
        settings: options of `ingest`, by name, besides the two paths.
        inputs: the scene's files; none of one in memory.
        told: what `gathered` gathers: kept with the store.

    Raises:
        UserError: for settings that do not fit the scene, and where no pixel is left.
    """
    where, nodata, area = str(source.files[0]), settings["nodata"], settings["area"]
    bands = choose_bands(source, **{key: settings[key] for key in BANDS_BY})
    for note in (*source.notes, *bands.notes):
        log.warning("%s", note)
    if (np.diff(bands.position) < 0).any():
        log.info("%s: bands sorted by wavelength; they were not in order", where)
    values = _nodata(nodata, source)
    left_out, used = scene_mask(
        source,
        mask=settings["mask"],
        mask_quality=settings["mask_quality"],
        area=area and Path(area),
    )
    with new_store(
        out,
        step="ingest",
        settings=dict(settings),
        inputs=[*inputs, *used],
        grid=Grid(source.crs, source.transform),
    ) as group:
        write_array(group, "band", bands.nm, ("band",))
        if bands.fwhm is not None:
            write_array(group, "fwhm", bands.fwhm, ("band",))
        size = (len(bands.nm), *source.shape[1:])
        array = create_array(group, "reflectance", size, ("band", "y", "x"))
        found = Found(*size)
        with writing(array) as write:
            for tile, block, outside in _tiles(source, bands.position):
                dtype, outside = block.dtype, outside | left_out[tile]
                write(tile, ingest_tile(found, tile, block, outside, bands, values))
                del block  # before the next one is read
        good = settle(found, bands, array)
        if nodata is None:
            mask_fill(found, bands, array, dtype, where)
        _refuse_without_data(found, bands, good, values, where)
        write_array(group, "good_band", good, ("band",))
        write_array(group, "nodata", found.mask, ("y", "x"))
        tell(found, bands, good, values, nodata is not None, dtype, where)
        group.attrs.update(  # for those who read the store without its arrays of coordinates
            wavelengths=bands.nm.tolist(),
            good_bands=good.tolist(),
            transform=source.transform,
            kind=source.kind,
            warnings=told,
        )
    log.info(
        "%s: %d x %d pixels, %d bands of which %d good, %.0f to %.0f nm, %.1f %% of the pixels masked",
        where, *found.mask.shape, len(good), good.sum(), bands.nm[0], bands.nm[-1],
        100 * found.mask.mean(),
    )  # fmt: skip


def _nodata(option: float | list[float] | None, source: Source) -> tuple[float, ...]:
    """Stored values that mean no data: the config's, else the file's."""
    if option is None:
        if "nodata" in source.doubts:
            raise UserError(source.doubts["nodata"])
        return source.nodata
    return tuple(option) if isinstance(option, list) else (option,)


@contextmanager
def writing(array: zarr.Array) -> Iterator[Callable[[tuple[slice, slice], np.ndarray], None]]:
    """Yield a function that writes a tile (band, y, x) in the background; all are written when the block ends well."""
    with ThreadPoolExecutor(WRITERS) as pool:
        pending: deque[Future[None]] = deque()

        def write(tile: tuple[slice, slice], values: np.ndarray) -> None:
            if len(pending) == WRITERS:  # each holds a tile in memory
                pending.popleft().result()
            pending.append(pool.submit(array.__setitem__, (slice(None), *tile), values))

        yield write
        for one in pending:
            one.result()


def _tiles(
    source: Source, index: np.ndarray
) -> Iterator[tuple[tuple[slice, slice], np.ndarray, np.ndarray]]:
    """The scene's tiles, their bands in order, and where the file says that no data are, (y, x) bool.

    Every window is read once: full rows where memory allows, since most files are stored by rows.
    """
    bands, height, width = source.shape
    in_order = bool((np.diff(index) == 1).all()) and len(index) == bands
    itemsize = 0  # bytes of a value, the largest met so far
    for rows in tqdm(tile_rows(height), desc="ingest", disable=None):
        x = 0
        while x < width:
            columns = max(BLOCK // (bands * TILE * (itemsize or 4)) // TILE, 1) * TILE
            stop = min(x + columns, width)
            block = source.read(rows, slice(x, stop))
            itemsize = max(itemsize, block.itemsize)
            outside = (
                source.masked(rows, slice(x, stop))
                if source.masked
                else np.zeros(block.shape[1:], bool)
            )
            for left in range(0, stop - x, TILE):
                right = min(left + TILE, stop - x)
                part = block[:, :, left:right]
                if not in_order:
                    part = part[index]
                if part.strides[2] != part.itemsize:  # bands are worked on one by one
                    part = np.ascontiguousarray(part)
                yield (rows, slice(x + left, x + right)), part, outside[:, left:right]
                del part
            del block  # before the next one is read
            x = stop


def _refuse_without_data(
    found: Found, bands: Bands, good: np.ndarray, nodata: Sequence[float], where: str
) -> None:
    """Raise UserError where no pixel is left, naming why."""
    if good.any() and not found.mask.all():
        return
    if found.left_out == found.mask.size:
        reason = (
            "the file's own mask, mask, mask_quality and area leave out every pixel; check them"
        )
    elif good.any() and found.partly.any():
        ranges = _ranges(found, bands, good) or "those"
        reason = (
            f"every pixel lacks some good band, most often {bands.nm[np.argmax(found.gaps * good)]:.0f} nm;"
            f" name such bands in scenes.<name>.cube.bad_ranges: {ranges}"
        )
    else:
        shown = ", ".join(f"{value:g}" for value in nodata) or "none stated"
        reason = (
            f"no pixel has data in a good band, all values are NaN or no-data ({shown}); check"
            " cube.nodata, cube.bad_ranges and the masks"
        )
    raise UserError(f"{where}: {reason}")


def tell(
    found: Found,
    bands: Bands,
    good: np.ndarray,
    nodata: Sequence[float],
    asked: bool,
    dtype: np.dtype,
    where: str,
) -> None:
    """Warn of what a user must know: fill that nothing states, values that cannot be, bands that mask much.

    Args:
        found: of all tiles.
        bands: of the scene.
        good: (band,) bool, as they turned out.
        nodata: stored values that mean no data.
        asked: whether they are the config's, not the file's.
        dtype: of the stored values.
        where: the file.
    """
    pixels = found.mask.size
    unfit = [value for value in nodata if np.isfinite(value) and not fits(value, dtype)]
    for value in unfit:
        log.warning(
            "%s: no %s value can be %g, the stated no-data value: it masks nothing; if another value"
            " means no data, set scenes.<name>.cube.nodata",
            where, dtype.name, value,
        )  # fmt: skip
    if asked and nodata and not found.stated and not unfit:
        shown = ", ".join(f"{value:g}" for value in nodata)
        log.warning("%s: no value is %s, as cube.nodata says: it masks nothing", where, shown)
    fills = unstated_fill(found.flat)
    if fills:
        shown = ", ".join(f"{as_yaml(v, dtype)} ({100 * part:.1f} %)" for v, part in fills.items())
        values = [as_yaml(v, dtype) for v in (*nodata, *fills)]
        log.warning(
            "%s: pixels that hold one and the same value in all bands: %s; if it means no data, set"
            " scenes.<name>.cube.nodata: %s",
            where, shown, values[0] if len(values) == 1 else f"[{', '.join(values)}]",
        )  # fmt: skip
    if found.infinite:
        log.warning(
            "%s: %.1f %% of the pixels hold infinity, or numbers too large for float32; they are masked",
            where, 100 * found.infinite / pixels,
        )  # fmt: skip
    zero = bands.good & ~good & (found.first_tile < NEVER)
    if zero.any():
        shown = ", ".join(f"{nm:.0f}" for nm in bands.nm[zero][:10]) + (
            ", ..." if zero.sum() > 10 else ""
        )
        log.warning("%s: bands that are 0 in all pixels are not good: %s nm", where, shown)
    ranges = _ranges(found, bands, good)
    if found.partly.mean() > MANY and ranges:
        log.warning(
            "%s: %.0f %% of the pixels are masked because single bands have no value there, most often"
            " %.0f nm; to keep the pixels without these bands, set scenes.<name>.cube.bad_ranges: %s",
            where, 100 * found.partly.mean(), bands.nm[np.argmax(found.gaps * good)], ranges,
        )  # fmt: skip
    elif found.mask.sum() - found.left_out > MOST * pixels:
        log.warning("%s: %.0f %% of the pixels are masked", where, 100 * found.mask.mean())


def _ranges(found: Found, bands: Bands, good: np.ndarray) -> str:
    """A list for `bad_ranges` of the bands that mask the most; nothing where that would be most bands."""
    worst = good & (found.gaps > MANY * found.partly.sum())
    if not 0 < worst.sum() <= good.sum() / 2:
        return ""
    runs = np.split(np.arange(len(worst)), np.flatnonzero(np.diff(worst)) + 1)
    ends = [  # rounded outward: they count
        (np.floor(100 * bands.nm[run[0]]) / 100, np.ceil(100 * bands.nm[run[-1]]) / 100)
        for run in runs
        if worst[run[0]]
    ]
    return "[" + ", ".join(f"[{low:.8g}, {high:.8g}]" for low, high in ends) + "]"


if __name__ == "__main__":
    run(ingest)
