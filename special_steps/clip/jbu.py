"""Learned joint bilateral upsampling (FeatUp, arXiv 2403.10516; SimFeatUp of SegEarth-OV, 2410.01768).

Four doublings, each a filter of 11 x 11 pixels whose weights a small network reads from the image, then a linear
`fixup` of the features. The cosines with phrases need no features at pixels: see jbu_cosines.
"""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.nn import functional as F

from special_steps.clip.checkpoint import read_state
from special_steps.core.errors import UserError
from special_steps.kernels import build
from special_steps.kernels.jbu import double_map

TILE = 8  # pixels along a tile's side without the kernel, or what divides the window's
BLOCK = (2, 7)  # rows and columns of such tiles that a CPU's core does at a time


def load_jbu(path: Path, device: torch.device, dim: int) -> dict[str, torch.Tensor]:
    """Read the state dict of a learned upsampler: SimFeatUp's (`up.*`) or FeatUp's (`up1.*` ...).

    Args:
        path: .safetensors, or .pt and the like; keys may carry a prefix `upsampler.`.
        device: where to put it.
        dim: feature channels of the CLIP model.

    Raises:
        UserError: for files that hold something else, or an upsampler of another model.
    """
    state = {k.removeprefix("upsampler."): v.float() for k, v in read_state(path).items()}
    layers = product(("range_proj", "fixup_proj"), (0, 3), ("weight", "bias"))
    parts = ["range_temp", "sigma_spatial", *(f"{name}.{i}.{kind}" for name, i, kind in layers)]
    modules = ("up",) if "up.range_temp" in state else ("up1", "up2", "up3", "up4")
    wanted = [f"{module}.{part}" for module in modules for part in parts]
    missing = [k for k in [*wanted, "fixup_proj.1.weight", "fixup_proj.1.bias"] if k not in state]
    if missing:
        raise UserError(
            f"{path}: not a learned JBU upsampler: no {missing[0]} in the checkpoint;"
            " give one of FeatUp or SimFeatUp"
        )
    found = state["fixup_proj.1.weight"].shape
    if found != (dim, dim, 1, 1):
        raise UserError(
            f"{path}: the upsampler is for {found[0]} feature channels, the CLIP model has {dim};"
            " give the one that was trained with this model"
        )
    return {k: v.to(device) for k, v in state.items()}


class Coordinates(NamedTuple):
    """What filtered channels are."""

    axes: int  # first so many: coordinates of features, of which the lengths are known
    phrases: int  # then products with so many phrases
    offset: torch.Tensor  # (channel,): to be added to both


def cosines_of_coordinates(pixels: torch.Tensor, known: Coordinates) -> torch.Tensor:
    """Cosines with phrases (..., phrase) of pixels (..., channel)."""
    axes, count, offset = known
    products = pixels[..., axes : axes + count] + offset[axes : axes + count]
    lengths = torch.linalg.vector_norm(pixels[..., :axes] + offset[:axes], dim=-1, keepdim=True)
    return products / lengths.clamp(min=1e-12)


def jbu_cosines(
    state: dict[str, torch.Tensor],
    patch_features: torch.Tensor,
    text: torch.Tensor,
    image: torch.Tensor,
) -> torch.Tensor:
    """Cosines with phrases of features that a learned upsampler brings to the image's pixels.

    The upsampled features are f + 0.1 (W f + b) of the linearly filtered f. The filter sees the
    coordinates of the features in an orthonormal basis of the window's own patches: fewer channels
    (at most 197 for 14 x 14 patches), the same lengths and products.

    Args:
        state: of load_jbu.
        patch_features: (1, dim, h, w).
        text: (phrase, dim), normalised.
        image: (1, 3, H, W), normalised for the model.

    Returns:
        (1, phrase, 16 h, 16 w).

    Raises:
        UserError: where the map is smaller than the filter reaches.
    """
    weight = 0.1 * state["fixup_proj.1.weight"][:, :, 0, 0]
    bias = 0.1 * state["fixup_proj.1.bias"]
    matrix = patch_features[0].flatten(1)  # (dim, patch)
    matrix = torch.cat([bias[:, None], matrix + weight @ matrix], 1)
    coordinates = torch.linalg.qr(matrix).R
    channels = torch.cat([coordinates, text @ matrix])
    channels = F.pad(channels, (0, 0, 0, -len(channels) % 16))  # whole vectors
    known = Coordinates(len(coordinates), len(text), channels[:, 0].contiguous())
    source = channels[:, 1:].unflatten(1, patch_features.shape[-2:])[None]
    return jbu_filter(state, source, image, known)


