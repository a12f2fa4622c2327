"""The coefficients of a map's confidence, from simulated scenes with known truth; and how well calibrated it is.

    python tests/benchmarks/simulated_scenes.py --out FOLDER  # six minutes
    python tests/benchmarks/calibration.py make MORE          # more landscapes to choose on; half an hour
    python tests/benchmarks/calibration.py fit FOLDER MORE    # the half to choose on, by cross-validation
    python tests/benchmarks/calibration.py report FOLDER      # the other half, by the product's coefficients

MORE has 39 scenes that recombine landscapes, sensors, noise and looks of the half to choose on; each has beside the
library's evidence one of a worse library: a class taken for another's materials, and reflectance with a smooth error of
some per cent. So the fit sees maps that are wrong and don't know it. Each map counts the same, and a kind of landscape
is left out of the fit by which its scenes are measured.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import simulated_scenes as simulated
from scipy.optimize import minimize

from special_steps.classifier.anchored import information, normalised
from special_steps.core.calibration import (
    ENOUGH,
    Coefficients,
    Known,
    confidence,
    log_odds,
    what_is_known,
)
from special_steps.cotrain import cotrained
from special_steps.evaluate import trust
from special_steps.evidence import FEWEST, class_evidence, class_library, learn_views
from special_steps.fuse import LEAST, joined
from special_steps.materials.words import materials_of_classes

SCENES = 39  # recombined
PIXELS = 3000  # of each scene
RIDGE = 0.1  # on coefficients of standardised features, where a map's weight is 1
OTHERS = [
    "crops", "dry grass", "sand", "gravel", "concrete", "asphalt", "roof", "bare soil", "trees", "grass", "water",
    "shadow", "straw", "mud", "metal roof", "tiles",
]  # fmt: skip


# --- more scenes


def recombined(number: int) -> tuple[simulated.Scene, list[str]]:
    """A scene of a kind of landscape with sensor, noise and look of others, all of the half to choose on; variants."""
    rng = np.random.default_rng([17, number])
    rows = simulated.TABLE[::2]
    kind, classes, pixel, _, _, _, _, _, wrong = rows[number % len(rows)]
    _, _, _, _, _, noise, _, extras, _ = rows[rng.integers(len(rows))]
    look = rows[rng.integers(len(rows))][6]
    synonyms = {name: simulated.SYNONYMS.get(name, [f"{name} surface"])[:2] for name, _ in classes}
    taken = set(synonyms)
    for name, words in synonyms.items():
        synonyms[name] = [word for word in words if word not in taken]
        taken.update(synonyms[name])
    sensors = [name for name in simulated.SENSORS if not name.startswith("multi")]
    scene = simulated.Scene(
        f"{kind}-x{number}", "choose", kind, dict(classes), 91000 + number, float(pixel * rng.uniform(0.7, 1.5)),
        (int(rng.integers(100, 150)), int(rng.integers(100, 150))), str(rng.choice(sensors)), noise, *look,
        tuple(extras.split()), synonyms, "snow" if wrong in dict(classes) else wrong,
    )  # fmt: skip
    return scene, ["plain", str(rng.choice(["synonyms", "wrong", "scale1"]))]


def worse_library(scene: simulated.Scene, variant: str, rng: np.random.Generator) -> np.ndarray:
    """Evidence (pixel, class) with one class taken for other materials, of reflectance with a smooth error."""
    made, names = simulated.simulate(scene.name), simulated.class_names(scene, variant)
    meant = {name: name for name in names}
    error = rng.uniform(0, 0.15)
    for name in rng.choice(names, 1):
        meant[name] = str(rng.choice([word for word in OTHERS if word not in meant.values()]))
    materials = materials_of_classes({word: [] for word in meant.values()}, {})
    bands, library, _ = class_library(materials, {}, made.wavelengths, None, made.good)
    pixels = np.ascontiguousarray(made.cube[bands][:, ~made.nodata].T)
    if bands.sum() < FEWEST:
        return np.full((len(pixels), len(names)), 1 / len(names), np.float32)
    nm = made.wavelengths[bands]
    waves = [
        rng.normal() * np.cos(2 * np.pi * nm / n + rng.uniform(0, 6.3)) for n in (300, 700, 1500)
    ]
    pixels = (pixels * np.exp(error * np.sum(waves, 0))).astype(np.float32)
    views, known = learn_views(pixels[:: max(1, len(pixels) // 10_000)], library)
    return class_evidence(views, pixels, known).T


def make(folder: Path) -> None:
    """Write the recombined scenes, as simulated_scenes.py does, with `worse`: what a worse library says."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(SCENES):
        scene, variants = recombined(number)
        simulated.SCENES.append(scene)
        made, rng = simulated.simulate(scene.name), np.random.default_rng([scene.seed, 9])
        valid = ~made.nodata
        for variant in variants:
            clip = simulated.clip_probabilities(scene, variant)
            np.savez(
                folder / f"{scene.name}.{variant}.npz",
                X=simulated.features(scene),
                P=np.ascontiguousarray(clip[:, valid].T),
                E=simulated.library_probabilities(scene, variant),
                worse=worse_library(scene, variant, rng),
                truth=made.truth[valid],
                half=np.array(scene.half),
            )
        print(scene.name, ", ".join(variants), flush=True)
        simulated.simulate.cache_clear()


