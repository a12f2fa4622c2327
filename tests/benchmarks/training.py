"""One training iteration of MambaHSI, everything included, and its parts; time and memory.

    python tests/benchmarks/training.py [Y X BANDS]

The yardstick is a plain convolutional network of the same size by torch (three 3 x 3 convolutions
of as many channels on the same cube), in the same run, forward, backward and Adam.
"""

import argparse
import resource
import statistics
import time

import numpy as np
import torch
from torch import nn

from special_steps.classifier.loop import (
    Setup,
    create_model_and_optimizer,
    random_pixel_loss,
    train_epoch,
)
from special_steps.classifier.mambahsi import predict
from special_steps.classifier.sampling import class_balanced_sampler
from special_steps.classifier.tiles import Scene
from special_steps.core.tiling import Tile

CLASSES = 9
CLASSIFIER = {"hidden": 16, "tokens": 4}


def plain(bands: int) -> nn.Module:
    """The yardstick."""
    layers: list[nn.Module] = []
    for before in (bands, 16, 16):
        layers += [nn.Conv2d(before, 16, 3, padding=1), nn.GroupNorm(4, 16), nn.SiLU()]
    model = nn.Sequential(*layers, nn.Conv2d(16, CLASSES, 1))
    return model.to(memory_format=torch.channels_last)


def main() -> None:
    """Print times, ratios and the peak of memory."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("size", type=int, nargs="*", default=[610, 340, 103], help="y x bands")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    height, width, bands = options.size
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    small, _ = create_model_and_optimizer(4, 2, CLASSIFIER, 0, device)
    small(torch.rand(1, 4, 8, 8, device=device)).sum().backward()
    libraries = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # with compiled kernels
    cube = torch.rand(1, bands, height, width, device=device)
    scene = Scene(lambda _: cube, bands, np.zeros((height, width), bool), max(height, width))
    rng = np.random.default_rng(0)
    labels = rng.integers(1, CLASSES + 1, (height, width)).astype(np.uint8)
    sampler = class_balanced_sampler(labels, rng.random(labels.shape, np.float32), 500)
    model, optimizer = create_model_and_optimizer(bands, CLASSES, CLASSIFIER, 0, device)
    other = plain(bands).to(device)
    adam = torch.optim.Adam(other.parameters())

    def losses(logits: torch.Tensor, tile: Tile) -> dict[str, tuple[float, torch.Tensor]]:
        return {"random": (1.0, random_pixel_loss(sampler, rng, logits, tile))}

    def iteration(model: nn.Module, optimizer: torch.optim.Adam) -> None:
        how = {"rates": [1e-3], "noise": 0.1, "rng": rng, "title": "iteration"}
        train_epoch(Setup(model, optimizer, scene, sampler), losses, **how)

    work = {
        "MambaHSI, an iteration": lambda: iteration(model, optimizer),
        "MambaHSI, prediction": lambda: predict(model, cube[0]),
        "yardstick, an iteration": lambda: iteration(other, adam),
    }
    times: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(options.repeats + 1):
        for name, call in work.items():
            begin = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - begin)
    found = {name: statistics.median(t[1:]) for name, t in times.items()}
    print(f"{device}, {torch.get_num_threads()} threads, {height} x {width} x {bands}, median:")
    for name, took in found.items():
        print(f"  {name:24s} {took:6.2f} s   {took / found['yardstick, an iteration']:5.2f}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    own = height * width * bands * 4 / 1024
    print(
        f"  peak memory {peak / 2**20:.2f} GB, of which libraries {libraries / 2**20:.2f} GB;"
        f" the rest is {(peak - libraries) / own:.1f} x the cube"
    )


if __name__ == "__main__":
    main()
