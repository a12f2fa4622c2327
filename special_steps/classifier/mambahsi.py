"""MambaHSI, the pixel classifier of both training stages.

Source: Li et al., "MambaHSI: Spatial-spectral Mamba for hyperspectral image classification", 2024. Tensors of the
network are (1, channel, y, x) in torch's channels-last memory format, which is a list of tokens (pixels) for the Mamba
blocks without a copy.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from special_steps.classifier.mamba import Mamba
from special_steps.core.errors import UserError


class _Branch(nn.Module):
    """A Mamba over all pixels (`spatial`) or over the channel groups of each pixel; GroupNorm, SiLU, residual."""

    def __init__(self, channels: int, tokens: int, groups: int, spatial: bool) -> None:
        super().__init__()
        self.tokens = 1 if spatial else tokens
        # of a token; the last ones are filled with zeros
        self.width = math.ceil(channels / self.tokens)
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


def _resize(x: Tensor, size: Sequence[int]) -> Tensor:
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
