"""Opens a raster file of any known format: ENVI, MATLAB, HDF5, NumPy, GeoTIFF and PNG, GeoTIFF tiles of one grid.

Reading is by rows, so that a large scene never has to be in memory as a whole, except variables of MATLAB v5 and .npz,
which their formats store as one block.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from special_steps.core.errors import UserError
from special_steps.io.arrays import HDF5, MATLAB, NUMPY, open_array
from special_steps.io.envi import find_pair, open_envi
from special_steps.io.raster import RASTER, open_rasters
from special_steps.io.record import Source


def open_source(
    path: str | Path | Sequence[str | Path],
    *,
    variable: str | None = None,
    axes: str | None = None,
    shape: Mapping[str, int] | None = None,
    one_layer: bool = False,
) -> Source:
    """Read what a file says about itself (header, tags, attributes), and how to read its values.

    Args:
        path: the file, or GeoTIFF tiles of one grid.
        variable: name of the array, for .mat, .h5 and .npz; None when there is only one that fits.
        axes: what the array's axes are, for .mat, .h5, .npy and .npz (see `read_axes`).
        shape: lengths of the axes that `axes` joins.
        one_layer: whether a single layer is allowed, as in label maps; a 2-D array is then "y x". A scene needs bands.

    Raises:
        UserError: for a file that is missing, of an unknown format, unreadable, truncated, or not what the options say.
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
    if suffix in (*MATLAB, *HDF5, *NUMPY):
        return open_array(first, variable=variable, axes=axes, shape=shape, one_layer=one_layer)
    for name, value in (("variable", variable), ("axes", axes), ("shape", shape)):
        if value:
            raise UserError(
                f"{first}: '{name}' is for .mat, .h5, .npy and .npz files;"
                f" this format states it by itself, so leave '{name}' out"
            )
    if suffix in RASTER:
        return open_rasters(paths)
    header, data = find_pair(first)
    if header is None:
        known = ", ".join((".hdr", *MATLAB, *HDF5, *NUMPY, *RASTER))
        raise UserError(
            f"{first}: unknown format '{suffix}' and no ENVI header (.hdr) beside it; known are {known}"
        )
    return open_envi(header, data)
