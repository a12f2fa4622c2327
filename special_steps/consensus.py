"""The map of a run: what co-training and the networks say, averaged."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import zarr

from special_steps.core.cli import run
from special_steps.core.errors import UserError
from special_steps.core.prediction import write_prediction_strips
from special_steps.core.store import (
    array_of,
    class_names,
    grid_of,
    open_store,
    tile_rows,
)


def averaged(cotrained: np.ndarray, networks: Sequence[np.ndarray]) -> np.ndarray:
    """Half of co-training's probabilities and half of the networks' mean.

    Args:
        cotrained: (class, y, x) float32.
        networks: one of the same shape for each seed.

    Returns:
        (class, y, x) float32.
    """
    total = np.zeros_like(cotrained, np.float32)
    for probabilities in networks:
        total += probabilities
    total /= len(networks)
    return (total + cotrained) / 2


def consensus(*, cotrain: Path, networks: list[Path], out: Path) -> None:
    """Average the map of co-training and those of the networks.

    Args:
        cotrain: store made by cotrain.
        networks: stores made by network, one for each seed.
        out: store to write.
    """
    paths = [cotrain, *networks]
    stores = [open_store(p, probabilities=("class", "y", "x"), nodata=("y", "x")) for p in paths]
    first, names = stores[0], class_names(stores[0])
    shape = array_of(first, "probabilities").shape
    for path, store in zip(networks, stores[1:], strict=True):
        if class_names(store) != names:
            raise UserError(
                f"{path}: classes {', '.join(class_names(store))}, but {cotrain} has"
                f" {', '.join(names)}; delete both and run again"
            )
        if (found := array_of(store, "probabilities").shape) != shape:
            raise UserError(
                f"{path}: a map of {found[1]} x {found[2]} pixels, but {cotrain} has"
                f" {shape[1]} x {shape[2]}; delete both and run again"
            )
    write_prediction_strips(
        out,
        _strips(stores, shape[1]),
        shape[1:],
        step="consensus",
        settings={},
        inputs=paths,
        class_names=names,
        grid=grid_of(first),
    )


def _strips(stores: Sequence[zarr.Group], height: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Averaged probabilities and no-data mask, a row of chunks at a time."""
    for rows in tile_rows(height):
        cotrained, *networks = (np.asarray(array_of(s, "probabilities")[:, rows]) for s in stores)
        yield averaged(cotrained, networks), np.asarray(array_of(stores[0], "nodata")[rows])


if __name__ == "__main__":
    run(consensus)
