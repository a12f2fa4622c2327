"""The second stage and simple classifiers on the same labels, whose noise is known: accuracy on many maps.

    python tests/benchmarks/noisy_labels.py [--data FOLDER] [--quick] [--part choose|report] [--csv FILE]

Scenes: the demo, simulated at three seeds and sizes, so with other materials and layouts; with the folder of real
scenes also Samson, MUUFL and EnMAP tiles, as workflow/benchmarks/*.yaml has them. Maps: see controlled_maps.py; two
families, at 50, 65 and 80 % right, two seeds. What a setting is chosen on and what is reported are kept apart: all maps
of the demo and seed 0 of real scenes are there to choose by, seed 1 of real scenes is for the report. Ground truth
makes the maps and scores the results; no method sees it.
"""

import argparse
import csv
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, get_args

import numpy as np
import yaml
from controlled_maps import Family, controlled_map

from special_steps.baseline import Method, classify
from special_steps.core.settings import load
from special_steps.core.store import grid_of, open_store, read_array
from special_steps.cotrain import cotrained
from special_steps.demo import demo
from special_steps.features import features
from special_steps.ingest import ingest
from special_steps.io.ground_truth import read_ground_truth
from special_steps.rgb import rgb

ROOT = Path(__file__).resolve().parents[2]
DEMOS = ((1, 160, 200), (2, 120, 150), (3, 90, 100))  # seed, height, width
QUICK = ((1, 90, 120),)  # smaller ones lack classes that the user has named: another question
REAL = ("samson", "muufl", "enmap_potsdam")  # files of workflow/benchmarks, and folders of the data
LEVELS, SEEDS = (50, 65, 80), (0, 1)
PARTS = ("choose", "report")
LOSS = 0.01  # a map that ends further below its own labels is counted

Classifier = Callable[[np.ndarray, np.ndarray], np.ndarray]  # spectra, probabilities by pixel


@dataclass
class Scene:
    """A scene as the second stage sees it, and its truth."""

    name: str
    classes: int  # K
    cube: np.ndarray  # (band, y, x) float32: stretched good bands
    image: np.ndarray  # (3, y, x) float32
    valid: np.ndarray  # (y, x) bool
    truth: np.ndarray  # (y, x) uint8, 1..K, 0 = unknown

    def middle(self, height: int, width: int) -> "Scene":
        """A crop of it."""
        y, x = (self.valid.shape[0] - height) // 2, (self.valid.shape[1] - width) // 2
        cube, image, valid, truth = (
            array[..., y : y + height, x : x + width]
            for array in (self.cube, self.image, self.valid, self.truth)
        )
        return Scene(self.name, self.classes, cube, image, valid, truth)


@dataclass
class Result:
    """What the methods reached on a map."""

    part: str  # choose or report
    scene: str
    pixels: int
    family: str
    level: int
    seed: int
    accuracy: dict[str, float]  # overall accuracy of known valid pixels, by method


def prepared(config: dict[str, Any], data: Path, folder: Path) -> Scene:
    """Read the only scene of a config and its truth, by the workflow's own steps.

    Args:
        config: as a config file has it.
        data: where its files are.
        folder: for the stores.
    """
    settings = load(config)
    ((name, scene),) = settings["scenes"].items()
    stores = {part: folder / f"{name}-{part}.zarr" for part in ("cube", "features", "rgb")}
    files, options = {}, {}
    for part in ("cube", "ground_truth"):
        paths = scene[part]["path"]
        files[part] = [data / path for path in ([paths] if isinstance(paths, str) else paths)]
        options[part] = {key: value for key, value in scene[part].items() if key != "path"}
    masks = {key: scene[key] for key in ("mask", "mask_quality", "area")}
    ingest(cube=files["cube"], out=stores["cube"], **options["cube"], **masks)
    features(
        source=stores["cube"],
        out=stores["features"],
        input="hsi",
        percentiles=settings["features"]["stretch"],
        components=settings["features"]["components"],
    )
    rgb(
        cube=stores["cube"],
        out=stores["rgb"],
        wavelengths=settings["rgb"]["wavelengths"],
        percentiles=settings["rgb"]["stretch"],
    )
    inputs = open_store(stores["features"])
    valid = ~read_array(inputs, "nodata")
    truth = read_ground_truth(
        files["ground_truth"],
        class_names=list(scene["classes"]),
        scene_shape=(valid.shape[0], valid.shape[1]),
        scene_grid=grid_of(inputs),
        **options["ground_truth"],
    )
    image = read_array(open_store(stores["rgb"]), "rgb")
    bands = read_array(inputs, "features")
    return Scene(name, len(scene["classes"]), bands, image, valid, truth)


def demo_scene(seed: int, height: int, width: int, folder: Path) -> Scene:
    """The middle of a simulated scene; another seed has other materials and another layout."""
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    for part in ("cube", "ground_truth"):
        given = config["scenes"]["demo"][part]
        given["path"] = Path(given["path"]).name
    files = folder / f"demo-{seed}"
    demo(out=files, seed=seed)
    return prepared(config, files, files).middle(height, width)


