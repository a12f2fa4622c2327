"""Which words did not work on a scene: what the map calls so is compared with what each witness alone calls so.

A class that is there is found in the same place by the map, by CLIP and by the spectral library, or at least by one of
them in just the map's place. A word for something that is not there gets some pixels, too: but each witness gives it
others, or none. No ground truth is asked.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from special_steps.core.atomic import atomic_write
from special_steps.core.calibration import witnesses_of
from special_steps.core.cli import run
from special_steps.core.errors import UserError
from special_steps.core.store import array_of, class_names, open_store, tile_rows

log = logging.getLogger("special")

# From simulated scenes (tests/benchmarks/absent_words.py; ACCURACY.md says which half chose what):
FLOOR = (
    0.02  # added to an overlap, so that a witness that never says the word does not decide alone
)
LEAST = 0.12  # of both witnesses' overlaps with the map, their geometric mean
# For one witness alone, and for classes of more than SMALL of the map: seldom does a word for nothing get so much, and
# often is one of the witnesses blind to what covers much
SURE, SMALL = 0.06, 0.1


def overlaps(pairs: np.ndarray) -> np.ndarray:
    """How far a map and a witness mean the same pixels by each class: shared pixels by those of either.

    Args:
        pairs: (class, class) pixels by the witness's label and the map's.

    Returns:
        (class,) float64 in [0, 1]; 0 for a class that neither has.
    """
    shared = np.diag(pairs)
    return shared / np.maximum(pairs.sum(0) + pairs.sum(1) - shared, 1)


def presences(
    pairs: Mapping[str, np.ndarray], asked: Mapping[str, Sequence[bool]], names: Sequence[str]
) -> dict[str, Any]:
    """Which classes of a map are there, as far as the witnesses tell.

    Args:
        pairs: by witness, (class, class) pixels by its label and the map's.
        asked: by witness, the classes that it can see: the spectral library has no say in those without spectra.
        names: the classes.

    Returns:
        classes (class, present, share of the map, overlaps by witness, score: the geometric mean of overlaps + FLOOR,
        None where nobody can be asked; reason, for those that are not present), warnings (sentences).
    """
    of_map = next(iter(pairs.values())).sum(0)
    shares = of_map / max(of_map.sum(), 1)
    overlap = {witness: overlaps(counts) for witness, counts in pairs.items()}
    classes, warnings = [], []
    for k, name in enumerate(names):
        seen = {w: float(values[k]) for w, values in overlap.items() if asked[w][k]}
        score = float(np.exp(np.mean(np.log([v + FLOOR for v in seen.values()])))) if seen else None
        least = LEAST if len(seen) > 1 and shares[k] < SMALL else SURE
        reason = None
        if not of_map[k]:
            reason = "no pixel of the map has it"
        elif score is not None and score < least:
            said = [_compared(w, pairs[w], k, names) for w in seen]
            reason = f"of its pixels on the map, {'; '.join(said)}"
        if reason:
            warnings.append(
                f"'{name}': this word did not work on this scene: {reason}; use another word, or leave it out"
            )
        classes.append(
            {
                "class": name,
                "present": reason is None,
                "share": float(shares[k]),
                "overlaps": seen,
                "score": score,
                "reason": reason,
            }
        )
    return {"classes": classes, "warnings": warnings}


def _compared(witness: str, pairs: np.ndarray, k: int, names: Sequence[str]) -> str:
    """What a witness calls the map's pixels of a class, in words."""
    pixels = pairs[:, k].sum()
    column = pairs[:, k] / pixels
    other = np.where(np.arange(len(names)) == k, 0, column)
    elsewhere = (pairs[k].sum() - pairs[k, k]) / pixels
    text = f"{witness} calls {column[k]:.0%} so"
    if other.max() > column[k]:
        return f"{text} and {other.max():.0%} '{names[int(other.argmax())]}'"
    return text + (
        f", but {elsewhere:.1f} times as many pixels elsewhere, too" if elsewhere > 1 else ""
    )


def presence(*, prediction: Path, pseudo: Path, out: Path) -> None:
    """Tell which words did not work.

    Args:
        prediction: store with `labels`, the map.
        pseudo: store made by fuse, with what each witness alone calls each pixel.
        out: JSON file to write: for each class whether it is there, and warnings.

    Raises:
        UserError: for stores of different scenes or classes.
    """
    mapped = open_store(prediction, labels=("y", "x"))
    labelled = open_store(pseudo, labels=("y", "x"))
    of_map, of_witnesses = array_of(mapped, "labels"), witnesses_of(labelled)
    names = class_names(mapped)
    if class_names(labelled) != names or of_witnesses.shape[1:] != of_map.shape:
        raise UserError(
            f"{pseudo}: not of the same classes or size as {prediction}; delete both and run again"
        )
    count = len(names) + 1
    provenance: Any = labelled.attrs["provenance"]
    asked: dict[str, list[bool]] = dict(provenance["settings"]["witnesses"])
    pairs = {witness: np.zeros((count, count), np.int64) for witness in asked}
    for rows in tile_rows(of_map.shape[0]):
        here = np.asarray(of_map[rows]).astype(np.int64)
        for table, label in zip(pairs.values(), of_witnesses[:, rows], strict=True):
            both = np.bincount((count * label.astype(np.int64) + here).ravel(), minlength=count**2)
            table += both.reshape(count, count)
    told = presences({w: table[1:, 1:] for w, table in pairs.items()}, asked, names)
    for warning in told["warnings"]:
        log.warning(warning)
    with atomic_write(out) as file:
        file.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    run(presence)
