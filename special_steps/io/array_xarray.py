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
from special_steps.io.array_file import ArrayFile, Index, no_numbers, part
from special_steps.io.arrays import axis_of, is_wavelengths, named_axes, source_in
from special_steps.io.record import Source
from special_steps.io.wavelengths import is_numbering

WHERE = Path("cube")  # what messages call it, who has no file
WAVELENGTH, MAPPING = "wavelength", "spatial_ref"
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
    dataset = (
        cube
        if isinstance(cube, xarray.Dataset)
        else cube.to_dataset(name=cube.name or "values", promote_attrs=True)
    )
    file = _listed(dataset)
    if axes is None:
        chosen = [variable] if variable else [n for n, s in file.shapes.items() if len(s) == 3]
        dims = file.dims(chosen[0]) if len(chosen) == 1 and chosen[0] in file.shapes else None
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
    """The variables of a dataset as those of a file; a coordinate that holds the wavelengths, by that name, too."""
    by_name = {str(name): found for name, found in dataset.variables.items()}
    named = any(is_wavelengths(name) for name in by_name)
    for name, found in list(by_name.items()):
        own = found.dims == (name,) and axis_of(name) == "band" and found.dtype.kind == "f"
        if own and not named and not is_numbering(np.asarray(found.values, float)):
            by_name[WAVELENGTH] = found
    beside = any(is_wavelengths(name) and found.ndim for name, found in by_name.items())
    others = {n: why for n, v in by_name.items() if (why := no_numbers(v.dtype))}
    for name in others:  # numbers as text, such as rioxarray's wavelengths of ENVI files
        others[name] = "text" if _is_text(by_name[name]) else others[name]

    def attributes(name: str) -> Mapping[str, Any]:
        given = by_name[name].attrs if name else dataset.attrs
        # attributes are not changed when bands are chosen or sorted, coordinates are
        kept = {n: v for n, v in _plain(given).items() if not (beside and is_wavelengths(n))}
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
    )


def _is_text(array: xarray.Variable) -> bool:
    return array.size > 0 and all(isinstance(v, str) for v in np.ravel(array.values))


def _plain(attributes: Mapping[Any, Any]) -> dict[str, Any]:
    """Attributes by name as a file has them, which knows no truth values; none that are no numbers or texts."""
    found = {}
    for name, value in attributes.items():
        truths = isinstance(value, list) and all(isinstance(v, bool) for v in value)
        if not isinstance(value, Mapping):
            found[str(name)] = list(map(int, value)) if truths else value
    return found


def _place(dataset: xarray.Dataset, source: Source) -> dict[str, Any]:
    """CRS and transform where coordinates don't say them, or say them rounded.

    Attributes and GDAL's GeoTransform are not changed when an array is cut: coordinates count where both differ.
    """
    stated = dataset.attrs | next(
        (v.attrs for v in dataset.data_vars.values() if "spatial:transform" in v.attrs), {}
    )
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
    exact = tuple(map(float, transform))
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
