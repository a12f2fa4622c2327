"""Upsampling of patch features to pixels: bilinear, guided (weight-free) and jbu (learned).

What is wanted in the end is the cosine of each pixel's features with a few phrases. Each upsampling is a linear filter
over the cells of the feature map, with weights that do not look at the features. So neither needs the 512 or more
feature channels at every pixel: the products with the phrases and the lengths follow from products of cells. The result
is that of the plain way, up to rounding (tests/unit/test_upsample.py).
"""

import math
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from torch.nn import functional as F

from special_steps.clip_model import read_state
from special_steps.errors import UserError

TILE = 8  # pixels along a tile's side in jbu, or what divides the window's
ROWS = 2  # tile rows in a strip, which a CPU's cache holds
METHODS = ("bilinear", "guided", "jbu", "none")
REACH = 2  # cells that the guided filter looks at in each direction: 5 x 5
SPATIAL = 0.6  # its spatial standard deviation in cells: between bilinear's 0.41 and visible blur
RANGE = 0.1  # its range standard deviation per colour of an RGB image in [0, 1]

# Cells (n, dim, h, w), phrases (phrase, dim) normalised, and the window (n, 3, H, W) as the model
# sees it -> cosines (n, phrase, H', W'), where H' x W' is near H x W: exactly that for bilinear,
# 16 h x 16 w for jbu, a whole number times h x w for guided, h x w for none.
Upsampler = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def make_upsampler(
    method: str,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    jbu_state: dict[str, torch.Tensor] | None = None,
) -> Upsampler:
    """The upsampler of that name, for images normalised by `mean` and `std`."""
    if method == "none":
        return lambda cells, text, image: cosines_of_filter(lambda x: x, cells, text)
    if method == "bilinear":
        return bilinear
    if method == "guided":
        return lambda cells, text, image: guided(cells, text, _colours(image, mean, std))
    if method != "jbu":
        raise UserError(f"unknown upsampling '{method}'; choose one of {', '.join(METHODS)}")
    if jbu_state is None:
        raise UserError("upsampling jbu needs jbu_weights, the checkpoint of a learned upsampler")
    weight = 0.1 * jbu_state["fixup_proj.1.weight"][:, :, 0, 0]
    bias = 0.1 * jbu_state["fixup_proj.1.bias"]
    return lambda cells, text, image: cosines_of_filter(
        lambda x: jbu_filter(jbu_state, x, image), cells, text, weight, bias
    )


