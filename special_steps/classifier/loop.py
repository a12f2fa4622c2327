"""What warm-up and refinement share: drawing pixels, one training round, the state on disk."""

import hashlib
import json
import logging
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
import zarr
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch.nn import functional as F
from tqdm import tqdm

from special_steps.classifier.mambahsi import MambaHSI, predict
from special_steps.core.atomic import atomic_write
from special_steps.core.digest import digest_of
from special_steps.core.errors import UserError
from special_steps.core.prediction import labels as best_labels
from special_steps.core.store import file_digest

log = logging.getLogger("special")

Window = tuple[slice, slice]  # rows and columns
WHOLE: Window = (slice(None), slice(None))
OVERLAP = 4  # tiles of a prediction overlap by this part of their side
# Measured: an iteration takes about (3 bands + 850) float32 values a pixel beside the libraries.
MEMORY = 4e9  # bytes that an iteration may take where the config names no tile

# Indices of pixels within a window, row by row, and their classes from 0.
Draw = Callable[[np.random.Generator, Window], tuple[np.ndarray, np.ndarray]]
# From logits (pixel, class) of a window to named (weight, loss) pairs.
Losses = Callable[[torch.Tensor, Window], dict[str, tuple[float, torch.Tensor]]]
Plan = Callable[[np.ndarray, np.random.Generator], tuple[Losses, dict[str, int]]]


class Scene(NamedTuple):
    """The features of a scene, and the part of it that is looked at together."""

    read: Callable[[Window], torch.Tensor]  # (1, band, y, x) float32 on the model's device
    bands: int
    nodata: np.ndarray  # (y, x) bool
    tile: int  # pixels along a side that a window has at most

    @property
    def whole(self) -> bool:
        """Whether the scene is no larger than a tile: then it is seen whole."""
        return max(self.nodata.shape) <= self.tile


def device() -> torch.device:
    """The GPU when there is one, else the CPU, with a note in the log."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    log.info("no GPU found: training on the CPU (%d threads)", torch.get_num_threads())
    torch.use_deterministic_algorithms(True)  # an interrupted run resumes to the same bits
    # whatever is read was written before
    torch.utils.deterministic.fill_uninitialized_memory = False
    return torch.device("cpu")


def learning_rate(step: int, total: int, limits: list[float]) -> float:
    """Cosine schedule from limits[0] at step 0 to limits[1] at the last of `total` iterations."""
    first, last = limits
    return last + (first - last) * (1 + math.cos(math.pi * step / max(total - 1, 1))) / 2


def fitting_tile(bands: int, shape: tuple[int, int]) -> int:
    """Side of the largest tile that MEMORY allows; the scene's own longer side when it fits whole."""
    pixels = MEMORY / (4 * (3 * bands + 850))
    return max(shape) if math.prod(shape) <= pixels else math.isqrt(int(pixels))


def open_scene(store: zarr.Group, tile: int | None, where: torch.device) -> Scene:
    """The scene of a features store: in memory when it is no larger than a tile, else read in parts."""
    features, nodata = store["features"], store["nodata"][:]
    bands, *shape = features.shape
    tile = tile or fitting_tile(bands, shape)

    def read(window: Window) -> torch.Tensor:
        part = torch.from_numpy(features[:, *window])[None]
        return part.to(where, memory_format=torch.channels_last)

    scene = Scene(read, bands, nodata, tile)
    if scene.whole:
        whole = read(WHOLE)
        return scene._replace(read=lambda _: whole)
    log.info("the scene is larger than a tile of %d pixels: training on tiles", tile)
    return scene


