"""Hyperspectral cubes in netCDF4 files after the CF conventions: on a grid, with wavelengths and coordinates.

Sources: NetCDF Climate and Forecast Metadata Conventions 1.11 (chapters 4, coordinate variables lie at the centres of
cells; 5.6, grid mappings; 8.1, packed data); GDAL's netCDF driver (`GeoTransform`, of the upper left corner, and
`spatial_ref` in the grid mapping variable); EMIT L3 Gridded Reflectance User Guide (`lon` and `lat` give "pixel
centers, offset by half a pixel from that corner").

A cube is a numeric variable of three dimensions, two of which have coordinate variables x and y (by `standard_name`,
`axis` or name) and one has wavelengths: its coordinate variable, or another variable along it.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from special_steps.core.errors import UserError
from special_steps.io.hdf5 import (
    dataset,
    dimension_label,
    dimension_scales,
    numbers,
    open_hdf5,
    text,
)
from special_steps.io.record import Source
from special_steps.io.wavelengths import stated_bands

X = ("projection_x_coordinate", "longitude", "x", "easting", "lon")
Y = ("projection_y_coordinate", "latitude", "y", "northing", "lat")
WAVELENGTH = ("radiation_wavelength", "sensor_band_central_radiation_wavelength")
LENGTHS = re.compile(r"nm|nanomet\w*|um|µm|μm|micromet\w*|microns?", re.IGNORECASE)
NO_VARIABLE = (
    "This is a netCDF dimension but not a netCDF variable"  # netCDF-4 marks them so in HDF5
)
PREFERRED = ("reflectance", "surface_reflectance", "rfl", "rrs", "radiance", "rdn")
LATLON = "latitude_longitude"
UNCERTAIN = re.compile(r"unc|err|std|sigma|quality|mask", re.IGNORECASE)


class Cube(NamedTuple):
    """Names in the file of a cube and of what belongs to it."""

    name: str
    band: int  # which of its axes are the bands, y and x
    y_axis: int
    x_axis: int
    wavelengths: str
    y: str
    x: str


def holds(file: Any) -> bool:
    """Whether an open HDF5 file has such a cube."""
    return bool(_cubes(file))


def files_of(path: Path) -> list[Path]:
    """[]: such files have no names of their own; `holds` tells."""
    return []


def open_product(path: Path) -> Source:
    """Open the file's cube; where there are several, the one named like reflectance.

    Raises:
        UserError: for a damaged file, for none and for several cubes.
    """
    with open_hdf5(path) as file:
        cubes = _cubes(file)
    names = [c.name.strip("/") for c in cubes]
    if len(cubes) > 1:
        cubes = [c for c in cubes if not UNCERTAIN.search(c.name.rsplit("/", 1)[-1])] or cubes
    for name in PREFERRED:
        named = [c for c in cubes if c.name.rsplit("/", 1)[-1].lower() == name]
        if len(cubes) > 1 and len(named) == 1:
            cubes = named
    if len(cubes) != 1:
        raise UserError(
            f"{path}: {'which of ' + ', '.join(names) if names else 'no cube with x, y and wavelengths'}"
            "? Say with 'variable' and 'axes'"
        )
    return open_cube(path, cubes[0])


def open_cube(
    path: Path, cube: Cube, kind: str = "netCDF (CF)", mappings: tuple[str, ...] = ()
) -> Source:
    """Open a cube whose names are known.

    Raises:
        UserError: for a damaged or incomplete file.
    """
    with open_hdf5(path) as file:
        data = dataset(file, cube.name)
        axes = (cube.band, cube.y_axis, cube.x_axis)
        shape = (data.shape[axes[0]], data.shape[axes[1]], data.shape[axes[2]])
        stated = bands_of(file, cube.wavelengths, shape[0], str(path))
        doubts = dict(stated.pop("doubts"))
        scale, offset = packing(data)
        nodata = nodata_of(data)
        crs, transform, unsure = georeference(
            file, data, dataset(file, cube.x), dataset(file, cube.y), mappings
        )
        notes = stated.pop("notes") + radiance_note(path, data)

    def read(rows: slice, columns: slice) -> np.ndarray:
        where: list[slice] = [slice(None)] * 3
        where[cube.y_axis], where[cube.x_axis] = rows, columns
        with open_hdf5(path) as file:
            return np.asarray(dataset(file, cube.name)[tuple(where)].transpose(axes))

    return Source(
        [path],
        shape,
        read,
        scale=scale,
        offset=offset,
        nodata=nodata,
        crs=crs,
        transform=transform,
        doubts={**doubts, **{n: f"{path}: {why}" for n, why in unsure.items()}},
        notes=notes,
        kind=kind,
        **stated,
    )


def bands_of(file: Any, wavelengths: str, bands: int, where: str) -> dict[str, Any]:
    """Fields of a Source about the bands: centres, and widths and good bands that lie beside them or in the file."""
    centres = dataset(file, wavelengths)
    beside = {
        item.name.rsplit("/", 1)[-1].lower(): item
        for item in reversed(list(_near(file, centres)))
        if item.shape == (bands,)
    }
    fwhm = beside.get("fwhm")
    good = beside.get("good_wavelengths", beside.get("good_bands", beside.get("bbl")))
    stated: dict[str, Any] = stated_bands(
        centres[()], None if fwhm is None else fwhm[()], text(centres.attrs.get("units", "")), bands, where
    )  # fmt: skip
    return stated | {"good_bands": None if good is None else good[()] == 1}


def packing(data: Any) -> tuple[float, float]:
    """Scale and offset of a Source; CF's factor is the reciprocal, and percent are made fractions."""
    factor = float(text(data.attrs.get("scale_factor", 1.0)))
    offset = float(text(data.attrs.get("add_offset", 0.0)))
    percent = 100 if text(data.attrs.get("units", "")).lower() in ("%", "percent") else 1
    return percent / factor, offset / percent


