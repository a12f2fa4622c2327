"""The network of the agreement method: its pixels, its losses, and the step."""

import numpy as np
import pandas as pd
import pytest
import torch
from small_training import give_wrong_labels, make_noisy_scene, run_network
from stores import make_prediction, one_hot

from special_steps.classifier.mambahsi import MambaHSI
from special_steps.classifier.sampling import class_balanced_sampler, random_pixels
from special_steps.core.errors import UserError
from special_steps.core.prediction import given_labels
from special_steps.core.store import class_names, open_store
from special_steps.network import agreement_losses


def test_the_losses_are_cross_entropies_of_the_drawn_pixels():
    """Rows and columns of a tile: what is drawn is within it, and so are the soft labels."""
    rng = np.random.default_rng(0)
    agreed = rng.integers(0, 4, (9, 12)).astype(np.uint8)
    soft = rng.dirichlet(np.ones(3), (9, 12)).transpose(2, 0, 1).astype(np.float32)
    valid = rng.random((9, 12)) < 0.8
    tile = (slice(2, 8), slice(3, 12))
    logits = torch.from_numpy(rng.normal(size=(6 * 9, 3)))
    hard = class_balanced_sampler(agreed, np.ones(agreed.shape, np.float32), 50)
    anywhere = random_pixels(valid, 70)
    losses = agreement_losses(hard, anywhere, lambda t: soft[:, *t], np.random.default_rng(5))
    found = losses(logits, tile)
    assert {name: weight for name, (weight, _) in found.items()} == {"agreed": 1.0, "soft": 1.0}

    again = np.random.default_rng(5)
    pixels, classes = hard(again, tile)
    log = logits.log_softmax(1)
    assert found["agreed"][1].item() == pytest.approx(-log[pixels, classes].mean().item())
    assert (agreed[tile].ravel()[pixels] == classes + 1).all()
    pixels = anywhere(again, tile)
    wanted = soft[:, *tile].reshape(3, -1).T[pixels]
    assert found["soft"][1].item() == pytest.approx(-(log[pixels].numpy() * wanted).sum(1).mean())
    assert valid[tile].ravel()[pixels].all()


@pytest.fixture
def scene(tmp_path):
    return tmp_path, *make_noisy_scene(tmp_path)


def test_it_learns_from_noisy_labels(scene):
    folder, truth, nodata = scene
    run_network(folder)
    store = open_store(folder / "network.zarr")
    labels = store["labels"][:]
    assert (labels[nodata] == 0).all()
    assert (labels == truth)[~nodata].mean() > 0.95
    assert class_names(store) == ["one", "two"]
    rows = pd.read_csv(folder / "network.csv")
    assert rows["epoch"].tolist() == [1, 2]
    assert {"loss_agreed", "loss_soft", "agreed_pixels"} <= set(rows)
    agreed = (open_store(folder / "pseudo.zarr")["labels"][:]
              == open_store(folder / "cotrain.zarr")["labels"][:]) & ~nodata  # fmt: skip
    assert rows["agreed_pixels"].tolist() == [agreed.sum()] * 2
    assert not list(folder.glob(".*")), "checkpoints and temporary files are gone"


def test_it_learns_on_tiles_and_reads_soft_labels_of_tiles_only(scene, monkeypatch):
    folder, truth, nodata = scene
    largest = []
    forward = MambaHSI.forward

    def watched(self, cube):
        largest.append(max(cube.shape[2:]))
        return forward(self, cube)

    monkeypatch.setattr(MambaHSI, "forward", watched)
    run_network(folder, tile=16)
    assert max(largest) == 16
    labels = open_store(folder / "network.zarr")["labels"][:]
    assert (labels[nodata] == 0).all()
    assert (labels == truth)[~nodata].mean() > 0.9


def test_a_class_without_pixels_is_reported(scene, caplog):
    folder, truth, nodata = scene
    for name in ("pseudo", "cotrain"):
        make_prediction(folder / f"{name}.zarr", one_hot(truth, 3), ["one", "two", "snow"], nodata)
    run_network(folder, epochs=1, iterations=1)
    assert "'snow' has no pixel to learn from" in caplog.text


def test_the_same_seed_gives_the_same_map(scene):
    folder, _, _ = scene
    maps = []
    for _ in range(2):
        run_network(folder)
        maps.append(open_store(folder / "network.zarr")["probabilities"][:])
    np.testing.assert_array_equal(*maps)


def test_stores_of_other_classes_are_refused(scene):
    folder, truth, nodata = scene
    make_prediction(folder / "cotrain.zarr", one_hot(truth, 2), ["one", "three"], nodata)
    with pytest.raises(UserError, match=r"cotrain.zarr.*pseudo.zarr"):
        run_network(folder)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_pixels_of_one_class_only(scene, share):
    """Nothing agrees, or all is of one class: the surest half stands for it."""
    folder, truth, nodata = scene
    flat = np.full((2, *truth.shape), 0.5, np.float32)
    flat[0] += 0.4 * (share - 0.5)
    flat[1] = 1 - flat[0]
    make_prediction(folder / "cotrain.zarr", flat, ["one", "two"], nodata)
    make_prediction(folder / "pseudo.zarr", flat[::-1], ["one", "two"], nodata)
    run_network(folder, iterations=3)
    assert np.isfinite(open_store(folder / "network.zarr")["probabilities"][:]).all()


def test_given_labels_are_never_overruled(scene):
    """By co-training neither, which calls these pixels otherwise."""
    folder, truth, _ = scene
    given = give_wrong_labels(folder, truth)
    run_network(folder)
    store = open_store(folder / "network.zarr")
    assert (store["labels"][:] == given)[given > 0].all()
    assert (store["labels"][:] == truth)[(given == 0) & (store["labels"][:] > 0)].mean() > 0.9
    np.testing.assert_array_equal(given_labels(store), given)
