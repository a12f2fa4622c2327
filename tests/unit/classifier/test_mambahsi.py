"""The MambaHSI network as a whole; `test_mamba` has the block inside."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from comparing import relative_error

from special_steps.classifier import mamba
from special_steps.classifier.mambahsi import MambaHSI, predict
from special_steps.core.errors import UserError


@pytest.fixture(autouse=True)
def one_thread():
    """On tensors this small threads gain nothing, and wait for each other long on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("bands", "classes", "height", "width", "options"),
    [
        (5, 3, 8, 12, {}),
        (5, 3, 9, 13, {}),
        (1, 1, 7, 6, {}),
        (3, 2, 1, 1, {}),
        (3, 2, 1, 9, {}),
        (3, 2, 3, 2, {"hidden": 4, "groups": 4}),
        (4, 2, 8, 8, {"hidden": 18, "groups": 3, "tokens": 4}),
        (4, 2, 8, 8, {"hidden": 4, "groups": 2, "tokens": 8}),
    ],
)
def test_shapes_and_finite_gradients(bands, classes, height, width, options):
    model = MambaHSI(bands, classes, **options)
    scores = model(torch.rand(1, bands, height, width))
    assert scores.shape == (1, classes, height, width)
    F.cross_entropy(scores.flatten(2), torch.zeros(1, height * width, dtype=int)).backward()
    for name, p in model.named_parameters():
        assert p.grad is not None and p.grad.isfinite().all(), name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden": 18}, "4 normalisation groups do not divide 18"),
        ({"hidden": 0}, "hidden is 0"),
        ({"tokens": 0}, "tokens is 0"),
    ],
)
def test_wrong_settings(options, message):
    with pytest.raises(UserError, match=message):
        MambaHSI(5, 3, **options)


def test_resizing_after_the_embedding_is_resizing_the_scene():
    """The network resizes hidden channels where the published one resizes the scene: the same function."""
    model = MambaHSI(7, 3)
    x = torch.rand(1, 7, 9, 14)
    a = F.interpolate(model.embed(x), (12, 16), mode="bilinear")
    b = model.embed(F.interpolate(x, (12, 16), mode="bilinear"))
    assert relative_error(a, b) < 1e-5


def test_every_pixel_sees_earlier_pixels_and_its_spectrum():
    model = MambaHSI(6, 3)
    x = torch.rand(1, 6, 16, 16, requires_grad=True)
    (g,) = torch.autograd.grad(model(x)[0, 0, 15, 15], x)
    assert (g.abs().amax((0, 1)) > 0).all()


def train(model, cube, labels, steps):
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(cube).flatten(2), labels.flatten(1))
        loss.backward()
        optimizer.step()
    return loss.item()


def scene(height=24, width=20, bands=12):
    """Three classes in blocks, with spectra far apart for their noise."""
    rng = np.random.default_rng(0)
    labels = (np.add.outer(np.arange(height) // 6, np.arange(width) // 5) % 3).astype(np.int64)
    spectra = rng.uniform(0.2, 0.8, (3, bands))
    cube = spectra[labels].transpose(2, 0, 1) + rng.normal(0, 0.03, (bands, height, width))
    return torch.tensor(cube[None], dtype=torch.float32), torch.tensor(labels[None])


def test_training_is_deterministic_bit_for_bit(monkeypatch):
    torch.set_num_threads(2)
    cube, labels = scene()
    start = MambaHSI(12, 3)
    for segment in (2**19, 2**11):  # as one segment; recomputed in several
        monkeypatch.setattr(mamba, "SEGMENT_VALUES", segment)
        models = [copy.deepcopy(start) for _ in range(2)]
        for model in models:
            train(model, cube, labels, 2)
        for (name, a), b in zip(models[0].named_parameters(), models[1].parameters(), strict=True):
            assert torch.equal(a, b), name


def test_it_learns_a_separable_scene():
    cube, labels = scene()
    model = MambaHSI(12, 3)
    train(model, cube, labels, 60)
    probabilities = predict(model, cube[0].numpy())
    assert probabilities.shape == (3, 24, 20) and probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(0), 1, atol=1e-5)
    assert (probabilities.argmax(0) == labels[0].numpy()).mean() > 0.95
