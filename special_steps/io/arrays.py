"""Arrays in MATLAB (v4 to v7.3), HDF5, netCDF (3 and 4) and NumPy files: one variable of a file as a raster.

The format is known by the file's first bytes, whatever its name. Windows of rows and columns are read, but variables of
MATLAB up to v7 and of .npz as a whole, once: their formats store them as one block.
"""

import itertools
import logging
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from special_steps.core.errors import UserError
from special_steps.io.array_attributes import plain, see, stated_by_attributes
from special_steps.io.array_file import ArrayFile, Shape
from special_steps.io.array_georeference import georeference
from special_steps.io.array_hdf5 import open_arrays
from special_steps.io.array_matlab import open_matlab
from special_steps.io.array_netcdf3 import open_netcdf3
from special_steps.io.array_numpy import open_npy, open_npz
from special_steps.io.axes import AxesLayout, read_axes
from special_steps.io.envi import stated_by
from special_steps.io.hdf5 import HDF5
from special_steps.io.record import Source, reading
from special_steps.io.wavelengths import merged, to_nm

log = logging.getLogger("special")

MATLAB = (".mat",)
NUMPY = (".npy", ".npz")
NETCDF3 = (".nc3", ".cdf")
ARRAYS = (*MATLAB, *HDF5, *NUMPY, *NETCDF3)

# names of dimensions, and of variables, without case and other signs than letters
DIMENSIONS = {
    "band": "band bands nband nbands wavelength wavelengths wvl wl lambda spectral spectralband spectralbands channel"
    " channels bandnumber numberofbands numbands class classes",
    "y": "y lat latitude line lines nline nlines row rows nrow nrows northing downtrack alongtrack height ydim",
    "x": "x lon longitude sample samples nsample nsamples col cols column columns ncols easting crosstrack acrosstrack"
    " width xdim",
}
UNITS = {"nm": "nm", "nanometers": "nm", "nanometer": "nm", "nanometres": "nm", "um": "um", "micrometers": "um",
         "micrometer": "um", "micrometres": "um", "microns": "um"}  # fmt: skip
WAVELENGTHS = (r"(sensor|band|bands|center|centre|central|hsi|cube)?(wavelengths?|wvls?|wls?|lambdas?|centers|centres)"
               r"(list|centers?|centres?)?")  # fmt: skip
# what lies beside the wavelengths and says more of the bands, as the fields of an ENVI header
FIELDS = {
    "fwhm": ("fwhm", "fwhms"),
    "wavelength units": ("wavelengthunits", "wavelengthunit", "units"),
    "bbl": ("bbl", "goodbands", "goodband", "goodwavelengths"),
    "reflectance scale factor": ("reflectancescalefactor",),
    "data ignore value": ("dataignorevalue",),
    "data gain values": ("datagainvalues",),
    "data offset values": ("dataoffsetvalues",),
}


def open_array(
    path: Path,
    *,
    variable: str | None,
    axes: str | None,
    shape: Mapping[str, int] | None,
    one_layer: bool,
) -> Source:
    """Find the variable, say how its axes become (band, y, x), what the file says of it, and how to read windows of it.

    Axes that `axes` does not give are those that the file names (netCDF's dimensions), else "y x band". Axes of length
    1 beyond those of the pattern are left out. Wavelengths are those of a variable beside it with such a name (or unit)
    and as many values as bands, where there is one.

    Raises:
        UserError: for a damaged file, for a variable or axes that the file does not have, or not only once, and for one
            that holds no real numbers.
    """
    file = _array_file(path)
    return source_in(file, variable=variable, axes=axes, shape=shape, one_layer=one_layer)