def nodata_of(data: Any) -> tuple[float, ...]:
    """Stored values that mean no data; NaN needs no word."""
    stated = [numbers(data.attrs.get(n, ())) for n in ("_FillValue", "missing_value")]
    return tuple(dict.fromkeys(float(v) for v in np.concatenate(stated) if not np.isnan(v)))


def radiance_note(path: Path, data: Any) -> tuple[str, ...]:
    """A line for `notes` where values are radiances, by name or units."""
    units = text(data.attrs.get("units", ""))
    name = data.name.rsplit("/", 1)[-1].lower()
    # remote-sensing reflectance is per steradian too, but has no Watt
    is_power = bool(re.search(r"W", units) and re.search(r"\bsr\b", units, re.IGNORECASE))
    if is_power or (not units and re.search(r"radiance|rdn", name)):
        return (f"{path}: values are radiances ({units or 'units not stated'}), not reflectances",)
    return ()


def georeference(
    file: Any, data: Any, x: Any, y: Any, mappings: tuple[str, ...] = ()
) -> tuple[str | None, tuple[float, ...] | None, dict[str, str]]:
    """CRS (WKT2), transform of corners, and doubts, from the grid mapping and the coordinates of the pixels' centres.

    GDAL's GeoTransform counts where it lies within half a pixel of the coordinates: it is exact, and says what a
    producer meant who wrote corners as coordinates. Otherwise it is a left-over of the scene that this one was cut
    from.

    Args:
        file: open HDF5 file.
        data: its cube.
        x: coordinates along x, of pixels' centres.
        y: along y.
        mappings: names of the grid mapping variable where the cube states none.
    """
    mapping = _grid_mapping(file, data)
    mapping = next((file[n] for n in mappings if n in file), None) if mapping is None else mapping
    attributes = {} if mapping is None else mapping.attrs
    crs = next(
        (w for n in ("crs_wkt", "spatial_ref") if (w := wkt2(text(attributes.get(n, ""))))), None
    )
    doubts = {}
    degrees = text(x.attrs.get("units", "")).lower().startswith("degree")
    if crs is None and degrees and text(attributes.get("grid_mapping_name", LATLON)) == LATLON:
        # CF leaves the figure of the Earth open: at these pixel sizes it makes no difference
        crs = wkt2("EPSG:4326")
    if crs is None:
        name = "no grid mapping variable" if mapping is None else f"grid mapping '{mapping.name}'"
        doubts["crs"] = f"{name} with a CRS (crs_wkt or spatial_ref)"
    steps = [_even(np.asarray(c[()], np.float64)) for c in (x, y)]
    stored = _numbers_in(attributes.get("GeoTransform"))
    if steps[0] is None or steps[1] is None:
        doubts["transform"] = f"coordinates '{x.name}' and '{y.name}' are not evenly spaced"
        return crs, None, doubts
    (x0, dx), (y0, dy) = steps[0], steps[1]
    if len(stored) == 6:
        left, a, b, top, d, e = stored
        away = abs(left + a / 2 - x0) / abs(dx), abs(top + e / 2 - y0) / abs(dy)
        same = np.allclose([a, e], [dx, dy], rtol=0.01) and max(away) < 0.6
        if same and not (b or d):
            return crs, (a, b, left, d, e, top), doubts
    return crs, (dx, 0.0, x0 - dx / 2, 0.0, dy, y0 - dy / 2), doubts


def wkt2(definition: str) -> str | None:
    """A CRS in any form that GDAL knows, as WKT2; None where it is none."""
    from rasterio.crs import CRS
    from rasterio.errors import CRSError

    try:
        crs = CRS.from_user_input(definition) if definition else None
    except CRSError:
        return None
    return crs.to_wkt(version="WKT2_2019") if crs else None


