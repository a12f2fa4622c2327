"""MambaHSI, the pixel classifier of both training stages, and the Mamba block inside it.

Sources: Li et al., "MambaHSI: Spatial-spectral Mamba for hyperspectral image classification", 2024 (the network); Gu
and Dao, "Mamba", 2023 (the block; parameter names and initialisation are those of the package mamba-ssm, so weights
can be exchanged). Tensors of the network are (1, channel, y, x) in torch's channels-last memory format, which is a
list of tokens (pixels) for the Mamba blocks without a copy.
"""

import importlib
import logging
import math
from collections.abc import Callable
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from special_steps.core.errors import UserError
from special_steps.kernels.scan import (
    causal_conv,
    conv_backward,
    conv_forward,
    multiply,
    outer,
    scan_backward,
    scan_forward,
    selective_scan,
    usable,
)

log = logging.getLogger("special")

# Values of a block's input whose inner tensors, 20 times as large, exist at a time; for training they are computed
# again going back. Plain torch holds tensors with all states, too: its segments are so many times shorter.
SEGMENT = 2**19
SHORTER = 4


@cache
def _fused_inner() -> Callable[..., Tensor] | None:
    """mamba-ssm's whole inner block for CUDA tensors, or None where it or causal-conv1d cannot be imported."""
    try:
        importlib.import_module("causal_conv1d")
        return importlib.import_module("mamba_ssm.ops.selective_scan_interface").mamba_inner_fn
    except (ImportError, OSError, RuntimeError) as error:
        log.warning(
            "mamba-ssm is not usable (%s): the slower plain torch scan runs on the GPU", error
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
        """Run the block: on CUDA by mamba-ssm where installed, on the CPU by compiled kernels, else by plain torch."""
        if tokens.is_cuda and (fused := _fused_inner()) is not None:
            return self._forward_fused(tokens, fused)
        if tokens.numel() and usable(tokens):
            return _Compiled.apply(torch.is_grad_enabled(), tokens, *self._weights())
        return self._forward_segments(tokens)

    def _weights(self) -> list[Tensor]:
        return [
            self.in_proj.weight,
            self.conv1d.weight[:, 0],
            self.conv1d.bias,
            self.x_proj.weight,
            self.dt_proj.weight,
            self.dt_proj.bias,
            self.A_log,
            self.D,
            self.out_proj.weight,
        ]

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
        parts = _segments(tokens.shape, taps, SEGMENT // SHORTER)
        before, state = _beginning(tokens, parts, taps, self.A_log)
        outputs = []
        for part in parts:
            output, before, state = self._recomputed(tokens[part], before, state)
            outputs.append(output)
        return torch.cat(outputs, 0 if before is None else 1)

    def _recomputed(self, *inputs: Tensor | None) -> tuple[Tensor, Tensor | None, Tensor | None]:
        if not torch.is_grad_enabled():
            return self._segment(*inputs)
        return checkpoint(self._segment, *inputs, use_reentrant=False, preserve_rng_state=False)

    def _segment(
        self, tokens: Tensor, before: Tensor | None, state: Tensor | None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Output, last inputs of the convolution and last scan state, given those of the segment before (or None)."""
        x, z = self.in_proj(tokens).chunk(2, -1)
        last = None
        if before is not None:
            keep = before.shape[1]
            joined = torch.cat([before, x[:, max(0, x.shape[1] - keep) :]], 1)
            last = joined[:, joined.shape[1] - keep :]
        x = causal_conv(x, self.conv1d.weight[:, 0], self.conv1d.bias, before)
        sizes = [self.dt_rank, self.d_state, self.d_state]
        dt, B, C = self.x_proj(x).split(sizes, -1)
        delta = F.linear(dt, self.dt_proj.weight)
        A = -torch.exp(self.A_log)
        y, state = selective_scan(x, delta, A, B, C, self.D, z, self.dt_proj.bias, state)
        return self.out_proj(y), last, state


def _segments(shape: torch.Size, taps: int, values: int) -> list[tuple[slice, slice]]:
    """Cut (sequence, token, channel) into segments of about so many values: of sequences if short, else of tokens."""
    sequences, length, width = shape
    if length * width <= values // 2:  # they do not depend on each other
        step = values // (length * width)
        return [(slice(i, i + step), slice(0, length)) for i in range(0, sequences, step)]
    step = max(taps, values // (sequences * width))
    return [(slice(0, sequences), slice(i, i + step)) for i in range(0, length, step)]


def _beginning(
    tokens: Tensor, parts: list[tuple[slice, slice]], taps: int, A: Tensor
) -> tuple[Tensor | None, Tensor | None]:
    """What the convolution and the scan (A: channel, state) see before the first token, in place of the segment before.

    None where there is none to follow: one segment is all, or segments are of sequences.
    """
    if len(parts) == 1 or parts[0][0] != parts[1][0]:
        return None, None
    before = tokens.new_zeros(len(tokens), taps - 1, len(A))
    return before, tokens.new_zeros(len(tokens), *A.shape)


class _Compiled(torch.autograd.Function):
    """Mamba's block by the kernels of `scan.py`, in segments so short that their inner tensors take little memory.

    Kept for the backward pass are the input and the states of the scan; it computes the rest again, but no scan.
    """

    @staticmethod
    def forward(ctx, keep, tokens, *weights):
        weights = _prepared(*weights)
        _, conv, conv_bias, _, _, _, A, _, out_proj = weights
        ctx.parts = _segments(tokens.shape, len(conv), SEGMENT)
        before, state = _beginning(tokens, ctx.parts, len(conv), A)
        output = tokens.new_empty(tokens.shape)
        saved = []
        for part in ctx.parts:
            inputs, (xz, *_) = _scan_inputs(tokens[part].contiguous(), before, weights)
            start = before, state
            if before is not None:
                before = xz[:, xz.shape[1] - len(conv) + 1 :, : len(conv_bias)].contiguous()
            y, state, (ctx.threads, kept) = scan_forward((*inputs, state), keep)
            output[part] = multiply(y, out_proj.t())
            saved += [*start, kept]
        if keep:
            ctx.save_for_backward(tokens, *weights, *saved)
        return output

    @staticmethod
    def backward(ctx, grad):
        tokens, *saved = ctx.saved_tensors
        weights, saved = saved[:9], saved[9:]
        in_proj, conv, conv_bias, x_proj, dt_proj, _, A, _, out_proj = weights
        inner, rank, states = len(conv_bias), dt_proj.shape[1], A.shape[1]
        dtokens = tokens.new_empty(tokens.shape)
        sums = [torch.zeros_like(w) for w in weights]
        dstate = dbefore = None
        for i, part in reversed(list(enumerate(ctx.parts))):
            before, state, kept = saved[3 * i : 3 * i + 3]
            tokens_part, grad_part = tokens[part].contiguous(), grad[part].contiguous()
            inputs, (xz, mixed) = _scan_inputs(tokens_part, before, weights)
            u, x, dt = inputs[0], xz[..., :inner], mixed[..., :rank]
            dxz, dmixed = torch.empty_like(xz), torch.empty_like(mixed)
            du, ddelta, y = (torch.empty_like(u) for _ in "123")
            into = {"du": du, "ddelta": ddelta, "dz": dxz[..., inner:], "out": y}
            into |= {"dB": dmixed[..., rank : rank + states], "dC": dmixed[..., rank + states :]}
            dA, dD, dbias, dstate = scan_backward(
                (*inputs, state), (ctx.threads, kept), multiply(grad_part, out_proj), dstate, into
            )
            multiply(ddelta, dt_proj, dmixed[..., :rank])
            multiply(dmixed, x_proj, du, add=True)
            behind = dbefore
            dconv, dconv_bias, dbefore = conv_backward(
                x, conv, conv_bias, before, du, dxz[..., :inner]
            )
            if behind is not None:  # of the inputs that the segment after this one has seen
                dxz[:, dxz.shape[1] - len(conv) + 1 :, :inner] += behind
            dtokens[part] = multiply(dxz, in_proj)
            found = (
                outer(dxz, tokens_part), dconv, dconv_bias, outer(dmixed, u), outer(ddelta, dt), dbias, dA, dD,
                outer(grad_part, y),
            )  # fmt: skip
            for total, new in zip(sums, found, strict=True):
                total += new
        sums[1] = sums[1].t()
        sums[6] *= A  # A = -exp(A_log)
        return None, dtokens, *sums


def _prepared(in_proj, conv, conv_bias, x_proj, dt_proj, dt_bias, A_log, D, out_proj):
    """Weights as the kernels want them."""
    A = -torch.exp(A_log)
    return in_proj, conv.t().contiguous(), conv_bias, x_proj, dt_proj, dt_bias, A, D, out_proj


def _scan_inputs(
    tokens: Tensor, before: Tensor | None, weights: tuple[Tensor, ...]
) -> tuple[tuple[Tensor, ...], tuple[Tensor, Tensor]]:
    """What the scan of a segment reads (but its state), and the tensors that some of it are parts of."""
    in_proj, conv, conv_bias, x_proj, dt_proj, dt_bias, A, D, _ = weights
    xz = multiply(tokens, in_proj.t())
    x, z = xz.chunk(2, -1)
    u = conv_forward(x, conv, conv_bias, before)
    mixed = multiply(u, x_proj.t())
    dt, B, C = mixed.split([dt_proj.shape[1], A.shape[1], A.shape[1]], -1)
    return (u, multiply(dt, dt_proj.t()), A, B, C, D, z, dt_bias), (xz, mixed)


class _Branch(nn.Module):
    """A Mamba over all pixels (`spatial`) or over the channel groups of each pixel; GroupNorm, SiLU, residual."""

    def __init__(self, channels: int, tokens: int, groups: int, spatial: bool) -> None:
        super().__init__()
        self.tokens = 1 if spatial else tokens
        self.width = math.ceil(
            channels / self.tokens
        )  # of a token; the last ones are filled with zeros
        self.spatial = spatial
        self.mamba = Mamba(self.width)
        self.norm = nn.GroupNorm(groups, channels)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        pixels = x.permute(0, 2, 3, 1).reshape(batch, height * width, channels)
        if self.spatial:
            y = self.mamba(pixels)
        else:
            padded = F.pad(pixels, (0, self.tokens * self.width - channels))
            y = self.mamba(padded.reshape(-1, self.tokens, self.width))
            y = y.reshape(batch, height * width, -1)[..., :channels]
        y = y.reshape(batch, height, width, channels).permute(0, 3, 1, 2)
        return x + _norm_silu(self.norm, y)


class _Stage(nn.Module):
    """Spatial and spectral branch side by side, mixed by two learned weights (softmax), and a residual."""

    def __init__(self, channels: int, tokens: int, groups: int) -> None:
        super().__init__()
        self.mix = nn.Parameter(torch.full((2,), 0.5))
        self.spatial = _Branch(channels, tokens, groups, spatial=True)
        self.spectral = _Branch(channels, tokens, groups, spatial=False)

    def forward(self, x: Tensor) -> Tensor:
        weights = self.mix.softmax(0)
        return weights[0] * self.spatial(x) + weights[1] * self.spectral(x) + x


class MambaHSI(nn.Module):
    """Class scores of every pixel of a scene: (1, bands, y, x) to (1, classes, y, x)."""

    def __init__(
        self, bands: int, classes: int, hidden: int = 16, tokens: int = 4, groups: int = 4
    ) -> None:
        """Make the network with fresh weights from torch's global random numbers.

        Args:
            bands: channels of the input.
            classes: channels of the output.
            hidden: channels inside.
            tokens: groups of channels that the spectral branch reads as a sequence (if it does not divide `hidden`,
                the last token is filled with zeros).
            groups: groups of GroupNorm.

        Raises:
            UserError: a number is not positive, or `groups` does not divide `hidden`.
        """
        super().__init__()
        settings = {
            "bands": bands, "classes": classes, "hidden": hidden, "tokens": tokens, "groups": groups
        }  # fmt: skip
        for name, value in settings.items():
            if value < 1:
                raise UserError(f"MambaHSI: {name} is {value}; it must be at least 1")
        if hidden % groups:
            raise UserError(
                f"MambaHSI: {groups} normalisation groups do not divide {hidden} hidden channels; "
                "choose hidden as a multiple of groups"
            )
        self.embed = nn.Conv2d(bands, hidden, 1)
        self.embed_norm = nn.GroupNorm(groups, hidden)
        self.stages = nn.ModuleList(_Stage(hidden, tokens, groups) for _ in range(3))
        self.smooth = nn.Conv2d(hidden, hidden, 3, padding=1)
        self.smooth_norm = nn.GroupNorm(groups, hidden)
        self.detail = nn.Conv2d(bands, hidden, 3, padding=1)
        self.head = nn.Conv2d(2 * hidden, hidden, 1)
        self.head_norm = nn.GroupNorm(groups, hidden)
        self.classify = nn.Conv2d(hidden, classes, 1)
        self.to(memory_format=torch.channels_last)

    def forward(self, cube: Tensor) -> Tensor:
        """Scores before the softmax."""
        cube = cube.contiguous(memory_format=torch.channels_last)
        size = cube.shape[2:]
        fitting = [math.ceil(n / 4) * 4 for n in size]
        # Resizing and a 1 x 1 convolution commute: the few hidden channels are resized, not the many bands.
        x = _resize(self.embed(cube), fitting)
        x = _norm_silu(self.embed_norm, x)
        for i, stage in enumerate(self.stages):
            x = stage(F.avg_pool2d(x, 2) if i else x)
        x = F.interpolate(x, scale_factor=4, mode="bilinear", align_corners=True)
        x = _resize(_norm_silu(self.smooth_norm, self.smooth(x)), size)
        x = torch.cat([x, self.detail(cube)], 1)
        return self.classify(_norm_silu(self.head_norm, self.head(x)))


def _norm_silu(norm: nn.GroupNorm, x: Tensor) -> Tensor:
    # not norm(x): the module refuses one value per group, which a tiny scene has after pooling
    return F.silu(torch.group_norm(x, norm.num_groups, norm.weight, norm.bias, norm.eps))


def _resize(x: Tensor, size: list[int] | torch.Size) -> Tensor:
    if list(x.shape[2:]) == list(size):
        return x
    return F.interpolate(x, tuple(size), mode="bilinear", align_corners=False)


def predict(model: MambaHSI, features: np.ndarray | Tensor) -> np.ndarray:
    """Class probabilities of a scene.

    Args:
        model: the classifier; its training or evaluation mode does not matter (it has no such layers).
        features: (band, y, x) float32.

    Returns:
        (class, y, x) float32, summing to 1 over classes.
    """
    device = next(model.parameters()).device
    with torch.inference_mode():
        cube = torch.as_tensor(features, device=device)[None]
        return model(cube)[0].softmax(0).cpu().numpy()
