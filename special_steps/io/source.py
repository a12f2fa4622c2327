"""File formats: what a raster file holds, as one `Source`, before any of its values is read.

ENVI (header and data file), MATLAB (v5 and v7.3), HDF5, NumPy (.npy, .npz), GeoTIFF and other
rasters that GDAL reads (.tif, .tiff, .png), and several GeoTIFF tiles of one grid. Reading is by
rows, so that a large scene never has to be in memory as a whole (except MATLAB v5 and .npz
variables, which their formats store as one block).
"""

import functools
import logging
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from special_steps.core.errors import UserError

log = logging.getLogger("special")

MATLAB = (".mat",)
HDF5 = (".h5", ".hdf5", ".he5")
NUMPY = (".npy", ".npz")
RASTER = (".tif", ".tiff", ".png")
ENVI_DATA = ("", ".img", ".dat", ".raw", ".bsq", ".bil", ".bip", ".bin", ".envi")
ENVI_TYPES = {1: "u1", 2: "i2", 3: "i4", 4: "f4", 5: "f8", 12: "u2", 13: "u4", 14: "i8", 15: "u8"}


@dataclass(frozen=True)
class Source:
    """A raster as its file states it; `read(start, stop)` gives the rows, (band, rows, x), as
    stored.

    A value in the file's units is `stored / scale + offset`. None stands for "the file does not
    say".
    """

    files: list[Path]
    shape: tuple[int, int, int]  # band, y, x
    read: Callable[[int, int], np.ndarray]
    wavelengths: np.ndarray | None = None  # (band,) nm
    fwhm: np.ndarray | None = None  # (band,) nm
    good_bands: np.ndarray | None = None  # (band,) bool
    scale: float | np.ndarray = 1.0  # (band,) or one number
    offset: float | np.ndarray = 0.0
    nodata: float | None = None  # a stored value
    crs: str | None = None  # WKT
    transform: tuple[float, ...] | None = (
        None  # 6 numbers of the affine map from (x, y) index to CRS
    )
    variables: dict[str, tuple[int, ...]] = field(default_factory=dict)  # all of the file: shapes


def open_source(
    path: str | Path | Sequence[str | Path],
    *,
    variable: str | None = None,
    axes: str | None = None,
    shape: Mapping[str, int] | None = None,
    labels: bool = False,
) -> Source:
    """Read what a file says about itself (header, tags, attributes), and how to read its values.

    `variable`, `axes` and `shape` are for .mat, .h5, .npy and .npz (see `plan_axes`). With `labels`,
    a 2-D array is a map of one layer; without, it is an error unless `axes` says what its axes are.
    Raises UserError for a file that is missing, of an unknown format, unreadable, truncated, or not
    what the options say.
    """
    paths = [Path(path)] if isinstance(path, str | Path) else [Path(p) for p in path]
    if not paths:
        raise UserError("no file given: the path is an empty list")
    for p in paths:
        if not p.is_file():
            raise UserError(f"{p}: no such file; check the path in the config")
    if len(paths) > 1:
        others = [p for p in paths if p.suffix.lower() not in RASTER]
        if others:
            raise UserError(f"{others[0]}: only GeoTIFF tiles can be joined; give one file")
    first, suffix = paths[0], paths[0].suffix.lower()
    if suffix in MATLAB + HDF5 + NUMPY:
        return _open_array(first, variable, axes, shape, labels)
    for name, value in (("variable", variable), ("axes", axes), ("shape", shape)):
        if value:
            raise UserError(
                f"{first}: '{name}' is for .mat, .h5, .npy and .npz files; this format states it "
                "by itself, "
                f"so leave '{name}' out"
            )
    if suffix in RASTER:
        return _open_rasters(paths)
    header, data = _envi_pair(first)
    if header is None:
        known = ", ".join((".hdr", *MATLAB, *HDF5, *NUMPY, *RASTER))
        raise UserError(
            f"{first}: unknown format '{suffix}' and no ENVI header (.hdr) beside it; known are "
            f"{known}"
        )
    return _open_envi(header, data)