def _even(values: np.ndarray) -> tuple[float, float] | None:
    """First value and step of evenly spaced coordinates, None for others; of float32 ones the end gives the step."""
    if values.ndim != 1 or len(values) < 2 or not np.isfinite(values).all():
        return None
    step = (values[-1] - values[0]) / (len(values) - 1)
    uneven = np.abs(values - (values[0] + step * np.arange(len(values)))).max()
    return (float(values[0]), float(step)) if step and uneven < abs(step) / 4 else None


def _numbers_in(value: Any) -> tuple[float, ...]:
    """GDAL's GeoTransform: six numbers in a text, or as they are."""
    if value is None:
        return ()
    try:
        words = text(value).split() if np.size(value) == 1 else np.ravel(value)
        return tuple(float(w) for w in words)
    except ValueError:
        return ()


def _cubes(file: Any) -> list[Cube]:
    """All cubes of a file, by their names; no values are read."""
    return [c for item in _datasets(file) if (c := _cube(file, item)) is not None]


def _cube(file: Any, data: Any) -> Cube | None:
    if data.ndim != 3 or data.dtype.kind not in "iuf" or min(data.shape) < 2:
        return None
    along = [_coordinate(file, data, axis) for axis in range(3)]
    xs = [i for i, c in enumerate(along) if c is not None and _is(c, X, "X")]
    ys = [i for i, c in enumerate(along) if c is not None and _is(c, Y, "Y")]
    if len(xs) != 1 or len(ys) != 1 or xs == ys:
        return None
    band = 3 - xs[0] - ys[0]
    candidates = [c for c in (along[band], *_near(file, data)) if c is not None]
    wavelengths = [c for c in candidates if c.shape == (data.shape[band],) and _is_wavelength(c)]
    if not wavelengths:
        return None
    x, y = along[xs[0]], along[ys[0]]
    return Cube(data.name, band, ys[0], xs[0], wavelengths[0].name, y.name, x.name)


def _datasets(file: Any) -> list[Any]:
    """All datasets of a file, each once; links to other files are not followed."""
    import h5py

    found: list[Any] = []
    file.visititems(lambda _, item: found.append(item) if isinstance(item, h5py.Dataset) else None)
    return found


def _near(file: Any, item: Any) -> Iterator[Any]:
    """Variables along one dimension: of the same group first, then of all others."""
    vectors = [d for d in _datasets(file) if d.ndim == 1 and d.dtype.kind in "iufb"]
    group = item.name.rpartition("/")[0]
    yield from sorted(vectors, key=lambda d: d.name.rpartition("/")[0] != group)


def _coordinate(file: Any, data: Any, axis: int) -> Any:
    """The coordinate variable of a dimension, None where it has none."""
    for scale in dimension_scales(data, axis):
        marked = text(scale.attrs.get("NAME", "")).startswith(NO_VARIABLE)
        return None if marked or scale.shape != (data.shape[axis],) else scale
    name = dimension_label(data, axis)
    found = _in_scope(file, data, name) if name else None
    return found if getattr(found, "shape", None) == (data.shape[axis],) else None


def _in_scope(file: Any, data: Any, name: str) -> Any:
    """A variable by its name, in the group of `data` or the nearest one above; None where there is none."""
    group = data.name.rpartition("/")[0]
    while True:
        try:
            found = file.get(f"{group}/{name}")
        except RuntimeError:  # links in a loop
            found = None
        if found is not None or not group:
            return found
        group = group.rpartition("/")[0]


def _grid_mapping(file: Any, data: Any) -> Any:
    """The grid mapping variable; the attribute may be written "crs: x y"."""
    name = text(data.attrs.get("grid_mapping", "")).split(":")[0].strip()
    return _in_scope(file, data, name) if name else None


def _is(item: Any, names: tuple[str, ...], axis: str) -> bool:
    stated = text(item.attrs.get("standard_name", "")).lower()
    if stated in X[:2] + Y[:2]:
        return stated in names
    return text(item.attrs.get("axis", "")).upper() == axis or item.name.rsplit("/", 1)[-1].lower() in (
        *names, {"X": "longitude", "Y": "latitude"}[axis]
    )  # fmt: skip


def _is_wavelength(item: Any) -> bool:
    name = item.name.rsplit("/", 1)[-1].lower()
    if re.search(r"fwhm|width|shift|unc", name):
        return False
    return (
        text(item.attrs.get("standard_name", "")) in WAVELENGTH
        or name.startswith("wavelength")
        or bool(LENGTHS.fullmatch(text(item.attrs.get("units", "")).strip()))
    )
