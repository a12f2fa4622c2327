"""Spectral co-training: the spectra correct the pseudo-labels, without a network and in seconds.

Gaussian discriminants in several spectral views learn from the surest pixels of each class and label the scene again.
Two ways lead from there: the anchored one corrects much, and goes astray where the labels mislead; the agreement's
corrects less, and seldom does. Labels that the spectral library has a say in take the agreement's; for those of an
image alone, how far the anchored result leaves the labels decides.
"""

import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from special_steps.classifier.anchored import FIRST, anchored, normalised
from special_steps.classifier.gaussian import (
    LINEAR,
    QUADRATIC,
    Ensemble,
    Member,
    Views,
    apply_ensemble,
    class_moments,
    fit_ensemble,
    fit_views,
    project,
)
from special_steps.classifier.sampling import agreement_set, surest
from special_steps.core.atomic import atomic_write
from special_steps.core.calibration import confidence, what_is_known, witnesses_of
from special_steps.core.cli import run
from special_steps.core.errors import UserError
from special_steps.core.prediction import margins, write_prediction_strips
from special_steps.core.store import (
    array_of,
    class_names,
    grid_of,
    open_store,
    read_array,
    read_pixels,
    tile_rows,
)

log = logging.getLogger("special")

SAMPLE = 100_000  # pixels that are learned from at most, drawn with a fixed seed: more move nothing, they cost time
# Chosen on CLIP's labels of simulated scenes, the half to choose on (tests/benchmarks/simulated_scenes.py):
ASTRAY = (
    0.03  # of agreement with the pseudo-labels: what the anchored way may lose against the other
)
FROM_LABELS: tuple[tuple[Member, ...], ...] = (LINEAR,) * 3 + (QUADRATIC,) * 2
FROM_ANCHORED: tuple[tuple[Member, ...], ...] = (LINEAR,) * 4 + (QUADRATIC,) * 4


class Cotrained(NamedTuple):
    """What was learned, ready for any pixel of the scene, and what it says of the pixels it was learned from."""

    views: Views
    ensembles: tuple[Ensemble, ...]  # their mean is the result
    probabilities: np.ndarray  # (class, pixel) float32
    way: str  # anchored, agreement, or none where there is nothing to learn
    kept: float  # share of the pixels whose label stays, by the anchored way where there is one


def _refitted(
    joint: np.ndarray,
    views: Views,
    found: np.ndarray,
    pseudo: np.ndarray,
    schedule: Sequence[tuple[Member, ...]],
) -> tuple[Ensemble, np.ndarray]:
    """Learn from the pixels in agreement, again and again: the last ensemble, and what it finds."""
    for members in schedule:
        agreed = agreement_set(pseudo, found.argmax(0), margins(found))
        moments = class_moments(joint, agreed, len(found))
        ensemble = fit_ensemble(moments, views, members)
        found = apply_ensemble(ensemble, joint)
    return ensemble, found


def cotrained(
    spectra: np.ndarray, probabilities: np.ndarray, *, informed: bool = False
) -> Cotrained:
    """Correct noisy class probabilities by the spectra.

    Labels of an image alone err by whole regions and colours: the anchored way corrects most of that. Labels that the
    spectral library has a say in are right more evenly; learning from the pixels in agreement is all that they need.

    Args:
        spectra: (pixel, band) float32 in [0, 1], pixels with data.
        probabilities: (class, pixel) float32 of the pseudo-labels, columns sum to 1.
        informed: whether the spectral library had a say in them.
    """
    views = fit_views(spectra)
    joint = project(views, spectra)
    pseudo = probabilities.argmax(0)
    if len(probabilities) == 1 or margins(probabilities).max() < 1e-6:
        return Cotrained(views, (), probabilities, "none", 1.0)
    positive = normalised(probabilities + np.float32(1e-6))
    first = class_moments(joint, surest(positive, FIRST), len(positive))
    from_labels, found = _refitted(
        joint, views, apply_ensemble(fit_ensemble(first, views, LINEAR), joint), pseudo, FROM_LABELS
    )
    if informed:
        kept = float((found.argmax(0) == pseudo).mean())
        return Cotrained(views, (from_labels,), found, "agreement", kept)
    anchored_ensemble, by_anchor = anchored(joint, views, positive)
    from_anchored, found_too = _refitted(joint, views, by_anchor, pseudo, FROM_ANCHORED)
    agreement = (found + found_too) / 2
    kept = float((by_anchor.argmax(0) == pseudo).mean())
    if (agreement.argmax(0) == pseudo).mean() - kept >= ASTRAY:
        return Cotrained(views, (from_labels, from_anchored), agreement, "agreement", kept)
    return Cotrained(views, (anchored_ensemble,), by_anchor, "anchored", kept)


