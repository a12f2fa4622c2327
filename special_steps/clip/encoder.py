"""Dense CLIP: a cosine with every phrase at every pixel, from an image model that was trained for one per image.

Features of patches (ViT) or feature-map cells (convolutional towers), upsampled, in sliding windows. The attention
kinds and the window pipeline are SegEarth-OV's (arXiv 2410.01768) and, of its baselines, SCLIP's (2312.01597),
ClearCLIP's (2407.12442) and MaskCLIP's (2112.01071). Reads open_clip's modules; changes none.
"""

import contextlib
import copy
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from open_clip.modified_resnet import ModifiedResNet
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights
from tqdm import tqdm

from special_steps.clip.model import Clip
from special_steps.clip.upsample import Upsampler
from special_steps.core.errors import UserError

ATTENTION = ("segearth", "sclip", "clearclip", "maskclip", "vanilla")
PRECISION = {"fp32": None, "fp16": torch.float16, "bf16": torch.bfloat16}

Features = tuple[torch.Tensor, torch.Tensor | None]  # cells (n, dim, h, w), whole image (n, dim)


class Encoder(NamedTuple):
    """Dense features of normalised images, and what the windows must fit."""

    features: Callable[[torch.Tensor], Features]
    patch: int  # pixels along a cell's side: images must be multiples of it
    dim: int  # feature channels
    device: torch.device