def real_scene(name: str, data: Path, folder: Path) -> Scene:
    """The scene of workflow/benchmarks/<name>.yaml."""
    config = ROOT / "workflow" / "benchmarks" / f"{name}.yaml"
    return prepared(yaml.safe_load(config.read_text()), data, folder)


def given_labels(spectra: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """The pseudo-labels as they are."""
    return probabilities


def methods() -> dict[str, Classifier]:
    """The labels as they are, simple classifiers, and co-training."""
    found: dict[str, Classifier] = {"labels": given_labels}
    for name in get_args(Method):
        found[name] = partial(classify, name)
    found["cotrain"] = lambda spectra, given: cotrained(spectra, given.T).probabilities.T
    return found


def part_of(scene: str, seed: int) -> str:
    """What a map is for: to choose by, or to report on."""
    return "choose" if scene == "demo" or seed == 0 else "report"


def measure(
    scene: Scene,
    classifiers: Mapping[str, Classifier],
    maps: Iterable[tuple[Family, int, int]],
    seconds: dict[str, float],
) -> Iterator[Result]:
    """All methods on maps (family, level, seed) of a scene; the time of each is added to `seconds`."""
    spectra = np.ascontiguousarray(scene.cube[:, scene.valid].T)
    truth = scene.truth[scene.valid].astype(np.int64)
    for family, level, seed in maps:
        image = controlled_map(
            scene.cube,
            scene.image,
            scene.valid,
            scene.truth,
            classes=scene.classes,
            level=level,
            seed=seed,
            family=family,
        )
        probabilities = np.ascontiguousarray(image[:, scene.valid].T)
        part = part_of(scene.name, seed)
        result = Result(part, scene.name, len(truth), family, level, seed, {})
        for name, classifier in classifiers.items():
            begin = time.perf_counter()
            found = classifier(spectra, probabilities)
            seconds[name] = seconds.get(name, 0) + time.perf_counter() - begin
            right = found.argmax(1) + 1 == truth
            result.accuracy[name] = float(right[truth > 0].mean())
        yield result


def table(results: Sequence[Result]) -> str:
    """Mean (worst) ± deviation of accuracy in per cent, by scene, family and level; then over all maps."""
    names = list(results[0].accuracy)
    groups: dict[tuple[str, str, str], list[Result]] = {}
    for result in results:
        key = (result.scene, result.family, str(result.level))
        groups.setdefault(key, []).append(result)
    groups["all", "", ""] = list(results)
    rows = [["scene", "family", "level", "maps", *names], ["---"] * (4 + len(names))]
    for key, group in groups.items():
        cells = []
        for name in names:
            reached = 100 * np.array([result.accuracy[name] for result in group])
            cells.append(f"{reached.mean():.1f} ({reached.min():.1f}) ± {reached.std():.1f}")
        rows.append([*key, str(len(group)), *cells])
    lost = [
        sum(result.accuracy[name] < result.accuracy["labels"] - LOSS for result in results)
        for name in names
    ]
    rows.append(["maps over a point below their labels", "", "", "", *map(str, lost)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def write_csv(path: Path, results: Sequence[Result]) -> None:
    """A row for each map and method."""
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow([*list(Result.__annotations__)[:-1], "method", "accuracy"])
        for result in results:
            *key, accuracy = vars(result).values()
            writer.writerows([*key, name, value] for name, value in accuracy.items())


def main() -> None:
    """Print a table for the maps to choose by, and one for the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of real scenes (samson/, muufl/, ...)")
    parser.add_argument("--quick", action="store_true", help="one small scene, one level a family")
    parser.add_argument("--part", choices=PARTS, help="these maps only")
    parser.add_argument("--csv", type=Path, help="file for the accuracy on each map")
    options = parser.parse_args()
    parts = [options.part] if options.part else PARTS
    levels, seeds = ((65,), (0,)) if options.quick else (LEVELS, SEEDS)
    classifiers, seconds, results = methods(), dict[str, float](), list[Result]()
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scenes: list[tuple[str, Callable[[], Scene]]] = [
            ("demo", partial(demo_scene, *sizes, folder))
            for sizes in (QUICK if options.quick else DEMOS)
        ]
        if options.data:
            scenes += [
                (name, partial(real_scene, name, options.data, folder))
                for name in REAL
                if (options.data / name).is_dir()
            ]
        for name, read in scenes:
            wanted = [seed for seed in seeds if part_of(name, seed) in parts]
            if wanted:
                maps = product(get_args(Family), levels, wanted)
                results += measure(read(), classifiers, maps, seconds)
    for part in parts:
        chosen = [result for result in results if result.part == part]
        if chosen:
            print(f"\nMaps to {part}: overall accuracy, mean (worst) ± deviation, %\n")
            print(table(chosen))
        else:
            print(f"\nNo maps to {part}; those of real scenes need --data FOLDER")
    took = ", ".join(f"{name} {t:.1f} s" for name, t in seconds.items())
    print(f"\n{took}; with scenes and maps {time.perf_counter() - begin:.0f} s")
    if options.csv:
        write_csv(options.csv, results)


if __name__ == "__main__":
    main()
