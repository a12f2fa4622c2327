"""Class probabilities by dense CLIP at one scale of the image; `fuse` averages the scales."""

import logging
import math
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import zarr
from PIL import Image
from torch.nn import functional as F

from special_steps.clip.encoder import Encoder, make_encoder, slide
from special_steps.clip.model import load_clip
from special_steps.clip.upsample import Upsampler, load_jbu, make_upsampler
from special_steps.core.cli import run
from special_steps.core.errors import UserError
from special_steps.core.store import create_array, new_store, open_store, tile_rows, write_strips
from special_steps.kernels import build as native

log = logging.getLogger("special")


class Phrases(NamedTuple):
    """What the text step wrote."""

    embeddings: np.ndarray  # (phrase, dim) float32, normalised
    class_index: np.ndarray  # (phrase,) int
    class_names: list[str]
    clip: str  # the model that made them


def read_text(path: Path) -> Phrases:
    """Read the text step's file."""
    try:
        with np.load(path) as data:
            names = [str(name) for name in data["class_names"]]
            return Phrases(data["embeddings"], data["class_index"], names, str(data["clip"]))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: not a file of the text step ({error}); run it again") from error


def mean_colour(image: zarr.Array, nodata: np.ndarray) -> np.ndarray:
    """Mean (3, 1, 1) float32 of the pixels with data: black would look like land cover."""
    if nodata.all():
        raise UserError("the scene has no valid pixel: every pixel is masked as no-data")
    total = np.zeros(3)
    for rows in tile_rows(len(nodata)):
        total += image[:, rows][:, ~nodata[rows]].sum(1, dtype=np.float64)
    return (total / (~nodata).sum()).astype(np.float32)[:, None, None]


def resized_rows(
    read: Callable[[int, int], np.ndarray],
    size: tuple[int, int],
    target: tuple[int, int],
    first: int,
    last: int,
) -> np.ndarray:
    """Rows first..last of an image in [0, 1] resized bicubically, antialiased when it shrinks.

    Args:
        read: gives rows of the image, (3, rows, x) float32; asked for those that matter only.
        size: y and x of the image.
        target: y and x after resizing.
        first: first row wanted, of the target.
        last: the row after the last wanted one.

    Returns:
        (3, last - first, x) float32.
    """
    if size == target:
        return read(first, last)
    step = size[0] / target[0]
    reach = 2 * max(step, 1) + 1  # rows that a bicubic kernel sees to each side
    top = max(math.floor(first * step - reach), 0)
    bottom = min(math.ceil(last * step + reach), size[0])
    planes = read(top, bottom)
    box = (0, first * step - top, size[1], min(last * step, bottom) - top)
    shape = (target[1], last - first)
    rows = [Image.fromarray(p).resize(shape, Image.Resampling.BICUBIC, box) for p in planes]
    return np.stack(rows).clip(0, 1)


