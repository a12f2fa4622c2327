"""NEON AOP imaging spectrometer (NIS): reflectance of flight lines and mosaic tiles, and radiance, in HDF5.

Three layouts have been published. Names are compared without case, and '_' as a blank:

- since 2016, products DP1.30006 (flight line) and DP3.30006 (1 km tile), revisions 001 (directional) and 002
  (bidirectional): <SITE>/Reflectance/Reflectance_Data (line, sample, wavelength), all else in Metadata beside it;
- before, as in NEON's teaching file NEONDSImagingSpectrometerData.h5: all in the root, Reflectance (wavelength, line,
  sample), wavelengths in micrometres, attributes such as "data ignore value" as text;
- DP1.30008.001 (at-sensor radiance, since 2021): <SITE>/Radiance/RadianceIntegerPart + RadianceDecimalPart divided by
  its Scale_Factor.

Sources: NEON.DOC.001288 (radiance to reflectance ATBD) and NEON.DOC.004365 (mosaic ATBD); NEON Data Notification of
2021-02-04 (radiance); NEON-Data-Skills lessons "NEON AOP Hyperspectral Data in HDF5 format" and "Introduction to
Bidirectional Hyperspectral Reflectance Data", which list the files' contents; NEON-AOP-H5toENVI (`map info` of the
early files); class table of Haze_Cloud_Water_Map in the Earth Engine catalogue, HSI_REFL/001 and 002 (ATCOR's labels).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from special_steps.core.errors import UserError, one_line
from special_steps.io.hdf5 import dataset, numbers, open_hdf5, text
from special_steps.io.map_info import corners_transform
from special_steps.io.record import Source, Window
from special_steps.io.wavelengths import to_nm

if TYPE_CHECKING:
    import h5py

NAMES = re.compile(
    r"(NEON_.*_DP[13]_.*(reflectance|radiance)|NEONDSImagingSpectrometerData)\.(h5|hdf5)",
    re.IGNORECASE,
)
# Labels of Haze_Cloud_Water_Map, where the file itself has no Class_Names
ATCOR_CLASSES = (
    "geocoded background", "shadow", "thin cirrus (water)", "medium cirrus (water)",
    "thick cirrus (water)", "land (clear)", "saturated", "snow/ice", "thin cirrus (land)",
    "medium cirrus (land)", "thick cirrus (land)", "thin haze (land)", "medium haze (land)",
    "thin haze/glint (water)", "med. haze/glint (water)", "cloud (land)", "cloud (water)", "water",
    "cirrus cloud", "cirrus cloud (thick)", "bright", "topogr. shadow", "cloud shadow",
)  # fmt: skip


@dataclass(frozen=True)
class _Layout:
    """Paths in the file; None for what it has not."""

    group: str  # with the attributes Band_Window_1_Nanometers, ...
    values: tuple[str, ...]  # the cube; of radiance, its whole and its decimal part
    wavelength: str
    fwhm: str | None
    map_info: str | None
    epsg: str | None
    system: str | None  # WKT, of Esri's kind
    classes: str | None  # Haze_Cloud_Water_Map
    vegetation: str | None  # Dark_Dense_Vegetation_Classification


def files_of(path: Path) -> list[Path]:
    """All files of the product that `path` (its file, or a folder with nothing else of NEON) belongs to; [] for none.

    By names alone, so a renamed file is only known by `holds`.
    """
    if path.is_dir():
        found = [p for p in sorted(path.iterdir()) if NAMES.fullmatch(p.name)]
        return found if len(found) == 1 else []
    return [path] if NAMES.fullmatch(path.name) else []


def holds(file: "h5py.File") -> bool:
    """Whether an open file is of one of NEON's layouts."""
    return _layout(file) is not None


def open_product(path: Path) -> Source:
    """Read what a NEON file says about itself; its values stay in the file.

    Bands in Band_Window_1_Nanometers and Band_Window_2_Nanometers (water vapour) are not good. Only classes that name
    clouds are cloud_shadow: ATCOR's "shadow" is that of trees and buildings too, which is much of a scene with pixels
    of 1 m; it is the layer shadow, with topographic shadow. Saturated pixels, Cast_Shadow (1 everywhere in files that
    were looked at) and Weather_Quality_Indicator (cloud cover of the flight, as its crew reported) are no layer.

    Raises:
        UserError: for a damaged file, one of no known layout, and a folder with several products.
    """
    if path.is_dir():
        files = files_of(path)
        if not files:
            raise UserError(f"{path}: not one NEON file in this folder; give the .h5 file itself")
        path = files[0]
    with open_hdf5(path) as file:
        layout = _layout(file)
        if layout is None:
            raise UserError(
                f"{path}: no NEON reflectance or radiance in the file; it may be cut, or another product"
            )
        return _described(path, file, layout)


