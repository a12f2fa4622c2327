"""What a few labelled points are worth: a class that is never found, five points of each class, and wrong ones.

    python tests/benchmarks/simulated_scenes.py --out FOLDER             # six minutes: scenes whose truth is known
    python tests/benchmarks/clicks.py simulated FOLDER --half report     # or choose
    python tests/benchmarks/clicks.py scene CONFIG --data DATA --results results --run hsi [--networks]

Each class in turn is taken away from the pseudo-labels (its probability becomes 1e-6, below all others): CLIP and
library never find it. Then five points of it are given, drawn by chance from the truth; they are not evaluated.
Besides, five points of each class beside untouched pseudo-labels, all right, or one of five with another class's label.
The maps are co-training's; `--networks` adds the run's map with a network, for one draw of the scene's smallest class.
Settings of `special_steps/classifier/taught.py` were chosen on the half `choose`; no real scene was looked at.
"""

import argparse
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from special_steps.classifier.anchored import information, normalised
from special_steps.classifier.taught import corrected, learn
from special_steps.consensus import consensus
from special_steps.core.prediction import write_prediction
from special_steps.core.settings import load
from special_steps.core.store import class_names, grid_of, open_store, read_array
from special_steps.cotrain import cotrain, cotrained
from special_steps.fuse import LEAST, joined
from special_steps.io.ground_truth import read_ground_truth
from special_steps.network import network

POINTS = 5
PIXELS = 2500  # of a simulated scene
FEWEST = 30  # pixels of a class, to be asked


class Scene(NamedTuple):
    """Pixels with data."""

    spectra: np.ndarray  # (pixel, band) float32
    pseudo: np.ndarray  # (class, pixel) float32
    truth: np.ndarray  # (pixel,) 1..K, 0 = unknown
    names: list[str]
    informed: bool

    def classes(self) -> list[int]:
        """Those with enough pixels, from 0."""
        counts = np.bincount(self.truth, minlength=len(self.names) + 1)[1:]
        return [k for k, n in enumerate(counts) if n >= FEWEST]

    def without(self, k: int) -> "Scene":
        """The same with pseudo-labels that never find class k."""
        pseudo = self.pseudo + np.float32(1e-5)  # also where nothing else has a probability
        pseudo[k] = 1e-6
        return self._replace(pseudo=normalised(pseudo).astype(np.float32))

    def points(self, classes: list[int], rng: np.random.Generator) -> np.ndarray:
        """(pixel,) given labels, from 0, -1 for none: POINTS of each class."""
        given = np.full(len(self.truth), -1)
        for k in classes:
            given[rng.choice(np.flatnonzero(self.truth == k + 1), POINTS, replace=False)] = k
        return given


def taught(scene: Scene, given: np.ndarray) -> np.ndarray:
    """(class, pixel) pseudo-labels with given labels, as by fuse."""
    pseudo = corrected(learn(scene.spectra, scene.pseudo, given), scene.spectra, scene.pseudo)
    known = given >= 0
    pseudo[:, known] = np.arange(len(pseudo))[:, None] == given[known]
    return pseudo


def mapped(scene: Scene, given: np.ndarray | None = None) -> np.ndarray:
    """(pixel,) co-trained labels, from 1."""
    pseudo = scene.pseudo if given is None else taught(scene, given)
    certain = None if given is None else given >= 0
    found = cotrained(scene.spectra, pseudo, informed=scene.informed, certain=certain)
    return found.probabilities.argmax(0) + 1


def scored(labels: np.ndarray, truth: np.ndarray, given: np.ndarray, k: int) -> np.ndarray:
    """Producer's and user's accuracy of class k, and overall accuracy, away from the given pixels."""
    known = (truth > 0) & (given < 0)
    right, called, actual = (labels == truth) & known, (labels == k + 1) & known, truth == k + 1
    hits = (right & actual).sum()
    return np.array(
        [hits / (actual & known).sum(), hits / max(called.sum(), 1), right.sum() / known.sum()]
    )