# --- maps


class Map(NamedTuple):
    kind: str  # of landscape
    labels: str  # of whom: CLIP, library, both; and whether the library is a worse one
    known: Known
    probabilities: np.ndarray  # (class, pixel), co-trained
    witnesses: np.ndarray  # (witness, pixel)
    right: np.ndarray  # (pixel,) bool


def maps_of(file: Path) -> Iterator[Map]:
    """The co-trained maps of a scene's labels: CLIP's, the library's, both's."""
    with np.load(file) as data:
        pixels = np.flatnonzero(data["truth"])
        if len(pixels) > PIXELS:
            pixels = np.sort(np.random.default_rng(0).choice(pixels, PIXELS, replace=False))
        spectra, truth = np.ascontiguousarray(data["X"][pixels]), data["truth"][pixels]
        clip, *libraries = (
            np.ascontiguousarray(data[name][pixels].T, np.float32)
            for name in ("P", "E", "worse")
            if name in data
        )
    clip = normalised(clip)
    asked = [("CLIP", clip, [clip])]
    for name, library in zip(("", ", worse"), libraries, strict=False):
        if np.ptp(library) > 0:
            heard = information(spectra, clip) >= LEAST
            both = joined(clip, library, [True] * len(clip)) if heard else library
            asked += [
                (f"library{name}", library, [library]),
                (f"both{name}", both, [clip, library]),
            ]
    for labels, pseudo, witnesses in asked:
        learned = cotrained(spectra, pseudo, informed=labels != "CLIP")
        found = learned.probabilities
        said = np.stack([each.argmax(0) + 1 for each in witnesses]).astype(np.uint8)
        known = what_is_known(said, found if learned.ensembles else None)
        right = found.argmax(0) + 1 == truth
        yield Map(file.name.split("-")[0], labels, known, found, said, right)


def read(folders: list[Path], half: str) -> list[Map]:
    """The maps of all scenes of a half."""
    found = []
    for file in sorted(file for folder in folders for file in folder.glob("*.npz")):
        with np.load(file) as data:
            chosen = data["half"] == half
        if chosen:
            found += list(maps_of(file))
    return found


# --- the fit


def features(one: Map, seen: bool) -> np.ndarray:
    """(pixel, 2 or 3): log-odds of the probability, share of agreeing witnesses where they are seen, kappa."""
    agreeing = (one.witnesses == one.probabilities.argmax(0) + 1).mean(0)
    columns = [
        log_odds(one.probabilities.max(0)),
        np.full(len(agreeing), min(one.known.kappa, ENOUGH)),
    ]
    return np.stack(columns[:1] + [agreeing] * seen + columns[1:], 1)


