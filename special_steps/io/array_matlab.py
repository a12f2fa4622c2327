"""MATLAB files up to v7 (v4 and v5); those of v7.3 are HDF5.

Structs and cells are looked into: 'hsi.Data' is a field, 'hsi(2).Data' one of a struct array's second element,
'data{1}' a cell's first element, as MATLAB writes them (cells of several rows count column after column).
"""

import functools
import math
import mmap
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from special_steps.core.errors import UserError
from special_steps.io.array_file import ArrayFile, Index, Shape, no_numbers, part

NUMERIC = ("double", "single", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64",
           "logical", "sparse")  # fmt: skip
DEFLATE = 1100  # a little more than the factor by which v7 can make data smaller
FULL = 2**33  # bytes of a sparse matrix when it is written out
DEPTH = 20  # structs in structs that are looked into


def open_matlab(path: Path) -> ArrayFile:
    """Open a MATLAB file of v4 or v5. A variable is read as a whole, once.

    Raises:
        UserError: for a variable that the file is too short to hold.
        ValueError: for elements of the file that do not fit each other.
    """
    from scipy.io import loadmat, whosmat

    try:
        check_elements(path)
    except MemoryError as error:
        raise _too_large(path) from error
    listed = whosmat(str(path))
    shapes: dict[str, Shape] = {}
    others: dict[str, str] = {}
    texts: dict[str, str] = {}
    inside: dict[str, Any] = {}
    # a struct or cell has no shapes of what it holds in its header, so it is read
    nested = [name for name, _, kind in listed if kind in ("struct", "cell", "char")]
    for name, shape, kind in listed:
        if name.startswith("__"):
            continue
        if kind in NUMERIC:
            if kind != "sparse" and math.prod(shape) > DEFLATE * path.stat().st_size:
                raise UserError(
                    f"{path}: the file is damaged: '{name}' {tuple(shape)} cannot lie in"
                    f" {path.stat().st_size} bytes; get it again"
                )
            shapes[name] = tuple(int(n) for n in shape)
        elif name not in nested:
            others[name] = f"a MATLAB {kind}; save its numbers as a plain array"
    if nested:
        try:
            stored = loadmat(str(path), variable_names=nested)
        except MemoryError as error:
            raise _too_large(path) from error
        for name in nested:
            _look_into(name, stored[name], shapes, others, texts, inside, 0)

    @functools.lru_cache(maxsize=1)
    def load(name: str) -> np.ndarray:
        value = inside[name] if name in inside else loadmat(str(path), variable_names=[name])[name]
        if hasattr(value, "toarray") and 8 * math.prod(value.shape) > FULL:
            raise UserError(
                f"{path}: '{name}' is a sparse matrix of {value.shape}, too large for an image; save it as"
                " full(...)"
            )
        array = value.toarray() if hasattr(value, "toarray") else np.asarray(value)
        why = no_numbers(array.dtype)
        if why:  # a v5 header lists complex numbers like real ones
            raise UserError(f"{path}: '{name}' holds {why}")
        return array

    def read(name: str, index: Index) -> np.ndarray:
        return part(load(name), index)

    def dtype(name: str) -> np.dtype | None:
        return getattr(inside.get(name), "dtype", None)

    return ArrayFile(path, shapes, read, others, texts.get, dtype=dtype)


def _too_large(path: Path) -> UserError:
    return UserError(
        f"{path}: takes more memory than there is: structs and cells are read as a whole; save the cube as a"
        " variable of its own, with save(..., '-v7.3')"
    )


