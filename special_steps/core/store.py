"""The store contract: every result on disk is whole, described and checked, or it is not there.

A Zarr v3 directory holds named arrays with named dimensions; its attributes say what made it. It is written to a
temporary sibling, fsynced and renamed, so that a reader (or a second writer) never meets half of it. Others can open
it: coordinates lie in arrays named like their dimension (band: wavelengths in nm, class: names, y and x: pixel centres
in the CRS), the georeference follows the Zarr conventions `spatial:` and `proj:`, metadata are consolidated.
"""

import hashlib
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import zarr

from special_steps import __version__
from special_steps.core.atomic import atomic_write
from special_steps.core.errors import UserError

TILE = 256  # pixels along y and x of a chunk
# zarr's threads hold a chunk each, and their memory stays with the process: two, not four more than there are cores
zarr.config.set({"threading.max_workers": 2})
PACKAGES = ("numpy", "zarr", "torch", "open_clip_torch", "scikit-learn", "rasterio")
DTYPES = {  # by array name; the others are float32
    "nodata": "bool", "labels": "uint8", "witnesses": "uint8",
    "band": "float64", "good_band": "bool", "fwhm": "float64", "y": "float64", "x": "float64",
}  # fmt: skip
COORDINATES: dict[str, tuple[str, ...]] = {
    "band": ("good_band", "fwhm")
}  # by dimension, besides the array of its own name
# https://github.com/zarr-conventions/spatial and .../geo-proj, version 1
CONVENTIONS = [
    {
        "schema_url": f"https://raw.githubusercontent.com/zarr-conventions/{name}/refs/tags/v1/schema.json",
        "spec_url": f"https://github.com/zarr-conventions/{name}/blob/v1/README.md",
        "uuid": uuid,
        "name": prefix,
        "description": description,
    }
    for name, uuid, prefix, description in (
        (
            "spatial",
            "689b58e2-cf7b-45e0-9fff-9cfc0883d6b4",
            "spatial:",
            "Spatial coordinate information",
        ),
        (
            "geo-proj",
            "f17cb550-5864-4468-aeb7-f3180cfb622f",
            "proj:",
            "Coordinate reference system information for geospatial data",
        ),
    )
]


class Grid(NamedTuple):
    """Where the pixels of a scene lie."""

    crs: str | None = None  # WKT2
    transform: tuple[float, ...] | None = None  # a, b, c, d, e, f: (x, y) index to CRS, of corners


