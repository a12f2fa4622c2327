"""Refinement: its losses, and the step from the warmed-up network on."""

import numpy as np
import pandas as pd
import torch
from small_training import (
    REFINEMENT,
    give_wrong_labels,
    make_noisy_scene,
    run_refine,
    run_warmup,
)

from special_steps.classifier.mambahsi import MambaHSI
from special_steps.core.store import open_store
from special_steps.refine import keep_given, refinement_losses


def test_losses_follow_their_weights():
    logits = torch.randn(30, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    soft = np.full((4, 3), 1 / 3, np.float32)
    sets = {"confident": (np.arange(4), soft), "hard": (np.arange(4, 8), soft)}

    def sampler(_, tile):
        return np.arange(3), np.arange(3)

    def parts(logits=logits, tile=(slice(0, 5), slice(0, 6)), **weights):
        losses = refinement_losses(
            sampler, sets, (5, 6), REFINEMENT | weights, np.random.default_rng(0)
        )
        return losses(logits, tile)

    full = parts()
    assert {name: weight for name, (weight, _) in full.items()} == {
        "random": 1.0,
        "confident": 1.0,
        "hard": 0.1,
    }
    expected = torch.nn.functional.cross_entropy(logits[4:8], torch.from_numpy(soft))
    torch.testing.assert_close(full["hard"][1], expected)
    assert set(parts(hard_weight=0)) == {"random", "confident"}
    assert set(parts(random_weight=0, hard_weight=0)) == {"confident"}
    # rows 0 and 1, columns 2 to 4: of the sets' pixels 0..7 these are 2, 3 and 4
    tile = (slice(0, 2), slice(2, 5))
    few_logits = logits.reshape(5, 6, 3)[tile].reshape(-1, 3)
    few = parts(few_logits, tile)
    torch.testing.assert_close(
        few["confident"][1],
        torch.nn.functional.cross_entropy(logits[2:4], torch.from_numpy(soft[:2])),
    )
    torch.testing.assert_close(
        few["hard"][1],
        torch.nn.functional.cross_entropy(logits[4:5], torch.from_numpy(soft[:1])),
    )
    assert set(parts(few_logits, (slice(2, 4), slice(2, 5)))) == {"random"}


def test_it_learns_from_noisy_labels(tmp_path):
    truth, nodata = make_noisy_scene(tmp_path)
    run_warmup(tmp_path)
    run_refine(tmp_path)
    labels = open_store(tmp_path / "final.zarr")["labels"][:]
    assert (labels[nodata] == 0).all()
    assert (labels == truth)[~nodata].mean() > 0.95
    first, second = pd.read_csv(tmp_path / "warmup.csv"), pd.read_csv(tmp_path / "refine.csv")
    assert [*first["epoch"], *second["epoch"]] == [1, 2, 3, 4]
    assert {"loss_random", "loss_confident", "confident_pixels", "hard_pixels"} <= set(second)
    assert second["agreement"].notna().all(), "the first epoch of refinement follows the warm-up"
    assert not list(tmp_path.glob(".*")), "checkpoints and temporary files are gone"


def test_it_learns_on_tiles(tmp_path, monkeypatch):
    truth, nodata = make_noisy_scene(tmp_path)
    largest = []
    forward = MambaHSI.forward

    def watched(self, cube):
        largest.append(max(cube.shape[2:]))
        return forward(self, cube)

    monkeypatch.setattr(MambaHSI, "forward", watched)
    run_warmup(tmp_path, tile=16)
    run_refine(tmp_path, tile=16)
    assert max(largest) == 16
    labels = open_store(tmp_path / "final.zarr")["labels"][:]
    assert (labels[nodata] == 0).all()
    assert (labels == truth)[~nodata].mean() > 0.9


def test_given_labels_are_never_overruled(tmp_path):
    truth, _ = make_noisy_scene(tmp_path)
    given = give_wrong_labels(tmp_path, truth)
    run_warmup(tmp_path)
    run_refine(tmp_path)
    for name in ("warmup", "final"):
        labels = open_store(tmp_path / f"{name}.zarr")["labels"][:]
        assert (labels == given)[given > 0].all()


def test_soft_labels_of_given_pixels_are_theirs():
    sets = {"hard": (np.array([2, 5]), np.array([[0.6, 0.4], [0.3, 0.7]], np.float32))}
    given = np.array([0, 0, 0, 0, 0, 1], np.uint8)
    pixels, soft = keep_given(sets, given)["hard"]
    assert pixels.tolist() == [2, 5]
    np.testing.assert_array_equal(soft, np.array([[0.6, 0.4], [1, 0]], np.float32))