def _look_into(
    name: str,
    value: Any,
    shapes: dict[str, Shape],
    others: dict[str, str],
    texts: dict[str, str],
    inside: dict[str, Any],
    depth: int,
) -> None:
    """Note the numeric arrays (`inside`) and texts of a variable, of its fields and cells."""
    from scipy.io.matlab import MatlabFunction, MatlabObject, MatlabOpaque

    if hasattr(value, "toarray"):
        shapes[name], inside[name] = tuple(value.shape), value
    elif isinstance(value, MatlabFunction | MatlabObject | MatlabOpaque) or depth > DEPTH:
        others[name] = "a MATLAB object; save its numbers as a plain array"
    elif not isinstance(value, np.ndarray):
        return
    elif value.dtype.names is not None:
        others[name] = "a struct"
        for i, element in enumerate(value.ravel(order="F"), 1):
            place = name if value.size == 1 else f"{name}({i})"
            for field in value.dtype.names:
                _look_into(
                    f"{place}.{field}", element[field], shapes, others, texts, inside, depth + 1
                )
    elif value.dtype.kind == "O":
        others[name] = "a cell array"
        elements = list(value.ravel(order="F"))
        words = [_word(e) for e in elements]
        if words and None not in words:
            texts[name] = ", ".join(str(w) for w in words)
        for i, element in enumerate(elements, 1):
            _look_into(f"{name}{{{i}}}", element, shapes, others, texts, inside, depth + 1)
    elif value.dtype.kind in "SU":
        texts[name] = ", ".join(str(w).strip() for w in value.ravel())
        others[name] = "text"
    elif no_numbers(value.dtype):
        others[name] = no_numbers(value.dtype)
    else:
        shapes[name], inside[name] = value.shape, value


def _word(value: Any) -> str | None:
    """A cell's element as text, when it is one number or one text."""
    if not isinstance(value, np.ndarray) or value.size != 1 or value.dtype.kind not in "biufSU":
        return None
    return str(value.ravel()[0].item()).strip()


# numbers in the tags of elements, and bytes of a value of the numeric types (MAT-File Format, tables 1-1 to 1-3)
MATRIX, COMPRESSED = 14, 15
SIZES = {1: 1, 2: 1, 3: 2, 4: 2, 5: 4, 6: 4, 7: 4, 9: 8, 12: 8, 13: 8, 16: 1, 17: 2, 18: 4}
SIZES_V4, SPARSE_V4 = {0: 8, 1: 4, 2: 4, 3: 2, 4: 2, 5: 1}, 2
CELL, STRUCT, OBJECT, CHAR, SPARSE, FUNCTION = 1, 2, 3, 4, 5, 16
NESTED = (CELL, STRUCT, OBJECT, FUNCTION)


def check_elements(path: Path) -> None:
    """Check that the elements of a v5 or v4 file lie inside each other: SciPy crashes on some damaged ones.

    Raises:
        ValueError, zlib.error: when they do not.
    """
    if path.stat().st_size < 20:
        return
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if 0 in data[:4]:
            _check_v4(data)
            return
        if data[126:128] not in (b"IM", b"MI"):
            return  # SciPy says that it is none
        order = "<" if data[126:128] == b"IM" else ">"
        place = 128
        while place < len(data):
            kind, start, size = _tag(data, place, len(data), order)
            if kind == MATRIX:
                _check_matrix(data, start, start + size, order, 0)
            elif kind == COMPRESSED:
                _check_compressed(data[start : start + size], order)
            else:
                raise ValueError(f"an element of type {kind} at byte {place}")
            place = start + size


