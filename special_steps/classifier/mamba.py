"""The Mamba block: by kernels (compiled for the CPU, in Triton for CUDA), else by mamba-ssm on CUDA or by plain torch.

Source: Gu and Dao, "Mamba: Linear-time sequence modeling with selective state spaces", 2023. Parameter names and
initialisation are those of the package mamba-ssm, so weights can be exchanged.
"""

import importlib
import logging
import math
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from special_steps.kernels import build
from special_steps.kernels.conv import causal_conv, conv_backward, conv_forward
from special_steps.kernels.matmul import multiply, multiply_by_torch, outer, outer_by_torch
from special_steps.kernels.scan import (
    ScanInputs,
    ScanSaved,
    parallel_scan,
    scan_backward,
    scan_forward,
)

log = logging.getLogger("special")

# Values of a block's input whose inner tensors, 20 times as large, exist at a time; for training they are computed
# again going back. Plain torch holds tensors with all states, too: its segments are so many times shorter.
SEGMENT_VALUES = 2**19
PLAIN_TORCH_SHORTER = 4
# A GPU computes on half a million tokens of 16 channels at a time, in less than 2 GB: it has chunks of them for all its
# processors many times over, and the kernels' starts don't count.
GPU_SEGMENT_VALUES = 2**23

# A segment of (sequence, token, channel): its sequences and its tokens.
Segment = tuple[slice, slice]


class Kernels(NamedTuple):
    """The parts of a block by kernels: what `kernels.scan`, `kernels.conv` and `kernels.matmul` have, for a device."""

    scan_forward: Callable[..., tuple[Tensor, Tensor | None, ScanSaved]]
    scan_backward: Callable[..., tuple[Tensor, Tensor, Tensor, Tensor | None]]
    conv_forward: Callable[..., Tensor]
    conv_backward: Callable[..., tuple[Tensor, Tensor, Tensor | None]]
    multiply: Callable[..., Tensor]
    outer: Callable[[Tensor, Tensor], Tensor]


@cache
def compiled_kernels() -> Kernels | None:
    """The kernels that are compiled for the CPU, or None where they do not run."""
    if not build.available("scan", "conv", "matmul"):
        return None
    build.keep_memory()
    return Kernels(scan_forward, scan_backward, conv_forward, conv_backward, multiply, outer)


@cache
def triton_kernels() -> Kernels | str:
    """The kernels in Triton for CUDA, or the reason why they do not run."""
    try:
        kernels = load_triton_kernels()
        x, one = torch.zeros(1, 5, 1, device="cuda"), torch.zeros(1, device="cuda")
        kernels.conv_forward(x, x[0], one, None)
        kernels.scan_forward(ScanInputs(x, x, x[0, :1], x, x, one, x, one), False)
    except Exception as error:  # of Triton, the C compiler that it calls, the driver: whatever it is, others can do it
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    return kernels


def load_triton_kernels() -> Kernels:
    """The kernels in Triton, not tried; ImportError where there is no Triton."""
    from special_steps.kernels import conv_triton, scan_triton

    return Kernels(
        scan_triton.scan_forward,
        scan_triton.scan_backward,
        conv_triton.conv_forward,
        conv_triton.conv_backward,
        multiply_by_torch,
        outer_by_torch,
    )


def _kernels(device: torch.device) -> tuple[Kernels | None, int]:
    """The kernels that run on a device, if any, and how many values of the input they take at a time."""
    if device.type == "cuda":
        found = triton_kernels()
        return None if isinstance(found, str) else found, GPU_SEGMENT_VALUES
    return compiled_kernels() if device.type == "cpu" else None, SEGMENT_VALUES


