"""Dense CLIP: a cosine with every phrase at every pixel, by windows that slide over the image.

The window pipeline is SegEarth-OV's (arXiv 2410.01768).
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch.nn import functional as F
from tqdm import tqdm

from special_steps.clip.encoder import Encoder
from special_steps.clip.upsample import Upsampler
from special_steps.core.errors import UserError
from special_steps.core.tiling import tile_starts


def slide(
    read: Callable[[int, int], np.ndarray],
    size: tuple[int, int],
    encoder: Encoder,
    text: torch.Tensor,
    upsampler: Upsampler,
    *,
    window: int,
    stride: int,
    global_bias: float,
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
    tops, lefts = tile_starts(height, window, stride), tile_starts(width, window, stride)
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
    global_bias: float,
) -> torch.Tensor:
    """Cosine of every pixel of the windows with every phrase, plus the weighted one of its whole window.

    What a model says of a whole window is in all its patches; with a weight below 0, what stands out from the window
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
    patch_features, window_embedding = encoder.features(images)
    cosines = upsampler(patch_features, text, images)
    if cosines.shape[-2:] != images.shape[-2:]:
        cosines = F.interpolate(cosines, images.shape[-2:], mode="bilinear")
    if window_embedding is not None:
        bias = F.normalize(window_embedding, dim=1) @ text.T
        cosines = cosines + global_bias * bias[:, :, None, None]
    return cosines[:, :, top : top + h, left : left + w]
