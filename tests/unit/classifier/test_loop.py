"""The training loop: learning rate, augmentation, an epoch, epoch after epoch."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from small_training import anywhere, one_epoch, small_model, whole

from special_steps.classifier import loop


def test_learning_rate_is_a_cosine_between_its_limits():
    rates = [loop.learning_rate(step, 101, [1e-3, 1e-5]) for step in range(101)]
    assert rates[0] == pytest.approx(1e-3)
    assert rates[50] == pytest.approx((1e-3 + 1e-5) / 2)
    assert rates[100] == pytest.approx(1e-5)
    assert all(a > b for a, b in pairwise(rates))
    assert loop.learning_rate(0, 1, [1e-3, 1e-5]) == pytest.approx(1e-3)


@pytest.mark.parametrize("quarters", range(4))
@pytest.mark.parametrize("flip", [False, True])
def test_rotations_are_rot90s(quarters, flip):
    image = torch.arange(2 * 3 * 5).reshape(1, 2, 3, 5)
    wanted = torch.rot90(image, quarters, (2, 3))
    assert torch.equal(
        loop.rotated_and_flipped(image, quarters, flip), wanted.flip(3) if flip else wanted
    )


def test_noise_is_normal_and_does_not_depend_on_threads():
    like, threads = torch.empty(1, 20, 60, 50), torch.get_num_threads()
    drawn = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            drawn.append(loop.gaussian_noise(like, np.random.default_rng(0)))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*drawn)
    assert drawn[0].shape == like.shape
    assert drawn[0].is_contiguous(memory_format=torch.channels_last)
    assert abs(drawn[0].mean()) < 0.02
    assert abs(drawn[0].std() - 1) < 0.02
    parts = drawn[0].permute(0, 2, 3, 1).flatten().chunk(8)
    assert abs(np.corrcoef(parts[0], parts[1])[0, 1]) < 0.05
    assert not torch.equal(loop.gaussian_noise(like, np.random.default_rng(1)), drawn[0])


def test_augmentation_keeps_pixels_in_their_places():
    """A network that copies its first bands must give each pixel its own values, however rotated."""
    scene = torch.arange(2 * 3 * 5, dtype=torch.float32).reshape(1, 2, 3, 5)

    class Copy(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.factor = torch.nn.Parameter(torch.ones(()))

        def forward(self, x):
            return x * self.factor

    model = Copy()
    found = []

    def losses(logits, _):
        found.append(logits.detach().clone())
        return {"random": (1.0, logits.sum() * 0)}

    optimizer = torch.optim.Adam(model.parameters())
    rng = np.random.default_rng(0)
    loop.train_epoch(
        loop.Setup(model, optimizer, whole(scene), anywhere), losses,
        rates=[0.1] * 30, noise=0, rng=rng, title="test",
    )  # fmt: skip
    assert all(torch.equal(logits, scene[0].flatten(1).T) for logits in found)


def test_epochs_are_the_same_for_the_same_generator():
    ends = []
    for _ in range(2):
        model, optimizer = small_model()
        one_epoch(model, optimizer, np.random.default_rng(3))
        ends.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.equal(*ends)


def test_a_loss_that_is_not_finite_stops_the_training():
    with pytest.raises(FloatingPointError, match="learning rate"):
        loop.train_epoch(
            loop.Setup(*small_model(), whole(torch.rand(1, 5, 8, 8)), anywhere),
            lambda logits, _: {"random": (1.0, logits.sum() * float("nan"))},
            rates=[1e-3],
            noise=0,
            rng=np.random.default_rng(0),
            title="test",
        )


def test_agreement_counts_pixels_with_data():
    labels = np.array([[1, 2], [0, 1]], np.uint8)
    assert loop.agreement(labels, np.array([[1, 1], [3, 1]], np.uint8)) == pytest.approx(2 / 3)
    assert np.isnan(loop.agreement(labels, None))
