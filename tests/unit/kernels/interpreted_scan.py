"""The scan in Triton against a loop over tokens in float64; run by test_scan_triton.py in Triton's interpreter.

The interpreter takes a millisecond for a token: sizes are small, and so are chunks.
"""

import pytest
import test_scan
import torch
from comparing import relative_error
from test_mamba import oracle
from test_scan import by_kernel, by_torch, compare, inputs

from special_steps.classifier import mamba
from special_steps.classifier.mamba import Mamba, load_triton_kernels
from special_steps.kernels import conv_triton, scan_triton

SHAPES = [  # sequences, tokens, channels, states; chunks have 8 tokens
    (1, 1, 1, 1),
    (2, 3, 8, 2),
    (3, 4, 8, 16),  # the spectral branch
    (5, 5, 2, 3),
    (1, 7, 3, 2),  # chunk - 1
    (1, 8, 1, 4),  # a chunk
    (2, 9, 3, 4),  # chunk + 1
    (1, 30, 3, 2),  # several chunks
    (1, 10, 33, 3),  # two blocks of channels
    (1, 10, 32, 16),  # the spatial branch
]


@pytest.fixture(autouse=True)
def small(monkeypatch):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    monkeypatch.setattr(scan_triton, "SIZES", scan_triton.SIZES._replace(chunk=8, across=2))
    monkeypatch.setattr(conv_triton, "VALUES", 256)
    monkeypatch.setattr(test_scan, "scan_forward", scan_triton.scan_forward)
    monkeypatch.setattr(test_scan, "scan_backward", scan_triton.scan_backward)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("with_state", [True, False])
def test_scan_and_its_gradients_equal_the_oracle(shape, with_state):
    if shape[2] > 8 and with_state != (shape[2] > 32):
        return  # these take seconds
    compare(by_kernel, inputs(*shape), 3e-6, with_state=with_state)


def test_scan_and_its_gradients_equal_plain_torch():
    values = inputs(1, 20, 3, 4)
    grads = torch.randn_like(values.u), torch.randn_like(values.state)
    found = by_kernel(values, *grads)
    double = values._replace(**{k: v.double() for k, v in values._asdict().items()})
    wanted = by_torch(double, *(g.double() for g in grads))
    for f, w in zip((*found[:2], *found[2]), (*wanted[:2], *wanted[2]), strict=True):
        assert relative_error(f, w) < 3e-6


def test_large_and_tiny_steps():
    values = inputs(1, 12, 2, 4)
    values = values._replace(delta=torch.linspace(-60, 60, 24).reshape(1, 12, 2))
    compare(by_kernel, values, 3e-6)
    for step in (100.0, -40.0):  # decay is 0; all but none
        values = values._replace(delta=torch.full_like(values.delta, step))
        compare(by_kernel, values, 3e-6)


def test_results_are_equal_bit_for_bit():
    values = inputs(1, 20, 2, 2)
    grads = torch.randn_like(values.u), torch.randn_like(values.state)
    first, again = by_kernel(values, *grads), by_kernel(values, *grads)
    for f, a in zip((*first[:2], *first[2]), (*again[:2], *again[2]), strict=True):
        assert torch.equal(f, a)


def test_nan_is_not_hidden():
    values = inputs(1, 20, 3, 2)
    values.delta[0, 10, 1] = torch.nan
    out, _, _ = scan_triton.scan_forward(values, training=False)
    assert out[0, 10:, 1].isnan().all()
    assert not out[0, :10].isnan().any() and not out[0, :, 0].isnan().any()


# of one segment, of segments of tokens, of segments of sequences
@pytest.mark.parametrize(
    ("shape", "values"), [((1, 10, 3), 2**20), ((1, 21, 2), 20), ((6, 4, 2), 16)]
)
def test_block_equals_the_oracle(monkeypatch, shape, values):
    kernels = load_triton_kernels()
    monkeypatch.setattr(mamba, "_kernels", lambda device: (kernels, values))
    block, tokens = Mamba(shape[2], d_state=4), torch.randn(shape, requires_grad=True)
    leaves = [tokens, *block.parameters()]
    out = block(tokens)
    grad = torch.randn_like(out)
    found = torch.autograd.grad(out, leaves, grad)
    wanted = oracle(block.double(), tokens.double())
    assert relative_error(out, wanted) < 1e-5
    block.zero_grad()
    (wanted * grad).sum().backward()
    for f, leaf in zip(found[1:], block.parameters(), strict=True):
        assert relative_error(f, leaf.grad) < 1e-5
    assert relative_error(found[0], tokens.grad) < 1e-5
