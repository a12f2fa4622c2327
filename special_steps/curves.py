"""How a training went, epoch by epoch, without ground truth."""

from pathlib import Path
from typing import TYPE_CHECKING

from special_steps.core.atomic import atomic_write
from special_steps.core.cli import run

if TYPE_CHECKING:  # loaded when a picture is drawn: together they take a second
    import pandas as pd
    from matplotlib.figure import Figure

PANELS = {
    "Loss": ["loss_agreed", "loss_soft", "loss_random", "loss_confident", "loss_hard"],
    "Pixels in the set": ["agreed_pixels", "confident_pixels", "hard_pixels"],
    "Share of pixels that kept their label": ["agreement"],
}


def curves_picture(rows: "pd.DataFrame") -> "Figure":
    """Losses, set sizes and agreement over epochs; a line marks where refinement begins, if it does.

    Args:
        rows: one per epoch: epoch, stage, and what the training logged.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 3.6), layout="constrained")
    axes = figure.subplots(1, 3, sharex=True)
    refined = rows.loc[rows["stage"] == "refine", "epoch"]
    for axis, (title, columns) in zip(axes, PANELS.items(), strict=True):
        for column in columns:
            if column in rows:
                name = column.removeprefix("loss_").removesuffix("_pixels")
                axis.plot(rows["epoch"], rows[column], marker=".", label=name)
        if len(axis.lines) > 1:
            axis.legend(frameon=False)
        if len(refined) and len(refined) < len(rows):
            axis.axvline(refined.min() - 0.5, color="grey", linewidth=0.8, linestyle=":")
        axis.set_title(title)
        axis.set_xlabel("epoch")
        axis.xaxis.get_major_locator().set_params(integer=True)
    return figure


def curves(*, tables: list[Path], picture: Path) -> None:
    """Draw the epochs of a training.

    Args:
        tables: CSV files of its stages in order: made by network, or by warmup and refine.
        picture: PNG to write.
    """
    import pandas as pd

    rows = pd.concat([pd.read_csv(table) for table in tables], ignore_index=True)
    with atomic_write(picture) as file:
        curves_picture(rows).savefig(file, dpi=110)


if __name__ == "__main__":
    run(curves)