def jbu_filter(
    state: dict[str, torch.Tensor],
    source: torch.Tensor,
    guidance: torch.Tensor,
    end: Coordinates | None,
) -> torch.Tensor:
    """The linear part of a learned upsampler: four doublings, any number of channels.

    Args:
        state: as in load_jbu.
        source: (1, channel, h, w); channels in multiples of 16, or the slower way is taken.
        guidance: (1, 3, H, W), normalised for the model.
        end: what the channels are, if cosines are wanted.

    Returns:
        (1, channel or phrase, 16 h, 16 w).

    Raises:
        UserError: where the map is smaller than the filter reaches.
    """
    source = source[0].permute(1, 2, 0).contiguous()
    for i in range(4):
        prefix = "up." if "up.range_temp" in state else f"up{i + 1}."
        stage = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        h, w, channels = source.shape
        d = round(stage["fixup_proj.3.weight"].shape[0] ** 0.5)
        if min(h, w) <= d // 4:
            raise UserError(
                f"upsampling jbu needs more than {d // 4} patches along a window's side; enlarge window"
            )
        small = F.adaptive_avg_pool2d(guidance, (2 * h, 2 * w))[0]
        fits = d == 11 and channels % 16 == 0 and source.device.type == "cpu"
        double = _double if fits and build.available("jbu") else _double_in_tiles
        source = double(stage, source, small, end if i == 3 else None)
    return source.permute(2, 0, 1)[None]


def _double(
    state: dict[str, torch.Tensor],
    source: torch.Tensor,
    guidance: torch.Tensor,
    end: Coordinates | None,
) -> torch.Tensor:
    """One stage by the kernel: resize bicubically to the guidance, then filter per pixel.

    Args:
        state: of this stage.
        source: (h, w, channel).
        guidance: (3, 2 h, 2 w).
        end: as in jbu_filter.

    Returns:
        (2 h, 2 w, channel or phrase).
    """
    names = product(("range_proj", "fixup_proj"), (0, 3), ("weight", "bias"))
    layers = [state[f"{name}.{i}.{kind}"] for name, i, kind in names]
    layers[6:] = [0.1 * x for x in layers[6:]]
    resizing = _resizing(11, source.device)
    return double_map(source, guidance, layers, *_softmax(state), resizing, end)


