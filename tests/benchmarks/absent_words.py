"""Words for what is not there: how many of them `presence` tells, and how often it is wrong, on simulated scenes.

    python tests/benchmarks/absent_words.py --half report # or choose; ten minutes each

Each simulated scene is labelled with its own classes, then again for each word of a list that the scene has nothing of,
as one class more: by CLIP and the spectral library, and by CLIP alone. CLIP sees all words of a scene at once; the
softmax over some of them is that over all, normalised.
"""

import argparse
from typing import NamedTuple

import numpy as np
import simulated_scenes as simulated
from landscapes import (
    ASPHALT,
    BURNT,
    CONCRETE,
    CROPS,
    DRY,
    GRAVEL,
    KINDS,
    ROOF,
    SAND,
    SOIL,
    WATER,
    draw,
)

from special_steps.classifier.anchored import information
from special_steps.clip.prompts import Phrases, embed, template_set
from special_steps.core.errors import UserError
from special_steps.cotrain import cotrained
from special_steps.evidence import FEWEST, class_evidence, class_library, learn_views
from special_steps.fuse import LEAST, fused, joined
from special_steps.materials.words import materials_of_classes
from special_steps.presence import presences

WORDS = {
    "water": [WATER], "snow": [], "roof": [ROOF], "asphalt": [ASPHALT], "sand": [SAND], "bare soil": [SOIL],
    "rock": [GRAVEL], "burnt ground": [BURNT], "crops": [CROPS], "concrete": [CONCRETE], "dry grass": [DRY],
}  # fmt: skip
SAME = {"asphalt": "road", "roof": "building"}  # other words for it
PIXELS = 4000
RIGHT = 0.3  # recall and precision of a class that the map has found
MODES = ("both", "CLIP alone")  # the library alone is not asked: it hardly contradicts its own map


class Row(NamedTuple):
    """A class of a map."""

    mode: str
    there: bool
    found: bool  # by the map, where it is there
    share: float  # of the map
    alarm: bool


def absent(scene: simulated.Scene, covered: np.ndarray) -> list[str]:
    """Words of the list that a scene has nothing of, nor asks for by another word."""
    asked = {kind for kinds in scene.classes.values() for kind in kinds}
    return [
        word
        for word, kinds in WORDS.items()
        if word not in scene.classes
        and not any(kind in asked for kind in kinds)
        and sum(covered[kind] for kind in kinds) < 0.001
        and not any(SAME.get(word, word) in name for name in scene.classes)
    ]


def rows_of(scene: simulated.Scene) -> list[Row]:
    """All maps of a scene.

    Raises:
        UserError: for a scene that has no image.
    """
    made, nodata = simulated.simulate(scene.name), simulated.simulate(scene.name).nodata
    fine = 8 if scene.pixel > 8 else 4
    rng = np.random.default_rng([scene.seed, 0])
    land = draw(
        scene.kind, rng, scene.size, scene.pixel, fine, dry=scene.dry, busy=scene.busy
    )  # fmt: skip
    covered = np.bincount(land.kind.ravel(), minlength=KINDS) / land.kind.size
    words = [*scene.classes, *absent(scene, covered)]
    clip, _ = simulated._clip()
    embedded = embed(clip, words, template_set(None, clip))
    phrases = Phrases(embedded, np.arange(len(words)), words, words, clip.name)
    valid = np.flatnonzero(~nodata.ravel())
    some = np.random.default_rng(0).choice(len(valid), min(len(valid), PIXELS), replace=False)
    some.sort()
    whole = simulated.scale_maps(scene, phrases, (2.0, 4.0))
    scales = [one.reshape(len(words), -1)[:, valid[some]] for one in whole]
    spectra = np.ascontiguousarray(simulated.features(scene)[some])
    cube = made.cube.reshape(len(made.cube), -1)[:, valid[some]]
    truth = made.truth.ravel()[valid[some]]
    rows = []
    present = len(scene.classes)
    for more in [[], *([k] for k in range(present, len(words)))]:
        index = [*range(present), *more]
        names = [words[k] for k in index]
        by_clip = fused([np.ascontiguousarray(s[index]) / s[index].sum(0) for s in scales])
        bands, library, _ = class_library(
            materials_of_classes({name: [] for name in names}, {}), {}, made.wavelengths, None, made.good
        )  # fmt: skip
        by_library, known = None, np.ones(len(names), bool)
        if bands.sum() >= FEWEST:
            pixels = np.ascontiguousarray(cube[bands].T)
            views, known = learn_views(pixels, library)
            by_library = class_evidence(views, pixels, known)
        for mode in MODES:
            witnesses = {"CLIP": by_clip}
            if mode != "CLIP alone" and by_library is not None:
                witnesses["library"] = by_library
            if len(witnesses) == 2 and information(spectra, by_clip) < LEAST:
                del witnesses["CLIP"]
            labels = next(iter(witnesses.values()))
            if len(witnesses) == 2:
                labels = joined(*witnesses.values(), known)
            learned = cotrained(spectra, labels.astype(np.float32), informed="library" in witnesses)
            mapped = learned.probabilities.argmax(0)
            pairs = {w: np.zeros((len(names),) * 2, np.int64) for w in witnesses}
            for witness, table in pairs.items():
                np.add.at(table, (witnesses[witness].argmax(0), mapped), 1)
            asked = {"CLIP": [True] * len(names), "library": known.tolist()}
            if list(witnesses) == ["library"]:
                asked["library"] = [False] * len(names)
            for k, told in enumerate(presences(pairs, asked, names)["classes"]):
                here, true = mapped == k, truth == k + 1
                hits = (here & true).sum()
                found = hits >= RIGHT * max(here.sum(), 1) and hits >= RIGHT * max(true.sum(), 1)
                rows.append(Row(mode, k < present, bool(found), told["share"], not told["present"]))
    return rows


def main() -> None:
    """Print a row for each mode."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--half", choices=["choose", "report"], required=True)
    half = parser.parse_args().half
    rows: list[Row] = []
    for scene in simulated.SCENES:
        if scene.half != half:
            continue
        try:
            rows += rows_of(scene)
        except UserError as error:
            print(f"{scene.name} is left out: {error}", flush=True)
        simulated.simulate.cache_clear()
    print(
        "| labels by | absent words | without a pixel on the map | told, of the others | present classes that the map"
        " finds | of these, wrongly told absent | present classes that it does not find | of these, told absent |"
    )
    print("|" + " --- |" * 8)
    for mode in MODES:
        mine = [row for row in rows if row.mode == mode]
        gone = [row for row in mine if not row.there]
        there = [row for row in gone if row.share > 0]
        good = [row for row in mine if row.there and row.found]
        lost = [row for row in mine if row.there and not row.found]
        shares = [
            f"{sum(r.alarm for r in group) / max(len(group), 1):.3f}"
            for group in (there, good, lost)
        ]
        print(
            f"| {mode} | {len(gone)} | {len(gone) - len(there)} | {shares[0]} | {len(good)} | {shares[1]} |"
            f" {len(lost)} | {shares[2]} |"
        )


if __name__ == "__main__":
    main()
