"""Noisy-label learning, first part: a spectral classifier learns from confident pseudo-labels."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from special_steps.classifier.loop import Losses, random_pixel_loss
from special_steps.classifier.sampling import PixelSampler
from special_steps.classifier.stage import open_setup, run_stage
from special_steps.core.cli import run
from special_steps.core.tiling import Tile


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
    setup, described = open_setup(features, pseudo, seed, classifier, training)
    run_stage(
        "warmup",
        setup,
        lambda _, rng: (warmup_losses(setup.sampler, rng), {}),
        epochs=range(1, training["warmup_epochs"] + 1),
        labels=None,
        settings={"seed": seed, "classifier": classifier, "training": training},
        inputs=[features, pseudo],
        described=described,
        checkpoint=checkpoint,
        prediction=out,
        state=state,
        table=epochs,
    )


if __name__ == "__main__":
    run(warmup)
