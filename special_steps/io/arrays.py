"""Arrays in MATLAB (v5 and v7.3), HDF5 and NumPy files: one variable of a file as a raster."""

import functools
import logging
import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from special_steps.core.errors import UserError
from special_steps.io.axes import read_axes
from special_steps.io.envi import stated_by
from special_steps.io.record import Source, reading

log = logging.getLogger("special")

MATLAB = (".mat",)
HDF5 = (".h5", ".hdf5", ".he5")
NUMPY = (".npy", ".npz")

Shape = tuple[int, ...]


@dataclass(frozen=True)
class _ArrayFile:
    """The numeric variables of a file: shapes in the user's axis order, and how to get at them."""

    shapes: dict[str, Shape]
    load: Callable[[str], np.ndarray]  # the whole variable
    load_rows: Callable[[str, int, slice], np.ndarray] | None = None  # a slice along one axis
    stated: Callable[[str, Shape], dict[str, Any]] = lambda name, shape: {}  # fields of a Source


def open_array(
    path: Path,
    *,
    variable: str | None,
    axes: str | None,
    shape: Mapping[str, int] | None,
    one_layer: bool,
) -> Source:
    """Find the variable, say how its axes become (band, y, x), and how to read rows of it.

    Raises:
        UserError: for a damaged file, and for a variable or axes that the file does not have, or not only once.
    """
    file = _array_file(path)
    if variable is None:
        variable = _only_variable(path, file.shapes, (2, 3) if one_layer else (3,))
    stored = _shape_of(path, file.shapes, variable)
    where = f"{path}, variable '{variable}'"
    if axes is None:
        if len(stored) == 3:
            axes = "y x band"
        elif len(stored) == 2 and one_layer:
            axes = "y x"
        else:
            raise UserError(
                f"{where}: a {len(stored)}-D array of shape {stored}, not y x band; say what its axes"
                " are with 'axes', and with 'shape' how long the joined ones are, for example"
                " axes: 'band (x y)', shape: {x: 95, y: 95}"
            )
    layout = read_axes(axes, stored, shape, where)
    if layout.shape[0] == 1 and not one_layer:
        raise UserError(f"{where}: axes '{axes}' make one band of it; a scene needs the band axis")
    y_axis = layout.groups.index(["y"]) if ["y"] in layout.groups else None

    @functools.cache
    def whole() -> np.ndarray:
        with reading(path):
            return file.load(variable)

    def read(start: int, stop: int) -> np.ndarray:
        if file.load_rows is None or y_axis is None:
            return layout.arrange(whole())[:, start:stop]
        with reading(path):
            rows = file.load_rows(variable, y_axis, slice(start, stop))
        return layout.arrange(rows)

    with reading(path):
        stated = file.stated(variable, layout.shape[:1])
    return Source([path], layout.shape, read, variables=file.shapes, **stated)


def read_variable(path: Path, name: str) -> np.ndarray:
    """Read one whole variable of a .mat, .h5, .npy or .npz file, in the file's own axis order.

    Raises:
        UserError: for a damaged file, or one without the variable.
    """
    file = _array_file(path)
    _shape_of(path, file.shapes, name)
    with reading(path):
        return file.load(name)


def _only_variable(path: Path, shapes: Mapping[str, Shape], dimensions: tuple[int, ...]) -> str:
    """The variable with so many dimensions, where there is no other."""
    fitting = [n for n, s in shapes.items() if len(s) in dimensions]
    if len(fitting) > 1:  # MATLAB has no vectors, only matrices of one row or column
        fitting = [n for n in fitting if min(shapes[n]) > 1]
    if len(fitting) != 1:
        raise UserError(f"{path}: which variable? Give 'variable'; the file has {_listing(shapes)}")
    return fitting[0]


def _shape_of(path: Path, shapes: Mapping[str, Shape], name: str) -> Shape:
    if name not in shapes:
        raise UserError(f"{path}: no variable '{name}'; the file has {_listing(shapes)}")
    return shapes[name]


def _listing(shapes: Mapping[str, Shape]) -> str:
    """Variables with their shapes, for messages."""
    listed = ", ".join(f"'{n}' {tuple(map(int, s))}" for n, s in shapes.items())
    return listed or "no numeric variable"


def _array_file(path: Path) -> _ArrayFile:
    """List the variables of a file without reading their values."""
    suffix = path.suffix.lower()
    with reading(path):
        if suffix in NUMPY:
            return _npy(path) if suffix == ".npy" else _npz(path)
        import h5py

        if h5py.is_hdf5(path):
            return _hdf5(path, reverse=suffix in MATLAB)
        if suffix in HDF5:
            raise UserError(
                f"{path}: not an HDF5 file (damaged, or of another format); get it again"
            )
        return _matlab(path)


