"""Selective scan of a Mamba block: by kernels for the CPU (`scan.cpp`), and by plain torch.

Source: Gu and Dao, "Mamba: Linear-time sequence modeling with selective state spaces", 2023, algorithm 2. With softplus
on the step size and SiLU gate, for every sequence, channel d and state n:

    s = softplus(delta + delta_bias),  h_t = exp(s_t A) h_(t-1) + s_t u_t B_t
    out_t = (sum_n C_t h_t + D u_t) silu(z_t)

The kernels take token-major float32 tensors (sequence, token, channel) and know no autograd: `classifier.mamba` has the
backward pass of the whole block. Results are equal bit for bit as long as `torch.get_num_threads()` is; exponentials
are exact to 1e-7 relative, sums over tokens are taken in float64 from parts.
"""

import ctypes
from functools import cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from special_steps.kernels import build
from special_steps.kernels.structures import Rows, check_layout, fields, set_tensors


class ScanInputs(NamedTuple):
    """What a scan reads."""

    u: Tensor  # input (sequence, token, channel)
    delta: Tensor  # step size before bias and softplus, like u
    A: Tensor  # decay rates (channel, state), negative
    B: Tensor  # input weights (sequence, token, state)
    C: Tensor  # output weights, like B
    D: Tensor  # weight of the input itself (channel,)
    z: Tensor  # gate before SiLU, like u
    delta_bias: Tensor  # added to delta (channel,)
    state: Tensor | None = None  # before the first token (sequence, channel, state); None: zeros


class ScanSaved(NamedTuple):
    """What `scan_backward` needs of `scan_forward`."""

    threads: int
    tile_states: (
        Tensor | None
    )  # the states every few tokens; None where sequences are as short as that


class ScanArguments(ctypes.Structure):
    """`ScanArguments` in scan.cpp."""

    _fields_ = fields(
        "sequences length channels states threads width",
        ("u delta z B C out", Rows),
        ("A D bias initial_state last_state tile_states", ctypes.c_void_p),
        ("grad_out du ddelta dz dB dC", Rows),
        ("grad_last_state dinitial_state dA dD dbias", ctypes.c_void_p),
    )


@cache
def _library() -> ctypes.CDLL:
    library = build.library("scan")
    check_layout(library, Rows, ScanArguments)
    for name in ("lanes", "tile_states_size"):
        getattr(library, name).restype = ctypes.c_int64
    return library


def _arguments(inputs: ScanInputs, threads: int) -> ScanArguments:
    """Sizes, layout and inputs of a scan."""
    sequences, length, channels = inputs.u.shape
    # channels in a vector: no more than there are, and enough such blocks for all threads
    width = _library().lanes()
    while width // 2 >= channels or (
        sequences < threads and width > 1 and -(-channels // width) < threads
    ):
        width //= 2
    call = ScanArguments(sequences, length, channels, inputs.A.shape[1], threads, width)
    tensors = inputs._asdict()
    tensors |= {"bias": tensors.pop("delta_bias"), "initial_state": tensors.pop("state")}
    set_tensors(call, **tensors)
    return call


def scan_forward(inputs: ScanInputs, training: bool) -> tuple[Tensor, Tensor | None, ScanSaved]:
    """Scan by the kernel, without autograd.

    Args:
        inputs: float32; u, delta, B, C, z with dense rows, the others contiguous.
        training: whether the backward pass will come.

    Returns:
        The output like `u`, the last state where one was given, and what `scan_backward` needs.
    """
    u, state = inputs.u, inputs.state
    call = _arguments(inputs, torch.get_num_threads())
    out = u.new_empty(u.shape)
    last = None if state is None else torch.empty_like(state)
    size = _library().tile_states_size(ctypes.byref(call)) if training else 0
    tile_states = u.new_empty(size) if size else None
    set_tensors(call, out=out, last_state=last, tile_states=tile_states)
    _library().scan_forward(ctypes.byref(call))
    return out, last, ScanSaved(call.threads, tile_states)


def scan_backward(
    inputs: ScanInputs,
    saved: ScanSaved,
    grad_out: Tensor,
    grad_last_state: Tensor | None,
    into: dict[str, Tensor],
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Gradients of `scan_forward` for A, D, delta_bias, state; for the others into rows that the caller has.

    Args:
        inputs: of `scan_forward`.
        saved: of `scan_forward`.
        grad_out: gradient for the output, dense rows.
        grad_last_state: gradient for the last state, contiguous; None: zeros.
        into: du, ddelta, dz, dB, dC and, where wanted, out (the output once more); dense rows.
    """
    A, state = inputs.A, inputs.state
    call = _arguments(inputs, saved.threads)
    dA = torch.zeros(saved.threads, *A.shape, dtype=torch.float64)
    dD, dbias = torch.zeros(2, saved.threads, len(A), dtype=torch.float64)
    dstate = None if state is None else torch.empty_like(state)
    set_tensors(call, tile_states=saved.tile_states, grad_out=grad_out, **into)
    set_tensors(call, grad_last_state=grad_last_state, dinitial_state=dstate)
    set_tensors(call, dA=dA, dD=dD, dbias=dbias)
    _library().scan_backward(ctypes.byref(call))
    return dA.sum(0).float(), dD.sum(0).float(), dbias.sum(0).float(), dstate


def parallel_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor,
    delta_bias: Tensor,
    state: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """The scan of plain torch operations, for GPUs without Triton and CPUs without a compiler.

    It takes 2 log2(tokens) steps, all parallel, and holds several (sequence, token, channel, state) tensors for the
    backward pass: call it on segments.

    Args:
        u, delta, A, B, C, D, z, delta_bias, state: as in `ScanInputs`, any floating dtype.

    Returns:
        The output like `u`, and the state after the last token where one was given.
    """
    s = F.softplus(delta + delta_bias)
    decay = torch.exp(s[..., None] * A)
    h = (s * u)[..., None] * B[:, :, None, :]
    if u.shape[1]:  # from zeros too: then all inputs have a gradient
        start = 0.0 if state is None else state[:, None]
        h = torch.cat([h[:, :1] + decay[:, :1] * start, h[:, 1:]], 1)
    h = _recurrence(decay, h)
    y = torch.einsum("bldn,bln->bld", h, C) + u * D
    last = None if state is None else (h[:, -1] if u.shape[1] else state)
    return y * F.silu(z), last


def _recurrence(a: Tensor, b: Tensor) -> Tensor:
    """h_t = a_t h_(t-1) + b_t along dimension 1, with h = 0 before the first.

    Two neighbouring steps are one step with a = a2 a1 and b = a2 b1 + b2: solve that recurrence of half the length
    for every second h, and fill in the others from their neighbours (odd-even reduction; Blelloch, 1990).
    """
    length = b.shape[1]
    if length < 2:
        return b
    pairs = length // 2
    a2, b2 = a[:, 1::2], b[:, 1::2]
    second = _recurrence(a2 * a[:, : 2 * pairs : 2], a2 * b[:, : 2 * pairs : 2] + b2)
    rest = b[:, 2::2] + a[:, 2::2] * second[:, : (length - 1) // 2]
    first = torch.cat([b[:, :1], rest], 1)
    h = torch.stack([first[:, :pairs], second], 2).flatten(1, 2)
    return torch.cat([h, first[:, pairs:]], 1) if length % 2 else h
