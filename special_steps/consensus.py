"""The map of a run: what co-training and the networks of all seeds say, averaged."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import zarr

from special_steps.core.calibration import (
    Known,
    confidence,
    known_of,
    passed_on,
    what_is_known,
    witnesses_of,
)
from special_steps.core.cli import run
from special_steps.core.errors import UserError
from special_steps.core.prediction import Confidence, write_prediction_strips
from special_steps.core.store import (
    array_of,
    class_names,
    grid_of,
    open_store,
    read_array,
    read_pixels,
    tile_rows,
)

SAMPLE = 100_000  # pixels that labels and map are compared on at most


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


def consensus(
    *, cotrain: Path | None, pseudo: Path | None, networks: list[Path], out: Path
) -> None:
    """Average the map of co-training and those of the networks, and say how sure it is.

    Args:
        cotrain: store made by cotrain; null for the published method, which has none.
        pseudo: store made by fuse, to tell how far the map can be trusted; null where co-training has told.
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
    if cotrain:
        calibrated = open_store(cotrain, labels=image, confidence=image)
        known, sure = known_of(calibrated), _as_co_training(calibrated)
    else:
        assert pseudo is not None
        known, sure = _by_labels(pseudo, stores)
        paths.append(pseudo)
    write_prediction_strips(
        out,
        _strips(stores[: len(networks)], stores[len(networks) :], shape[1]),
        shape[1:],
        step="consensus",
        settings={"known": known._asdict()},
        inputs=paths,
        class_names=names,
        grid=grid_of(first),
        confidence=sure,
    )


def _as_co_training(cotrained: zarr.Group) -> Confidence:
    """The confidence of co-training, whose labels the networks have learned from: they are no witnesses."""

    def sure(probabilities: np.ndarray, rows: slice) -> np.ndarray:
        before, known = (
            np.asarray(array_of(cotrained, name)[rows]) for name in ("labels", "confidence")
        )
        return passed_on(probabilities, before, known)

    return sure


def _by_labels(pseudo: Path, networks: Sequence[zarr.Group]) -> tuple[Known, Confidence]:
    """What is known of a scene without co-training, and the confidence of its map."""
    opinions = witnesses_of(open_store(pseudo, labels=("y", "x")))
    maps = [array_of(store, "probabilities") for store in networks]
    said, *read = read_pixels([opinions, *maps], read_array(networks[0], "nodata"), SAMPLE)
    known = what_is_known(said, averaged(read))

    def sure(probabilities: np.ndarray, rows: slice) -> np.ndarray:
        return confidence(probabilities, known, opinions[:, rows])

    return known, sure


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
