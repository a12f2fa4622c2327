"""The training loop of all stages: augmentation, an epoch, epoch after epoch at a falling learning rate."""

import logging
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn import functional as F
from tqdm import tqdm

from special_steps.classifier.mambahsi import MambaHSI
from special_steps.classifier.sampling import PixelSampler
from special_steps.classifier.tiles import Scene, predict_scene, random_tile
from special_steps.core.prediction import labels as best_labels
from special_steps.core.tensors import find_device
from special_steps.core.tiling import Tile

log = logging.getLogger("special")

# From logits (pixel, class) of a tile to named (weight, loss) pairs.
Losses = Callable[[torch.Tensor, Tile], dict[str, tuple[float, torch.Tensor]]]
# From the scene's class probabilities, given by the network as it is before an epoch, and a generator to
# the epoch's losses and sizes of its pixel sets, for the log.
EpochLosses = Callable[
    [Callable[[], np.ndarray], np.random.Generator], tuple[Losses, dict[str, int]]
]
Rows = list[dict[str, Any]]  # one per epoch: epoch, stage, loss_*, *_pixels, agreement


class Setup(NamedTuple):
    """What is trained, and on what."""

    model: MambaHSI  # trained in place
    optimizer: torch.optim.Adam
    scene: Scene
    sampler: PixelSampler  # chooses tiles


def prepare_device() -> torch.device:
    """The GPU when there is one, else the CPU, set to repeatable arithmetic, with a note in the log."""
    device = find_device()
    if device.type == "cuda":
        return device
    log.info("no GPU found: training on the CPU (%d threads)", torch.get_num_threads())
    torch.use_deterministic_algorithms(True)  # an interrupted run resumes to the same bits
    # whatever is read was written before
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    return device


def create_model_and_optimizer(
    bands: int, classes: int, classifier: dict[str, int], seed: int, device: torch.device
) -> tuple[MambaHSI, torch.optim.Adam]:
    """A MambaHSI with seeded weights, and its Adam.

    Args:
        bands: of the scene.
        classes: K.
        classifier: hidden, tokens.
        seed: of the weights.
        device: where the network computes.
    """
    torch.manual_seed(seed)
    model = MambaHSI(bands, classes, **classifier).to(device)
    return model, torch.optim.Adam(model.parameters(), lr=1e-3)


def learning_rate(step: int, total: int, limits: list[float]) -> float:
    """Cosine schedule from limits[0] at step 0 to limits[1] at the last of `total` iterations."""
    first, last = limits
    return last + (first - last) * (1 + math.cos(math.pi * step / max(total - 1, 1))) / 2


def rotated_and_flipped(image: torch.Tensor, quarters: int, flip: bool) -> torch.Tensor:
    """torch.rot90 of (1, band, y, x) by quarter turns, then flipped along x or not, with one copy at most."""
    axes: set[int] = [set(), {3}, {2, 3}, {2}][quarters]
    if flip:
        axes ^= {2} if quarters % 2 else {3}  # the axis that becomes x
    image = image.flip(sorted(axes)) if axes else image
    return image.transpose(2, 3) if quarters % 2 else image


