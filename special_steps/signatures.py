"""Each class's spectrum beside its nearest in the library: is the scene's water like the library's water?"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from special_steps.core.atomic import atomic_write
from special_steps.core.cli import run
from special_steps.core.palette import class_colours
from special_steps.core.panels import MOST, Panel, spectra_figure

if TYPE_CHECKING:  # loaded when a picture is drawn: together they take a second
    import pandas as pd
    from matplotlib.figure import Figure


def signatures_picture(
    rows: "pd.DataFrame", classes: list[dict[str, Any]], own: dict[str, str]
) -> "Figure":
    """A panel for each class: the mean of its pixels, and the library's nearest spectrum.

    Args:
        rows: of the table that evidence writes.
        classes: of the JSON that evidence writes.
        own: the user's own colours (#rrggbb) of classes.
    """
    names = [one["class"] for one in classes]
    colours = dict(zip(names, class_colours(names, own), strict=True))
    kept = sorted(classes, key=lambda one: -one.get("share", 0))[:MOST]
    panels = []
    for one in classes:
        if one not in kept:
            continue
        mine = rows[rows["class"] == one["class"]]
        panel = Panel(_title(one), colours[one["class"]])
        if not mine.empty:
            nm, mean, near = (
                mine[key].to_numpy(float) for key in ("wavelength", "pixels", "library")
            )
            panel = panel._replace(wavelengths=nm, mean=mean, library=(nm, near))
        panels.append(panel)
    return spectra_figure(
        panels,
        "What the spectral library alone calls each class. Line: mean of its pixels; dashes: the nearest spectrum,"
        " as bright; angle: from a pixel to its nearest spectrum, median",
    )


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
