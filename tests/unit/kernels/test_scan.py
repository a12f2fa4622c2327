"""The compiled scan and that of plain torch against a loop over tokens in float64."""

import ctypes
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from comparing import relative_error

from special_steps.kernels import build
from special_steps.kernels.scan import ScanInputs, parallel_scan, scan_backward, scan_forward

compiled = pytest.mark.skipif(not build.available("scan"), reason="needs a C++ compiler")

SHAPES = [  # sequences, tokens, channels, states
    (1, 300, 32, 16),  # one long sequence, last tile not full
    (3, 16, 40, 16),  # exactly one tile; channels in blocks of different width
    (1, 33, 70, 7),
    (2, 70, 10, 5),
    (1, 1, 1, 1),
    (1, 50, 1, 2),  # fewer channels than threads
    (37, 4, 8, 16),  # the spectral branch: tiles of several sequences
    (301, 4, 8, 16),  # more than one tile of sequences
    (100, 19, 3, 16),  # several sequences of two tiles
]


def oracle(u, delta, A, B, C, D, z, delta_bias, state):
    s = F.softplus(delta + delta_bias)
    outputs = []
    for s_t, u_t, B_t, C_t in zip(*(x.unbind(1) for x in (s, u, B, C)), strict=True):
        state = torch.exp(s_t[..., None] * A) * state + (s_t * u_t)[..., None] * B_t[:, None]
        outputs.append((state * C_t[:, None]).sum(-1))
    return (torch.stack(outputs, 1) + u * D) * F.silu(z), state


def inputs(sequences, tokens, channels, states, seed=0):
    """Values as in a trained block: step sizes 0.001 to 0.1, decay rates about -1 to -states."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    step = torch.exp(torch.rand(channels, generator=generator) * math.log(100) + math.log(0.001))
    rates = torch.arange(1, states + 1).float().repeat(channels, 1)
    # B, C and z are slices of larger tensors, as in the block
    both = normal(sequences, tokens, 3 * states)
    return ScanInputs(
        u=F.silu(normal(sequences, tokens, channels)),
        delta=0.3 * normal(sequences, tokens, channels),
        A=-rates * torch.exp(0.1 * normal(channels, states)),
        B=both[..., states - 1 : 2 * states - 1],
        C=both[..., 2 * states :],
        D=1 + 0.1 * normal(channels),
        z=normal(sequences, tokens, 2 * channels)[..., channels:],
        delta_bias=torch.log(torch.expm1(step)),
        state=normal(sequences, channels, states),
    )


def by_autograd(scan, values, grad_out, grad_state):
    """Output, last state and gradients for all inputs of a scan of plain torch operations."""
    leaves = [None if v is None else v.detach().requires_grad_() for v in values]
    out, last = scan(*leaves)
    loss = (out * grad_out).sum()
    if values.state is not None:
        loss = loss + (last * grad_state).sum()
    wanted = [v for v in leaves if v is not None]
    return out, last, ScanInputs(*torch.autograd.grad(loss, wanted))


def by_kernel(values, grad_out, grad_state):
    """The same by the kernel, whose rows are slices of wider tensors, as in the block."""
    sequences, tokens, channels = values.u.shape
    out, last, saved = scan_forward(values, training=True)
    alone, last_alone, _ = scan_forward(values, training=False)
    assert torch.equal(out, alone)
    assert last is last_alone is None or torch.equal(last, last_alone)
    sizes = dict.fromkeys(("du", "ddelta", "dz", "out"), channels)
    sizes |= dict.fromkeys(("dB", "dC"), values.A.shape[1])
    wide = {k: torch.full((sequences, tokens, n + 3), 7.0) for k, n in sizes.items()}
    into = {k: v[..., 1:-2] for k, v in wide.items()}
    dA, dD, dbias, dstate = scan_backward(values, saved, grad_out, grad_state, into)
    for name, tensor in wide.items():
        assert (tensor[..., [0, -2, -1]] == 7).all(), f"written beside {name}"
    assert relative_error(into["out"], out) < 1e-6
    du, ddelta, dz, _, dB, dC = into.values()
    return out, last, ScanInputs(du, ddelta, dA, dB, dC, dD, dz, dbias, dstate)


def by_torch(values, grad_out, grad_state):
    return by_autograd(parallel_scan, values, grad_out, grad_state)


def compare(run, values, tolerance, dtype=torch.float32, with_state=True):
    """A scan and its gradients against the oracle's."""
    values = ScanInputs(*(v.to(dtype) for v in values))
    if not with_state:
        values = values._replace(state=torch.zeros_like(values.state))
    double = ScanInputs(*(v.double() for v in values))
    grad_out = torch.randn_like(double.u)
    grad_state = torch.randn_like(double.state) * with_state
    wanted_out, wanted_last, wanted = by_autograd(oracle, double, grad_out, grad_state)
    if not with_state:
        values = values._replace(state=None)
    out, last, found = run(values, grad_out.to(dtype), grad_state.to(dtype) if with_state else None)
    assert relative_error(out, wanted_out) < tolerance
    if with_state:
        assert relative_error(last, wanted_last) < tolerance
    else:
        assert last is None and found.state is None
    for name, f, w in zip(ScanInputs._fields, found, wanted, strict=True):
        if f is not None:
            assert f.shape == w.shape
            assert relative_error(f, w) < tolerance, name


