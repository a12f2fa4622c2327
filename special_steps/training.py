"""What warm-up and refinement share: drawing pixels, one training round, the state on disk."""

import hashlib
import json
import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch.nn import functional as F
from tqdm import tqdm

from special_steps.digest import digest_of
from special_steps.errors import UserError
from special_steps.mambahsi import MambaHSI, predict
from special_steps.prediction import labels as best_labels
from special_steps.store import aside, file_digest

log = logging.getLogger("special")

Draw = Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray]]
Losses = Callable[[torch.Tensor], dict[str, tuple[float, torch.Tensor]]]
Plan = Callable[[np.ndarray, np.random.Generator], tuple[Losses, dict[str, int]]]


def device() -> torch.device:
    """The GPU when there is one, else the CPU, with a note in the log."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    log.info("no GPU found: training on the CPU (%d threads)", torch.get_num_threads())
    torch.use_deterministic_algorithms(True)  # an interrupted run resumes to the same bits
    return torch.device("cpu")


def learning_rate(step: int, total: int, limits: list[float]) -> float:
    """Cosine schedule from limits[0] at step 0 to limits[1] at the last of `total` iterations."""
    first, last = limits
    return last + (first - last) * (1 + math.cos(math.pi * step / max(total - 1, 1))) / 2


def class_balanced(labels: np.ndarray, margin: np.ndarray, count: int) -> Draw:
    """A draw of `count` pixels per class, with probability proportional to the margin.

    Args:
        labels: (pixel,) uint8 pseudo-labels, 1..K, 0 = no data (never drawn).
        margin: (pixel,) float32 best-versus-second-best margins.
        count: pixels per class; with replacement. Classes that no pixel has are left out.

    Returns:
        A function of a random generator that gives pixel indices and classes from 0, int64.
    """
    tables = []
    for label in np.unique(labels[labels > 0]):
        pixels = np.flatnonzero(labels == label)
        weights = margin[pixels].astype(np.float64)
        if weights.sum() == 0:
            weights[:] = 1
        tables.append((int(label) - 1, pixels, np.cumsum(weights)))

    def draw(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        chosen = []
        for _, pixels, cumulative in tables:
            at = np.searchsorted(cumulative, rng.random(count) * cumulative[-1], side="right")
            chosen.append(pixels[np.minimum(at, len(pixels) - 1)])
        classes = np.repeat([label for label, _, _ in tables], count)
        return np.concatenate(chosen), classes

    return draw


def start(
    bands: int, classes: int, classifier: dict[str, int], seed: int, where: torch.device
) -> tuple[MambaHSI, torch.optim.Adam]:
    """A MambaHSI with seeded weights, and its Adam."""
    torch.manual_seed(seed)
    model = MambaHSI(bands, classes, **classifier).to(where)
    return model, torch.optim.Adam(model.parameters(), lr=1e-3)


def train_round(
    model: MambaHSI,
    optimizer: torch.optim.Adam,
    features: torch.Tensor,
    losses: Losses,
    *,
    rates: list[float],
    noise: float,
    rng: np.random.Generator,
    title: str,
) -> dict[str, float]:
    """Train for one round: an iteration per learning rate of `rates`.

    Each iteration sees the scene turned by random quarter turns, flipped or not, with noise; the
    logits are turned back, so that pixels keep their places.

    Args:
        features: (1, band, y, x) float32 on the model's device.
        losses: from logits (pixel, class) to named (weight, loss) pairs.
        noise: standard deviation of the Gaussian noise.

    Returns:
        Mean of every named loss, unweighted.

    Raises:
        FloatingPointError: when the loss is not finite.
    """
    generator = torch.Generator(features.device).manual_seed(int(rng.integers(2**62)))
    model.train()
    sums: dict[str, float] = {}
    for rate in tqdm(rates, desc=title, disable=None, leave=False):
        optimizer.param_groups[0]["lr"] = rate
        turns, flip = int(rng.integers(4)), bool(rng.integers(2))
        seen = torch.rot90(features, turns, (2, 3))
        seen = seen.flip(3) if flip else seen
        if noise:
            drawn = torch.randn(seen.shape, generator=generator, device=seen.device)
            seen = drawn.mul_(noise).add_(seen)
            del drawn
        # in the network's own layout, so that it keeps no second copy of the scene
        seen = seen.contiguous(memory_format=torch.channels_last)
        logits = model(seen)
        logits = logits.flip(3) if flip else logits
        logits = torch.rot90(logits, -turns, (2, 3))
        parts = losses(logits[0].flatten(1).T)
        total = sum(weight * loss for weight, loss in parts.values())
        if not torch.isfinite(total):
            raise FloatingPointError("the training loss is not finite; lower the learning rate")
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        optimizer.step()
        for name, (_, loss) in parts.items():
            sums[name] = sums.get(name, 0.0) + loss.item()
    return {name: value / len(rates) for name, value in sums.items()}


def train(
    model: MambaHSI,
    optimizer: torch.optim.Adam,
    scene: torch.Tensor,
    nodata: np.ndarray,
    plan: Plan,
    *,
    stage: str,
    last: int,
    seed: int,
    training: dict[str, Any],
    before: np.ndarray | None,
    rows: list[dict[str, Any]],
    keep: Callable[[np.ndarray, list[dict[str, Any]]], None],
) -> tuple[np.ndarray, np.ndarray]:
    """Train round after round, up to round `last`, with a log line and a kept state for each.

    Every round has random generators of its own, made from seed and round: a resumed training
    goes the way of an unbroken one.

    Args:
        scene: (1, band, y, x) float32 on the model's device.
        nodata: (y, x) bool.
        plan: from the present probabilities (class, y, x) and a generator to the round's losses
            and what the log shall tell of it.
        stage: name for the log.
        last: number of the last round; the first is the one after `rows` and the stages before.
        before: (y, x) uint8 labels of the round before; None when there is none.
        rows: rounds done so far; the new ones are added.
        keep: called with labels and rows after every round.

    Returns:
        Probabilities (class, y, x) and labels (y, x) after the last round.
    """
    iterations, total = training["iterations"], training["rounds"] * training["iterations"]
    first = rows[-1]["round"] if rows else 0 if stage == "warmup" else training["warmup_rounds"]
    probabilities, labels = predict(model, scene[0]), before
    for number in range(first + 1, last + 1):
        rng = np.random.default_rng([seed, number])
        losses, told = plan(probabilities, rng)
        steps = range((number - 1) * iterations, number * iterations)
        means = train_round(
            model,
            optimizer,
            scene,
            losses,
            rates=[learning_rate(step, total, training["learning_rate"]) for step in steps],
            noise=training["noise"],
            rng=rng,
            title=f"{stage} {number}/{last}",
        )
        probabilities = predict(model, scene[0])
        labels, before = best_labels(probabilities, nodata), labels
        row = {"round": number, "stage": stage}
        row |= {f"loss_{name}": value for name, value in means.items()}
        row |= told | {"agreement": agreement(labels, before)}
        rows.append(row)
        log.info(
            " ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in row.items())
        )
        keep(labels, rows)
    return probabilities, labels


def random_loss(draw: Draw, rng: np.random.Generator, logits: torch.Tensor) -> torch.Tensor:
    """Cross-entropy on freshly drawn pixels with their one-hot pseudo-labels."""
    pixels, classes = (torch.from_numpy(a).to(logits.device) for a in draw(rng))
    return F.cross_entropy(logits[pixels], classes)


def agreement(labels: np.ndarray, before: np.ndarray | None) -> float:
    """Share of the pixels with data that kept their label; NaN where there is no round before."""
    if before is None:
        return float("nan")
    valid = labels > 0
    return float((labels == before)[valid].mean())


def fingerprint(step: str, settings: dict[str, Any], inputs: list[Path]) -> str:
    """Digest of all that a training depends on: a checkpoint of another one is not resumed.

    The step's own source counts too: a changed line starts over.
    """
    digests = [digest_of(step), *(file_digest(p) for p in inputs)]
    about = {"settings": settings, "digests": digests}
    return hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode()).hexdigest()


def save_state(
    path: Path,
    model: MambaHSI,
    optimizer: torch.optim.Adam,
    labels: np.ndarray,
    rows: list[dict[str, Any]],
    mark: str,
) -> None:
    """Write model, Adam moments, last labels and the rounds' rows as safetensors, whole or not."""
    tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"adam.{key}.{name}"] = value
    tensors["labels"] = torch.from_numpy(labels)
    tensors = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    with aside(path) as file:
        file.write_bytes(save(tensors, {"mark": mark, "rows": json.dumps(rows)}))


