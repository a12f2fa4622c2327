"""A stage as a whole: interrupted and resumed, and with no more work than needed."""

import numpy as np
import pytest
from small_training import make_noisy_scene, run_network, run_refine, run_warmup

from special_steps.classifier import loop, stage
from special_steps.core.store import open_store

STAGES = pytest.mark.parametrize(
    ("run", "step", "result"),
    [
        (run_warmup, "warmup", "warmup"),
        (run_refine, "refine", "final"),
        (run_network, "network", "network"),
    ],
    ids=["warmup", "refine", "network"],
)


@pytest.fixture
def folder(tmp_path):
    """The scene, with the warm-up done."""
    make_noisy_scene(tmp_path)
    run_warmup(tmp_path)
    return tmp_path


def counted(monkeypatch, module, name):
    """Calls of a function so far; it works as ever."""
    calls, function = [], getattr(module, name)

    def counting(*arguments, **options):
        calls.append(arguments)
        return function(*arguments, **options)

    monkeypatch.setattr(module, name, counting)
    return calls


def probabilities(folder, result):
    return open_store(folder / f"{result}.zarr")["probabilities"][:]


@STAGES
def test_an_interrupted_stage_ends_like_an_unbroken_one(folder, monkeypatch, run, step, result):
    run(folder)
    unbroken = probabilities(folder, result)
    table = (folder / f"{step}.csv").read_text()

    train_epoch, calls = loop.train_epoch, []

    def broken(*arguments, **options):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return train_epoch(*arguments, **options)

    monkeypatch.setattr(loop, "train_epoch", broken)
    with pytest.raises(KeyboardInterrupt):
        run(folder)
    assert (folder / f".{step}.safetensors").exists()
    run(folder)
    assert len(calls) == 3, "the epoch that was done is not done again"
    np.testing.assert_array_equal(probabilities(folder, result), unbroken)
    assert (folder / f"{step}.csv").read_text() == table


@STAGES
def test_a_stage_that_broke_after_its_last_epoch_only_writes(
    folder, monkeypatch, run, step, result
):
    run(folder)
    unbroken = probabilities(folder, result)

    def broken(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(stage, "write_prediction", broken)
        run(folder)
    epochs = counted(monkeypatch, loop, "train_epoch")
    run(folder)
    assert epochs == []
    np.testing.assert_array_equal(probabilities(folder, result), unbroken)


@STAGES
def test_the_scene_is_predicted_no_more_often_than_needed(folder, monkeypatch, run, step, result):
    """After each of two epochs, and for the refinement's first sets."""
    predictions = counted(monkeypatch, loop, "predict_scene")
    run(folder)
    assert len(predictions) == {"warmup": 2, "refine": 3, "network": 2}[step]


def test_a_checkpoint_of_other_settings_is_left_alone(folder):
    expected = probabilities(folder, "warmup")
    (folder / ".warmup.safetensors").write_bytes((folder / "warmup.safetensors").read_bytes())
    run_warmup(folder, noise=0.2)
    assert (probabilities(folder, "warmup") != expected).any()