def fit(maps: list[Map], seen: bool) -> Coefficients:
    """Logistic regression, no coefficient below 0, each map of the same weight."""
    values = np.concatenate([features(one, seen) for one in maps])
    right = np.concatenate([one.right for one in maps]).astype(float)
    weight = np.concatenate([np.full(len(one.right), 1 / len(one.right)) for one in maps])
    mean = weight @ values / len(maps)
    spread = np.sqrt(weight @ (values - mean) ** 2 / len(maps)) + 1e-9
    scaled = (values - mean) / spread

    def loss(by: np.ndarray) -> tuple[float, np.ndarray]:
        odds = by[0] + scaled @ by[1:]
        slope = weight * (1 / (1 + np.exp(-odds)) - right)
        value = weight @ (np.logaddexp(0, odds) - right * odds) + RIDGE * (by[1:] ** 2).sum() / 2
        return value, np.r_[slope.sum(), scaled.T @ slope + RIDGE * by[1:]]

    bounds = [(None, None)] + [(0, None)] * len(mean)
    by = minimize(loss, np.zeros(len(mean) + 1), jac=True, bounds=bounds, method="L-BFGS-B").x
    slopes = by[1:] / spread
    first, *agreeing, last = slopes
    return Coefficients(
        *(round(float(v), 3) for v in (by[0] - slopes @ mean, first, *(agreeing or [0]), last))
    )


def claimed(one: Map, by: Coefficients | None) -> np.ndarray:
    """The confidence by coefficients, or by the product's."""
    if by is None:
        return confidence(one.probabilities, one.known, one.witnesses)
    first, agreeing, last = features(one, True).T
    odds = by.constant + by.probability * first + by.agreeing * agreeing + by.kappa * last
    return 1 / (1 + np.exp(-odds))


def table(rows: list[tuple[str, float, float, float, float]]) -> None:
    """Print, for each kind of labels, accuracy and calibration errors."""
    print("| labels | maps | accuracy | ECE of the probability, mean (worst) | of the confidence |")
    print("| --- | --- | --- | --- | --- |")
    for labels in dict.fromkeys(row[0] for row in rows):
        oa, plain, ours = np.array([row[1:4] for row in rows if row[0] == labels]).T
        print(
            f"| {labels} | {len(oa)} | {oa.mean():.3f} | {plain.mean():.3f} ({plain.max():.3f})"
            f" | {ours.mean():.3f} ({ours.max():.3f}) |"
        )


def measured(one: Map, by: Coefficients | None) -> tuple[str, float, float, float, float]:
    """Labels, accuracy, ECE of probability and confidence, mean confidence."""
    plain, ours = one.probabilities.max(0), claimed(one, by)
    errors = [trust(each, each, one.right)["ece"] for each in (plain, ours)]
    return one.labels, float(one.right.mean()), errors[0], errors[1], float(ours.mean())


def main() -> None:
    """Make more scenes, fit, or report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["make", "fit", "report"])
    parser.add_argument("folders", nargs="+", type=Path)
    options = parser.parse_args()
    if options.what == "make":
        make(options.folders[0])
        return
    maps = read(options.folders, "choose" if options.what == "fit" else "report")
    if not maps:
        parser.error(f"no scenes of that half in {', '.join(map(str, options.folders))}")
    if options.what == "report":
        table([measured(one, None) for one in maps])
        return
    rows = []
    for count in (1, 2):
        group = [one for one in maps if one.known.witnesses == count]
        for kind in sorted({one.kind for one in group}):
            by = fit([one for one in group if one.kind != kind], True)
            rows += [measured(one, by) for one in group if one.kind == kind]
        print(f"{count}: {fit(group, True)}\n{count}, unseen: {fit(group, False)}")
    table(sorted(rows))


if __name__ == "__main__":
    main()
