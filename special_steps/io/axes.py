"""Axes patterns such as "band (x y)": how a stored array becomes (band, y, x)."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from special_steps.core.errors import UserError


@dataclass(frozen=True)
class AxesLayout:
    """How a stored array becomes (band, y, x): split the joined axes, then reorder."""

    groups: list[list[str]]  # names in each stored axis
    sizes: dict[str, int]  # length by name

    @property
    def shape(self) -> tuple[int, int, int]:
        """(band, y, x); one band when the array has no band axis."""
        return self.sizes.get("band", 1), self.sizes["y"], self.sizes["x"]

    def arrange(self, array: np.ndarray) -> np.ndarray:
        """Give the view (band, y, x) of the stored array, or of some of its rows."""
        names = [name for group in self.groups for name in group]
        lengths: list[int] = []
        for group, length in zip(self.groups, array.shape, strict=True):
            lengths += [length] if len(group) == 1 else [self.sizes[n] for n in group]
        order = [names.index(n) for n in ("band", "y", "x") if n in names]
        array = array.reshape(lengths).transpose(order)
        return array if "band" in names else array[None]


def read_axes(
    axes: str, stored: tuple[int, ...], shape: Mapping[str, int] | None, where: str
) -> AxesLayout:
    """Read an axes pattern for an array.

    Args:
        axes: such as "y x band" or "band (x y)": y, x and band (or class, the same for abundances). Names in brackets
            are joined in one axis, the first changing slowest: "(x y)" is pixel number x * height + y, column after
            column.
        stored: the array's shape.
        shape: lengths of the joined axes; one of them may be left out.
        where: file and variable, for messages.

    Raises:
        UserError: for a pattern that does not fit the array.
    """
    text = re.sub(r"\bclass\b", "band", axes)
    groups = [
        re.split(r"[\s,]+", (a or b).strip()) for a, b in re.findall(r"\(([^()]*)\)|(\w+)", text)
    ]
    names = [n for g in groups for n in g]
    example = "write for example 'y x band', 'band y x' or 'band (x y)'"
    if (
        re.sub(r"\([\w\s,]*\)|\w+|[\s,]+", "", text)
        or not {"y", "x"} <= set(names) <= {"y", "x", "band"}
        or len(set(names)) != len(names)
    ):
        raise UserError(
            f"{where}: axes '{axes}' is no pattern of y, x and band, each once; {example}"
        )
    if len(groups) != len(stored):
        raise UserError(
            f"{where}: axes '{axes}' name {len(groups)} axes, but the array has {len(stored)},"
            f" of shape {stored}; {example}"
        )
    sizes = {"band" if n == "class" else n: int(v) for n, v in (shape or {}).items()}
    unused = set(sizes) - set(names)
    for group, length in zip(groups, stored, strict=True):
        unknown = [n for n in group if n not in sizes]
        known = math.prod(sizes[n] for n in group if n in sizes)
        if len(unknown) == 1 and known > 0 and length % known == 0:
            sizes[unknown[0]] = length // known
        elif len(unknown) > 1:
            raise UserError(
                f"{where}: how long are {' and '.join(unknown)}?"
                " Give 'shape', such as {x: 95, y: 95}"
            )
        elif unknown or known != length:
            raise UserError(
                f"{where}: shape {dict(shape or {})} does not fit axis '{' '.join(group)}'"
                f" of length {length}"
            )
    if unused:
        raise UserError(f"{where}: shape names {sorted(unused)}, not in axes '{axes}'")
    return AxesLayout(groups, sizes)
