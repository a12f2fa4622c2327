"""Upsampling of patch features to pixels: bilinear, guided (weight-free) and jbu (learned).

What is wanted in the end is the cosine of each pixel's features with a few phrases. Each upsampling is a linear filter
over the cells of the feature map, with weights that do not look at the features. So neither needs the 512 or more
feature channels at every pixel: the products with the phrases and the lengths follow from products of cells. The result
is that of the plain way, up to rounding (tests/unit/test_upsample.py).
"""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from special_steps.clip_model import read_state
from special_steps.errors import UserError

TILE = 8  # pixels along a tile's side in jbu, or what divides the window's
ROWS = 2  # tile rows in a strip, of which a CPU's core does one at a time
WIDTH = 7  # columns of tiles whose cells its cache holds
METHODS = ("bilinear", "guided", "jbu", "none")
REACH = 2  # cells that the guided filter looks at in each direction: 5 x 5
SPATIAL = 0.6  # its spatial standard deviation in cells: between bilinear's 0.41 and visible blur
RANGE = 0.1  # its range standard deviation per colour of an RGB image in [0, 1]

# Cells (n, dim, h, w), phrases (phrase, dim) normalised, windows (n, 3, H, W) as the model sees
# them, and, if they are a row of an image, their first columns -> cosines (n, phrase, H', W'), where
# H' x W' is near H x W: 16 h x 16 w for jbu, h x w for none, a whole number times h x w for others.
Upsampler = Callable[..., torch.Tensor]
# Number of a window, and filtered features of some of its pixels (..., channel) -> (..., other
# channel): what is to be known of them.
Finish = Callable[[int, torch.Tensor], torch.Tensor]


def make_upsampler(
    method: str,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    jbu_state: dict[str, torch.Tensor] | None = None,
) -> Upsampler:
    """The upsampler of that name, for images normalised by `mean` and `std`."""

    def each(cosines: Callable[..., torch.Tensor]) -> Upsampler:
        """One window at a time: what is known of every pixel is large."""

        def upsampler(cells, text, images, lefts=None):
            windows = zip(cells.split(1), images.split(1), strict=True)
            return torch.cat([cosines(c, text, image) for c, image in windows])

        return upsampler

    if method == "none":
        return lambda cells, text, images, lefts=None: torch.einsum(
            "kd,ndhw->nkhw", text, F.normalize(cells, dim=1)
        )
    if method == "bilinear":
        return each(bilinear)
    if method == "guided":
        return each(lambda cells, text, image: guided(cells, text, _colours(image, mean, std)))
    if method != "jbu":
        raise UserError(f"unknown upsampling '{method}'; choose one of {', '.join(METHODS)}")
    if jbu_state is None:
        raise UserError("upsampling jbu needs jbu_weights, the checkpoint of a learned upsampler")
    weight = 0.1 * jbu_state["fixup_proj.1.weight"][:, :, 0, 0]
    bias = 0.1 * jbu_state["fixup_proj.1.bias"]
    return lambda cells, text, images, lefts=None: cosines_of_filter(
        lambda x, finish: jbu_filter(jbu_state, x, images, lefts, finish), cells, text, weight, bias
    )