def simulated(folder: Path, half: str) -> Iterator[tuple[str, Scene]]:
    """Scenes of a half, with pseudo-labels as fuse makes them; at most PIXELS pixels."""
    for file in sorted(folder.glob("*.npz")):
        with np.load(file) as data:
            if data["half"] != half:
                continue
            pixels = np.arange(len(data["X"]))
            if len(pixels) > PIXELS:
                pixels = np.sort(np.random.default_rng(0).choice(pixels, PIXELS, replace=False))
            spectra, truth = np.ascontiguousarray(data["X"][pixels]), data["truth"][pixels]
            clip, library = (np.ascontiguousarray(data[n][pixels].T, np.float32) for n in "PE")
            names = [str(name) for name in data["class_names"]]
        used = bool(np.ptp(library))
        pseudo = joined(clip, library, [True] * len(clip)) if used else clip
        if used and information(spectra, clip) < LEAST:
            pseudo = library
        yield file.stem, Scene(spectra, pseudo, truth, names, used)


def experiments(scene: Scene, draws: int) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """What points are worth.

    Returns:
        (class, draw, map, score) of each class when it is never found: maps without and with points, and of untouched
        pseudo-labels without points; scores as in scored. (draw, map) overall accuracies with untouched pseudo-labels:
        without points, with them, with a wrong one of five. The classes.
    """
    classes = scene.classes()
    whole = mapped(scene)
    lost = {k: mapped(scene.without(k)) for k in classes}
    one, every = [], []
    for draw in range(draws):
        rng = np.random.default_rng(draw)
        given = scene.points(classes, rng)
        wrong = given.copy()
        for k in classes:
            others = [j for j in classes if j != k]
            wrong[rng.choice(np.flatnonzero(given == k))] = rng.choice(others)
        maps = [whole, mapped(scene, given), mapped(scene, wrong)]
        every.append([scored(m, scene.truth, given, 0)[2] for m in maps])
        row = []
        for k in classes:
            mine = np.where(given == k, k, -1)
            maps = [lost[k], mapped(scene.without(k), mine), whole]
            row.append([scored(m, scene.truth, mine, k) for m in maps])
        one.append(row)
    return np.array(one).swapaxes(0, 1), np.array(every), classes


def of_simulated(options: argparse.Namespace) -> None:
    """Print a row for each map, and the mean."""
    print(
        "| labels of | class: PA, UA with points | PA, UA of the whole | OA without class, with points, whole"
        " | OA, 5 points a class | one of five wrong |\n| --- | --- | --- | --- | --- | --- |"
    )
    rows = []
    for name, scene in simulated(options.folder, options.half):
        one, every, _ = experiments(scene, options.draws)
        rows.append((one.mean((0, 1)), every.mean(0)))
        print(_row(name, *rows[-1]), flush=True)
    one, every = (np.mean(part, 0) for part in zip(*rows, strict=True))
    print(_row("mean", one, every))


def _row(name: str, one: np.ndarray, every: np.ndarray) -> str:
    lost, given, whole = one
    return (
        f"| {name} | {given[0]:.3f}, {given[1]:.3f} | {whole[0]:.3f}, {whole[1]:.3f}"
        f" | {lost[2]:.3f}, {given[2]:.3f}, {whole[2]:.3f}"
        f" | {every[0]:.3f} -> {every[1]:.3f} | {every[2]:.3f} |"
    )


