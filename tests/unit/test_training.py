from itertools import pairwise

import numpy as np
import pytest
import torch

from special_steps import training
from special_steps.errors import UserError

CLASSIFIER = {"hidden": 8, "tokens": 4}


def small_model(seed=0):
    return training.start(5, 3, CLASSIFIER, seed, torch.device("cpu"))


def one_round(model, optimizer, rng):
    generator = torch.Generator().manual_seed(1)
    scene = torch.rand(1, 5, 9, 14, generator=generator)
    labels = np.arange(9 * 14) % 3

    def losses(logits):
        target = torch.from_numpy(labels)
        return {"random": (1.0, torch.nn.functional.cross_entropy(logits, target))}

    return training.train_round(
        model, optimizer, scene, losses, rates=[1e-3] * 3, noise=0.1, rng=rng, title="test"
    )


def test_learning_rate_is_a_cosine_between_its_limits():
    rates = [training.learning_rate(step, 101, [1e-3, 1e-5]) for step in range(101)]
    assert rates[0] == pytest.approx(1e-3)
    assert rates[50] == pytest.approx((1e-3 + 1e-5) / 2)
    assert rates[100] == pytest.approx(1e-5)
    assert all(a > b for a, b in pairwise(rates))
    assert training.learning_rate(0, 1, [1e-3, 1e-5]) == pytest.approx(1e-3)


def test_draw_is_class_balanced_and_follows_the_margin():
    labels = np.array([1, 1, 1, 3, 0], np.uint8)
    margin = np.array([0.0, 0.3, 0.1, 0.5, 0.9], np.float32)
    pixels, classes = training.class_balanced(labels, margin, 20_000)(np.random.default_rng(0))
    counts = np.bincount(pixels, minlength=5)
    assert len(pixels) == 40_000
    assert counts[4] == 0, "a pixel without data was drawn"
    assert counts[0] == 0
    assert counts[3] == 20_000
    assert counts[1] / counts[2] == pytest.approx(3, rel=0.05)
    np.testing.assert_array_equal(classes, labels[pixels].astype(int) - 1)


def test_draw_without_margins_is_uniform():
    labels, margin = np.ones(4, np.uint8), np.zeros(4, np.float32)
    pixels, _ = training.class_balanced(labels, margin, 8000)(np.random.default_rng(0))
    np.testing.assert_allclose(np.bincount(pixels) / 8000, 0.25, atol=0.02)


def test_augmentation_keeps_pixels_in_their_places():
    """A network that copies its first bands must give each pixel its own values, however turned."""
    scene = torch.arange(2 * 3 * 5, dtype=torch.float32).reshape(1, 2, 3, 5)

    class Copy(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.factor = torch.nn.Parameter(torch.ones(()))

        def forward(self, x):
            return x * self.factor

    model = Copy()
    seen = []

    def losses(logits):
        seen.append(logits.detach().clone())
        return {"random": (1.0, logits.sum() * 0)}

    optimizer = torch.optim.Adam(model.parameters())
    rng = np.random.default_rng(0)
    training.train_round(
        model, optimizer, scene, losses, rates=[0.1] * 30, noise=0, rng=rng, title="test"
    )
    assert all(torch.equal(logits, scene[0].flatten(1).T) for logits in seen)


def test_rounds_are_the_same_for_the_same_generator():
    ends = []
    for _ in range(2):
        model, optimizer = small_model()
        one_round(model, optimizer, np.random.default_rng(3))
        ends.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.equal(*ends)


def test_a_loss_that_is_not_finite_stops_the_training():
    model, optimizer = small_model()
    with pytest.raises(FloatingPointError, match="learning rate"):
        training.train_round(
            model,
            optimizer,
            torch.rand(1, 5, 8, 8),
            lambda logits: {"random": (1.0, logits.sum() * float("nan"))},
            rates=[1e-3],
            noise=0,
            rng=np.random.default_rng(0),
            title="test",
        )


def test_state_goes_on_bit_for_bit(tmp_path):
    model, optimizer = small_model()
    one_round(model, optimizer, np.random.default_rng(1))
    labels, rows = np.ones((9, 14), np.uint8), [{"round": 1, "stage": "warmup"}]
    training.save_state(tmp_path / "s.safetensors", model, optimizer, labels, rows, "mark")
    one_round(model, optimizer, np.random.default_rng(2))

    again, adam = small_model(seed=9)
    found = training.resume(tmp_path / "s.safetensors", "mark", again, adam)
    np.testing.assert_array_equal(found[0], labels)
    assert found[1] == rows
    one_round(again, adam, np.random.default_rng(2))
    for a, b in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_checkpoint_of_another_training_is_not_resumed(tmp_path):
    model, optimizer = small_model()
    path = tmp_path / "s.safetensors"
    assert training.resume(path, "mark", model, optimizer) is None
    training.save_state(path, model, optimizer, np.ones((2, 2), np.uint8), [{"round": 1}], "other")
    assert training.resume(path, "mark", model, optimizer) is None
    path.write_bytes(b"no safetensors")
    assert training.resume(path, "mark", model, optimizer) is None


def test_a_damaged_state_is_named(tmp_path):
    path = tmp_path / "s.safetensors"
    path.write_bytes(b"no safetensors")
    with pytest.raises(UserError, match=r"s\.safetensors"):
        training.load_state(path, *small_model())


def test_fingerprint_depends_on_settings_and_inputs(tmp_path):
    file = tmp_path / "input"
    file.write_text("a")
    marks = {
        training.fingerprint("refine", {"seed": 0}, [file]),
        training.fingerprint("refine", {"seed": 1}, [file]),
    }
    file.write_text("b")
    marks.add(training.fingerprint("refine", {"seed": 0}, [file]))
    assert len(marks) == 3


def test_agreement_counts_pixels_with_data():
    labels = np.array([[1, 2], [0, 1]], np.uint8)
    assert training.agreement(labels, np.array([[1, 1], [3, 1]], np.uint8)) == pytest.approx(2 / 3)
    assert np.isnan(training.agreement(labels, None))
