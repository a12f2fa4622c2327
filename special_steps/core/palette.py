"""Colours of classes on maps and in pictures."""

import itertools
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from special_steps.core.classes import label_number
from special_steps.core.errors import UserError

if TYPE_CHECKING:
    import numpy as np

# Colours that maps of land cover use; a class takes the first whose word begins a word of its name.
KNOWN = {
    "water": "#2b6cb0",
    "river": "#2b6cb0",
    "lake": "#2b6cb0",
    "sea": "#2b6cb0",
    "shadow": "#3b3b4f",
    "tree": "#1e6b2e",
    "forest": "#1e6b2e",
    "wood": "#1e6b2e",
    "grass": "#8fce5a",
    "meadow": "#8fce5a",
    "lawn": "#8fce5a",
    "low vegetation": "#8fce5a",
    "crop": "#e3d15b",
    "field": "#e3d15b",
    "soil": "#b5793f",
    "sand": "#e9d8a6",
    "rock": "#a89984",
    "asphalt": "#6e6e73",
    "road": "#6e6e73",
    "pavement": "#9a9aa1",
    "roof": "#c8413a",
    "tile": "#c8413a",
    "building": "#c8413a",
    "house": "#c8413a",
}
# matplotlib's tab20, written out: to load matplotlib takes half a second
OTHERS = [
    "#1f77b4",
    "#aec7e8",
    "#ff7f0e",
    "#ffbb78",
    "#2ca02c",
    "#98df8a",
    "#d62728",
    "#ff9896",
    "#9467bd",
    "#c5b0d5",
    "#8c564b",
    "#c49c94",
    "#e377c2",
    "#f7b6d2",
    "#7f7f7f",
    "#c7c7c7",
    "#bcbd22",
    "#dbdb8d",
    "#17becf",
    "#9edae5",
]
LEVELS = [26, 60, 94, 128, 162, 195, 230]  # from a tenth to nine tenths of 255
GRID = [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in itertools.product(LEVELS, repeat=3)]
NO_DATA = "#ffffff"
GREY = 189  # of `unknown`: lighter than the greys of roads, darker than no data


def rgb_of(colour: str) -> tuple[int, int, int]:
    """Red, green and blue, 0 to 255, of a colour #rrggbb."""
    value = int(colour.removeprefix("#"), 16)
    return value >> 16, value >> 8 & 255, value & 255


def read_colours(given: Mapping[str, Any], where: str) -> dict[str, str]:
    """The user's own colours of classes as #rrggbb.

    Args:
        given: class name -> "#0000ff", "#00f", "0x0000ff", the number that YAML makes of 0x0000ff, or [0, 0, 255].
        where: the setting, for messages.

    Raises:
        UserError: naming `where`, for what is no colour, and for two classes of one colour.
    """
    found: dict[str, str] = {}
    for name, value in given.items():
        colour = _colour(value)
        if colour is None:
            lost = " (without quotes, YAML takes # for a comment)" if value is None else ""
            raise UserError(
                f"{where}: {value!r} of '{name}' is no colour{lost}; write it as \"#0000ff\", in quotes, or as"
                " [0, 0, 255]"
            )
        other = next((n for n, c in found.items() if c == colour), None)
        if other is not None:
            raise UserError(
                f"{where}: '{other}' and '{name}' both have {colour}; give each class its own colour"
            )
        found[name] = colour
    return found


def _colour(value: Any) -> str | None:
    """A colour of a config as #rrggbb; None for anything else."""
    if isinstance(value, str) and not value.strip().lower().startswith(("#", "0x")):
        return None
    if value is None or isinstance(value, float):
        return None
    try:
        number = label_number(value, "")
    except UserError:
        return None
    return f"#{number:06x}" if 0 <= number <= 0xFFFFFF else None


def class_colours(
    class_names: list[str], own: Mapping[str, str] | None = None, unknown: bool = False
) -> list[str]:
    """Colours (#rrggbb) of up to 255 classes, all different, the same for the same names.

    The user's own colours come first. A class with a known word gets its usual colour, the first one of that colour;
    then each other class gets the free colour that is farthest from all given ones.

    Args:
        class_names: the classes, in order.
        own: colours (#rrggbb) that the user chose, by class name, all different; other names are ignored.
        unknown: whether the last name is no class but the pixels of low confidence: they are grey.
    """
    if unknown:
        colours = class_colours(class_names[:-1], own)
        greys = (f"#{v:02x}{v:02x}{v:02x}" for v in range(GREY, 0, -1))
        return [*colours, next(grey for grey in greys if grey not in colours)]
    import numpy as np  # here: reading the config should not wait for it

    own = own or {}
    chosen = {i: own[name] for i, name in enumerate(class_names) if name in own}
    for i, name in enumerate(class_names):
        if i in chosen:
            continue
        colour = _usual(name)
        if colour and colour not in chosen.values():
            chosen[i] = colour
    pool = OTHERS + GRID
    far = np.min([_distances(c, pool) for c in (NO_DATA, *chosen.values())], axis=0)
    for i in range(len(class_names)):
        if i not in chosen:
            pleasant = far[: len(OTHERS)]
            best = int(pleasant.argmax() if pleasant.max() > 0.2 else far.argmax())
            chosen[i] = pool[best]
            far = np.minimum(far, _distances(pool[best], pool))
    return [chosen[i] for i in range(len(class_names))]


def _usual(name: str) -> str | None:
    found = (c for word, c in KNOWN.items() if re.search(rf"\b{word}", name.lower()))
    return next(found, None)


def _distances(colour: str, pool: list[str]) -> "np.ndarray":
    """Distance in RGB, 0 to 1.7, from each colour of the pool."""
    import numpy as np

    return np.linalg.norm(np.subtract([rgb_of(c) for c in pool], rgb_of(colour)), axis=1) / 255
