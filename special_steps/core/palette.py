"""Colours of classes on maps and in pictures."""

import itertools
import re

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
LEVELS = [round(255 * share) for share in np.linspace(0.1, 0.9, 7)]
GRID = [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in itertools.product(LEVELS, repeat=3)]
NO_DATA = "#ffffff"


def rgb_of(colour: str) -> tuple[int, int, int]:
    """Red, green and blue, 0 to 255, of a colour #rrggbb."""
    value = int(colour.removeprefix("#"), 16)
    return value >> 16, value >> 8 & 255, value & 255


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
    return np.linalg.norm(np.subtract([rgb_of(c) for c in pool], rgb_of(colour)), axis=1) / 255
