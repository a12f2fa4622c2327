"""Colours of classes on maps and in pictures."""

import itertools
import re

import matplotlib
import numpy as np
from matplotlib.colors import to_hex, to_rgb

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
OTHERS = [to_hex(c) for c in matplotlib.colormaps["tab20"](range(20))]
GRID = [to_hex(c) for c in itertools.product(np.linspace(0.1, 0.9, 7), repeat=3)]
NO_DATA = "#ffffff"


def class_colours(class_names: list[str]) -> list[str]:
    """Colours (#rrggbb) of up to 255 classes, all different, the same for the same names.

    A class with a known word gets its usual colour, the first one of that colour; then each other
    class gets the free colour that is farthest from all given ones.
    """
    chosen: dict[int, str] = {}
    for i, name in enumerate(class_names):
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


def _distances(colour: str, pool: list[str]) -> np.ndarray:
    """Distance in RGB, 0 to 1.7, from each colour of the pool."""
    return np.linalg.norm(np.subtract([to_rgb(c) for c in pool], to_rgb(colour)), axis=1)
