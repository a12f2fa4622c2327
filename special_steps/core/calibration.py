"""How sure a map is: the probability that a label is right, from what is known without ground truth.

A map's own probabilities say more than they know: where all labels of a scene mislead, co-training is as sure as ever.
What they lack is a second opinion. So the confidence is logistic in three things: the probability of the label (its
log-odds), how many of the witnesses, CLIP and the spectral library, give the pixel the same label, and how far the two
agree on the scene, up to what is enough. None of the three lowers it as it rises.

The coefficients come from simulated scenes, the half to choose on, whose truth is known by construction
(`python tests/benchmarks/calibration.py`). They are fitted to maps of co-training. Of a map without it nothing else is
known than its probabilities.
"""

from typing import Any, NamedTuple

import numpy as np
import zarr

from special_steps.core.prediction import kappa


class Known(NamedTuple):
    """What is known of the labels of a whole scene; as a dict, JSON-able, in the settings of cotrain's store."""

    witnesses: int  # 2: CLIP, or a map of the user's, and the spectral library; 1: one of them
    kappa: float  # agreement beyond chance: of the two witnesses; of one, with the map made of it


class Coefficients(NamedTuple):
    """Of the log-odds that a label is right."""

    constant: float
    probability: float  # of the label, as log-odds
    agreeing: float  # share of the witnesses that give the same label
    kappa: float  # up to ENOUGH


# Fitted and weighted by tests/benchmarks/calibration.py; by number of witnesses
SEEN = {
    1: Coefficients(-3.108, 0.659, 0.324, 6.341),
    2: Coefficients(-1.528, 0.762, 0.981, 2.426),
}
# For pixels of which no witness was asked, such as those of another scene:
UNSEEN = {
    1: Coefficients(-3.06, 0.691, 0.0, 6.621),
    2: Coefficients(-1.187, 0.845, 0.0, 2.677),
}
# Kappa above which witnesses that agree more say no more, chosen with the coefficients
ENOUGH = 0.4


def log_odds(probability: np.ndarray) -> np.ndarray:
    """log(p / (1 - p)), bounded at p = 0 and 1: more nines than two mean nothing."""
    least = np.float32(0.01)
    return np.log((probability + least) / (1 - probability + least))


def confidence(
    probabilities: np.ndarray, known: Known | None, witnesses: np.ndarray | None = None
) -> np.ndarray:
    """The probability that the best label of each pixel is right.

    Args:
        probabilities: (class, ...) float32 of the map.
        known: of the scene; of a map by a model of another scene, of that scene; None: the probabilities say it all.
        witnesses: (witness, ...) uint8 labels from 1, what each says is there; None where nobody was asked.

    Returns:
        (...) float32 in [0, 1]; 1 where there is a single class.

    Raises:
        ValueError: when they are more or fewer witnesses than the scene has.
    """
    if known is None:
        return np.minimum(probabilities.max(0), 1)
    if witnesses is not None and len(witnesses) != known.witnesses:
        raise ValueError(f"{len(witnesses)} witnesses, but the scene has {known.witnesses}")
    if len(probabilities) == 1:
        return np.ones(probabilities.shape[1:], np.float32)
    by = (UNSEEN if witnesses is None else SEEN)[known.witnesses]
    odds = np.float32(by.probability) * log_odds(probabilities.max(0))
    odds += np.float32(by.constant + by.kappa * min(known.kappa, ENOUGH))
    if witnesses is not None:
        best = (probabilities.argmax(0) + 1).astype(np.uint8)
        odds += np.float32(by.agreeing) * (witnesses == best).mean(0, dtype=np.float32)
    return 1 / (1 + np.exp(-odds))


def passed_on(probabilities: np.ndarray, labels: np.ndarray, confidence: np.ndarray) -> np.ndarray:
    """The confidence of a map that is made of a calibrated one and others that know no more than that.

    Where both have the same label, it is as sure as that. Where not, only what the calibrated map leaves open can be
    right, shared among the other classes as the new map's probabilities have it.

    Args:
        probabilities: (class, ...) float32 of the new map.
        labels: (...) uint8 from 1 of the calibrated map, 0 where no data.
        confidence: (...) float32 of the calibrated map.

    Returns:
        (...) float32 in [0, 1].
    """
    before = np.maximum(labels, 1).astype(np.int64) - 1  # no data: any
    others = 1 - np.take_along_axis(probabilities, before[None], 0)[0]
    share = probabilities.max(0) / np.maximum(others, np.float32(1e-6))
    open_still = (1 - confidence) * np.minimum(share, 1)
    return np.where(probabilities.argmax(0) == before, confidence, open_still)


def known_of(store: zarr.Group) -> Known | None:
    """What is known of the scene of a store made by cotrain or consensus; None without co-training."""
    provenance: Any = store.attrs["provenance"]
    known = provenance["settings"]["known"]
    return None if known is None else Known(**known)


def kind_of(store: zarr.Group) -> str:
    """What a map's confidence is: calibrated; a probability, as networks alone have it; or the margin."""
    if "confidence" not in store:
        return "margin"
    provenance: Any = store.attrs["provenance"]
    return "probability" if provenance["settings"].get("known", {}) is None else "calibrated"


def what_is_known(witnesses: np.ndarray, probabilities: np.ndarray | None) -> Known:
    """How far two witnesses agree on a scene; or one, and the map made of it.

    Args:
        witnesses: (witness, pixel) uint8 labels from 1.
        probabilities: (class, pixel) float32 of the map; None where it is the witness's own, whose agreement would
            say nothing.
    """
    if len(witnesses) == 1 and probabilities is None:
        return Known(1, 0.0)
    first, *other = witnesses.astype(np.int64) - 1
    second = other[0] if probabilities is None or other else probabilities.argmax(0)
    count = 1 + int(max(first.max(), second.max()))
    pairs = np.bincount(first * count + second, minlength=count**2).reshape(count, count)
    return Known(len(witnesses), kappa(pairs))