def class_balanced(
    labels: np.ndarray, margin: np.ndarray, count: int
) -> Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray]]:
    """A draw of `count` pixels per class, with probability proportional to the margin.

    Args:
        labels: (pixel,) uint8 pseudo-labels, 1..K, 0 = no data (never drawn).
        margin: (pixel,) float32 best-versus-second-best margins.
        count: pixels per class; with replacement. Classes that no pixel has are left out.

    Returns:
        A function of a random generator that gives pixel indices and classes from 0, int64.

    Raises:
        ValueError: when no pixel has a label.
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


def class_balanced_in(labels: np.ndarray, margin: np.ndarray, count: int) -> Draw:
    """`class_balanced` for any window of a scene; labels and margin are (y, x)."""
    whole = class_balanced(labels.ravel(), margin.ravel(), count)

    def draw(rng: np.random.Generator, window: Window) -> tuple[np.ndarray, np.ndarray]:
        if window == WHOLE:
            return whole(rng)
        return class_balanced(labels[window].ravel(), margin[window].ravel(), count)(rng)

    return draw


def random_window(scene: Scene, draw: Draw, rng: np.random.Generator) -> Window:
    """The whole scene, or a tile of it around a pixel drawn as samples are: rare classes get their turn."""
    if scene.whole:
        return WHOLE
    place = np.unravel_index(rng.choice(draw(rng, WHOLE)[0]), scene.nodata.shape)
    window = []
    for at, size in zip(place, scene.nodata.shape, strict=True):
        side = min(scene.tile, size)
        first = min(max(int(at) - int(rng.integers(side)), 0), size - side)
        window.append(slice(first, first + side))
    return tuple(window)


def inside(window: Window, shape: tuple[int, int], pixels: np.ndarray) -> tuple[np.ndarray, ...]:
    """Which of the scene's pixels lie in a window: a mask over them, and their indices within it."""
    if window == WHOLE:
        return np.ones(len(pixels), bool), pixels
    y, x = np.divmod(pixels, shape[1])
    rows, columns = window
    mask = (y >= rows.start) & (y < rows.stop) & (x >= columns.start) & (x < columns.stop)
    width = columns.stop - columns.start
    return mask, (y[mask] - rows.start) * width + x[mask] - columns.start