def _check_v4(data: mmap.mmap) -> None:
    """Check that the matrices of a v4 file lie in it (MAT-File Format, chapter 2): SciPy takes memory by their headers.

    Raises:
        ValueError: when they do not.
    """
    place = 0
    while place < len(data):
        if place + 20 > len(data):
            raise ValueError(f"a matrix at byte {place} without its header")
        words = [struct.unpack_from(f"{order}5i", data, place) for order in "<>"]
        kind, rows, columns, is_complex, name = words[0] if words[0][0] in range(5001) else words[1]
        width = SIZES_V4.get(kind // 10 % 10)
        if kind not in range(5001) or width is None or min(rows, columns, name) < 0:
            raise ValueError(f"no header of a matrix at byte {place}")
        twice = 2 if is_complex == 1 and kind % 10 != SPARSE_V4 else 1
        place += 20 + name + twice * width * rows * columns
        if place > len(data):
            raise ValueError(f"a matrix of {rows} x {columns} reaches beyond the file's end")


def _check_compressed(packed: bytes, order: str) -> None:
    """Check the sum of a compressed element, which SciPy does when the damage is done, and its structs."""
    data = zlib.decompressobj().decompress(packed, 2**12)
    flags = struct.unpack_from(f"{order}I", data, 16)[0] if len(data) >= 24 else 0
    if flags & 0xFF in (*NESTED, SPARSE) or flags & 0x800:  # complex: two elements
        data = zlib.decompress(packed)
        length = len(data)
    else:
        stream, length = zlib.decompressobj(), 0
        for at in range(0, len(packed), 2**16):  # in pieces: a cube in memory once is enough
            length += len(stream.decompress(packed[at : at + 2**16]))
        if not stream.eof:
            raise ValueError("a compressed element is cut")
    kind, start, size = _tag(data, 0, length, order)
    if kind != MATRIX:
        raise ValueError(f"a compressed element of type {kind}")
    _check_matrix(data, start, start + size, order, 0)


def _tag(data: mmap.mmap | bytes, place: int, end: int, order: str) -> tuple[int, int, int]:
    """Type of an element, first byte and number of bytes of its values."""
    if place + 8 > end:
        raise ValueError(f"an element at byte {place} reaches beyond its end")
    kind, size = struct.unpack_from(f"{order}2I", data, place)
    start = place + 8
    if kind >> 16:  # up to 4 bytes lie in the tag itself
        kind, size, start = kind & 0xFFFF, kind >> 16, place + 4
        if size > 4:
            raise ValueError(f"a small element of {size} bytes at byte {place}")
    if start + size > end:
        raise ValueError(f"an element at byte {place} reaches beyond its end")
    return kind, start, size


def _check_matrix(data: mmap.mmap | bytes, place: int, end: int, order: str, depth: int) -> None:
    """Check one array (the values of a MATRIX element), and those in it."""
    if place == end:
        return  # an empty array
    if depth > 2 * DEPTH:
        raise ValueError("structs in structs without end")

    def part_of(kinds: tuple[int, ...]) -> tuple[int, int]:
        nonlocal place
        kind, start, size = _tag(data, place, end, order)
        if kind not in kinds:
            raise ValueError(f"an element of type {kind} at byte {place}")
        # values are filled up to 8 bytes
        place = start + 4 if start == place + 4 else start + -(-size // 8) * 8
        return start, size

    start, size = part_of((6,))
    if size != 8:
        raise ValueError(f"array flags of {size} bytes")
    flags = struct.unpack_from(f"{order}I", data, start)[0]
    kind, is_complex = flags & 0xFF, bool(flags & 0x800)
    if kind > FUNCTION:
        return  # objects of classes, laid out otherwise, which are not looked into
    start, size = part_of((5, 6))  # unsigned where some other program wrote it
    if size % 4 or size < 8:
        raise ValueError(f"an array's lengths in {size} bytes")
    lengths = struct.unpack_from(f"{order}{size // 4}i", data, start)
    count = math.prod(lengths)
    if min(lengths) < 0 or (kind in (CELL, STRUCT, OBJECT) and count > len(data)):
        raise ValueError(f"an array of shape {lengths}")
    part_of((1, 2, 16))  # its name
    if kind in NESTED:
        inside = 1 if kind == FUNCTION else count
        if kind == OBJECT:
            part_of((1, 2, 16))
        if kind in (STRUCT, OBJECT):
            start, size = part_of((5,))
            length = struct.unpack_from(f"{order}i", data, start)[0] if size == 4 else 0
            start, size = part_of((1, 2, 16))
            if length <= 0 or size % length:
                raise ValueError(f"names of fields of {length} bytes each in {size} bytes")
            names = [data[at : at + length] for at in range(start, start + size, length)]
            if any(b"\0" not in name for name in names):
                raise ValueError("a name of a field without an end")
            inside *= len(names)
        for _ in range(inside):
            start, size = part_of((MATRIX,))
            _check_matrix(data, start, start + size, order, depth + 1)
    elif kind == SPARSE:
        for _ in range(4 if is_complex else 3):
            part_of(tuple(SIZES))
    else:
        for _ in range(2 if is_complex else 1):
            at = place
            if place == end and not count:
                return
            _, size = part_of(tuple(SIZES))
            width = SIZES[_tag(data, at, end, order)[0]]
            if kind != CHAR and size != count * width:
                raise ValueError(f"{size} bytes for an array of shape {lengths}")
