"""The compiled convolution and that of plain torch against sums over taps in float64."""

import pytest
import torch
import torch.nn.functional as F
from comparing import relative_error

from special_steps.kernels import build
from special_steps.kernels.conv import causal_conv, conv_backward, conv_forward

SHAPES = [  # sequences, tokens, channels, taps
    (1, 300, 32, 4),
    (37, 4, 8, 4),
    (2, 70, 10, 3),
    (1, 1, 1, 4),
    (3, 2, 1500, 2),
    (2, 5, 6, 1),
]


def by_kernel(x, weight, bias, before, grad):
    """Output and gradients, whose rows are slices of a wider tensor, as in the block."""
    weight = weight.t().contiguous()
    out = conv_forward(x, weight, bias, before)
    wide = torch.full((*x.shape[:2], x.shape[2] + 3), 7.0)
    dx = wide[..., 1:-2]
    dweight, dbias, dbefore = conv_backward(x, weight, bias, before, grad, dx)
    assert (wide[..., [0, -2, -1]] == 7).all()
    return out, [dx, dweight.t(), dbias, dbefore]


def by_torch(x, weight, bias, before, grad):
    values = [x, weight, bias, *([] if before is None else [before])]
    leaves = [v.detach().requires_grad_() for v in values]
    out = causal_conv(*leaves[:3], leaves[3] if before is not None else None)
    return out, torch.autograd.grad(out, leaves, grad, allow_unused=True)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("with_before", [True, False])
@pytest.mark.parametrize(
    ("run", "dtype", "tolerance"),
    [
        (by_kernel, torch.float32, 1e-6),
        (by_torch, torch.float32, 1e-6),
        (by_torch, torch.float64, 1e-12),
    ],
)
def test_convolution_and_its_gradients(shape, with_before, run, dtype, tolerance):
    if run is by_kernel and not build.available("conv"):
        pytest.skip("needs a C++ compiler")
    sequences, tokens, channels, taps = shape
    shapes = [(sequences, tokens, channels), (channels, taps), (channels,)]
    shapes.append((sequences, taps - 1, channels))
    values = [torch.randn(s, dtype=dtype) for s in shapes]
    if not with_before:
        values[3] = torch.zeros_like(values[3])
    x, weight, bias, before = leaves = [v.double().requires_grad_() for v in values]
    padded = torch.cat([before, x], 1)
    taken = [padded[:, k : k + tokens] * weight[:, k] for k in range(taps)]
    wanted = F.silu(bias + sum(taken))
    grad = torch.randn_like(wanted)
    gradients = torch.autograd.grad(wanted, leaves, grad)
    if not with_before:
        values[3] = None
    out, found = run(*values, grad.to(dtype))
    assert relative_error(out, wanted) < tolerance
    for name, f, w in zip(("x", "weight", "bias", "before"), found, gradients, strict=False):
        if f is not None and f.numel():
            assert f.shape == w.shape
            assert relative_error(f, w) < 3 * tolerance, name
