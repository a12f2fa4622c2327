"""Noisy-label learning, second part: confident and hard pixels with soft labels of class mixtures."""

import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from torch.nn import functional as F

from special_steps.classifier.loop import (
    Draw,
    Losses,
    Window,
    class_balanced_in,
    device,
    fingerprint,
    inside,
    load_state,
    open_scene,
    random_loss,
    resume,
    save_state,
    start,
    train,
    write_rows,
)
from special_steps.core.cli import run
from special_steps.core.prediction import labels as best_labels
from special_steps.core.prediction import margins, write_prediction
from special_steps.core.store import open_store

log = logging.getLogger("special")

FITTED = 50_000  # pixels that a mixture is fitted on at most: more do not move it, they cost time
PER_COMPONENT = 20  # pixels that a mixture component needs at least


def mixture(
    samples: np.ndarray, components: int, rng: np.random.Generator
) -> GaussianMixture | None:
    """Fit a full-covariance Gaussian mixture; fewer components, or None, where samples are few.

    Args:
        samples: (pixel, dimension) float.
        components: components wanted.
        rng: for the start and for the choice of at most 50,000 samples.
    """
    if len(samples) > FITTED:
        samples = samples[np.sort(rng.choice(len(samples), FITTED, replace=False))]
    distinct = len(np.unique(samples, axis=0)) if len(samples) < 1000 else len(samples)
    components = min(components, len(samples) // PER_COMPONENT, distinct)
    if components < 1:
        return None
    model = GaussianMixture(components, random_state=int(rng.integers(2**31)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # 100 steps are enough for a split
        return model.fit(samples)


def split(
    labels: np.ndarray, margin: np.ndarray, components: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Split each class's pixels by their margins into a confident and a hard set.

    A 1-D Gaussian mixture is fitted per class: its component with the highest mean is the
    confident set, the lowest the hard set (SPECIAL, refinement stage). Where there are too few
    pixels for two components, all of the class's pixels are confident.

    Args:
        labels: (pixel,) uint8 predicted labels, 1..K, 0 = no data.
        margin: (pixel,) float32 best-versus-second-best margins.
        components: mixture components.

    Returns:
        confident and hard, (pixel,) bool.
    """
    confident, hard = np.zeros(len(labels), bool), np.zeros(len(labels), bool)
    for label in np.unique(labels[labels > 0]):
        pixels = np.flatnonzero(labels == label)
        values = margin[pixels, None].astype(np.float64)
        fitted = mixture(values, components, rng)
        if fitted is None or len(fitted.means_) < 2:
            log.warning("class %d: too few pixels (%d) to split by margin", label, len(pixels))
            confident[pixels] = True
            continue
        member = fitted.predict(values)
        confident[pixels[member == fitted.means_[:, 0].argmax()]] = True
        hard[pixels[member == fitted.means_[:, 0].argmin()]] = True
    return confident, hard


def soft_labels(
    spectra: np.ndarray,
    labels: np.ndarray,
    confident: np.ndarray,
    wanted: np.ndarray,
    classes: int,
    components: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Class probabilities of pixels from one mixture per class, fitted on its confident pixels.

    Likelihoods are normalised over classes in log space: the densities themselves underflow.
    Pixels predicted as a class that has no mixture keep their one-hot label.

    Args:
        spectra: (pixel, component) principal components.
        labels: (pixel,) uint8 predicted labels, 1..K, 0 = no data.
        confident: (pixel,) bool.
        wanted: (n,) indices of the pixels to label.
        classes: K.
        components: mixture components per class.

    Returns:
        (n, class) float32, rows sum to 1.
    """
    likelihood = np.full((len(wanted), classes), -np.inf)
    for i in range(classes):
        fitted = mixture(spectra[confident & (labels == i + 1)], components, rng)
        if fitted is not None and len(wanted):
            likelihood[:, i] = fitted.score_samples(spectra[wanted])
    missing = ~np.isfinite(likelihood).any(0)
    own = labels[wanted].astype(np.int64) - 1
    with np.errstate(invalid="ignore"):
        soft = np.exp(likelihood - np.logaddexp.reduce(likelihood, 1, keepdims=True))
    one_hot = missing[own] | ~np.isfinite(soft).all(1)
    soft[one_hot] = np.eye(classes)[own[one_hot]]
    return soft.astype(np.float32)


def round_sets(
    probabilities: np.ndarray,
    nodata: np.ndarray,
    spectra: np.ndarray,
    settings: dict[str, Any],
    rng: np.random.Generator,
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The confident and the hard set of a round: pixel indices and their soft labels.

    Args:
        probabilities: (class, y, x) float32, the network's prediction.
        nodata: (y, x) bool.
        spectra: (pixel, component) principal components.
        settings: margin_components, confident_fraction, class_components.
    """
    labels = best_labels(probabilities, nodata).ravel()
    confident, hard = split(
        labels, margins(probabilities).ravel(), settings["margin_components"], rng
    )
    some = np.flatnonzero(confident)
    count = int(np.ceil(len(some) * settings["confident_fraction"]))
    chosen = {
        "confident": np.sort(rng.choice(some, count, replace=False)),
        "hard": np.flatnonzero(hard),
    }
    both = np.concatenate(list(chosen.values()))
    soft = soft_labels(
        spectra, labels, confident, both, len(probabilities), settings["class_components"], rng
    )
    cut = len(chosen["confident"])
    return {
        "confident": (chosen["confident"], soft[:cut]),
        "hard": (chosen["hard"], soft[cut:]),
    }


def refined_losses(
    draw: Draw,
    sets: dict[str, tuple[np.ndarray, np.ndarray]],
    shape: tuple[int, int],
    settings: dict[str, Any],
    rng: np.random.Generator,
) -> Losses:
    """The round's losses: cross-entropy on random, hard and confident pixels, with weights."""
    fixed = {name: both for name, both in sets.items() if settings[f"{name}_weight"] > 0}

    def losses(logits: torch.Tensor, window: Window) -> dict[str, tuple[float, torch.Tensor]]:
        parts = {}
        if settings["random_weight"] > 0:
            parts["random"] = (settings["random_weight"], random_loss(draw, rng, logits, window))
        for name, (pixels, soft) in fixed.items():
            mask, places = inside(window, shape, pixels)
            if mask.any():
                at, wanted = (torch.from_numpy(a).to(logits.device) for a in (places, soft[mask]))
                parts[name] = (settings[f"{name}_weight"], F.cross_entropy(logits[at], wanted))
        return parts or {"random": (0.0, logits.sum() * 0)}

    return losses


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
    rounds: Path,
) -> None:
    """Refine the warmed-up network; the result is the last round's, never a chosen one.

    Args:
        features: store made by features.
        pseudo: store made by fuse.
        warmup: training state made by warmup.
        seed: random seed.
        classifier: hidden, tokens.
        training: rounds, warmup_rounds, iterations, samples_per_class, learning_rate, noise,
            tile.
        refinement: margin_components, confident_fraction, class_components and loss weights.
        checkpoint: file kept after every round; an interrupted run goes on from it.
        out: store to write, the scene's final probabilities.
        state: safetensors file to write: the trained network.
        rounds: CSV file to write, a row per round.
    """
    source = open_store(
        features, features=("band", "y", "x"), components=("component", "y", "x"), nodata=("y", "x")
    )
    labelled = open_store(pseudo, labels=("y", "x"), margin=("y", "x"))
    names = labelled.attrs["class_names"]
    spectra = source["components"][:].reshape(source["components"].shape[0], -1).T
    draw = class_balanced_in(
        labelled["labels"][:], labelled["margin"][:], training["samples_per_class"]
    )

    where = device()
    scene = open_scene(source, training["tile"], where)
    model, optimizer = start(scene.bands, len(names), classifier, seed, where)
    settings = {"seed": seed, "classifier": classifier, "training": training, "refine": refinement}
    mark = fingerprint("refine", settings, [features, pseudo, warmup])
    resumed = resume(checkpoint, mark, model, optimizer)
    if resumed is None:
        before, rows = load_state(warmup, model, optimizer)[0], []
    else:
        before, rows = resumed

    def plan(probabilities: np.ndarray, rng: np.random.Generator) -> tuple[Losses, dict[str, int]]:
        sets = round_sets(probabilities, scene.nodata, spectra, refinement, rng)
        sizes = {f"{name}_pixels": len(pixels) for name, (pixels, _) in sets.items()}
        return refined_losses(draw, sets, scene.nodata.shape, refinement, rng), sizes

    probabilities, labels = train(
        model,
        optimizer,
        scene,
        draw,
        plan,
        stage="refine",
        last=training["rounds"],
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
        step="refine",
        settings=settings,
        inputs=[features, pseudo, warmup],
        attributes={key: labelled.attrs[key] for key in ("class_names", "crs", "transform")},
    )
    write_rows(rounds, rows)
    save_state(state, model, optimizer, labels, rows, mark)
    checkpoint.unlink(missing_ok=True)


if __name__ == "__main__":
    run(refine)
