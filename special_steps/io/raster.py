"""GeoTIFF and PNG, and several of them as one raster: tiles of one grid side by side, or a file for each band."""

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from special_steps.core.errors import UserError
from special_steps.io.envi import find_pair, stated_by
from special_steps.io.envi_header import DATA_TYPES, is_number, read_envi_header
from special_steps.io.fill import missing_values
from special_steps.io.record import Source, reading
from special_steps.io.wavelengths import is_unit, merged, stated_bands, wavelengths_in_names

if TYPE_CHECKING:
    from affine import Affine

log = logging.getLogger("special")

RASTER = (".tif", ".tiff", ".gtif", ".png")
MOST_BANDS = 10_000
PNG = b"\x89PNG\r\n\x1a\n"  # how its files begin
CACHE = 64 << 20  # bytes of a file that GDAL keeps; without, a twentieth of the machine's memory
SIDECARS = (".aux.xml", ".msk")  # after the whole name
MOST_GAP = 1000  # times the pixels of tiles that their common rectangle may have
WORLD_FILES = (".tfw", ".tifw", ".wld", ".pgw", ".pngw", ".prj")  # in place of the suffix


def open_rasters(paths: Sequence[Path]) -> Source:
    """Read the tags of a raster, of tiles of one grid, or of files that each hold bands of the same pixels.

    Raises:
        UserError: for a damaged file, and for files that do not fit each other.
    """
    sources = [open_raster(path) for path in paths]
    if len(sources) == 1:
        return sources[0]
    first = sources[0]
    same = all(s.shape[1:] == first.shape[1:] and _same_place(s, first) for s in sources)
    if same:
        _refuse_twins(sources)
    return stack(sources) if same else _mosaic(sources)


def _refuse_twins(sources: Sequence[Source]) -> None:
    """Files of the same pixels are to hold other bands each: dates, or a file given twice, would be doubled bands."""
    for i, source in enumerate(sources):
        for other in sources[:i]:
            mine, theirs = source.wavelengths, other.wavelengths
            stated = mine is not None and theirs is not None
            twins = stated and np.array_equal(mine, theirs, equal_nan=True)  # type: ignore[arg-type]
            if twins or source.files[0] == other.files[0]:
                raise UserError(
                    f"{source.files[0]}: the same bands and place as {other.files[0]}; give one of them, and"
                    " of tiles only those whose georeferences differ"
                )


def sidecars(path: Path) -> list[Path]:
    """Files beside a raster that GDAL, or we, read with it."""
    header, _ = find_pair(path)
    return [file for file in _beside(path) if file.is_file()] + ([header] if header else [])


def _beside(path: Path) -> list[Path]:
    """Names of what GDAL reads with a raster where it is there."""
    names = [path.with_name(path.name + suffix) for suffix in SIDECARS]
    return names + [path.with_suffix(s) for suffix in WORLD_FILES for s in (suffix, suffix.upper())]


def place_of(raster: Any) -> tuple[str | None, tuple[float, ...] | None]:
    """CRS (WKT2) and transform of an open raster, None where it has none."""
    crs = raster.crs.to_wkt(version="WKT2_2019") if raster.crs else None
    return crs, None if raster.transform.is_identity else tuple(raster.transform)[:6]


@contextmanager
def opened(path: Path, name: str | None = None) -> Iterator[Any]:
    """An open GeoTIFF or PNG, nothing else that GDAL knows; `name` is GDAL's, of a page of the file."""
    import rasterio
    import rasterio.errors

    with reading(path), warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        pipes = [file for file in (path, *_beside(path)) if file.exists() and not file.is_file()]
        if pipes:  # GDAL would wait for one
            raise UserError(f"{pipes[0]}: no file (a folder, device or pipe); take it away")
        with path.open("rb") as file:
            driver = "PNG" if file.read(len(PNG)) == PNG else "GTiff"
        with (
            rasterio.Env(GDAL_CACHEMAX=CACHE),
            rasterio.open(name or path, driver=driver) as raster,
        ):
            yield raster


