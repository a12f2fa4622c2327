"""Pseudo-labels: CLIP's scales, and what the spectral library says, become class probabilities with margins."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from special_steps.classifier.anchored import information
from special_steps.classifier.taught import corrected, learn
from special_steps.core.atomic import atomic_write
from special_steps.core.cli import run
from special_steps.core.errors import UserError
from special_steps.core.prediction import labels as best_labels
from special_steps.core.prediction import write_prediction
from special_steps.core.store import (
    array_of,
    grid_of,
    open_store,
    read_array,
    read_pixels,
    tile_rows,
)
from special_steps.core.witnesses import LIBRARY, Witness, as_settings
from special_steps.io.pseudo_labels import read_probabilities

log = logging.getLogger("special")

SAMPLE = 20_000  # pixels
TAUGHT = 100_000  # pixels that given labels are learned with, at most
# Of information(): less, and labels are not of this scene. Chosen with the exponents of `joined` on the half to choose
# on of the simulated scenes: there .05 to .07 where CLIP is useless, .23 and more elsewhere.
LEAST = 0.15
UNHEARD = (
    "CLIP's labels carry little information about the spectra (kappa {:.2f}): this map is the spectral library's alone;"
    " to give CLIP a say, use other words or scales"
)
MATTERS = 0.2  # share of a class that goes to another one: worth a sentence
SMALL = 0.01  # of the scene: what contradicts less of it is left out


def fused(maps: Sequence[np.ndarray]) -> np.ndarray:
    """Mean of the scales' class probabilities, normalised over classes.

    Args:
        maps: (class, y, x) float32 each, all of one shape, non-negative.

    Returns:
        (class, y, x) float32; pixels that are zero in all classes become uniform.
    """
    total = maps[0].astype(np.float32, copy=True)
    for other in maps[1:]:
        total += other
    sums = total.sum(0)
    total[:, sums == 0] = 1 / len(total)
    return np.divide(total, sums, out=total, where=sums > 0)


def joined(clip: np.ndarray, evidence: np.ndarray, known: Sequence[bool]) -> np.ndarray:
    """Both witnesses' class probabilities as one: their product, weighted by exponents, normalised over classes.

    Classes without spectra keep what CLIP gives them, of which the library knows nothing; the others share the rest.

    Args:
        clip: (class, y, x) float32, sums to 1 over classes.
        evidence: (class, y, x) float32.
        known: which classes have spectra.

    Returns:
        (class, y, x) float32.
    """
    least = np.float32(1e-6)  # neither rules out a class
    has = np.asarray(known)
    product = np.sqrt(clip + least) * (evidence + least) ** 2
    product[~has] = 0
    product /= product.sum(0)
    if not has.all():
        product[has] *= clip[has].sum(0)
        product[~has] = clip[~has]
        product /= product.sum(0)
    return product


def compared(
    pairs: np.ndarray, names: Sequence[str], known: Sequence[bool], first: str
) -> dict[str, Any]:
    """What the two witnesses say of each other, without ground truth.

    Args:
        pairs: (class, class) pixels by the first witness's label and the library's.
        names: the classes.
        known: which classes have spectra; the library never calls a pixel another one, and is not asked of those.
        first: what the first witness is called.

    Returns:
        between (whom), agreement (share of the pixels that both could give the same label; None where there is no such
        pixel), classes (class, pixels by the library's label), warnings (sentences).
    """
    asked = pairs[np.asarray(known)].sum()
    agreement = float(np.diag(pairs)[np.asarray(known)].sum() / asked) if asked else None
    warnings = []
    for k, name in enumerate(names):
        others = np.where(np.arange(len(names)) == k, 0, pairs[k])
        most, whole = int(others.argmax()), pairs[k].sum()
        if known[k] and whole >= SMALL * pairs.sum() and others[most] > MATTERS * whole:
            warnings.append(
                f"{others[most] / whole:.0%} of what {first} calls '{name}' is '{names[most]}' by the spectral library:"
                " look at both, or use other words or materials"
            )
    classes = [
        {"class": name, "library": dict(zip(names, map(int, row), strict=True))}
        for name, row in zip(names, pairs, strict=True)
    ]
    between = f"{first} and {LIBRARY}"
    return {"between": between, "agreement": agreement, "classes": classes, "warnings": warnings}


def changed(
    before: np.ndarray, after: np.ndarray, given: np.ndarray, names: Sequence[str]
) -> dict[str, Any]:
    """What given labels made of the pseudo-labels.

    Args:
        before: (class,) pixels by pseudo-label without them.
        after: the same with them.
        given: (class,) pixels that people labelled.
        names: the classes.

    Returns:
        given (class, given, before, after; of the classes that have some), notes (one sentence).
    """
    told = [
        {"class": name, "given": int(g), "before": int(b), "after": int(a)}
        for name, g, b, a in zip(names, given, before, after, strict=True)
        if g
    ]
    parts = [
        f"'{one['class']}' had no pseudo-label and now has {one['after']:,}"
        if not one["before"]
        else f"'{one['class']}' had {one['before']:,} pseudo-labels and now has {one['after']:,}"
        for one in told
    ]
    pixels, classes = int(given.sum()), len(told)
    note = (
        f"labels of {pixels:,} pixel{'s' * (pixels > 1)} of {classes} class{'es' * (classes > 1)} were given:"
        f" {'; '.join(parts)}"
    )
    return {"given": told, "notes": [note]}


def fuse(
    *,
    maps: list[Path],
    align: bool,
    evidence: list[Path],
    given: list[Path],
    features: Path | None,
    rgb: Path,
    out: Path,
    witnesses: Path,
    class_names: list[str],
) -> None:
    """Fuse maps of class probabilities into pseudo-labels.

    Args:
        maps: the scales' stores, or one file of your own; none: the spectral library alone.
        align: whether to bring a file of your own on another grid to the scene's; without it it is refused.
        evidence: the spectral library's store, and what it found (JSON); or nothing.
        given: store of the labels that people gave, and the store made by features that shows where their spectra are;
            or nothing.
        features: store made by features, to tell whether CLIP's labels say anything about the spectra; null for maps
            of your own, which count in any case.
        rgb: the scene's RGB store: its size, no-data mask and georeference.
        out: store to write; it also keeps the labels of each witness, as `witnesses`, of which its settings tell.
        witnesses: JSON file to write: where the maps and the spectral library contradict each other; an agreement of
            null where there is only one of them. And what given labels changed.
        class_names: the scene's classes, in order.

    Raises:
        UserError: when there is nothing to fuse.
    """
    scene = open_store(rgb, nodata=("y", "x"))
    nodata, grid = read_array(scene, "nodata"), grid_of(scene)

    def read(path: Path) -> np.ndarray:
        return read_probabilities(path, class_names, nodata, grid=grid, align=align)

    pseudo, informed = None, False
    told: dict[str, Any] = {"between": None, "agreement": None, "classes": [], "warnings": []}
    first = "CLIP" if all(path.is_dir() for path in maps) else "your own map"
    seen: list[tuple[Witness, np.ndarray]] = []
    if maps:
        pseudo = fused([read(path) for path in maps])
        every = [True] * len(class_names)
        seen.append((Witness(first, every, heard=True), best_labels(pseudo, nodata)))
    if evidence:
        library, found = evidence
        said = json.loads(found.read_text())
        informed = said["used"]
        if informed:
            known = read(library)
            has = [one["spectra"] > 0 for one in said["classes"]]
            seen.append((Witness(LIBRARY, has, heard=True), best_labels(known, nodata)))
            if pseudo is None:
                pseudo = fused([known])
            else:
                pairs = _pairs(pseudo, known, nodata)
                told = compared(pairs, class_names, has, first)
                counts = information(*_pixels(features, pseudo, nodata)) if features else 1.0
                if counts < LEAST:
                    told["warnings"].insert(0, UNHEARD.format(counts))
                    seen[0] = seen[0][0]._replace(heard=False), seen[0][1]
                    pseudo = fused([known])
                else:
                    pseudo = joined(pseudo, known, has)
        elif pseudo is None:
            raise UserError(
                f"there is nothing to label this scene with: {said['warnings'][-1]}; take a CLIP with clip,"
                " or name materials"
            )
    if pseudo is None:
        raise UserError("there is nothing to label this scene with: no CLIP, and no evidence")
    certain = None
    if given:
        labelled = open_store(given[0], labels=("y", "x"))
        certain = read_array(labelled, "labels")
        before = _counts(pseudo, nodata)
        _teach(pseudo, certain, given[1], nodata)
        known = np.bincount(certain.ravel(), minlength=len(before) + 1)[1:]
        told |= changed(before, _counts(pseudo, nodata), known, class_names)
        said_too: Any = labelled.attrs["warnings"]
        told["warnings"] += said_too
        log.info(told["notes"][0])
    write_prediction(
        out,
        pseudo,
        nodata,
        step="fuse",
        settings={"class_names": class_names, "informed": informed}
        | as_settings([witness for witness, _ in seen]),
        inputs=[*maps, *evidence, *given, rgb],
        class_names=class_names,
        grid=grid,
        given=certain,
        witnesses=np.stack([labels for _, labels in seen]),
    )
    for warning in told["warnings"]:
        log.warning(warning)
    with atomic_write(witnesses) as file:
        file.write_text(json.dumps(told, indent=1) + "\n")


def _pixels(features: Path, clip: np.ndarray, nodata: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Spectra (pixel, band) and probabilities (class, pixel) of a sample."""
    bands = array_of(open_store(features, features=("band", "y", "x")), "features")
    spectra, sample = read_pixels([bands, clip], nodata, SAMPLE)
    return np.ascontiguousarray(spectra.T), sample


def _teach(pseudo: np.ndarray, given: np.ndarray, features: Path, nodata: np.ndarray) -> None:
    """Let given labels (y, x), 0 for none, change probabilities (class, y, x), in place."""
    bands = array_of(open_store(features, features=("band", "y", "x")), "features")
    marked = given > 0
    spectra, sample, labels = read_pixels([bands, pseudo, given[None]], nodata, TAUGHT, marked)
    taught = learn(np.ascontiguousarray(spectra.T), sample, labels[0].astype(np.int64) - 1)
    for rows in tile_rows(len(nodata)):
        strip = np.asarray(bands[:, rows])
        for y in range(0, strip.shape[1], 16):
            few = slice(rows.start + y, min(rows.start + y + 16, rows.stop))
            valid = ~nodata[few]
            if valid.any():
                pixels = np.ascontiguousarray(strip[:, y : y + 16][:, valid].T)
                pseudo[:, few][:, valid] = corrected(taught, pixels, pseudo[:, few][:, valid])
    pseudo[:, marked] = np.arange(1, len(pseudo) + 1)[:, None] == given[marked]


def _counts(pseudo: np.ndarray, nodata: np.ndarray) -> np.ndarray:
    """(class,) pixels by the label of probabilities (class, y, x)."""
    count = np.zeros(len(pseudo), np.int64)
    for rows in tile_rows(len(nodata)):
        best = pseudo[:, rows].argmax(0)[~nodata[rows]]
        count += np.bincount(best, minlength=len(pseudo))
    return count


def _pairs(clip: np.ndarray, library: np.ndarray, nodata: np.ndarray) -> np.ndarray:
    """(class, class) pixels by the labels of both witnesses' probabilities (class, y, x)."""
    pairs = np.zeros((len(clip), len(clip)), np.int64)
    for rows in tile_rows(len(nodata)):
        valid = ~nodata[rows]
        both = (each[:, rows].argmax(0)[valid] for each in (clip, library))
        np.add.at(pairs, tuple(both), 1)
    return pairs


if __name__ == "__main__":
    run(fuse)
