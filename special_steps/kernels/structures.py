"""Structures that C++ and Python share: tensors for a kernel, and the check that both mean the same layout."""

import ctypes
from typing import Any

from torch import Tensor


class Rows(ctypes.Structure):
    """A float32 tensor (sequence, token, value) with values next to each other: `Rows` in structures.h."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("sequence", ctypes.c_int64),
        ("token", ctypes.c_int64),
    )


def fields(integers: str, *rest: tuple[str, Any]) -> list[tuple[str, Any]]:
    """Fields of a structure: names of 64-bit integers, then groups of names with their type."""
    found = [(name, ctypes.c_int64) for name in integers.split()]
    return found + [(name, kind) for names, kind in rest for name in names.split()]


def set_tensors(structure: ctypes.Structure, **tensors: Tensor | None) -> None:
    """Point fields at tensors, which must outlive the call: those of type `Rows` have dense values, others all dense.

    A field whose tensor is None stays null.
    """
    kinds = {name: kind for name, kind, *_ in structure._fields_}
    for name, tensor in tensors.items():
        if tensor is None:
            continue
        if kinds[name] is Rows:
            setattr(structure, name, Rows(tensor.data_ptr(), tensor.stride(0), tensor.stride(1)))
        else:
            setattr(structure, name, tensor.data_ptr())


def check_layout(library: ctypes.CDLL, *structures: type[ctypes.Structure]) -> None:
    """Compare the structures that a library shares with Python's, which have the same names.

    Args:
        library: exports `layout()`, see structures.h.
        structures: all that are shared.

    Raises:
        RuntimeError: they differ; the message names structure and field.
    """
    library.layout.restype = ctypes.c_char_p
    lines = [line.split() for line in library.layout().decode().splitlines()]
    compiled = {words[0]: words[1:] for words in lines}
    ours = {structure.__name__: structure for structure in structures}
    where = f"the compiled kernels of {library._name} and Python do not agree on their structures:"
    if compiled.keys() != ours.keys():
        raise RuntimeError(f"{where} C++ has {', '.join(compiled)}; Python has {', '.join(ours)}")
    for name, (size, *words) in compiled.items():
        parts = (word.split(":") for word in words)
        theirs = {field: (int(offset), int(bytes_)) for field, offset, bytes_ in parts}
        own = {field: getattr(ours[name], field) for field, *_ in ours[name]._fields_}
        for field in [*theirs, *(own.keys() - theirs.keys())]:
            if field not in own or field not in theirs:
                side = "C++" if field in theirs else "Python"
                raise RuntimeError(f"{where} only {side} has a field {name}.{field}")
            found = own[field].offset, own[field].size
            if found != theirs[field]:
                raise RuntimeError(
                    f"{where} {name}.{field} has offset and size {theirs[field]} in C++, {found} in Python"
                )
        if ctypes.sizeof(ours[name]) != int(size):
            raise RuntimeError(
                f"{where} {name} has {size} bytes in C++, {ctypes.sizeof(ours[name])} in Python"
            )
