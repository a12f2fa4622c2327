"""The map of a run: what co-training and the networks of all seeds say, averaged."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import zarr

from special_steps.core.calibration import confidence, known_of, passed_on
from special_steps.core.cli import run
from special_steps.core.errors import UserError
from special_steps.core.prediction import (
    Confidence,
    averaged,
    given_labels,
    write_prediction_strips,
)
from special_steps.core.store import (
    array_of,
    class_names,
    grid_of,
    open_store,
    tile_rows,
)


def consensus(*, cotrain: Path | None, networks: list[Path], out: Path) -> None:
    """Average the map of co-training and those of the networks, and say how sure it is.

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
    image = ("y", "x")
    calibrated = open_store(cotrain, labels=image, confidence=image) if cotrain else None
    known = known_of(calibrated) if calibrated else None
    write_prediction_strips(
        out,
        _strips(stores[: len(networks)], stores[len(networks) :], shape[1]),
        shape[1:],
        step="consensus",
        settings={"known": known and known._asdict()},
        inputs=paths,
        class_names=names,
        grid=grid_of(first),
        given=given_labels(first),
        confidence=_as_co_training(calibrated) if calibrated else _as_probable,
    )


def _as_co_training(cotrained: zarr.Group) -> Confidence:
    """The confidence of co-training, whose labels the networks have learned from: they are no witnesses."""

    def sure(probabilities: np.ndarray, rows: slice) -> np.ndarray:
        before, known = (
            np.asarray(array_of(cotrained, name)[rows]) for name in ("labels", "confidence")
        )
        return passed_on(probabilities, before, known)

    return sure


def _as_probable(probabilities: np.ndarray, _: slice) -> np.ndarray:
    """The confidence where there was no co-training, whose maps alone it is fitted to."""
    return confidence(probabilities, None)


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
