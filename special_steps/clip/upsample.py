"""Upsampling of patch features to pixels: bilinear, joint bilateral (no weights needed) and jbu (learned).

What is wanted in the end is the cosine of each pixel's features with a few phrases. Each upsampling is a linear filter
over the feature map, with weights that do not look at the features. So neither needs the 512 or more feature channels
at every pixel: the products with the phrases and the lengths follow from products of patches. The result is that of the
plain way, up to rounding (tests/unit/clip/test_upsample.py).
"""

from collections.abc import Callable
from functools import partial

import torch
from torch.nn import functional as F

from special_steps.clip.jbu import jbu_cosines
from special_steps.core.errors import UserError

METHODS = ("bilinear", "joint_bilateral", "jbu")
REACH = 2  # patches that the joint bilateral filter looks at in each direction: 5 x 5
# Its standard deviations in patches and per colour of an RGB image in [0, 1], chosen on scenes simulated from aerial
# images that trained nothing: smaller ones are no better, larger ones worse.
SPATIAL, RANGE = 0.8, 0.02

# Patch features (n, dim, h, w), phrases (phrase, dim) normalised, windows (n, 3, H, W) as the model
# sees them -> cosines (n, phrase, H', W'), where H' x W' is near H x W: 16 h x 16 w for jbu, a whole
# number times h x w for others.
Upsampler = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def make_upsampler(
    method: str,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    jbu_state: dict[str, torch.Tensor] | None,
) -> Upsampler:
    """The upsampler of that name.

    Args:
        method: one of METHODS.
        mean: by colour, that images were normalised with.
        std: by colour, that images were normalised with.
        jbu_state: of load_jbu, for jbu.

    Raises:
        UserError: for an unknown method, and jbu without its weights.
    """
    if method == "bilinear":
        return _window_by_window(bilinear)
    if method == "joint_bilateral":
        return _window_by_window(
            lambda patch_features, text, image: joint_bilateral(
                patch_features, text, _colours(image, mean, std)
            )
        )
    if method != "jbu":
        raise UserError(f"unknown upsampling '{method}'; choose one of {', '.join(METHODS)}")
    if jbu_state is None:
        raise UserError("upsampling jbu needs jbu_weights, the checkpoint of a learned upsampler")
    return _window_by_window(partial(jbu_cosines, jbu_state))


def _window_by_window(upsampler: Upsampler) -> Upsampler:
    """The same, one window at a time: what is known of every pixel is large."""

    def each(
        patch_features: torch.Tensor, text: torch.Tensor, images: torch.Tensor
    ) -> torch.Tensor:
        windows = zip(patch_features.split(1), images.split(1), strict=True)
        return torch.cat([upsampler(features, text, image) for features, image in windows])

    return each


