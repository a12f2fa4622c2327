"""Simulated scenes with known truth, and the bundled CLIP's labels on them: to choose a second stage by, and to report.

    python tests/benchmarks/simulated_scenes.py --out FOLDER [--only NAME ...]

writes, for every scene and variant of its labels, SCENE.VARIANT.npz with X (pixel, band) float32 in [0, 1], P and E
(pixel, class) float32 (CLIP's probabilities, and the spectral library's), truth (pixel,) uint8 (0 none, classes from
1), all of valid pixels; shape (y, x), valid (y, x) bool, class_names, half; and a picture SCENE.png: RGB, truth, CLIP.
Scenes of the half 'choose' are for choices of the second stage, those of 'report' for nothing but the final figures.
Two scenes of each kind of landscape take turns, one each, so that the halves hold the same kinds. They were made by
looking at the pictures and CLIP's labels alone: no figure of a second stage was known.
"""

import argparse
import time
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from landscapes import (
    ASPHALT,
    BURNT,
    CONCRETE,
    CROPS,
    DRY,
    GRASS,
    GRAVEL,
    KINDS,
    ROOF,
    SAND,
    SOIL,
    TREES,
    WATER,
    Land,
    draw,
)
from scipy.ndimage import gaussian_filter

from special_steps.clip.encoder import make_encoder
from special_steps.clip.model import load_clip
from special_steps.clip.prompts import Phrases, embed, template_set
from special_steps.clip.upsample import make_upsampler
from special_steps.clip_scale import mean_colour, scale_probabilities
from special_steps.core.classes import phrases_of
from special_steps.core.palette import class_colours, rgb_of
from special_steps.core.spectral import check_coverage, interpolate, joint_percentiles, stretch
from special_steps.evaluate import scores
from special_steps.evidence import FEWEST, class_evidence, class_library, learn_views
from special_steps.fuse import fused
from special_steps.io.spectral_library import read_library
from special_steps.materials.words import materials_of_classes
from special_steps.simulated_scene.spectra import water_reflectance

# --- the scenes


class Scene(NamedTuple):
    name: str
    half: str  # choose | report
    kind: str  # of landscape
    classes: dict[str, tuple[int, ...]]  # class name -> kinds of ground; "shadow" has none
    seed: int
    pixel: float  # m
    size: tuple[int, int]  # y, x
    sensor: str  # of SENSORS
    noise: str  # of NOISE
    dry: bool  # landscape: more dry grass
    busy: bool  # landscape: more things in it
    soil: str
    roofs: str
    trees: str
    water: str
    sun: float  # degrees above the horizon
    extras: tuple[
        str, ...
    ]  # stripes, dead (flagged bands), hidden (bad bands not flagged), cloud, swath (no-data)
    synonyms: dict[str, list[str]]  # for the variant "synonyms"
    wrong: str  # a class that is not there, for the variant "wrong"


class Simulated(NamedTuple):
    cube: np.ndarray  # (band, y, x) float32 reflectance
    wavelengths: np.ndarray  # (band,) nm
    good: np.ndarray  # (band,) bool
    nodata: np.ndarray  # (y, x) bool
    truth: np.ndarray  # (y, x) uint8, 1..K, 0 none
    class_names: list[str]


SENSORS: dict[str, tuple[np.ndarray, np.ndarray | float]] = {  # centres and widths, nm
    "vnir-60": (np.linspace(400, 1000, 60), 10.0),
    "vnir-5nm": (np.arange(450, 951, 5.0), 5.0),
    "vnir-35": (np.linspace(420, 900, 35), 14.0),
    "full-10nm": (np.arange(400, 2451, 10.0), 10.0),
    "full-15nm": (np.arange(405, 2446, 15.0), 15.0),
    "orbit": (np.r_[np.arange(420, 1000, 7.0), np.arange(1005, 2446, 11.5)], 9.0),
    "multi-8": (
        np.array([425.0, 480, 545, 605, 660, 725, 832, 950]),
        np.array([50.0, 60, 70, 40, 60, 40, 125, 180]),
    ),
    "multi-6": (
        np.array([482.0, 561, 655, 865, 1609, 2201]),
        np.array([60.0, 57, 37, 28, 85, 187]),
    ),
}
NOISE = {
    "low": (0.0012, 0.004),
    "medium": (0.003, 0.008),
    "strong": (0.009, 0.02),
}  # fixed, relative
VAPOUR = ((1340, 1430), (1800, 1960))  # nm