def open_raster(path: Path) -> Source:
    """Read the tags of a GeoTIFF or PNG; pages of one size are bands, an alpha band and a mask are `masked`.

    Raises:
        UserError: for a damaged file, and complex values.
    """
    with opened(path) as raster:
        pages = list(raster.subdatasets)
    if len(pages) > 1:
        return _pages(path, pages)
    return _open_page(path, pages[0] if pages else None)


def _pages(path: Path, names: list[str]) -> Source:
    """A file of several images: one scene when all have one size."""
    pages = [_open_page(path, name) for name in names]
    sizes = sorted({page.shape[1:] for page in pages})
    if len(sizes) > 1:
        shown = ", ".join(f"{h} x {w}" for h, w in sizes[:4])
        raise UserError(
            f"{path}: {len(pages)} pages of different sizes ({shown}); write one file of them, such as"
            " with gdal_translate GTIFF_DIR:1:... one.tif"
        )
    source = stack(pages)
    beside = _sidecar(path, source.shape, None)
    stated = {
        k: v for k, v in beside.items() if v is not None and k not in ("scale", "offset", "nodata")
    }
    doubts = {**source.doubts, **stated.pop("doubts", {})}
    stated |= {
        k: v for k in ("wavelengths", "fwhm", "good_bands") if (v := getattr(source, k)) is not None
    }
    stated["notes"] = tuple(dict.fromkeys((*source.notes, *stated.get("notes", ()))))
    stated["doubts"] = {k: why for k, why in doubts.items() if stated.get(k) is None}
    return replace(source, files=pages[0].files, **stated)


def _open_page(path: Path, name: str | None) -> Source:
    from rasterio.enums import ColorInterp, MaskFlags
    from rasterio.windows import Window

    with opened(path, name) as raster:
        kinds = list(raster.colorinterp)
        alpha = [
            i for i, kind in zip(raster.indexes, kinds, strict=True) if kind == ColorInterp.alpha
        ]
        bands = [i for i in raster.indexes if i not in alpha]
        if raster.count > MOST_BANDS:
            raise UserError(
                f"{path}: has {raster.count} bands, which no sensor has; get the file again"
            )
        if not bands:
            raise UserError(f"{path}: has an alpha band only; give a file with values")
        height, width, dtype = raster.height, raster.width, np.dtype(raster.dtypes[bands[0] - 1])
        flags = raster.mask_flag_enums[bands[0] - 1]
        # no flag at all: a mask for each band, in a file beside it
        has_mask = not flags or (MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags)
        own = [raster.nodatavals[b - 1] for b in bands]
        differ = (
            len({str(v) for v in own}) > 1
        )  # as a file beside it may state: then the bands' masks tell
        has_mask |= differ
        of_bands = bands if differ or not flags else bands[:1]
        stated = _stated(raster, bands, path)
        crs, transform = place_of(raster)
        unused = "" if transform or not raster.gcps[0] else "ground control points"
        unused = unused or ("" if transform or raster.rpcs is None else "RPCs")
        scales, offsets = (
            np.array(v)[[b - 1 for b in bands]] for v in (raster.scales, raster.offsets)
        )
        nodata = () if differ or own[0] is None else (own[0],)
        first = [kinds[b - 1] for b in bands[:3]]
        palette = raster.colormap(1) if first[0] == ColorInterp.palette else None
        files = [Path(f) for f in raster.files if not f.startswith("GTIFF_DIR")]
    if dtype.kind == "c":
        raise UserError(f"{path}: values are complex ({dtype}); give real reflectances")
    if crs is None and transform is None and unused:
        stated["notes"] = (*stated["notes"], f"{path}: no georeference: its {unused} are not used")
    if (scales == 0).any() or not np.isfinite([scales, offsets]).all():
        stated["doubts"]["scale"] = (
            f"{path}: a band's scale is 0, or its scale or offset no number; say in scenes.<name>.cube.scale"
            " what values are divided by (1: nothing)"
        )
    elif not (np.all(scales == 1) and np.all(offsets == 0)):
        stated |= {"scale": 1 / scales, "offset": offsets}
        stated["doubts"].pop("scale", None)

    def window(rows: slice, columns: slice) -> Window:
        return Window.from_slices(rows, columns)

    def read(rows: slice, columns: slice) -> np.ndarray:
        with opened(path, name) as raster:
            return np.asarray(raster.read(bands, window=window(rows, columns)))

    def masked(rows: slice, columns: slice) -> np.ndarray:
        with opened(path, name) as raster:
            place = window(rows, columns)
            parts = [raster.read(alpha, window=place)] if alpha else []
            parts += [raster.read_masks(of_bands, window=place)] if has_mask else []
            return np.any([(part == 0).any(0) for part in parts], axis=0)

    rgb = [ColorInterp.red, ColorInterp.green, ColorInterp.blue]
    photometric = (
        "palette" if palette else "rgb" if first == rgb else "grey" if len(bands) == 1 else ""
    )
    if nodata:  # the raster's own, and what the scene had before it became this raster
        stated["nodata"] = tuple(dict.fromkeys((*nodata, *stated.get("nodata", ()))))
        stated["doubts"].pop("nodata", None)
    return Source(
        list(dict.fromkeys([path, *files, *sidecars(path)])),
        (len(bands), height, width),
        read,
        masked=masked if alpha or has_mask else None,
        crs=crs,
        transform=transform,
        photometric=photometric,
        colours=palette,
        kind="PNG" if path.suffix.lower() == ".png" else "GeoTIFF",
        **stated,
    )


