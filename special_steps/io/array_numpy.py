"""NumPy's .npy and .npz files; objects in them (pickles, which can run code) are never loaded."""

import functools
import io
import math
import zipfile
from pathlib import Path
from typing import IO

import numpy as np

from special_steps.core.errors import UserError
from special_steps.io.array_file import ArrayFile, Index, Shape, no_numbers, part

LONGEST = 10_000  # bytes of a header that NumPy reads
DEFLATE = 1032  # deflate makes data smaller by this factor at most


def open_npy(path: Path) -> ArrayFile:
    """Open a .npy file, whose one variable is called 'array'.

    Raises:
        UserError: when it holds objects, or fewer bytes than its header says.
    """
    with path.open("rb") as stream:
        shape, dtype = _header(stream)
        held = path.stat().st_size - stream.tell()
    why = no_numbers(dtype)
    if why:
        return ArrayFile(path, {}, _nothing, {"array": why})
    _check_size(path, "array", shape, dtype, held)
    return ArrayFile(
        path,
        {"array": shape},
        # mapped anew each time: a mapped page counts as this process's memory until then
        lambda name, index: (
            part(np.load(path, mmap_mode="r", allow_pickle=False), index)
            if math.prod(shape)
            else np.empty(shape, dtype)[index]
        ),
        dtype=lambda name: dtype,
    )


def open_npz(path: Path) -> ArrayFile:
    """Open an archive of arrays. Shapes come from the arrays' headers; an array is read as a whole, once.

    Raises:
        UserError: for an array of which the archive holds fewer bytes than its header says.
    """
    shapes: dict[str, Shape] = {}
    dtypes: dict[str, np.dtype] = {}
    others: dict[str, str] = {}
    texts: dict[str, str] = {}
    with zipfile.ZipFile(path) as archive:
        for member in (m for m in archive.infolist() if m.filename.endswith(".npy")):
            name = member.filename.removesuffix(".npy")
            if name in shapes or name in others:
                raise UserError(f"{path}: two arrays are called '{name}'; save the file again")
            with archive.open(member) as stream:
                shape, dtype = _header(stream)
                held = min(
                    member.file_size - stream.tell(), DEFLATE * member.compress_size + DEFLATE
                )
                if dtype.kind in "SU" and math.prod(shape) <= 10_000 and dtype.itemsize <= 10_000:
                    data = stream.read(math.prod(shape) * dtype.itemsize)
                    words = np.frombuffer(data, dtype).tolist()
                    texts[name] = ", ".join(
                        w.decode("latin-1") if isinstance(w, bytes) else w for w in words
                    )
            why = no_numbers(dtype)
            if why:
                others[name] = why
                continue
            _check_size(path, name, shape, dtype, held)
            shapes[name], dtypes[name] = shape, dtype

    @functools.lru_cache(maxsize=1)
    def load(name: str) -> np.ndarray:
        with np.load(path, allow_pickle=False) as stored:
            return np.asarray(stored[name])

    return ArrayFile(
        path,
        shapes,
        lambda name, index: part(load(name), index),
        others,
        texts.get,
        dtype=lambda name: dtypes[name],
    )


def _header(stream: IO[bytes]) -> tuple[Shape, np.dtype]:
    """Shape and type from the header of an array, format versions 1 to 3 (numpy.lib.format)."""
    major, _ = np.lib.format.read_magic(stream)
    length = stream.read(2 if major == 1 else 4)
    if int.from_bytes(length, "little") > LONGEST:  # in a small archive, gigabytes
        raise ValueError(f"a header of {int.from_bytes(length, 'little')} bytes")
    header = io.BytesIO(length + stream.read(int.from_bytes(length, "little")))
    if major == 1:
        shape, _, dtype = np.lib.format.read_array_header_1_0(header)
    else:  # version 3 differs in names of fields that are not Latin-1 only
        shape, _, dtype = np.lib.format.read_array_header_2_0(header)
    return shape, dtype


def _check_size(path: Path, name: str, shape: Shape, dtype: np.dtype, held: int) -> None:
    needed = math.prod(shape) * dtype.itemsize
    if needed > held:
        raise UserError(
            f"{path}: the file is truncated or damaged: '{name}' {shape} of {dtype} takes {needed} bytes,"
            f" but the file holds no more than {held}; get it again"
        )


def _nothing(name: str, index: Index) -> np.ndarray:
    raise KeyError(name)
