"""Selective scan and causal convolution on the CPU: the two loops inside a Mamba block.

Both are autograd functions over token-major float32 tensors (sequence, token, channel), with kernels in `scan.cpp`
that are compiled for this machine. Without a compiler plain torch does the work, much slower. Results are equal bit
for bit as long as `torch.get_num_threads()` is.
"""

import ctypes
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from special_steps.kernels import build as native


@cache
def kernels() -> ctypes.CDLL | None:
    """The compiled kernels, or None: see `native`."""
    library = native.kernels("scan")
    if library is not None:
        for name in ("lanes", "kept_values"):
            getattr(library, name).restype = ctypes.c_int64
        native.keep_memory()
    return library


class _Rows(ctypes.Structure):
    """A tensor (sequence, token, value) with values next to each other: see `Rows` in scan.cpp."""

    _fields_ = [("data", ctypes.c_void_p), ("sequence", ctypes.c_int64), ("token", ctypes.c_int64)]


class _ScanCall(ctypes.Structure):
    """`Scan` in scan.cpp."""

    _fields_ = native.fields(
        "sequences length channels states width threads",
        ("u delta z B C out", _Rows),
        ("A D bias initial last kept", ctypes.c_void_p),
        ("grad_out du ddelta dz dB dC", _Rows),
        ("grad_last dinitial dA dD dbias", ctypes.c_void_p),
    )


class _ConvCall(ctypes.Structure):
    """`Conv` in scan.cpp."""

    _fields_ = native.fields(
        "sequences length channels taps threads",
        ("x out grad_out dx", _Rows),
        ("weight bias before dbefore dweight dbias", ctypes.c_void_p),
    )


class _ProductCall(ctypes.Structure):
    """`Product` in scan.cpp."""

    _fields_ = [
        *native.fields("rows inner columns threads add"),
        *((name, kind) for tensor in ("left", "right", "out")
          for name, kind in ((tensor, ctypes.c_void_p), (f"{tensor}_row", ctypes.c_int64))),
        ("sums", ctypes.c_void_p),
    ]  # fmt: skip


def _set(call: ctypes.Structure, **tensors: Tensor | None) -> None:
    """Point fields at tensors that outlive the call: rows with dense values, others contiguous."""
    kinds = dict(call._fields_)
    for name, tensor in tensors.items():
        if kinds[name] is _Rows:
            setattr(call, name, _Rows(tensor.data_ptr(), tensor.stride(0), tensor.stride(1)))
        elif tensor is not None:
            setattr(call, name, tensor.data_ptr())


def _dense_rows(tensor: Tensor) -> Tensor:
    return tensor if tensor.stride(-1) == 1 or tensor.shape[-1] == 1 else tensor.contiguous()