def _stated(raster: Any, bands: list[int], path: Path) -> dict[str, Any]:
    """What the file says of its bands: in bands' tags, GDAL's ENVI domain, band names, or an ENVI header beside it.

    A band's own tags are exact. GDAL's IMAGERY tags are micrometres rounded to three decimals, so they only serve where
    the own ones are missing: GDAL's copy of an ENVI scene has no other width.
    """
    count, where = len(bands), str(path)
    tags = [_lower(raster.tags(i)) for i in bands]
    imagery = [_lower(raster.tags(i, ns="IMAGERY")) for i in bands]
    domain = {k.replace("_", " "): v for k, v in _lower(raster.tags(ns="ENVI")).items()}
    dataset = {k.replace("_", " "): v for k, v in _lower(raster.tags()).items()}
    unit = domain.get("wavelength units") or dataset.get("wavelength units")
    dtype = np.dtype(raster.dtypes[bands[0] - 1])
    places: list[Mapping[str, Any]] = [
        _tagged(tags, ("wavelength", "fwhm"), unit, where),
        stated_by(domain, path, count) if domain else {},
        stated_by({k: dataset[k] for k in ENVI_NAMES if k in dataset}, path, count),
        {"wavelengths": wavelengths_in_names([raster.descriptions[i - 1] for i in bands], where)},
        _sidecar(path, (count, raster.height, raster.width), dtype),
        _tagged(imagery, ("central_wavelength_um", "fwhm_um"), "um", where),
    ]
    return {k: v for k, v in merged(*places).items() if v is not None}


ENVI_NAMES = (
    "wavelength",
    "wavelength units",
    "fwhm",
    "bbl",
    "reflectance scale factor",
    "data ignore value",
)


def _sidecar(path: Path, shape: tuple[int, int, int], dtype: np.dtype | None) -> dict[str, Any]:
    """What an ENVI header beside the raster says of it, when it is of a raster of this size.

    Of values (scale, no data) it speaks only when it is the raster's: of the same type, and no ENVI file's beside it.
    """
    header, _ = find_pair(path)
    if header is None:
        return {}
    try:
        fields = read_envi_header(header)
        sizes = tuple(int(fields.get(name, 0)) for name in ("bands", "lines", "samples"))
        others = _is_of_another(header)
        same_type = (
            dtype is not None and DATA_TYPES.get(int(fields.get("data type", 0))) == dtype.str[1:]
        )
    except (UserError, ValueError):  # of another format or scene
        return {}
    if sizes != shape:
        return {}
    stated = stated_by(fields, header, shape[0])
    if others or not same_type:
        stated = {k: v for k, v in stated.items() if k not in OF_VALUES}
        stated["doubts"] = {k: v for k, v in stated["doubts"].items() if k not in OF_VALUES}
    return stated