SYNONYMS = {
    "water": ["river", "lake"],
    "sea": ["ocean"],
    "lake": ["water"],
    "river": ["water"],
    "trees": ["forest"],
    "forest": ["trees", "woodland"],
    "grass": ["meadow", "lawn"],
    "meadow": ["grass"],
    "dry grass": ["straw", "withered grass"],
    "bare soil": ["ploughed field"],
    "asphalt": ["road", "parking lot"],
    "road": ["asphalt", "street"],
    "roof": ["house", "building"],
    "building": ["roof"],
    "sand": ["beach"],
    "crops": ["green field"],
    "concrete": ["pavement"],
    "gravel": ["rocks", "stones"],
    "burnt ground": ["ash"],
    "shadow": ["dark shadow"],
    "low vegetation": ["grass"],
}

W, T, G, D = ("water", (WATER,)), ("trees", (TREES,)), ("grass", (GRASS,)), ("dry grass", (DRY,))
S, A, R = ("bare soil", (SOIL,)), ("asphalt", (ASPHALT,)), ("roof", (ROOF,))
GC, SD = ("grass", (GRASS, CROPS)), ("sand", (SAND,))
AC = ("asphalt", (ASPHALT, CONCRETE))
SHADOW: tuple[str, tuple[int, ...]] = ("shadow", ())

Look = tuple[bool, bool, str, str, str, str, float]  # dry, busy, soil, roofs, trees, water, sun
# kind, classes, pixel, size, sensor, noise, look, extras, wrong: pairs of a kind
Row = tuple[
    str, list[tuple[str, tuple[int, ...]]], float, tuple[int, int], str, str, Look, str, str
]  # fmt: skip
TABLE: list[Row] = [
    ("coast", [W, SD, D, T], 4, (140, 170), "full-10nm", "low", (True, False, "pale", "tile",
     "conifer", "clear", 55), "", "snow"),
    ("coast", [("sea", (WATER,)), SD, ("grass", (GRASS, DRY)), T, R, A], 2.5, (170, 150),
     "vnir-60", "medium", (False, True, "pale", "mixed", "broad", "turbid", 42), "", "rock"),
    ("lake", [W, T, G], 6, (120, 120), "vnir-35", "medium", (False, False, "brown", "tile",
     "conifer", "deep", 38), "stripes", "roof"),
    ("lake", [("lake", (WATER,)), ("forest", (TREES,)), ("meadow", (GRASS, DRY)), S], 5, (150,
     180), "full-15nm", "strong", (True, True, "red", "tile", "broad", "clear", 50), "",
     "asphalt"),
    ("valley", [W, T, GC, S, A], 3, (180, 140), "full-15nm", "medium", (False, False, "brown",
     "tile", "broad", "turbid", 48), "dead", "sand"),
    ("valley", [("river", (WATER,)), T, G, D, S, ("road", (ASPHALT,)), R], 2, (200, 200),
     "vnir-5nm", "low", (True, True, "dark", "tile", "autumn", "turbid", 35), "swath", "snow"),
    ("mosaic", [("crops", (CROPS,)), S, G, T], 8, (120, 150), "full-10nm", "medium", (False,
     False, "brown", "tile", "broad", "deep", 52), "", "water"),
    ("mosaic", [("crops", (CROPS,)), S, D, T, R], 5, (150, 130), "multi-8", "low", (True, True,
     "red", "shingle", "olive", "deep", 60), "cloud", "asphalt"),
    ("village", [GC, S, T, R, A], 3, (160, 160), "vnir-60", "low", (False, True, "dark", "tile",
     "broad", "deep", 44), "", "water"),
    ("village", [("low vegetation", (GRASS, CROPS)), D, S, T, R, ("road", (ASPHALT,))], 2.5,
     (170, 190), "full-10nm", "medium", (True, False, "pale", "tile", "olive", "deep", 58),
     "hidden", "sand"),
    ("town", [R, AC, G, T, SHADOW], 2, (150, 150), "vnir-60", "medium", (False, True, "grey",
     "tile", "broad", "deep", 33), "", "water"),
    ("town", [("building", (ROOF,)), ("road", (ASPHALT,)), ("concrete", (CONCRETE,)), G, T],
     2.5, (160, 200), "full-15nm", "low", (False, False, "brown", "mixed", "broad", "deep", 55),
     "", "bare soil"),
    ("suburb", [W, R, A, G, T], 2, (190, 170), "full-10nm", "medium", (False, True, "brown",
     "shingle", "broad", "turbid", 50), "", "sand"),
    ("suburb", [("roof", (ROOF,)), ("road", (ASPHALT,)), ("grass", (GRASS, DRY)), T], 2.5, (130,
     160), "vnir-35", "strong", (False, False, "brown", "mixed", "autumn", "deep", 40),
     "stripes", "water"),
    ("industry", [R, A, ("concrete", (CONCRETE,)), S, G, T], 4, (150, 150), "vnir-60", "low",
     (False, False, "grey", "metal", "broad", "deep", 50), "", "water"),
    ("industry", [W, ("building", (ROOF,)), AC, ("bare soil", (SOIL, GRAVEL)),
     ("low vegetation", (GRASS, DRY)), T, SHADOW], 2.5, (200, 180), "full-15nm", "medium", (False,
     True, "brown", "grey", "broad", "turbid", 40), "dead", "sand"),
    ("orchard", [T, GC, S, W, R], 3, (140, 160), "full-15nm", "low", (False, True, "red",
     "tile", "broad", "clear", 56), "", "asphalt"),
    ("orchard", [T, D, S], 4, (110, 130), "vnir-60", "medium", (True, False, "pale", "tile",
     "olive", "deep", 62), "", "water"),
    ("savanna", [T, G, D, S], 6, (140, 140), "full-10nm", "strong", (False, False, "red",
     "tile", "olive", "deep", 60), "", "roof"),
    ("savanna", [T, D, S, ("burnt ground", (BURNT,))], 8, (130, 110), "vnir-5nm", "medium",
     (True, True, "red", "tile", "olive", "deep", 48), "hidden", "water"),
    ("quarry", [W, ("gravel", (GRAVEL,)), SD, T, G, S], 4, (150, 150), "full-15nm", "medium",
     (False, False, "brown", "tile", "broad", "green", 46), "swath", "snow"),
    ("quarry", [W, ("sand", (SAND, GRAVEL)), T, ("grass", (GRASS, DRY)), S, ("road",
     (ASPHALT,))], 3, (140, 120), "vnir-35", "low", (True, True, "pale", "tile", "conifer",
     "clear", 52), "", "roof"),
    ("satellite", [W, T, GC, S, ("built-up area", (ROOF, ASPHALT, CONCRETE))], 16, (120, 120),
     "multi-6", "medium", (False, True, "brown", "tile", "broad", "deep", 45), "", "snow"),
    ("satellite", [W, ("forest", (TREES,)), ("low vegetation", (GRASS, DRY, CROPS)), S,
     ("buildings", (ROOF, ASPHALT, CONCRETE))], 30, (100, 110), "orbit", "medium", (True, True,
     "red", "mixed", "conifer", "turbid", 40), "stripes", "sand"),
    ("delta", [W, S, T, ("low vegetation", (GRASS, DRY))], 5, (160, 140), "vnir-60", "medium",
     (False, False, "dark", "tile", "broad", "turbid", 45), "cloud", "roof"),
    ("delta", [W, SD, S, T, G, D], 20, (90, 110), "orbit", "low", (True, False, "grey", "tile",
     "olive", "green", 55), "", "asphalt"),
    ("hills", [T, G, ("gravel", (GRAVEL,)), S], 7, (120, 140), "full-10nm", "medium", (False,
     False, "grey", "tile", "conifer", "deep", 34), "", "water"),
    ("hills", [T, D, ("rock", (GRAVEL,)), ("burnt ground", (BURNT,))], 24, (80, 100), "orbit",
     "strong", (True, True, "red", "tile", "conifer", "deep", 38), "", "water"),
]  # fmt: skip


