"""Dense CLIP against its floor, the plain batched forward pass of the same windows, in one run.

    python tests/benchmarks/dense_clip.py

with the workflow's `OMP_WAIT_POLICY=PASSIVE`.
Random weights and pictures: they cost as much as real ones. Forward passes and whole steps take
turns, so that other work on the machine slows both down alike; medians are compared.

    python tests/benchmarks/dense_clip.py --memory

runs the step, with the bundled model, on a scene of 610 x 340 pixels and on one 8 times as tall, and
compares their peaks of memory.
"""

import argparse
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import open_clip
import torch
from safetensors.torch import save_file

from special_steps.clip.encoder import make_encoder
from special_steps.clip.model import Clip, load_clip
from special_steps.clip.prompts import Phrases, write_phrases
from special_steps.clip.upsample import make_upsampler
from special_steps.clip_scale import scale_probabilities
from special_steps.core.settings import _bundled_scales, default_of
from special_steps.core.store import new_store, write_array
from special_steps.core.tiling import tile_starts
from special_steps.kernels.build import keep_memory

CLASSES, BATCH = 8, 8
WINDOW, STRIDE, GLOBAL_BIAS, ATTENTION, PRECISION = (
    default_of(f"clips.NAME.{name}")
    for name in ("window", "stride", "global_bias", "attention", "precision")
)
UPSAMPLING = ("bilinear", "joint_bilateral", "jbu")
MODELS = ("ViT-B/16", "bundled")
SCENE = (610, 340)  # Pavia University


def random_vit() -> Clip:
    """ViT-B/16 as OpenAI's, untrained."""
    torch.manual_seed(0)
    model = open_clip.create_model("ViT-B-16-quickgelu").eval().requires_grad_(False)
    bundled = load_clip("bundled", None)
    return bundled._replace(model=model.to(bundled.device), name="ViT-B-16-quickgelu")


def random_jbu(dim: int) -> dict[str, torch.Tensor]:
    """A learned upsampler of the published shape (one module for all stages), untrained."""
    shapes = {
        "up.range_proj.0": (32, 3), "up.range_proj.3": (32, 32),
        "up.fixup_proj.0": (121, 124), "up.fixup_proj.3": (121, 121), "fixup_proj.1": (dim, dim),
    }  # fmt: skip
    state = {"up.range_temp": torch.tensor(0.5), "up.sigma_spatial": torch.tensor(0.7)}
    for name, shape in shapes.items():
        state[f"{name}.weight"] = torch.randn(*shape, 1, 1) / shape[1] ** 0.5
        state[f"{name}.bias"] = torch.randn(shape[0]) / 10
    return state