def load_state(
    path: Path, model: MambaHSI, optimizer: torch.optim.Adam
) -> tuple[np.ndarray, list[dict[str, Any]], str]:
    """Read what save_state wrote into model and optimizer; return labels, rows and mark.

    Raises:
        UserError: when the file is damaged or of another network.
    """
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            about = file.metadata()
        model.load_state_dict(
            {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
        )
    except (SafetensorError, OSError, RuntimeError, KeyError) as error:
        raise UserError(f"{path}: not a training state ({error}); delete it") from error
    for name, parameter in model.named_parameters():
        for key in ("step", "exp_avg", "exp_avg_sq"):
            value = tensors.get(f"adam.{key}.{name}")
            if value is not None:
                # Adam keeps its step counter on the CPU
                at = value if key == "step" else value.to(parameter.device)
                optimizer.state[parameter][key] = at
    return tensors["labels"].numpy(), json.loads(about["rows"]), about["mark"]


def resume(
    path: Path, mark: str, model: MambaHSI, optimizer: torch.optim.Adam
) -> tuple[np.ndarray, list[dict[str, Any]]] | None:
    """Load the checkpoint of an interrupted run of the same training; None when there is none."""
    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as file:
            same = file.metadata().get("mark") == mark
    except (SafetensorError, OSError):
        same = False
    if not same:
        log.info("%s belongs to other settings, data or code: starting over", path)
        return None
    labels, rows, _ = load_state(path, model, optimizer)
    log.info("resuming after round %d from %s", rows[-1]["round"], path)
    return labels, rows


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write the rounds' rows as CSV."""
    with aside(path) as file:
        pd.DataFrame(rows).to_csv(file, index=False)
