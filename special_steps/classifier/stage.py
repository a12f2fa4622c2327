"""A stage of the training, warm-up or refinement, from its checkpoint to its files."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from special_steps.classifier.checkpoint import fingerprint_of, resume, save_state
from special_steps.classifier.loop import EpochLosses, train
from special_steps.classifier.mambahsi import MambaHSI
from special_steps.classifier.sampling import PixelSampler
from special_steps.classifier.tiles import Scene
from special_steps.core.atomic import atomic_write
from special_steps.core.prediction import labels as best_labels
from special_steps.core.prediction import write_prediction


def run_stage(
    step: str,
    model: MambaHSI,
    optimizer: torch.optim.Adam,
    scene: Scene,
    sampler: PixelSampler,
    epoch_losses: EpochLosses,
    *,
    epochs: range,
    labels: np.ndarray | None,
    settings: dict[str, Any],
    inputs: list[Path],
    attributes: dict[str, Any],
    checkpoint: Path,
    prediction: Path,
    state: Path,
    table: Path,
) -> None:
    """Train, from the checkpoint where there is one of the same training, and write what came of it.

    Args:
        step: warmup or refine.
        model: the network, trained in place.
        optimizer: of the model.
        scene: what is trained on.
        sampler: what tiles are chosen by.
        epoch_losses: gives an epoch's losses.
        epochs: numbers of the stage's epochs.
        labels: (y, x) uint8 labels before the first of these epochs; None when there are none.
        settings: seed, classifier, training and what else decides the result.
        inputs: files and stores that decide the result.
        attributes: of the prediction's store.
        checkpoint: file kept after every epoch, and removed at the end.
        prediction: store to write, the scene's probabilities after the last epoch.
        state: safetensors file to write, network and optimizer.
        table: CSV file to write, a row per epoch.
    """
    fingerprint = fingerprint_of(step, settings, inputs)
    save = partial(save_state, model=model, optimizer=optimizer, fingerprint=fingerprint)
    labels, rows = resume(checkpoint, fingerprint, model, optimizer) or (labels, [])
    probabilities = train(
        model,
        optimizer,
        scene,
        sampler,
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
        attributes=attributes,
    )
    with atomic_write(table) as file:
        pd.DataFrame(rows).to_csv(file, index=False)
    save(state, labels=best_labels(probabilities, scene.nodata), rows=rows)
    checkpoint.unlink(missing_ok=True)
