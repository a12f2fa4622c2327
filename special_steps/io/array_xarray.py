"""A cube in memory, or opened lazily: xarray's arrays are named as a file's are, and read by the same reader.

Its data model is netCDF's: dimensions have names, what lies along them are coordinates, attributes say the rest. So a
DataArray or Dataset is listed like a netCDF file, and `io/arrays.py` finds bands, wavelengths, scale and place. Beyond
it: `band` of this project's own stores and of many others holds the wavelengths itself; rioxarray names the variable of
the CRS in `encoding`; stores state the exact georeference in attributes.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray

from special_steps.core.errors import UserError
from special_steps.io.array_attributes import plain
from special_steps.io.array_file import ArrayFile, Index, no_numbers, part
from special_steps.io.arrays import FIELDS, axis_of, is_wavelengths, named_axes, source_in
from special_steps.io.envi_header import numbers_in
from special_steps.io.record import Source
from special_steps.io.wavelengths import is_numbering

WHERE = Path("cube")  # what messages call it, who has no file
MAPPING = "spatial_ref"  # its usual name
NEAR = 0.01  # of a pixel: what rounded coordinates may differ by from the stated transform


def source_of(
    cube: xarray.DataArray | xarray.Dataset,
    *,
    variable: str | None = None,
    axes: str | None = None,
    shape: Mapping[str, int] | None = None,
) -> Source:
    """A cube as a `Source`; its values are read by windows, so that one opened lazily stays so.

    A Dataset of this project's own stores brings its mask, `nodata` (y, x), too.

    Args:
        cube: with dimensions for band, y and x, in any order, and wavelengths along the band's.
        variable: which variable of a Dataset; None when there is only one that fits.
        axes: what the dimensions are, such as "y x band", where their names don't say it.
        shape: lengths of the axes that `axes` joins.

    Raises:
        UserError: as `io.arrays.open_array`; for dimensions whose names are not known; and for no wavelengths, once
            they are asked for.
    """
    if isinstance(cube, xarray.Dataset):
        dataset = cube
    else:
        dataset, variable = cube.to_dataset(name="values", promote_attrs=True), "values"
    file = _listed(dataset)
    if axes is None:
        chosen = [variable] if variable else [n for n, s in file.shapes.items() if len(s) == 3]
        dims = file.dims(chosen[0]) if len(chosen) == 1 and chosen[0] in file.shapes else ()
        if dims and named_axes(dims, file.shapes[chosen[0]]) is None:
            raise UserError(
                f"{WHERE}: which of its dimensions {', '.join(dims)} are band, y and x? Rename them, as in"
                " cube.rename(rows='y'), or say it with axes, such as \"y x band\""
            )
    source = source_in(file, variable=variable, axes=axes, shape=shape, one_layer=False)
    doubts = dict(source.doubts)
    if source.wavelengths is None:
        doubts.setdefault(
            "wavelengths",
            f"{WHERE}: no wavelengths lie along its bands; give them in nm with wavelengths, or in the cube:"
            " cube.assign_coords(wavelength=('band', [...]))",
        )
    place = _place(dataset, source)
    mask = dataset.get("nodata")
    if mask is not None and mask.dtype == bool and set(mask.dims) == {"y", "x"}:
        place["masked"] = lambda rows, columns: (
            mask.transpose("y", "x").isel(y=rows, x=columns).values
        )
    return replace(source, doubts=doubts, kind="xarray", variables={}, **place)


def _listed(dataset: xarray.Dataset) -> ArrayFile:
    """The variables of a dataset as those of a file."""
    by_name = {str(name): found for name, found in dataset.variables.items()}
    notes = _add_bands(by_name, _plain(_attributes(dataset)))
    others = {n: why for n, v in by_name.items() if (why := no_numbers(v.dtype))}
    for name in others:  # numbers as text, such as rioxarray's wavelengths of ENVI files
        others[name] = "text" if _is_text(by_name[name]) else others[name]

    def attributes(name: str) -> Mapping[str, Any]:
        given = _plain(by_name[name].attrs if name else dataset.attrs)
        kept = {n: v for n, v in given.items() if _of_bands(n) is None}
        mapping = by_name[name].encoding.get("grid_mapping", MAPPING) if name else ""
        return ({"grid_mapping": mapping} if mapping in by_name else {}) | kept

    def read(name: str, index: Index) -> np.ndarray:
        return part(np.asarray(by_name[name][index].values), ())

    return ArrayFile(
        WHERE,
        {n: tuple(v.shape) for n, v in by_name.items() if n not in others},
        read,
        others,
        text=lambda name: ", ".join(map(str, np.ravel(by_name[name].values))),
        attributes=attributes,
        dtype=lambda name: by_name[name].dtype,
        dims=lambda name: tuple(map(str, by_name[name].dims)),
        notes=notes,
    )


def _add_bands(
    by_name: dict[str, xarray.Variable], attributes: Mapping[str, Any]
) -> tuple[str, ...]:
    """Add what is said of the bands elsewhere than in coordinates, as variables beside them; notes on what is not.

    A coordinate named as the dimension of the bands may hold the wavelengths; attributes may list them, and with them
    widths and good bands. Attributes stay as they are when bands are chosen or sorted, coordinates follow: so those
    count first, and attributes that list other wavelengths than they do are left out, with all that they list.
    """
    along = {role: n for n, v in by_name.items() if v.ndim == 1 and (role := _of_bands(n))}
    for name, found in list(by_name.items()):
        own = found.dims == (name,) and axis_of(name) == "band" and found.dtype.kind in "iuf"
        if own and "wavelength" not in along and not _counts(found.values):
            by_name["wavelength"], along["wavelength"] = found, "wavelength"
    listed = {role: v for n, v in attributes.items() if (role := _of_bands(n)) for v in [_list(v)]}
    listed = {role: values for role, values in listed.items() if len(values) > 1}
    centres = by_name[along["wavelength"]] if "wavelength" in along else None
    stated = listed.get("wavelength")
    other = centres is not None and any(len(v) != len(centres) for v in listed.values())
    if centres is not None and stated is not None and not other:
        other = not np.allclose(stated, _list(centres.values), rtol=1e-4, equal_nan=True)
    for role in () if other else listed.keys() - along.keys():
        by_name[role] = xarray.Variable((f"bands of {role}",), listed[role])
    unit = next((v for n, v in attributes.items() if plain(n) == "wavelengthunits"), None)
    if unit is not None:
        by_name["wavelength_units"] = xarray.Variable((), str(unit))
    if other and "bbl" not in along and not all(listed.get("bbl", [1])):
        return (
            f"{WHERE}: its attributes tell good bands of other bands than it has, which were chosen or sorted since:"
            " they are left out; name bad ones with scenes.<name>.cube.bad_ranges",
        )
    return ()


def _counts(values: np.ndarray) -> bool:
    """Whether numbers along the bands count them, also some of them: whole ones that lie 1 apart."""
    ones = values.dtype.kind in "iu" and (np.abs(np.diff(values.astype(float))) == 1).all()
    return bool(ones) or is_numbering(values.astype(float))


def _of_bands(name: str) -> str | None:
    """What a name says of the bands, in the words of an ENVI header: wavelength, fwhm or bbl."""
    if is_wavelengths(name):
        return "wavelength"
    return next((role for role in ("fwhm", "bbl") if plain(name) in FIELDS[role]), None)


def _list(value: Any) -> np.ndarray:
    """Numbers of a list, or of a text of them as in ENVI headers; none of anything else."""
    try:
        if isinstance(value, str):
            return np.array(numbers_in(value.strip("{} \n")), np.float64)
        return np.ravel(value).astype(np.float64)
    except (TypeError, ValueError):
        return np.zeros(0)


def _attributes(dataset: xarray.Dataset) -> dict[Any, Any]:
    """Those of the dataset, and of its arrays of three dimensions over them."""
    found = dict(dataset.attrs)
    for array in dataset.data_vars.values():
        found |= array.attrs if array.ndim == 3 else {}
    return found


def _is_text(array: xarray.Variable) -> bool:
    return array.size > 0 and all(isinstance(v, str) for v in np.ravel(array.values))


def _plain(attributes: Mapping[Any, Any]) -> dict[str, Any]:
    """Attributes by name, without mappings, which no file has."""
    return {str(n): v for n, v in attributes.items() if not isinstance(v, Mapping)}


def _place(dataset: xarray.Dataset, source: Source) -> dict[str, Any]:
    """CRS and transform where coordinates don't say them, or say them rounded.

    Attributes and GDAL's GeoTransform are not changed when an array is cut: coordinates count where both differ.
    """
    stated = _attributes(dataset)
    mapping = dataset.variables.get(MAPPING)
    about: Mapping[str, Any] = {} if mapping is None else mapping.attrs
    transform = stated.get("spatial:transform")
    if transform is None and "GeoTransform" in about:
        c, a, b, f, d, e = (float(word) for word in str(about["GeoTransform"]).split())
        transform = (a, b, c, d, e, f)
    found: dict[str, Any] = {}
    if source.crs is None and stated.get("proj:wkt2"):
        found["crs"] = str(stated["proj:wkt2"])
    if transform is None:
        return found
    exact = tuple(float(number) + 0.0 for number in transform)  # no -0.0
    if source.transform is not None:
        if np.allclose(_corners(exact, source.shape), _corners(source.transform, source.shape),
                       rtol=0, atol=NEAR * abs(source.transform[0])):  # fmt: skip
            found["transform"] = exact
    elif not any(axis_of(str(name)) in ("y", "x") for name in dataset.coords):
        found["transform"] = exact
        found["notes"] = (
            *source.notes,
            f"{WHERE}: it has no coordinates along y and x, and lies where its attributes say: right only if no part"
            " of it was cut off",
        )
    return found


def _corners(transform: tuple[float, ...], shape: tuple[int, int, int]) -> list[float]:
    """x and y of the upper left and the lower right corner."""
    a, b, c, d, e, f = transform
    _, height, width = shape
    return [c, f, c + a * width + b * height, f + d * width + e * height]