def predict_scene(model: MambaHSI, scene: Scene) -> np.ndarray:
    """Class probabilities (class, y, x) float32 of the scene.

    Overlapping tiles are blended: a tile counts less towards its edges, where it sees less.
    """
    if scene.whole:
        return predict(model, scene.read(WHOLE)[0])
    shape = scene.nodata.shape
    sides = [min(scene.tile, size) for size in shape]
    overlap = max(scene.tile // OVERLAP, 1)
    starts = [
        np.linspace(0, size - side, -(-(size - side) // max(side - overlap, 1)) + 1).astype(int)
        for size, side in zip(shape, sides, strict=True)
    ]
    ramps = [np.minimum(np.arange(side) + 1, np.arange(side)[::-1] + 1) for side in sides]
    rows, columns = (np.minimum(r, overlap).astype(np.float32) / overlap for r in ramps)
    weight = rows[:, None] * columns
    total, sums = None, np.zeros(shape, np.float32)
    for y, x in product(*starts):
        window = (slice(y, y + sides[0]), slice(x, x + sides[1]))
        seen = predict(model, scene.read(window)[0])
        if total is None:
            total = np.zeros((len(seen), *shape), np.float32)
        total[:, *window] += seen * weight
        sums[window] += weight
    total /= sums
    return total


def start(
    bands: int, classes: int, classifier: dict[str, int], seed: int, where: torch.device
) -> tuple[MambaHSI, torch.optim.Adam]:
    """A MambaHSI with seeded weights, and its Adam."""
    torch.manual_seed(seed)
    model = MambaHSI(bands, classes, **classifier).to(where)
    return model, torch.optim.Adam(model.parameters(), lr=1e-3)


def turned(image: torch.Tensor, turns: int, flip: bool) -> torch.Tensor:
    """torch.rot90 (1, band, y, x) by `turns`, then flipped along x if asked for, with one copy at most."""
    axes = [set(), {3}, {2, 3}, {2}][turns]
    if flip:
        axes ^= {2} if turns % 2 else {3}  # the axis that becomes x
    image = image.flip(sorted(axes)) if axes else image
    return image.transpose(2, 3) if turns % 2 else image


def gaussian(like: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Standard normal noise of the shape (1, band, y, x), in channels-last layout.

    torch draws normal numbers with one thread: on the CPU pieces are drawn side by side, each with
    a generator of its own, as many whatever the number of threads.
    """
    n, bands, height, width = like.shape
    drawn = like.new_empty(n, height, width, bands)
    pieces = drawn.view(-1).chunk(8 if like.device.type == "cpu" else 1)
    seeds = rng.integers(2**62, size=len(pieces))

    def fill(piece: torch.Tensor, seed: int) -> None:
        piece.normal_(generator=torch.Generator(like.device).manual_seed(int(seed)))

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        list(pool.map(fill, pieces, seeds))
    return drawn.permute(0, 3, 1, 2)


def train_round(
    model: MambaHSI,
    optimizer: torch.optim.Adam,
    scene: Scene,
    draw: Draw,
    losses: Losses,
    *,
    rates: list[float],
    noise: float,
    rng: np.random.Generator,
    title: str,
) -> dict[str, float]:
    """Train for one round: an iteration per learning rate of `rates`.

    Each iteration sees the scene, or a tile of it, turned by random quarter turns, flipped or not,
    with noise; the logits are turned back, so that pixels keep their places.

    Args:
        scene: what to look at.
        draw: what tiles are chosen by.
        losses: of a window's logits.
        noise: standard deviation of the Gaussian noise.

    Returns:
        Mean of every named loss, unweighted.

    Raises:
        FloatingPointError: when the loss is not finite.
    """
    model.train()
    found: dict[str, list[float]] = {}
    for rate in tqdm(rates, desc=title, disable=None, leave=False):
        optimizer.param_groups[0]["lr"] = rate
        window = random_window(scene, draw, rng)
        turns, flip = int(rng.integers(4)), bool(rng.integers(2))
        seen = turned(scene.read(window), turns, flip)
        if noise:
            seen = gaussian(seen, rng).mul_(noise).add_(seen)
        # in the network's own layout, so that it keeps no second copy of the scene
        seen = seen.contiguous(memory_format=torch.channels_last)
        logits = model(seen)
        logits = logits.flip(3) if flip else logits
        logits = torch.rot90(logits, -turns, (2, 3))
        parts = losses(logits[0].flatten(1).T, window)
        total = sum(weight * loss for weight, loss in parts.values())
        if not torch.isfinite(total):
            raise FloatingPointError("the training loss is not finite; lower the learning rate")
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        optimizer.step()
        for name, (_, loss) in parts.items():
            found.setdefault(name, []).append(loss.item())
    return {name: sum(values) / len(values) for name, values in found.items()}


def train(
    model: MambaHSI,
    optimizer: torch.optim.Adam,
    scene: Scene,
    draw: Draw,
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
        scene: what to look at.
        draw: what tiles are chosen by.
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
    probabilities, labels = predict_scene(model, scene), before
    for number in range(first + 1, last + 1):
        rng = np.random.default_rng([seed, number])
        losses, told = plan(probabilities, rng)
        steps = range((number - 1) * iterations, number * iterations)
        means = train_round(
            model,
            optimizer,
            scene,
            draw,
            losses,
            rates=[learning_rate(step, total, training["learning_rate"]) for step in steps],
            noise=training["noise"],
            rng=rng,
            title=f"{stage} {number}/{last}",
        )
        probabilities = predict_scene(model, scene)
        labels, before = best_labels(probabilities, scene.nodata), labels
        row = {"round": number, "stage": stage}
        row |= {f"loss_{name}": value for name, value in means.items()}
        row |= told | {"agreement": agreement(labels, before)}
        rows.append(row)
        log.info(
            " ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in row.items())
        )
        keep(labels, rows)
    return probabilities, labels


def random_loss(
    draw: Draw, rng: np.random.Generator, logits: torch.Tensor, window: Window
) -> torch.Tensor:
    """Cross-entropy on freshly drawn pixels with their one-hot pseudo-labels."""
    pixels, classes = (torch.from_numpy(a).to(logits.device) for a in draw(rng, window))
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
    with atomic_write(path) as file:
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
    with atomic_write(path) as file:
        pd.DataFrame(rows).to_csv(file, index=False)