def resized_back(
    strips: Iterable[np.ndarray], source: tuple[int, int], target: tuple[int, int]
) -> Iterator[np.ndarray]:
    """Resize probabilities to the scene: area means when they shrink, else bilinearly.

    Args:
        strips: rows of the maps from top to bottom, (class, rows, x) float32.
        source: y and x of the maps.
        target: y and x of the scene.

    Yields:
        Rows of the scene from top to bottom, (class, rows, x) float32, as soon as they are known.
    """
    if source == target:
        yield from strips
        return
    shrinks = source[0] >= target[0] and source[1] >= target[1]
    mode, ratio = "area" if shrinks else "bilinear", source[0] / target[0]

    def weights(row: int) -> tuple[int, np.ndarray]:
        """First row of the maps that this row of the scene needs, and the weights from there."""
        if shrinks:
            first = row * source[0] // target[0]
            count = -(-(row + 1) * source[0] // target[0]) - first
            return first, np.full(count, 1 / count, np.float32)
        centre = min(max((row + 0.5) * ratio - 0.5, 0), source[0] - 1)
        first = int(centre)
        share = centre - first
        return first, np.array([1 - share, share] if share else [1], np.float32)

    held: np.ndarray | None = None  # rows from `base` on
    base = row = 0
    for strip in strips:
        rows = torch.from_numpy(strip)[None]
        rows = F.interpolate(rows, (strip.shape[1], target[1]), mode=mode)[0].numpy()
        held = rows if held is None else np.concatenate([held, rows], 1)
        done = []
        while row < target[0]:
            first, share = weights(row)
            if first + len(share) > base + held.shape[1]:
                break
            at = first - base
            done.append(np.einsum("kyx,y->kx", held[:, at : at + len(share)], share))
            row += 1
        if done:
            yield np.stack(done, 1)
            drop = min((weights(row)[0] if row < target[0] else source[0]) - base, held.shape[1])
            held, base = held[:, drop:], base + drop


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
        window: see dense.slide, as the following.
        stride: step between windows.
        global_bias: see dense.window_cosines.

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
    scale: float = 1.0,
    model: str = "bundled",
    weights: str | None = None,
    attention: str = "segearth",
    window: int = 224,
    stride: int = 112,
    upsampling: str = "guided",
    jbu_weights: Path | None = None,
    global_bias: float = -0.3,
    logit_scale: float | None = None,
    precision: str = "fp32",
) -> None:
    """Write class probabilities of the scene by dense CLIP at one scale.

    Args:
        rgb: store of the rgb step.
        text: file of the text step, of the same model.
        out: store with probabilities (class, y, x) at the scene's own size.
        scale: factor that the image is resized by before CLIP.
        model: "bundled", an open_clip model name, or the path of an open_clip config.
        weights: open_clip pretrained tag or path of a checkpoint; none for bundled.
        attention: segearth, sclip, clearclip, maskclip or vanilla; ViT only.
        window: side of the sliding window in pixels of the resized image.
        stride: step of the sliding window in pixels.
        upsampling: bilinear, guided, jbu (needs jbu_weights), or none (cosines per patch, resized).
        jbu_weights: checkpoint of a learned joint bilateral upsampler.
        global_bias: weight of a whole window's cosine (a ViT's class token, a convolutional tower's pooled embedding).
        logit_scale: factor on cosines before the softmax; null is the model's own (else 50).
        precision: fp32, or fp16 or bf16 (autocast, CUDA only).
    """
    settings = {k: str(v) if isinstance(v, Path) else v for k, v in locals().items()}
    for name in ("scale", "window"):
        if settings[name] <= 0:
            raise UserError(f"{name} {settings[name]} must be positive")
    store = open_store(rgb, rgb=("band", "y", "x"), nodata=("y", "x"))
    image, nodata = store["rgb"], store["nodata"][:]
    colour = mean_colour(image, nodata)
    phrases = read_text(text)
    clip = load_clip(model, weights)
    if phrases.clip != clip.name:
        raise UserError(
            f"{text}: made by model {phrases.clip}, not by {clip.name}; run the text step again"
        )
    if clip.device.type != "cuda" and precision != "fp32":
        log.warning("precision %s is for CUDA only: fp32 is used", precision)
    native.keep_memory()
    encoder = make_encoder(clip, attention, precision)
    jbu = upsampling == "jbu" and jbu_weights is not None
    state = load_jbu(jbu_weights, clip.device, encoder.dim) if jbu else None

    def read(first: int, last: int) -> np.ndarray:
        return np.where(nodata[first:last], colour, image[:, first:last])

    strips = scale_probabilities(
        read,
        nodata.shape,
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
    files = [rgb, text, *([jbu_weights] if jbu else [])]
    shape = (len(phrases.class_names), *nodata.shape)
    with new_store(
        out,
        step="clip_scale",
        settings={k: v for k, v in settings.items() if k not in ("rgb", "text", "out")},
        inputs=files,
        attributes={"class_names": phrases.class_names},
    ) as group:
        write_strips(create_array(group, "probabilities", shape, ("class", "y", "x")), strips)


if __name__ == "__main__":
    run(clip_scale)
