"""A file of named arrays, whatever its format: what the readers of MATLAB, HDF5, netCDF and NumPy files give."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

Shape = tuple[int, ...]
Index = tuple[slice, ...]

LISTED = 40  # so many variables are named in a message


@dataclass(frozen=True)
class ArrayFile:
    """The variables of a file, in the axis order that its users see; names as the file's own language writes them."""

    path: Path
    shapes: dict[str, Shape]  # of the numeric variables
    read: Callable[[str, Index], np.ndarray]  # a part of one
    others: Mapping[str, str] = field(
        default_factory=dict
    )  # variables that are no numbers: what they are
    text: Callable[[str], str | None] = lambda name: (
        None
    )  # one of the others as text, lists with ", " between
    attributes: Callable[[str], Mapping[str, Any]] = (
        lambda name: {}
    )  # of one variable; "" is the file itself
    dtype: Callable[[str], np.dtype | None] = lambda name: (
        None
    )  # as stored, where it is known before reading
    dims: Callable[[str], tuple[str, ...]] = (
        lambda name: ()
    )  # names of its axes, "" for one without
    fill: Callable[[str], Any] = lambda name: (
        None
    )  # what the format itself puts where nothing was written
    find: Callable[[str], str] = lambda name: (
        name
    )  # another way to write a name, such as one through a link
    notes: tuple[str, ...] = ()

    def whole(self, name: str) -> np.ndarray:
        """All of a variable."""
        return self.read(name, (slice(None),) * len(self.shapes[name]))

    def listing(self, inside: str = "") -> str:
        """The variables with their shapes, and what the others are, for messages; only those `inside` a name."""
        # vectors and single numbers last: a cube is sought
        order = sorted(self.shapes.items(), key=lambda item: sum(n > 1 for n in item[1]) < 2)
        numeric = [f"'{n}' {s}" for n, s in order if n.startswith(inside)]
        others = [
            f"'{n}' ({w.split(';')[0]})" for n, w in self.others.items() if n.startswith(inside)
        ]
        if not numeric:
            return ", ".join(["no numeric variable", *(f"but {o}" for o in others[:LISTED])])
        more = f", and {len(numeric) - LISTED} more" if len(numeric) > LISTED else ""
        return ", ".join(numeric[:LISTED]) + more


def no_numbers(dtype: np.dtype) -> str:
    """Why a variable of this type cannot be a cube, and what to do; "" for one of real numbers."""
    if dtype.names is not None:
        return "records of several fields; save one field as an array of its own"
    return {
        "c": "complex numbers; a cube has real ones, so save their real part or magnitude",
        "O": "objects; they are never loaded, as that may run code, so save the numbers as a plain array",
        "S": "text",
        "U": "text",
        "M": "times",
        "m": "times",
        "V": "values that are no numbers; save numbers",
    }.get(dtype.kind, "")


def part(array: np.ndarray, index: Index) -> np.ndarray:
    """A part of an array as an array of its own, in this machine's byte order."""
    wanted = array[index]
    kind = (
        np.dtype(np.float64)
        if wanted.dtype.kind == "f" and wanted.dtype.itemsize > 8
        else wanted.dtype
    )
    return np.array(wanted, kind.newbyteorder("="))
