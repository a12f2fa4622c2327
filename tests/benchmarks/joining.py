"""How CLIP's and the spectral library's probabilities are joined best: accuracy over exponents, on simulated scenes.

    python tests/benchmarks/simulated_scenes.py --out FOLDER # six minutes: scenes, and what both witnesses say
    python tests/benchmarks/joining.py FOLDER                # the half to choose on; 3,000 pixels of each scene

`fuse` has the exponents .5 of CLIP and 2 of the library.
"""

import argparse
from pathlib import Path

import numpy as np

from special_steps.classifier.anchored import normalised
from special_steps.cotrain import cotrained

EXPONENTS = (
    (1, 0),
    (1, 1),
    (1, 2),
    (0.5, 1),
    (0.5, 2),
    (0.25, 1),
    (0.25, 2),
    (0, 2),
)  # CLIP, library
PIXELS = 3000


def accuracies(file: Path) -> np.ndarray:
    """Overall accuracy (exponents, 2) of the joined labels, and after co-training."""
    with np.load(file) as data:
        pixels = np.arange(len(data["X"]))
        if len(pixels) > PIXELS:
            pixels = np.sort(np.random.default_rng(0).choice(pixels, PIXELS, replace=False))
        spectra, truth = np.ascontiguousarray(data["X"][pixels]), data["truth"][pixels]
        clip, library = (np.ascontiguousarray(data[n][pixels].T, np.float32) for n in "PE")
    known, rows = truth > 0, []
    for of_clip, of_library in EXPONENTS:
        product = (clip + 1e-6) ** of_clip * (library + 1e-6) ** of_library
        labels = normalised(product).astype(np.float32)
        found = cotrained(spectra, labels, informed=of_library > 0).probabilities
        rows.append([float((p.argmax(0) + 1 == truth)[known].mean()) for p in (labels, found)])
    return np.array(rows)


def main() -> None:
    """Print a row for each pair of exponents."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    found = []
    for file in sorted(folder.glob("*.npz")):
        with np.load(file) as data:
            chosen = data["half"] == "choose" and np.ptp(data["E"]) > 0
        if chosen:
            found.append(accuracies(file))
    if not found:
        parser.error(f"{folder}: no scenes there; simulated_scenes.py makes them")
    every = np.array(found)
    alone = np.maximum(every[:, 0, 1], every[:, -1, 1])
    print(
        f"{len(every)} maps\n| CLIP | library | labels | co-trained, mean (worst) | over a point below |"
    )
    print("| --- | --- | --- | --- | --- |")
    for k, (of_clip, of_library) in enumerate(EXPONENTS):
        labels, after = every[:, k].T
        worse = int((after < alone - 0.01).sum())
        print(
            f"| {of_clip:g} | {of_library:g} | {labels.mean():.3f} | {after.mean():.3f} ({after.min():.3f}) | {worse} |"
        )


if __name__ == "__main__":
    main()