def read_variable(path: Path, name: str) -> np.ndarray:
    """Read one whole variable of a .mat, .h5, .npy or .npz file, in the file's own axis order."""
    arrays = _arrays(path)
    if name not in arrays.shapes:
        raise UserError(f"{path}: no variable '{name}'; it has {_listing(arrays.shapes)}")
    with reading(path):
        return arrays.load(name)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn whatever a format's library raises about a damaged file into one UserError naming it."""
    try:
        yield
    except (UserError, MemoryError, KeyboardInterrupt):
        raise
    except Exception as error:  # SciPy, h5py, GDAL and zipfile each raise kinds of their own
        raise UserError(
            f"{path}: cannot be read, the file seems damaged or of another format "
            f"({type(error).__name__}: {' '.join(str(error).split())[:200]}); get it again"
        ) from error


# --- wavelengths ----------------------------------------------------------------------------------


def to_nm(values: np.ndarray, units: str | None, where: str) -> np.ndarray | None:
    """Convert wavelengths to nm; None when the numbers are said to be no wavelengths ("Index").

    Where no unit is stated, numbers that are all below 100 are micrometres (no imaging spectrometer
    measures at 100 nm, none at 100 micrometres): the only guess, and it is logged.
    """
    values = np.asarray(values, np.float64).ravel()
    unit = (units or "").strip().lower()
    if unit.startswith(("nano", "nm")):
        return values
    if unit.startswith(("micro", "um", "µm", "μm")):
        return values * 1000
    if unit.startswith("index"):
        return None
    if unit.startswith(("wavenumber", "ghz", "mhz", "angstrom", "milli", "cent", "meter")):
        raise UserError(f"{where}: wavelengths in '{units}'; give them in nm in the config")
    if values.size and np.nanmax(values) < 100:
        log.info("%s: no wavelength unit stated; numbers below 100, so taken as micrometres", where)
        return values * 1000
    log.info("%s: no wavelength unit stated; taken as nanometres", where)
    return values