@compiled
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("with_state", [True, False])
def test_kernel_and_its_gradients_equal_the_oracle(shape, with_state):
    compare(by_kernel, inputs(*shape), 3e-6, with_state=with_state)


@pytest.mark.parametrize("shape", SHAPES[:7])
@pytest.mark.parametrize("with_state", [True, False])
def test_plain_torch_and_its_gradients_equal_the_oracle(shape, with_state):
    compare(by_torch, inputs(*shape), 1e-11, torch.float64, with_state)
    compare(by_torch, inputs(*shape), 1e-5, torch.float32, with_state)


@compiled
def test_long_sequence_keeps_its_precision():
    compare(by_kernel, inputs(1, 20000, 4, 8), 1e-5)


@compiled
@pytest.mark.parametrize("threads", [1, 3, 4])
def test_threads_of_a_pipeline_equal_the_oracle(threads):
    torch.set_num_threads(threads)  # two sequences of three spans each, the last ones not full
    compare(by_kernel, inputs(2, 1200, 40, 5), 5e-6)


@compiled
def test_large_and_tiny_steps():
    values = inputs(1, 40, 8, 4)
    values = values._replace(delta=torch.linspace(-60, 60, 320).reshape(1, 40, 8))
    compare(by_kernel, values, 3e-6)


@compiled
def test_results_depend_on_the_threads_only():
    values = inputs(1, 1000, 32, 16)
    grad_out, grad_state = torch.randn_like(values.u), torch.randn_like(values.state)

    def once():
        out, last, gradients = by_kernel(values, grad_out, grad_state)
        return [out, last, *gradients]

    first = once()
    for again in (once(), once()):
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@compiled
def test_segments_with_state_equal_one_call():
    values = inputs(1, 100, 6, 4)
    whole, last, _ = scan_forward(values, training=False)
    state, parts = values.state, []
    for begin, end in ((0, 37), (37, 38), (38, 100)):
        part = {k: getattr(values, k)[:, begin:end] for k in ("u", "delta", "B", "C", "z")}
        out, state, _ = scan_forward(values._replace(state=state, **part), training=False)
        parts.append(out)
    assert relative_error(torch.cat(parts, 1), whole) < 1e-6
    assert relative_error(state, last) < 1e-6


@compiled
def test_nan_is_not_hidden():
    values = inputs(1, 40, 8, 4)
    values.delta[0, 20, 3] = math.nan
    out, _, _ = scan_forward(values, training=False)
    assert out[0, 20:, 3].isnan().all()
    assert not out[0, :20].isnan().any()


def function(name, x, *rest):
    """One of the functions inside the kernel."""
    values = np.zeros(-(-x.size // 16) * 16, np.float32)  # whole vectors
    values[: x.size] = x
    pointer, size = ctypes.c_void_p(values.ctypes.data), ctypes.c_int64(values.size)
    getattr(build.library("scan"), name)(pointer, size, *rest)
    return values[: x.size]


def exp2(x):
    return function("exponentials", x, ctypes.c_int64(1), ctypes.c_float(0), ctypes.c_int64(1))


@compiled
def test_exponential_and_logarithm():
    x = np.concatenate([np.linspace(-125.9, 0, 20001), np.linspace(0, 126, 101)]).astype(np.float32)
    exact = np.exp2(x.astype(np.float64))
    assert np.abs(exp2(x) / exact - 1).max() < 1.5e-7
    zero, tiny, nan = exp2(np.array([0, -1e30, math.nan], np.float32))
    assert zero == 1
    assert tiny < 1e-37
    assert math.isnan(nan)
    w = np.linspace(0, 1, 10001, dtype=np.float32)[1:]
    assert np.abs(function("logarithms", w) / np.log1p(w.astype(np.float64)) - 1).max() < 3e-7
