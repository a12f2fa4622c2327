"""Measure the bundled CLIP on aerial images that never trained it, and on phrases.

    python -m special_steps.bundled_clip.training.evaluate --aerial ../shared/data/aerial --cache DIR

`--cache` is the folder training worked in (images, parts and text targets are made there if
missing). Settings are chosen by the figures that this prints first. Labelled hyperspectral scenes
(`--scenes`, configs of the workflow, which then makes their pseudo-labels with the installed
weights) are for the report only.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
import yaml
from timm.models import EfficientNet
from torch import Tensor

from special_steps.bundled_clip.training import model as bundled
from special_steps.bundled_clip.training.aerial import PARTS, Aerial, load
from special_steps.bundled_clip.training.image_tower import (
    STRIDE,
    Batch,
    dense_features,
    dense_trunk,
    losses,
    make_batch,
)
from special_steps.bundled_clip.training.mosaics import (
    Bank,
    composite_look,
    make_bank,
    mosaic_base,
    put_objects,
)
from special_steps.bundled_clip.training.parts import find_parts
from special_steps.bundled_clip.training.phrases import held_out, nouns
from special_steps.bundled_clip.training.text_tower import embed
from special_steps.bundled_clip.training.words import (
    EVALUATION_WORDS,
    Words,
    embed_words,
    scene_group,
)
from special_steps.clip.encoder import Encoder
from special_steps.clip.model import BUNDLED
from special_steps.clip.prompts import AERIAL
from special_steps.clip.upsample import joint_bilateral
from special_steps.clip.windows import window_cosines
from special_steps.core.settings import default_of

GLOBAL_BIAS = default_of("clips.NAME.global_bias")

# Plain names as a user would give them, one for each part that simulated scenes may hold.
PLAIN_NAMES = {
    "water": "water",
    "trees": "trees",
    "grass": "grass",
    "soil": "bare soil",
    "road": "asphalt",
    "roof": "roof",
    "shadow": "shadow",
    "sand": "sand",
    "crop": "farmland",
    "parking": "parking lot",
}


def class_vectors(
    model: open_clip.CLIP, tokenizer: open_clip.SimpleTokenizer, names: Sequence[str]
) -> Tensor:
    """Template-averaged text embedding (K, 384) of each class name, unit length."""
    vectors = embed(model, tokenizer, [t.format(n) for n in names for t in AERIAL])
    return F.normalize(vectors.view(len(names), len(AERIAL), -1).mean(1), dim=-1)


@torch.inference_mode()
def scene_accuracy(
    model: open_clip.CLIP, tokenizer: open_clip.SimpleTokenizer, data: Aerial
) -> tuple[float, dict[str, float]]:
    """Top-1 of held-out scenes over the 12 words by upstream's encode_image, and per word."""
    text = class_vectors(model, tokenizer, EVALUATION_WORDS)
    group = scene_group()[data.scenes]
    rows = np.flatnonzero(data.held_out & (group >= 0) & (group < len(EVALUATION_WORDS)))
    hits = []
    for part in np.array_split(rows, max(1, len(rows) // 64)):
        image = torch.from_numpy(np.asarray(data.images[part])).permute(0, 3, 1, 2).float() / 255
        image = F.interpolate(image, (224, 224), mode="bicubic").clamp(0, 1)
        z = model.encode_image((image - 0.5) / 0.5, normalize=True)
        hits.append((z @ text.T).argmax(1).numpy() == group[part])
    hit = np.concatenate(hits)
    each = {w: float(hit[group[rows] == g].mean()) for g, w in enumerate(EVALUATION_WORDS)}
    return float(hit.mean()), each


@torch.inference_mode()
def mosaic_batches(
    model: open_clip.CLIP, bank: Bank, words: Words, count: int = 12, seed: int = 1
) -> list[tuple[Tensor, Batch]]:
    """Dense features of held-out training-like samples, with their batches."""
    trunk = dense_trunk(model.visual.trunk)
    batches = [make_batch(bank, words, seed, step, held_out=True) for step in range(count)]
    return [(dense_features(trunk, model.visual.head, b.image), b) for b in batches]


def fit_scale(model: open_clip.CLIP, bank: Bank, words: Words) -> None:
    """Set the model's logit scale to the one under which held-out mosaics are most likely."""
    results = mosaic_batches(model, bank, words)
    grid = torch.arange(6.0, 60.0, 1.0)
    score = torch.tensor([sum(float(losses(f, b, float(s))[0]) for f, b in results) for s in grid])
    with torch.no_grad():
        model.logit_scale.fill_(float(grid[int(score.argmin())].log()))


def simulated_scene(
    bank: Bank, rng: np.random.Generator, size: int = 96
) -> tuple[Tensor, np.ndarray]:
    """A composite-like scene (1, 3, size, size) with known part (size, size) of every pixel."""
    while True:
        image, label = mosaic_base(bank, size, rng)
        put_objects(image, label, bank, rng)
        truth = label.argmax(-1)
        if all(PARTS[k] in PLAIN_NAMES for k in np.unique(truth)) and len(np.unique(truth)) > 2:
            break
    image = composite_look(image, rng, strong=True)
    return torch.from_numpy(image).permute(2, 0, 1)[None], truth


@torch.inference_mode()
def dense_probabilities(
    model: open_clip.CLIP,
    trunk: EfficientNet,
    image: Tensor,
    text: Tensor,
    scale: float,
) -> Tensor:
    """Class probabilities (K, H, W) of a small scene at a scale, as the workflow without windows."""
    height, width = image.shape[2:]
    shape = (round(height * scale), round(width * scale))
    x = F.interpolate(image, shape, mode="bicubic", antialias=True).clamp(0, 1)
    # Reflection up to a multiple of 16, at least 64 px.
    down, right = (max(64, -(-n // 16) * 16) - n for n in shape)
    x = F.pad(x, (0, right, 0, down), "reflect")

    def features(images: Tensor) -> tuple[Tensor, Tensor]:
        patch_features = dense_features(trunk, model.visual.head, images)
        return patch_features, patch_features.mean((2, 3))

    encoder = Encoder(features, STRIDE, text.shape[1], image.device)
    cosine = window_cosines(x, encoder, text, joint_bilateral, GLOBAL_BIAS)
    p = (cosine[:, :, : shape[0], : shape[1]] * model.logit_scale.exp()).softmax(1)
    return F.interpolate(p, (height, width), mode="bilinear")[0]


def simulated_accuracy(
    model: open_clip.CLIP,
    tokenizer: open_clip.SimpleTokenizer,
    bank: Bank,
    choices: Sequence[tuple[float, ...]],
    count: int = 240,
    seed: int = 5,
) -> list[tuple[float, float]]:
    """Pixel accuracy, mean and its standard error, by each choice of scales.

    On held-out simulated scenes that are named by the classes they hold.
    """
    trunk = dense_trunk(model.visual.trunk)
    vectors = dict(
        zip(PLAIN_NAMES, class_vectors(model, tokenizer, list(PLAIN_NAMES.values())), strict=True)
    )
    scores = np.empty((len(choices), count))
    for i in range(count):
        image, truth = simulated_scene(bank, np.random.default_rng([seed, i]))
        present = np.unique(truth)
        text = torch.stack([vectors[PARTS[k]] for k in present])
        p = {
            scale: dense_probabilities(model, trunk, image, text, scale)
            for scale in {s for scales in choices for s in scales}
        }
        for j, scales in enumerate(choices):
            best = sum((p[s] for s in scales), torch.zeros(())).argmax(0).numpy()
            scores[j, i] = (present[best] == truth).mean()
    return [(float(s.mean()), float(s.std(ddof=1) / count**0.5)) for s in scores]


def text_figures(
    model: open_clip.CLIP, tokenizer: open_clip.SimpleTokenizer, cache: Path, phrases: list[str]
) -> dict[str, float]:
    """How well the text tower stands in for the teacher."""
    from special_steps.bundled_clip.training.teacher import Teacher

    teacher = Teacher()
    corpus = (cache / "phrases.txt").read_text(encoding="utf-8").splitlines()
    test = [p for p in corpus if held_out(p)]
    land = set(nouns())
    about_land = [p for p in test if any(n in p for n in land)]
    out = {}
    for name, rows in (("held-out phrases", test), ("held-out land-cover phrases", about_land)):
        got, want = embed(model, tokenizer, rows), teacher.embed(rows)
        out[f"cosine, {len(rows)} {name}"] = float((got * want).sum(-1).mean())
    got, want = embed(model, tokenizer, phrases), teacher.embed(phrases)
    hide = -2 * torch.eye(len(phrases))
    same = (got @ got.T + hide).argmax(1) == (want @ want.T + hide).argmax(1)
    out[f"cosine, {len(phrases)} class phrases"] = float((got * want).sum(-1).mean())
    out["nearest neighbour as the teacher's, class phrases"] = float(same.float().mean())
    fresh = torch.tensor([p not in set(corpus) or held_out(p) for p in phrases])
    if fresh.any():
        out[f"the same, {int(fresh.sum())} phrases never trained on"] = float(
            same[fresh].float().mean()
        )
    return out


def scene_report(config: Path, data: Path) -> str:
    """Accuracy of the pseudo-labels that the workflow makes of a config's scenes."""
    root = Path(__file__).resolve().parents[3]
    scenes = yaml.safe_load(config.read_text(encoding="utf-8"))["scenes"]
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        files = {name: Path("results", name, "hsi", "pseudo.metrics.json") for name in scenes}
        subprocess.run(
            ["snakemake", "--quiet", "-s", str(root / "workflow" / "Snakefile"), "--cores", "all"]
            + [str(file) for file in files.values()]
            + ["--configfile", str(config.resolve()), "--config", f"data={data.resolve()}"],
            cwd=folder,
            check=True,
        )
        for name, file in files.items():
            found = json.loads(Path(folder, file).read_text(encoding="utf-8"))
            recall = ", ".join(
                f"{c['class']} {c['recall']:.2f}" for c in found["classes"] if c["pixels"]
            )
            lines.append(
                f"{name}, pseudo-labels: OA {found['oa']:.3f}, AA {found['aa']:.3f},"
                f" kappa {found['kappa']:.3f}; recall {recall}"
            )
    return "\n".join(lines)


def main() -> None:
    """Print every figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--aerial", type=Path, required=True, help="folder of the image archives")
    parser.add_argument("--cache", type=Path, required=True, help="folder training worked in")
    parser.add_argument("--weights", type=Path, default=BUNDLED, help="folder of the weights")
    parser.add_argument("--phrases", type=Path, help="class phrases, one a line")
    parser.add_argument("--scenes", type=Path, nargs="*", default=[], help="workflow configs")
    parser.add_argument("--data", type=Path, default=Path(), help="folder of their scenes")
    options = parser.parse_args()
    if options.scenes and options.weights.resolve() != BUNDLED.resolve():
        parser.error(
            f"--scenes measures the installed weights, in {BUNDLED}: "
            f"copy those of {options.weights} there first, or leave --weights out"
        )
    model, tokenizer = bundled.load(options.weights)
    data = load(options.aerial, options.cache)
    bank = make_bank(data, find_parts(data, options.cache), held_out=True)
    print(f"logit scale {float(model.logit_scale.detach().exp()):.1f}")
    top, each = scene_accuracy(model, tokenizer, data)
    print(f"held-out scenes, 12 words, top-1: {top:.3f}")
    print("   " + ", ".join(f"{w} {a:.2f}" for w, a in each.items()))
    words = embed_words([partial(embed, model, tokenizer)])
    results = mosaic_batches(model, bank, words)
    hits = np.nanmean([float(losses(f, b)[3]) for f, b in results])
    print(f"held-out mosaics, cell accuracy: {hits:.3f}")
    choices = [(1,), (2,), (3,), (4,), (1, 2), (2, 3), (2, 4), (1, 2, 4)]
    for scales, (mean, error) in zip(
        choices, simulated_accuracy(model, tokenizer, bank, choices), strict=True
    ):
        print(
            f"held-out simulated scenes, scales {scales}: pixel accuracy {mean:.3f} +- {error:.3f}"
        )
    if options.phrases:
        lines = options.phrases.read_text(encoding="utf-8").splitlines()
        for name, value in text_figures(model, tokenizer, options.cache, lines).items():
            print(f"{name}: {value:.3f}")
    for config in options.scenes:
        print(scene_report(config, options.data))


if __name__ == "__main__":
    main()
