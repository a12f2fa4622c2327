"""The words a cell or a scene may be called, with teacher and student embeddings of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from special_steps.bundled_clip.training.aerial import PARTS, SCENE_NAMES
from special_steps.clip.prompts import AERIAL

PART_WORDS: dict[str, str] = {
    "water": "water, water, river, lake, sea, pond, open water, canal, stream, reservoir, ocean",
    "trees": "trees, trees, tree, forest, woodland, tree canopy, woods, tree cover",
    "grass": "grass, grass, lawn, meadow, low vegetation, grassland, healthy grass, pasture",
    "shrubs": "shrubs, bushes, chaparral, shrubland, scrub, sparse vegetation",
    "soil": "soil, bare soil, bare ground, dirt, ground, bare land, earth, barren land",
    "sand": "sand, beach, sandy beach, sand dune, desert sand",
    "crop": "crop, crops, farmland, cropland, agricultural field, crop field, field, agriculture",
    "rock": "rock, rocks, mountain, bare rock, stone, rocky mountain, cliff",
    "road": "road, asphalt, asphalt, street, pavement, highway, paved road, concrete, tarmac",
    "parking": "parking lot, cars, parking area, car park, asphalt parking lot, vehicles",
    "roof": "roof, roof, building roof, building, buildings, house, houses, tile roof, metal roof, "
    "rooftop",
    "court": "tennis court, sports court, running track, playground, sports field surface",
    "boats": "boats, ships, dock, harbor, pier, marina",
    "railway": "railway, train tracks, railroad, rail tracks",
    "airplane": "airplane, aircraft, airplanes, plane",
    "shadow": "shadow, shadows, shade, dark shadow, building shadow",
}
# Names that stand for several parts at once. Users pick their own cut through the parts.
MERGES: tuple[tuple[str, str], ...] = (
    ("grass shrubs crop", "low vegetation, grass, grassland, herbaceous vegetation"),
    ("grass crop", "grass, field, low vegetation"),
    ("trees shrubs", "trees, tree, woody vegetation, forest"),
    ("trees grass shrubs crop", "vegetation, green vegetation, plants"),
    ("soil sand", "soil, bare soil, sand, bare ground"),
    ("soil sand rock", "soil, bare soil, bare ground, bare land, dirt, barren land"),
    ("soil crop", "field, farmland, ground"),
    ("road parking", "asphalt, road, pavement, street, paved surface"),
    ("road parking court railway", "pavement, asphalt, impervious surface, paved surface"),
    ("road parking roof court railway", "built-up area, urban area, impervious surface, city"),
    ("roof boats airplane", "buildings, building, metal roof"),
)
# What a whole scene is called. Classes that share a word list are one candidate.
SCENE_WORDS: dict[str, tuple[str, str]] = {
    "bare soil": ("aid/BareLand aid/Desert", "bare soil, bare land, desert, barren land"),
    "sand beach": ("aid/Beach ucm/beach", "sand beach, beach, sandy beach, coast"),
    "farmland": (
        "aid/Farmland ucm/agricultural rsscn7/Field",
        "farmland, cropland, agricultural field, crop field",
    ),
    "trees": ("aid/Forest ucm/forest rsscn7/Forest", "trees, forest, woodland, dense forest"),
    "grass": ("aid/Meadow ucm/golfcourse rsscn7/Grass", "grass, meadow, grassland, lawn"),
    "water": ("aid/Pond aid/River ucm/river rsscn7/RiverLake", "water, river, lake, pond"),
    "parking lot": (
        "aid/Parking ucm/parkinglot rsscn7/Parking",
        "parking lot, car park, parking area",
    ),
    "road": (
        "aid/Viaduct ucm/freeway ucm/intersection ucm/overpass ucm/runway",
        "road, highway, street, roads",
    ),
    "houses": (
        "aid/DenseResidential aid/MediumResidential ucm/denseresidential ucm/mediumresidential "
        "ucm/mobilehomepark rsscn7/Resident",
        "houses, residential area, residential houses",
    ),
    "buildings": (
        "aid/Industrial aid/Commercial aid/Center aid/School ucm/buildings rsscn7/Industry",
        "buildings, industrial buildings, commercial buildings, industrial area",
    ),
    "shrubs": ("ucm/chaparral", "shrubs, bushes, chaparral, shrubland"),
    "mountain": ("aid/Mountain", "mountain, mountains, rocky mountain"),
    "airport": ("aid/Airport", "airport, airfield"),
    "airplane": ("ucm/airplane", "airplane, aircraft"),
    "baseball field": ("aid/BaseballField ucm/baseballdiamond", "baseball field, baseball diamond"),
    "bridge": ("aid/Bridge", "bridge, bridge over a river"),
    "church": ("aid/Church", "church, cathedral"),
    "park": ("aid/Park", "park, city park"),
    "playground": ("aid/Playground", "football field, running track, sports field"),
    "port": ("aid/Port ucm/harbor", "port, harbor, marina, boats"),
    "railway station": ("aid/RailwayStation", "railway station, railway"),
    "resort": ("aid/Resort", "resort, hotel resort"),
    "sparse residential": (
        "aid/SparseResidential ucm/sparseresidential",
        "sparse residential area, country house",
    ),
    "square": ("aid/Square", "square, plaza, city square"),
    "stadium": ("aid/Stadium", "stadium, arena"),
    "storage tanks": ("aid/StorageTanks ucm/storagetanks", "storage tanks, oil tanks"),
    "tennis court": ("ucm/tenniscourt", "tennis court, tennis courts"),
}
# The 12 words by which held-out scenes are classified in evaluate.py.
EVALUATION_WORDS = tuple(SCENE_WORDS)[:12]


def split_words(text: str) -> list[str]:
    """The phrases of a comma-separated list."""
    return [w.strip() for w in text.split(",")]


def scene_group() -> np.ndarray:
    """Index into SCENE_WORDS of every scene class, -1 where none."""
    out = np.full(len(SCENE_NAMES), -1)
    for group, (scenes, _) in enumerate(SCENE_WORDS.values()):
        for scene in scenes.split():
            out[SCENE_NAMES.index(scene)] = group
    return out


@dataclass(frozen=True)
class Words:
    """Embeddings (phrase, variant, 384): variants are bare or templated, by teacher or student."""

    index: dict[str, int]
    vectors: Tensor

    def draw(self, phrases: Sequence[str], rng: np.random.Generator) -> Tensor:
        """One embedding (len(phrases), 384) of each phrase, in a variant drawn at random."""
        rows = [self.index[p] for p in phrases]
        return self.vectors[rows, rng.integers(self.vectors.shape[1], size=len(rows))]


def all_words() -> list[str]:
    """Every phrase that training may draw, once, in a fixed order."""
    texts = [*PART_WORDS.values(), *(t for _, t in MERGES), *(t for _, t in SCENE_WORDS.values())]
    return list(dict.fromkeys(w for text in texts for w in split_words(text)))


def embed_words(encoders: Sequence[Callable[[list[str]], Tensor]]) -> Words:
    """Embed all words bare and averaged over the templates, by every encoder given."""
    words = all_words()
    variants = []
    for encode in encoders:
        every = encode([t.format(w) for w in words for t in AERIAL])
        every = every.view(len(words), len(AERIAL), -1)
        variants += [every[:, 0], F.normalize(every.mean(1), dim=-1)]
    return Words({w: i for i, w in enumerate(words)}, torch.stack(variants, 1))


@dataclass(frozen=True)
class Candidates:
    """Class names drawn for one image: text (part, 384), open (part,) and part -> name (part,)."""

    text: Tensor
    open: Tensor
    column: Tensor


def draw_candidates(present: np.ndarray, words: Words, rng: np.random.Generator) -> Candidates:
    """Names for one image that holds the parts `present` (part,) bool.

    Each part gets one of its names, or shares a wider name with others; then a random number of
    names that the image does not need are taken away, because users name three to ten classes.
    """
    column = np.arange(len(PARTS))
    phrases = [rng.choice(split_words(PART_WORDS[p])) for p in PARTS]
    if rng.random() < 0.5:
        taken: set[int] = set()
        for m in rng.permutation(len(MERGES))[:2]:
            members, names = MERGES[m]
            rows = [PARTS.index(p) for p in members.split()]
            if not taken & set(rows):
                taken |= set(rows)
                column[rows] = rows[0]
                phrases[rows[0]] = rng.choice(split_words(names))
    keep = np.zeros(len(PARTS), bool)
    keep[column[present]] = True
    others = np.setdiff1d(np.unique(column), np.flatnonzero(keep))
    if len(others) and rng.random() < 0.8:
        others = rng.permutation(others)[: rng.integers(len(others) + 1)]
    keep[others] = True
    return Candidates(words.draw(phrases, rng), torch.from_numpy(keep), torch.from_numpy(column))
