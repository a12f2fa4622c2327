"""netCDF 3 files, classic and with 64-bit offsets; netCDF 4 files are HDF5."""

import math
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from special_steps.core.errors import UserError
from special_steps.io.array_file import ArrayFile, Index, Shape, no_numbers, part

# NetCDF Users' Guide, appendix B: values where nothing was written, unless _FillValue says otherwise; bytes have none
DEFAULT_FILL = {
    "i2": -32767,
    "i4": -2147483647,
    "f4": 9.969209968386869e36,
    "f8": 9.969209968386869e36,
}


def open_netcdf3(path: Path) -> ArrayFile:
    """Open a netCDF 3 file; a part of a variable is read through a memory map.

    Raises:
        UserError: for the format's third kind, CDF-5.
    """
    from scipy.io import netcdf_file

    with path.open("rb") as stream:
        if stream.read(4) == b"CDF\x05":
            raise UserError(
                f"{path}: a netCDF file of the kind CDF-5 (64-bit data), which is not read here;"
                " convert it to netCDF 4: nccopy -k nc4 IN.nc OUT.nc"
            )
    shapes: dict[str, Shape] = {}
    dtypes: dict[str, np.dtype] = {}
    dims: dict[str, tuple[str, ...]] = {}
    others: dict[str, str] = {}
    attributes: dict[str, Mapping[str, Any]] = {}
    try:
        with closing(netcdf_file(str(path), "r", mmap=True)) as file:
            attributes[""] = dict(file._attributes)
            stored = {name: _header(variable) for name, variable in file.variables.items()}
    except (
        MemoryError
    ) as error:  # a header is small; this one says that a name or list in it is not
        raise ValueError("lengths in its header are absurd") from error
    for name, (about, dtype, shape, axes) in stored.items():
        attributes[name] = about
        why = no_numbers(dtype)
        if why:
            others[name] = why
        else:
            shapes[name], dtypes[name], dims[name] = shape, dtype, axes

    def read(name: str, index: Index) -> np.ndarray:
        with closing(netcdf_file(str(path), "r", mmap=True)) as file:
            return part(file.variables[name].data, index)

    return ArrayFile(
        path,
        shapes,
        read,
        others,
        attributes=lambda name: attributes.get(name, {}),
        dtype=lambda name: dtypes[name],
        dims=lambda name: dims[name],
        fill=lambda name: (
            DEFAULT_FILL.get(dtypes[name].str[1:]) if math.prod(shapes[name]) else None
        ),
    )


def _header(variable: Any) -> tuple[dict[str, Any], np.dtype, Shape, tuple[str, ...]]:
    """Attributes, type, shape and dimensions; no reference to the data, or the map could not be closed."""
    data = variable.data
    shape = tuple(int(n) for n in data.shape)
    return dict(variable._attributes), np.dtype(data.dtype), shape, tuple(variable.dimensions)
