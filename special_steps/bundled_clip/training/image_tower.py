"""Align every cell of EfficientNet-Lite0's feature map with the words for what lies in it."""

from __future__ import annotations

import copy
import json
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import open_clip
import timm
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from safetensors import safe_open
from timm.models import EfficientNet
from torch import Tensor, nn

from special_steps.bundled_clip.training.mosaics import Bank, draw_sample
from special_steps.bundled_clip.training.parts import imagenet_trunk
from special_steps.bundled_clip.training.words import (
    SCENE_WORDS,
    Words,
    draw_candidates,
    scene_group,
    split_words,
)
from special_steps.clip.upsample import joint_bilateral
from special_steps.core.tensors import write_tensors
from special_steps.kernels.build import keep_memory

log = logging.getLogger("bundled_clip")

TRUNK = "tf_efficientnet_lite0"
STRIDE = 16  # px per cell in dense use; the published trunk has 32, the weights fit both
# Strided, the trunk computes exactly the odd rows and columns of the dense map. Training on those
# costs half as much, and what it leaves out is next to what it keeps.
TRAIN_STRIDE = 32
SCALE = 25.0  # logits = SCALE * cosine while training; the shipped value is fitted afterwards
TRUNK_RATE, HEAD_RATE = 4e-4, 1.2e-3
SCENE_WEIGHT, PULL_WEIGHT = 0.4, 0.5
# The last part of the time trains the weights as they are used: on windows of 224 px, at every cell
# of the dense map, with norms by their averages, and by the pixels that upsample.joint_bilateral makes.
FINISH = 5 / 7


@dataclass(frozen=True)
class Shape:
    """Of a batch: samples, px along a side, and px along a side of what has one label."""

    samples: int
    size: int
    label: int


FIRST, LAST = Shape(16, 128, STRIDE), Shape(5, 224, 4)


@dataclass(frozen=True)
class Batch:
    """B samples with their candidate names (P parts, G scene words, D = 384).

    image (B, 3, S, S), fractions (B, P, S/L, S/L) of the area of L px, text (B, P, D), open (B, P), column (B, P),
    scene (B,) index of the scene word or -1, scene_text (B, G, D).
    """

    image: Tensor
    fractions: Tensor
    text: Tensor
    open: Tensor
    column: Tensor
    scene: Tensor
    scene_text: Tensor


def make_batch(
    bank: Bank, words: Words, seed: int, step: int, shape: Shape = FIRST, held_out: bool = False
) -> Batch:
    """Batch number `step`: the same at every run, whichever process makes it."""
    rng = np.random.default_rng([seed, step, int(held_out)])
    groups, names = scene_group(), [split_words(t) for _, t in SCENE_WORDS.values()]
    rows = []
    for _ in range(shape.samples):
        sample = draw_sample(bank, rng, shape.size, shape.label)
        present = sample.fractions.amax((1, 2)).numpy() > 0.3
        c = draw_candidates(present, words, rng)
        scene = torch.tensor(groups[sample.scene] if sample.scene >= 0 else -1)
        text = words.draw([rng.choice(n) for n in names], rng)
        rows.append((sample.image, sample.fractions, c.text, c.open, c.column, scene, text))
    return Batch(*(torch.stack(column) for column in zip(*rows, strict=True)))


def dense_trunk(trunk: nn.Module) -> EfficientNet:
    """The trunk at stride 16: the same parameters, last stage dilated, norms by their averages."""
    dense = cast(EfficientNet, timm.create_model(TRUNK, num_classes=0, output_stride=STRIDE))
    dense.to(memory_format=torch.channels_last).eval()
    for into, module in zip(dense.modules(), trunk.modules(), strict=True):
        into._parameters, into._buffers = module._parameters, module._buffers
    return dense


