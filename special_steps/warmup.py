"""Noisy-label learning, first part: a spectral classifier learns from confident pseudo-labels."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch

from special_steps.classifier.loop import (
    Losses,
    create_model_and_optimizer,
    prepare_device,
    random_pixel_loss,
)
from special_steps.classifier.sampling import PixelSampler, class_balanced_sampler
from special_steps.classifier.stage import run_stage
from special_steps.classifier.tiles import open_scene
from special_steps.core.cli import run
from special_steps.core.store import open_store
from special_steps.core.tiling import Tile

log = logging.getLogger("special")


def warmup_losses(sampler: PixelSampler, rng: np.random.Generator) -> Losses:
    """The loss of a warm-up epoch: cross-entropy of sampled pixels with their pseudo-labels."""

    def losses(logits: torch.Tensor, tile: Tile) -> dict[str, tuple[float, torch.Tensor]]:
        return {"random": (1.0, random_pixel_loss(sampler, rng, logits, tile))}

    return losses


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
    epochs: Path,
) -> None:
    """Train MambaHSI on class-balanced, margin-weighted pseudo-labels.

    Args:
        features: store made by features.
        pseudo: store made by fuse.
        seed: random seed.
        classifier: hidden, tokens.
        training: epochs, warmup_epochs, iterations, samples_per_class, learning_rate, noise,
            tile.
        checkpoint: file kept after every epoch; an interrupted run goes on from it.
        out: store to write, the scene's probabilities after the last warm-up epoch.
        state: safetensors file to write, network and optimizer, for refine.
        epochs: CSV file to write, a row per epoch.
    """
    prepared = open_store(features, features=("band", "y", "x"), nodata=("y", "x"))
    pseudo_labels = open_store(pseudo, labels=("y", "x"), margin=("y", "x"))
    labels, margin = np.asarray(pseudo_labels["labels"]), np.asarray(pseudo_labels["margin"])
    attributes: dict[str, Any] = {
        key: pseudo_labels.attrs[key] for key in ("class_names", "crs", "transform")
    }
    for i, name in enumerate(attributes["class_names"]):
        if not (labels == i + 1).any():
            log.warning("no pixel is pseudo-labelled '%s': the map will not have it", name)

    device = prepare_device()
    scene = open_scene(prepared, training["tile"], device)
    sampler = class_balanced_sampler(labels, margin, training["samples_per_class"])
    model, optimizer = create_model_and_optimizer(
        scene.bands, len(attributes["class_names"]), classifier, seed, device
    )
    run_stage(
        "warmup",
        model,
        optimizer,
        scene,
        sampler,
        lambda _, rng: (warmup_losses(sampler, rng), {}),
        epochs=range(1, training["warmup_epochs"] + 1),
        labels=None,
        settings={"seed": seed, "classifier": classifier, "training": training},
        inputs=[features, pseudo],
        attributes=attributes,
        checkpoint=checkpoint,
        prediction=out,
        state=state,
        table=epochs,
    )


if __name__ == "__main__":
    run(warmup)