OF_VALUES = ("scale", "offset", "nodata")


def _is_of_another(header: Path) -> bool:
    """Whether a header has an ENVI data file of its own."""
    try:
        return find_pair(header)[1] is not None
    except UserError:  # several
        return True


def _tagged(
    tags: list[dict[str, str]], names: tuple[str, str], unit: str | None, where: str
) -> dict[str, Any]:
    """What every band has a tag for: centres, widths, bad bands."""
    doubts, notes = {}, []
    found: dict[str, np.ndarray | None] = {}
    for name in (*names, "bbl"):
        try:
            found[name] = _numbers(tags, name)
        except ValueError:
            shown = next(t[name] for t in tags if not is_number(t[name]))  # there is one
            found[name] = None
            if name == names[0]:
                doubts["wavelengths"] = (
                    f"{where}: band tag '{name}' is no number ({shown[:40]}); give wavelengths in nm in"
                    " scenes.<name>.cube.wavelengths"
                )
            else:
                notes.append(
                    f"{where}: band tag '{name}' is no number ({shown[:40]}); it is left out"
                )
    own = {t[k] for t in tags for k in UNIT_TAGS if t.get(k) and (k != "units" or is_unit(t[k]))}
    if len({u.lower() for u in own}) > 1 and found[names[0]] is not None:
        doubts["wavelengths"] = (
            f"{where}: bands' wavelengths in different units ({', '.join(u[:20] for u in sorted(own)[:3])});"
            " give them in nm in scenes.<name>.cube.wavelengths"
        )
        found[names[0]] = None
    units = next(iter(own), unit)
    stated = stated_bands(found[names[0]], found[names[1]], units, len(tags), where)
    bbl = found["bbl"]
    good = None if bbl is None else bbl > 0
    doubts.update(dict(stated["doubts"]))  # type: ignore[call-overload]
    return stated | {"good_bands": good, "doubts": doubts, "notes": (*notes, *stated["notes"])}  # type: ignore[misc]


# "units" may also be those of the values
UNIT_TAGS = (
    "wavelength_units",
    "wavelength_unit",
    "wavelengths_units",
    "wavelength units",
    "units",
)