def _colours(image: torch.Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> torch.Tensor:
    """Undo the model's normalisation: back to [0, 1]."""
    return image * image.new_tensor(std).view(3, 1, 1) + image.new_tensor(mean).view(3, 1, 1)


def cosines_of_filter(
    filter_: Callable[[torch.Tensor], torch.Tensor],
    cells: torch.Tensor,
    text: torch.Tensor,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """Cosines of filtered features with phrases.

    The filter sees the coordinates of the features in an orthonormal basis of the window's own
    cells: fewer channels (at most 196 for 14 x 14 cells), the same lengths and products.

    Args:
        filter_: linear, (n, channel, h, w) -> (n, channel, H, W), the same for every channel.
        cells: (n, dim, h, w).
        text: (phrase, dim), normalised.
        weight: (dim, dim); filtered features f become f + weight f + bias. None: they stay f.
        bias: (dim,).

    Returns:
        (n, phrase, H, W).
    """
    h, w = cells.shape[-2:]
    matrix = cells.flatten(2)  # (n, dim, cell)
    if weight is not None:
        matrix = torch.cat([matrix + weight @ matrix, bias.expand(len(cells), -1)[..., None]], 2)
    basis, coordinates = torch.linalg.qr(matrix)
    pixels = filter_(coordinates[:, :, : h * w].unflatten(2, (h, w)))
    if weight is not None:
        pixels = pixels + coordinates[:, :, h * w :, None]
    products = (text @ basis) @ pixels.flatten(2)
    lengths = torch.linalg.vector_norm(pixels, dim=1).clamp(min=1e-12)
    return products.unflatten(2, pixels.shape[-2:]) / lengths[:, None]


# --- bilinear and guided: few cells around each pixel ------------------------------------------


def cosines_of_weights(
    cells: torch.Tensor, text: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """Cosines with phrases of features that are weighted sums of the cells around a pixel's own.

    A pixel's product with a phrase is the weighted sum of the cells' products; its length is w' G w,
    with G the products of those cells among each other. Pixels come last, so that all steps run
    along them; nothing has the features' channels but the cells.

    Args:
        cells: (n, dim, h, w).
        text: (phrase, dim), normalised.
        weights: (n, h w, taps, s s), or 1 where all are alike: for every cell, of the side x side
            cells around it, for every pixel in it. Any factor per pixel cancels. Cells outside the
            map are those at its border.

    Returns:
        (n, phrase, h s, w s).
    """
    n, _, h, w = cells.shape
    taps, pixels = weights.shape[2:]
    near, _ = _around(h, w, round(taps**0.5) // 2, cells.device)
    flat = cells.flatten(2)
    gram = (flat.mT @ flat)[:, near[:, :, None], near[:, None]]  # (n, h w, taps, taps)
    products = (text @ flat)[:, :, near].transpose(1, 2)  # (n, h w, phrase, taps)
    sums = torch.cat([gram, products], 2) @ weights
    squares = (sums[:, :, :taps] * weights).sum(2, keepdim=True)
    cosines = sums[:, :, taps:] * squares.clamp(min=1e-24).rsqrt()
    s = round(pixels**0.5)
    parts = cosines.view(n, h, w, len(text), s, s)
    return parts.permute(0, 3, 1, 4, 2, 5).reshape(n, len(text), h * s, w * s)


def bilinear(cells: torch.Tensor, text: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """Cosines with phrases of bilinearly upsampled features, as F.interpolate upsamples.

    Args:
        cells: (n, dim, h, w).
        text: (phrase, dim), normalised.
        image: (n, 3, H, W), for its size.

    Returns:
        (n, phrase, h s, w s), s = H / h rounded.
    """
    s = _factor(image, *cells.shape[-2:])
    along = (1 - _along(s, 1, image.device).abs()).clamp(min=0)
    weights = along[:, None, :, None] * along[:, None]  # (3, 3, s, s)
    return cosines_of_weights(cells, text, weights.view(1, 1, 9, s * s))


def guided(cells: torch.Tensor, text: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """Cosines with phrases of features upsampled along the image's edges: see guided_weights.

    Args:
        cells: (n, dim, h, w).
        text: (phrase, dim), normalised.
        image: (n, 3, H, W), RGB in [0, 1].

    Returns:
        (n, phrase, h s, w s), s = H / h rounded.
    """
    return cosines_of_weights(cells, text, guided_weights(image, *cells.shape[-2:]))


def guided_weights(image: torch.Tensor, h: int, w: int) -> torch.Tensor:
    """Weights of the cells around each pixel, a softmax of -d^2 / 2 SPATIAL^2 - c^2 / 2 RANGE^2.

    d is the distance from the pixel to the cell's centre in cells, c the distance between the
    pixel's colour and the cell's mean colour. So a pixel at an edge takes the features of the cells
    that look like it. Cells outside the map have no weight.

    Args:
        image: (n, 3, H, W), RGB in [0, 1]; resized to h s x w s, s = H / h rounded.
        h: cells along y.
        w: cells along x.

    Returns:
        (n, h w, 25, s s): for every cell, of the cells around it, for every pixel in it.
    """
    s = _factor(image, h, w)
    if image.shape[-2:] != (h * s, w * s):
        image = F.interpolate(image, (h * s, w * s), mode="bilinear", antialias=True)
    pixels = image.view(-1, 3, h, s, w, s).permute(0, 2, 4, 1, 3, 5).reshape(-1, h * w, 3, s * s)
    centres = pixels.mean(3)
    index, inside = _around(h, w, REACH, image.device)
    # c^2 = p p' - 2 p q' + q q' of pixel p and cell q, of which p p' is the same for all cells and
    # falls out of the softmax. Colours count from the own cell's, so that little cancels.
    near = (centres[:, index] - centres[:, :, None]) / RANGE  # (n, h w, 25, 3)
    pixels = (pixels - centres[..., None]) / RANGE
    fixed = near.square().sum(3) / 2 + torch.where(inside, 0, torch.inf)
    distance = _along(s, REACH, image.device).square() / (2 * SPATIAL**2)
    distance = (distance[:, None, :, None] + distance[:, None]).view(1, -1, s * s)
    return (near @ pixels - fixed[..., None] - distance).softmax(2)


def _factor(image: torch.Tensor, h: int, w: int) -> int:
    """Pixels along a cell's side: a whole number, also where the image's size is no multiple."""
    return max(round(image.shape[-2] / h), round(image.shape[-1] / w), 1)


def _along(s: int, reach: int, device: torch.device) -> torch.Tensor:
    """Distances in cells along one side, of a cell's s pixels from cells: (2 reach + 1, s)."""
    place = (torch.arange(s, device=device) + 0.5) / s - 0.5
    return place - torch.arange(-reach, reach + 1, device=device)[:, None]


def _around(h: int, w: int, reach: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """The cells around each cell: their index (the border's where outside), and whether inside.

    Both are (h w, taps).
    """
    step = torch.arange(-reach, reach + 1, device=device)
    y, x = (torch.arange(size, device=device)[:, None] + step for size in (h, w))  # (size, side)
    y, x = y[:, None, :, None], x[None, :, None, :]
    inside = (y >= 0) & (y < h) & (x >= 0) & (x < w)
    index = y.clamp(0, h - 1) * w + x.clamp(0, w - 1)
    return index.flatten(2).flatten(0, 1), inside.flatten(2).flatten(0, 1)


# --- learned joint bilateral upsampling --------------------------------------------------------


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
    parts = ("range_temp", "sigma_spatial", "range_proj.0.weight", "range_proj.0.bias")
    parts += ("range_proj.3.weight", "range_proj.3.bias", "fixup_proj.0.weight")
    parts += ("fixup_proj.0.bias", "fixup_proj.3.weight", "fixup_proj.3.bias")
    modules = ("up",) if "up.range_temp" in state else ("up1", "up2", "up3", "up4")
    wanted = [f"{module}.{part}" for module in modules for part in parts]
    missing = [k for k in [*wanted, "fixup_proj.1.weight", "fixup_proj.1.bias"] if k not in state]
    if missing:
        raise UserError(f"{path}: not a learned JBU upsampler: no {missing[0]} in the checkpoint")
    found = state["fixup_proj.1.weight"].shape
    if found != (dim, dim, 1, 1):
        raise UserError(
            f"{path}: the upsampler is for {found[0]} feature channels, the CLIP model has {dim}"
        )
    return {k: v.to(device) for k, v in state.items()}


def jbu(
    state: dict[str, torch.Tensor], source: torch.Tensor, guidance: torch.Tensor
) -> torch.Tensor:
    """The whole learned upsampler as published (FeatUp, arXiv 2403.10516; SegEarth-OV).

    Args:
        state: as in load_jbu.
        source: (n, dim, h, w).
        guidance: (n, 3, H, W), normalised for the model.

    Returns:
        (n, dim, 16 h, 16 w): f + 0.1 (W f + b) of the filtered source f.
    """
    f = jbu_filter(state, source, guidance)
    return f + 0.1 * F.conv2d(f, state["fixup_proj.1.weight"], state["fixup_proj.1.bias"])


def jbu_filter(
    state: dict[str, torch.Tensor], source: torch.Tensor, guidance: torch.Tensor
) -> torch.Tensor:
    """The linear part of `jbu`: four doublings, any number of channels."""
    for i in range(4):
        prefix = "up." if "up.range_temp" in state else f"up{i + 1}."
        h, w = source.shape[-2:]
        small = F.adaptive_avg_pool2d(guidance, (2 * h, 2 * w))
        source = _double({k: state[prefix + k] for k in _PARTS}, source, small)
    return source


_PARTS = (
    "range_temp",
    "sigma_spatial",
    *(f"{name}_proj.{i}.{kind}" for name in ("range", "fixup") for i in (0, 3)
      for kind in ("weight", "bias")),
)  # fmt: skip


def _double(
    state: dict[str, torch.Tensor], source: torch.Tensor, guidance: torch.Tensor
) -> torch.Tensor:
    """One stage: resize bicubically to the guidance, then filter with per-pixel kernels.

    The kernel over d x d pixels is a softmax of the products of projected guidance (range), times a
    Gaussian (spatial), normalised, plus a learned correction. All is worked through in tiles of
    pixels, so that every sum is a product of matrices, and in strips of tiles, so that no d d x H x W
    array ever exists. The bicubic resizing goes into the kernels (see _resizing): they are fewer
    than the channels.

    Args:
        state: of this stage, _PARTS.
        source: (n, channel, h, w).
        guidance: (n, 3, 2 h, 2 w).

    Returns:
        (n, channel, 2 h, 2 w).
    """
    d = round(state["fixup_proj.3.weight"].shape[0] ** 0.5)
    r = d // 2
    n, _, h, w = guidance.shape
    if min(h, w) <= r:
        raise UserError(
            f"upsampling jbu needs more than {r // 2} cells along a window's side; enlarge window"
        )
    t = math.gcd(h, w, TILE)
    table, reach = _resizing(t, d, source.device)
    keys = F.gelu(_pointwise(state, "range_proj.0", guidance))
    keys = _pointwise(state, "range_proj.3", keys)
    own = _tiles(state["range_temp"].exp().clamp(1e-4, 1e4) * keys, t, t)
    near = _tiles(F.pad(keys, (r, r, r, r), mode="reflect"), t + 2 * r, t)
    values = _tiles(F.pad(source, (reach,) * 4, mode="replicate"), t // 2 + 2 * reach, t // 2)
    colours = _tiles(guidance, t, t)
    line = torch.linspace(-1, 1, d, device=guidance.device)
    gaussian = (line[:, None].square() + line.square()) / (-2 * state["sigma_spatial"] ** 2)
    first, second = (state[f"fixup_proj.{i}.weight"][:, :, 0, 0] for i in (0, 3))
    strips = []
    step = ROWS if source.device.type == "cpu" else h // t
    for i in range(0, h // t, step):
        strip = slice(i, i + step)
        a, b, c, v = (x[:, strip].flatten(3, 4).flatten(0, 2) for x in (own, near, colours, values))
        products = a @ b.mT  # (tile, t t, (t + 2 r)^2): more than each pixel needs
        shape = (n, len(a) // n * t // w, w // t, t, t)
        side = t + 2 * r
        each = products.as_strided(
            (len(a), t, t, d, d), (t * t * side**2, t * side**2 + side, side**2 + 1, side, 1)
        )
        kernel = (each + gaussian).view(-1, d * d).softmax(1)
        hidden = F.linear(c.flatten(0, 1), first[:, d * d :], state["fixup_proj.0.bias"])
        hidden = F.gelu(hidden.addmm_(kernel, first[:, : d * d].T))
        kernel = F.linear(hidden, 0.1 * second, 0.1 * state["fixup_proj.3.bias"]).add_(kernel)
        kernel = _folded(kernel.view(*shape, d, d), i * t, h)
        kernel = kernel.view(-1, t * t, d * d).transpose(0, 1) @ table  # (t t, tile, taps)
        mixed = kernel.transpose(0, 1) @ v  # (tile, t t, channel)
        strips.append(mixed.view(*shape, -1).transpose(2, 3).flatten(1, 2).flatten(2, 3))
    return torch.cat(strips, 1).permute(0, 3, 1, 2)


def _tiles(x: torch.Tensor, side: int, step: int) -> torch.Tensor:
    """Overlapping squares of a map: (n, channel, y, x) -> (n, rows, columns, side, side, channel)."""
    x = x.permute(0, 2, 3, 1).contiguous()
    return x.unfold(1, side, step).unfold(2, side, step).movedim(3, 5)


def _folded(kernel: torch.Tensor, top: int, h: int) -> torch.Tensor:
    """Move the weights of pixels outside the window to their mirror images inside, in place.

    Args:
        kernel: (n, rows, columns, t, t, d, d), of a strip of tiles over the whole width.
        top: first pixel row of the strip.
        h: pixel rows of the window.
    """
    _, rows, columns, t, _, d, _ = kernel.shape
    for i in range(d // 2):  # pixels from the border
        out = d // 2 - i  # taps outside
        ends = (
            (i, slice(0, out), slice(out + 1, 2 * out + 1)),
            (-1 - i, slice(d - out, d), slice(d - 1 - 2 * out, d - 1 - out)),
        )
        for at, outside, inside in ends:
            x, y = at % (columns * t), at % h - top
            parts = [kernel[:, :, x // t, :, x % t]]
            if 0 <= y < rows * t:
                parts.append(kernel[:, y // t, :, y % t].mT)
            for part in parts:
                part[..., inside] += part[..., outside].flip(-1)
                part[..., outside] = 0
    return kernel


@cache
def _resizing(t: int, d: int, device: torch.device) -> tuple[torch.Tensor, int]:
    """Bicubic doubling, as weights of the small map's cells for each tap of each pixel of a tile.

    Args:
        t: pixels along a tile's side, even; t / 2 cells of the small map.
        d: taps along a kernel's side.
        device: where to put it.

    Returns:
        (t t, d d, (t / 2 + 2 reach)^2) and reach, the cells beyond the tile that matter.
    """
    reach = (d // 2 + 4) // 2
    size = t // 2 + 4 * reach  # with as much again around, for the border is not alike
    eye = torch.eye(size, device=device)[None, None]
    along = F.interpolate(eye, (2 * size, size), mode="bicubic")[0, 0, :, reach:-reach]
    first = 4 * reach - d // 2
    along = along[first : first + t + d - 1].unfold(0, d, 1)  # (t, cells, d)
    table = torch.einsum("yai,xbj->yxijab", along, along)
    return table.flatten(4).flatten(2, 3).flatten(0, 1), reach


def _pointwise(state: dict[str, torch.Tensor], name: str, x: torch.Tensor) -> torch.Tensor:
    return F.conv2d(x, state[name + ".weight"], state[name + ".bias"])
