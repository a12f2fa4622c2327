"""The Mamba block against a plain float64 block, and the MambaHSI network as a whole."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from special_steps.classifier import mambahsi
from special_steps.classifier.mambahsi import Mamba, MambaHSI, predict
from special_steps.core.errors import UserError


@pytest.fixture(autouse=True)
def one_thread():
    """On tensors this small threads gain nothing, and wait for each other long on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


def error(found, wanted):
    return ((found - wanted).abs().max() / wanted.abs().max()).item()


def oracle_inner(
    xz, conv_w, conv_b, x_w, dt_w, out_w, out_b, A, B, C, D, delta_bias, delta_softplus
):
    """The inner block as in the paper, a loop over tokens, with mamba-ssm's arguments."""
    assert out_b is None and B is None and C is None and delta_softplus
    x, z = xz.transpose(1, 2).chunk(2, -1)
    channels, taps, states = conv_w.shape[0], conv_w.shape[2], A.shape[1]
    padded = F.pad(x.transpose(1, 2), (taps - 1, 0))
    x = F.silu(F.conv1d(padded, conv_w, conv_b, groups=channels)).transpose(1, 2)
    dt, B, C = (x @ x_w.t()).split([dt_w.shape[1], states, states], -1)
    s = F.softplus(dt @ dt_w.t() + delta_bias)
    h, rows = x.new_zeros(x.shape[0], channels, states), []
    for t in range(x.shape[1]):
        h = torch.exp(s[:, t, :, None] * A) * h
        h = h + (s[:, t] * x[:, t])[:, :, None] * B[:, t, None]
        rows.append((h * C[:, t, None]).sum(-1) + D * x[:, t])
    return (torch.stack(rows, 1) * F.silu(z)) @ out_w.t()


def oracle(block, tokens):
    return oracle_inner(
        (tokens @ block.in_proj.weight.t()).transpose(1, 2),
        block.conv1d.weight,
        block.conv1d.bias,
        block.x_proj.weight,
        block.dt_proj.weight,
        block.out_proj.weight,
        None,
        -torch.exp(block.A_log),
        None,
        None,
        block.D,
        delta_bias=block.dt_proj.bias,
        delta_softplus=True,
    )


def test_parameters_are_those_of_mamba_ssm():
    shapes = {name: tuple(p.shape) for name, p in Mamba(32, d_state=16).named_parameters()}
    assert shapes == {
        "A_log": (64, 16),
        "D": (64,),
        "in_proj.weight": (128, 32),
        "conv1d.weight": (64, 1, 4),
        "conv1d.bias": (64,),
        "x_proj.weight": (2 + 32, 64),
        "dt_proj.weight": (64, 2),
        "dt_proj.bias": (64,),
        "out_proj.weight": (32, 64),
    }


def test_initialisation():
    block = Mamba(512)
    step = F.softplus(block.dt_proj.bias)
    assert 0.00099 < step.min() < 0.002 and 0.08 < step.max() < 0.1001
    assert torch.allclose(torch.exp(block.A_log[7]), torch.arange(1.0, 17.0))
    assert (block.D == 1).all()
    assert block.dt_proj.weight.abs().max() <= 32**-0.5


# the last ones are cut into segments, by tokens or by sequences, and recomputed in the backward pass
CASES = [(16, 1, 70, 2**18), (4, 50, 4, 2**18), (5, 9, 4, 2**18), (24, 2, 37, 2**18)]
CASES += [(16, 1, 70, 10 * 16), (8, 3, 40, 300), (4, 50, 4, 112), (6, 1, 5, 12)]


@pytest.mark.parametrize(("width", "sequences", "length", "segment"), CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_block_equals_float64_oracle(monkeypatch, width, sequences, length, segment, dtype):
    if segment < 2**18:
        monkeypatch.setattr(mambahsi, "SEGMENT", segment)
    block = Mamba(width)
    double = copy.deepcopy(block).double()
    block = block.to(dtype)
    tokens = torch.randn(sequences, length, width, dtype=dtype, requires_grad=True)
    tokens64 = tokens.detach().double().requires_grad_()
    found, wanted = block(tokens), oracle(double, tokens64)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-11
    assert error(found, wanted) < tolerance
    g = torch.randn_like(wanted)
    found.backward(g.to(dtype))
    wanted.backward(g)
    assert error(tokens.grad, tokens64.grad) < tolerance
    for (name, p), q in zip(block.named_parameters(), double.parameters(), strict=True):
        assert error(p.grad, q.grad) < tolerance, name
    with torch.inference_mode():
        assert error(block(tokens), wanted) < tolerance


def test_call_of_mamba_ssm_has_its_arguments_in_place():
    """mamba-ssm needs CUDA to be imported; a stand-in with its signature gets what it would get."""
    block = Mamba(16).double()
    tokens = torch.randn(2, 9, 16, dtype=torch.float64)
    assert error(block._forward_fused(tokens, oracle_inner), oracle(block, tokens)) < 1e-8


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
    assert error(a, b) < 1e-5


def test_every_pixel_sees_earlier_pixels_and_its_spectrum():
    model = MambaHSI(6, 3)
    x = torch.rand(1, 6, 16, 16, requires_grad=True)
    (g,) = torch.autograd.grad(model(x)[0, 0, 15, 15], x)
    assert (g.abs().amax((0, 1)) > 0).all()


def train(model, cube, labels, steps):
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(steps):
        optimiser.zero_grad()
        loss = F.cross_entropy(model(cube).flatten(2), labels.flatten(1))
        loss.backward()
        optimiser.step()
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
        monkeypatch.setattr(mambahsi, "SEGMENT", segment)
        models = [copy.deepcopy(start) for _ in range(2)]
        for model in models:
            train(model, cube, labels, 2)
        for (name, a), b in zip(models[0].named_parameters(), models[1].parameters(), strict=True):
            assert torch.equal(a, b), name


def test_it_learns_a_separable_scene():
    torch.set_num_threads(
        1
    )  # threads gain nothing on so small a scene, and wait long on a busy machine
    cube, labels = scene()
    model = MambaHSI(12, 3)
    train(model, cube, labels, 60)
    probabilities = predict(model, cube[0].numpy())
    assert probabilities.shape == (3, 24, 20) and probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(0), 1, atol=1e-5)
    assert (probabilities.argmax(0) == labels[0].numpy()).mean() > 0.95