def _dense(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.contiguous()


def usable(tensor: Tensor) -> bool:
    """Whether the kernels take such a tensor."""
    cpu = tensor.device.type == "cpu" and tensor.dtype == torch.float32
    return cpu and kernels() is not None


def _scan_call(inputs: tuple[Tensor | None, ...], threads: int) -> _ScanCall:
    """Sizes, layout and inputs of a scan."""
    u, delta, A, B, C, D, z, delta_bias, state = inputs
    sequences, length, channels = u.shape
    # channels in a vector: no more than there are, and enough such blocks for all threads
    width = kernels().lanes()
    while width // 2 >= channels or (
        sequences < threads and width > 1 and -(-channels // width) < threads
    ):
        width //= 2
    call = _ScanCall(sequences, length, channels, A.shape[1], width, threads)
    _set(call, u=u, delta=delta, A=A, B=B, C=C, D=D, z=z, bias=delta_bias, initial=state)
    return call


def scan_forward(
    inputs: tuple[Tensor | None, ...], keep: bool
) -> tuple[Tensor, Tensor | None, tuple[int, Tensor | None]]:
    """`selective_scan` by the kernel, without autograd: output, last state, and what `scan_backward` needs.

    Args:
        inputs: those of `selective_scan`; u, delta, B, C, z with dense rows, the others contiguous.
        keep: whether the backward pass will come; then states are kept every few tokens.
    """
    u, state = inputs[0], inputs[-1]
    call = _scan_call(inputs, torch.get_num_threads())
    out = u.new_empty(u.shape)
    last = None if state is None else torch.empty_like(state)
    count = kernels().kept_values(ctypes.byref(call)) if keep else 0
    kept = u.new_empty(count) if count else None
    _set(call, out=out, last=last, kept=kept)
    kernels().scan_forward(ctypes.byref(call))
    return out, last, (call.threads, kept)


def scan_backward(
    inputs: tuple[Tensor | None, ...],
    saved: tuple[int, Tensor | None],
    grad_out: Tensor,
    grad_last: Tensor | None,
    into: dict[str, Tensor],
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Gradients of `scan_forward` for A, D, delta_bias, state; for the others into rows that the caller has.

    Args:
        inputs, saved: of `scan_forward`.
        grad_out: gradient for the output, dense rows.
        grad_last: gradient for the last state, contiguous, or None.
        into: du, ddelta, dz, dB, dC and, where wanted, out (the output once more); dense rows.
    """
    threads, kept = saved
    A, state = inputs[2], inputs[-1]
    call = _scan_call(inputs, threads)
    dA = torch.zeros(threads, *A.shape, dtype=torch.float64)
    dD, dbias = torch.zeros(2, threads, len(A), dtype=torch.float64)
    dinitial = None if state is None else torch.empty_like(state)
    _set(call, kept=kept, grad_out=grad_out, grad_last=grad_last, dinitial=dinitial, **into)
    _set(call, dA=dA, dD=dD, dbias=dbias)
    kernels().scan_backward(ctypes.byref(call))
    return dA.sum(0).float(), dD.sum(0).float(), dbias.sum(0).float(), dinitial


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx, u, delta, A, B, C, D, z, delta_bias, state, keep):
        u, delta, B, C, z = (_dense_rows(x) for x in (u, delta, B, C, z))
        A, D, delta_bias, state = (_dense(x) for x in (A, D, delta_bias, state))
        inputs = u, delta, A, B, C, D, z, delta_bias, state
        out, last, (ctx.threads, kept) = scan_forward(inputs, keep)
        ctx.save_for_backward(*inputs, kept)
        return out, last

    @staticmethod
    def backward(ctx, grad_out, grad_last):
        *inputs, kept = ctx.saved_tensors
        u, B = inputs[0], inputs[3]
        into = {name: u.new_empty(u.shape) for name in ("du", "ddelta", "dz")}
        into |= {name: u.new_empty(B.shape) for name in ("dB", "dC")}
        dA, dD, dbias, dstate = scan_backward(
            inputs, (ctx.threads, kept), _dense_rows(grad_out), _dense(grad_last), into
        )
        du, ddelta, dz, dB, dC = into.values()
        return du, ddelta, dA, dB, dC, dD, dz, dbias, dstate, None


def selective_scan(
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
    """Selective scan with softplus on the step size and SiLU gate; gradients for all inputs.

    Args:
        u: input (sequence, token, channel).
        delta: step size before bias and softplus, like `u`.
        A: decay rates (channel, state), negative.
        B: input weights (sequence, token, state).
        C: output weights, like `B`.
        D: weight of the input itself (channel).
        z: gate before SiLU, like `u`.
        delta_bias: added to `delta` (channel).
        state: hidden state before the first token (sequence, channel, state); None: zeros.

    Returns:
        The output, like `u`, and the state after the last token, or None when no state was given (short sequences do
        not need it). float32 on the CPU runs the compiled kernels (exponentials to 1e-7 relative; sums over tokens
        in float64 from parts), anything else `parallel_scan`.
    """
    if u.numel() and usable(u):
        return _Scan.apply(u, delta, A, B, C, D, z, delta_bias, state, torch.is_grad_enabled())
    return parallel_scan(u, delta, A, B, C, D, z, delta_bias, state)


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
    """`selective_scan` of plain torch operations, for GPUs without mamba-ssm and CPUs without a compiler.

    It takes 2 log2(tokens) steps, all parallel, and holds several (sequence, token, channel, state) tensors for the
    backward pass: call it on segments.
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


def conv_forward(x: Tensor, weight: Tensor, bias: Tensor, before: Tensor | None) -> Tensor:
    """`causal_conv` by the kernel, without autograd.

    Args:
        x: (sequence, token, channel) float32 with dense rows.
        weight: (tap, channel), contiguous (turned, unlike that of `causal_conv`).
        bias, before: contiguous.
    """
    call = _ConvCall(*x.shape, weight.shape[0], torch.get_num_threads())
    out = x.new_empty(x.shape)
    _set(call, x=x, out=out, weight=weight, bias=bias, before=before)
    kernels().conv_forward(ctypes.byref(call))
    return out


def conv_backward(
    x: Tensor, weight: Tensor, bias: Tensor, before: Tensor | None, grad: Tensor, dx: Tensor
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Gradients of `conv_forward` for weight, bias and before; that for x goes to `dx`, dense rows like `grad`."""
    call = _ConvCall(*x.shape, weight.shape[0], torch.get_num_threads())
    dweight = torch.zeros(call.threads, *weight.shape, dtype=torch.float64)
    dbias = torch.zeros(call.threads, *bias.shape, dtype=torch.float64)
    dbefore = None if before is None else torch.empty_like(before)
    _set(call, x=x, weight=weight, bias=bias, before=before)
    _set(call, grad_out=grad, dx=dx, dbefore=dbefore, dweight=dweight, dbias=dbias)
    kernels().conv_backward(ctypes.byref(call))
    return dweight.sum(0).float(), dbias.sum(0).float(), dbefore


class _Conv(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, before):
        x, before = _dense_rows(x), _dense(before)
        weight, bias = weight.t().contiguous(), bias.contiguous()
        ctx.save_for_backward(x, weight, bias, before)
        return conv_forward(x, weight, bias, before)

    @staticmethod
    def backward(ctx, grad):
        x, weight, bias, before = ctx.saved_tensors
        dx = x.new_empty(x.shape)
        dweight, dbias, dbefore = conv_backward(x, weight, bias, before, _dense_rows(grad), dx)
        return dx, dweight.t(), dbias, dbefore


def causal_conv(x: Tensor, weight: Tensor, bias: Tensor, before: Tensor | None = None) -> Tensor:
    """Depthwise causal convolution along tokens, then SiLU; gradients for all inputs.

    Args:
        x: input (sequence, token, channel).
        weight: (channel, tap); the last tap is the token itself.
        bias: (channel).
        before: the taps - 1 tokens before the first, (sequence, token, channel); None: zeros.

    Returns:
        The output, like `x`. float32 on the CPU runs the compiled kernel, else torch's.
    """
    if x.numel() and usable(x):
        return _Conv.apply(x, weight, bias, before)
    taps = weight.shape[1]
    x = F.pad(x, (0, 0, taps - 1, 0)) if before is None else torch.cat([before, x], 1)
    return F.silu(F.conv1d(x.transpose(1, 2), weight[:, None], bias, groups=x.shape[2])).transpose(
        1, 2
    )


def multiply(x: Tensor, weight: Tensor, out: Tensor | None = None, add: bool = False) -> Tensor:
    """x @ weight for a tall x and a small weight, into `out` or added to it.

    Args:
        x, out: (sequence, token, value) float32, tokens of all sequences equally far apart, values dense.
        weight: (value of x, value of out).
    """
    weight = weight.contiguous()
    if out is None:
        out = x.new_empty(*x.shape[:2], weight.shape[1])
    threads = torch.get_num_threads()
    call = _ProductCall(x.shape[0] * x.shape[1], *weight.shape, threads, add)
    _set(call, left=x, right=weight, out=out)
    call.left_row, call.out_row = x.stride(1), out.stride(1)
    kernels().multiply(ctypes.byref(call))
    return out


def outer(x: Tensor, y: Tensor) -> Tensor:
    """Sum of the outer products of all tokens (value of x, value of y); tensors as in `multiply`."""
    if x.shape[2] > y.shape[2]:  # the kernel's vectors are values of y
        return outer(y, x).t()
    threads = torch.get_num_threads()
    call = _ProductCall(x.shape[0] * x.shape[1], x.shape[2], y.shape[2], threads)
    sums = torch.zeros(threads, x.shape[2], y.shape[2], dtype=torch.float64)
    _set(call, left=x, right=y, sums=sums)
    call.left_row, call.right_row = x.stride(1), y.stride(1)
    kernels().outer(ctypes.byref(call))
    return sums.sum(0).float()
