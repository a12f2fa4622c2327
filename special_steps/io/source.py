"""Opens a raster of any known format: products as delivered, ENVI, MATLAB, HDF5, netCDF, NumPy, GeoTIFF and PNG.

Reading is by windows, so that a large scene never has to be in memory as a whole, except variables of MATLAB v5 and
.npz, which their formats store as one block.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from special_steps.core.errors import UserError
from special_steps.io.arrays import ARRAYS, open_array
from special_steps.io.envi import find_pair, open_envi
from special_steps.io.hdf5 import HDF5, leads_out, open_hdf5
from special_steps.io.products import (
    aviris3,
    cf,
    desis,
    emit,
    enmap,
    hyperion,
    neon,
    prisma,
    tanager,
)
from special_steps.io.raster import RASTER, open_rasters, sidecars
from special_steps.io.record import Source, Window, reading

# in the order in which they are asked whether a path is theirs
PRODUCTS: tuple[Any, ...] = (enmap, desis, hyperion, prisma, tanager, emit, aviris3, neon, cf)
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")


def is_archive(path: str | Path) -> bool:
    """Whether a path is an archive that the workflow unpacks first."""
    return str(path).lower().endswith(ARCHIVES)


def source_files(path: str | Path) -> list[Path]:
    """All files that `open_source` reads for a path, by names alone: an edited one means another scene."""
    path = Path(path)
    _, files = _product(path)
    if files:
        return files
    if path.is_dir():
        scenes = scenes_in(path)
        return source_files(scenes[0]) if len(scenes) == 1 else []
    if path.suffix.lower() in RASTER:
        return [path, *sidecars(path)]
    if path.suffix.lower() in ARRAYS:
        return [path]
    try:
        pair = find_pair(path)
    except UserError:  # told when the file is opened
        return [path]
    found = dict.fromkeys(file for file in (path, *pair) if file is not None)
    return [file for file in found if file == path or file.is_file()]


def _product(path: Path) -> tuple[Any, list[Path]]:
    """The module that knows a product by its files' names, and those files."""
    for module in PRODUCTS:
        files = module.files_of(path)
        if files:
            return module, list(dict.fromkeys(files))
    return None, []


def scenes_in(folder: Path) -> list[Path]:
    """Files in a folder, or in its only subfolder, that may be a scene; not those that belong to another."""
    inside = sorted(folder.iterdir())
    files = [file for file in inside if file.is_file() and not file.name.startswith(".")]
    scenes = [f for f in files if f.suffix.lower() in (*RASTER, *ARRAYS)]
    owners = {
        str(side) for scene in scenes for side in sidecars(scene) if scene.suffix.lower() in RASTER
    }
    scenes += [f for f in files if f.suffix.lower() == ".hdr" and str(f) not in owners]
    folders = [f for f in inside if f.is_dir() and not f.is_symlink()]
    if not scenes and len(folders) == 1:
        _, product = _product(folders[0])
        return [folders[0]] if product else scenes_in(folders[0])
    return scenes


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
        path: the file, the folder of a product, GeoTIFF tiles of one grid, or files of one grid with a band each.
        variable: name of the array, for .mat, .h5, .nc and .npz; None when there is only one that fits.
        axes: what the array's axes are, for .mat, .h5, .nc, .npy and .npz (see `read_axes`).
        shape: lengths of the axes that `axes` joins.
        one_layer: whether a single layer is allowed, as in label maps; a 2-D array is then "y x". A scene needs bands.

    Raises:
        UserError: for a file that is missing, of an unknown format, unreadable, truncated, or not what the options say.
    """
    paths = [Path(path)] if isinstance(path, str | Path) else [Path(p) for p in path]
    if not paths:
        raise UserError("no file given: the path is an empty list")
    for p in paths:
        if not p.exists():
            raise UserError(f"{p}: no such file; check the path in the config")
        if not (p.is_file() or p.is_dir()):
            raise UserError(f"{p}: neither a file nor a folder (a device or pipe); give a file")
    if len(paths) > 1:
        others = [p for p in paths if p.suffix.lower() not in RASTER]
        if others:
            raise UserError(
                f"{others[0]}: only GeoTIFFs can be joined, tiles or a file for each band; give one file"
            )
    first, suffix = paths[0], paths[0].suffix.lower()
    as_stored = {"variable": variable, "axes": axes, "shape": shape}
    if len(paths) == 1 and not any(as_stored.values()):
        product = _open_product(first)
        if product:
            return product
    if first.is_dir():
        return open_source(_only_scene(first), one_layer=one_layer, **as_stored)  # type: ignore[arg-type]
    if is_archive(first):
        raise UserError(f"{first}: an archive; unpack it, and give the folder")
    if suffix in ARRAYS:
        return open_array(first, variable=variable, axes=axes, shape=shape, one_layer=one_layer)
    for name, value in as_stored.items():
        if value:
            raise UserError(
                f"{first}: '{name}' is for .mat, .h5, .nc, .npy and .npz files;"
                f" this format states it by itself, so leave '{name}' out"
            )
    if suffix in RASTER:
        return open_rasters(paths)
    header, data = find_pair(first)
    if header is None:
        known = ", ".join((".hdr", *ARRAYS, *RASTER))
        raise UserError(
            f"{first}: unknown format '{suffix}' and no ENVI header (.hdr) beside it; known are {known};"
            " GDAL converts many others: gdal_translate FILE scene.tif"
        )
    return open_envi(header, data)


def _open_product(path: Path) -> Source | None:
    """A product by its files' names, or by what an HDF5 file holds; None for what is none."""
    import h5py

    module, _ = _product(path)
    with reading(path):
        hdf5 = path.is_file() and path.suffix.lower() in HDF5 and h5py.is_hdf5(path)
        if hdf5:
            with open_hdf5(path) as file:
                if leads_out(file):  # no product does; arrays are read with nothing of other files
                    return None
        if module:
            return _checked(module.open_product(path))
    if not hdf5:
        return None
    for module in PRODUCTS:
        if hasattr(module, "holds"):
            found = False
            # a product that is damaged so that nothing in it can be told is none, or another's
            with suppress(UserError), open_hdf5(path) as file:
                found = module.holds(file)
            if found:
                with reading(path):
                    return _checked(module.open_product(path))
    return None


def _checked(source: Source) -> Source:
    """A product whose windows are checked: readers trust its definition, and a damaged file may hold anything."""
    where = source.files[0]

    def checked(window: Window, kinds: str) -> Window:
        def read(rows: slice, columns: slice) -> np.ndarray:
            with reading(where):
                block = np.asarray(window(rows, columns))
            if block.dtype.kind not in kinds:
                raise UserError(f"{where}: holds {block.dtype} where numbers belong; get it again")
            return block

        return read

    if not all(source.shape):
        raise UserError(f"{where}: has no values, its shape is {source.shape}; get it again")
    return replace(
        source,
        read=checked(source.read, "buif"),
        masked=source.masked and checked(source.masked, "b"),
        quality={name: checked(window, "b") for name, window in source.quality.items()},
    )


def _only_scene(folder: Path) -> Path:
    """The one scene in a folder.

    Raises:
        UserError: where there is none, or several.
    """
    with reading(folder):
        scenes = scenes_in(folder)
    if len(scenes) != 1:
        found = (
            f"{len(scenes)} files that may be scenes" if scenes else "no scene that is known here"
        )
        shown = ": " + ", ".join(s.name for s in scenes[:8]) if scenes else ""
        raise UserError(
            f"{folder}: a folder with {found}{shown}; give the scene's file as path (of a product, its"
            " main file)"
        )
    return scenes[0]