def _scene(number: int) -> Scene:
    kind, classes, pixel, size, sensor, noise, look, extras, wrong = TABLE[number]
    half = "choose" if number % 2 == 0 else "report"
    synonyms = {name: SYNONYMS.get(name, [f"{name} surface"]) for name, _ in classes}
    taken: set[str] = set(synonyms)
    for name, words in synonyms.items():  # a word belongs to one class
        synonyms[name] = [word for word in words if word not in taken][:2]
        taken.update(synonyms[name])
    return Scene(
        f"{kind}-{number % 2 + 1}", half, kind, dict(classes), 7100 + 37 * number, pixel, size,
        sensor, noise, *look, tuple(extras.split()), synonyms, wrong,
    )  # fmt: skip


SCENES = [_scene(number) for number in range(len(TABLE))]
VARIANTS = ("plain", "synonyms", "wrong", "scale1")
SCALES = {"scale1": (1.0, 2.0)}  # the paper's; the others have the bundled model's own


def variants_of(scene: Scene) -> list[str]:
    """plain, and one of the others in turn: each with a third of the scenes, half by half."""
    pair = SCENES.index(scene) // 2
    return ["plain", VARIANTS[1 + (pair + (scene.half == "report")) % 3]]


def find(scene: str | Scene) -> Scene:
    return scene if isinstance(scene, Scene) else next(s for s in SCENES if s.name == scene)


