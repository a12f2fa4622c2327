"""Several scenes as one to learn from: their features and pseudo-labels, below one another."""

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import zarr

from special_steps.core.cli import run
from special_steps.core.errors import UserError
from special_steps.core.matched import Bands, Matched, bands_of, open_matched
from special_steps.core.prediction import given_labels, write_prediction_strips
from special_steps.core.spectral import joint_percentiles, stretch
from special_steps.core.store import (
    UNKNOWN,
    array_of,
    class_names,
    create_array,
    new_store,
    open_store,
    tile_rows,
    write_array,
    write_strips,
)
from special_steps.core.witnesses import Witness, as_settings, witnesses_told
from special_steps.materials.alike import Sample, check_alike

log = logging.getLogger("special")

GAP = 8  # rows between two scenes
SAMPLE = 20_000  # pixels of each scene that are compared


class Member(NamedTuple):
    """One of the scenes."""

    scene: str
    cube: Path
    pseudo: Path
    units: str  # auto, reflectance or radiance


def stacked(
    parts: Sequence[Callable[[slice], np.ndarray]],
    shapes: Sequence[tuple[int, int]],
    fill: float | bool | None,
) -> Iterator[np.ndarray]:
    """Images below one another, in strips of rows, with GAP rows between; narrower ones are filled up at the right.

    Args:
        parts: for each image: rows to (..., rows, x).
        shapes: their (height, width).
        fill: what stands beside and between images; None for their mirror image: a network normalises by what it sees,
            and would learn to expect emptiness.

    Yields:
        (..., rows, widest x).
    """
    widest = max(width for _, width in shapes)
    for i, (read, (height, width)) in enumerate(zip(parts, shapes, strict=True)):
        for rows in tile_rows(height):
            strip = read(rows)
            below = GAP if rows.stop == height and i < len(parts) - 1 else 0
            around = [(0, 0)] * (strip.ndim - 2) + [(0, below), (0, widest - width)]
            if fill is None:
                yield np.pad(strip, around, "symmetric")
            else:
                yield np.pad(strip, around, constant_values=fill)