def predict(learned: Cotrained, spectra: np.ndarray) -> np.ndarray:
    """What was learned, of any pixels: spectra (pixel, band) float32 to probabilities (class, pixel) float32."""
    joint = project(learned.views, spectra)
    found = [apply_ensemble(ensemble, joint) for ensemble in learned.ensembles]
    return sum(found[1:], found[0]) / len(found)


def diagnose(learned: Cotrained, pairs: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    """What the map says of its labels, without ground truth.

    Args:
        learned: the co-training.
        pairs: (class, class) pixels by pseudo-label and co-trained label.
        names: the classes.

    Returns:
        agreement (share of the pixels that kept their label), way, classes (class, pseudo_share, cotrain_share,
        agreement: null without pseudo-labels), warnings (sentences).
    """
    total, before, after, same = pairs.sum(), pairs.sum(1), pairs.sum(0), np.diag(pairs)
    agreement = float(same.sum() / total)
    classes = [
        {
            "class": name,
            "pseudo_share": float(before[k] / total),
            "cotrain_share": float(after[k] / total),
            "agreement": float(same[k] / before[k]) if before[k] else None,
        }
        for k, name in enumerate(names)
    ]
    warnings = []
    if learned.way == "none" and len(names) > 1:
        warnings.append(
            "the pseudo-labels have no margin anywhere: nothing can be learned from them, and the map is theirs;"
            " use other words, another scale, or labels of your own"
        )
    elif learned.kept < 0.5:
        warnings.append(
            "the pseudo-labels carry little information about the spectra: co-training would change"
            f" {1 - learned.kept:.0%} of them; don't trust this map without a look, and try other words,"
            " another scale, or labels of your own"
        )
    for k, name in enumerate(names):
        if not before[k]:
            warnings.append(
                f"no pixel is pseudo-labelled '{name}'"
                + ("" if after[k] else ": the map will not have it")
            )
        elif same[k] < 0.5 * before[k]:
            others = np.where(np.arange(len(names)) == k, 0, pairs[k])
            warnings.append(
                f"the spectra contradict {1 - same[k] / before[k]:.0%} of the pseudo-labels '{name}', most of them"
                f" for '{names[int(others.argmax())]}': look at both, or use other words"
            )
    return {"agreement": agreement, "way": learned.way, "classes": classes, "warnings": warnings}


def cotrain(*, features: Path, pseudo: Path, out: Path, diagnosis: Path) -> None:
    """Correct the pseudo-labels by the spectra.

    Args:
        features: store made by features.
        pseudo: store made by fuse.
        out: store to write, class probabilities, and how sure the map is.
        diagnosis: JSON file to write: how far the map and its pseudo-labels agree, by class, and warnings.
    """
    prepared = open_store(features, features=("band", "y", "x"), nodata=("y", "x"))
    labelled = open_store(pseudo, probabilities=("class", "y", "x"), labels=("y", "x"))
    bands, labels = array_of(prepared, "features"), array_of(labelled, "probabilities")
    nodata, names = read_array(prepared, "nodata"), class_names(labelled)
    if nodata.all():
        raise UserError(f"{features}: no pixel has data; look at the scene and its no-data value")
    provenance: Any = labelled.attrs["provenance"]
    informed = provenance["settings"].get("informed", False)
    opinions = witnesses_of(labelled)
    spectra, sample, said = read_pixels([bands, labels, opinions], nodata, SAMPLE)
    learned = cotrained(np.ascontiguousarray(spectra.T), sample, informed=informed)
    known = what_is_known(said, learned.probabilities if learned.ensembles else None)
    del spectra, sample, said
    log.info("learned from %d pixels: %s", learned.probabilities.shape[1], learned.way)
    pairs = np.zeros((len(names), len(names)), np.int64)

    def strips() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for rows in tile_rows(len(nodata)):
            valid = ~nodata[rows]
            found = np.asarray(labels[:, rows])
            given = found[:, valid].argmax(0)
            if learned.ensembles and valid.any():
                spectra = np.asarray(bands[:, rows])
                for y in range(0, len(valid), 16):
                    few, mask = slice(y, y + 16), valid[y : y + 16]
                    if mask.any():
                        found[:, few][:, mask] = predict(learned, spectra[:, few][:, mask].T)
            np.add.at(pairs, (given, found[:, valid].argmax(0)), 1)
            yield found, ~valid

    def sure(found: np.ndarray, rows: slice) -> np.ndarray:
        return confidence(found, known, opinions[:, rows])

    write_prediction_strips(
        out,
        strips(),
        nodata.shape,
        step="cotrain",
        settings={"known": known._asdict()},
        inputs=[features, pseudo],
        class_names=names,
        grid=grid_of(prepared),
        confidence=sure,
    )
    told = diagnose(learned, pairs, names)
    for warning in told["warnings"]:
        log.warning(warning)
    log.info("%.1f %% of the pixels keep their pseudo-label", 100 * told["agreement"])
    with atomic_write(diagnosis) as file:
        file.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    run(cotrain)