@cache
def mamba_ssm_inner() -> Callable[..., Tensor] | None:
    """mamba-ssm's whole inner block for CUDA tensors, or None where it or causal-conv1d cannot be imported.

    It is asked for where Triton's kernels do not run.
    """
    try:
        importlib.import_module("causal_conv1d")
        return importlib.import_module("mamba_ssm.ops.selective_scan_interface").mamba_inner_fn
    except (ImportError, OSError, RuntimeError) as error:
        log.warning(
            "neither Triton (%s) nor mamba-ssm (%s) is usable: training on the GPU runs about 30 times slower",
            triton_kernels(),
            error,
        )
        return None


class Mamba(nn.Module):
    """Mamba block: (sequence, token, d_model) to the same shape; each token sees itself and those before it."""

    def __init__(
        self,
        d_model: int,
        d_state: int = 16,
        d_conv: int = 4,
        expand: int = 2,
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        dt_init_floor: float = 1e-4,
    ) -> None:
        """Initialise as mamba-ssm does: step sizes log-uniform in dt_min..dt_max, A = -1..-d_state, D = 1."""
        super().__init__()
        self.d_state = d_state
        self.dt_rank = rank = math.ceil(d_model / 16)
        inner = expand * d_model
        self.in_proj = nn.Linear(d_model, 2 * inner, bias=False)
        self.conv1d = nn.Conv1d(inner, inner, d_conv, groups=inner, padding=d_conv - 1)
        self.x_proj = nn.Linear(inner, rank + 2 * d_state, bias=False)
        self.dt_proj = nn.Linear(rank, inner)
        nn.init.uniform_(self.dt_proj.weight, -(rank**-0.5), rank**-0.5)
        low, high = math.log(dt_min), math.log(dt_max)
        dt = torch.exp(torch.rand(inner) * (high - low) + low).clamp(min=dt_init_floor)
        with torch.no_grad():
            self.dt_proj.bias.copy_(dt + torch.log(-torch.expm1(-dt)))  # softplus of it is dt
        decay = torch.arange(1, d_state + 1, dtype=torch.float32).repeat(inner, 1)
        self.A_log = nn.Parameter(torch.log(decay))
        self.D = nn.Parameter(torch.ones(inner))
        self.out_proj = nn.Linear(inner, d_model, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Run the block: by kernels where they run, on CUDA else by mamba-ssm where installed, else by plain torch."""
        if not tokens.numel() or tokens.dtype != torch.float32:
            return self._forward_segments(tokens)
        kernels, values = _kernels(tokens.device)
        if kernels is not None:
            how = kernels, values, torch.is_grad_enabled()
            return _KernelBlock.apply(*how, tokens, *self._weights())
        if tokens.is_cuda and (fused := mamba_ssm_inner()) is not None:
            return self._forward_fused(tokens, fused)
        return self._forward_segments(tokens)

    def _weights(self) -> tuple[Tensor | None, ...]:
        return (
            self.in_proj.weight,
            self.conv1d.weight[:, 0],
            self.conv1d.bias,
            self.x_proj.weight,
            self.dt_proj.weight,
            self.dt_proj.bias,
            self.A_log,
            self.D,
            self.out_proj.weight,
        )

    def _forward_fused(self, tokens: Tensor, inner: Callable[..., Tensor]) -> Tensor:
        xz = torch.einsum("dc,blc->bdl", self.in_proj.weight, tokens).contiguous()
        return inner(
            xz,
            self.conv1d.weight,
            self.conv1d.bias,
            self.x_proj.weight,
            self.dt_proj.weight,
            self.out_proj.weight,
            None,
            -torch.exp(self.A_log.float()),
            None,
            None,
            self.D.float(),
            delta_bias=self.dt_proj.bias.float(),
            delta_softplus=True,
        )

    def _forward_segments(self, tokens: Tensor) -> Tensor:
        """Run a segment of the tokens at a time and pass on the states; the backward pass recomputes each segment.

        So training needs memory for the block's input and output, not for the tensors between them.
        """
        taps = self.conv1d.kernel_size[0]
        segments = _segments(tokens.shape, taps, SEGMENT_VALUES // PLAIN_TORCH_SHORTER)
        before, state = _beginning(tokens, segments, taps, self.A_log)
        outputs = []
        for segment in segments:
            output, before, state = self._recomputed(tokens[segment], before, state)
            outputs.append(output)
        return torch.cat(outputs, 0 if before is None else 1)

    def _recomputed(
        self, tokens: Tensor, before: Tensor | None, state: Tensor | None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        if not torch.is_grad_enabled():
            return self._segment(tokens, before, state)
        inputs = tokens, before, state
        return checkpoint(self._segment, *inputs, use_reentrant=False, preserve_rng_state=False)

    def _segment(
        self, tokens: Tensor, before: Tensor | None, state: Tensor | None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Output, last inputs of the convolution and last scan state, given those of the segment before (or None)."""
        x, z = self.in_proj(tokens).chunk(2, -1)
        last = None
        if before is not None:
            history = before.shape[1]
            joined = torch.cat([before, x[:, max(0, x.shape[1] - history) :]], 1)
            last = joined[:, joined.shape[1] - history :]
        x = causal_conv(x, self.conv1d.weight[:, 0], self.conv1d.bias, before)
        sizes = [self.dt_rank, self.d_state, self.d_state]
        dt, B, C = self.x_proj(x).split(sizes, -1)
        delta = F.linear(dt, self.dt_proj.weight)
        A = -torch.exp(self.A_log)
        y, state = parallel_scan(x, delta, A, B, C, self.D, z, self.dt_proj.bias, state)
        return self.out_proj(y), last, state


def _segments(shape: torch.Size, taps: int, values: int) -> list[Segment]:
    """Cut (sequence, token, channel) into segments of about so many values: of sequences if short, else of tokens."""
    sequences, length, width = shape
    if length * width <= values // 2:  # they do not depend on each other
        step = values // (length * width)
        return [(slice(i, i + step), slice(0, length)) for i in range(0, sequences, step)]
    step = max(taps, values // (sequences * width))
    return [(slice(0, sequences), slice(i, i + step)) for i in range(0, length, step)]


def _beginning(
    tokens: Tensor, segments: list[Segment], taps: int, A: Tensor
) -> tuple[Tensor | None, Tensor | None]:
    """What the convolution and the scan (A: channel, state) see before the first token, in place of the segment before.

    None where there is none to follow: one segment is all, or segments are of sequences.
    """
    if len(segments) == 1 or segments[0][0] != segments[1][0]:
        return None, None
    before = tokens.new_zeros(len(tokens), taps - 1, len(A))
    return before, tokens.new_zeros(len(tokens), *A.shape)


class _KernelWeights(NamedTuple):
    """A block's weights as the kernels want them, in the order of `Mamba._weights`."""

    in_proj: Tensor
    conv: Tensor  # (tap, channel), turned
    conv_bias: Tensor
    x_proj: Tensor
    dt_proj: Tensor
    dt_bias: Tensor
    A: Tensor  # -exp(A_log)
    D: Tensor
    out_proj: Tensor


class _KernelBlock(torch.autograd.Function):
    """The block by kernels, in segments so short that their inner tensors take little memory.

    Kept for the backward pass are the input and the states of the scan; it computes the rest again, but no scan.
    """

    @staticmethod
    def forward(
        ctx: Any, kernels: Kernels, values: int, training: bool, tokens: Tensor, *weights: Tensor
    ) -> Tensor:
        ctx.kernels = kernels
        w = _KernelWeights(*weights)
        w = w._replace(conv=w.conv.t().contiguous(), A=-torch.exp(w.A))
        taps, channels = w.conv.shape
        ctx.segments = _segments(tokens.shape, taps, values)
        before, state = _beginning(tokens, ctx.segments, taps, w.A)
        output = tokens.new_empty(tokens.shape)
        saved: list[Tensor | None] = []
        for segment in ctx.segments:
            inputs, xz, _ = _scan_inputs(kernels, tokens[segment].contiguous(), before, state, w)
            y, last_state, (ctx.threads, tile_states) = kernels.scan_forward(inputs, training)
            output[segment] = kernels.multiply(y, w.out_proj.t())
            saved += [before, state, tile_states]
            state = last_state
            if before is not None:
                before = xz[:, xz.shape[1] - taps + 1 :, :channels].contiguous()
        if training:
            ctx.save_for_backward(tokens, *w, *saved)
        return output

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        kernels: Kernels = ctx.kernels
        tokens, *tensors = ctx.saved_tensors
        count = len(_KernelWeights._fields)
        w, saved = _KernelWeights(*tensors[:count]), tensors[count:]
        taps, channels = w.conv.shape
        rank, states = w.dt_proj.shape[1], w.A.shape[1]
        dtokens = tokens.new_empty(tokens.shape)
        sums = _KernelWeights(*(torch.zeros_like(weight) for weight in w))
        dstate: Tensor | None = None
        dbefore: Tensor | None = None
        for i, segment in reversed(list(enumerate(ctx.segments))):
            before, state, tile_states = saved[3 * i : 3 * i + 3]
            x, grad_x = tokens[segment].contiguous(), grad[segment].contiguous()
            inputs, xz, mixed = _scan_inputs(kernels, x, before, state, w)
            dxz, dmixed = torch.empty_like(xz), torch.empty_like(mixed)
            du, ddelta, y = (torch.empty_like(inputs.u) for _ in range(3))
            into = {"du": du, "ddelta": ddelta, "dz": dxz[..., channels:], "out": y}
            into |= {"dB": dmixed[..., rank : rank + states], "dC": dmixed[..., rank + states :]}
            dy = kernels.multiply(grad_x, w.out_proj)
            scanned = ScanSaved(ctx.threads, tile_states)
            dA, dD, dbias, dstate = kernels.scan_backward(inputs, scanned, dy, dstate, into)
            kernels.multiply(ddelta, w.dt_proj, dmixed[..., :rank])
            kernels.multiply(dmixed, w.x_proj, du, add=True)
            dbehind = dbefore  # of the inputs that the segment after this one has seen
            dconv, dconv_bias, dbefore = kernels.conv_backward(
                xz[..., :channels], w.conv, w.conv_bias, before, du, dxz[..., :channels]
            )
            if dbehind is not None:
                dxz[:, dxz.shape[1] - taps + 1 :, :channels] += dbehind
            dtokens[segment] = kernels.multiply(dxz, w.in_proj)
            found = _KernelWeights(
                in_proj=kernels.outer(dxz, x),
                conv=dconv,
                conv_bias=dconv_bias,
                x_proj=kernels.outer(dmixed, inputs.u),
                dt_proj=kernels.outer(ddelta, mixed[..., :rank]),
                dt_bias=dbias,
                A=dA,
                D=dD,
                out_proj=kernels.outer(grad_x, y),
            )
            for total, new in zip(sums, found, strict=True):
                total += new
        return None, None, None, dtokens, *sums._replace(conv=sums.conv.t(), A=sums.A.mul_(w.A))


def _scan_inputs(
    kernels: Kernels,
    tokens: Tensor,
    before: Tensor | None,
    state: Tensor | None,
    w: _KernelWeights,
) -> tuple[ScanInputs, Tensor, Tensor]:
    """What the scan of a segment reads, and the tensors that some of it are parts of: (x, z) and (dt, B, C)."""
    xz = kernels.multiply(tokens, w.in_proj.t())
    x, z = xz.chunk(2, -1)
    u = kernels.conv_forward(x, w.conv, w.conv_bias, before)
    mixed = kernels.multiply(u, w.x_proj.t())
    dt, B, C = mixed.split([w.dt_proj.shape[1], w.A.shape[1], w.A.shape[1]], -1)
    delta = kernels.multiply(dt, w.dt_proj.t())
    return ScanInputs(u, delta, w.A, B, C, w.D, z, w.dt_bias, state), xz, mixed
