"""A stage of a training, such as warm-up or refinement, from the stores that it reads to the files that it writes."""

import logging
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from special_steps.classifier.checkpoint import fingerprint_of, resume, save_state
from special_steps.classifier.loop import (
    EpochLosses,
    Setup,
    create_model_and_optimizer,
    prepare_device,
    train,
)
from special_steps.classifier.sampling import PixelSampler, class_balanced_sampler
from special_steps.classifier.tiles import open_scene
from special_steps.core.atomic import atomic_write
from special_steps.core.prediction import given_labels, write_prediction
from special_steps.core.prediction import labels as best_labels
from special_steps.core.store import (
    class_names,
    grid_of,
    open_store,
    read_array,
)

log = logging.getLogger("special")


def open_setup(
    features: Path, pseudo: Path, seed: int, classifier: dict[str, int], training: dict[str, Any]
) -> tuple[Setup, dict[str, Any]]:
    """A fresh network and the scene that it learns; classes without pseudo-labels are logged.

    Args:
        features: store made by features.
        pseudo: store made by fuse.
        seed: of the weights.
        classifier: hidden, tokens.
        training: samples_per_class, tile.

    Returns:
        The set-up, and class_names and grid of the scene, and the labels that people gave.
    """
    labelled = open_store(pseudo, labels=("y", "x"), margin=("y", "x"))
    labels, margin = read_array(labelled, "labels"), read_array(labelled, "margin")
    names = class_names(labelled)
    for i, name in enumerate(names):
        if not (labels == i + 1).any():
            log.warning("no pixel is pseudo-labelled '%s': the map will not have it", name)
    sampler = class_balanced_sampler(labels, margin, training["samples_per_class"])
    setup = new_setup(features, len(names), sampler, seed, classifier, training)
    described = {"class_names": names, "grid": grid_of(labelled), "given": given_labels(labelled)}
    return setup, described


def new_setup(
    features: Path,
    classes: int,
    sampler: PixelSampler,
    seed: int,
    classifier: dict[str, int],
    training: dict[str, Any],
) -> Setup:
    """A fresh network, and the scene that it learns from the pixels of a sampler.

    Args:
        features: store made by features.
        classes: K.
        sampler: chooses tiles.
        seed: of the weights.
        classifier: hidden, tokens.
        training: tile.
    """
    prepared = open_store(features, features=("band", "y", "x"), nodata=("y", "x"))
    device = prepare_device()
    scene = open_scene(prepared, training["tile"], device)
    network = create_model_and_optimizer(scene.bands, classes, classifier, seed, device)
    return Setup(*network, scene, sampler)


def run_stage(
    step: str,
    setup: Setup,
    epoch_losses: EpochLosses,
    *,
    epochs: range,
    labels: np.ndarray | None,
    settings: dict[str, Any],
    inputs: list[Path],
    described: dict[str, Any],
    checkpoint: Path,
    prediction: Path,
    state: Path,
    table: Path,
) -> None:
    """Train, from the checkpoint on where there is one of the same training, and write what came of it.

    Args:
        step: warmup, refine or network.
        setup: what is trained, and on what.
        epoch_losses: gives an epoch's losses.
        epochs: numbers of the stage's epochs.
        labels: (y, x) uint8 labels before the first of these epochs; None when there are none.
        settings: seed, classifier, training and what else decides the result.
        inputs: files and stores that decide the result.
        described: class_names, grid and given labels, for the prediction's store.
        checkpoint: file kept after every epoch, and removed at the end.
        prediction: store to write, the scene's probabilities after the last epoch.
        state: safetensors file to write, network and optimizer.
        table: CSV file to write, a row per epoch.
    """
    model, optimizer, scene, _ = setup
    fingerprint = fingerprint_of(step, settings, inputs)
    save = partial(save_state, model=model, optimizer=optimizer, fingerprint=fingerprint)
    labels, rows = resume(checkpoint, fingerprint, model, optimizer) or (labels, [])
    probabilities = train(
        setup,
        epoch_losses,
        stage=step,
        epochs=epochs,
        seed=settings["seed"],
        training=settings["training"],
        labels=labels,
        rows=rows,
        on_epoch_end=lambda labels, rows: save(checkpoint, labels=labels, rows=rows),
    )
    write_prediction(
        prediction,
        probabilities,
        scene.nodata,
        step=step,
        settings=settings,
        inputs=inputs,
        **described,
    )
    with atomic_write(table) as file:
        pd.DataFrame(rows).to_csv(file, index=False)
    save(state, labels=best_labels(probabilities, scene.nodata), rows=rows)
    checkpoint.unlink(missing_ok=True)
