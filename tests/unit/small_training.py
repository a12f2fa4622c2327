"""Small trainings that several tests need: a network, a scene of two halves, all stages."""

from pathlib import Path

import numpy as np
import torch
from stores import make_prediction

from special_steps.classifier import loop
from special_steps.classifier.tiles import Scene
from special_steps.core.prediction import write_prediction
from special_steps.core.store import UNKNOWN, new_store, open_store, read_array, write_array
from special_steps.features import principal_components
from special_steps.network import network
from special_steps.refine import refine
from special_steps.warmup import warmup

TRAINING = {
    "epochs": 4,
    "warmup_epochs": 2,
    "iterations": 15,
    "samples_per_class": 60,
    "learning_rate": [5e-3, 1e-3],
    "noise": 0.05,
    "tile": None,
}
NETWORK = {
    "epochs": 2,
    "iterations": 15,
    "samples_per_class": 60,
    "random_samples": 100,
    "learning_rate": [5e-3, 1e-3],
    "noise": 0.05,
    "tile": None,
}
CLASSIFIER = {"hidden": 8, "tokens": 4}
REFINEMENT = {
    "margin_components": 3,
    "confident_fraction": 0.2,
    "class_components": 2,
    "random_weight": 1.0,
    "hard_weight": 0.1,
    "confident_weight": 1.0,
}


# --- the parts of a training ----------------------------------------------------------------------


def small_model(seed=0):
    return loop.create_model_and_optimizer(5, 3, CLASSIFIER, seed, torch.device("cpu"))


def whole(features: torch.Tensor) -> Scene:
    nodata = np.zeros(features.shape[2:], bool)
    return Scene(lambda _: features, features.shape[1], nodata, 1200)


def anywhere(rng, tile):
    return np.arange(3), np.arange(3)


def one_epoch(model, optimizer, rng):
    generator = torch.Generator().manual_seed(1)
    scene = torch.rand(1, 5, 9, 14, generator=generator)
    labels = np.arange(9 * 14) % 3

    def losses(logits, _):
        target = torch.from_numpy(labels)
        return {"random": (1.0, torch.nn.functional.cross_entropy(logits, target))}

    return loop.train_epoch(
        loop.Setup(model, optimizer, whole(scene), anywhere), losses,
        rates=[1e-3] * 3, noise=0.1, rng=rng, title="test",
    )  # fmt: skip


# --- the stages -----------------------------------------------------------------------------------


def make_noisy_scene(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Features of two halves, a masked corner, pseudo-labels of which a fifth is wrong, and co-training's: fewer are.

    Returns truth (y, x) and nodata (y, x).
    """
    rng = np.random.default_rng(0)
    truth = np.ones((20, 24), np.uint8)
    truth[:, 12:] = 2
    nodata = np.zeros(truth.shape, bool)
    nodata[:4, :4] = True
    spectra = rng.uniform(0.2, 0.8, (2, 10))
    bands = spectra[truth - 1].transpose(2, 0, 1) + rng.normal(0, 0.03, (10, 20, 24))
    bands = np.where(nodata, 0, bands).astype(np.float32)
    with new_store(folder / "features.zarr", step="test", settings={}, inputs=[]) as group:
        write_array(group, "features", bands, ("band", "y", "x"))
        (scores,) = principal_components(lambda rows: bands[:, rows], nodata, 5)
        write_array(group, "components", scores, ("component", "y", "x"))
        write_array(group, "nodata", nodata, ("y", "x"))
    wrong = rng.random(truth.shape) < 0.2
    best = np.where(wrong, rng.uniform(0.5, 0.65, truth.shape), rng.uniform(0.6, 0.95, truth.shape))
    first = np.where((truth == 1) ^ wrong, best, 1 - best)
    probabilities = np.stack([first, 1 - first]).astype(np.float32)
    make_prediction(folder / "pseudo.zarr", probabilities, ["one", "two"], nodata)
    wrong = np.random.default_rng(1).random(truth.shape) < 0.05
    first = np.where((truth == 1) ^ wrong, 0.8, 0.2)
    probabilities = np.stack([first, 1 - first]).astype(np.float32)
    make_prediction(folder / "cotrain.zarr", probabilities, ["one", "two"], nodata)
    return truth, nodata


def give_wrong_labels(folder: Path, truth: np.ndarray) -> np.ndarray:
    """Give three pixels the other class, so that only certainty can keep it; the labels (y, x)."""
    given = np.zeros(truth.shape, np.uint8)
    for place in ((10, 3), (15, 8), (12, 20)):
        given[place] = 3 - truth[place]
    store = open_store(folder / "pseudo.zarr")
    probabilities, nodata = read_array(store, "probabilities"), read_array(store, "nodata")
    write_prediction(
        folder / "pseudo.zarr", probabilities, nodata, step="test", settings={}, inputs=[],
        class_names=["one", "two"], grid=UNKNOWN, given=given,
    )  # fmt: skip
    return given


def run_warmup(folder: Path, **changed) -> None:
    warmup(
        features=folder / "features.zarr",
        pseudo=folder / "pseudo.zarr",
        seed=0,
        classifier=CLASSIFIER,
        training=TRAINING | changed,
        checkpoint=folder / ".warmup.safetensors",
        out=folder / "warmup.zarr",
        state=folder / "warmup.safetensors",
        epochs=folder / "warmup.csv",
    )


def run_refine(folder: Path, **changed) -> None:
    refine(
        features=folder / "features.zarr",
        pseudo=folder / "pseudo.zarr",
        warmup=folder / "warmup.safetensors",
        seed=0,
        classifier=CLASSIFIER,
        training=TRAINING | changed,
        refinement=REFINEMENT,
        checkpoint=folder / ".refine.safetensors",
        out=folder / "final.zarr",
        state=folder / "final.safetensors",
        epochs=folder / "refine.csv",
    )


def run_network(folder: Path, **changed) -> None:
    network(
        features=folder / "features.zarr",
        pseudo=folder / "pseudo.zarr",
        cotrain=folder / "cotrain.zarr",
        seed=0,
        classifier=CLASSIFIER,
        training=NETWORK | changed,
        checkpoint=folder / ".network.safetensors",
        out=folder / "network.zarr",
        state=folder / "network.safetensors",
        epochs=folder / "network.csv",
    )