def stacked_shape(shapes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Height and width of what `stacked` makes."""
    heights, widths = zip(*shapes, strict=True)
    return sum(heights) + GAP * (len(heights) - 1), max(widths)


def _informed(store: zarr.Group) -> bool:
    """Whether the spectral library had a say in pseudo-labels."""
    provenance: Any = store.attrs["provenance"]
    return bool(provenance["settings"].get("informed", False))


def _given(labelled: Sequence[zarr.Group], shapes: Sequence[tuple[int, int]]) -> np.ndarray | None:
    """Labels that people gave of some of the scenes, below one another; None where they gave none."""
    read = [given_labels(store) for store in labelled]
    if all(labels is None for labels in read):
        return None
    every = [
        np.zeros(shape, np.uint8) if labels is None else labels
        for labels, shape in zip(read, shapes, strict=True)
    ]
    return np.concatenate(list(stacked([labels.__getitem__ for labels in every], shapes, 0)))


def _same_witnesses(labelled: Sequence[zarr.Group]) -> list[Witness]:
    """The witnesses of all scenes; none where scenes have others."""
    first, *others = (witnesses_told(store) for store in labelled)
    same = all([w.name for w in other] == [w.name for w in first] for other in others)
    if not same:
        return []
    sees = [np.all([w.sees for w in each], 0) for each in zip(first, *others, strict=True)]
    heard = [all(w.heard for w in each) for each in zip(first, *others, strict=True)]
    return [Witness(w.name, s.tolist(), h) for w, s, h in zip(first, sees, heard, strict=True)]


def _witnesses(labelled: Sequence[zarr.Group], shapes: Sequence[tuple[int, int]]) -> np.ndarray:
    """What the witnesses of all scenes say, below one another."""
    read = [_rows(array_of(store, "witnesses")) for store in labelled]
    return np.concatenate(list(stacked(read, shapes, 0)), axis=1)


def _rows(array: zarr.Array) -> Callable[[slice], np.ndarray]:
    return lambda rows: np.asarray(array[..., rows, :])


def _check(members: Sequence[Member], cubes: Sequence[Matched], bands: Bands) -> None:
    """Refuse scenes whose values are not like the first one's."""
    first, *others = (
        Sample(member.scene, member.units, cube.sample(SAMPLE))
        for member, cube in zip(members, cubes, strict=True)
    )
    for other in others:
        check_alike(first, other, bands)


def _write_features(
    out: Path,
    members: Sequence[Member],
    cubes: Sequence[Matched],
    bands: Bands,
    shapes: Sequence[tuple[int, int]],
    percentiles: list[float],
    settings: dict[str, Any],
) -> None:
    """The store of features, a strip of rows in memory."""

    def values() -> Iterator[np.ndarray]:
        for cube in cubes:
            for rows in tile_rows(len(cube.nodata)):
                valid = ~cube.nodata[rows]
                yield from (band[valid] for band in cube.read((rows, slice(None))))

    limits = joint_percentiles(values, percentiles)

    def stretched(cube: Matched) -> Callable[[slice], np.ndarray]:
        def read(rows: slice) -> np.ndarray:
            found = stretch(cube.read((rows, slice(None))), limits)
            found[:, cube.nodata[rows]] = 0
            return found

        return read

    inputs = [member.cube for member in members]
    shape = stacked_shape(shapes)
    with new_store(out, step="together", settings=settings, inputs=inputs) as group:
        write_array(group, "band", bands.nm, ("band",))
        if bands.fwhm is not None:
            write_array(group, "fwhm", bands.fwhm, ("band",))
        group.attrs["limits"] = limits
        array = create_array(group, "features", (len(bands.nm), *shape), ("band", "y", "x"))
        write_strips(array, stacked([stretched(cube) for cube in cubes], shapes, None))
        empty = stacked([cube.nodata.__getitem__ for cube in cubes], shapes, True)
        write_array(group, "nodata", np.concatenate(list(empty)), ("y", "x"))


def together(
    *,
    scenes: list[dict[str, str]],
    percentiles: list[float],
    features: Path,
    pseudo: Path,
) -> None:
    """Put scenes below one another, so that one classifier learns from all.

    Bands are those of the first scene, matched by wavelength; the stretch is one for all.

    Args:
        scenes: of each: scene (its name), cube (store made by ingest), pseudo (store made by fuse), units (what the
            config says of its values).
        percentiles: percentiles over all good bands of all scenes that become 0 and 1.
        features: store to write, as the step features does, without principal components.
        pseudo: store to write, as fuse does.
    """
    members = [Member(s["scene"], Path(s["cube"]), Path(s["pseudo"]), s["units"]) for s in scenes]
    first = members[0]
    bands = bands_of(open_store(first.cube, band=("band",), good_band=("band",)))
    cubes = [open_matched(member.cube, bands) for member in members]
    labelled = [open_store(member.pseudo, probabilities=("class", "y", "x")) for member in members]
    names = class_names(labelled[0])
    for member, store in zip(members[1:], labelled[1:], strict=True):
        if class_names(store) != names:
            raise UserError(
                f"{member.pseudo}: classes {', '.join(class_names(store))}, but {first.pseudo} has"
                f" {', '.join(names)}; delete both and run again"
            )
    _check(members, cubes, bands)
    shapes = [(cube.nodata.shape[0], cube.nodata.shape[1]) for cube in cubes]
    settings = {"scenes": [member.scene for member in members], "percentiles": percentiles}
    said = _same_witnesses(labelled)
    _write_features(features, members, cubes, bands, shapes, percentiles, settings)
    write_prediction_strips(
        pseudo,
        zip(
            stacked([_rows(array_of(s, "probabilities")) for s in labelled], shapes, 0),
            stacked([cube.nodata.__getitem__ for cube in cubes], shapes, True),
            strict=True,
        ),
        stacked_shape(shapes),
        step="together",
        settings=settings | {"informed": all(map(_informed, labelled))} | as_settings(said),
        inputs=[member.pseudo for member in members],
        class_names=names,
        grid=UNKNOWN,
        given=_given(labelled, shapes),
        witnesses=_witnesses(labelled, shapes) if said else None,
    )
    log.info("%d scenes together: %d x %d pixels", len(members), *stacked_shape(shapes))


if __name__ == "__main__":
    run(together)