def _colours(image: torch.Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> torch.Tensor:
    """Undo the model's normalisation: back to [0, 1]."""
    return image * image.new_tensor(std).view(3, 1, 1) + image.new_tensor(mean).view(3, 1, 1)


def cosines_of_filter(
    filter_: Callable[[torch.Tensor, Finish], torch.Tensor],
    cells: torch.Tensor,
    text: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
) -> torch.Tensor:
    """Cosines with phrases of filtered features f that become f + weight f + bias.

    The filter sees the coordinates of the features in an orthonormal basis of the window's own
    cells: fewer channels (at most 197 for 14 x 14 cells), the same lengths and products.

    Args:
        filter_: linear, (n, channel, h, w) -> (n, channel, H, W), the same for every channel; to
            end with the Finish that it is given.
        cells: (n, dim, h, w).
        text: (phrase, dim), normalised.
        weight: (dim, dim).
        bias: (dim,).

    Returns:
        (n, phrase, H, W).
    """
    n, _, h, w = cells.shape
    matrix = cells.flatten(2)  # (n, dim, cell)
    # The bias comes first: it is along the first axis of the basis.
    matrix = torch.cat([bias.expand(n, -1)[..., None], matrix + weight @ matrix], 2)
    coordinates = torch.linalg.qr(matrix).R
    axes, count = coordinates.shape[1], len(text)
    channels = torch.cat([coordinates, text @ matrix], 1)
    channels = F.pad(channels, (0, 0, 0, -channels.shape[1] % 16))  # whole registers: 10 % faster

    def finish(i: int, pixels: torch.Tensor) -> torch.Tensor:
        pixels[..., 0] += channels[i, 0, 0]
        products = pixels[..., axes : axes + count] + channels[i, axes : axes + count, 0]
        lengths = torch.linalg.vector_norm(pixels[..., :axes], dim=-1, keepdim=True)
        return products / lengths.clamp(min=1e-12)

    return filter_(channels[:, :, 1:].unflatten(2, (h, w)), finish)


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
    f = jbu_filter(state, source, guidance, None, _unchanged)
    return f + 0.1 * F.conv2d(f, state["fixup_proj.1.weight"], state["fixup_proj.1.bias"])


def jbu_filter(
    state: dict[str, torch.Tensor],
    source: torch.Tensor,
    guidance: torch.Tensor,
    lefts: list[int] | None,
    finish: Finish,
) -> torch.Tensor:
    """The linear part of `jbu`: four doublings, any number of channels.

    Args:
        state: as in load_jbu.
        source: (n, channel, h, w).
        guidance: (n, 3, H, W), normalised for the model.
        lefts: first columns of the windows in an image of which they are a row; None: unrelated.
        finish: what becomes of the filtered channels.

    Returns:
        (n, channel, 16 h, 16 w), channel being those of `finish`.
    """
    source = source.permute(0, 2, 3, 1).contiguous()
    for i in range(4):
        prefix = "up." if "up.range_temp" in state else f"up{i + 1}."
        h, w = source.shape[1:3]
        small = F.adaptive_avg_pool2d(guidance, (2 * h, 2 * w))
        stage = {k: state[prefix + k] for k in _PARTS}
        # Columns of the image in units of this stage's pixels.
        starts = lefts and [Fraction(x * 2 * w, guidance.shape[-1]) for x in lefts]
        source = _double(stage, source, small, starts, finish if i == 3 else _unchanged)
    return source.permute(0, 3, 1, 2)


def _unchanged(_: int, pixels: torch.Tensor) -> torch.Tensor:
    return pixels


_PARTS = (
    "range_temp",
    "sigma_spatial",
    *(f"{name}_proj.{i}.{kind}" for name in ("range", "fixup") for i in (0, 3)
      for kind in ("weight", "bias")),
)  # fmt: skip


def _double(
    state: dict[str, torch.Tensor],
    source: torch.Tensor,
    guidance: torch.Tensor,
    starts: list[Fraction] | None,
    finish: Finish,
) -> torch.Tensor:
    """One stage: resize bicubically to the guidance, then filter with per-pixel kernels.

    All is worked through in tiles of pixels, so that every sum is a product of matrices, and in
    strips of tiles, so that no d d x H x W array ever exists. Tiles of neighbouring windows that are
    the same piece of the image share their kernels, but for those that a window's border touches.

    Args:
        state: of this stage, _PARTS.
        source: (n, h, w, channel).
        guidance: (n, 3, 2 h, 2 w).
        starts: the windows' first columns in an image of which they are a row; None: unrelated.
        finish: what becomes of the filtered channels.

    Returns:
        (n, 2 h, 2 w, channel).
    """
    d = round(state["fixup_proj.3.weight"].shape[0] ** 0.5)
    r = d // 2
    n, _, h, w = guidance.shape
    if min(h, w) <= r:
        raise UserError(
            f"upsampling jbu needs more than {r // 2} cells along a window's side; enlarge window"
        )
    t = math.gcd(h, w, TILE)
    reach = (r + 4) // 2  # cells beyond the tile's that bicubic resizing looks at
    columns, edge = w // t, -(-r // t)

    @torch.inference_mode()
    def prepare(i: int) -> list[torch.Tensor]:
        """Tiles of a window: keys, keys in and around, colours, and what is filtered, likewise."""
        colours, map_ = guidance[i, None].permute(0, 2, 3, 1), source[i, None]
        keys = _linear(state, "range_proj.3", F.gelu(_linear(state, "range_proj.0", colours)))
        around, beyond = _padded(keys, r, "reflect"), _padded(map_, reach, "replicate")
        squares = ((keys, t, t), (around, t + 2 * r, t), (colours, t, t))
        squares += ((beyond, t // 2 + 2 * reach, t // 2),)
        return [_tiles(x, side, step)[0] for x, side, step in squares]

    prepared = _in_threads(prepare, range(n), source.device)
    mirror = [_mirrored(size, d, source.device).unflatten(0, (-1, t)) for size in (h, w)]
    step, width = (ROWS, WIDTH) if source.device.type == "cpu" else (h // t, columns)

    @torch.inference_mode()
    def work(top: int) -> torch.Tensor:
        """A strip of all windows, from the tile row `top` on."""
        strip = slice(top, top + step)
        inside = edge <= top and top + step <= h // t - edge
        mirror_y = None if inside else mirror[0][strip]
        maps, kernels = [], None
        for i in range(n):
            # Columns of tiles that the window before has, too, away from the borders of both.
            shift = (starts[i] - starts[i - 1]) / t if starts and i else Fraction(columns)
            same = max(columns - 2 * edge - int(shift), 0) if shift.denominator == 1 else 0
            new = [*range(edge), *range(edge + same, columns)]
            *parts, values = (x[strip] for x in prepared[i])
            own, near, colours = (x[:, new] for x in parts)
            ends = [k for k, j in enumerate(new) if not edge <= j < columns - edge]
            mirror_x = mirror[1][[new[k] for k in ends]]
            fresh = _kernels(state, own, near, colours, ends, mirror_x, mirror_y)
            if same:
                known = kernels[:, :, :, columns - edge - same : columns - edge]
                fresh = torch.cat([fresh[:, :, :, :edge], known, fresh[:, :, :, edge:]], 3)
            kernels = fresh  # of all columns
            pieces = []
            for left in range(0, columns, width):
                some = slice(left, left + width)
                near = values[:, some].flatten(2, 3).flatten(0, 1)  # (tile, taps, channel)
                pixels = finish(i, _spread(kernels[:, :, :, some]) @ near)  # (tile, t t, channel)
                pieces.append(pixels.view(*own.shape[:1], -1, t, t, pixels.shape[-1]))
            maps.append(torch.cat(pieces, 1).transpose(1, 2).flatten(2, 3).flatten(0, 1))
        return torch.stack(maps)

    return torch.cat(_in_threads(work, range(0, h // t, step), source.device), 1)


def _in_threads(work: Callable[[int], Any], items: range, device: torch.device) -> list[Any]:
    """Do the items; on a CPU one per core: what an item does is too little to be shared by cores."""
    if device.type != "cpu":
        return [work(item) for item in items]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(work, items))
    finally:
        torch.set_num_threads(threads)


def _kernels(
    state: dict[str, torch.Tensor],
    own: torch.Tensor,
    near: torch.Tensor,
    colours: torch.Tensor,
    ends: list[int],
    mirror_x: torch.Tensor,
    mirror_y: torch.Tensor | None,
) -> torch.Tensor:
    """Weights of the small map's cells for the pixels of some columns of tiles of a strip.

    The kernel over d x d pixels is a softmax of the products of projected guidance (range), times a
    Gaussian (spatial), normalised, plus a learned correction. Here the Gaussian's exponent goes into
    the softmax, which is the same, except where the published code keeps from dividing by less than
    1e-7. Beyond the window, pixels are mirrored. The bicubic resizing of what is filtered goes into
    the kernels: they are fewer than the channels.

    Args:
        state: of this stage, _PARTS.
        own: (rows, columns, t, t, key).
        near: (rows, columns, t + 2 r, t + 2 r, key).
        colours: (rows, columns, t, t, 3).
        ends: columns of tiles that the window's left and right border touch.
        mirror_x: (ends, t, d, d), theirs of _mirrored.
        mirror_y: (rows, t, d, d), of _mirrored; None where no border is near.

    Returns:
        (2, 2, rows, columns, t / 2, t / 2, taps, taps): pixels of even and odd y and x apart.
    """
    d = round(state["fixup_proj.3.weight"].shape[0] ** 0.5)
    rows, columns, t = own.shape[:3]
    shape, side = (2, 2, rows, columns, t // 2, t // 2), near.shape[2]
    line = torch.linspace(-1, 1, d, device=own.device)
    gaussian = (line[:, None].square() + line.square()) / (-2 * state["sigma_spatial"] ** 2)
    first, second = (state[f"fixup_proj.{i}.weight"][:, :, 0, 0] for i in (0, 3))
    # Of each pixel's products with all that is near the tile, the d x d around it.
    products = own.flatten(2, 3).flatten(0, 1) @ near.flatten(2, 3).flatten(0, 1).mT
    tile, y, x = t * t * side**2, t * side**2 + side, side**2 + 1
    strides = (y, x, columns * tile, tile, 2 * y, 2 * x, side, 1)
    products = products.as_strided((*shape, d, d), strides)
    temperature = float(state["range_temp"].exp().clamp(1e-4, 1e4))
    kernel = own.new_empty(*shape, d, d)
    torch.add(gaussian, products, alpha=temperature, out=kernel)
    kernel = kernel.view(-1, d * d).softmax(1)
    colours = colours.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).permute(3, 5, 0, 1, 2, 4, 6)
    hidden = F.linear(colours.reshape(-1, 3), first[:, d * d :], state["fixup_proj.0.bias"])
    hidden = F.gelu(hidden.addmm_(kernel, first[:, : d * d].T))
    kernel = F.linear(hidden, 0.1 * second, 0.1 * state["fixup_proj.3.bias"]).add_(kernel)
    kernel = kernel.view(*shape, d, d)
    along = mirror_x.unflatten(1, (-1, 2)).movedim(2, 0)  # (2, ends, t / 2, d, d)
    kernel[:, :, :, ends] = kernel[:, :, :, ends] @ along[:, None, :, None]
    if mirror_y is not None:
        along = mirror_y.unflatten(1, (-1, 2)).movedim(2, 0)  # (2, rows, t / 2, d, d)
        kernel = along[:, None, :, None, :, None].mT @ kernel
    table = _resizing(d, own.device)  # (4, d d, taps taps)
    kernel = kernel.view(4, -1, d * d) @ table
    taps = round(table.shape[2] ** 0.5)
    return kernel.view(*shape, taps, taps)


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


def _tiles(x: torch.Tensor, side: int, step: int) -> torch.Tensor:
    """Overlapping squares of a map: (n, y, x, channel) -> (n, rows, columns, side, side, channel)."""
    return x.unfold(1, side, step).unfold(2, side, step).movedim(3, 5)


def _padded(x: torch.Tensor, reach: int, mode: str) -> torch.Tensor:
    """The map (n, y, x, channel) with `reach` more on all sides."""
    return F.pad(x.permute(0, 3, 1, 2), (reach,) * 4, mode=mode).permute(0, 2, 3, 1).contiguous()


@cache
def _mirrored(size: int, d: int, device: torch.device) -> torch.Tensor:
    """For each pixel along a side, where its taps are when mirrored at the ends: (size, d, d)."""
    pixels = torch.arange(size, device=device)
    seen = F.pad(pixels[None, None].float(), (d // 2, d // 2), mode="reflect")[0, 0]
    taps = seen.long().unfold(0, d, 1) - pixels[:, None] + d // 2
    return F.one_hot(taps, d).float()


@cache
def _resizing(d: int, device: torch.device) -> torch.Tensor:
    """Bicubic doubling, as weights of the small map's cells for each tap of a pixel.

    Returns:
        (4, d d, (2 reach + 1)^2), reach as in _double, for pixels of even and odd y and x: of d x d
        pixels around one, the weights of the cells around its own.
    """
    reach = (d // 2 + 4) // 2
    size = 4 * reach + 1  # with as much again around, for the border is not alike
    eye = torch.eye(size, device=device)[None, None]
    along = F.interpolate(eye, (2 * size, size), mode="bicubic")[0, 0, :, reach:-reach]
    first = 4 * reach - d // 2
    along = along[first : first + d + 1].unfold(0, d, 1)  # (2, cells, d)
    return torch.einsum("yai,xbj->yxijab", along, along).flatten(4).flatten(2, 3).flatten(0, 1)


def _linear(state: dict[str, torch.Tensor], name: str, x: torch.Tensor) -> torch.Tensor:
    return F.linear(x, state[name + ".weight"][:, :, 0, 0], state[name + ".bias"])
