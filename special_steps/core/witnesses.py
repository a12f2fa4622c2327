"""What each witness of a scene, CLIP and the spectral library, calls its pixels by itself.

The step fuse keeps it beside what it joins: the array `witnesses` of its store, (witness, y, x) uint8 labels from 1, 0
where no data; whose they are, stands in the store's settings.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import zarr

from special_steps.core.store import read_array

LIBRARY = "the spectral library"  # the second witness's name


class Witness(NamedTuple):
    """One of them."""

    name: str  # for sentences
    sees: list[bool]  # by class, whether it can name it: the library can't where it has no spectra
    heard: bool  # whether it had a say


def witnesses_told(store: zarr.Group) -> list[Witness]:
    """Whose labels a store made by fuse keeps; none for labels whose makers are not known."""
    provenance: Any = store.attrs["provenance"]
    return [Witness(**each) for each in provenance["settings"].get("witnesses", [])]


def as_settings(witnesses: Sequence[Witness]) -> dict[str, Any]:
    """The same for the settings of a store."""
    return {"witnesses": [witness._asdict() for witness in witnesses]}


def opinions_of(store: zarr.Group) -> np.ndarray:
    """What each witness says is there; none contradicts a class that it can't name.

    Args:
        store: made by fuse.

    Returns:
        (witness, y, x) uint8 labels from 1, 0 where no data; of a store without witnesses its own labels.
    """
    if "witnesses" not in store:
        return read_array(store, "labels")[None]
    found = read_array(store, "witnesses")
    for labels, witness in zip(found[1:], witnesses_told(store)[1:], strict=False):
        blind = ~np.array([True, *witness.sees])
        np.copyto(labels, found[0], where=blind[found[0]])
    return found