def _colours(image: torch.Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> torch.Tensor:
    """Undo the model's normalisation: back to [0, 1]."""
    return image * image.new_tensor(std).view(3, 1, 1) + image.new_tensor(mean).view(3, 1, 1)


def cosines_of_weights(
    patch_features: torch.Tensor, text: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """Cosines with phrases of features that are weighted sums of the patches around a pixel's own.

    A pixel's product with a phrase is the weighted sum of the patches' products; its squared length
    is w' G w, with G the products of those patches among each other. Pixels come last, so that all
    steps run along them; nothing has the features' channels but the patches.

    Args:
        patch_features: (n, dim, h, w).
        text: (phrase, dim), normalised.
        weights: (n, h w, taps, s s), or 1 where all are alike: for every patch, of the side x side
            patches around it, for every pixel in it. Any factor per pixel cancels. Patches outside
            the map are those at its border.

    Returns:
        (n, phrase, h s, w s).
    """
    n, _, h, w = patch_features.shape
    taps, pixels = weights.shape[2:]
    near, _ = _around(h, w, round(taps**0.5) // 2, patch_features.device)
    flat = patch_features.flatten(2)
    gram = (flat.mT @ flat)[:, near[:, :, None], near[:, None]]  # (n, h w, taps, taps)
    products = (text @ flat)[:, :, near].transpose(1, 2)  # (n, h w, phrase, taps)
    sums = torch.cat([gram, products], 2) @ weights
    squares = (sums[:, :, :taps] * weights).sum(2, keepdim=True)
    cosines = sums[:, :, taps:] * squares.clamp(min=1e-24).rsqrt()
    s = round(pixels**0.5)
    parts = cosines.view(n, h, w, len(text), s, s)
    return parts.permute(0, 3, 1, 4, 2, 5).reshape(n, len(text), h * s, w * s)


def bilinear(patch_features: torch.Tensor, text: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """Cosines with phrases of bilinearly upsampled features, as F.interpolate upsamples.

    Args:
        patch_features: (n, dim, h, w).
        text: (phrase, dim), normalised.
        image: (n, 3, H, W), for its size.

    Returns:
        (n, phrase, h s, w s), s = H / h rounded.
    """
    s = _factor(image, *patch_features.shape[-2:])
    along = (1 - _along(s, 1, image.device).abs()).clamp(min=0)
    weights = along[:, None, :, None] * along[:, None]  # (3, 3, s, s)
    return cosines_of_weights(patch_features, text, weights.view(1, 1, 9, s * s))


def joint_bilateral(
    patch_features: torch.Tensor, text: torch.Tensor, image: torch.Tensor
) -> torch.Tensor:
    """Cosines with phrases of features upsampled along the image's edges: see joint_bilateral_weights.

    Args:
        patch_features: (n, dim, h, w).
        text: (phrase, dim), normalised.
        image: (n, 3, H, W), RGB in [0, 1].

    Returns:
        (n, phrase, h s, w s), s = H / h rounded.
    """
    return cosines_of_weights(
        patch_features, text, joint_bilateral_weights(image, *patch_features.shape[-2:])
    )


def joint_bilateral_weights(image: torch.Tensor, h: int, w: int) -> torch.Tensor:
    """Weights of the patches around each pixel, a softmax of -d^2 / 2 SPATIAL^2 - c^2 / 2 RANGE^2.

    Joint bilateral upsampling (Kopf et al. 2007), led by the window itself: d is the distance from
    the pixel to the patch's centre in patches, c the distance between the pixel's colour and the
    patch's mean colour. So a pixel at an edge takes the features of the patches that look like it.
    Patches outside the map have no weight.

    Args:
        image: (n, 3, H, W), RGB in [0, 1]; resized to h s x w s, s = H / h rounded.
        h: patches along y.
        w: patches along x.

    Returns:
        (n, h w, 25, s s): for every patch, of the patches around it, for every pixel in it.
    """
    s = _factor(image, h, w)
    if image.shape[-2:] != (h * s, w * s):
        image = F.interpolate(image, (h * s, w * s), mode="bilinear", antialias=True)
    pixels = image.view(-1, 3, h, s, w, s).permute(0, 2, 4, 1, 3, 5).reshape(-1, h * w, 3, s * s)
    centres = pixels.mean(3)
    index, inside = _around(h, w, REACH, image.device)
    # c^2 = p p' - 2 p q' + q q' of pixel p and patch q, of which p p' is the same for all patches and
    # falls out of the softmax. Colours count from the own patch's, so that little cancels.
    near = (centres[:, index] - centres[:, :, None]) / RANGE  # (n, h w, 25, 3)
    pixels = (pixels - centres[..., None]) / RANGE
    fixed = near.square().sum(3) / 2 + torch.where(inside, 0, torch.inf)
    distance = _along(s, REACH, image.device).square() / (2 * SPATIAL**2)
    distance = (distance[:, None, :, None] + distance[:, None]).view(1, -1, s * s)
    return (near @ pixels - fixed[..., None] - distance).softmax(2)


def _factor(image: torch.Tensor, h: int, w: int) -> int:
    """Pixels along a patch's side: a whole number, also where the image's size is no multiple."""
    return max(round(image.shape[-2] / h), round(image.shape[-1] / w), 1)


def _along(s: int, reach: int, device: torch.device) -> torch.Tensor:
    """Distances in patches along one side, of a patch's s pixels from patches: (2 reach + 1, s)."""
    place = (torch.arange(s, device=device) + 0.5) / s - 0.5
    return place - torch.arange(-reach, reach + 1, device=device)[:, None]


def _around(h: int, w: int, reach: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """The patches around each patch: their index (the border's where outside), and whether inside.

    Both are (h w, taps).
    """
    step = torch.arange(-reach, reach + 1, device=device)
    y, x = (torch.arange(size, device=device)[:, None] + step for size in (h, w))  # (size, side)
    y, x = y[:, None, :, None], x[None, :, None, :]
    inside = (y >= 0) & (y < h) & (x >= 0) & (x < w)
    index = y.clamp(0, h - 1) * w + x.clamp(0, w - 1)
    return index.flatten(2).flatten(0, 1), inside.flatten(2).flatten(0, 1)