# --- spectra

NM = np.arange(400, 2451, 2.0)  # that they are kept at


@cache
def _library() -> tuple[np.ndarray, list[dict[str, str]], np.ndarray, np.ndarray]:
    library_nm, spectra, rows = read_library("simulation")
    chlorophyll = [
        r["NAME"].split("CHL-")[-1].split("-")[0] if "CHL-" in r["NAME"] else 0 for r in rows
    ]
    leaves = [r["NAME"].split("LAI-")[-1].split("-")[0] if "LAI-" in r["NAME"] else 0 for r in rows]
    fine = np.array([np.interp(NM, library_nm, s) for s in spectra.astype(np.float64)], np.float32)
    return fine, rows, np.array(chlorophyll, float), np.array(leaves, float)


def materials(scene: Scene, rng: np.random.Generator) -> dict[int, np.ndarray]:
    """Spectra (member, NM) of each kind of ground, of the scene's own colours."""
    spectra, rows, chlorophyll, leaves = _library()
    level = np.array([r["LEVEL_3"] for r in rows])
    names = np.array([r["NAME"] for r in rows])
    blue, red, infrared = (spectra[:, np.searchsorted(NM, w)] for w in (450, 650, 850))

    def pick(which: np.ndarray, number: int) -> np.ndarray:
        found = np.flatnonzero(which)
        return spectra[rng.choice(found, min(number, len(found)), replace=False)]

    ratio, soils = red / np.maximum(blue, 0.01), level == "soil"
    earth = {
        "brown": (ratio > 1.7) & (ratio < 2.4) & (red > 0.12) & (red < 0.24),
        "red": (ratio > 3) & (red > 0.2) & (red < 0.36),
        "pale": (ratio > 1.5) & (ratio < 2.4) & (red > 0.3) & (red < 0.45),
        "dark": (ratio > 1.4) & (ratio < 2.3) & (red > 0.06) & (red < 0.13),
        "grey": (ratio > 1.15) & (ratio < 1.7) & (red > 0.12) & (red < 0.26),
    }[scene.soil]
    near = pick(soils & earth, 60)
    centre = near[0]  # a landscape's soils are of one family
    soil = near[np.argsort(abs(near - centre).mean(1))[:5]]

    canopy = level == "canopy"
    tall = {
        "broad": (chlorophyll > 28) & (chlorophyll < 52) & (infrared > 0.42),
        "conifer": (chlorophyll > 40) & (infrared < 0.44),
        "olive": (chlorophyll > 20) & (chlorophyll < 40) & (infrared < 0.46),
        "autumn": (chlorophyll > 8) & (chlorophyll < 30) & (infrared > 0.38),
    }[scene.trees]
    trees = pick(canopy & tall, 6)
    litter = pick(np.isin(level, ["litter", "bark"]) & (red < 0.2), 3)
    if scene.trees == "conifer":
        trees = 0.62 * trees
    elif scene.trees == "olive":
        trees = np.concatenate([0.72 * trees[:4] + 0.15 * soil[:1] + 0.1 * litter[:1], trees[4:]])
    elif scene.trees == "autumn":
        trees = np.concatenate([trees[:3], 0.55 * trees[3:] + 0.5 * litter])
    straw = (names == "deadgras") | (np.char.startswith(names, "SJER_Plot") & (red > 0.1))
    straws = pick(straw, 5)
    meadow = pick(canopy & (chlorophyll > 12) & (chlorophyll < 34) & (leaves < 5), 5)
    field = pick(canopy & (chlorophyll > 18) & (chlorophyll < 60), 4)
    paved = np.isin(level, ["road", "asphalt", "parking_lot"])
    roads = pick(paved & (ratio < 1.45) & (red > 0.06) & (red < 0.17), 5)
    kinds_of_roof = {
        "tile": [("tile", 5), ("comp_shingle", 1)],
        "shingle": [("comp_shingle", 5), ("wood_shingle", 2)],
        "grey": [("comp_shingle", 4), ("gravel", 2), ("metal", 1)],
        "metal": [("metal", 4), ("gravel", 2), ("comp_shingle", 1)],
        "mixed": [("tile", 3), ("comp_shingle", 3), ("metal", 1)],
    }[scene.roofs]
    roof_gravel = (level == "gravel") & (np.array([r["LEVEL_2"] for r in rows]) == "built")
    roofs = [pick(roof_gravel if k == "gravel" else level == k, n) for k, n in kinds_of_roof]
    # sand is measured on one beach, which is left to the evidence; pale soils, some of them sands, stand for it
    pale = pick(soils & (red > 0.34) & (red < 0.5) & (ratio < 2.3), 4)
    beach, pale = pale[:2] * rng.uniform(0.85, 1.2), pale[2:]
    water, bottom = _waters(scene.water, 0.6 * soil.mean(0)), 0.3 * soil[:1] + 0.7 * meadow[:1]
    return {
        WATER: water,
        TREES: trees,
        GRASS: np.concatenate([meadow, 0.55 * meadow[:1] + 0.45 * straws[:1], bottom]),
        DRY: np.concatenate([straws, 0.7 * straws[:1] + 0.3 * soil[:1], 0.75 * straws[1:2] + 0.25 * meadow[:1]]),
        CROPS: np.concatenate([field, 0.6 * field[:2] + 0.4 * soil[:2], 0.8 * field[2:3] + 0.2 * straws[:1]]),
        SOIL: np.concatenate([soil, 0.8 * soil[:1] + 0.2 * straws[:1]]),
        SAND: np.concatenate([beach, pale, 0.75 * beach[:1]]),
        GRAVEL: np.concatenate([pick((level == "gravel") & (red > 0.12) & (red < 0.36), 4), 0.5 * soil[:1] + 0.12]),
        ASPHALT: roads,
        CONCRETE: pick((level == "sidewalk") & (ratio < 1.6) & (red > 0.16) & (red < 0.4), 5),
        ROOF: np.concatenate(roofs),
        BURNT: pick((level == "char") & (red < 0.12), 5),
    }  # fmt: skip


