"""Arrays of HDF5 files: HDF5 itself, netCDF 4, and MATLAB v7.3.

MATLAB v7.3 stores axes in the opposite order, structs as groups, and cells (and fields of struct arrays) as references
into a group '#refs#'; attributes MATLAB_class, MATLAB_empty, MATLAB_sparse and MATLAB_object_decode say what a dataset
is. The format has no published specification; this is as matio's mat73.c and MATLAB's files have it.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from special_steps.core.errors import UserError
from special_steps.io.array_file import ArrayFile, Index, Shape, no_numbers, part
from special_steps.io.hdf5 import dataset, dimension_label, dimension_scales, open_hdf5

NUMERIC = ("double", "single", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64",
           "logical")  # fmt: skip
SPARSE = ("data", "ir", "jc")  # values, rows (from 0), where each column begins
LARGEST = 1 << 20  # bytes of an attribute that is read
DEPTH = 20  # cells in cells that are looked into; one may hold itself
CELLS = 2_000  # so many elements of cells are listed
# a file that claims so much more than it holds was made to, or never filled; compression of a real scene gives 100
CLAIMED, RATIO = 2**33, 10_000


def open_arrays(path: Path) -> ArrayFile:
    """List the variables of an HDF5 file; soft links are followed when they are named, and links to other files never.

    Raises:
        UserError: for a damaged file.
    """
    import h5py

    with path.open("rb") as stream:
        said = stream.read(10) == b"MATLAB 7.3"
    reverse = said or path.suffix.lower() == ".mat"
    places: dict[str, str] = {}  # where in the file a variable lies, by its name
    shapes: dict[str, Shape] = {}
    others: dict[str, str] = {}
    with open_hdf5(path) as file:
        netcdf = "_NCProperties" in file.attrs
        marked = _list_matlab(file, places, shapes, others) if reverse else False
        if not reverse:
            _list_hdf5(file, places, shapes, others)

    def find(name: str) -> str:
        """A variable by another way to write it: a leading '/', '/' for '.', or through a soft link."""
        if name in shapes or name in others:
            return name
        slashed = name.strip("/").replace(".", "/") if reverse else name.strip("/")
        for known, place in places.items():
            if slashed in (known, place.strip("/")):
                return known
        with open_hdf5(path) as file:
            link = file.get(slashed, getlink=True)
            if link is None or (
                isinstance(link, h5py.HardLink) and isinstance(file[slashed], h5py.Group)
            ):
                return name
            item = _open(file, slashed)
            why = no_numbers(item.dtype)
            places[name] = slashed
            if why:
                others[name] = why
            else:
                shapes[name] = item.shape[::-1] if reverse else item.shape
        return name

    def read(name: str, index: Index) -> np.ndarray:
        with open_hdf5(path) as file:
            if "MATLAB_sparse" in file[places[name]].attrs:
                return part(_sparse(file[places[name]]), index)
            item = _open(file, places[name])
            if item.id.get_storage_size() == 0 and math.prod(item.shape):
                # every value would be the fill value
                raise UserError(
                    f"{path}: no value of '{name}' was ever written; get the file again"
                )
            return part(item[index[::-1]].T if reverse else item[index], (...,))  # type: ignore[arg-type]

    def attributes(name: str) -> Mapping[str, Any]:
        with open_hdf5(path) as file:
            item = file[places[name]] if name in places else file.get(name.strip("/") or "/")
            return {} if item is None else _attributes(item)

    def dtype(name: str) -> np.dtype | None:
        with open_hdf5(path) as file:
            if "MATLAB_sparse" in file[places[name]].attrs:
                return None
            item = _open(file, places[name])
            claimed, held = item.size * item.dtype.itemsize, item.id.get_storage_size()
            if claimed > CLAIMED and claimed > RATIO * held:
                raise UserError(
                    f"{path}: '{name}' {item.shape} takes {claimed} bytes, but the file holds {held} of them;"
                    " it is damaged or was never filled, so get it again"
                )
            return np.dtype(item.dtype)

    def dims(name: str) -> tuple[str, ...]:
        with open_hdf5(path) as file:
            return () if reverse else _dims(file[places[name]])

    def fill(name: str) -> Any:
        with open_hdf5(path) as file:
            return _fill(file[places[name]], netcdf)

    def text(name: str) -> str | None:
        with open_hdf5(path) as file:
            return _text(file, places[name]) if name in places else None

    notes = (
        ("the file is HDF5 without MATLAB's own marks, named .mat: its axes are taken in MATLAB's order, the reverse of"
         " h5py's; if that is wrong, write 'axes' in the reverse order or name it .h5",)
        if reverse and not said and not marked else ()
    )  # fmt: skip
    return ArrayFile(path, shapes, read, others, text, attributes, dtype, dims, fill, find, notes)


def _list_hdf5(
    file: Any, places: dict[str, str], shapes: dict[str, Shape], others: dict[str, str]
) -> None:
    """All datasets that hard links lead to, each once (so a loop of links ends)."""
    import h5py

    def note(name: str, item: Any) -> None:
        if not isinstance(item, h5py.Dataset):
            return
        places[name] = name
        why = _unusable(item)
        if why:
            others[name] = why
        elif not _is_bare_dimension(item):
            shapes[name] = item.shape

    file.visititems(note)


def _list_matlab(
    file: Any, places: dict[str, str], shapes: dict[str, Shape], others: dict[str, str]
) -> bool:
    """MATLAB's variables, fields and cells; whether any bears MATLAB's marks."""
    import h5py

    marked = False
    seen: set[Any] = set()  # structs may be reached by several links, or by their own fields

    def note(name: str, item: Any) -> None:
        nonlocal marked
        kind = item.attrs.get("MATLAB_class")
        marked |= kind is not None
        kind = kind.decode(errors="replace") if isinstance(kind, bytes) else kind
        kind = kind if isinstance(kind, str) else None
        places[name] = item.name
        if isinstance(item, h5py.Group):
            if "MATLAB_sparse" in item.attrs:
                # hard links: others may lead to other files, or nowhere
                own = [p for p in SPARSE if isinstance(item.get(p, getlink=True), h5py.HardLink)]
                arrays = [item[p] for p in own if getattr(item[p], "shape", None)]
                rows = item.attrs["MATLAB_sparse"]
                if len(own) < len(SPARSE):
                    others[name] = "an empty sparse matrix"
                elif len(arrays) < len(SPARSE) or not isinstance(rows, np.integer):
                    others[name] = "a damaged sparse matrix"
                else:
                    shapes[name] = (int(rows), arrays[2].size - 1)
            elif (key := h5py.h5o.get_info(item.id).addr) not in seen:
                seen.add(key)
                others[name] = "a struct"
                for part_name in item:
                    inside(f"{name}.{part_name}", item, part_name)
            return
        if "MATLAB_empty" in item.attrs:
            others[name] = "an empty array"
        elif h5py.check_ref_dtype(_dtype(item)) is h5py.Reference and item.shape is not None:
            others[name] = "a cell array"
            if len(places) > CELLS or item.size > CELLS or name.count("{") > DEPTH:
                return
            struct, _, field = name.rpartition(".")
            for i, reference in enumerate(np.ravel(item[()])[:CELLS], 1):
                element = file[reference] if reference else None
                if element is not None and element.name:
                    # a field of a struct array is a list of references too, but not marked as a cell
                    is_cell = kind == "cell" or not struct
                    note(f"{name}{{{i}}}" if is_cell else f"{struct}({i}).{field}", element)
        elif kind == "char":
            others[name] = "text"
        elif kind is not None and kind not in NUMERIC:
            others[name] = f"a MATLAB {kind}; save its numbers as a plain array"
        elif why := _unusable(item):
            others[name] = why
        else:
            shapes[name] = item.shape[::-1]

    def inside(name: str, group: Any, part_name: str) -> None:
        if isinstance(group.get(part_name, getlink=True), h5py.HardLink):
            note(name, group[part_name])

    for name in file:
        if not name.startswith("#"):
            inside(name, file, name)
    return marked


def _open(file: Any, place: str) -> Any:
    """A dataset whose values lie in this file, also through a soft link."""
    try:
        item = dataset(file, place)
    except (KeyError, RuntimeError) as error:  # a link without an end is a RuntimeError
        raise UserError(
            f"{file.filename}: '{place}' is a link that leads nowhere; name the array itself"
        ) from error
    if item.file.filename != file.filename:
        raise UserError(
            f"{file.filename}: '{place}' lies in another file, {item.file.filename}; give that file"
        )
    return item


def _dtype(item: Any) -> np.dtype:
    try:
        return np.dtype(item.dtype)
    except TypeError:  # HDF5 has types that NumPy has not
        return np.dtype(np.void)


def _unusable(item: Any) -> str:
    """Why a dataset is no numeric array; "" for one that is."""
    import h5py

    dtype = _dtype(item)
    if h5py.check_string_dtype(dtype) is not None:
        return "text"
    if h5py.check_ref_dtype(dtype) is not None:
        return "references to other arrays"
    return "an empty array" if item.shape is None else no_numbers(dtype)


def _is_bare_dimension(item: Any) -> bool:
    """Whether netCDF 4 wrote it only to name a dimension: its values mean nothing."""
    if len(item.shape) != 1 or "CLASS" not in item.attrs:
        return False
    name = item.attrs.get("NAME", b"")
    text = name.decode(errors="replace") if isinstance(name, bytes) else str(name)
    return text.startswith("This is a netCDF dimension but not a netCDF variable")


def _attributes(item: Any) -> dict[str, Any]:
    """Attributes that can be read as numbers or text, and are as small as what says something of bands or values."""
    import h5py

    found = {}
    for name in item.attrs:
        try:
            if item.attrs.get_id(name).get_storage_size() > LARGEST:
                continue
            value = item.attrs[name]
        except (OSError, TypeError, ValueError, UnicodeDecodeError, RuntimeError, KeyError):
            continue  # damaged, or of a type that NumPy has not
        long = isinstance(value, str | bytes) and len(value) > LARGEST
        if not long and not isinstance(value, h5py.Empty):
            found[name] = value
    return found


def _dims(item: Any) -> tuple[str, ...]:
    """Names of a dataset's axes: of the dimension scales at them (netCDF 4), else their labels."""
    names = []
    for axis in range(getattr(item, "ndim", 0)):
        scales = dimension_scales(item, axis)
        named = str(scales[0].name).rpartition("/")[2] if scales else ""
        names.append(named or dimension_label(item, axis))
    return tuple(names)