def dense_features(trunk: EfficientNet, head: nn.Module, image: Tensor) -> Tensor:
    """Projected features (B, D, h, w), not normalised, of images (B, 3, H, W) in [0, 1]."""
    x = ((image - 0.5) / 0.5).contiguous(memory_format=torch.channels_last)
    features = trunk.forward_features(x)
    return head(features.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def cosines(features: Tensor, batch: Batch) -> Tensor:
    """Cosines (B, P, h, w) with names, of cells, or of pixels where labels are smaller than cells."""
    label = batch.image.shape[-1] // batch.fractions.shape[-1]
    if label == STRIDE:
        return torch.einsum("bdhw,bpd->bphw", F.normalize(features, dim=1), batch.text)
    each = zip(features, batch.text, F.avg_pool2d(batch.image, label), strict=True)
    return torch.cat([joint_bilateral(f[None], text, image[None]) for f, text, image in each])


def losses(features: Tensor, batch: Batch, scale: float = SCALE) -> tuple[Tensor, ...]:
    """Cell, pull and scene loss, and cell and scene accuracy.

    A cell's target is its mix of parts, gathered under the names drawn; cells without a sure
    label have no mass and no weight. The pull draws a cell to its names themselves, so that
    names close to them work too, which a contrast among a few names alone does not ask for.
    """
    cosine = cosines(features, batch)
    every = batch.fractions.shape[-1] // cosine.shape[-1]
    fractions = batch.fractions[:, :, every - 1 :: every, every - 1 :: every]
    logits = (cosine * scale).masked_fill(~batch.open[:, :, None, None], -1e4)
    index = batch.column[:, :, None, None].expand_as(fractions)
    target = torch.zeros_like(fractions).scatter_add_(1, index, fractions)
    target = target * batch.open[:, :, None, None]
    weight = target.sum(1)
    cell = -(target * logits.log_softmax(1)).sum() / weight.sum().clamp(min=1)
    pull = (target * (1 - cosine)).sum() / weight.sum().clamp(min=1)
    sure = target.amax(1) > 0.7
    hit = (logits.argmax(1) == target.argmax(1))[sure].float().mean()

    whole = batch.scene >= 0
    pooled = F.normalize(features[whole].mean((2, 3)), dim=-1)
    scene_logits = scale * torch.einsum("bd,bgd->bg", pooled, batch.scene_text[whole])
    scene = F.cross_entropy(scene_logits, batch.scene[whole], label_smoothing=0.05)
    scene_hit = (scene_logits.argmax(1) == batch.scene[whole]).float().mean()
    return cell, pull, scene, hit, scene_hit


def state_of(trunk: nn.Module, head: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers of both modules, under open_clip's names within `visual.`."""
    pairs = (("trunk.", trunk), ("head.", head))
    return {p + k: v for p, module in pairs for k, v in module.state_dict().items()}


def save_checkpoint(
    path: Path,
    live: dict[str, Tensor],
    average: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    meta: dict[str, float],
) -> None:
    """Write everything a resumed run needs."""
    tensors = {f"live.{k}": v for k, v in live.items()}
    tensors |= {f"average.{k}": v for k, v in average.items()}
    for i, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{i}.{k}": v for k, v in state.items()}
    write_tensors(path, tensors, {"meta": json.dumps(meta)})


def load_checkpoint(
    path: Path,
    live: dict[str, Tensor],
    average: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
) -> dict[str, float]:
    """Restore what save_checkpoint wrote into the tensors given; returns its meta."""
    moments: dict[int, dict[str, Tensor]] = {}
    with safe_open(path, "pt") as stored:
        meta = json.loads(stored.metadata()["meta"])
        for key in stored.keys():  # noqa: SIM118 (a file handle, not a dict)
            kind, rest = key.split(".", 1)
            if kind == "optimizer":
                i, name = rest.split(".")
                moments.setdefault(int(i), {})[name] = stored.get_tensor(key)
            else:
                (live if kind == "live" else average)[rest].copy_(stored.get_tensor(key))
    whole = optimizer.state_dict()
    optimizer.load_state_dict({"state": moments, "param_groups": whole["param_groups"]})
    return meta


def train_images(
    model: open_clip.CLIP,
    bank: Bank,
    words: Words,
    folder: Path,
    seconds: float,
    seed: int = 0,
    processes: int = 2,
    export: Callable[[], None] = lambda: None,
    export_every: float = 600,
) -> None:
    """Train `model.visual` in place for `seconds`, counted over all resumed runs.

    Several processes of one thread each average their gradients: on a CPU that costs half of what
    threads within one process cost. `export` is called every `export_every` seconds with the
    averaged weights in the model.
    """
    torch.set_num_threads(1)
    meeting = folder / "meeting"
    meeting.unlink(missing_ok=True)
    shared = (model, bank, words, folder, seconds, seed, processes, export, export_every)
    context = mp.get_context("fork")  # children share the images
    children = [context.Process(target=run_rank, args=(r, *shared)) for r in range(1, processes)]
    for child in children:
        child.start()
    run_rank(0, *shared)
    for child in children:
        child.join()


def run_rank(
    rank: int,
    model: open_clip.CLIP,
    bank: Bank,
    words: Words,
    folder: Path,
    seconds: float,
    seed: int,
    processes: int,
    export: Callable[[], None],
    export_every: float,
) -> None:
    """The training loop of one process; only the first one logs, saves and exports.

    The learning rate follows the time used, so that a run ends when it should on any machine. It is
    the process's own time: other work on the machine costs patience, but no samples.
    """
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder.absolute() / 'meeting'}",
        rank=rank,
        world_size=processes,
    )
    torch.manual_seed(seed)
    keep_memory()
    trunk = imagenet_trunk(TRAIN_STRIDE).to(memory_format=torch.channels_last)
    head = copy.deepcopy(model.visual.head)  # the model itself only ever holds the average
    parameters = [*trunk.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(
        [
            {"params": list(trunk.parameters()), "base": TRUNK_RATE},
            {"params": list(head.parameters()), "base": HEAD_RATE},
        ],
        lr=TRUNK_RATE,
        weight_decay=0.02,
        fused=True,
    )
    live = state_of(trunk, head)
    average = {k: v.detach().clone() for k, v in live.items()}
    path = folder / "image.safetensors"
    used, step, shape = 0.0, 0, FIRST
    trunk.train()
    head.train()
    if path.exists():
        with torch.no_grad():
            meta = load_checkpoint(path, live, average, optimizer)
        used, step = meta["seconds"], int(meta["step"])
        if meta["finishing"]:
            shape, trunk = LAST, dense_trunk(trunk)
        log.info("image: resumed at step %d, %.0f s", step, used)
    floats = [k for k, v in live.items() if v.is_floating_point()]
    start, now, last_save, recent = time.process_time() - used, used, used, []

    def save() -> None:
        meta = {"seconds": now, "step": step, "finishing": shape is LAST}
        save_checkpoint(path, live, average, optimizer, meta)

    while now < seconds:
        if shape is FIRST and now >= FINISH * seconds:
            shape = LAST
            with torch.no_grad():
                for k, v in live.items():
                    dist.broadcast(v.copy_(average[k]), 0)  # each process has norms of its own
            trunk = dense_trunk(trunk)
        for group in optimizer.param_groups:
            group["lr"] = group["base"] * min(1, (step + 1) / 100) * cosine_fall(now / seconds)
        batch = make_batch(bank, words, seed, step * processes + rank, shape)
        cell, pull, scene, hit, scene_hit = losses(dense_features(trunk, head, batch.image), batch)
        optimizer.zero_grad()
        (cell + PULL_WEIGHT * pull + SCENE_WEIGHT * scene).backward()
        now = average_gradients(parameters, time.process_time() - start)
        nn.utils.clip_grad_norm_(parameters, 5.0)
        optimizer.step()
        step += 1
        with torch.no_grad():
            weight = 1 - min(0.995, step / (step + 20))
            torch._foreach_lerp_(
                [average[k] for k in floats], [live[k].detach() for k in floats], weight
            )
        if rank:
            continue
        recent.append([float(v.detach()) for v in (cell, pull, scene, hit, scene_hit)])
        if step % 50 == 0:
            mean = np.nanmean(recent[-50:], axis=0)
            log.info(
                "image: %5.0f s, step %d, cell %.3f, pull %.3f, scene %.3f, "
                "cell accuracy %.3f, scene accuracy %.3f",
                now,
                step,
                *mean,
            )
        if now - last_save > export_every:
            last_save = now
            save()
            put_average(model, average)
            export()
    if rank == 0:
        save()
        put_average(model, average)
        log.info("image: %d steps", step)
    dist.destroy_process_group()


def average_gradients(parameters: list[nn.Parameter], now: float) -> float:
    """Average gradients over the processes, in place; returns the average of their clocks.

    All processes so see one time, take the same learning rate and stop at the same step.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([torch.tensor([now]), *(g.flatten() for g in gradients)])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    means = flat[1:].split([g.numel() for g in gradients])
    for gradient, mean in zip(gradients, means, strict=True):
        gradient.copy_(mean.view_as(gradient))
    return float(flat[0])


def cosine_fall(done: float) -> float:
    """1 at the start, 0.01 at the end."""
    return 0.01 + 0.99 * (0.5 + 0.5 * math.cos(math.pi * min(1.0, done)))


def put_average(model: open_clip.CLIP, average: dict[str, Tensor]) -> None:
    """Copy averaged trunk and head into the model's image tower."""
    model.visual.load_state_dict(average)
    model.eval()