def _waters(style: str, bottom: np.ndarray) -> np.ndarray:
    """Shallow, middle and two deep waters (4, NM)."""
    sediment = {"clear": 0.012, "deep": 0.006, "turbid": 0.09, "green": 0.035}[style]
    depths = {"clear": (0.4, 2.0, 6, 9), "deep": (0.6, 4, 9, 9)}.get(style, (0.25, 1.2, 4, 4))
    shades = (1.0, 1.0, 0.75, 1.3)
    water = np.stack(
        [
            water_reflectance(d, s * sediment, bottom, NM)
            for d, s in zip(depths, shades, strict=True)
        ]
    )
    if style == "green":  # algae
        water += 0.02 * np.exp(-(((NM - 560) / 45) ** 2)) + 0.012 * np.exp(
            -(((NM - 705) / 14) ** 2)
        )
    return water  # fmt: skip


# --- light and sensor


def sunlight(land: Land, elevation: float, azimuth: float) -> np.ndarray:
    """Direct light (row, column) relative to flat open ground: slopes, and cast shadows."""
    up, across = np.sin(np.radians(elevation)), np.cos(np.radians(elevation))
    east, south = across * np.cos(azimuth), across * np.sin(azimuth)

    def facing(height: np.ndarray) -> np.ndarray:
        down, right = np.gradient(height, land.cell)
        slope = (up - right * east - down * south) / np.sqrt(1 + right**2 + down**2)
        return np.clip(slope / up, 0, 1.4)

    light = facing(gaussian_filter(land.height, max(0.8, 0.6 / land.cell))) * facing(land.relief)
    for far in np.arange(land.cell, land.height.max() * across / up, max(land.cell, 0.7)):
        rows, columns = (round(far * c / across / land.cell) for c in (south, east))
        towards = np.roll(land.height, (-rows, -columns), (0, 1)) - far * up / across
        shaded = towards > land.height + 0.3
        if rows:
            shaded[slice(-rows, None) if rows > 0 else slice(None, -rows)] = False
        if columns:
            shaded[:, slice(-columns, None) if columns > 0 else slice(None, -columns)] = False
        light[shaded] = 0
    return gaussian_filter(light, 0.6).astype(np.float32)


def _brightness(land: Land, rng: np.random.Generator) -> np.ndarray:
    """How bright each cell's material is, (row, column) around 1."""
    grain = np.zeros(KINDS)
    grain[[WATER, TREES, GRASS, DRY, CROPS, SOIL]] = 0.015, 0.14, 0.08, 0.1, 0.07, 0.07
    grain[[SAND, GRAVEL, ASPHALT, CONCRETE, ROOF, BURNT]] = 0.05, 0.1, 0.07, 0.08, 0.05, 0.15
    texture = 0.7 * land.blobs(2.5 * land.cell) + 0.7 * land.blobs(9 * land.pixel)
    bright = 1 + grain[land.kind] * texture
    angle, gap = rng.uniform(0, np.pi, land.items + 1), rng.uniform(2.2, 4.5, land.items + 1)
    along = land.x * np.cos(angle[land.item]) + land.y * np.sin(angle[land.item])
    furrow = np.sin(2 * np.pi * along / (gap[land.item] * land.pixel))
    bright += np.where(np.isin(land.kind, (SOIL, CROPS)) & (land.item > 0), 0.06 * furrow, 0)
    each = rng.normal(0, 0.12, land.items + 1)
    each[0] = 0
    bright *= np.where(land.kind == TREES, 1.3, 1)  # from above, crowns show their sunlit leaves
    return np.clip(bright + each[land.item], 0.35, 2).astype(np.float32)