def _described(path: Path, file: "h5py.File", layout: _Layout) -> Source:
    doubts: dict[str, str] = {}
    notes: list[str] = []
    cube = dataset(file, layout.values[0])
    stated = dataset(file, layout.wavelength)
    bands = np.ravel(stated[()]).astype(np.float64)
    if cube.ndim != 3 or any(dataset(file, v).shape != cube.shape for v in layout.values):
        raise UserError(f"{path}: '{layout.values[0]}' has shape {cube.shape}, not that of a cube")
    # flat files are (band, y, x), the others (y, x, band); the number of wavelengths decides
    ends = (0, 2) if layout.group == "/" else (2, 0)
    axis = next((i for i in ends if cube.shape[i] == bands.size), ends[0])
    height, width = (n for i, n in enumerate(cube.shape) if i != axis)
    shape = (cube.shape[axis], height, width)
    nm = None
    try:
        if bands.size != shape[0]:
            raise UserError(f"{path}: {bands.size} wavelengths for {shape[0]} bands")
        nm = to_nm(bands, _attribute(stated, "units", "unit"), str(path))
    except UserError as error:
        doubts["wavelengths"] = str(error)
    widths = None
    if layout.fwhm is not None and nm is not None:
        widths = np.ravel(dataset(file, layout.fwhm)[()]).astype(np.float64)
        widths *= 1000 if widths.max(initial=0) < 1 else 1  # bands are 5 to 6 nm wide
        if widths.size != shape[0]:
            notes.append(f"{path}: {widths.size} values of fwhm for {shape[0]} bands; left out")
            widths = None
    nodata: tuple[float, ...] = ()
    if len(layout.values) == 2:
        notes.append(f"{path}: values are at-sensor radiances, not reflectances")
        read, scale = _radiance(path, file, layout, axis), 1.0
    else:
        read = _reflectance(path, layout, axis)
        scale, nodata = _stored_as(path, cube)
    georeference = _georeference(path, file, layout, doubts)
    return Source(
        files=[path],
        shape=shape,
        read=read,
        wavelengths=nm,
        fwhm=widths,
        good_bands=_good(file, layout, nm),
        scale=scale,
        nodata=nodata,
        quality=_quality(path, file, layout, (height, width), notes),
        crs=georeference[0],
        transform=georeference[1],
        doubts=doubts,
        notes=tuple(notes),
        kind="NEON AOP " + ("radiance" if len(layout.values) == 2 else "reflectance"),
    )


def _layout(file: "h5py.File") -> _Layout | None:
    """Where in the file everything is; None when it is none of NEON's."""
    import h5py

    for site in file:
        for product, members in (
            ("reflectance", ("reflectance data",)),
            ("radiance", ("radianceintegerpart", "radiancedecimalpart")),
        ):
            group = _child(file, _child(file, f"/{site}", None), product)
            values = [_child(file, group, m) for m in members]
            meta = _child(file, group, "metadata")
            spectral, system, rasters = (
                _child(file, meta, m)
                for m in ("spectral data", "coordinate system", "ancillary imagery")
            )
            wavelength = _child(file, spectral, "wavelength")
            if group and wavelength and all(values):
                return _Layout(
                    group,
                    tuple(v for v in values if v),
                    wavelength,
                    _child(file, spectral, "fwhm"),
                    _child(file, system, "map info"),
                    _child(file, system, "epsg code"),
                    _child(file, system, "coordinate system string"),
                    _child(file, rasters, "haze cloud water map"),
                    _child(file, rasters, "dark dense vegetation classification"),
                )
    cube, wavelength, place = (
        _child(file, "/", m) for m in ("reflectance", "wavelength", "map info")
    )
    if not (cube and wavelength and place and isinstance(file[cube], h5py.Dataset)):
        return None
    return _Layout(
        "/",
        (cube,),
        wavelength,
        _child(file, "/", "fwhm"),
        place,
        _child(file, "/", "epsg code"),
        _child(file, "/", "coordinate system string"),
        _child(file, "/", "haze cloud water map"),
        _child(file, "/", "dark dense vegetation classification"),
    )