def source_in(
    file: ArrayFile,
    *,
    variable: str | None,
    axes: str | None,
    shape: Mapping[str, int] | None,
    one_layer: bool,
) -> Source:
    """The same of named arrays, wherever they are: in a file that is listed, or in memory.

    Raises:
        UserError: as `open_array`.
    """
    path = file.path
    with reading(path):
        name = _choose(file, variable, axes, one_layer)
        where = f"{path}, variable '{name}'"
        dtype = file.dtype(name)
        full = file.shapes[name]
        if math.prod(full) == 0:
            raise UserError(f"{where}: has no values, its shape is {full}; get the file again")
        dims = file.dims(name)
        named = named_axes(dims, full) if dims else None
        notes = []
        if axes is None:
            axes, said = _default_axes(file, name, full, named, one_layer, where)
            notes += said
        elif (
            named and len(named.split()) == len(axes.split()) and "(" not in axes and named != axes
        ):
            notes.append(f"{where}: axes '{axes}' are given, but the file names them '{named}'")
        kept = _kept_axes(axes, full, where)
        layout = read_axes(axes, tuple(full[i] for i in kept), shape, where)
        bands = layout.shape[0]
        if bands == 1 and not one_layer:
            raise UserError(
                f"{where}: axes '{axes}' make one band of it; a scene needs the band axis"
            )
        values = stated_by_attributes(file.attributes(name), file.fill(name), dtype, bands, where)
        seen_as, valid = values.pop("seen_as"), values.pop("valid")
        on_ground = tuple(dims[i] for i in _of_y_and_x(dims)) if named == axes else ()
        about = [values, georeference(file, name, on_ground)]
        if not one_layer:
            about.append(_stated_bands(file, name, bands))
    stated = merged(*about)
    stated["notes"] = (*file.notes, *notes, *stated["notes"])  # type: ignore[misc]

    def read(rows: slice, columns: slice) -> np.ndarray:
        here, inner, rest = _window(layout, rows, columns)
        index = [slice(None)] * len(full)
        for axis, wanted in zip(kept, here, strict=True):
            index[axis] = wanted
        with reading(path):
            block = see(file.read(name, tuple(index)), seen_as, valid)
        block = block.reshape([block.shape[i] for i in kept])
        return inner.arrange(block)[(slice(None), *rest)]

    return Source([path], layout.shape, read, variables=dict(file.shapes), **stated)  # type: ignore[arg-type]


def read_variable(path: Path, name: str) -> np.ndarray:
    """Read one whole variable of a MATLAB, HDF5, netCDF or NumPy file, in the file's own axis order.

    Raises:
        UserError: for a damaged file, or one without the variable.
    """
    file = _array_file(path)
    with reading(path):
        return file.whole(_found(file, name))


def read_wavelengths(path: Path, name: str) -> np.ndarray:
    """Read a variable of wavelengths, (band,) nm, in the unit that the file states for it, also where it is text.

    Raises:
        UserError: for a damaged file, one without the variable, and numbers that are no wavelengths.
    """
    file = _array_file(path)
    with reading(path):
        found = file.find(name)
        if found not in file.shapes and file.text(found) is None:
            found = _found(file, name)
        values = _numbers(file, found)
        if values is None:
            raise UserError(
                f"{path}: '{name}' is no list of numbers; the file has {file.listing()}"
            )
        nm = to_nm(values, _unit(file, found), f"{path}, '{name}'")
    if nm is None:
        raise UserError(f"{path}: '{name}' holds numbers of bands, no wavelengths; name another")
    return nm


def _array_file(path: Path) -> ArrayFile:
    """List the variables of a file without reading their values; by its first bytes, whatever its name."""
    with reading(path):
        import h5py

        if not path.is_file():
            raise UserError(
                f"{path}: no file (a folder, device or pipe), or none there; give a file"
            )
        with path.open("rb") as stream:
            start = stream.read(128)
        if start.startswith(b"\x93NUMPY"):
            return open_npy(path)
        if start.startswith(b"PK"):
            return open_npz(path)
        if start.startswith(b"CDF") and start[3:4] in b"\1\2\5":
            return open_netcdf3(path)
        if start.startswith(b"\x0e\x03\x13\x01"):
            raise UserError(
                f"{path}: an HDF4 file, which is not read here; convert it to HDF5 (h4toh5 IN.hdf OUT.h5) or"
                " to a GeoTIFF (gdal_translate, of a GDAL with HDF4)"
            )
        if h5py.is_hdf5(path):
            return open_arrays(path)
        suffix = path.suffix.lower()
        if suffix in NUMPY and start[:1] == b"\x80":
            raise UserError(
                f"{path}: a Python pickle; it is never loaded, as that may run code: save the numbers with"
                " numpy.save(path, array)"
            )
        if suffix in MATLAB or start.startswith(b"MATLAB 5.0"):
            return open_matlab(path)
        kind = "NumPy" if suffix in NUMPY else "netCDF" if suffix in (*NETCDF3, ".nc") else "HDF5"
        size = path.stat().st_size
        raise UserError(
            f"{path}: cannot be read: no {kind} file ({'it is empty' if not size else 'damaged'}, or of"
            " another format); get it again"
        )