def gaussian_noise(like: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Standard normal noise of the shape (1, band, y, x), in channels-last layout.

    torch draws normal numbers with one thread: on the CPU pieces are drawn side by side, each with
    a generator of its own, as many whatever the number of threads.
    """
    n, bands, height, width = like.shape
    noise = like.new_empty(n, height, width, bands)
    pieces = noise.view(-1).chunk(8 if like.device.type == "cpu" else 1)
    seeds = rng.integers(2**62, size=len(pieces))

    def fill(piece: torch.Tensor, seed: int) -> None:
        piece.normal_(generator=torch.Generator(like.device).manual_seed(int(seed)))

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        list(pool.map(fill, pieces, seeds))
    return noise.permute(0, 3, 1, 2)


def train_epoch(
    setup: Setup,
    losses: Losses,
    *,
    rates: list[float],
    noise: float,
    rng: np.random.Generator,
    title: str,
) -> dict[str, float]:
    """Train for one epoch: an iteration per learning rate of `rates`.

    Each iteration sees the scene, or a tile of it, rotated by random quarter turns, flipped or not,
    with noise; the logits are rotated back, so that pixels keep their places.

    Args:
        setup: what is trained, and on what.
        losses: of a tile's logits.
        rates: learning rates.
        noise: standard deviation of the Gaussian noise.
        rng: decides on tiles, rotations and noise.
        title: of the progress bar.

    Returns:
        Mean of every named loss, unweighted.

    Raises:
        FloatingPointError: when the loss is not finite.
    """
    model, optimizer, scene, sampler = setup
    model.train()
    values: dict[str, list[float]] = {}
    for rate in tqdm(rates, desc=title, disable=None, leave=False):
        optimizer.param_groups[0]["lr"] = rate
        tile = random_tile(scene, sampler, rng)
        quarters, flip = int(rng.integers(4)), bool(rng.integers(2))
        augmented = rotated_and_flipped(scene.read(tile), quarters, flip)
        if noise:
            augmented = gaussian_noise(augmented, rng).mul_(noise).add_(augmented)
        # in the network's own layout, so that it keeps no second copy of the scene
        augmented = augmented.contiguous(memory_format=torch.channels_last)
        logits = model(augmented)
        logits = logits.flip(3) if flip else logits
        logits = torch.rot90(logits, -quarters, (2, 3))
        parts = losses(logits[0].flatten(1).T, tile)
        total = sum((weight * loss for weight, loss in parts.values()), logits.new_zeros(()))
        if not torch.isfinite(total):
            raise FloatingPointError("the training loss is not finite; lower the learning rate")
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        optimizer.step()
        for name, (_, loss) in parts.items():
            values.setdefault(name, []).append(loss.item())
    return {name: sum(each) / len(each) for name, each in values.items()}


def train(
    setup: Setup,
    epoch_losses: EpochLosses,
    *,
    stage: str,
    epochs: range,
    seed: int,
    training: dict[str, Any],
    labels: np.ndarray | None,
    rows: Rows,
    on_epoch_end: Callable[[np.ndarray, Rows], None],
) -> np.ndarray:
    """Train epoch after epoch, with a log line for each.

    Every epoch has random generators of its own, made from seed and epoch: a resumed training takes
    the same course as an unbroken one.

    Args:
        setup: what is trained, and on what.
        epoch_losses: gives an epoch's losses.
        stage: name for the log.
        epochs: numbers of the stage's epochs; the learning rate follows them.
        seed: random seed.
        training: epochs, iterations, learning_rate, noise.
        labels: (y, x) uint8 labels of the epoch before; None when there is none.
        rows: the stage's epochs done so far; the new ones are added.
        on_epoch_end: called with labels and rows after every epoch.

    Returns:
        The scene's class probabilities (class, y, x) after the last epoch.
    """
    iterations, total = training["iterations"], training["epochs"] * training["iterations"]
    # emptied when the network changes
    probabilities = cache(lambda: predict_scene(setup.model, setup.scene))
    for epoch in epochs[len(rows) :]:
        rng = np.random.default_rng([seed, epoch])
        losses, sizes = epoch_losses(probabilities, rng)
        probabilities.cache_clear()
        steps = range((epoch - 1) * iterations, epoch * iterations)
        means = train_epoch(
            setup,
            losses,
            rates=[learning_rate(step, total, training["learning_rate"]) for step in steps],
            noise=training["noise"],
            rng=rng,
            title=f"{stage} {epoch}/{epochs[-1]}",
        )
        before, labels = labels, best_labels(probabilities(), setup.scene.nodata)
        row = {"epoch": epoch, "stage": stage}
        row |= {f"loss_{name}": value for name, value in means.items()}
        row |= sizes | {"agreement": agreement(labels, before)}
        rows.append(row)
        log.info(
            " ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in row.items())
        )
        on_epoch_end(labels, rows)
    return probabilities()


def random_pixel_loss(
    sampler: PixelSampler, rng: np.random.Generator, logits: torch.Tensor, tile: Tile
) -> torch.Tensor:
    """Cross-entropy of freshly sampled pixels with their one-hot labels.

    Args:
        sampler: draws the pixels.
        rng: for the sampler.
        logits: (pixel, class) of the tile.
        tile: rows and columns.
    """
    pixels, classes = (torch.from_numpy(a).to(logits.device) for a in sampler(rng, tile))
    return F.cross_entropy(logits[pixels], classes)


def agreement(labels: np.ndarray, before: np.ndarray | None) -> float:
    """Share of the pixels with data that kept their label; NaN where there is no epoch before."""
    if before is None:
        return float("nan")
    valid = labels > 0
    return float((labels == before)[valid].mean())
