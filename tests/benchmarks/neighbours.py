"""From which similarity on the nearest word of the table is to be believed: measured with the bundled text tower.

    python tests/benchmarks/neighbours.py

`tests/data/everyday_phrases.csv` has phrases that the table of words did not know when this was measured, with the
group of materials that is right, or none. Two things are asked: that the nearest AGREEING plain words have a material
in common (chosen on the half `choose`, among several ways to vote), and the threshold. That is chosen on the same
half by a rule fixed beforehand: a wrong material is worse than none, so the lowest threshold is taken from which on
at least 90 % of the given materials are right. The half `report` then says what that is worth.

Many of the phrases have been put into the table since, but not as plain words: the measurement stays what it was.
"""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from special_steps.clip.model import load_clip
from special_steps.clip.prompts import embed, template_set
from special_steps.materials.words import Found, neighbours

PHRASES = Path(__file__).resolve().parents[1] / "data" / "everyday_phrases.csv"
PRECISION = 0.9
WATER = "clear_water turbid_water algal_water"
# Materials of which a right answer has one, and those that may come with them.
GROUPS = {
    "water": (WATER, ""),
    "snow": ("snow ice", ""),
    "tree": ("tree_canopy", "sparse_vegetation"),
    "plants": ("tree_canopy grass_canopy", "crop_canopy"),
    "shrub": ("tree_canopy sparse_vegetation", "grass_canopy dry_vegetation"),
    "grass": ("grass_canopy", "dry_vegetation sparse_vegetation"),
    "crop": ("crop_canopy", "dry_vegetation sparse_vegetation soil"),
    "soil": ("soil dirt wet_soil", "sand gravel mud sparse_vegetation"),
    "sand": ("sand", "soil dirt gravel"),
    "rock": ("gravel", "soil dirt sand"),
    "road": ("road parking_lot", "sidewalk gravel bridge"),
    "concrete": ("sidewalk bridge", "road parking_lot driveway gravel"),
    "roof": ("comp_shingle concrete_tile tile metal asphalt", "wood_shingle gravel"),
    "metal": ("metal", ""),
    "tile": ("tile", "concrete_tile sidewalk"),
    "char": ("char", ""),
    "dry": ("dry_vegetation litter npv", "sparse_vegetation soil"),
    "wood": ("wood bark", "wood_shingle litter"),
    "mud": ("mud wet_soil", "turbid_water soil"),
    "shadow": ("shadow", ""),
    "none": ("", ""),
}


class Phrase(NamedTuple):
    phrase: str
    group: str  # of GROUPS
    half: str  # choose or report


class Score(NamedTuple):
    right: int  # phrases that got materials of their group
    wrong: int  # phrases that got other materials
    silent: int  # phrases that got none though there are some

    @property
    def precision(self) -> float:
        return self.right / max(1, self.right + self.wrong)


def read_phrases() -> list[Phrase]:
    with PHRASES.open(newline="") as stream:
        return [Phrase(**row) for row in csv.DictReader(stream)]


def is_right(group: str, materials: Sequence[str]) -> bool:
    core, more = (set(words.split()) for words in GROUPS[group])
    return bool(core & set(materials)) and set(materials) <= core | more


def read_all(phrases: Sequence[str]) -> list[Found]:
    """What each phrase is read as, however far that is."""
    clip = load_clip("bundled", None)
    templates = template_set(None, clip)
    return neighbours(phrases, lambda words: embed(clip, words, templates), threshold=-1)


def score(phrases: Sequence[Phrase], found: Sequence[Found], threshold: float) -> Score:
    right = wrong = silent = 0
    for phrase, near in zip(phrases, found, strict=True):
        if near.similarity is not None and near.similarity >= threshold and near.materials:
            right += is_right(phrase.group, near.materials)
            wrong += not is_right(phrase.group, near.materials)
        else:
            silent += phrase.group != "none"
    return Score(right, wrong, silent)


def choose(phrases: Sequence[Phrase], found: Sequence[Found]) -> float:
    """The lowest threshold, in steps of 0.01, from which on precision stays at PRECISION.

    It is never lower than the least similarity of a material that was given: below, nothing was seen.
    """
    given = [f.similarity for f in found if f.materials and f.similarity is not None]
    lowest = int(min(given) * 100)
    low = [
        t
        for t in range(lowest, 100)
        if (s := score(phrases, found, t / 100)).right + s.wrong and s.precision < PRECISION
    ]
    return max([lowest, *(t + 1 for t in low)]) / 100


def main() -> None:
    phrases = read_phrases()
    found = read_all([p.phrase for p in phrases])
    half = {
        name: [(p, f) for p, f in zip(phrases, found, strict=True) if p.half == name]
        for name in ("choose", "report")
    }
    print("threshold, then for each half: right, wrong, silent, precision")
    for threshold in np.arange(0.3, 0.96, 0.05):
        row = [score(*zip(*pairs, strict=True), threshold) for pairs in half.values()]
        print(
            f"{threshold:.2f}",
            *(f"{s.right:4} {s.wrong:4} {s.silent:4} {s.precision:.3f}" for s in row),
        )
    threshold = choose(*zip(*half["choose"], strict=True))
    print(f"chosen: {threshold:.2f}")
    for name, pairs in half.items():
        print(name, score(*zip(*pairs, strict=True), threshold))
    print("wrong from there on:")
    for p, f in zip(phrases, found, strict=True):
        assert f.similarity is not None
        if f.similarity >= threshold and f.materials and not is_right(p.group, f.materials):
            print(f"  {p.half:7} {p.phrase} ({p.group}) read as {f.word}, {f.similarity:.2f}")


if __name__ == "__main__":
    main()