def _shares(
    land: Land, kind: int, number: int, fields: list[np.ndarray], rng: np.random.Generator
) -> np.ndarray:
    """Every member's share (member, row, column) where `kind` lies."""
    if kind == WATER:
        deep = np.clip(land.depth / (7 * land.pixel), 0, 1)
        shallow = np.clip(1 - land.depth / (1.5 * land.pixel), 0, 1)
        one = 1 / (1 + np.exp(2 * fields[0]))
        return np.stack(
            [shallow * (1 - deep), (1 - shallow) * (1 - deep), one * deep, (1 - one) * deep]
        )
    smooth = np.exp(1.5 * np.stack([fields[(kind + 3 * m) % len(fields)] for m in range(number)]))
    own = rng.dirichlet(np.full(number, 0.6), land.items + 1).T + 0.02
    own[:, 0] = 1
    strength = 1.0 if kind in (TREES, ROOF) else 0.35
    shares = own[:, land.item] * (smooth ** np.where(land.item > 0, 1 - strength, 1.0))
    return shares / shares.sum(0)  # fmt: skip


def responses(centres: np.ndarray, widths: np.ndarray | float) -> np.ndarray:
    """What each band makes of a spectrum at NM, (band, NM), rows summing to 1."""
    deviation = np.broadcast_to(widths, centres.shape)[:, None] / 2.355
    weight = np.exp(-0.5 * ((NM - centres[:, None]) / deviation) ** 2)
    return weight / weight.sum(1, keepdims=True)


@cache
def simulate(name: str) -> Simulated:
    """Simulate a scene; the same for the same name."""
    scene = find(name)
    rng, sensor_rng = (np.random.default_rng([scene.seed, n]) for n in (0, 1))
    fine = 8 if scene.pixel > 8 else 4
    height, width = scene.size
    land = draw(scene.kind, rng, scene.size, scene.pixel, fine, dry=scene.dry, busy=scene.busy)
    centres, widths = SENSORS[scene.sensor]
    direct = sunlight(land, scene.sun, rng.uniform(0, 2 * np.pi))
    truth = _truth(scene, land, direct, fine)
    if "cloud" in scene.extras:
        direct = direct * (
            1 - 0.55 / (1 + np.exp(-6 * (land.blobs(60 * scene.pixel) - 0.9)))
        ).astype(np.float32)

    def to_pixels(cells: np.ndarray) -> np.ndarray:
        half = fine // 2
        quarters = cells.reshape(2 * height, half, 2 * width, half).mean((1, 3))
        return (
            gaussian_filter(quarters, 0.9, mode="nearest").reshape(height, 2, width, 2).mean((1, 3))
        )

    response, members = responses(centres, widths), materials(scene, rng)
    haze = rng.uniform(0.14, 0.26)
    sky = np.clip(haze * (centres / 550) ** -1.3, 0.015, 0.45)
    bright, fields = (
        _brightness(land, rng),
        [land.blobs(m * scene.pixel) for m in (4, 7, 10, 13, 17, 22, 30)],
    )
    weights, colours = [], []
    for kind in np.unique(land.kind):
        here = land.kind == kind
        for share, spectrum in zip(
            _shares(land, kind, len(members[kind]), fields, rng),
            members[kind] @ response.T,
            strict=True,
        ):
            cells = (share * bright * here).astype(np.float32)
            weights += [to_pixels(cells * direct), to_pixels(cells)]
            colours += [spectrum * (1 - sky), spectrum * sky]
    cube = np.tensordot(np.array(colours), np.array(weights), (0, 0))
    cube, good = _measure(scene, cube, centres, sensor_rng)
    nodata = np.zeros(scene.size, bool)
    if "swath" in scene.extras:
        y, x = np.mgrid[:height, :width]
        nodata = (x + 0.22 * y < 0.13 * width) | (x + 0.22 * y > 1.1 * width)
    truth[nodata] = 0
    cube = np.where(nodata, 0, cube).astype(np.float32)
    return Simulated(cube, centres, good, nodata, truth, list(scene.classes))  # fmt: skip


