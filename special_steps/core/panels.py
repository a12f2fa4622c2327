"""A picture of spectra with a panel for each class."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from special_steps.core.spectral import gap_of

if TYPE_CHECKING:  # loaded when a picture is drawn: it takes half a second
    from matplotlib.figure import Figure

MOST = 24  # panels in a picture
COLUMNS = 3


class Panel(NamedTuple):
    """A class's spectrum; without one, its title alone."""

    title: str
    colour: str  # #rrggbb
    wavelengths: np.ndarray | None = None  # (band,) nm
    mean: np.ndarray | None = None  # (band,)
    spread: np.ndarray | None = None  # (band,) half the height of a band around it
    library: tuple[np.ndarray, np.ndarray] | None = None  # nm and values of another line, dashed


def spectra_figure(panels: Sequence[Panel], heading: str, foot: str = "") -> "Figure":
    """Draw the panels, with a line or two above and below all."""
    from matplotlib.figure import Figure

    columns = min(COLUMNS, len(panels))
    lines = -(-len(panels) // columns)
    height = 2.7 * lines + 0.5 + 0.2 * (foot.count("\n") + 1 if foot else 0)
    figure = Figure(figsize=(4.6 * columns, height), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    for axis, panel in zip(axes, panels, strict=False):
        axis.set_title(panel.title, fontsize=9, loc="left")
        if panel.wavelengths is None or panel.mean is None:
            axis.set_axis_off()
            continue
        if panel.spread is not None:
            ends = (panel.mean - panel.spread, panel.mean + panel.spread)
            nm, low, high = _broken(panel.wavelengths, *ends)
            axis.fill_between(nm, low, high, color=panel.colour, alpha=0.25, linewidth=0)
        axis.plot(*_broken(panel.wavelengths, panel.mean), color=panel.colour, linewidth=2.5)
        if panel.library is not None:
            axis.plot(*_broken(*panel.library), color="black", linewidth=1.2, linestyle="--")
        axis.set_ylim(bottom=min(0.0, axis.get_ylim()[0]))
        axis.tick_params(labelsize=8)
        axis.set_xlabel("wavelength (nm)", fontsize=8)
        axis.set_ylabel("the scene's values", fontsize=8)
    figure.suptitle(heading, fontsize=10)
    if foot:
        figure.supxlabel(foot, fontsize=9, x=0.01, ha="left")
    return figure


def _broken(wavelengths: np.ndarray, *lines: np.ndarray) -> list[np.ndarray]:
    """Wavelengths and lines with a NaN wherever bands are too far apart to be joined."""
    gaps = np.flatnonzero(np.diff(wavelengths) > gap_of(wavelengths)) + 1
    return [np.insert(np.asarray(each, float), gaps, np.nan) for each in (wavelengths, *lines)]
