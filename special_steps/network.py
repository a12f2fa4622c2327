"""Noisy-label learning with co-training: the spectral classifier learns where pseudo-labels and spectra agree."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr
from torch.nn import functional as F

from special_steps.classifier.loop import Losses, random_pixel_loss
from special_steps.classifier.sampling import (
    PixelSampler,
    agreement_set,
    class_balanced_sampler,
    random_pixels,
)
from special_steps.classifier.stage import new_setup, run_stage
from special_steps.core.cli import run
from special_steps.core.errors import UserError
from special_steps.core.prediction import given_labels
from special_steps.core.store import array_of, class_names, grid_of, open_store, read_array
from special_steps.core.tiling import Tile

log = logging.getLogger("special")


def agreement_losses(
    agreed: PixelSampler,
    anywhere: Callable[[np.random.Generator, Tile], np.ndarray],
    probabilities: Callable[[Tile], np.ndarray],
    rng: np.random.Generator,
) -> Losses:
    """The losses of an epoch: cross-entropy on the agreement set, and on random pixels with soft labels.

    Args:
        agreed: draws pixels of the agreement set and their classes.
        anywhere: draws pixels.
        probabilities: (class, y, x) float32 of a tile, the soft labels.
        rng: for both samplers.
    """

    def losses(logits: torch.Tensor, tile: Tile) -> dict[str, tuple[float, torch.Tensor]]:
        hard = random_pixel_loss(agreed, rng, logits, tile)
        pixels = anywhere(rng, tile)
        soft = probabilities(tile)
        wanted = torch.from_numpy(soft.reshape(len(soft), -1)[:, pixels].T.copy())
        at = torch.from_numpy(pixels).to(logits.device)
        return {
            "agreed": (1.0, hard),
            "soft": (1.0, F.cross_entropy(logits[at], wanted.to(logits.device))),
        }

    return losses


def tile_reader(store: zarr.Group, whole: bool) -> Callable[[Tile], np.ndarray]:
    """Reads the probabilities of a tile; once for all where the network sees the scene `whole`."""
    array = array_of(store, "probabilities")
    if whole:
        held = np.asarray(array[:])
        return lambda _: held
    return lambda tile: np.asarray(array[:, *tile])


def network(
    *,
    features: Path,
    pseudo: Path,
    cotrain: Path,
    seed: int,
    classifier: dict[str, int],
    training: dict[str, Any],
    checkpoint: Path,
    out: Path,
    state: Path,
    epochs: Path,
) -> None:
    """Train MambaHSI on the pixels where pseudo-labels and co-training agree; the result is the last epoch's.

    Args:
        features: store made by features.
        pseudo: store made by fuse.
        cotrain: store made by cotrain.
        seed: random seed.
        classifier: hidden, tokens.
        training: epochs, iterations, samples_per_class, random_samples, learning_rate, noise, tile.
        checkpoint: file kept after every epoch; an interrupted run goes on from it.
        out: store to write, the scene's probabilities after the last epoch.
        state: safetensors file to write, the trained network.
        epochs: CSV file to write, a row per epoch.
    """
    image, soft = ("y", "x"), ("class", "y", "x")
    labelled = open_store(pseudo, labels=image)
    cotrained = open_store(cotrain, probabilities=soft, labels=image, margin=image, nodata=image)
    names = class_names(cotrained)
    if class_names(labelled) != names:
        raise UserError(
            f"{cotrain}: its classes are not those of {pseudo}; delete it and run again"
        )
    before, after = (read_array(s, "labels").astype(int) - 1 for s in (labelled, cotrained))
    margin = read_array(cotrained, "margin")
    given = given_labels(labelled)
    certain = None if given is None else given.ravel() > 0
    agreed_on = agreement_set(before.ravel(), after.ravel(), margin.ravel(), certain)
    labels = (agreed_on + 1).astype(np.uint8).reshape(margin.shape)
    for i, name in enumerate(names):
        if not (labels == i + 1).any():
            log.warning("'%s' has no pixel to learn from: the network's map will not have it", name)
    uniform = np.ones(labels.shape, np.float32)
    agreed = class_balanced_sampler(labels, uniform, training["samples_per_class"])
    anywhere = random_pixels(~read_array(cotrained, "nodata"), training["random_samples"])
    setup = new_setup(features, len(names), agreed, seed, classifier, training)
    probabilities = tile_reader(cotrained, setup.scene.is_one_tile)
    sizes = {"agreed_pixels": int((labels > 0).sum())}
    run_stage(
        "network",
        setup,
        lambda _, rng: (agreement_losses(agreed, anywhere, probabilities, rng), sizes),
        epochs=range(1, training["epochs"] + 1),
        labels=None,
        settings={"seed": seed, "classifier": classifier, "training": training},
        inputs=[features, pseudo, cotrain],
        described={"class_names": names, "grid": grid_of(cotrained), "given": given},
        checkpoint=checkpoint,
        prediction=out,
        state=state,
        table=epochs,
    )


if __name__ == "__main__":
    run(network)