def _child(file: "h5py.File", group: str | None, name: str | None) -> str | None:
    """Path of a group's member by its plain name, or of the group itself (name None); links are not followed."""
    import h5py

    if group is None:
        return None
    if group != "/" and not isinstance(file.get(group, getlink=True), h5py.HardLink):
        return None
    if name is None:
        return group
    if not isinstance(file[group], h5py.Group):
        return None
    for key in file[group]:
        if _plain(key) == name and isinstance(file[group].get(key, getlink=True), h5py.HardLink):
            return f"{group.rstrip('/')}/{key}"
    return None


def _plain(name: str | bytes) -> str:
    name = name.decode(errors="replace") if isinstance(name, bytes) else name  # no valid UTF-8
    return " ".join(name.lower().replace("_", " ").split())


def _attribute(item: Any, *names: str) -> str | None:
    """An attribute as text, by any of its plain names; None when there is none."""
    for key, value in item.attrs.items():
        if _plain(key) in names:
            return text(value)
    return None


def _stored_as(path: Path, cube: Any) -> tuple[float, tuple[float, ...]]:
    """Scale and no-data value; early files have them as text.

    Raises:
        UserError: when one is no number.
    """
    found = {}
    for name in ("scale factor", "data ignore value"):
        stated = _attribute(cube, name)
        try:
            found[name] = None if not stated else float(stated)
        except ValueError as error:
            raise UserError(
                f"{path}: attribute '{name}' is '{str(stated)[:40]}', no number; get the file again"
            ) from error
    ignored = found["data ignore value"]
    return found["scale factor"] or 1.0, () if ignored is None else (ignored,)


def _reflectance(path: Path, layout: _Layout, axis: int) -> Window:
    def read(rows: slice, columns: slice) -> np.ndarray:
        with open_hdf5(path) as file:
            return _window(dataset(file, layout.values[0]), axis, rows, columns)

    return read


def _radiance(path: Path, file: "h5py.File", layout: _Layout, axis: int) -> Window:
    """Reader of radiances, float32; NaN where both parts have their Data_Ignore_Value."""
    ignored = [_stored_as(path, dataset(file, name))[1] for name in layout.values]
    decimal = dataset(file, layout.values[1])
    divisor = float(_attribute(decimal, "scale factor", "scale") or 50_000)

    def read(rows: slice, columns: slice) -> np.ndarray:
        with open_hdf5(path) as opened:
            parts = [_window(dataset(opened, name), axis, rows, columns) for name in layout.values]
        values = parts[0].astype(np.float32) + parts[1].astype(np.float32) / np.float32(divisor)
        if all(ignored):
            empty = (parts[0] == ignored[0][0]) & (parts[1] == ignored[1][0])
            values[empty] = np.nan
        return np.asarray(values)

    return read


def _window(item: Any, axis: int, rows: slice, columns: slice) -> np.ndarray:
    """A window of a cube whose bands lie along its first or last axis, as (band, row, column)."""
    if axis == 0:
        return np.asarray(item[:, rows, columns])
    return np.ascontiguousarray(item[rows, columns, :].transpose(2, 0, 1))


def _good(file: "h5py.File", layout: _Layout, nm: np.ndarray | None) -> np.ndarray | None:
    """(band,) bool: False inside the windows that the file names as bad; None when it names none."""
    attributes = file[layout.group].attrs
    windows = [
        numbers(attributes[key])
        for key in attributes
        if re.fullmatch(r"band window \d+ nanometers", _plain(key))
    ]
    if nm is None or not windows:
        return None
    bad = [(nm >= w.min()) & (nm <= w.max()) for w in windows if w.size == 2]
    return np.asarray(~np.any(bad, axis=0)) if bad else None