def _is_numeric(dtype: np.dtype) -> bool:
    return dtype.kind in "biuf"


def _npy(path: Path) -> _ArrayFile:
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    return _ArrayFile(
        {"array": array.shape} if _is_numeric(array.dtype) else {},
        lambda name: np.asarray(array),
        lambda name, axis, rows: np.array(array[(slice(None),) * axis + (rows,)]),
    )


def _npz(path: Path) -> _ArrayFile:
    """Shapes come from the arrays' headers: an archive may hold much that nobody asks for."""
    shapes = {}
    with zipfile.ZipFile(path) as archive:
        for member in (m for m in archive.namelist() if m.endswith(".npy")):
            with archive.open(member) as stream:
                major, _ = np.lib.format.read_magic(stream)
                if major > 2:  # only for names of fields that are not Latin-1: no numbers
                    continue
                read_header = (
                    np.lib.format.read_array_header_1_0
                    if major == 1
                    else np.lib.format.read_array_header_2_0
                )
                shape, _, dtype = read_header(stream)
            if _is_numeric(dtype):
                shapes[member.removesuffix(".npy")] = shape

    def load(name: str) -> np.ndarray:
        with np.load(path, allow_pickle=False) as stored:
            return stored[name]

    return _ArrayFile(shapes, load)


def _matlab(path: Path) -> _ArrayFile:
    """MATLAB up to v7: SciPy lists names and shapes from the headers of the variables."""
    from scipy.io import loadmat, whosmat

    numeric = re.compile(r"double|single|u?int\d+|logical")
    listed = whosmat(str(path))

    def load(name: str) -> np.ndarray:
        return loadmat(str(path), variable_names=[name])[name]

    def stated(name: str, shape: Shape) -> dict[str, Any]:
        """Some toolboxes keep the ENVI header beside the cube, as a struct with its field names."""
        for struct in (n for n, _, kind in listed if kind == "struct"):
            stored = loadmat(str(path), variable_names=[struct], squeeze_me=True)[struct]
            names = stored.dtype.names or ()
            if stored.ndim or "wavelength" not in names:
                continue
            values = {n.replace("_", " "): stored[()][n] for n in names}
            if np.size(values["wavelength"]) not in shape:
                continue
            log.info("%s: wavelengths and bad bands from the ENVI header in '%s'", path, struct)
            return stated_by({n: _header_text(v) for n, v in values.items()}, path)
        return {}

    return _ArrayFile({n: s for n, s, k in listed if numeric.fullmatch(k)}, load, None, stated)


def _header_text(value: Any) -> str:
    """A struct's value as the text of an ENVI header's field."""
    is_list = isinstance(value, np.ndarray) and value.ndim == 1
    return (", ".join(map(str, value)) if is_list else str(value)).strip().strip("{}")


def _hdf5(path: Path, reverse: bool) -> _ArrayFile:
    """HDF5, or MATLAB v7.3 (`reverse`), which is HDF5 with the axes in the opposite order."""
    import h5py

    shapes: dict[str, Shape] = {}

    def note(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and _is_numeric(item.dtype) and not name.startswith("#"):
            shapes[name] = item.shape[::-1] if reverse else item.shape

    with h5py.File(path) as file:
        file.visititems(note)

    def load(name: str) -> np.ndarray:
        with h5py.File(path) as file:
            return file[name][()].T if reverse else file[name][()]

    def load_rows(name: str, axis: int, rows: slice) -> np.ndarray:
        with h5py.File(path) as file:
            item = file[name]
            index = (slice(None),) * (item.ndim - 1 - axis if reverse else axis) + (rows,)
            return item[index].T if reverse else item[index]

    def stated(name: str, shape: Shape) -> dict[str, Any]:
        """NEON's names: Scale_Factor divides; Data_Ignore_Value or HDF5's own _FillValue is no data."""
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

    return _ArrayFile(shapes, load, load_rows, stated)


def _neon_georeference(item: Any) -> dict[str, Any]:
    """CRS and transform from NEON's Metadata/Coordinate_System beside the reflectance, if it is there."""
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
        return {
            "crs": CRS.from_epsg(int(code)).to_wkt(version="WKT2_2019"),
            "transform": tuple(grid)[:6],
        }
    except ValueError as error:
        log.warning("%s: no georeference (%s)", item.file.filename, error)
        return {}
