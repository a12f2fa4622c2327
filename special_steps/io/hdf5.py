"""HDF5 files, with the compression filters that products use; links to other files are not followed."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from special_steps.core.errors import UserError
from special_steps.io.record import reading

HDF5 = (".h5", ".hdf5", ".he5", ".nc", ".nc4", ".hdf")
MOST = 100_000  # numbers of an attribute
STANDARD_FILTERS = {1, 2, 3, 4, 5, 6}  # those that HDF5 itself brings


@contextmanager
def open_hdf5(path: Path) -> Iterator[Any]:
    """Open a file for reading, as h5py.File.

    Raises:
        UserError: for a damaged file.
    """
    import h5py

    with suppress(ImportError):
        import hdf5plugin  # noqa: F401 (its import makes Blosc, LZ4, Zstandard and others known to HDF5)
    with reading(path), h5py.File(path) as file:
        yield file


def dataset(file: Any, name: str) -> Any:
    """A dataset of an open file, by its path in the file.

    Raises:
        UserError: when there is none; when its values lie in other files; when its compression is unknown here.
    """
    import h5py

    path, group = file.filename, file
    for part in name.strip("/").split("/"):
        link = group.get(part, getlink=True) if isinstance(group, h5py.Group) else None
        if link is None:
            raise UserError(
                f"{path}: no '{name}' in the file; it may be cut, or of another product"
            )
        if isinstance(link, h5py.ExternalLink):
            raise UserError(
                f"{path}: '{name}' is a link to another file, {link.filename}; give that file"
            )
        group = group[part]
    if not isinstance(group, h5py.Dataset):
        raise UserError(f"{path}: '{name}' is a folder inside the file; name an array in it")
    if group.file.filename != path:  # by a link to such a link
        raise UserError(
            f"{path}: '{name}' is a link to another file, {group.file.filename}; give that file"
        )
    if group.is_virtual or group.external:
        raise UserError(
            f"{path}: the values of '{name}' lie in other files; copy them into one file, for example"
            " with h5repack"
        )
    missing = unknown_filters(group)
    if missing:
        raise UserError(
            f"{path}: '{name}' is compressed with {', '.join(missing)}, which is not known here;"
            " pip install hdf5plugin, or repack the file without it: h5repack -f GZIP=4"
        )
    return group


def dimension_scales(item: Any, axis: int) -> list[Any]:
    """Datasets at an axis of a dataset, such as netCDF 4's coordinates; those that the file does not have are left out.

    Read here, from the attribute that the HDF5 Dimension Scale Specification defines: HDF5's own functions (2.0) crash
    on damaged ones.
    """
    import h5py

    found = []
    try:
        lists = item.attrs.get("DIMENSION_LIST", ())
        references = np.ravel(lists[axis]) if len(lists) == item.ndim else ()
        for reference in references:
            scale = (
                item.file[reference]
                if isinstance(reference, h5py.Reference) and reference
                else None
            )
            if isinstance(scale, h5py.Dataset) and scale.name:
                found.append(scale)
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, IndexError):
        return []
    return found


def dimension_label(item: Any, axis: int) -> str:
    """The name of an axis of a dataset, "" where it has none; see `dimension_scales`."""
    try:
        labels = item.attrs.get("DIMENSION_LABELS", ())
        return text(labels[axis]) if np.shape(labels) == (item.ndim,) else ""
    except (OSError, RuntimeError, ValueError, KeyError, TypeError):
        return ""


def leads_out(file: Any) -> bool:
    """Whether a link in an open file leads to another file, or a dataset's values lie in one."""
    import h5py

    def link(_: Any, found: Any) -> bool | None:
        return True if isinstance(found, h5py.ExternalLink) else None

    def item(_: Any, found: Any) -> bool | None:
        there = isinstance(found, h5py.Dataset) and (found.is_virtual or found.external)
        return True if there else None

    return bool(file.visititems_links(link) or file.visititems(item))


def unknown_filters(item: Any) -> list[str]:
    """Filters of a dataset that the HDF5 library here has not, by name and number."""
    import h5py

    pipeline = item.id.get_create_plist()
    filters = [pipeline.get_filter(i) for i in range(pipeline.get_nfilters())]
    return [
        f"{name.decode(errors='replace') or 'a filter'} (number {code})"
        for code, _, _, name in filters
        if code not in STANDARD_FILTERS and not h5py.h5z.filter_avail(code)
    ]


def text(value: Any) -> str:
    """An attribute or a dataset's value as text: bytes decoded, the first of several."""
    first = np.ravel(value)[0] if np.size(value) else ""
    return (first.decode(errors="replace") if isinstance(first, bytes) else str(first)).strip(
        "\0 \n"
    )


def numbers(value: Any) -> np.ndarray:
    """An attribute's numbers, (n,) float64, also where they are written as text.

    Raises:
        ValueError: when it holds anything else.
    """
    if np.size(value) > MOST:
        raise ValueError(f"{np.size(value)} values are too many for what says something of bands")
    flat = [v.decode() if isinstance(v, bytes) else v for v in np.ravel(value)]
    try:
        return np.array([float(v) for v in flat], np.float64)
    except TypeError as error:  # records, complex numbers, references
        raise ValueError(f"values of {np.asarray(value).dtype} are no numbers") from error