UNKNOWN = Grid()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, or, of a store, the digest that it was given when it was written."""
    path = Path(path)
    if path.is_dir():
        return str(open_store(path).attrs["digest"])
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def new_store(
    path: Path,
    *,
    step: str,
    settings: Mapping[str, Any],
    inputs: Sequence[Path],
    grid: Grid = UNKNOWN,
) -> Iterator[zarr.Group]:
    """Yield an empty Zarr group to fill; it appears at `path`, marked complete, when the block ends well.

    `settings` must be JSON-able; digests of `inputs` (files or stores) are recorded with the versions of the packages
    at work. The store's own digest is over what was written, arrays and georeference: equal content has an equal
    digest, whichever way it was made.
    """
    with atomic_write(path) as temporary:
        group = zarr.create_group(temporary)
        yield group
        _locate(group, grid)
        provenance: dict[str, Any] = {
            "step": step,
            "settings": dict(settings),
            "inputs": {str(p): file_digest(p) for p in inputs},
            "versions": {"special": __version__} | _versions(),
        }
        digest = hashlib.sha256()
        for file in sorted(p for p in temporary.rglob("*") if p.is_file()):
            digest.update(str(file.relative_to(temporary)).encode())
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
        group.attrs.update(
            provenance=provenance,
            digest=digest.hexdigest(),
            files=_chunk_files(temporary),
            complete=True,
        )
        with warnings.catch_warnings():  # readers that don't know it look at each array instead
            warnings.filterwarnings("ignore", "Consolidated metadata")
            zarr.consolidate_metadata(temporary)


def _locate(group: zarr.Group, grid: Grid) -> None:
    """Say where the pixels lie: in attributes of group and arrays, and as coordinates of their centres."""
    arrays = dict(group.arrays())
    images = [array for array in arrays.values() if _dimensions(array)[-2:] == ("y", "x")]
    for array in images:
        beside = [n for d in _dimensions(array) for n in COORDINATES.get(d, ()) if n in arrays]
        if beside:
            array.attrs["coordinates"] = " ".join(beside)
    if not images or (grid.crs is None and grid.transform is None):
        return
    said: dict[str, Any] = {"zarr_conventions": CONVENTIONS, "spatial:dimensions": ["y", "x"]}
    if grid.crs is not None:
        said["proj:wkt2"] = grid.crs
    if grid.transform is not None:
        said["spatial:transform"] = list(grid.transform)
    group.attrs.update(said)
    for array in images:
        array.attrs.update(said)
    if grid.transform is not None and grid.transform[1] == grid.transform[3] == 0:
        height, width = images[0].shape[-2:]
        a, _, c, _, e, f = grid.transform
        write_array(group, "y", f + e * (np.arange(height) + 0.5), ("y",))
        write_array(group, "x", c + a * (np.arange(width) + 0.5), ("x",))


def grid_of(store: zarr.Group) -> Grid:
    """Where the pixels of a store lie."""
    said: dict[str, Any] = store.attrs.asdict()
    transform = said.get("spatial:transform")
    return Grid(said.get("proj:wkt2"), None if transform is None else tuple(transform))


def _dimensions(array: zarr.Array) -> tuple[str, ...]:
    """The names of an array's dimensions."""
    return tuple(name or "" for name in getattr(array.metadata, "dimension_names", None) or ())


def write_names(group: zarr.Group, names: Sequence[str]) -> None:
    """Add the class names as coordinate `class`."""
    array = group.create_array("class", shape=(len(names),), dtype=str, dimension_names=["class"])
    array[:] = np.array(names, dtype=object)


def class_names(store: zarr.Group) -> list[str]:
    """The class names of a store, in the order of its dimension `class`."""
    return [str(name) for name in read_array(store, "class")]


def _chunk_files(store: Path) -> dict[str, int]:
    """Number and bytes of the files that hold the arrays' values; not metadata, nor what Snakemake adds."""
    sizes = [
        Path(folder, name).stat().st_size
        for folder, _, names in os.walk(store)
        for name in names
        if name != "zarr.json" and not name.startswith(".")
    ]
    return {"count": len(sizes), "bytes": sum(sizes)}


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def create_array(
    group: zarr.Group, name: str, shape: Sequence[int], dims: Sequence[str], dtype: str = "float32"
) -> zarr.Array:
    """Add an array chunked for tile access: 256 x 256 pixels along y and x, other dimensions whole."""
    chunks = tuple(min(n, TILE) if d in ("y", "x") else n for n, d in zip(shape, dims, strict=True))
    if len(dims) == 1:  # coordinates
        chunks = tuple(shape)
    return group.create_array(
        name, shape=tuple(shape), chunks=chunks, dtype=dtype, dimension_names=list(dims)
    )


def write_array(group: zarr.Group, name: str, data: np.ndarray, dims: Sequence[str]) -> None:
    """Add `data` as a whole array with the dimension names `dims`."""
    create_array(group, name, data.shape, dims, str(data.dtype))[:] = data


def array_of(group: zarr.Group, name: str) -> zarr.Array:
    """An array of a store that `open_store` has checked."""
    array = group[name]
    assert isinstance(array, zarr.Array)
    return array


def read_array(group: zarr.Group, name: str) -> np.ndarray:
    """The same, read whole."""
    return np.asarray(array_of(group, name)[:])


