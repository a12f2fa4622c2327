"""Products of a tall matrix and a small one, without autograd: by kernels for the CPU (`matmul.cpp`), and by torch."""

import ctypes
from functools import cache

import torch
from torch import Tensor

from special_steps.kernels import build
from special_steps.kernels.structures import check_layout, fields, set_tensors


class ProductArguments(ctypes.Structure):
    """`ProductArguments` in matmul.cpp."""

    _fields_ = fields(
        "rows inner columns threads add",
        ("left", ctypes.c_void_p),
        ("left_stride", ctypes.c_int64),
        ("right", ctypes.c_void_p),
        ("right_stride", ctypes.c_int64),
        ("out", ctypes.c_void_p),
        ("out_stride", ctypes.c_int64),
        ("sums", ctypes.c_void_p),
    )


@cache
def _library() -> ctypes.CDLL:
    library = build.library("matmul")
    check_layout(library, ProductArguments)
    return library


def multiply(x: Tensor, weight: Tensor, out: Tensor | None = None, add: bool = False) -> Tensor:
    """x @ weight for a tall x and a small weight, into `out` or added to it.

    Args:
        x: (sequence, token, value) float32, tokens of all sequences equally far apart, values dense.
        weight: (value of x, value of out) float32.
        out: as `x`; None: a new tensor.
        add: to what is in `out`.
    """
    weight = weight.contiguous()
    if out is None:
        out = x.new_empty(*x.shape[:2], weight.shape[1])
    threads = torch.get_num_threads()
    call = ProductArguments(x.shape[0] * x.shape[1], *weight.shape, threads, add)
    set_tensors(call, left=x, right=weight, out=out)
    call.left_stride, call.out_stride = x.stride(1), out.stride(1)
    _library().multiply(ctypes.byref(call))
    return out


def outer(x: Tensor, y: Tensor) -> Tensor:
    """Sum of the outer products of all tokens (value of x, value of y); tensors as x in `multiply`."""
    if x.shape[2] > y.shape[2]:  # the kernel's vectors are values of y
        return outer(y, x).t()
    threads = torch.get_num_threads()
    call = ProductArguments(x.shape[0] * x.shape[1], x.shape[2], y.shape[2], threads)
    sums = torch.zeros(threads, x.shape[2], y.shape[2], dtype=torch.float64)
    set_tensors(call, left=x, right=y, sums=sums)
    call.left_stride, call.right_stride = x.stride(1), y.stride(1)
    _library().outer(ctypes.byref(call))
    return sums.sum(0).float()


def multiply_by_torch(
    x: Tensor, weight: Tensor, out: Tensor | None = None, add: bool = False
) -> Tensor:
    """As `multiply`, of any device and floating dtype."""
    if out is None:
        return x @ weight
    rows, target = x.view(-1, x.shape[2]), out.view(-1, out.shape[2])
    if add:
        target.addmm_(rows, weight)
    else:
        torch.mm(rows, weight, out=target)
    return out


def outer_by_torch(x: Tensor, y: Tensor) -> Tensor:
    """As `outer`, of any device and floating dtype.

    As many products of shorter matrices, added up: one whose result is as small as this leaves a GPU all but idle.
    """
    x, y = x.view(-1, x.shape[2]), y.view(-1, y.shape[2])
    parts = max(1, min(512, len(x) // 512))
    whole = len(x) // parts * parts
    lefts = x[:whole].view(parts, -1, x.shape[1])
    rights = y[:whole].view(parts, -1, y.shape[1])
    sums = torch.bmm(lefts.transpose(1, 2), rights).sum(0)
    return sums.addmm_(x[whole:].t(), y[whole:])
