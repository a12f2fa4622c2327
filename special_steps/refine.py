"""Noisy-label learning, second part: also confident and hard pixels, with soft labels of class mixtures."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from special_steps.classifier.checkpoint import load_state
from special_steps.classifier.loop import Losses, random_pixel_loss
from special_steps.classifier.sampling import PixelSampler
from special_steps.classifier.sets import confident_and_hard_sets
from special_steps.classifier.stage import open_setup, run_stage
from special_steps.classifier.tiles import pixels_in_tile
from special_steps.core.cli import run
from special_steps.core.store import open_store, read_array
from special_steps.core.tiling import Tile


def refinement_losses(
    sampler: PixelSampler,
    sets: dict[str, tuple[np.ndarray, np.ndarray]],
    shape: tuple[int, int],
    settings: dict[str, Any],
    rng: np.random.Generator,
) -> Losses:
    """The losses of a refinement epoch: cross-entropy on random, hard and confident pixels, with weights.

    Args:
        sampler: of the random pixels.
        sets: confident and hard, indices of pixels (n,) and their soft labels (n, class).
        shape: of the scene.
        settings: random_weight, hard_weight, confident_weight; a set of weight 0 is left out.
        rng: for the sampler.
    """
    used = {name: both for name, both in sets.items() if settings[f"{name}_weight"] > 0}

    def losses(logits: torch.Tensor, tile: Tile) -> dict[str, tuple[float, torch.Tensor]]:
        parts = {}
        weight = settings["random_weight"]
        if weight > 0:
            parts["random"] = weight, random_pixel_loss(sampler, rng, logits, tile)
        for name, (pixels, soft) in used.items():
            mask, places = pixels_in_tile(pixels, tile, shape)
            if mask.any():
                at, wanted = (torch.from_numpy(a).to(logits.device) for a in (places, soft[mask]))
                parts[name] = settings[f"{name}_weight"], F.cross_entropy(logits[at], wanted)
        return parts or {"random": (0.0, logits.sum() * 0)}

    return losses


def keep_given(
    sets: dict[str, tuple[np.ndarray, np.ndarray]], given: np.ndarray
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The sets, where pixels that people labelled have that label, and no soft one.

    Args:
        sets: confident and hard, indices of pixels (n,) and their soft labels (n, class).
        given: (pixel,) uint8 labels, 1..K, 0 for none.
    """
    kept = {}
    for name, (pixels, soft) in sets.items():
        certain = given[pixels][:, None] == np.arange(1, soft.shape[1] + 1)
        known = certain.any(1, keepdims=True)
        kept[name] = pixels, np.where(known, certain, soft).astype(np.float32)
    return kept


def refine(
    *,
    features: Path,
    pseudo: Path,
    warmup: Path,
    seed: int,
    classifier: dict[str, int],
    training: dict[str, Any],
    refinement: dict[str, Any],
    checkpoint: Path,
    out: Path,
    state: Path,
    epochs: Path,
) -> None:
    """Refine the warmed-up network; the result is the last epoch's, never a chosen one.

    Args:
        features: store made by features.
        pseudo: store made by fuse.
        warmup: training state made by warmup.
        seed: random seed.
        classifier: hidden, tokens.
        training: epochs, warmup_epochs, iterations, samples_per_class, learning_rate, noise,
            tile.
        refinement: margin_components, confident_fraction, class_components and loss weights.
        checkpoint: file kept after every epoch; an interrupted run goes on from it.
        out: store to write, the scene's final probabilities.
        state: safetensors file to write, the trained network.
        epochs: CSV file to write, a row per epoch.
    """
    setup, described = open_setup(features, pseudo, seed, classifier, training)
    warmed_up_labels, _ = load_state(warmup, setup.model, setup.optimizer)
    nodata, given = setup.scene.nodata, described["given"]
    components = read_array(open_store(features, components=("component", "y", "x")), "components")
    spectra = components.reshape(len(components), -1).T

    def epoch_losses(
        probabilities: Callable[[], np.ndarray], rng: np.random.Generator
    ) -> tuple[Losses, dict[str, int]]:
        sets = confident_and_hard_sets(probabilities(), nodata, spectra, refinement, rng)
        if given is not None:
            sets = keep_given(sets, given.ravel())
        sizes = {f"{name}_pixels": len(pixels) for name, (pixels, _) in sets.items()}
        return refinement_losses(setup.sampler, sets, nodata.shape, refinement, rng), sizes

    run_stage(
        "refine",
        setup,
        epoch_losses,
        epochs=range(training["warmup_epochs"] + 1, training["epochs"] + 1),
        labels=warmed_up_labels,
        settings={
            "seed": seed,
            "classifier": classifier,
            "training": training,
            "refine": refinement,
        },
        inputs=[features, pseudo, warmup],
        described=described,
        checkpoint=checkpoint,
        prediction=out,
        state=state,
        table=epochs,
    )


if __name__ == "__main__":
    run(refine)