def _quality(
    path: Path, file: "h5py.File", layout: _Layout, shape: tuple[int, int], notes: list[str]
) -> Mapping[str, Window]:
    """Layers of Haze_Cloud_Water_Map, by the names of its classes."""
    if layout.classes is None or dataset(file, layout.classes).shape != shape:
        return {}
    item = dataset(file, layout.classes)
    if layout.vegetation is not None and _same(item, dataset(file, layout.vegetation)):
        # seen in provisional tiles of 2022: NEON's lesson on DP3.30006.002 prints two equal maps
        notes.append(
            f"{path}: Haze_Cloud_Water_Map is a copy of the vegetation classes; no quality layer read"
        )
        return {}
    layers: dict[str, list[int]] = {}
    for value, name in enumerate(_class_names(item)):
        layer = _layer(name)
        if layer is not None:
            layers.setdefault(layer, []).append(value)
    return {name: _class_reader(path, layout.classes, values) for name, values in layers.items()}


def _same(one: Any, other: Any) -> bool:
    """Whether two maps are equal, and not of one value."""
    if one.shape != other.shape:
        return False
    values: set[int] = set()
    for start in range(0, one.shape[0], 256):
        here = one[start : start + 256]
        if not np.array_equal(here, other[start : start + 256]):
            return False
        values |= set(np.unique(here).tolist())
    return len(values) > 1


def _class_names(item: Any) -> list[str]:
    """Names of the classes 0, 1, ...; in the file a list, or one text with commas, or not at all."""
    for key, value in item.attrs.items():
        if _plain(key) == "class names":
            listed = [v.decode() if isinstance(v, bytes) else str(v) for v in np.ravel(value)]
            names = listed[0].split(",") if len(listed) == 1 else listed
            return [re.sub(r"^\s*\d+\s*:", "", n).strip().lower() for n in names]
    return list(ATCOR_CLASSES)


def _layer(name: str) -> str | None:
    """Quality layer of a class of Haze_Cloud_Water_Map; None for land, background and the like."""
    if "shadow" in name:
        return "cloud_shadow" if "cloud" in name else "shadow"
    for word, layer in (
        ("snow", "snow"),
        ("cirrus", "cirrus"),
        ("haze", "haze"),
        ("cloud", "cloud"),
    ):
        if word in name:
            return layer
    return "water" if name == "water" else None


def _class_reader(path: Path, name: str, values: list[int]) -> Window:
    def read(rows: slice, columns: slice) -> np.ndarray:
        with open_hdf5(path) as file:
            return np.isin(dataset(file, name)[rows, columns], values)

    return read


def _georeference(
    path: Path, file: "h5py.File", layout: _Layout, doubts: dict[str, str]
) -> tuple[str | None, tuple[float, ...] | None]:
    """CRS (WKT2) and transform of corners; None, and why in `doubts`, for what cannot be used."""
    texts = {
        name: text(dataset(file, place)[()])
        for name in ("map_info", "epsg", "system")
        if (place := getattr(layout, name)) is not None
    }
    parts = [p.strip() for p in texts.get("map_info", "").strip("{} ").split(",")]
    crs = transform = None
    try:
        transform = corners_transform(parts)
    except ValueError as error:
        doubts["transform"] = (
            f"{path}: map info '{','.join(parts)[:80]}' not understood ({one_line(error, 80)})"
        )
    try:
        crs = _crs(texts, parts)
    except ValueError as error:
        doubts["crs"] = f"{path}: coordinate system not understood ({one_line(error)})"
    return crs, transform


def _crs(texts: Mapping[str, str], parts: list[str]) -> str:
    """WKT2 from the EPSG code, else from the file's own WKT, else from a UTM zone on WGS 84.

    Raises:
        ValueError: where none of them is there and understood.
    """
    from rasterio.crs import CRS
    from rasterio.errors import CRSError

    try:
        if texts.get("epsg"):
            crs = CRS.from_epsg(int(float(texts["epsg"])))
        elif texts.get("system"):
            crs = CRS.from_wkt(texts["system"].strip("{}"))
        elif parts[0].upper() == "UTM" and len(parts) > 9 and parts[9].upper() == "WGS-84":
            north = not parts[8].lower().startswith("s")
            crs = CRS.from_epsg((32600 if north else 32700) + int(parts[7]))
        else:
            raise ValueError("neither EPSG code nor WKT nor a UTM zone on WGS-84")
    except CRSError as error:
        raise ValueError(one_line(error)) from error
    return str(crs.to_wkt(version="WKT2_2019"))