def _choose(file: ArrayFile, variable: str | None, axes: str | None, one_layer: bool) -> str:
    """The variable that is named, else the only one with so many dimensions."""
    if variable is not None:
        return _found(file, variable)
    if axes is None:
        wanted: tuple[int, ...] = (2, 3) if one_layer else (3,)
    else:
        wanted = (len(re.findall(r"\([^()]*\)|\w+", axes)),)
    fitting = [
        n
        for n, s in file.shapes.items()
        if len(s) in wanted or (len(_long(s)) in wanted and len(s) > 3)
    ]
    if len(fitting) > 1:  # MATLAB has no vectors, only matrices of one row or column
        fitting = [n for n in fitting if min(file.shapes[n]) > 1] or fitting
    arrays = [n for n, s in file.shapes.items() if len(_long(s)) > 1]
    if not fitting and len(arrays) == 1:
        return arrays[0]  # what is wrong with it is said then
    # which element of a cell array is meant is for the user to say
    if len(fitting) != 1 or "{" in fitting[0]:
        raise UserError(
            f"{file.path}: which variable? Give 'variable'; the file has {file.listing()}"
        )
    return fitting[0]


def _found(file: ArrayFile, name: str) -> str:
    """A numeric variable by its name, or by the name of the one-element cell array that holds it."""
    known = file.find(name)
    if known in file.shapes:
        return known
    if file.others.get(known) == "a cell array":
        elements = [n for n in file.shapes if n.startswith(f"{known}{{")]
        if elements == [f"{known}{{1}}"]:
            return elements[0]
    inside = [n for n in file.shapes if re.match(re.escape(known.strip("/")) + r"[./{(]", n)]
    if inside:
        kind = file.others.get(known, "a folder inside the file")
        raise UserError(
            f"{file.path}: '{name}' is {kind}; name an array in it:"
            f" {replace(file, shapes={n: file.shapes[n] for n in inside}).listing()}"
        )
    if known in file.others:
        raise UserError(
            f"{file.path}: '{name}' holds {file.others[known]}; the file has {file.listing()}"
        )
    raise UserError(f"{file.path}: no variable '{name}'; the file has {file.listing()}")


def _long(shape: Shape) -> Shape:
    return tuple(n for n in shape if n != 1)


def named_axes(dims: tuple[str, ...], full: Shape) -> str | None:
    """Axes pattern of named dimensions, such as "band y x"; None unless each is named once, the others are long 1."""
    words = [axis_of(d) for d in dims]
    known = [w for w in words if w]
    if sorted(known) not in (["band", "x", "y"], ["x", "y"]):
        return None
    return (
        None
        if any(n > 1 for w, n in zip(words, full, strict=True) if w is None)
        else " ".join(known)
    )


def axis_of(dim: str) -> str | None:
    """Which axis a dimension's name means: band, y or x."""
    word = re.sub(r"[^a-z]", "", dim.lower())
    return next((axis for axis, words in DIMENSIONS.items() if word in words.split()), None)


def _of_y_and_x(dims: tuple[str, ...]) -> list[int]:
    axes = [axis_of(d) for d in dims]
    return [axes.index("y"), axes.index("x")]


def _default_axes(
    file: ArrayFile, name: str, full: Shape, named: str | None, one_layer: bool, where: str
) -> tuple[str, list[str]]:
    """The axes that the file names, else y x band; and notes on it.

    Raises:
        UserError: where neither can be, or the file's wavelengths say that another axis is the bands'.
    """
    if named:
        log.info("%s: axes '%s', as the file names them", where, named)
        return named, []
    shape = full if len(full) <= 3 else _long(full)
    if one_layer and len(_long(full)) <= 2 < len(full):
        shape = _long(full) if len(_long(full)) == 2 else full
    if len(shape) == 2 and one_layer:
        return "y x", []
    if len(shape) != 3:
        raise UserError(
            f"{where}: a {len(full)}-D array of shape {full}, not y x band; say what its axes"
            " are with 'axes', and with 'shape' how long the joined ones are, for example"
            " axes: 'band (x y)', shape: {x: 95, y: 95}"
        )
    if one_layer:
        return "y x band", []
    counts = {math.prod(file.shapes[n]) for n in _named_wavelengths(file)}
    if shape[2] not in counts and (shape[0] in counts) != (shape[1] in counts):
        pattern = "band y x" if shape[0] in counts else "y band x"
        raise UserError(
            f"{where}: an array of shape {full}, and {shape[0 if shape[0] in counts else 1]} wavelengths in"
            f" the file, so its axes are not y x band; write axes: '{pattern}'"
            f" (or '{' '.join(reversed(pattern.split())) if shape[1] in counts else 'band x y'}')"
        )
    if shape[1] == shape[2] != shape[0] or (shape[2] > 1000 and min(shape[:2]) < 1000):
        note = f"{where}: its shape {full} is taken as y x band, {shape[2]} bands; if that is wrong, give 'axes'"
        return "y x band", [note]
    return "y x band", []


