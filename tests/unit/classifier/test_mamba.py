"""The Mamba block against a plain float64 block."""

import copy
import sys
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from comparing import relative_error

from special_steps import kernels
from special_steps.classifier import mamba
from special_steps.classifier.mamba import Mamba
from special_steps.kernels import build


@pytest.fixture(autouse=True)
def one_thread():
    """On tensors this small threads gain nothing, and wait for each other long on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


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


compiled = pytest.mark.skipif(not mamba.compiled_kernels(), reason="needs a C++ compiler")

# the last ones are cut into segments, by tokens or by sequences, and recomputed in the backward pass
CASES = [(16, 1, 70, 2**18), (4, 50, 4, 2**18), (5, 9, 4, 2**18), (24, 2, 37, 2**18)]
CASES += [(16, 1, 70, 10 * 16), (8, 3, 40, 300), (4, 50, 4, 112), (6, 1, 5, 12)]


@pytest.mark.parametrize(("width", "sequences", "length", "segment"), CASES)
@pytest.mark.parametrize(
    ("kernels", "dtype", "threads"),
    [
        pytest.param(True, torch.float32, 1, marks=compiled),
        pytest.param(True, torch.float32, 3, marks=compiled),
        (False, torch.float32, 1),
        (False, torch.float64, 1),
    ],
)
def test_block_equals_float64_oracle(
    monkeypatch, width, sequences, length, segment, kernels, dtype, threads
):
    """By compiled kernels and by plain torch: output, gradients, and output where no gradients are wanted."""
    torch.set_num_threads(threads)
    if segment < 2**18:
        monkeypatch.setattr(mamba, "SEGMENT_VALUES", segment)
    if not kernels:
        monkeypatch.setattr(mamba, "compiled_kernels", lambda: None)
    block = Mamba(width)
    double = copy.deepcopy(block).double()
    block = block.to(dtype)
    tokens = torch.randn(sequences, length, width, dtype=dtype, requires_grad=True)
    tokens64 = tokens.detach().double().requires_grad_()
    found, wanted = block(tokens), oracle(double, tokens64)
    assert (found.grad_fn.name() == "_KernelBlockBackward") == kernels
    tolerance = 1e-5 if dtype == torch.float32 else 1e-11
    assert relative_error(found, wanted) < tolerance
    g = torch.randn_like(wanted)
    found.backward(g.to(dtype))
    wanted.backward(g)
    assert relative_error(tokens.grad, tokens64.grad) < tolerance
    for (name, p), q in zip(block.named_parameters(), double.parameters(), strict=True):
        assert relative_error(p.grad, q.grad) < tolerance, name
    with torch.inference_mode():
        assert relative_error(block(tokens), wanted) < tolerance


@compiled
@pytest.mark.parametrize("shape", [(1, 1000, 16), (300, 4, 4)])
def test_results_depend_on_the_threads_only(shape):
    torch.set_num_threads(2)
    block, tokens = Mamba(shape[2]), torch.randn(shape, requires_grad=True)

    def once():
        out = block(tokens)
        return [out, *torch.autograd.grad(out.square().sum(), [tokens, *block.parameters()])]

    first = once()
    for again in (once(), once()):
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_without_a_compiler_torch_does_the_work(monkeypatch):
    monkeypatch.setattr(mamba, "compiled_kernels", mamba.compiled_kernels.__wrapped__)
    monkeypatch.setattr(build, "available", lambda *names: False)
    block, tokens = Mamba(8), torch.randn(2, 20, 8)
    assert relative_error(block(tokens), oracle(block.double(), tokens.double())) < 1e-5


def test_without_triton_and_mamba_ssm_one_line_says_why(monkeypatch, caplog):
    for name in ("triton_kernels", "mamba_ssm_inner"):
        monkeypatch.setattr(mamba, name, cache(getattr(mamba, name).__wrapped__))
    monkeypatch.setitem(sys.modules, "triton", None)
    for name in ("scan_triton", "conv_triton"):  # another test may have imported them
        monkeypatch.delitem(sys.modules, f"special_steps.kernels.{name}", raising=False)
        monkeypatch.delattr(kernels, name, raising=False)
    monkeypatch.setitem(sys.modules, "causal_conv1d", None)
    assert mamba._kernels(torch.device("cuda"))[0] is None
    assert mamba.mamba_ssm_inner() is mamba.mamba_ssm_inner() is None
    (line,) = caplog.messages
    assert "triton" in line and "causal_conv1d" in line and "\n" not in line


def test_call_of_mamba_ssm_has_its_arguments_in_place():
    """mamba-ssm needs CUDA to be imported; a stand-in with its signature gets what it would get."""
    block = Mamba(16).double()
    tokens = torch.randn(2, 9, 16, dtype=torch.float64)
    assert relative_error(block._forward_fused(tokens, oracle_inner), oracle(block, tokens)) < 1e-8