def _fill(item: Any, netcdf: bool) -> Any:
    """What the dataset says is where nothing was written; None when it is 0, as it is when nobody said anything."""
    import h5py

    if not isinstance(item, h5py.Dataset):
        return None
    if item.id.get_create_plist().fill_value_defined() != h5py.h5d.FILL_VALUE_USER_DEFINED:
        return None
    if netcdf and item.dtype.itemsize == 1:  # netCDF puts one there, but bytes use all their values
        return None
    return item.fillvalue if item.fillvalue != 0 else None


def _text(file: Any, place: str) -> str | None:
    """A text, a list of texts, or a cell of them, short enough to be about bands."""
    import h5py

    item = file.get(place)
    if not isinstance(item, h5py.Dataset) or not item.shape or item.size > 10_000:
        return (
            str(item.asstr()[()])
            if isinstance(item, h5py.Dataset)
            and item.shape == ()
            and (h5py.check_string_dtype(item.dtype))
            else None
        )
    if h5py.check_string_dtype(item.dtype):
        return ", ".join(str(v).strip() for v in np.ravel(item.asstr(errors="replace")[()]))
    kind = item.attrs.get("MATLAB_class")
    if kind in (b"char", "char"):
        return "".join(chr(c) for c in np.ravel(item[()])).strip()
    if h5py.check_ref_dtype(item.dtype) is h5py.Reference:
        words = [_word(file, reference) for reference in np.ravel(item[()])]
        return ", ".join(w for w in words if w) if None not in words else None
    return None


def _word(file: Any, reference: Any) -> str | None:
    item = file[reference] if reference else None
    if item is None or not hasattr(item, "shape"):
        return None
    if item.attrs.get("MATLAB_class") in (b"char", "char"):
        return _text(file, item.name)
    return str(np.ravel(item[()])[0]) if item.size == 1 and item.dtype.kind in "biuf" else None


def _sparse(group: Any) -> np.ndarray:
    """MATLAB's sparse matrix, in MATLAB's axis order: columns compressed, `jc` where each begins."""
    from scipy.sparse import csc_matrix

    parts = tuple(group[n][()] for n in SPARSE)
    rows = int(group.attrs["MATLAB_sparse"])
    if 8 * rows * len(parts[2]) > CLAIMED:
        raise UserError(
            f"{group.file.filename}: '{group.name}' is a sparse matrix of {rows} x {len(parts[2]) - 1},"
            " too large for an image; save it as full(...)"
        )
    return np.asarray(csc_matrix(parts, shape=(rows, len(parts[2]) - 1)).toarray())
