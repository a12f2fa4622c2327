import numpy as np
import pandas as pd
import pytest
from safetensors import safe_open
from stores import make_prediction

from special_steps.classifier import loop as training
from special_steps.core.store import new_store, open_store, write_array
from special_steps.features import principal_components
from special_steps.refine import refine
from special_steps.warmup import warmup

TRAINING = {
    "rounds": 4,
    "warmup_rounds": 2,
    "iterations": 15,
    "samples_per_class": 60,
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


@pytest.fixture
def scene(tmp_path):
    """A scene of two halves, a masked corner, and pseudo-labels of which a fifth is wrong."""
    rng = np.random.default_rng(0)
    truth = np.ones((20, 24), np.uint8)
    truth[:, 12:] = 2
    nodata = np.zeros(truth.shape, bool)
    nodata[:4, :4] = True
    spectra = rng.uniform(0.2, 0.8, (2, 10))
    bands = spectra[truth - 1].transpose(2, 0, 1) + rng.normal(0, 0.03, (10, 20, 24))
    bands = np.where(nodata, 0, bands).astype(np.float32)
    with new_store(tmp_path / "features.zarr", step="test", settings={}, inputs=[]) as group:
        write_array(group, "features", bands, ("band", "y", "x"))
        (scores,) = principal_components(lambda rows: bands[:, rows], nodata, 5)
        write_array(group, "components", scores, ("component", "y", "x"))
        write_array(group, "nodata", nodata, ("y", "x"))
    wrong = rng.random(truth.shape) < 0.2
    best = np.where(wrong, rng.uniform(0.5, 0.65, truth.shape), rng.uniform(0.6, 0.95, truth.shape))
    first = np.where((truth == 1) ^ wrong, best, 1 - best)
    probabilities = np.stack([first, 1 - first]).astype(np.float32)
    make_prediction(tmp_path / "pseudo.zarr", probabilities, ["one", "two"], nodata)
    return tmp_path, truth, nodata


def run_warmup(folder, **changed):
    warmup(
        features=folder / "features.zarr",
        pseudo=folder / "pseudo.zarr",
        seed=0,
        classifier=CLASSIFIER,
        training=TRAINING | changed,
        checkpoint=folder / ".warmup.safetensors",
        out=folder / "warmup.zarr",
        state=folder / "warmup.safetensors",
        rounds=folder / "warmup.csv",
    )


def run_refine(folder, **changed):
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
        rounds=folder / "refine.csv",
    )


def test_both_stages_learn_from_noisy_labels(scene):
    folder, truth, nodata = scene
    run_warmup(folder)
    run_refine(folder)
    for stage in ("warmup", "final"):
        labels = open_store(folder / f"{stage}.zarr")["labels"][:]
        assert (labels[nodata] == 0).all()
        assert (labels == truth)[~nodata].mean() > 0.95, stage
    first, second = pd.read_csv(folder / "warmup.csv"), pd.read_csv(folder / "refine.csv")
    assert [*first["round"], *second["round"]] == [1, 2, 3, 4]
    assert {"loss_random", "loss_confident", "confident_pixels", "hard_pixels"} <= set(second)
    assert second["agreement"].notna().all(), "the first round of refinement follows the warm-up"
    assert not list(folder.glob(".*")), "checkpoints and temporary files are gone"


def test_both_stages_learn_on_tiles(scene, monkeypatch):
    folder, truth, nodata = scene
    largest = []
    forward = training.MambaHSI.forward

    def watched(self, cube):
        largest.append(max(cube.shape[2:]))
        return forward(self, cube)

    monkeypatch.setattr(training.MambaHSI, "forward", watched)
    run_warmup(folder, tile=16)
    run_refine(folder, tile=16)
    assert max(largest) == 16
    labels = open_store(folder / "final.zarr")["labels"][:]
    assert (labels[nodata] == 0).all()
    assert (labels == truth)[~nodata].mean() > 0.9


@pytest.mark.parametrize("stage", ["warmup", "refine"])
def test_an_interrupted_stage_ends_like_an_unbroken_one(scene, monkeypatch, stage):
    folder, _, _ = scene
    run_warmup(folder)
    again = run_warmup if stage == "warmup" else run_refine
    again(folder)
    name = "warmup" if stage == "warmup" else "final"
    unbroken = open_store(folder / f"{name}.zarr")["probabilities"][:]

    whole = training.train_round
    calls = []

    def broken(*arguments, **options):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return whole(*arguments, **options)

    monkeypatch.setattr(training, "train_round", broken)
    with pytest.raises(KeyboardInterrupt):
        again(folder)
    assert (folder / f".{stage}.safetensors").exists()
    again(folder)
    assert len(calls) == 3, "the round that was done is not done again"
    np.testing.assert_array_equal(open_store(folder / f"{name}.zarr")["probabilities"][:], unbroken)


def test_a_checkpoint_of_other_settings_is_left_alone(scene, monkeypatch):
    folder, _, _ = scene
    run_warmup(folder)
    expected = open_store(folder / "warmup.zarr")["probabilities"][:]
    (folder / ".warmup.safetensors").write_bytes((folder / "warmup.safetensors").read_bytes())
    run_warmup(folder, noise=0.2)
    other = open_store(folder / "warmup.zarr")["probabilities"][:]
    assert (other != expected).any()


def test_the_state_is_safetensors_with_the_optimizer(scene):
    folder, _, _ = scene
    run_warmup(folder)
    with safe_open(folder / "warmup.safetensors", "pt") as file:
        names = set(file.keys())
    assert {"labels"} < names
    assert any(n.startswith("adam.exp_avg.") for n in names)
    assert any(n.startswith("model.") for n in names)