def _kept_axes(axes: str, full: Shape, where: str) -> list[int]:
    """Which stored axes the pattern names: those of length 1 that it has no name for are left out."""
    count = len(re.findall(r"\([^()]*\)|\w+", axes))
    ones = [i for i, n in enumerate(full) if n == 1]
    surplus = len(full) - count
    if surplus <= 0 or surplus > len(ones):
        return list(range(len(full)))
    ways = [
        [i for i in range(len(full)) if i not in left]
        for left in itertools.combinations(ones, surplus)
    ]
    if len({tuple(full[i] for i in way) for way in ways}) > 1:
        raise UserError(
            f"{where}: axes '{axes}' name {count} of its {len(full)} axes, of shape {full}, and which of"
            " those of length 1 are left out is not clear; name a part of the file with fewer axes"
        )
    return ways[0]


def _window(
    layout: AxesLayout, rows: slice, columns: slice
) -> tuple[list[slice], AxesLayout, tuple[slice, slice]]:
    """Slices of the stored axes that hold a window, the layout of what they give, and what to cut from it then.

    An axis that joins two is cut along the one that changes slowest.
    """
    wanted = {"y": rows, "x": columns}
    sizes, here = dict(layout.sizes), []
    rest = dict(wanted)
    for group in layout.groups:
        name = group[0]
        if name not in wanted:
            here.append(slice(None))
            continue
        start, stop, _ = wanted[name].indices(layout.sizes[name])
        stop = max(start, stop)
        step = math.prod(layout.sizes[n] for n in group[1:])
        here.append(slice(start * step, stop * step))
        sizes[name] = stop - start
        rest[name] = slice(None)
    return here, replace(layout, sizes=sizes), (rest["y"], rest["x"])


def _named_wavelengths(file: ArrayFile) -> Iterator[str]:
    """Vectors of numbers whose name says that they are wavelengths."""
    for name, shape in file.shapes.items():
        if len(_long(shape)) == 1 and is_wavelengths(name):
            yield name


def is_wavelengths(name: str) -> bool:
    """Whether a variable's name says that it holds wavelengths."""
    word = plain(re.split(r"[./]", name)[-1])
    for unit in UNITS:
        word = word.removesuffix(unit) if word != unit else word
    return re.fullmatch(WAVELENGTHS, word) is not None


def _stated_bands(file: ArrayFile, name: str, bands: int) -> dict[str, Any]:
    """What variables and attributes beside an array say of its bands."""
    own = _attribute_fields(file.attributes(name), bands) or _attribute_fields(
        file.attributes(""), bands
    )
    if own:
        log.info("%s: the attributes of '%s' state wavelengths", file.path, name)
        return stated_by(own, file.path, bands)
    vectors = [n for n, s in file.shapes.items() if math.prod(s) == bands and n != name]
    texts = [n for n, w in file.others.items() if w in ("text", "a cell array")]
    likely = [n for n in (*vectors, *texts) if is_wavelengths(n)]
    # looking for units opens each; who stores hundreds of vectors names them
    likely = likely or [n for n in vectors[:200] if _has_unit(file, n)]
    candidates = {}
    for known in likely:
        values = _numbers(file, known)
        if values is not None and len(values) == bands:
            candidates[known] = (values, _unit(file, known))
    if not candidates:
        return {"doubts": {}, "notes": ()}
    chosen = _nearest(file, name, candidates)
    if chosen is None:
        return {
            "doubts": {
                "wavelengths": f"{file.path}: several variables could be the wavelengths of '{name}':"
                f" {', '.join(map(repr, candidates))}; say which with"
                " scenes.<name>.cube.wavelengths: {variable: name}"
            },
            "notes": (),
        }
    values, unit = candidates[chosen]
    log.info("%s: the variable '%s' states wavelengths", file.path, chosen)
    fields = {"wavelength": _listed(values)} | _beside_fields(file, chosen, bands, unit)
    return stated_by(fields, file.path, bands)