def _truth(scene: Scene, land: Land, direct: np.ndarray, fine: int) -> np.ndarray:
    """The class that covers most of a pixel, (y, x) uint8 from 1; 0 where that is none of the scene's."""
    height, width = scene.size

    def cover(cells: np.ndarray) -> np.ndarray:
        return cells.reshape(height, fine, width, fine).mean((1, 3))

    dark = (direct < 0.35) & ("shadow" in scene.classes) & (land.kind != TREES)
    covers = [
        cover(np.isin(land.kind, kinds) & ~dark) if kinds else cover(dark)
        for kinds in scene.classes.values()
    ]
    listed = np.array(covers)
    covers.insert(0, 1 - listed.sum(0))
    return np.argmax(covers, 0).astype(np.uint8)


def _measure(
    scene: Scene, cube: np.ndarray, centres: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Noise, uneven brightness, stripes and bad bands; the cube, and which bands count as good."""
    bands, height, width = cube.shape
    fixed, relative = NOISE[scene.noise]
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    slope, bow = rng.normal(0, 0.04, 2), rng.normal(0, 0.03)
    cube = cube * (1 + slope[0] * x + slope[1] * y + bow * x * y)
    ends = 1 + 2.5 * np.exp(-(centres - 400) / 50) + 2 * np.clip((centres - 1900) / 550, 0, 1)
    ends += 1.2 * np.exp(-(((centres - 980) / 60) ** 2))
    sigma = (fixed * ends)[:, None, None]
    cube += rng.standard_normal(cube.shape) * (sigma + relative * cube)
    stripes = 1.2 if "stripes" in scene.extras else 0.25
    cube += rng.normal(0, stripes, (bands, 1, width)) * sigma
    good = np.ones(bands, bool)
    if bands > 20:
        for low, high in VAPOUR:
            good &= (centres < low) | (centres > high)
        if "dead" in scene.extras:
            good[rng.choice(bands, 6, replace=False)] = False
        cube[~good] = rng.normal(0.05, 0.3, ((~good).sum(), height, width))
        if "hidden" in scene.extras:
            bad = rng.choice(np.flatnonzero(good), 4, replace=False)
            cube[bad] += rng.normal(0, 0.08, (4, height, width))
    return cube, good


# --- what the product makes of them


def features(scene: str | Scene) -> np.ndarray:
    """The good bands of the valid pixels, stretched as by `features`: (pixel, band) float32 in [0, 1]."""
    made = simulate(find(scene).name)
    values = made.cube[made.good][:, ~made.nodata]
    stretch(values, joint_percentiles(lambda: values, [0.01, 99.99]))
    return np.ascontiguousarray(values.T)


def picture(scene: str | Scene) -> np.ndarray:
    """The image that CLIP sees, as by `rgb`: (3, y, x) float32 in [0, 1]."""
    scene = find(scene)
    made = simulate(scene.name)
    # the default wavelengths; those of a sensor's own bands where these leave the default out
    wanted = [655.0, 561.0, 482.0] if scene.sensor == "multi-6" else [655.0, 553.0, 451.0]
    check_coverage(made.wavelengths[made.good], wanted, scene.name)
    image = interpolate(made.cube[made.good], made.wavelengths[made.good], wanted)
    image = image.astype(np.float32)
    valid = ~made.nodata
    stretch(image, joint_percentiles(lambda: (plane[valid] for plane in image), [0.1, 99.9]))
    image[:, made.nodata] = 0
    return image


@cache
def _clip() -> tuple[Any, Any]:
    clip = load_clip("bundled", None)
    return clip, make_encoder(clip, "segearth", "fp32")


def class_names(scene: str | Scene, variant: str) -> list[str]:
    """The classes that CLIP is asked for; a wrong one comes last."""
    scene = find(scene)
    return [*scene.classes, *([scene.wrong] if variant == "wrong" else [])]


def clip_probabilities(scene: str | Scene, variant: str) -> np.ndarray:
    """Pseudo-labels by the bundled CLIP, as by `text`, `clip_scale` and `fuse`: (class, y, x) float32.

    Args:
        scene: a scene or its name.
        variant: plain; synonyms: every class has one or two; wrong: one more class, last, that the scene does not have;
            scale1: scales 1 and 2 instead of 2 and 4.
    """
    scene = find(scene)
    clip, _ = _clip()
    names = class_names(scene, variant)
    words = {n: scene.synonyms.get(n, []) if variant == "synonyms" else [] for n in names}
    said, index = phrases_of(words, scene.name)
    embeddings = embed(clip, said, template_set(None, clip))
    phrases = Phrases(embeddings, np.array(index, np.int64), names, said, clip.name)
    return fused(scale_maps(scene, phrases, SCALES.get(variant, (2.0, 4.0))))


def scale_maps(scene: Scene, phrases: Phrases, scales: tuple[float, ...]) -> list[np.ndarray]:
    """What the bundled CLIP says at each scale, as by `clip_scale`: (class, y, x) float32 each."""
    clip, encoder = _clip()
    image, nodata = picture(scene), simulate(scene.name).nodata
    image = np.where(nodata, mean_colour(image, nodata), image)  # type: ignore[arg-type]
    maps = []
    for scale in scales:
        strips = scale_probabilities(
            lambda first, last: image[:, first:last],
            nodata.shape,
            encoder,
            phrases,
            make_upsampler("joint_bilateral", clip.mean, clip.std, None),
            scale=scale,
            mean=clip.mean,
            std=clip.std,
            logit_scale=clip.logit_scale,
            window=224,
            stride=112,
            global_bias=-0.3,
        )
        maps.append(np.concatenate(list(strips), 1))
    return maps


def library_probabilities(scene: str | Scene, variant: str) -> np.ndarray:
    """What the spectral library says, as by `evidence`: (pixel, class) float32 of the valid pixels."""
    scene = find(scene)
    made = simulate(scene.name)
    names = class_names(scene, variant)
    words = {n: scene.synonyms.get(n, []) if variant == "synonyms" else [] for n in names}
    meant = materials_of_classes(words, {})
    bands, library, _ = class_library(meant, {}, made.wavelengths, None, made.good)
    pixels = np.ascontiguousarray(made.cube[bands][:, ~made.nodata].T)
    if bands.sum() < FEWEST:
        return np.full((len(pixels), len(names)), 1 / len(names), np.float32)
    views, known = learn_views(pixels[:: max(1, len(pixels) // 10_000)], library)
    return class_evidence(views, pixels, known).T


# --- command line


def save_picture(path: Path, scene: Scene, labels: np.ndarray) -> None:
    """RGB, truth and CLIP's labels side by side, enlarged."""
    from PIL import Image

    made = simulate(scene.name)
    # wrong classes have no colour here: `labels` are of the plain variant
    colours = np.array([(255, 255, 255), *map(rgb_of, class_colours(made.class_names))], np.uint8)
    image = np.round(255 * np.moveaxis(picture(scene), 0, -1)).astype(np.uint8)
    gap = np.full((len(image), 4, 3), 255, np.uint8)
    shown = np.where(made.nodata, 0, labels)
    row = np.concatenate([image, gap, colours[made.truth], gap, colours[shown]], 1)
    Image.fromarray(row).resize(
        (3 * row.shape[1], 3 * row.shape[0]), Image.Resampling.NEAREST
    ).save(path)


def main() -> None:
    """Write all scenes and print what CLIP makes of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=[s.name for s in SCENES], help="scenes")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    print(
        "| scene | half | m | size | sensor, bands | noise | labels of | classes (share) | OA | kappa |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for scene in SCENES:
        if options.only and scene.name not in options.only:
            continue
        made = simulate(scene.name)
        valid, spectra = ~made.nodata, features(scene)
        shares = np.bincount(made.truth[valid], minlength=len(made.class_names) + 1) / valid.sum()
        listed = ", ".join(
            f"{n} {s:.2f}" for n, s in zip(("none", *made.class_names), shares, strict=True)
        )
        for variant in variants_of(scene):
            probabilities = clip_probabilities(scene, variant)
            labels = (probabilities.argmax(0) + 1).astype(np.uint8)
            reached = scores(labels[valid], made.truth[valid], class_names(scene, variant))
            np.savez(
                options.out / f"{scene.name}.{variant}.npz",
                X=spectra,
                P=np.ascontiguousarray(probabilities[:, valid].T),
                E=library_probabilities(scene, variant),
                truth=made.truth[valid],
                shape=np.array(valid.shape),
                valid=valid,
                class_names=np.array(class_names(scene, variant)),
                half=np.array(scene.half),
            )
            if variant == "plain":
                save_picture(options.out / f"{scene.name}.png", scene, labels)
            size = " x ".join(map(str, valid.shape))
            print(
                f"| {scene.name} | {scene.half} | {scene.pixel:g} | {size} | {scene.sensor},"
                f" {spectra.shape[1]} | {' '.join((scene.noise, *scene.extras))} | {variant} |"
                f" {listed if variant == 'plain' else ''} | {reached['oa']:.3f} | {reached['kappa']:.3f} |",
                flush=True,
            )
        simulate.cache_clear()
    print(f"{time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
