"""Features of every patch of an image, from CLIP's image towers that were trained for one embedding per image.

Patches are a ViT's, or the pixels of a convolutional tower's feature map. The attention kinds are SegEarth-OV's (arXiv
2410.01768) and, of its baselines, SCLIP's (2312.01597), ClearCLIP's (2407.12442) and MaskCLIP's (2112.01071). Reads
open_clip's modules; changes none.
"""

import contextlib
import copy
from collections.abc import Callable
from functools import cache, partial, reduce
from typing import NamedTuple

import torch
from open_clip.modified_resnet import ModifiedResNet
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from special_steps.clip.model import Clip
from special_steps.core.errors import UserError

ATTENTION = ("segearth", "sclip", "clearclip", "maskclip", "vanilla")
PRECISION = {"fp32": None, "fp16": torch.float16, "bf16": torch.bfloat16}

# Patch features (n, dim, h, w), and what the tower says of the whole image (n, dim) where it says anything.
Features = tuple[torch.Tensor, torch.Tensor | None]


class Encoder(NamedTuple):
    """Dense features of normalised images, and what the images must fit."""

    features: Callable[[torch.Tensor], Features]  # of images (n, 3, H, W); float32, not normalised
    patch: int  # pixels along a patch's side: images must be multiples of it
    dim: int  # feature channels
    device: torch.device


def make_encoder(clip: Clip, attention: str, precision: str) -> Encoder:
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
    dense: Callable[[torch.Tensor], Features]
    if isinstance(tower, VisionTransformer) and _is_plain(tower):
        patch, dim = tower.patch_size[0], tower.output_dim
        positions = cache(partial(resized_positions, tower))

        def dense(images: torch.Tensor) -> Features:
            grid = images.shape[-2] // patch, images.shape[-1] // patch
            return vit_features(tower, images, attention, positions(*grid))

    elif isinstance(tower, ModifiedResNet):
        patch, dim, dense = 32, tower.output_dim, partial(resnet_features, tower)
    elif isinstance(tower, TimmModel) and not hasattr(tower.head, "pool"):  # an attention pool
        tower, patch, dim = prepared_tower(tower, clip)
        dense = partial(timm_features, tower)
    else:
        raise _unsupported(clip)
    dtype = PRECISION[precision] if clip.device.type == "cuda" else None

    def features(images: torch.Tensor) -> Features:
        cast = torch.autocast("cuda", dtype) if dtype else contextlib.nullcontext()
        with torch.inference_mode(), cast:
            patch_features, window_embedding = dense(images)
            if window_embedding is not None:
                window_embedding = window_embedding.float()
            return patch_features.float(), window_embedding

    return Encoder(features, patch, dim, clip.device)


def _unsupported(clip: Clip) -> UserError:
    tower = clip.model.visual
    kind = type(getattr(tower, "trunk", tower)).__name__
    return UserError(
        f"model {clip.name}: image tower {kind} has no dense features here; supported are"
        " open_clip's own ViTs (ViT-B-16, ...), ResNets (RN50, ...), and timm's convolutional towers (convnext_*)"
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
    places: tests/unit/clip/test_encoder.py measures the difference.
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
    values = (F.scaled_dot_product_attention(a, b, v) for a, b in pairs)
    mixed = reduce(torch.add, values) if pairs else v
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
    """Feature map of a convolutional timm tower, each of its pixels through the tower's own head.

    A pixel is given to the head as an image of one pixel, of which the pooling is the pixel itself;
    so its norm and projection apply, whatever they are called.

    Args:
        tower: open_clip's module.
        images: (n, 3, H, W), normalised.

    Returns:
        (n, dim, h, w) and the tower's embedding of the image (n, dim), not normalised.
    """
    images = images.contiguous(memory_format=torch.channels_last)
    feature_map = tower.trunk.forward_features(images)
    window_embedding = tower.head(tower.trunk.forward_head(feature_map))
    pixels = feature_map.permute(0, 2, 3, 1)  # (n, h, w, channel)
    embedded = tower.head(tower.trunk.forward_head(pixels.flatten(0, 2)[:, :, None, None]))
    return embedded.unflatten(0, pixels.shape[:3]).permute(0, 3, 1, 2), window_embedding


def resnet_features(tower: ModifiedResNet, images: torch.Tensor) -> Features:
    """Feature map of OpenAI's ResNets; each pixel through the pool's value and output projections.

    That is MaskCLIP's way: attention pooling without the attention. The pool itself takes images of one size only, so
    that there is no embedding of the whole image.

    Args:
        tower: open_clip's module.
        images: (n, 3, H, W), normalised.

    Returns:
        (n, dim, H / 32, W / 32), not normalised, and None.
    """
    x = tower.layer4(tower.layer3(tower.layer2(tower.layer1(tower.stem(images)))))
    pool = tower.attnpool
    return pool.c_proj(pool.v_proj(x.permute(0, 2, 3, 1))).permute(0, 3, 1, 2), None


@torch.inference_mode()
def prepared_tower(tower: TimmModel, clip: Clip) -> tuple[TimmModel, int, int]:
    """A copy of a tower without batch norms, its patch size in pixels, and its feature channels.

    In evaluation a norm after a convolution is a scale and an offset a channel: worked into the convolution, it gives
    the same map, in less than half the time of a small tower, which is bound by memory. Which norm follows which
    convolution, and the sizes, are seen on an empty image.

    Args:
        tower: open_clip's module, in eval mode; not changed.
        clip: its model.

    Raises:
        UserError: for towers that are not convolutional.
    """
    tower = copy.deepcopy(tower).to(memory_format=torch.channels_last)
    made: dict[int, tuple[nn.Conv2d, torch.Tensor]] = {}  # the tensor too: its id stays its own
    pairs: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []

    def note(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        if isinstance(module, nn.Conv2d):
            made[id(output)] = module, output
        elif isinstance(module, nn.BatchNorm2d) and id(inputs[0]) in made:
            pairs.append((made[id(inputs[0])][0], module))

    hooks = [module.register_forward_hook(note) for module in tower.trunk.modules()]
    images = torch.zeros(1, 3, *tower.image_size, device=clip.device)
    feature_map = tower.trunk.forward_features(images)
    for hook in hooks:
        hook.remove()
    if feature_map.ndim != 4 or feature_map.shape[1] != tower.trunk.num_features:
        raise _unsupported(clip)  # tokens, or channels last
    names = {module: name for name, module in tower.trunk.named_modules()}
    for conv, norm in pairs:
        tower.trunk.set_submodule(names[conv], fuse_conv_bn_eval(conv, norm))
        activation = getattr(norm, "act", nn.Identity())  # part of timm's norms
        tower.trunk.set_submodule(names[norm], activation)
    patch = round(images.shape[-1] / feature_map.shape[-1])
    return tower, patch, tower.head(tower.trunk.forward_head(feature_map)).shape[1]