def _lower(tags: dict[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in tags.items()}


def _numbers(tags: Sequence[dict[str, str]], name: str) -> np.ndarray | None:
    """One number a band from its tag, None when not every band has the tag."""
    if not all(t.get(name) for t in tags):
        return None
    return np.array([float(t[name]) for t in tags])


def _same_place(tile: Source, first: Source) -> bool:
    if (tile.transform is None) != (first.transform is None) or tile.crs != first.crs:
        return False
    return tile.transform is None or np.allclose(tile.transform, first.transform or 0, rtol=1e-12)


def stack(sources: Sequence[Source]) -> Source:
    """Rasters of the same pixels as one, their bands one after the other."""
    first = sources[0]
    own_nodata = len({source.nodata for source in sources}) > 1

    def read(rows: slice, columns: slice) -> np.ndarray:
        parts = [source.read(rows, columns) for source in sources]
        if own_nodata:
            parts = [_with_nan(p, s.nodata) for p, s in zip(parts, sources, strict=True)]
        return np.concatenate(parts)

    def masked(rows: slice, columns: slice) -> np.ndarray:
        return np.any([s.masked(rows, columns) for s in sources if s.masked], axis=0)

    def joined(name: str) -> np.ndarray | None:
        """A field by band, where all files state it; bands are good where a file says nothing of them."""
        parts = [getattr(source, name) for source in sources]
        if name == "good_bands" and any(part is not None for part in parts):
            parts = [True if part is None else part for part in parts]
        if any(part is None for part in parts):
            return None
        return np.concatenate(
            [np.broadcast_to(p, s.shape[0]) for p, s in zip(parts, sources, strict=True)]
        )

    scale, offset = joined("scale"), joined("offset")
    has_masks = any(source.masked for source in sources)
    doubts = {name: why for source in reversed(sources) for name, why in source.doubts.items()}
    without = [source.files[0] for source in sources if source.wavelengths is None]
    if len(without) < len(sources) and without and "wavelengths" not in doubts:
        doubts["wavelengths"] = (
            f"{without[0]}: states no wavelengths, though others of the files do; give all in"
            " scenes.<name>.cube.wavelengths, in the order of the files"
        )
    return replace(
        first,
        files=list(dict.fromkeys(file for source in sources for file in source.files)),
        shape=(sum(source.shape[0] for source in sources), *first.shape[1:]),
        read=read,
        wavelengths=joined("wavelengths"),
        fwhm=joined("fwhm"),
        good_bands=joined("good_bands"),
        scale=1.0 if scale is None else scale,
        offset=0.0 if offset is None else offset,
        nodata=() if own_nodata else first.nodata,
        masked=masked if has_masks else None,
        doubts=doubts,
        notes=tuple(dict.fromkeys(note for source in sources for note in source.notes)),
        photometric="",
        colours=None,
    )


def _differences(tiles: Sequence[Source]) -> dict[str, str]:
    """What tiles state differently, as doubts: the config may say what is right for all.

    Raises:
        UserError: when they have different wavelengths.
    """
    first, doubts = tiles[0], {}
    for tile in tiles[1:]:
        path, first_path = tile.files[0], first.files[0]
        for name in ("wavelengths", "scale", "offset"):
            mine, other = getattr(tile, name), getattr(first, name)
            if mine is not None and other is not None:
                if np.allclose(mine, other, atol=1e-12, equal_nan=True):
                    continue
                if name == "wavelengths":
                    raise UserError(
                        f"{path}: other wavelengths than {first_path}; give files of one scene only"
                    )
            if mine is not None or other is not None:
                doubts[name] = (
                    f"{path}: states another {name} than {first_path}, or only one of them does; say what is"
                    f" right in scenes.<name>.cube.{name.replace('offset', 'scale')}, or give one of them"
                )
    return doubts


def _with_nan(values: np.ndarray, nodata: Sequence[float]) -> np.ndarray:
    """Values (band, y, x) of one file as floats, NaN where they mean no data in this file; see `_empty` for 0."""
    others = [value for value in nodata if value != 0]
    missing = missing_values(values, others)
    if 0 in nodata:
        missing |= (values == 0).all(0)
    floats = values.astype(np.result_type(values.dtype, np.float32))
    floats[missing] = np.nan
    return floats


def _empty(values: np.ndarray, nodata: Sequence[float]) -> np.ndarray:
    """Where no band has a value, (y, x) bool. 0 is also a measurement, so one band of 0 says nothing."""
    return np.asarray(missing_values(values, nodata).all(0))


def _mosaic(tiles: list[Source]) -> Source:
    """Join tiles of one grid; `masked` where none lies. Where tiles overlap, the first with a value counts."""
    from affine import Affine

    first = tiles[0]
    if first.transform is None:
        raise UserError(
            f"{first.files[0]}: has no georeference, so the tiles cannot be joined; give one file, or"
            " files of one size with a band each"
        )
    grid = Affine(*first.transform)
    corners = [_corner(tile, first, grid) for tile in tiles]
    left, top = min(x for x, _ in corners), min(y for _, y in corners)
    places = [(x - left, y - top) for x, y in corners]
    height = max(y + t.shape[1] for (_, y), t in zip(places, tiles, strict=True))
    width = max(x + t.shape[2] for (x, _), t in zip(places, tiles, strict=True))
    if height * width > MOST_GAP * sum(tile.shape[1] * tile.shape[2] for tile in tiles):
        far = tiles[
            int(np.argmax([abs(x - places[0][0]) + abs(y - places[0][1]) for x, y in places]))
        ]
        raise UserError(
            f"{far.files[0]}: lies so far from {first.files[0]} that nearly all between is empty ({width} x"
            f" {height} pixels); check its georeference, or make it a scene of its own"
        )
    own_nodata = len({tile.nodata for tile in tiles}) > 1  # then they become NaN

    def here(rows: slice, columns: slice) -> Iterator[tuple[Source, slice, slice, slice, slice]]:
        """Tiles in a window: rows and columns of each tile, and of the window."""
        for (x, y), tile in zip(places, tiles, strict=True):
            a, b = max(rows.start, y), min(rows.stop, y + tile.shape[1])
            c, d = max(columns.start, x), min(columns.stop, x + tile.shape[2])
            if a < b and c < d:
                yield (
                    tile,
                    slice(a - y, b - y),
                    slice(c - x, d - x),
                    slice(a - rows.start, b - rows.start),
                    slice(c - columns.start, d - columns.start),
                )

    def read(rows: slice, columns: slice) -> np.ndarray:
        size = (rows.stop - rows.start, columns.stop - columns.start)
        values, missing = None, np.ones(size, bool)
        nowhere = missing.copy()  # what a tile calls no data is stored there all the same
        for tile, tile_rows, tile_columns, ys, xs in here(rows, columns):
            part = tile.read(tile_rows, tile_columns)
            empty = _empty(part, tile.nodata)
            hidden = np.zeros(empty.shape, bool)
            if tile.masked:
                hidden |= tile.masked(tile_rows, tile_columns)
            if own_nodata:
                part = _with_nan(part, tile.nodata)
            if values is None:
                values = np.zeros((first.shape[0], *size), part.dtype)
            elif part.dtype != values.dtype:
                values = values.astype(np.result_type(values.dtype, part.dtype))
            better = missing[ys, xs] & ~hidden & (nowhere[ys, xs] | ~empty)
            np.copyto(values[:, ys, xs], part, where=better)
            missing[ys, xs] &= ~(better & ~empty)
            nowhere[ys, xs] &= hidden
        if values is None:
            one = first.read(slice(0, 1), slice(0, 1))
            dtype = (_with_nan(one, first.nodata) if own_nodata else one).dtype
            values = np.zeros((first.shape[0], *size), dtype)
        return values

    def masked(rows: slice, columns: slice) -> np.ndarray:
        nowhere = np.ones((rows.stop - rows.start, columns.stop - columns.start), bool)
        for tile, tile_rows, tile_columns, ys, xs in here(rows, columns):
            nowhere[ys, xs] &= tile.masked(tile_rows, tile_columns) if tile.masked else False
        return nowhere

    good = [tile.good_bands for tile in tiles if tile.good_bands is not None]
    stated = {name: why for tile in reversed(tiles) for name, why in tile.doubts.items()}
    doubts = _differences(tiles) | stated
    return replace(
        first,
        files=list(dict.fromkeys(file for tile in tiles for file in tile.files)),
        shape=(first.shape[0], height, width),
        good_bands=np.all(good, axis=0) if good else None,
        doubts=doubts,
        wavelengths=None if "wavelengths" in doubts else first.wavelengths,
        read=read,
        masked=masked,
        nodata=() if own_nodata else first.nodata,
        transform=tuple(grid @ Affine.translation(left, top))[:6],
        notes=tuple(dict.fromkeys(note for tile in tiles for note in tile.notes)),
    )


def _corner(tile: Source, first: Source, grid: "Affine") -> tuple[int, int]:
    """Column and row of a tile's first pixel on the grid of the first tile.

    Raises:
        UserError: for a tile on another grid, or whose bands or values are others.
    """
    from affine import Affine

    path, first_path = tile.files[0], first.files[0]
    refused = UserError(
        f"{path}: not on the grid of {first_path} (CRS, pixel size, bands); give one of them, or warp"
        " one to the other's grid, such as with gdalwarp"
    )
    if tile.transform is None or tile.crs != first.crs or tile.shape[0] != first.shape[0]:
        raise refused
    offset = ~grid @ Affine(*tile.transform)
    corner = np.array([offset.c, offset.f])
    same_pixels = np.allclose([offset.a, offset.b, offset.d, offset.e], [1, 0, 0, 1], atol=1e-6)
    if not same_pixels or not np.allclose(corner, np.round(corner), atol=0.01):
        raise refused
    if tile.colours != first.colours:
        raise UserError(f"{path}: its palette differs from that of {first_path}; give one of them")
    return round(offset.c), round(offset.f)
