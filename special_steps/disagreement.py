"""Where networks of other seeds disagree with the map: an account of its certainty that needs no ground truth."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from special_steps.core.cli import run
from special_steps.core.errors import UserError
from special_steps.core.store import array_of, grid_of, open_store, read_array, tile_rows
from special_steps.io.geotiff import map_grid, moved, strips_of, write_raster


def disagreeing(labels: np.ndarray, votes: Sequence[np.ndarray]) -> np.ndarray:
    """Share of votes for another class than the map's.

    Args:
        labels: (y, x) uint8, 0 = no data.
        votes: one of the same shape for each network.

    Returns:
        (y, x) float32 in [0, 1], NaN where no data.
    """
    share = np.zeros(labels.shape, np.float32)
    for vote in votes:
        share += vote != labels
    share /= len(votes)
    share[labels == 0] = np.nan
    return share


def disagreement(
    *, prediction: Path, networks: list[Path], out: Path, north_up: bool | None
) -> None:
    """Write the share of networks that see another class than the map.

    Args:
        prediction: store with the map's `labels`.
        networks: stores of the trained networks, two or more, one for each seed.
        out: GeoTIFF to write, cloud-optimised: float32, NaN = no data.
        north_up: as in export.

    Raises:
        UserError: for one network, which can't disagree with itself, and for a map of another size.
    """
    if len(networks) < 2:
        raise UserError(
            f"{out}: one network can't disagree with itself; give two seeds or more, such as seeds: [0, 1, 2]"
        )
    store = open_store(prediction, labels=("y", "x"))
    labels = read_array(store, "labels")
    stores = [open_store(path, labels=("y", "x")) for path in networks]
    for path, other in zip(networks, stores, strict=True):
        if (found := array_of(other, "labels").shape) != labels.shape:
            raise UserError(
                f"{path}: a map of {found[0]} x {found[1]} pixels, but {prediction} has {labels.shape[0]} x"
                f" {labels.shape[1]}; delete both and run again"
            )
    height, width = labels.shape
    share = np.empty((height, width), np.float32)
    for rows in tile_rows(len(labels)):
        votes = [np.asarray(array_of(other, "labels")[rows]) for other in stores]
        share[rows] = disagreeing(labels[rows], votes)
    grid, pixel = map_grid(grid_of(store), (height, width), north_up)
    shown = moved(share, pixel, np.nan)
    write_raster(
        out,
        strips_of(shown),
        (shown.shape[0], shown.shape[1]),
        "float32",
        [f"disagreement: share of {len(networks)} networks with another class than the map"],
        grid,
        nodata=float("nan"),
        resampling="average",
    )


if __name__ == "__main__":
    run(disagreement)
