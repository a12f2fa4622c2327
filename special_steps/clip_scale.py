"""Class probabilities by dense CLIP at one scale of the image; `fuse` averages the scales."""

import logging
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from special_steps.cli import run
from special_steps.clip_model import load_clip
from special_steps.dense import Encoder, make_encoder, slide
from special_steps.errors import UserError
from special_steps.store import new_store, open_store, write_array
from special_steps.upsample import Upsampler, load_jbu, make_upsampler

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


def filled(rgb: np.ndarray, nodata: np.ndarray) -> np.ndarray:
    """Give masked pixels the mean colour of the others: black would look like land cover."""
    if nodata.all():
        raise UserError("the scene has no valid pixel: every pixel is masked as no-data")
    mean = rgb[:, ~nodata].mean(1, dtype=np.float64).astype(np.float32)
    return np.where(nodata, mean[:, None, None], rgb)


def resized(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize an image (3, y, x) in [0, 1] bicubically, with antialiasing when it shrinks."""
    if image.shape[1:] == (height, width):
        return image
    tensor = torch.from_numpy(image)[None]
    tensor = F.interpolate(tensor, (height, width), mode="bicubic", antialias=True)
    return tensor[0].clamp(0, 1).numpy()


def resized_back(maps: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize probabilities to the scene: area means when they shrink, else bilinearly."""
    if maps.shape[1:] == (height, width):
        return maps
    shrinks = maps.shape[1] >= height and maps.shape[2] >= width
    mode = "area" if shrinks else "bilinear"
    return F.interpolate(torch.from_numpy(maps)[None], (height, width), mode=mode)[0].numpy()


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
    rgb: np.ndarray,
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
    class_token_weight: float,
    batch: int,
) -> np.ndarray:
    """Class probabilities of an RGB image by dense CLIP on the image resized by `scale`.

    Args:
        rgb: (3, y, x) float32 in [0, 1], without masked pixels.
        encoder: dense encoder.
        phrases: embedded phrases of the same model.
        upsampler: of make_upsampler.
        scale: factor on the image's sides.
        mean: of the model's images.
        std: of the model's images.
        logit_scale: factor on the cosines before the softmax.
        window: see dense.slide, as the following.
        stride: step between windows.
        class_token_weight: weight of the global bias.
        batch: windows at a time.

    Returns:
        (class, y, x) float32.
    """
    h, w = rgb.shape[1:]
    height, width = max(round(h * scale), 1), max(round(w * scale), 1)
    image = resized(rgb, height, width)
    image = (image - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    bands = slide(
        image.astype(np.float32),
        encoder,
        torch.from_numpy(phrases.embeddings).to(encoder.device),
        upsampler,
        window=window,
        stride=stride,
        class_token_weight=class_token_weight,
        batch=batch,
    )
    scores = np.empty((len(phrases.class_names), height, width), np.float32)
    for top, cosines in bands:
        rows = class_scores(cosines, phrases.class_index, logit_scale)
        scores[:, top : top + rows.shape[1]] = rows
    return resized_back(scores, h, w)


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
    class_token_weight: float = -0.3,
    logit_scale: float | None = None,
    batch: int = 8,
    precision: str = "fp32",
    device: str = "auto",
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
        class_token_weight: weight of the class token's cosine (global bias); ViT only.
        logit_scale: factor on cosines before the softmax; null is the model's own (else 50).
        batch: windows that go through the model together.
        precision: fp32, or fp16 or bf16 (autocast, CUDA only).
        device: "auto", "cpu" or "cuda".
    """
    settings = {k: str(v) if isinstance(v, Path) else v for k, v in locals().items()}
    for name in ("scale", "window", "batch"):
        if settings[name] <= 0:
            raise UserError(f"{name} {settings[name]} must be positive")
    store = open_store(rgb, rgb=("band", "y", "x"), nodata=("y", "x"))
    image = filled(store["rgb"][:], store["nodata"][:])
    phrases = read_text(text)
    clip = load_clip(model, weights, device)
    if phrases.clip != clip.name:
        raise UserError(
            f"{text}: made by model {phrases.clip}, not by {clip.name}; run the text step again"
        )
    if clip.device.type != "cuda" and precision != "fp32":
        log.warning("precision %s is for CUDA only: fp32 is used", precision)
    encoder = make_encoder(clip, attention, precision)
    jbu = upsampling == "jbu" and jbu_weights is not None
    state = load_jbu(jbu_weights, clip.device, encoder.dim) if jbu else None
    probabilities = scale_probabilities(
        image,
        encoder,
        phrases,
        make_upsampler(upsampling, clip.mean, clip.std, state),
        scale=scale,
        mean=clip.mean,
        std=clip.std,
        logit_scale=clip.logit_scale if logit_scale is None else logit_scale,
        window=window,
        stride=stride,
        class_token_weight=class_token_weight,
        batch=batch,
    )
    files = [rgb, text, *([jbu_weights] if jbu else [])]
    with new_store(
        out,
        step="clip_scale",
        settings={k: v for k, v in settings.items() if k not in ("rgb", "text", "out")},
        inputs=files,
        attributes={"class_names": phrases.class_names},
    ) as group:
        write_array(group, "probabilities", probabilities, ("class", "y", "x"))


if __name__ == "__main__":
    run(clip_scale)
