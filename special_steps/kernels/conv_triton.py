"""The convolution of `conv` by Triton kernels, for CUDA: the same two functions, on float32 tensors there.

A program has some tokens by a block of channels. Values of neighbouring tokens are read several times, all but once
from the cache: the kernels move each tensor once. Sums over tokens are of parts, added up by torch (`scan_triton`).
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from special_steps.kernels.conv import causal_conv
from special_steps.kernels.scan_triton import sigmoid

VALUES = 1024  # tokens x channels of a program
WARPS = 4  # of a program
VARYING = ["tokens", "length"]  # as in `scan_triton`


@triton.jit
def _load(
    x, before, t, place, length, tokens, x_row, channels, c, OFFSET: tl.constexpr, TAPS: tl.constexpr
):  # fmt: skip
    """The tokens OFFSET after those at t; from `before`, or zeros, where the sequence has not begun."""
    at = place + OFFSET
    real = (t < tokens) & (at >= 0) & (at < length)
    channel = (c < channels)[None, :]
    x += (t + OFFSET)[:, None] * x_row
    found = tl.load(x + c[None, :], mask=real[:, None] & channel, other=0.0)
    if before is not None:
        early = (t < tokens) & (at < 0)
        before += ((t // length) * (TAPS - 1) + at + TAPS - 1)[:, None] * channels
        found += tl.load(before + c[None, :], mask=early[:, None] & channel, other=0.0)
    return found


@triton.jit(do_not_specialize=VARYING)
def _forward_kernel(
    x, weight, bias, before, out, tokens, length, channels, x_row,
    TAPS: tl.constexpr, TOKENS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    t = tl.program_id(0).to(tl.int64) * TOKENS + tl.arange(0, TOKENS)
    c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    place = (t % length).to(tl.int32)
    sums = tl.zeros([TOKENS, CHANNELS], tl.float32)
    sums += tl.load(bias + c, mask=c < channels, other=0.0)[None, :]
    for k in tl.static_range(TAPS):
        w = tl.load(weight + k * channels + c, mask=c < channels, other=0.0)
        sums += w[None, :] * _load(
            x, before, t, place, length, tokens, x_row, channels, c, k - TAPS + 1, TAPS
        )
    real = (t < tokens)[:, None] & (c < channels)[None, :]
    tl.store(out + t[:, None] * channels + c[None, :], sums * sigmoid(sums), mask=real)


@triton.jit(do_not_specialize=VARYING)
def _backward_kernel(
    x, weight, bias, before, grad, dx, dweight, dbias, tokens, length, channels, x_row, grad_row, dx_row,
    TAPS: tl.constexpr, TOKENS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    t = tl.program_id(0).to(tl.int64) * TOKENS + tl.arange(0, TOKENS)
    c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    place = (t % length).to(tl.int32)
    shift = tl.load(bias + c, mask=c < channels, other=0.0)[None, :]
    ws, xs, gs = (), (), ()
    for k in tl.static_range(TAPS):
        ws += (tl.load(weight + k * channels + c, mask=c < channels, other=0.0)[None, :],)
        gs += (_load(grad, None, t, place, length, tokens, grad_row, channels, c, k, TAPS),)
    for m in tl.static_range(2 * TAPS - 1):
        xs += (_load(x, before, t, place, length, tokens, x_row, channels, c, m - TAPS + 1, TAPS),)
    part = tl.program_id(0).to(tl.int64) * channels + c
    sums = tl.zeros([TOKENS, CHANNELS], tl.float32)
    for j in tl.static_range(TAPS):  # the token at t is seen by the j-th after it
        before_silu = tl.zeros([TOKENS, CHANNELS], tl.float32) + shift
        for k in tl.static_range(TAPS):
            before_silu += ws[k] * xs[j + k]
        gate = sigmoid(before_silu)
        inner = gs[j] * gate * (1.0 + before_silu * (1.0 - gate))
        sums += inner * ws[TAPS - 1 - j]
        if j == 0:
            tl.store(dbias + part, tl.sum(inner, 0), mask=c < channels)
            for k in tl.static_range(TAPS):
                at = tl.program_id(0).to(tl.int64) * TAPS * channels + k * channels + c
                tl.store(dweight + at, tl.sum(inner * xs[k], 0), mask=c < channels)
    real = (t < tokens)[:, None] & (c < channels)[None, :]
    tl.store(dx + t[:, None] * dx_row + c[None, :], sums, mask=real)


def _cut(x: Tensor, taps: int) -> tuple[tuple[int, int], dict[str, int]]:
    """The grid of programs, and what they are compiled for."""
    width = min(32, triton.next_power_of_2(x.shape[2]))
    many = max(1, VALUES // width)
    grid = triton.cdiv(x.shape[0] * x.shape[1], many), triton.cdiv(x.shape[2], width)
    blocks = {"TAPS": taps, "TOKENS": many, "CHANNELS": width}
    return grid, blocks | {"num_warps": WARPS, "enable_fp_fusion": True}


def conv_forward(x: Tensor, weight: Tensor, bias: Tensor, before: Tensor | None) -> Tensor:
    """As `conv.conv_forward`, on CUDA."""
    sequences, length, channels = x.shape
    grid, blocks = _cut(x, len(weight))
    out = x.new_empty(x.shape)
    with torch.cuda.device_of(x):
        _forward_kernel[grid](
            x, weight, bias, before, out, sequences * length, length, channels, x.stride(1),
            **blocks,
        )  # fmt: skip
    return out


def conv_backward(
    x: Tensor, weight: Tensor, bias: Tensor, before: Tensor | None, grad: Tensor, dx: Tensor
) -> tuple[Tensor, Tensor, Tensor | None]:
    """As `conv.conv_backward`, on CUDA."""
    sequences, length, channels = x.shape
    grid, blocks = _cut(x, len(weight))
    dweight = x.new_empty(grid[0], *weight.shape)
    dbias = x.new_empty(grid[0], channels)
    with torch.cuda.device_of(x):
        _backward_kernel[grid](
            x, weight, bias, before, grad, dx, dweight, dbias,
            sequences * length, length, channels, x.stride(1), grad.stride(1), dx.stride(1),
            **blocks,
        )  # fmt: skip
    dbefore = None if before is None else torch.zeros_like(before)
    seen = len(weight) - 1
    if before is not None and seen:  # only the first tokens have seen it
        with torch.enable_grad():
            leaf = before.detach().requires_grad_()
            first = causal_conv(x[:, :seen], weight.t(), bias, leaf)
        (dbefore,) = torch.autograd.grad(first, leaf, grad[:, :seen])
    return dweight.sum(0), dbias.sum(0), dbefore
