"""The compiled scan and convolution against plain loops in float64."""

import ctypes
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from special_steps.kernels import scan
from special_steps.kernels.scan import causal_conv, parallel_scan, selective_scan

NAMES = ["u", "delta", "A", "B", "C", "D", "z", "delta_bias", "state"]
SHAPES = [  # sequences, tokens, channels, states
    (1, 300, 32, 16),  # one long sequence, last chunk not full
    (3, 16, 40, 16),  # exactly one chunk; channels in blocks of different width
    (1, 33, 70, 7),
    (2, 70, 10, 5),
    (1, 1, 1, 1),
    (1, 50, 1, 2),  # fewer channels than threads
    (37, 4, 8, 16),  # the spectral branch: lanes are sequences
    (301, 4, 8, 16),  # more than one tile of sequences
    (100, 19, 3, 16),  # lanes are sequences, two chunks
]


compiled = pytest.mark.skipif(scan.kernels() is None, reason="needs a C++ compiler")


@pytest.fixture(autouse=True)
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    torch.manual_seed(0)  # some gradients nearly cancel a sum, and its relative error is large then
    yield
    torch.set_num_threads(before)


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
    both = normal(
        sequences, tokens, 3 * states
    )  # B and C are slices of one tensor, as in the block
    return [
        F.silu(normal(sequences, tokens, channels)),
        0.3 * normal(sequences, tokens, channels),
        -rates * torch.exp(0.1 * normal(channels, states)),
        both[..., states - 1 : 2 * states - 1],
        both[..., 2 * states :],
        1 + 0.1 * normal(channels),
        normal(sequences, tokens, 2 * channels)[..., channels:],
        torch.log(torch.expm1(step)),
        normal(sequences, channels, states),
    ]


def error(found, wanted):
    return ((found - wanted).abs().max() / wanted.abs().max().clamp(min=1e-30)).item()


def compare(function, values, dtype, tolerance, with_state=True):
    double = [v.double().requires_grad_() for v in values]
    single = [v.to(dtype).requires_grad_() for v in values]
    out64, state64 = oracle(*double)
    if not with_state:
        out64, state64 = oracle(*double[:8], torch.zeros_like(double[8]))
    out, state = function(*(single if with_state else single[:8]))
    g_out, g_state = torch.randn_like(out64), torch.randn_like(state64)
    loss64, loss = (out64 * g_out).sum(), (out * g_out.to(dtype)).sum()
    used = 9 if with_state else 8
    if with_state:
        loss64, loss = loss64 + (state64 * g_state).sum(), loss + (state * g_state.to(dtype)).sum()
        assert error(state, state64) < tolerance
    else:
        assert state is None
    assert error(out, out64) < tolerance
    wanted = torch.autograd.grad(loss64, double[:used])
    found = torch.autograd.grad(loss, single[:used])
    for name, f, w in zip(NAMES, found, wanted, strict=False):
        assert f.shape == w.shape
        assert error(f, w) < tolerance, name


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("with_state", [True, False])
def test_scan_and_its_gradients_equal_the_oracle(shape, with_state):
    compare(selective_scan, inputs(*shape), torch.float32, 3e-6, with_state)


@pytest.mark.parametrize("shape", SHAPES[:7])
def test_plain_torch_scan_equals_the_oracle(shape):
    compare(parallel_scan, inputs(*shape), torch.float64, 1e-11)


def test_long_sequence_keeps_its_precision():
    compare(selective_scan, inputs(1, 20000, 4, 8), torch.float32, 1e-5)


@pytest.mark.parametrize("threads", [1, 3, 4])
def test_threads_that_take_turns_equal_the_oracle(threads):
    torch.set_num_threads(threads)  # two sequences of three spans each, the last ones not full
    compare(selective_scan, inputs(2, 1200, 40, 5), torch.float32, 5e-6)


def test_large_and_tiny_steps():
    values = inputs(1, 40, 8, 4)
    values[1] = torch.linspace(-60, 60, 320).reshape(1, 40, 8)
    compare(selective_scan, values, torch.float32, 3e-6)