def _double_in_tiles(
    state: dict[str, torch.Tensor],
    source: torch.Tensor,
    guidance: torch.Tensor,
    end: Coordinates | None,
) -> torch.Tensor:
    """One stage by torch, as `_double`: on a GPU, or without a compiler.

    All is worked through in tiles of pixels, so that every sum is a product of matrices; on a CPU
    in blocks of tiles, so that what is known of pixels fits into its cache.
    """
    d = round(state["fixup_proj.3.weight"].shape[0] ** 0.5)
    r = d // 2
    h, w = guidance.shape[-2:]
    t = math.gcd(h, w, TILE)
    reach = (r + 4) // 2  # cells beyond the tile's that bicubic resizing looks at
    colours = guidance.permute(1, 2, 0)
    keys = _linear(state, "range_proj.3", F.gelu(_linear(state, "range_proj.0", colours)))
    around, beyond = _padded(keys, r, "reflect"), _padded(source, reach, "replicate")
    squares = (
        (keys, t, t),
        (around, t + 2 * r, t),
        (colours, t, t),
        (beyond, t // 2 + 2 * reach, t // 2),
    )
    # Of tiles: (row, column, side, side, channel).
    tiles = [
        x.unfold(0, side, step).unfold(1, side, step).movedim(2, 4) for x, side, step in squares
    ]
    mirror = [_mirrored(size, d, source.device).unflatten(0, (-1, t)) for size in (h, w)]
    rows, columns = BLOCK if source.device.type == "cpu" else (h // t, w // t)
    out = source.new_empty(h // t, t, w // t, t, end.phrases if end else source.shape[2])

    @torch.inference_mode()
    def work(corner: tuple[int, int]) -> None:
        at = slice(corner[0], corner[0] + rows), slice(corner[1], corner[1] + columns)
        own, near, colours, values = (x[at] for x in tiles)
        along = [table[part] for table, part in zip(mirror, at, strict=True)]
        kernels = _spread(_kernels(state, own, near, colours, *along))
        pixels = kernels @ values.flatten(2, 3).flatten(0, 1)  # (tile, t t, channel)
        pixels = cosines_of_coordinates(pixels, end) if end else pixels
        out[at[0], :, at[1]] = pixels.view(*own.shape[:4], -1).transpose(1, 2)

    _in_threads(work, [*product(range(0, h // t, rows), range(0, w // t, columns))], source.device)
    return out.view(h, w, -1)


def _in_threads(work: Callable[[Any], None], items: list[Any], device: torch.device) -> None:
    """Do the items; on a CPU one per core: what an item does is too little to be shared by cores."""
    if device.type != "cpu":
        for item in items:
            work(item)
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(work, items))
    finally:
        torch.set_num_threads(threads)


def _softmax(state: dict[str, torch.Tensor]) -> tuple[float, torch.Tensor]:
    """What products of keys are multiplied by, and what is added then for each of the d x d pixels."""
    d = round(state["fixup_proj.3.weight"].shape[0] ** 0.5)
    line = torch.linspace(-1, 1, d, device=state["sigma_spatial"].device)
    gaussian = (line[:, None].square() + line.square()) / (-2 * state["sigma_spatial"] ** 2)
    return float(state["range_temp"].exp().clamp(1e-4, 1e4)), gaussian


def _kernels(
    state: dict[str, torch.Tensor],
    own: torch.Tensor,
    near: torch.Tensor,
    colours: torch.Tensor,
    mirror_y: torch.Tensor,
    mirror_x: torch.Tensor,
) -> torch.Tensor:
    """Weights of the small map's cells for the pixels of some tiles.

    The kernel over d x d pixels is a softmax of the products of projected guidance (range), times a
    Gaussian (spatial), normalised, plus a learned correction. Here the Gaussian's exponent goes into
    the softmax, which is the same, except where the published code keeps from dividing by less than
    1e-7. Beyond the window, pixels are mirrored. The bicubic resizing of what is filtered goes into
    the kernels: they are fewer than the channels.

    Args:
        state: of this stage.
        own: (rows, columns, t, t, key).
        near: (rows, columns, t + 2 r, t + 2 r, key).
        colours: (rows, columns, t, t, 3).
        mirror_y: (rows, t, d, d), of _mirrored.
        mirror_x: (columns, t, d, d), of _mirrored.

    Returns:
        (2, 2, rows, columns, t / 2, t / 2, taps, taps): pixels of even and odd y and x apart.
    """
    d = round(state["fixup_proj.3.weight"].shape[0] ** 0.5)
    rows, columns, t = own.shape[:3]
    shape, side = (2, 2, rows, columns, t // 2, t // 2), near.shape[2]
    first, second = (state[f"fixup_proj.{i}.weight"][:, :, 0, 0] for i in (0, 3))
    # Of each pixel's products with all that is near the tile, the d x d around it.
    products = own.flatten(2, 3).flatten(0, 1) @ near.flatten(2, 3).flatten(0, 1).mT
    tile, y, x = t * t * side**2, t * side**2 + side, side**2 + 1
    strides = (y, x, columns * tile, tile, 2 * y, 2 * x, side, 1)
    products = products.as_strided((*shape, d, d), strides)
    temperature, gaussian = _softmax(state)
    kernel = own.new_empty(*shape, d, d)
    torch.add(gaussian, products, alpha=temperature, out=kernel)
    kernel = kernel.view(-1, d * d).softmax(1)
    colours = colours.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).permute(3, 5, 0, 1, 2, 4, 6)
    hidden = F.linear(colours.reshape(-1, 3), first[:, d * d :], state["fixup_proj.0.bias"])
    hidden = F.gelu(hidden.addmm_(kernel, first[:, : d * d].T))
    kernel = F.linear(hidden, 0.1 * second, 0.1 * state["fixup_proj.3.bias"]).add_(kernel)
    kernel = kernel.view(*shape, d, d)
    if _moves(mirror_x):
        along = mirror_x.unflatten(1, (-1, 2)).movedim(2, 0)  # (2, columns, t / 2, d, d)
        kernel = kernel @ along[:, None, :, None]
    if _moves(mirror_y):
        along = mirror_y.unflatten(1, (-1, 2)).movedim(2, 0)  # (2, rows, t / 2, d, d)
        kernel = along[:, None, :, None, :, None].mT @ kernel
    table = _resizing_both(d, own.device)
    taps = round(table.shape[2] ** 0.5)
    return (kernel.view(4, -1, d * d) @ table).view(*shape, taps, taps)


def _spread(kernels: torch.Tensor) -> torch.Tensor:
    """Weights as a matrix for each tile, zero where a pixel does not see a cell.

    Args:
        kernels: (2, 2, rows, columns, t / 2, t / 2, taps, taps), of _kernels.

    Returns:
        (rows columns, t t, side side), side = t / 2 + taps - 1.
    """
    _, _, rows, columns, half, _, taps, _ = kernels.shape
    side = half + taps - 1
    out = kernels.new_zeros(rows * columns, 4 * half * half, side * side)
    x = side * side
    y, tile = 2 * half * x, 4 * half * half * x
    strides = (y, x, columns * tile, tile, 2 * y + side, 2 * x + 1, side, 1)
    out.as_strided(kernels.shape, strides).copy_(kernels)
    return out


def _padded(x: torch.Tensor, reach: int, mode: str) -> torch.Tensor:
    """The map (y, x, channel) with `reach` more on all sides."""
    return F.pad(x.permute(2, 0, 1)[None], (reach,) * 4, mode=mode)[0].permute(1, 2, 0)


def _moves(mirror: torch.Tensor) -> bool:
    """Whether some tap is not where it was: near a border."""
    return bool((mirror.diagonal(dim1=-2, dim2=-1) != 1).any())


@cache
def _mirrored(size: int, d: int, device: torch.device) -> torch.Tensor:
    """For each pixel along a side, where its taps are when mirrored at the ends: (size, d, d)."""
    pixels = torch.arange(size, device=device)
    seen = F.pad(pixels[None, None].float(), (d // 2, d // 2), mode="reflect")[0, 0]
    taps = seen.long().unfold(0, d, 1) - pixels[:, None] + d // 2
    return F.one_hot(taps, d).float()


@cache
def _resizing(d: int, device: torch.device) -> torch.Tensor:
    """Bicubic doubling along a side, as weights of the small map's cells for each tap of a pixel.

    Returns:
        (2, 2 reach + 1, d), reach as in _double_in_tiles, for even and odd pixels: of d pixels
        around one, the weights of the cells around its own.
    """
    reach = (d // 2 + 4) // 2
    size = 4 * reach + 1  # with as much again around, for the border is not alike
    eye = torch.eye(size, device=device)[None, None]
    along = F.interpolate(eye, (2 * size, size), mode="bicubic")[0, 0, :, reach:-reach]
    first = 4 * reach - d // 2
    return along[first : first + d + 1].unfold(0, d, 1).contiguous()


@cache
def _resizing_both(d: int, device: torch.device) -> torch.Tensor:
    """The same along both sides: (4, d d, taps taps), for pixels of even and odd y and x."""
    along = _resizing(d, device)
    return torch.einsum("yai,xbj->yxijab", along, along).flatten(4).flatten(2, 3).flatten(0, 1)


def _linear(state: dict[str, torch.Tensor], name: str, x: torch.Tensor) -> torch.Tensor:
    return F.linear(x, state[name + ".weight"][:, :, 0, 0], state[name + ".bias"])
