"""Each class's spectrum beside its nearest in the library: is the scene's water like the library's water?"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from special_steps.core.atomic import atomic_write
from special_steps.core.cli import run
from special_steps.core.palette import class_colours

if TYPE_CHECKING:  # loaded when a picture is drawn: together they take a second
    import pandas as pd
    from matplotlib.figure import Figure

MOST = 24  # classes in a picture, the largest; the table has all
COLUMNS = 3
GAP = 40.0  # nm without a band: a line over it would show what nobody measured


def signatures_picture(
    rows: "pd.DataFrame", classes: list[dict[str, Any]], own: dict[str, str]
) -> "Figure":
    """A panel for each class: the mean of its pixels, and the library's nearest spectrum.

    Args:
        rows: of the table that evidence writes.
        classes: of the JSON that evidence writes.
        own: the user's own colours (#rrggbb) of classes.
    """
    import numpy as np
    from matplotlib.figure import Figure

    names = [one["class"] for one in classes]
    colours = dict(zip(names, class_colours(names, own), strict=True))
    kept = sorted(classes, key=lambda one: -one.get("share", 0))[:MOST]
    shown = [one for one in classes if one in kept]
    columns = min(COLUMNS, len(shown))
    lines = -(-len(shown) // columns)
    figure = Figure(figsize=(4.6 * columns, 2.7 * lines + 0.5), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    for axis in axes[len(shown) :]:
        axis.set_axis_off()
    for axis, one in zip(axes, shown, strict=False):
        name = one["class"]
        axis.set_title(_title(one), fontsize=9, loc="left")
        mine = rows[rows["class"] == name]
        if mine.empty:
            axis.set_axis_off()
            continue
        nm = mine["wavelength"].to_numpy(float)
        gaps = np.flatnonzero(np.diff(nm) > GAP) + 1
        for column, style in (
            ("pixels", {"color": colours[name], "linewidth": 2.5}),
            ("library", {"color": "black", "linewidth": 1.2, "linestyle": "--"}),
        ):
            values = np.insert(mine[column].to_numpy(float), gaps, np.nan)
            axis.plot(np.insert(nm, gaps, np.nan), values, **style)
        axis.set_ylim(bottom=min(0.0, axis.get_ylim()[0]))
        axis.tick_params(labelsize=8)
        axis.set_xlabel("wavelength (nm)", fontsize=8)
        axis.set_ylabel("the scene's values", fontsize=8)
    figure.suptitle(
        "What the spectral library alone calls each class. Line: mean of its pixels; dashes: the nearest spectrum,"
        " as bright; angle: from a pixel to its nearest spectrum, median",
        fontsize=10,
    )
    return figure


def _title(one: dict[str, Any]) -> str:
    """Class and share; then the nearest materials and how far they are."""
    if not one["spectra"]:
        return f"{one['class']}\nno spectra: the library has no say"
    if not one.get("share"):
        return f"{one['class']}\nno pixel"
    most = list(one["nearest"].items())[:2]
    near = ", ".join(f"{name.replace('_', ' ')} {share:.0%}" for name, share in most)
    return f"{one['class']}, {one['share']:.1%} of the scene\n{near}; {one['angle']:.1f}° off"


def signatures(*, table: Path, found: Path, picture: Path, colours: dict[str, str]) -> None:
    """Draw what the spectral evidence went by.

    Args:
        table: CSV file made by evidence.
        found: JSON file made by evidence.
        picture: PNG to write.
        colours: the user's own colours (#rrggbb) of classes.
    """
    import pandas as pd

    told = json.loads(found.read_text())
    with atomic_write(picture) as file:
        figure = signatures_picture(pd.read_csv(table), told["classes"], colours)
        figure.savefig(file, dpi=110)


if __name__ == "__main__":
    run(signatures)
