"""Pseudo-labels: CLIP's scales, and what the spectral library says, become class probabilities with margins."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from special_steps.classifier.anchored import information
from special_steps.core.atomic import atomic_write
from special_steps.core.cli import run
from special_steps.core.errors import UserError
from special_steps.core.prediction import write_prediction
from special_steps.core.store import (
    array_of,
    grid_of,
    open_store,
    read_array,
    read_pixels,
    tile_rows,
)
from special_steps.io.pseudo_labels import read_probabilities

log = logging.getLogger("special")

SAMPLE = 20_000  # pixels
# Of information(): less, and labels are not of this scene. Chosen with the exponents of `joined` on the half to choose
# on of the simulated scenes: there .05 to .07 where CLIP is useless, .23 and more elsewhere.
LEAST = 0.15
UNHEARD = (
    "CLIP's labels carry little information about the spectra (kappa {:.2f}): this map is the spectral library's alone;"
    " to give CLIP a say, use other words or scales"
)
LIBRARY = "the spectral library"  # the second witness's name
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


def fuse(
    *,
    maps: list[Path],
    align: bool,
    evidence: list[Path],
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
        features: store made by features, to tell whether CLIP's labels say anything about the spectra; null for maps
            of your own, which count in any case.
        rgb: the scene's RGB store: its size, no-data mask and georeference.
        out: store to write; where both are asked, it also keeps the labels of each, as `witnesses`. Its settings say
            who the witnesses are, and which classes each can judge.
        witnesses: JSON file to write: where the maps and the spectral library contradict each other; an agreement of
            null where there is only one of them.
        class_names: the scene's classes, in order.

    Raises:
        UserError: when there is nothing to fuse.
    """
    scene = open_store(rgb, nodata=("y", "x"))
    nodata, grid = read_array(scene, "nodata"), grid_of(scene)

    def read(path: Path) -> np.ndarray:
        return read_probabilities(path, class_names, nodata, grid=grid, align=align)

    pseudo, informed, opinions = None, False, None
    told: dict[str, Any] = {"between": None, "agreement": None, "classes": [], "warnings": []}
    first = "CLIP" if all(path.is_dir() for path in maps) else "your own map"
    judges: dict[str, list[bool]] = {}  # by witness, which classes it can judge
    if maps:
        pseudo = fused([read(path) for path in maps])
        judges[first] = [True] * len(class_names)
    if evidence:
        library, found = evidence
        said = json.loads(found.read_text())
        informed = said["used"]
        if informed:
            known = read(library)
            has = [one["spectra"] > 0 for one in said["classes"]]
            judges[LIBRARY] = has
            if pseudo is None:
                pseudo = fused([known])
            else:
                pairs = _pairs(pseudo, known, nodata)
                opinions = both_labels(pseudo, known, has)
                opinions[:, nodata] = 0
                told = compared(pairs, class_names, has, first)
                counts = information(*_pixels(features, pseudo, nodata)) if features else 1.0
                if counts < LEAST:
                    told["warnings"].insert(0, UNHEARD.format(counts))
                    judges[first] = [False] * len(class_names)
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
    # the library alone hardly contradicts the map that is made of it
    if LIBRARY in judges and not any(judges.get(first, [])):
        judges[LIBRARY] = [False] * len(class_names)
    write_prediction(
        out,
        pseudo,
        nodata,
        step="fuse",
        settings={
            "class_names": class_names,
            "informed": informed,
            "witnesses": list(judges.items()),
        },
        inputs=[*maps, *evidence, rgb],
        class_names=class_names,
        grid=grid,
        witnesses=opinions,
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


def both_labels(clip: np.ndarray, library: np.ndarray, known: Sequence[bool]) -> np.ndarray:
    """What each witness says is there; the library doesn't contradict a class that it has no spectra of.

    Args:
        clip: (class, y, x) float32.
        library: of the same shape.
        known: which classes have spectra.

    Returns:
        (2, y, x) uint8 labels from 1.
    """
    found = np.empty((2, *clip.shape[1:]), np.uint8)
    for rows in tile_rows(clip.shape[1]):
        first, second = (each[:, rows].argmax(0) for each in (clip, library))
        found[0, rows] = first + 1
        found[1, rows] = np.where(np.asarray(known)[first], second, first) + 1
    return found


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
