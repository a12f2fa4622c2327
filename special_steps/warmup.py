"""Noisy-label learning, first part: a spectral classifier learns from confident pseudo-labels."""

import logging
from pathlib import Path
from typing import Any

import numpy as np

from special_steps.classifier.loop import (
    class_balanced_in,
    device,
    fingerprint,
    open_scene,
    random_loss,
    resume,
    save_state,
    start,
    train,
    write_rows,
)
from special_steps.core.cli import run
from special_steps.core.prediction import write_prediction
from special_steps.core.store import open_store

log = logging.getLogger("special")


def warmup(
    *,
    features: Path,
    pseudo: Path,
    seed: int,
    classifier: dict[str, int],
    training: dict[str, Any],
    checkpoint: Path,
    out: Path,
    state: Path,
    rounds: Path,
) -> None:
    """Train MambaHSI on class-balanced, margin-weighted pseudo-labels.

    Args:
        features: store made by features.
        pseudo: store made by fuse.
        seed: random seed.
        classifier: hidden, tokens.
        training: rounds, warmup_rounds, iterations, samples_per_class, learning_rate, noise,
            tile.
        checkpoint: file kept after every round; an interrupted run goes on from it.
        out: store to write, the scene's probabilities after the last warm-up round.
        state: safetensors file to write: network and optimizer, for refine.
        rounds: CSV file to write, a row per round.
    """
    source = open_store(features, features=("band", "y", "x"), nodata=("y", "x"))
    labelled = open_store(pseudo, labels=("y", "x"), margin=("y", "x"))
    names = labelled.attrs["class_names"]
    draw = class_balanced_in(
        labelled["labels"][:], labelled["margin"][:], training["samples_per_class"]
    )
    _warn_of_empty(labelled["labels"][:], names)

    where = device()
    scene = open_scene(source, training["tile"], where)
    model, optimizer = start(scene.bands, len(names), classifier, seed, where)
    settings = {"seed": seed, "classifier": classifier, "training": training}
    mark = fingerprint("warmup", settings, [features, pseudo])
    before, rows = resume(checkpoint, mark, model, optimizer) or (None, [])
    probabilities, labels = train(
        model,
        optimizer,
        scene,
        draw,
        lambda _, rng: (
            lambda logits, window: {"random": (1.0, random_loss(draw, rng, logits, window))},
            {},
        ),
        stage="warmup",
        last=training["warmup_rounds"],
        seed=seed,
        training=training,
        before=before,
        rows=rows,
        keep=lambda labels, rows: save_state(checkpoint, model, optimizer, labels, rows, mark),
    )

    write_prediction(
        out,
        probabilities,
        scene.nodata,
        step="warmup",
        settings=settings,
        inputs=[features, pseudo],
        attributes={key: labelled.attrs[key] for key in ("class_names", "crs", "transform")},
    )
    write_rows(rounds, rows)
    save_state(state, model, optimizer, labels, rows, mark)
    checkpoint.unlink(missing_ok=True)


def _warn_of_empty(labels: np.ndarray, names: list[str]) -> None:
    for i, name in enumerate(names):
        if not (labels == i + 1).any():
            log.warning("no pixel is pseudo-labelled '%s': the map will not have it", name)


if __name__ == "__main__":
    run(warmup)