def test_results_depend_on_the_threads_only():
    values = [v.requires_grad_() for v in inputs(1, 1000, 32, 16)]

    def once():
        out, state = selective_scan(*values)
        return [out, *torch.autograd.grad(out.square().sum() + state.sum(), values)]

    first = once()
    for again in (once(), once()):
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_segments_with_state_equal_one_call():
    values = inputs(1, 100, 6, 4)
    whole, last = selective_scan(*values)
    per_token = [0, 1, 3, 4, 6]
    state, parts = values[8], []
    for begin, end in ((0, 37), (37, 38), (38, 100)):
        part = [v[:, begin:end] if i in per_token else v for i, v in enumerate(values[:8])]
        out, state = selective_scan(*part, state)
        parts.append(out)
    assert error(torch.cat(parts, 1), whole) < 1e-6
    assert error(state, last) < 1e-6


def test_nan_is_not_hidden():
    values = inputs(1, 40, 8, 4)
    values[1][0, 20, 3] = math.nan
    out, _ = selective_scan(*values)
    assert out[0, 20:, 3].isnan().all()
    assert not out[0, :20].isnan().any()


def by_kernel(name, x, *rest):
    values = np.zeros(-(-x.size // 16) * 16, np.float32)  # whole vectors
    values[: x.size] = x
    pointer, size = ctypes.c_void_p(values.ctypes.data), ctypes.c_int64(values.size)
    getattr(scan.kernels(), name)(pointer, size, *rest)
    return values[: x.size]


def exp2(x):
    return by_kernel("exponentials", x, ctypes.c_int64(1), ctypes.c_float(0), ctypes.c_int64(1))


def log1p(x):
    return by_kernel("logarithms", x)


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
    assert np.abs(log1p(w) / np.log1p(w.astype(np.float64)) - 1).max() < 3e-7


@pytest.mark.parametrize(
    "shape",
    [(1, 300, 32, 4), (37, 4, 8, 4), (2, 70, 10, 3), (1, 1, 1, 4), (3, 2, 1500, 2), (2, 5, 6, 1)],
)
@pytest.mark.parametrize("with_before", [True, False])
def test_convolution_and_its_gradients(shape, with_before):
    sequences, tokens, channels, taps = shape
    torch.manual_seed(0)
    shapes = [(sequences, tokens, channels), (channels, taps), (channels,)]
    if with_before:
        shapes.append((sequences, taps - 1, channels))
    values = [torch.randn(s).requires_grad_() for s in shapes]
    x, weight, bias, *before = [v.detach().double().requires_grad_() for v in values]
    start = before[0] if before else x.new_zeros(sequences, taps - 1, channels)
    padded = torch.cat([start, x], 1)
    taken = [padded[:, k : k + tokens] * weight[:, k] for k in range(taps)]
    wanted = F.silu(bias + sum(taken))
    found = causal_conv(*values)
    assert error(found, wanted) < 1e-6
    g = torch.randn_like(wanted)
    want = torch.autograd.grad(wanted, [x, weight, bias, *before], g, allow_unused=True)
    have = torch.autograd.grad(found, values, g.float())
    for h, w in zip(have, want, strict=True):
        if h.numel():
            assert error(h, w) < 3e-6
    assert error(causal_conv(*[v.double() for v in values]), wanted) < 1e-12


def test_without_a_compiler_torch_does_the_work(monkeypatch):
    monkeypatch.setattr(scan, "kernels", lambda: None)
    compare(selective_scan, inputs(2, 20, 6, 4), torch.float32, 1e-5)


@compiled
@pytest.mark.parametrize("sizes", [(300, 7, 33), (5, 33, 8), (1, 1, 1), (129, 16, 64), (64, 3, 2)])
def test_tall_products(sizes):
    rows, inner, columns = sizes
    x = torch.randn(1, rows, inner + 2)[..., 1:-1]
    weight, y = torch.randn(inner, columns), torch.randn(rows, 1, columns)
    wanted = x.double() @ weight.double()
    assert error(scan.multiply(x, weight), wanted) < 1e-6
    into = torch.ones(1, rows, columns + 1)
    scan.multiply(x, weight, into[..., 1:], add=True)
    assert error(into[..., 1:], wanted + 1) < 1e-6
    assert (into[..., 0] == 1).all()
    assert error(scan.outer(x, y), x[0].double().t() @ y[:, 0].double()) < 1e-6