def seconds(work: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median time of each piece of work; they take turns, the first turn does not count."""
    times: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(rounds + 1):
        for name, call in work.items():
            start = time.perf_counter()
            call()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(t[1:]) for name, t in times.items()}


def step(clip: Clip, upsampling: str, size: tuple[int, int]) -> Callable[[], object]:
    """The whole step at scale 2 on a random picture: resizing, windows, upsampling, classes."""
    encoder = make_encoder(clip, ATTENTION, PRECISION)
    rng = np.random.default_rng(0)
    picture = rng.random((3, *size), np.float32)
    text = rng.standard_normal((CLASSES, encoder.dim)).astype(np.float32)
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    names = [str(i) for i in range(CLASSES)]
    phrases = Phrases(text, np.arange(CLASSES), names, names, clip.name)
    state = random_jbu(encoder.dim) if upsampling == "jbu" else None
    rows = partial(
        scale_probabilities,
        lambda first, last: picture[:, first:last],
        size,
        encoder,
        phrases,
        make_upsampler(upsampling, clip.mean, clip.std, state),
        scale=2,
        mean=clip.mean,
        std=clip.std,
        logit_scale=50,
        window=WINDOW,
        stride=STRIDE,
        global_bias=GLOBAL_BIAS,
    )
    return lambda: list(rows())


def peak(folder: Path, size: tuple[int, int], upsampling: str) -> int:
    """Peak of memory (bytes) of the step as a process of its own, on a random picture."""
    rng = np.random.default_rng(0)
    with new_store(folder / "rgb.zarr", step="rgb", settings={}, inputs=[]) as group:
        write_array(group, "rgb", rng.random((3, *size), np.float32), ("band", "y", "x"))
        write_array(group, "nodata", np.zeros(size, bool), ("y", "x"))
    dim = make_encoder(load_clip("bundled", None), ATTENTION, PRECISION).dim
    text = np.linalg.qr(rng.standard_normal((dim, CLASSES)))[0].T.astype(np.float32)
    names = [str(i) for i in range(CLASSES)]
    phrases = Phrases(text, np.arange(CLASSES), names, names, "bundled")
    write_phrases(folder / "text.npz", phrases)
    save_file(random_jbu(dim), folder / "jbu.safetensors")
    options = {
        "rgb": folder / "rgb.zarr", "text": folder / "text.npz", "out": folder / "scale.zarr",
        "scale": 1, "model": "bundled", "weights": "null", "attention": ATTENTION,
        "window": WINDOW, "stride": STRIDE, "upsampling": upsampling,
        "jbu_weights": folder / "jbu.safetensors", "global_bias": GLOBAL_BIAS,
        "logit_scale": "null", "precision": PRECISION,
    }  # fmt: skip
    words = [sys.executable, "-m", "special_steps.clip_scale"]
    words += [f"--{name}={value}" for name, value in options.items()]
    child = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise subprocess.CalledProcessError(child.returncode, words)
    return usage.ru_maxrss * 1024


def compare_memory() -> None:
    """Print the peaks of memory of both scenes and their ratio."""
    for upsampling in UPSAMPLING:
        peaks = []
        for times in (1, 8):
            with tempfile.TemporaryDirectory() as name:
                peaks.append(peak(Path(name), (times * SCENE[0], SCENE[1]), upsampling))
        one, eight = (p / 1e9 for p in peaks)
        print(
            f"{upsampling}, {SCENE[1]} px wide: {one:.3f} GB {SCENE[0]} px tall, {eight:.3f} GB"
            f" {8 * SCENE[0]} px tall: {eight / one:.3f} x"
        )


@torch.inference_mode()
def main() -> None:
    """Print the times of a window and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="turns that count")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--memory", action="store_true", help="peaks of memory, instead of times")
    options = parser.parse_args()
    keep_memory()
    if options.memory:
        compare_memory()
        return
    # Two rows of eight windows of the enlarged picture.
    size = ((WINDOW + STRIDE) // 2, (WINDOW + 7 * STRIDE) // 2)
    make = {"ViT-B/16": random_vit, "bundled": lambda: load_clip("bundled", None)}
    clips = {name: make[name]() for name in options.models}
    device = clips[options.models[0]].device
    images = torch.rand(BATCH, 3, WINDOW, WINDOW, device=device)
    work: dict[str, Callable[[], object]] = {}
    for name, clip in clips.items():
        encoder = make_encoder(clip, ATTENTION, PRECISION)
        forward = clip.model.encode_image if name == "ViT-B/16" else encoder.features
        work[f"{name}, forward"] = lambda forward=forward: [forward(images) for _ in "12"]
        for upsampling in UPSAMPLING:
            work[f"{name}, {upsampling}"] = step(clip, upsampling, size)
    found = seconds(work, options.rounds)
    print(f"{device}, {torch.get_num_threads()} threads; a window of {WINDOW} px, median:")
    for name, time_ in found.items():
        floor = found[name.split(",")[0] + ", forward"]
        print(f"  {name:26s} {1000 * time_ / 16:8.1f} ms   {time_ / floor:5.2f} x its forward pass")
    if len(clips) < 2:
        return
    for what in ("forward", "joint_bilateral"):
        ratio = found[f"bundled, {what}"] / found[f"ViT-B/16, {what}"]
        print(f"bundled / ViT-B/16, {what}: {ratio:.3f}")
    for scales in ([1, 2], _bundled_scales()):
        windows = sum(
            math.prod(len(tile_starts(round(n * s), WINDOW, STRIDE)) for n in SCENE) for s in scales
        )
        times = ", ".join(
            f"{name} {windows / 16 * found[f'{name}, joint_bilateral']:.0f} s" for name in clips
        )
        print(f"a scene of {SCENE[0]} x {SCENE[1]} at scales {scales}: {windows} windows, {times}")


if __name__ == "__main__":
    main()