def of_scene(options: argparse.Namespace) -> None:
    """Print a row for each class of a scene whose results are there."""
    settings = load(yaml.safe_load(options.config.read_text()))
    (name, given), *_ = settings["scenes"].items()
    folder = options.results / name
    features, pseudo = folder / "features-hsi.zarr", folder / options.run / "pseudo.zarr"
    prepared, labelled = open_store(features), open_store(pseudo)
    valid, names = ~read_array(prepared, "nodata"), class_names(labelled)
    truth_of: dict[str, Any] = dict(given["ground_truth"])
    path = truth_of.pop("path")
    paths = [options.data / p for p in ([path] if isinstance(path, str) else path)]
    truth = read_ground_truth(
        paths, class_names=names, scene_shape=valid.shape, scene_grid=grid_of(labelled), **truth_of
    )
    said: Any = labelled.attrs["provenance"]
    scene = Scene(
        np.ascontiguousarray(read_array(prepared, "features")[:, valid].T),
        np.ascontiguousarray(read_array(labelled, "probabilities")[:, valid]),
        truth[valid],
        names,
        bool(said["settings"].get("informed", False)),
    )
    one, every, classes = experiments(scene, options.draws)
    print(
        "| class that is never found | PA, UA without points | with 5 points (worst of the draws) | of the whole run"
        " | OA without, with, whole |\n| --- | --- | --- | --- | --- |"
    )
    for k, scores in zip(classes, one, strict=True):
        lost, points, whole = scores.mean(0)
        worst = scores[:, 1].min(0)
        print(
            f"| {name}: {names[k]} | {lost[0]:.3f}, {lost[1]:.3f}"
            f" | {points[0]:.3f}, {points[1]:.3f} ({worst[0]:.3f}, {worst[1]:.3f}) | {whole[0]:.3f}, {whole[1]:.3f}"
            f" | {lost[2]:.3f}, {points[2]:.3f}, {whole[2]:.3f} |"
        )
    least = every.min(0)
    print(
        f"{name}: OA {every[:, 0].mean():.3f}; 5 points of each class {every[:, 1].mean():.3f} (worst {least[1]:.3f});"
        f" one of five wrong {every[:, 2].mean():.3f} (worst {least[2]:.3f}); {options.draws} draws"
    )
    if options.networks:
        k = min(classes, key=lambda k: int((scene.truth == k + 1).sum()))
        mine = scene.points([k], np.random.default_rng(0))
        for what, points in (("without points", None), ("with 5 points", mine)):
            labels = with_network(scene.without(k), points, valid, features, settings)
            scores = scored(labels, scene.truth, mine, k)
            print(
                f"{name}, {names[k]} never found, {what}, the map of co-training and a network:"
                f" PA {scores[0]:.3f}, UA {scores[1]:.3f}, OA {scores[2]:.3f}",
                flush=True,
            )


def with_network(
    scene: Scene,
    given: np.ndarray | None,
    valid: np.ndarray,
    features: Path,
    settings: dict[str, Any],
) -> np.ndarray:
    """(pixel,) labels, from 1, of a whole run with the first seed, by the steps themselves."""
    probabilities = np.zeros((len(scene.names), *valid.shape), np.float32)
    probabilities[:, valid] = scene.pseudo if given is None else taught(scene, given)
    marked = None
    if given is not None:
        marked = np.zeros(valid.shape, np.uint8)
        marked[valid] = given + 1
    run = next(iter(settings["runs"].values()))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pseudo, between, trained, out = (folder / f"{n}.zarr" for n in "pcno")
        write_prediction(
            pseudo, probabilities, ~valid, step="fuse", settings={"informed": scene.informed}, inputs=[],
            class_names=scene.names, grid=grid_of(open_store(features)), given=marked,
        )  # fmt: skip
        cotrain(features=features, pseudo=pseudo, out=between, diagnosis=folder / "d.json")
        network(
            features=features, pseudo=pseudo, cotrain=between, seed=0, classifier=run["classifier"],
            training=run["network"], checkpoint=folder / "k", out=trained, state=folder / "s",
            epochs=folder / "e.csv",
        )  # fmt: skip
        consensus(cotrain=between, networks=[trained], out=out)
        return read_array(open_store(out), "labels")[valid]


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    kinds = parser.add_subparsers(required=True)
    one = kinds.add_parser("simulated")
    one.add_argument("folder", type=Path)
    one.add_argument("--half", choices=["choose", "report"], required=True)
    one.add_argument("--draws", type=int, default=1)
    one.set_defaults(do=of_simulated)
    two = kinds.add_parser("scene")
    two.add_argument("config", type=Path)
    two.add_argument("--data", type=Path, default=Path("."))
    two.add_argument("--results", type=Path, default=Path("results"))
    two.add_argument("--run", default="hsi")
    two.add_argument("--draws", type=int, default=10)
    two.add_argument("--networks", action="store_true", help="also the run's map, for one draw")
    two.set_defaults(do=of_scene)
    options = parser.parse_args()
    do: Callable[[argparse.Namespace], None] = options.do
    do(options)


if __name__ == "__main__":
    main()
