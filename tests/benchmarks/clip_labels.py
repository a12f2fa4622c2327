"""The second stage and simple classifiers on CLIP's own labels of simulated scenes, whose truth is known.

    python tests/benchmarks/simulated_scenes.py --out FOLDER    # six minutes: the scenes, and the bundled CLIP's labels
    python tests/benchmarks/clip_labels.py FOLDER --half report # or choose

Settings of co-training and of joining both witnesses were chosen on the half `choose`; `report` was looked at after
that. Ground truth scores the results; no method sees it.
"""

import argparse
from pathlib import Path

import numpy as np
from noisy_labels import LOSS, methods

from special_steps.classifier.anchored import information
from special_steps.cotrain import cotrained
from special_steps.fuse import LEAST, joined


def accuracies(file: Path) -> dict[str, float]:
    """Overall accuracy by method: on CLIP's `labels`, on the spectral library's, and on both joined."""
    with np.load(file) as data:
        spectra, probabilities, truth = data["X"], data["P"].astype(np.float32), data["truth"]
        evidence = data["E"]
    known = truth > 0
    found = {name: classify(spectra, probabilities) for name, classify in methods().items()}
    used = bool(np.ptp(evidence))  # with few bands the library has no say
    clip, library = (np.ascontiguousarray(given.T) for given in (probabilities, evidence))
    both = joined(clip, library, [True] * len(clip)) if used else clip
    if used and information(spectra, clip) < LEAST:
        both = library
    for name, labels in (("library", library), ("both", both)):
        found[name] = labels.T
        found[f"{name}, cotrain"] = cotrained(spectra, labels, informed=used).probabilities.T
    return {n: float((p.argmax(1) + 1 == truth)[known].mean()) for n, p in found.items()}


def main() -> None:
    """Print a row for each map, then mean, worst, and how many maps end a point below their labels."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--half", choices=["choose", "report"], required=True)
    options = parser.parse_args()
    rows: list[dict[str, float]] = []
    for file in sorted(options.folder.glob("*.npz")):
        with np.load(file) as data:
            if data["half"] != options.half:
                continue
        rows.append(accuracies(file))
        if len(rows) == 1:
            print(f"| labels of | {' | '.join(rows[0])} |\n|{' --- |' * (len(rows[0]) + 1)}")
        print(f"| {file.stem} | {' | '.join(f'{v:.3f}' for v in rows[-1].values())} |", flush=True)
    if not rows:
        parser.error(f"{options.folder}: no file of that half; simulated_scenes.py makes them")
    columns = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    lost = {n: int((c < columns["labels"] - LOSS).sum()) for n, c in columns.items()}
    print(f"| mean | {' | '.join(f'{c.mean():.3f}' for c in columns.values())} |")
    print(f"| worst | {' | '.join(f'{c.min():.3f}' for c in columns.values())} |")
    print(f"| over a point below the labels | {' | '.join(map(str, lost.values()))} |")


if __name__ == "__main__":
    main()