def _nearest(
    file: ArrayFile, name: str, candidates: Mapping[str, tuple[np.ndarray, str | None]]
) -> str | None:
    """The one of several lists of wavelengths that belongs to an array; None when that is not clear."""

    def nm(known: str) -> np.ndarray | None:
        try:
            return to_nm(*candidates[known], str(file.path))
        except UserError:
            return None

    sure = [n for n in candidates if is_wavelengths(n)] or list(candidates)
    if len(sure) == 1:
        return sure[0]
    lists = {n: found for n in sure if (found := nm(n)) is not None}
    if len(lists) <= 1:
        return next(iter(lists), sure[0])
    first = next(iter(lists.values()))
    if all(np.allclose(first, other, rtol=1e-4, equal_nan=True) for other in lists.values()):
        return next((n for n in lists if candidates[n][1]), next(iter(lists)))
    groups = re.split(r"[./]", name)[:-1]

    def nearness(known: str) -> tuple[int, int]:
        others = re.split(r"[./]", known)[:-1]
        pairs = zip(groups, others, strict=False)
        shared = sum(1 for _ in itertools.takewhile(lambda p: p[0] == p[1], pairs))
        return shared, -len(others)

    best = max(map(nearness, lists))
    nearest = [n for n in lists if nearness(n) == best]
    return nearest[0] if len(nearest) == 1 else None


def _has_unit(file: ArrayFile, name: str) -> bool:
    """Whether a vector bears a unit of wavelengths, and no name of something else that does."""
    if re.search("fwhm|width|resolution|error|shift", plain(name)):
        return False
    return plain(_attribute_unit(file.attributes(name)) or "") in UNITS


def _attribute_unit(attributes: Mapping[str, Any]) -> str | None:
    for name, value in attributes.items():
        if plain(name) in ("units", "unit", "wavelengthunits", "wavelengthunit") and np.size(value):
            first = np.ravel(value)[0]
            return first.decode(errors="replace") if isinstance(first, bytes) else str(first)
    return None


def _unit(file: ArrayFile, name: str) -> str | None:
    """The unit of a variable: its attribute, else the end of its name, else a text beside it."""
    stated = _attribute_unit(file.attributes(name))
    if stated is not None:
        return stated
    ending = plain(re.split(r"[./]", name)[-1])
    for word, unit in UNITS.items():
        if ending.endswith(word) and ending != word:
            return unit
    return _siblings(file, name, ("wavelengthunits", "wavelengthunit", "units"))


def _siblings(file: ArrayFile, name: str, wanted: tuple[str, ...]) -> str | None:
    """A text in the same group or struct."""
    group = re.match(r"(.*[./])?", name)[0]  # type: ignore[index]
    for known in file.others:
        if known.startswith(group) and plain(known[len(group) :]) in wanted and known != name:
            return file.text(known)
    return None


def _numbers(file: ArrayFile, name: str) -> np.ndarray | None:
    """A variable's numbers, (n,) float64, also from text; None when it has none."""
    if name in file.shapes:
        return np.asarray(file.whole(name), np.float64).ravel()
    words = re.split(r"[,;\s]+", (file.text(name) or "").strip("{}[]() \n"))
    try:
        return np.array([float(w) for w in words], np.float64)
    except ValueError:
        return None


def _listed(values: np.ndarray) -> str:
    return ", ".join(repr(float(v)) for v in values.ravel())


def _attribute_fields(attributes: Mapping[str, Any], bands: int) -> dict[str, str]:
    """Attributes of an array as fields of an ENVI header; {} unless they hold a wavelength for each band."""
    fields: dict[str, str] = {}
    for name, value in attributes.items():
        texts = [
            v.decode(errors="replace") if isinstance(v, bytes) else str(v) for v in np.ravel(value)
        ]
        text = ", ".join(texts).strip("{} \n")
        if is_wavelengths(name) and len(re.split(r"[,\s]+", text)) == bands:
            fields["wavelength"] = text
        for field in ("fwhm", "bbl", "wavelength units"):
            if plain(name) in FIELDS[field] and plain(name) != "units":
                fields[field] = text
    return fields if "wavelength" in fields else {}


def _beside_fields(file: ArrayFile, chosen: str, bands: int, unit: str | None) -> dict[str, str]:
    """Other fields of an ENVI header in the same group or struct as the wavelengths."""
    fields = {"wavelength units": unit} if unit else {}
    group = re.match(r"(.*[./])?", chosen)[0]  # type: ignore[index]
    for known in (*file.shapes, *file.others):
        if not known.startswith(group) or known == chosen:
            continue
        word = plain(known[len(group) :])
        field = next((f for f, words in FIELDS.items() if word in words), None)
        if field is None or field in fields:
            continue
        if known in file.shapes:
            if math.prod(file.shapes[known]) in (1, bands):
                fields[field] = _listed(np.asarray(file.whole(known), np.float64))
        elif text := file.text(known):
            fields[field] = text.strip("{} ")
        if field == "fwhm" and unit and (_attribute_unit(file.attributes(known)) or unit) != unit:
            del fields[field]  # in another unit than the centres
    return fields
