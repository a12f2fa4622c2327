"""The map of a run: what co-training and the networks of all seeds say, averaged."""

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


def averaged(networks: Sequence[np.ndarray], cotrained: np.ndarray | None = None) -> np.ndarray:
    """The networks' mean; where there is co-training, half of it and half of that.

    Args:
        networks: (class, y, x) float32, one for each seed.
        cotrained: of the same shape.

    Returns:
        (class, y, x) float32.
    """
    total = np.zeros_like(networks[0], np.float32)
    for probabilities in networks:
        total += probabilities
    total /= len(networks)
    return total if cotrained is None else (total + cotrained) / 2


def consensus(*, cotrain: Path | None, networks: list[Path], out: Path) -> None:
    """Average the map of co-training and those of the networks.

    Args:
        cotrain: store made by cotrain; null for the published method, which has none.
        networks: stores made by network or refine, one for each seed.
        out: store to write.
    """
    paths = [*networks, *([cotrain] if cotrain else [])]
    stores = [open_store(p, probabilities=("class", "y", "x"), nodata=("y", "x")) for p in paths]
    first, names = stores[0], class_names(stores[0])
    shape = array_of(first, "probabilities").shape
    for path, store in zip(paths[1:], stores[1:], strict=True):
        if class_names(store) != names:
            raise UserError(
                f"{path}: classes {', '.join(class_names(store))}, but {paths[0]} has"
                f" {', '.join(names)}; delete both and run again"
            )
        if (found := array_of(store, "probabilities").shape) != shape:
            raise UserError(
                f"{path}: a map of {found[1]} x {found[2]} pixels, but {paths[0]} has"
                f" {shape[1]} x {shape[2]}; delete both and run again"
            )
    write_prediction_strips(
        out,
        _strips(stores[: len(networks)], stores[len(networks) :], shape[1]),
        shape[1:],
        step="consensus",
        settings={},
        inputs=paths,
        class_names=names,
        grid=grid_of(first),
    )


def _strips(
    networks: Sequence[zarr.Group], cotrained: Sequence[zarr.Group], height: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Averaged probabilities and no-data mask, a row of chunks at a time."""
    for rows in tile_rows(height):
        read = [np.asarray(array_of(s, "probabilities")[:, rows]) for s in (*networks, *cotrained)]
        count = len(networks)
        yield (
            averaged(read[:count], *read[count:]),
            np.asarray(array_of(networks[0], "nodata")[rows]),
        )


if __name__ == "__main__":
    run(consensus)