def make_encoder(clip: Clip, attention: str = "segearth", precision: str = "fp32") -> Encoder:
    """The dense encoder of a CLIP model's image tower.

    Args:
        clip: the model.
        attention: one of ATTENTION, for the last block of a ViT; convolutional towers have none.
        precision: fp32, or fp16 or bf16 autocast, which only CUDA has.

    Raises:
        UserError: for an unknown attention or precision, and image towers without dense features.
    """
    if attention not in ATTENTION:
        raise UserError(f"unknown attention '{attention}'; choose one of {', '.join(ATTENTION)}")
    if precision not in PRECISION:
        raise UserError(f"unknown precision '{precision}'; choose one of {', '.join(PRECISION)}")
    tower = clip.model.visual
    if isinstance(tower, VisionTransformer) and _is_plain(tower):
        positions: dict[tuple[int, int], torch.Tensor] = {}

        def dense(images: torch.Tensor) -> Features:
            grid = (images.shape[-2] // patch, images.shape[-1] // patch)
            if grid not in positions:
                positions[grid] = resized_positions(tower, *grid)
            return vit_features(tower, images, attention, positions[grid])

        patch, dim = tower.patch_size[0], tower.output_dim
    elif isinstance(tower, ModifiedResNet):
        patch, dim, dense = 32, tower.output_dim, partial(resnet_features, tower)
    elif isinstance(tower, TimmModel):
        patch, dim = _probe(tower, clip)
        tower = _folded(tower, clip)
        dense = partial(timm_features, tower)
    else:
        raise _unsupported(clip)
    dtype = PRECISION[precision] if clip.device.type == "cuda" else None

    def features(images: torch.Tensor) -> Features:
        cast = torch.autocast("cuda", dtype) if dtype else contextlib.nullcontext()
        with torch.inference_mode(), cast:
            cells, whole = dense(images)
            return cells.float(), None if whole is None else whole.float()

    return Encoder(features, patch, dim, clip.device)


def _unsupported(clip: Clip) -> UserError:
    tower = clip.model.visual
    kind = type(getattr(tower, "trunk", tower)).__name__
    return UserError(
        f"model {clip.name}: image tower {kind} has no dense features here; supported are open_clip's"
        " own ViTs (ViT-B-16, ...), ResNets (RN50, ...), and timm's convolutional towers (convnext_*)"
    )


# --- vision transformers -----------------------------------------------------------------------


def _is_plain(tower: VisionTransformer) -> bool:
    """Whether the tower has the standard blocks that vit_features takes apart."""
    attention = getattr(tower.transformer.resblocks[-1], "attn", None)
    plain = isinstance(attention, nn.MultiheadAttention) and attention.in_proj_weight is not None
    return plain and tower.attn_pool is None and tower.patch_size[0] == tower.patch_size[1]


def resized_positions(tower: VisionTransformer, h: int, w: int) -> torch.Tensor:
    """Position embeddings (1 + h w, width) of an h x w grid, resized bicubically if need be.

    The target size is given as it is. The published code gives (h + 0.1) / h0 as a scale factor
    instead (a guard against rounding down that DINO started), which samples at slightly other
    places: tests/unit/test_dense.py measures the difference.
    """
    own = tower.positional_embedding
    if (h, w) == tuple(tower.grid_size):
        return own
    grid = own[1:].T.reshape(1, -1, *tower.grid_size)
    grid = F.interpolate(grid, (h, w), mode="bicubic", antialias=False)
    return torch.cat([own[:1], grid[0].flatten(1).T])


def vit_features(
    tower: VisionTransformer, images: torch.Tensor, attention: str, positions: torch.Tensor
) -> Features:
    """Patch features and class token of a ViT, both after ln_post and projection, not normalised.

    All blocks but the last run as they are. Of the last one only the attention is kept (no
    residual, no MLP), with other weights than q k': see _attend.

    Args:
        tower: open_clip's module.
        images: (n, 3, H, W), normalised; H and W multiples of the patch.
        attention: one of ATTENTION.
        positions: (1 + patches, width), of resized_positions.

    Returns:
        (n, dim, H / patch, W / patch) and (n, dim).
    """
    patches = tower.conv1(images)
    n, width, h, w = patches.shape
    first = tower.class_embedding.expand(n, 1, width)
    x = tower.ln_pre(torch.cat([first, patches.flatten(2).mT], 1) + positions)
    *blocks, last = tower.transformer.resblocks
    for block in blocks:
        x = x + block.ls_1(_attend(block.attn, block.ln_1(x), "vanilla"))
        hidden = block.mlp.gelu(_linear(block.ln_2(x), block.mlp.c_fc.weight, block.mlp.c_fc.bias))
        x = x + block.ls_2(_linear(hidden, block.mlp.c_proj.weight, block.mlp.c_proj.bias))
    x = last.ls_1(_attend(last.attn, last.ln_1(x), attention))
    x = tower.ln_post(x) @ tower.proj
    token = x[:, 0] if tower.pool_type == "tok" else None  # untrained where patches are averaged
    return x[:, 1:].mT.unflatten(2, (h, w)), token


def _attend(module: nn.MultiheadAttention, x: torch.Tensor, attention: str) -> torch.Tensor:
    """Self-attention with the weights of `attention`; several softmaxes are summed, not averaged."""
    heads = (module.num_heads, -1)
    q, k, v = _linear(x, module.in_proj_weight, module.in_proj_bias).chunk(3, -1)
    q, k, v = (t.unflatten(-1, heads).transpose(1, 2) for t in (q, k, v))
    pairs = {
        "segearth": ((q, q), (k, k), (v, v)),
        "sclip": ((q, q), (k, k)),
        "clearclip": ((q, q),),
        "vanilla": ((q, k),),
        "maskclip": (),  # each token sees itself only
    }[attention]
    mixed = sum(F.scaled_dot_product_attention(a, b, v) for a, b in pairs) if pairs else v
    mixed = mixed.transpose(1, 2).flatten(2)
    return _linear(mixed, module.out_proj.weight, module.out_proj.bias)


def _linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """F.linear of (n, token, channel); on a CPU as a convolution, a fifth faster on an AMD EPYC.

    Torch leaves products of float32 matrices to MKL, and convolutions to oneDNN.
    """
    if x.device.type != "cpu":
        return F.linear(x, weight, bias)
    rows = x.flatten(0, 1)[None, :, None].permute(0, 3, 1, 2)  # (1, channel, n token, 1)
    found = F.conv2d(rows, weight[:, :, None, None], bias)
    return found[0, :, :, 0].T.unflatten(0, x.shape[:2])


# --- convolutional towers ----------------------------------------------------------------------


def timm_features(tower: TimmModel, images: torch.Tensor) -> Features:
    """Feature map of a convolutional timm tower, each cell through the tower's own head.

    A cell is given to the head as an image of one pixel, of which the pooling is the cell itself;
    so its norm and projection apply, whatever they are called.

    Args:
        tower: open_clip's module.
        images: (n, 3, H, W), normalised.

    Returns:
        (n, dim, h, w) and the tower's embedding of the image (n, dim), not normalised.
    """
    images = images.contiguous(memory_format=torch.channels_last)
    features = tower.trunk.forward_features(images)
    whole = tower.head(tower.trunk.forward_head(features))
    cells = features.permute(0, 2, 3, 1)  # (n, h, w, channel)
    embedded = tower.head(tower.trunk.forward_head(cells.flatten(0, 2)[:, :, None, None]))
    return embedded.unflatten(0, cells.shape[:3]).permute(0, 3, 1, 2), whole


def resnet_features(tower: ModifiedResNet, images: torch.Tensor) -> Features:
    """Feature map of OpenAI's ResNets; each cell through the pool's value and output projections.

    That is MaskCLIP's way: attention pooling without the attention. The pool itself takes images of one size only, so
    that there is no embedding of the whole.
    """
    x = tower.layer4(tower.layer3(tower.layer2(tower.layer1(tower.stem(images)))))
    pool = tower.attnpool
    return pool.c_proj(pool.v_proj(x.permute(0, 2, 3, 1))).permute(0, 3, 1, 2), None


@torch.inference_mode()
def _probe(tower: TimmModel, clip: Clip) -> tuple[int, int]:
    """Patch size and feature channels of a timm tower, found out with an empty image."""
    images = torch.zeros(1, 3, *tower.image_size, device=clip.device)
    cells = tower.trunk.forward_features(images)
    convolutional = cells.ndim == 4 and cells.shape[1] == tower.trunk.num_features
    if not convolutional or hasattr(tower.head, "pool"):  # tokens, channels last; attention pool
        raise _unsupported(clip)
    patch = round(images.shape[-1] / cells.shape[-1])
    return patch, timm_features(tower, images)[0].shape[1]


@torch.inference_mode()
def _folded(tower: TimmModel, clip: Clip) -> TimmModel:
    """A copy of the tower with batch norms worked into the convolutions before them, if there are any.

    In evaluation such a norm is a scale and an offset a channel: the same map, in less than half the time of a small
    tower, which is bound by memory. Which norm follows which convolution is seen on an empty image.
    """
    tower = copy.deepcopy(tower).to(memory_format=torch.channels_last)
    made: dict[int, tuple[nn.Conv2d, torch.Tensor]] = {}  # the tensor too: its id stays its own
    pairs: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []

    def note(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        if isinstance(module, nn.Conv2d):
            made[id(output)] = module, output
        elif id(inputs[0]) in made:
            pairs.append((made[id(inputs[0])][0], module))

    kinds = (nn.Conv2d, nn.BatchNorm2d)
    hooks = [m.register_forward_hook(note) for m in tower.trunk.modules() if isinstance(m, kinds)]
    tower.trunk.forward_features(torch.zeros(1, 3, *tower.image_size, device=clip.device))
    for hook in hooks:
        hook.remove()
    names = {module: name for name, module in tower.trunk.named_modules()}
    for conv, norm in pairs:
        numbers = norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
        conv.weight, conv.bias = fuse_conv_bn_weights(conv.weight, conv.bias, *numbers)
        activation = getattr(norm, "act", nn.Identity())  # part of timm's norms
        tower.trunk.set_submodule(names[norm], activation)
    return tower


# --- windows -----------------------------------------------------------------------------------


def window_starts(size: int, window: int, stride: int) -> list[int]:
    """First pixels of the windows along one side; the last window is shifted back to fit."""
    steps = -(-max(size - window, 0) // stride)
    return [min(i * stride, max(size - window, 0)) for i in range(steps + 1)]


def slide(
    read: Callable[[int, int], np.ndarray],
    size: tuple[int, int],
    encoder: Encoder,
    text: torch.Tensor,
    upsampler: Upsampler,
    *,
    window: int = 224,
    stride: int = 112,
    global_bias: float = -0.3,
    batch: int = 8,
) -> Iterator[tuple[int, np.ndarray]]:
    """Mean cosine of every pixel with every phrase, band of rows by band of rows.

    Only one row of windows is read and held at a time; rows are yielded as soon as no further
    window covers them. An image smaller than a window is padded to it on both sides by reflection
    (as often as it takes); the published code would shrink the window.

    Args:
        read: gives rows first..last of the image, (3, rows, W) float32, normalised for the model.
        size: H and W of the image.
        encoder: dense encoder.
        text: (phrase, dim), normalised.
        upsampler: of make_upsampler.
        window: side of a window in pixels.
        stride: step between windows in pixels, at most `window`.
        global_bias: see window_cosines.
        batch: windows that go through the model together.

    Yields:
        First row, and cosines (phrase, rows, W) float32.
    """
    if not 0 < stride <= window:
        raise UserError(f"stride {stride} must be positive and at most window {window}")
    h, w = size
    before = [max(window - n, 0) // 2 for n in size]
    after = [max(window - n, 0) - b for n, b in zip(size, before, strict=True)]
    margins = [(0, 0), *zip(before, after, strict=True)]
    height, width = max(h, window), max(w, window)
    tops, lefts = window_starts(height, window, stride), window_starts(width, window, stride)
    total = np.zeros((len(text), window, width), np.float32)
    counts = np.zeros((window, width), np.float32)
    progress = tqdm(total=len(tops) * len(lefts), desc="windows", disable=None)
    for top, following in zip(tops, [*tops[1:], height], strict=True):
        strip = np.pad(read(top, min(top + window, h)), margins, mode="reflect")
        for first in range(0, len(lefts), batch):
            columns = lefts[first : first + batch]
            crops = np.stack([strip[:, :, x : x + window] for x in columns])
            images = torch.from_numpy(crops).to(encoder.device)
            cosines = window_cosines(images, encoder, text, upsampler, global_bias)
            for x, cosine in zip(columns, cosines.cpu().numpy(), strict=True):
                total[:, :, x : x + window] += cosine
                counts[:, x : x + window] += 1
            progress.update(len(columns))
        done = following - top  # rows that no further window covers
        mean = total[:, :done] / counts[:done]
        yield top, mean[:, before[0] : before[0] + h, before[1] : before[1] + w]
        total = np.concatenate([total[:, done:], np.zeros_like(total[:, :done])], 1)
        counts = np.concatenate([counts[done:], np.zeros_like(counts[:done])])
    progress.close()


@torch.inference_mode()
def window_cosines(
    images: torch.Tensor,
    encoder: Encoder,
    text: torch.Tensor,
    upsampler: Upsampler,
    global_bias: float = -0.3,
) -> torch.Tensor:
    """Cosine of every pixel of the windows with every phrase, plus the weighted one of its whole window.

    What a model says of a whole window is in all its cells; with a weight below 0, what stands out from the window
    counts more (SegEarth-OV's global bias). Its class token is what a ViT says of a window; a convolutional tower says
    it by its pooled embedding, which the published code does not use: for the bundled model on aerial pictures that it
    was not trained on, see MODEL_CARD.md.

    Windows that are no multiple of the patch are padded on both sides with the model's mean colour,
    as published. Where the upsampler ends at another size, the cosines are resized bilinearly.

    Args:
        images: (n, 3, H, W), normalised.
        encoder: dense encoder.
        text: (phrase, dim), normalised.
        upsampler: of make_upsampler.
        global_bias: factor of the whole window's cosines.

    Returns:
        (n, phrase, H, W).
    """
    h, w = images.shape[-2:]
    top, left = (-h % encoder.patch) // 2, (-w % encoder.patch) // 2
    images = F.pad(images, (left, -w % encoder.patch - left, top, -h % encoder.patch - top))
    cells, whole = encoder.features(images)
    cosines = upsampler(cells, text, images)
    if cosines.shape[-2:] != images.shape[-2:]:
        cosines = F.interpolate(cosines, images.shape[-2:], mode="bilinear")
    if whole is not None:
        bias = F.normalize(whole, dim=1) @ text.T
        cosines = cosines + global_bias * bias[:, :, None, None]
    return cosines[:, :, top : top + h, left : left + w]
