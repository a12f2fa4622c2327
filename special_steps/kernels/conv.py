"""Depthwise causal convolution along tokens, then SiLU: by kernels for the CPU (`conv.cpp`), and by plain torch.

The kernels take token-major float32 tensors (sequence, token, channel) and know no autograd, as those of `scan`.
"""

import ctypes
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from special_steps.kernels import build
from special_steps.kernels.structures import Rows, check_layout, fields, set_tensors


class ConvArguments(ctypes.Structure):
    """`ConvArguments` in conv.cpp."""

    _fields_ = fields(
        "sequences length channels taps threads",
        ("x out grad_out dx", Rows),
        ("weight bias before dbefore dweight dbias", ctypes.c_void_p),
    )


@cache
def _library() -> ctypes.CDLL:
    library = build.library("conv")
    check_layout(library, Rows, ConvArguments)
    return library


def conv_forward(x: Tensor, weight: Tensor, bias: Tensor, before: Tensor | None) -> Tensor:
    """The convolution by the kernel, without autograd.

    Args:
        x: (sequence, token, channel) float32 with dense rows.
        weight: (tap, channel), contiguous; the last tap is the token itself.
        bias: (channel,).
        before: the taps - 1 tokens before the first, (sequence, token, channel), contiguous; None: zeros.

    Returns:
        The output, like `x`.
    """
    call = ConvArguments(*x.shape, weight.shape[0], torch.get_num_threads())
    out = x.new_empty(x.shape)
    set_tensors(call, x=x, out=out, weight=weight, bias=bias, before=before)
    _library().conv_forward(ctypes.byref(call))
    return out


def conv_backward(
    x: Tensor, weight: Tensor, bias: Tensor, before: Tensor | None, grad: Tensor, dx: Tensor
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Gradients of `conv_forward` for weight, bias and before; that for x goes to `dx`, dense rows like `grad`."""
    call = ConvArguments(*x.shape, weight.shape[0], torch.get_num_threads())
    dweight = torch.zeros(call.threads, *weight.shape, dtype=torch.float64)
    dbias = torch.zeros(call.threads, *bias.shape, dtype=torch.float64)
    dbefore = None if before is None else torch.empty_like(before)
    set_tensors(call, x=x, weight=weight, bias=bias, before=before)
    set_tensors(call, grad_out=grad, dx=dx, dbefore=dbefore, dweight=dweight, dbias=dbias)
    _library().conv_backward(ctypes.byref(call))
    return dweight.sum(0).float(), dbias.sum(0).float(), dbefore


def causal_conv(x: Tensor, weight: Tensor, bias: Tensor | None, before: Tensor | None) -> Tensor:
    """The convolution of plain torch operations, for GPUs without Triton and CPUs without a compiler.

    Args:
        x: (sequence, token, channel), any floating dtype, as the others.
        weight: (channel, tap), turned unlike that of `conv_forward`.
        bias: (channel,); None: zeros.
        before: as in `conv_forward`.

    Returns:
        The output, like `x`.
    """
    taps = weight.shape[1]
    x = F.pad(x, (0, 0, taps - 1, 0)) if before is None else torch.cat([before, x], 1)
    y = F.conv1d(x.transpose(1, 2), weight[:, None], bias, groups=x.shape[2])
    return F.silu(y).transpose(1, 2)