def tile_rows(height: int) -> list[slice]:
    """The rows of a scene, a row of chunks at a time: so memory does not grow with its height."""
    return [slice(y, min(y + TILE, height)) for y in range(0, height, TILE)]


def write_strips(array: zarr.Array, strips: Iterable[np.ndarray]) -> None:
    """Fill `array` (..., y, x) from strips of rows, top to bottom, a row of chunks at a time."""
    held, y = [], 0
    for strip in strips:
        held.append(strip)
        if sum(s.shape[-2] for s in held) >= TILE:
            rows = held[0] if len(held) == 1 else np.concatenate(held, -2)
            whole = rows.shape[-2] // TILE * TILE
            array[..., y : y + whole, :] = rows[..., :whole, :]
            held, y = [rows[..., whole:, :].copy()], y + whole
            del strip, rows  # before the next one is made
    if held:
        rows = np.concatenate(held, -2)
        array[..., y : y + rows.shape[-2], :] = rows


def read_pixels(
    arrays: Sequence[zarr.Array | np.ndarray], nodata: np.ndarray, most: int
) -> list[np.ndarray]:
    """Values of the pixels with data, or of `most` of them, drawn with a fixed seed; a strip of rows in memory.

    Args:
        arrays: (channel, y, x) each.
        nodata: (y, x) bool.
        most: pixels at most.

    Returns:
        (channel, pixel) for each array, pixels row by row.
    """
    chosen = ~nodata
    if chosen.sum() > most:
        drawn = np.random.default_rng(0).choice(np.flatnonzero(chosen), most, replace=False)
        flat = np.zeros(nodata.size, bool)
        flat[drawn] = True
        chosen = flat.reshape(nodata.shape)
    count = int(chosen.sum())
    found = [np.empty((array.shape[0], count), array.dtype) for array in arrays]
    start = 0
    for rows in tile_rows(len(nodata)):
        part = chosen[rows]
        pixels = slice(start, start + int(part.sum()))
        for values, array in zip(found, arrays, strict=True):
            values[:, pixels] = np.asarray(array[:, rows])[:, part]
        start = pixels.stop
    return found


def open_store(path: Path, **dims: Sequence[str]) -> zarr.Group:
    """Open a store for reading; `name=("band", "y", "x")` asks for an array with these dimensions.

    Raises UserError naming the file when it is missing, incomplete, cut short or holds something else.
    """
    path = Path(path)
    again = "delete it and run again"
    if not path.is_dir():
        raise UserError(f"{path}: no such store; run the workflow, which makes it")
    try:
        group = zarr.open_group(path, mode="r", zarr_format=3)
        attributes = group.attrs.asdict()
    except Exception as error:  # a damaged zarr.json raises errors of many kinds
        raise UserError(f"{path}: not a Zarr store ({error}); {again}") from error
    if attributes.get("complete") is not True:
        raise UserError(f"{path}: the store is not complete; {again}")
    if attributes.get("files") != _chunk_files(path):
        raise UserError(f"{path}: the store's files are missing, changed or cut short; {again}")
    sizes: dict[str, int] = {}
    for name, wanted in dims.items():
        array = group.get(name)
        if not isinstance(array, zarr.Array):
            raise UserError(f"{path}: no array '{name}' in the store; {again}")
        found, dtype = _dimensions(array), DTYPES.get(name, "float32")
        if found != tuple(wanted):
            raise UserError(f"{path}: array '{name}' has dimensions {found}, not {wanted}; {again}")
        if array.dtype != dtype:
            raise UserError(f"{path}: array '{name}' is {array.dtype}, not {dtype}; {again}")
        for dim, size in zip(found, array.shape, strict=True):
            if sizes.setdefault(dim, size) != size:
                raise UserError(
                    f"{path}: array '{name}' has {size} along {dim}, another {sizes[dim]}; {again}"
                )
    return group
