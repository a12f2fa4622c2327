"""Class probabilities by dense CLIP at one scale of the image; `fuse` averages the scales."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import zarr

from special_steps.clip.encoder import Encoder, make_encoder
from special_steps.clip.jbu import load_jbu
from special_steps.clip.model import load_clip
from special_steps.clip.prompts import Phrases, read_phrases
from special_steps.clip.resize import resized_back, resized_rows
from special_steps.clip.upsample import Upsampler, make_upsampler
from special_steps.clip.windows import slide
from special_steps.core.cli import run
from special_steps.core.errors import UserError
from special_steps.core.store import (
    array_of,
    create_array,
    grid_of,
    new_store,
    open_store,
    read_array,
    tile_rows,
    write_names,
    write_strips,
)
from special_steps.kernels.build import keep_memory

log = logging.getLogger("special")


def mean_colour(image: zarr.Array, nodata: np.ndarray) -> np.ndarray:
    """Mean (3, 1, 1) float32 of the pixels with data: black would look like land cover.

    Args:
        image: (3, y, x) float32.
        nodata: (y, x) bool.

    Raises:
        UserError: when no pixel has data.
    """
    if nodata.all():
        raise UserError(
            "the scene has no valid pixel: every pixel is masked as no-data;"
            " check the scene's nodata value"
        )
    total = np.zeros(3)
    for rows in tile_rows(len(nodata)):
        total += np.asarray(image[:, rows])[:, ~nodata[rows]].sum(1, dtype=np.float64)
    return (total / (~nodata).sum()).astype(np.float32)[:, None, None]


def class_scores(cosines: np.ndarray, class_index: np.ndarray, logit_scale: float) -> np.ndarray:
    """Softmax over all phrases; a class has the highest probability of its phrases.

    As published, the result is not normalised again: with synonyms the sum over classes is below 1.

    Args:
        cosines: (phrase, ...) float32.
        class_index: (phrase,), 0..K-1, every class at least once.
        logit_scale: factor on the cosines.

    Returns:
        (class, ...) float32.
    """
    logits = logit_scale * cosines
    logits = np.exp(logits - logits.max(0))
    logits /= logits.sum(0)
    return np.stack([logits[class_index == k].max(0) for k in range(class_index.max() + 1)])


def scale_probabilities(
    read: Callable[[int, int], np.ndarray],
    size: tuple[int, int],
    encoder: Encoder,
    phrases: Phrases,
    upsampler: Upsampler,
    *,
    scale: float,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    logit_scale: float,
    window: int,
    stride: int,
    global_bias: float,
) -> Iterator[np.ndarray]:
    """Class probabilities of an RGB image by dense CLIP on the image resized by `scale`.

    Args:
        read: gives rows of the image, (3, rows, x) float32 in [0, 1], without masked pixels.
        size: y and x of the image.
        encoder: dense encoder.
        phrases: embedded phrases of the same model.
        upsampler: of make_upsampler.
        scale: factor on the image's sides.
        mean: of the model's images.
        std: of the model's images.
        logit_scale: factor on the cosines before the softmax.
        window: see windows.slide, as the following.
        stride: step between windows.
        global_bias: see windows.window_cosines.

    Yields:
        Rows from top to bottom, (class, rows, x) float32: a row of windows is in memory at a time.
    """
    large = max(round(size[0] * scale), 1), max(round(size[1] * scale), 1)
    centre, spread = (np.reshape(v, (3, 1, 1)).astype(np.float32) for v in (mean, std))

    def normalised(first: int, last: int) -> np.ndarray:
        return (resized_rows(read, size, large, first, last) - centre) / spread

    strips = slide(
        normalised,
        large,
        encoder,
        torch.from_numpy(phrases.embeddings).to(encoder.device),
        upsampler,
        window=window,
        stride=stride,
        global_bias=global_bias,
    )
    scores = (class_scores(c, phrases.class_index, logit_scale) for _, c in strips)
    return resized_back(scores, large, size)


def clip_scale(
    *,
    rgb: Path,
    text: Path,
    out: Path,
    scale: float,
    model: str,
    weights: str | None,
    attention: str,
    window: int,
    stride: int,
    upsampling: str,
    jbu_weights: Path | None,
    global_bias: float,
    logit_scale: float | None,
    precision: str,
) -> None:
    """Write class probabilities of the scene by dense CLIP at one scale.

    Args:
        rgb: store of the rgb step.
        text: file of the text step, of the same model.
        out: store with probabilities (class, y, x) at the scene's own size.
        scale: factor that the image is resized by before CLIP.
        model: "bundled", an open_clip model name, or the path of an open_clip config.
        weights: open_clip pretrained tag or path of a checkpoint; null for bundled.
        attention: segearth, sclip, clearclip, maskclip or vanilla; ViT only.
        window: side of the sliding window in pixels of the resized image.
        stride: step of the sliding window in pixels.
        upsampling: bilinear, joint_bilateral, or jbu (needs jbu_weights).
        jbu_weights: checkpoint of a learned joint bilateral upsampler, or null.
        global_bias: weight of a whole window's cosine (a ViT's class token, a convolutional tower's
            pooled embedding).
        logit_scale: factor on cosines before the softmax; null is the model's own (else 50).
        precision: fp32, or fp16 or bf16 (autocast, CUDA only).
    """
    settings = {k: str(v) if isinstance(v, Path) else v for k, v in locals().items()}
    for name, value in (("scale", scale), ("window", window)):
        if value <= 0:
            raise UserError(f"{name} {value} must be positive")
    store = open_store(rgb, rgb=("band", "y", "x"), nodata=("y", "x"))
    image, nodata = array_of(store, "rgb"), read_array(store, "nodata")
    colour = mean_colour(image, nodata)
    phrases = read_phrases(text)
    clip = load_clip(model, weights)
    if phrases.clip != clip.name:
        raise UserError(
            f"{text}: made by model {phrases.clip}, not by {clip.name}; run the text step again"
        )
    if clip.device.type != "cuda" and precision != "fp32":
        log.warning("precision %s is for CUDA only: fp32 is used", precision)
    keep_memory()
    encoder = make_encoder(clip, attention, precision)
    inputs, state = [rgb, text], None
    if upsampling == "jbu" and jbu_weights is not None:
        inputs.append(jbu_weights)
        state = load_jbu(jbu_weights, clip.device, encoder.dim)

    def read(first: int, last: int) -> np.ndarray:
        return np.where(nodata[first:last], colour, np.asarray(image[:, first:last]))

    height, width = nodata.shape
    strips = scale_probabilities(
        read,
        (height, width),
        encoder,
        phrases,
        make_upsampler(upsampling, clip.mean, clip.std, state),
        scale=scale,
        mean=clip.mean,
        std=clip.std,
        logit_scale=clip.logit_scale if logit_scale is None else logit_scale,
        window=window,
        stride=stride,
        global_bias=global_bias,
    )
    with new_store(
        out,
        step="clip_scale",
        settings={k: v for k, v in settings.items() if k not in ("rgb", "text", "out")},
        inputs=inputs,
        grid=grid_of(store),
    ) as group:
        write_names(group, phrases.class_names)
        shape = (len(phrases.class_names), height, width)
        write_strips(create_array(group, "probabilities", shape, ("class", "y", "x")), strips)


if __name__ == "__main__":
    run(clip_scale)