def _in_nm(
    wavelengths: np.ndarray | None, fwhm: np.ndarray | None, units: str | None, where: str
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Wavelengths and band widths, stated in the same unit, in nm; widths only where there are
    wavelengths."""
    nm = None if wavelengths is None else to_nm(wavelengths, units, where)
    if nm is None or fwhm is None:
        return nm, None
    return nm, fwhm * (nm[0] / wavelengths[0])


def wavelengths_in_names(names: Sequence[str], where: str) -> np.ndarray | None:
    """Find wavelengths (nm) in band names that end like "(426.820007)" or "(418.24 Nanometers)"."""
    found = [re.search(r"\(([\d.]+)\s*([^\d\s()]*)\)\s*$", name or "") for name in names]
    if not found or not all(found):
        return None
    texts = [m.group(1) for m in found]
    unit = found[0].group(2)
    # a bare whole number in brackets is as likely a band's number
    if not unit and not all("." in t for t in texts):
        return None
    try:
        values = np.array([float(t) for t in texts])
    except ValueError:
        return None
    return to_nm(values, unit, where)


# --- ENVI -----------------------------------------------------------------------------------------


def _envi_pair(path: Path) -> tuple[Path | None, Path | None]:
    """Find (header, data file) from either of the two; None for what is not there."""
    if path.suffix.lower() == ".hdr":
        stem = path.with_suffix("")
        names = [stem.name + s for s in ENVI_DATA] + [stem.name + s.upper() for s in ENVI_DATA if s]
        data = next((d for n in names if (d := path.with_name(n)).is_file()), None)
        return path, data
    for header in (path.with_name(path.name + ".hdr"), path.with_suffix(".hdr")):
        if header.is_file():
            return header, path
    return None, path


def parse_envi_header(text: str, where: str = "header") -> dict[str, str]:
    """Split an ENVI header into its fields: lower-case names, values as text, braces taken off."""
    if not text.lstrip().upper().startswith("ENVI"):
        raise UserError(f"{where}: not an ENVI header (its first word is not ENVI)")
    fields = {}
    for match in re.finditer(
        r"^[ \t]*([^=\n{}]+?)[ \t]*=[ \t]*(\{[^}]*\}|[^\n]*)", text, re.MULTILINE
    ):
        name = " ".join(match.group(1).lower().split())
        fields[name] = match.group(2).strip().strip("{}").strip()
    return fields


def _numbers(fields: Mapping[str, str], name: str, where: object) -> np.ndarray | None:
    """A field's numbers, None when it is not there or empty."""
    if not fields.get(name):
        return None
    try:
        return np.array([float(v) for v in re.split(r"[,\s]+", fields[name].strip(", \n"))])
    except ValueError as error:
        raise UserError(f"{where}: field '{name}' is not a list of numbers; mend it") from error


def _envi_spectral(fields: Mapping[str, str], where: Path) -> dict[str, Any]:
    """What an ENVI header says of the bands and values, as fields of a Source."""
    wavelengths, fwhm = _in_nm(
        _numbers(fields, "wavelength", where),
        _numbers(fields, "fwhm", where),
        fields.get("wavelength units"),
        str(where),
    )
    if wavelengths is None and fields.get("band names"):
        wavelengths = wavelengths_in_names(fields["band names"].split(","), str(where))
    if fields.get("data gain values") or fields.get("data offset values"):
        log.warning("%s: 'data gain values' and 'data offset values' are not applied", where)
    bbl = _numbers(fields, "bbl", where)
    scale, nodata = (
        _numbers(fields, n, where) for n in ("reflectance scale factor", "data ignore value")
    )
    return {
        "wavelengths": wavelengths,
        "fwhm": fwhm,
        "good_bands": None if bbl is None else bbl > 0,
        "scale": 1.0 if scale is None else float(scale[0]),
        "nodata": None if nodata is None else float(nodata[0]),
    }


def _open_envi(header: Path, data: Path | None) -> Source:
    """Read an ENVI header; values come from a memory map of the data file."""
    fields = parse_envi_header(header.read_text(encoding="latin-1"), str(header))
    if data is None or not data.is_file():
        raise UserError(
            f"{header}: no data file beside this header (tried {', '.join(ENVI_DATA[1:])} and no "
            "suffix); "
            "give the data file as path"
        )
    try:
        samples, lines, bands, kind = (
            int(fields[n]) for n in ("samples", "lines", "bands", "data type")
        )
        start = int(fields.get("header offset", 0))
        interleave = fields.get("interleave", "bsq").lower()
        order = ">" if int(fields.get("byte order", 0)) else "<"
    except (KeyError, ValueError) as error:
        raise UserError(f"{header}: field missing or no whole number: {error}; mend it") from error
    if kind not in ENVI_TYPES:
        raise UserError(
            f"{header}: data type {kind} is not one of {sorted(ENVI_TYPES)}; convert it"
        )
    layouts = {  # stored shape and the way from it to (band, y, x)
        "bsq": ((bands, lines, samples), (0, 1, 2)),
        "bil": ((lines, bands, samples), (1, 0, 2)),
        "bip": ((lines, samples, bands), (2, 0, 1)),
    }
    if interleave not in layouts:
        raise UserError(f"{header}: interleave '{interleave}' is not one of bsq, bil, bip; mend it")
    if fields.get("file compression", "0") != "0":
        raise UserError(f"{data}: the data file is compressed; uncompress it")
    dtype = np.dtype(order + ENVI_TYPES[kind])
    size, needed = data.stat().st_size, start + samples * lines * bands * dtype.itemsize
    if size < needed:
        raise UserError(
            f"{data}: the file is truncated: {size} bytes, but {header.name} describes {needed}; "
            "get it again"
        )
    stored, way = layouts[interleave]

    def read(first: int, last: int) -> np.ndarray:
        with reading(data):
            whole = np.memmap(data, dtype, "r", offset=start, shape=stored).transpose(way)
            return np.array(whole[:, first:last], dtype.newbyteorder("="))

    crs, transform = _georeference(data)
    return Source(
        [data, header],
        (bands, lines, samples),
        read,
        crs=crs,
        transform=transform,
        **_envi_spectral(fields, header),
    )


def _georeference(path: Path) -> tuple[str | None, tuple[float, ...] | None]:
    """CRS (WKT) and transform as GDAL understands them; None, None where GDAL cannot."""
    import rasterio

    try:
        with _quiet(), rasterio.open(path) as raster:
            return _crs_and_transform(raster)
    except rasterio.errors.RasterioError as error:
        log.warning("%s: no georeference (%s)", path, error)
        return None, None


def _crs_and_transform(raster: Any) -> tuple[str | None, tuple[float, ...] | None]:
    crs = raster.crs.to_wkt() if raster.crs else None
    return crs, None if raster.transform.is_identity else tuple(raster.transform)[:6]


@contextmanager
def _quiet() -> Iterator[None]:
    """No warning about rasters without georeference: labels and crops often have none."""
    import rasterio.errors

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        yield


# --- GeoTIFF and tiles ----------------------------------------------------------------------------


def _open_rasters(paths: list[Path]) -> Source:
    first = _open_raster(paths[0])
    if len(paths) == 1:
        return first
    return _mosaic(paths, [first, *(_open_raster(p) for p in paths[1:])])


def _open_raster(path: Path) -> Source:
    """Read the tags of a raster that GDAL reads; wavelength, unit, fwhm and bbl come from band
    tags."""
    import rasterio
    from rasterio.windows import Window

    with reading(path), _quiet(), rasterio.open(path) as raster:
        size = (raster.count, raster.height, raster.width)
        tags = [_band_tags(raster, i) for i in raster.indexes]
        descriptions = list(raster.descriptions)
        scales, offsets = np.array(raster.scales), np.array(raster.offsets)
        nodata = raster.nodata
        crs, transform = _crs_and_transform(raster)
    wavelengths, fwhm, bbl = (_tag_numbers(tags, n, path) for n in ("wavelength", "fwhm", "bbl"))
    wavelengths, fwhm = _in_nm(wavelengths, fwhm, tags[0].get("wavelength_units"), str(path))
    if wavelengths is None:
        wavelengths = wavelengths_in_names(descriptions, str(path))

    def read(start: int, stop: int) -> np.ndarray:
        with reading(path), _quiet(), rasterio.open(path) as raster:
            return raster.read(window=Window(0, start, size[2], stop - start))

    plain = np.all(scales == 1) and np.all(offsets == 0)
    return Source(
        [path],
        size,
        read,
        wavelengths=wavelengths,
        fwhm=fwhm,
        good_bands=None if bbl is None else bbl > 0,
        scale=1.0 if plain else 1 / scales,
        offset=0.0 if plain else offsets,
        nodata=nodata,
        crs=crs,
        transform=transform,
    )


def _band_tags(raster: Any, band: int) -> dict[str, str]:
    """A band's tags with lower-case names; GDAL's own IMAGERY names (micrometres) come first."""
    tags = {k.lower(): v for k, v in raster.tags(band).items()}
    imagery = {k.lower(): v for k, v in raster.tags(band, ns="IMAGERY").items()}
    if "central_wavelength_um" in imagery:
        tags |= {"wavelength": imagery["central_wavelength_um"], "wavelength_units": "um"}
        tags |= {"fwhm": imagery["fwhm_um"]} if "fwhm_um" in imagery else {}
    return tags


def _tag_numbers(tags: Sequence[Mapping[str, str]], name: str, path: Path) -> np.ndarray | None:
    """One number a band from its tag, None when not every band has the tag."""
    if not all(t.get(name) for t in tags):
        return None
    try:
        return np.array([float(t[name]) for t in tags])
    except ValueError as error:
        raise UserError(f"{path}: band tag '{name}' is no number ({error}); mend it") from error


def _mosaic(paths: list[Path], tiles: list[Source]) -> Source:
    """Join tiles of one grid; where no tile lies, and where a tile has its no-data value, is
    NaN."""
    from affine import Affine
    from rasterio.merge import merge

    first = tiles[0]
    if first.transform is None:
        raise UserError(f"{paths[0]}: has no georeference, so the tiles cannot be joined")
    grid = Affine(*first.transform)
    if grid.b or grid.d or grid.a <= 0 or grid.e >= 0:
        raise UserError(f"{paths[0]}: tiles of a rotated or flipped grid cannot be joined")
    corners = []
    for path, tile in zip(paths, tiles, strict=True):
        where = ~grid @ Affine(*tile.transform) if tile.transform else None
        same = (
            where is not None
            and tile.crs == first.crs
            and tile.shape[0] == first.shape[0]
            and np.allclose([where.a, where.b, where.d, where.e], [1, 0, 0, 1], atol=1e-6)
            and np.allclose([where.c, where.f], np.round([where.c, where.f]), atol=0.01)
        )
        if not same:
            raise UserError(
                f"{path}: not on the grid of {paths[0]} (CRS, pixel size, bands); give one of them"
            )
        for name in ("wavelengths", "scale", "offset", "nodata"):
            mine, other = getattr(tile, name), getattr(first, name)
            if (mine is None) != (other is None) or (
                mine is not None and not np.allclose(mine, other)
            ):
                raise UserError(
                    f"{path}: its {name} differ from those of {paths[0]}; give one of them"
                )
        corners.append((round(where.c), round(where.f), *tile.shape[1:]))
    left, top = min(c[0] for c in corners), min(c[1] for c in corners)
    width = max(c[0] + c[3] for c in corners) - left
    height = max(c[1] + c[2] for c in corners) - top
    transform = grid @ Affine.translation(left, top)

    def read(start: int, stop: int) -> np.ndarray:
        west, north = transform @ (0, start)
        east, south = transform @ (width, stop)
        here = [
            p
            for p, c in zip(paths, corners, strict=True)
            if c[1] - top < stop and c[1] + c[2] - top > start
        ]
        if not here:
            return np.full((first.shape[0], stop - start, width), np.nan, np.float32)
        with reading(here[0]), _quiet():
            rows, _ = merge(here, bounds=(west, south, east, north), nodata=np.nan, dtype="float32")
        return rows

    return replace(
        first,
        files=paths,
        shape=(first.shape[0], height, width),
        read=read,
        transform=tuple(transform)[:6],
    )


# --- MATLAB, HDF5, NumPy --------------------------------------------------------------------------


@dataclass(frozen=True)
class _Arrays:
    """The numeric variables of a file: shapes in the user's axis order, and how to get at them."""

    shapes: dict[str, tuple[int, ...]]
    load: Callable[[str], np.ndarray]  # the whole variable
    part: Callable[[str, int, slice], np.ndarray] | None  # only a slice along one axis, where cheap
    attributes: Callable[[str, tuple[int, ...]], dict[str, Any]]  # fields of a Source


def _arrays(path: Path) -> _Arrays:
    """List the variables of a file without reading their values."""
    suffix = path.suffix.lower()
    with reading(path):
        if suffix in NUMPY:
            return _numpy_arrays(path)
        import h5py

        if h5py.is_hdf5(path):
            return _hdf5_arrays(path, reverse=suffix in MATLAB)
        if suffix in HDF5:
            raise UserError(
                f"{path}: not an HDF5 file (damaged, or of another format); get it again"
            )
        return _matlab_arrays(path)


def _numpy_arrays(path: Path) -> _Arrays:
    if path.suffix.lower() == ".npy":
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        return _Arrays(
            {"array": array.shape},
            lambda name: np.asarray(array),
            lambda name, axis, rows: np.array(array[(slice(None),) * axis + (rows,)]),
            lambda name, shape: {},
        )
    with np.load(path, allow_pickle=False) as stored:
        arrays = {k: v for k in stored.files if (v := stored[k]).dtype.kind in "biuf"}
    return _Arrays(
        {k: v.shape for k, v in arrays.items()}, arrays.__getitem__, None, lambda name, shape: {}
    )


def _matlab_arrays(path: Path) -> _Arrays:
    """MATLAB up to v7: SciPy lists names and shapes from the headers of the variables."""
    from scipy.io import loadmat, whosmat

    kinds = re.compile(r"double|single|u?int\d+|logical")
    listed = whosmat(str(path))

    def load(name: str) -> np.ndarray:
        return loadmat(str(path), variable_names=[name])[name]

    def attributes(name: str, shape: tuple[int, ...]) -> dict[str, Any]:
        """Some toolboxes keep the ENVI header beside the cube, as a struct with its field names."""
        for struct in (n for n, _, kind in listed if kind == "struct"):
            values = loadmat(str(path), variable_names=[struct], squeeze_me=True)[struct]
            names = values.dtype.names or ()
            if (
                values.ndim
                or np.size(values[()]["wavelength"] if "wavelength" in names else 0) not in shape
            ):
                continue
            fields = {n.replace("_", " "): values[()][n] for n in names}
            texts = {
                n: ", ".join(map(str, v)) if isinstance(v, np.ndarray) and v.ndim == 1 else str(v)
                for n, v in fields.items()
            }
            log.info("%s: wavelengths and bad bands from the ENVI header in '%s'", path, struct)
            return _envi_spectral({n: t.strip().strip("{}") for n, t in texts.items()}, path)
        return {}

    return _Arrays({n: s for n, s, k in listed if kinds.fullmatch(k)}, load, None, attributes)


def _hdf5_arrays(path: Path, reverse: bool) -> _Arrays:
    """HDF5, or MATLAB v7.3 (`reverse`), which is HDF5 with the axes in the opposite order."""
    import h5py

    shapes: dict[str, tuple[int, ...]] = {}

    def note(name: str, item: Any) -> None:
        if (
            isinstance(item, h5py.Dataset)
            and item.dtype.kind in "biuf"
            and not name.startswith("#")
        ):
            shapes[name] = item.shape[::-1] if reverse else item.shape

    with h5py.File(path) as file:
        file.visititems(note)

    def load(name: str) -> np.ndarray:
        with h5py.File(path) as file:
            return file[name][()].T if reverse else file[name][()]

    def part(name: str, axis: int, rows: slice) -> np.ndarray:
        with h5py.File(path) as file:
            item = file[name]
            where = (slice(None),) * (item.ndim - 1 - axis if reverse else axis) + (rows,)
            return item[where].T if reverse else item[where]

    def attributes(name: str, shape: tuple[int, ...]) -> dict[str, Any]:
        """NEON's names: Scale_Factor divides; Data_Ignore_Value or HDF5's own _FillValue is no
        data."""
        with h5py.File(path) as file:
            item = file[name]
            scale = item.attrs.get("Scale_Factor")
            nodata = item.attrs.get("Data_Ignore_Value", item.attrs.get("_FillValue"))
            found: dict[str, Any] = {}
            if scale is not None:
                found["scale"] = float(np.ravel(scale)[0])
            if nodata is not None:
                found["nodata"] = float(np.ravel(nodata)[0])
            return found | _neon_georeference(item)

    return _Arrays(shapes, load, part, attributes)


def _neon_georeference(item: Any) -> dict[str, Any]:
    """CRS and transform from NEON's Metadata/Coordinate_System beside the reflectance, if it is
    there."""
    from affine import Affine
    from rasterio.crs import CRS

    system = item.parent.get("Metadata/Coordinate_System")
    if system is None or "Map_Info" not in system or "EPSG Code" not in system:
        return {}
    texts = [np.ravel(system[n][()])[0] for n in ("Map_Info", "EPSG Code")]
    info, code = (t.decode() if isinstance(t, bytes) else str(t) for t in texts)
    try:
        x, y, east, north, width, height = (float(v) for v in info.split(",")[1:7])
        grid = Affine(width, 0, east, 0, -height, north) @ Affine.translation(1 - x, 1 - y)
        return {"crs": CRS.from_epsg(int(code)).to_wkt(), "transform": tuple(grid)[:6]}
    except ValueError as error:
        log.warning("%s: no georeference (%s)", item.file.filename, error)
        return {}


def _open_array(
    path: Path,
    variable: str | None,
    axes: str | None,
    shape: Mapping[str, int] | None,
    labels: bool,
) -> Source:
    """Find the variable, say how its axes become (band, y, x), and how to read rows of it."""
    arrays = _arrays(path)
    if variable is None:
        wanted = (2, 3) if labels else (3,)
        fitting = [n for n, s in arrays.shapes.items() if len(s) in wanted]
        if len(fitting) > 1:  # MATLAB has no vectors, only matrices of one row or column
            fitting = [n for n in fitting if min(arrays.shapes[n]) > 1]
        if len(fitting) != 1:
            raise UserError(
                f"{path}: which variable? Give 'variable'; the file has {_listing(arrays.shapes)}"
            )
        variable = fitting[0]
    if variable not in arrays.shapes:
        raise UserError(f"{path}: no variable '{variable}'; the file has {_listing(arrays.shapes)}")
    stored = arrays.shapes[variable]
    where = f"{path}, variable '{variable}'"
    if axes is None:
        if len(stored) == 3:
            axes = "y x band"
        elif len(stored) == 2 and labels:
            axes = "y x"
        else:
            raise UserError(
                f"{where}: a {len(stored)}-D array of shape {stored}, not y x band; say what its "
                "axes are with "
                "'axes', and with 'shape' how long the joined ones are, for example "
                "axes: 'band (x y)', shape: {x: 95, y: 95}"
            )
    plan = plan_axes(stored, axes, shape, where)
    if plan.shape[0] == 1 and not labels:
        raise UserError(f"{where}: axes '{axes}' make one band of it; a scene needs the band axis")
    alone = plan.groups.index(["y"]) if ["y"] in plan.groups else None

    @functools.cache
    def whole() -> np.ndarray:
        with reading(path):
            return arrays.load(variable)

    def read(start: int, stop: int) -> np.ndarray:
        if arrays.part is not None and alone is not None:
            with reading(path):
                rows = arrays.part(variable, alone, slice(start, stop))
            return plan.arrange(rows)
        return plan.arrange(whole())[:, start:stop]

    with reading(path):
        stated = arrays.attributes(variable, plan.shape[:1])
    return Source([path], plan.shape, read, variables=dict(arrays.shapes), **stated)


@dataclass(frozen=True)
class AxesPlan:
    """How a stored array becomes (band, y, x): split the joined axes, then reorder."""

    groups: list[list[str]]
    sizes: dict[str, int]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(band, y, x); one band when the array has no band axis."""
        return self.sizes.get("band", 1), self.sizes["y"], self.sizes["x"]

    def arrange(self, array: np.ndarray) -> np.ndarray:
        """Give the view (band, y, x) of the stored array, or of some of its rows."""
        names = [name for group in self.groups for name in group]
        lengths = []
        for group, length in zip(self.groups, array.shape, strict=True):
            lengths += [length] if len(group) == 1 else [self.sizes[n] for n in group]
        array = array.reshape(lengths).transpose(
            [names.index(n) for n in ("band", "y", "x") if n in names]
        )
        return array if "band" in names else array[None]


def plan_axes(
    stored: tuple[int, ...], axes: str, shape: Mapping[str, int] | None, where: str
) -> AxesPlan:
    """Read an axes pattern such as "y x band" or "band (x y)" for an array of shape `stored`.

    Names are y, x and band (or class, the same for abundances). Names in brackets are joined in one
    axis, the first changing slowest: "(x y)" is pixel number x * height + y, column after column;
    `shape` gives their lengths (one of them may be left out). Raises UserError for a pattern that
    does not fit, naming `where`.
    """
    text = re.sub(r"\bclass\b", "band", axes)
    groups = [
        re.split(r"[\s,]+", (a or b).strip()) for a, b in re.findall(r"\(([^()]*)\)|(\w+)", text)
    ]
    names = [n for g in groups for n in g]
    example = "write for example 'y x band', 'band y x' or 'band (x y)'"
    if (
        re.sub(r"\([\w\s,]*\)|\w+|[\s,]+", "", text)
        or not {"y", "x"} <= set(names) <= {"y", "x", "band"}
        or len(set(names)) != len(names)
    ):
        raise UserError(
            f"{where}: axes '{axes}' is no pattern of y, x and band, each once; {example}"
        )
    if len(groups) != len(stored):
        raise UserError(
            f"{where}: axes '{axes}' name {len(groups)} axes, but the array has {len(stored)}, of "
            f"shape {stored}; "
            f"{example}"
        )
    given = {"band" if n == "class" else n: int(v) for n, v in (shape or {}).items()}
    sizes: dict[str, int] = {}
    for group, length in zip(groups, stored, strict=True):
        unknown = [n for n in group if n not in given]
        known = int(np.prod([given[n] for n in group if n in given]))
        if len(unknown) == 1 and known > 0 and length % known == 0:
            given[unknown[0]] = length // known
        elif len(unknown) > 1:
            raise UserError(
                f"{where}: how long are {' and '.join(unknown)}? Give 'shape', such as "
                f"{{x: 95, y: 95}}"
            )
        elif unknown or known != length:
            raise UserError(
                f"{where}: shape {dict(shape or {})} does not fit axis '{' '.join(group)}' of "
                f"length {length}"
            )
        sizes |= {n: given[n] for n in group}
    if set(given) - set(sizes):
        raise UserError(
            f"{where}: shape names {sorted(set(given) - set(sizes))}, not in axes '{axes}'"
        )
    return AxesPlan(groups, sizes)


def _listing(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Variables with their shapes, for messages."""
    return (
        ", ".join(f"'{n}' {tuple(map(int, s))}" for n, s in shapes.items()) or "no numeric variable"
    )
