"""Class probabilities with known noise, like those of dense CLIP, made from a ground truth.

They measure the second stage alone: how right the labels are is set, and nothing of CLIP is needed. Errors come in two
families. `regions`: whole smooth regions are taken for a class that looks similar. `appearance`: what looks the same in
a blurred picture is taken for the same wrong class, wherever it lies. In both one class is over-predicted, edges are
blurred, and margins say something about errors, but not much.

What they can't show: they are made from truth by the pixel, which CLIP does not know. So they favour methods that trust
the labels' details.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from scipy.ndimage import gaussian_filter, label
from sklearn.cluster import KMeans

Family = Literal["regions", "appearance"]
MARGIN = 0.35  # mean margin of a map
CLUSTERS = 24  # kinds of appearance
TO_OVER = 0.4  # share of the errors that go to the over-predicted class


@dataclass
class _Evidence:
    """What a map is made of; pixels are (y, x), classes count from 0."""

    base: np.ndarray  # (class, y, x) log of the blurred truth, and smooth noise
    rank: np.ndarray  # order in which pixels are taken for another class, a region after the other
    target: np.ndarray  # the class that each would be taken for
    strength: np.ndarray  # how firmly
    over: int  # the over-predicted class

    def logits(self, wrong: int) -> np.ndarray:
        """(class, y, x), where the first `wrong` pixels are taken for another class."""
        pushed = np.where(self.rank < wrong, self.strength, 0)
        out = self.base.copy()
        for k in range(len(out)):
            out[k] += 1.6 * gaussian_filter(np.where(self.target == k, pushed, 0), 1.0)
        out[self.over] += 0.35
        return out


def controlled_map(
    cube: np.ndarray,
    image: np.ndarray,
    valid: np.ndarray,
    truth: np.ndarray,
    *,
    classes: int,
    level: int,
    seed: int,
    family: Family,
) -> np.ndarray:
    """Make a map of class probabilities of a given accuracy.

    Args:
        cube: (band, y, x) float32; how alike two classes are is the distance of their mean spectra.
        image: (3, y, x) float32, the picture that `appearance` goes by.
        valid: (y, x) bool; other pixels get 0.
        truth: (y, x) int, 1..classes, 0 = unknown.
        classes: how many there are; those without a pixel in `truth` are never predicted in error.
        level: per cent of the known valid pixels that are right, met to the pixel.
        seed: another one is another map.
        family: where the errors lie.

    Returns:
        (class, y, x) float32; sums over classes are 1 where valid; the mean margin there is 0.35.

    Raises:
        ValueError: when fewer than two classes have a known pixel, or for an unknown family.
    """
    if family not in get_args(Family):
        raise ValueError(f"no family '{family}'; there are {', '.join(get_args(Family))}")
    known = valid & (truth > 0)
    present = np.unique(truth[known]) - 1
    if len(present) < 2:
        raise ValueError("a map with errors needs at least two classes in the truth")
    rng = np.random.default_rng([seed, level, get_args(Family).index(family)])
    wanted = round(level / 100 * known.sum())
    truth = np.where(known, truth, 0)
    alike = _confusion(cube, truth, classes, present)
    regions = _smooth_regions(rng, truth.shape) if family == "regions" else _looks(image, valid)
    evidence = _evidence(rng, truth, regions, alike, present, wanted)

    def right(logits: np.ndarray) -> int:
        return int((logits.argmax(0) + 1 == truth)[known].sum())

    low, high = 0, truth.size
    while high - low > max(1, truth.size // 2000):
        wrong = (low + high) // 2
        low, high = (wrong, high) if right(evidence.logits(wrong)) > wanted else (low, wrong)
    logits = evidence.logits(high)
    _adjust(logits, truth, known, wanted - right(logits))
    return _probabilities(logits, valid)


def _evidence(
    rng: np.random.Generator,
    truth: np.ndarray,
    regions: np.ndarray,
    alike: np.ndarray,
    present: np.ndarray,
    wanted: int,
) -> _Evidence:
    """Draw what CLIP would see where, so that at least `wanted` pixels are right before errors are drawn."""
    classes = len(alike)
    one_hot = (np.arange(1, classes + 1)[:, None, None] == truth).astype(np.float64)
    noise = np.stack([gaussian_filter(rng.standard_normal(truth.shape), 2.5) for _ in one_hot])
    noise *= 0.7 / noise.std()
    over = int(rng.choice(present))
    blur = rng.uniform(1.2, 2.2)
    while True:  # thin objects vanish in a wide blur; the errors are to be the drawn ones
        base = np.log(gaussian_filter(one_hot, (0, blur, blur)) + 0.03) + noise
        shown = base + 0.35 * (np.arange(classes) == over)[:, None, None]
        if ((shown.argmax(0) + 1 == truth) & (truth > 0)).sum() > 1.05 * wanted or blur < 0.3:
            break
        blur *= 0.8
    units, unit = np.unique(regions * (classes + 1) + truth, return_inverse=True)
    unit = unit.reshape(truth.shape)
    target = np.full(len(units), over)
    for i, own in enumerate(units % (classes + 1)):
        if own and rng.random() > TO_OVER:
            target[i] = rng.choice(classes, p=alike[own - 1])
    # a unit after the other; within a unit from one side to the other of a smooth field, so that the last is cut whole
    place = gaussian_filter(rng.standard_normal(truth.shape), 3)
    order = np.lexsort([place.ravel(), rng.permutation(len(units))[unit].ravel()])
    rank = np.empty(truth.size, np.int64)
    rank[order] = np.arange(truth.size)
    strength = rng.uniform(2, 3.5, len(units))
    return _Evidence(base, rank.reshape(truth.shape), target[unit], strength[unit], over)


def _confusion(
    cube: np.ndarray, truth: np.ndarray, classes: int, present: np.ndarray
) -> np.ndarray:
    """How likely each class is taken for each other, (class, class): nearer mean spectra, more likely."""
    means = np.stack([cube[:, truth == k + 1].mean(1, dtype=np.float64) for k in present])
    apart = np.linalg.norm(means[:, None] - means[None], axis=2)
    np.fill_diagonal(apart, np.inf)
    near = np.exp(-2 * apart / max(float(np.median(apart[np.isfinite(apart)])), 1e-12))
    out = np.zeros((classes, classes))
    out[np.ix_(present, present)] = near / near.sum(1, keepdims=True)
    return out


def _smooth_regions(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers (y, x) of connected regions some 10 to 30 pixels wide, as contours of smooth fields bound them."""
    height = gaussian_filter(rng.standard_normal(shape), rng.uniform(3, 5))
    side = gaussian_filter(rng.standard_normal(shape), 3) > 0
    step = np.digitize(height, np.quantile(height, np.arange(1, 6) / 6))
    regions, count = np.zeros(shape, np.int64), 0
    for part in range(2 * 6):
        found, new = label((step == part // 2) & (side == part % 2))
        regions[found > 0] = found[found > 0] + count
        count += new
    return regions


def _looks(image: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Numbers (y, x) of clusters of the blurred picture's colours."""
    seen = gaussian_filter(image.astype(np.float64), (0, 1.5, 1.5)).reshape(len(image), -1).T
    known = seen[valid.ravel()]
    count = min(CLUSTERS, len(np.unique(known, axis=0)))
    model = KMeans(count, n_init=1, random_state=0).fit(known)
    return model.predict(seen).reshape(valid.shape).astype(np.int64)


def _adjust(logits: np.ndarray, truth: np.ndarray, known: np.ndarray, missing: int) -> None:
    """Make `missing` more pixels right (fewer, if negative), where that changes the logits least; in place."""
    values = logits[:, known]
    own, pixels = truth[known].astype(np.int64) - 1, np.arange(int(known.sum()))
    first, second = np.argsort(values, 0)[[-1, -2]]
    other = np.where(first == own, second, own) if missing < 0 else own
    gap = values[first, pixels] - values[other, pixels]
    gap[(first == own) != (missing < 0)] = np.inf
    chosen = np.argsort(gap, kind="stable")[: abs(missing)]
    one, two = (first[chosen], chosen), (other[chosen], chosen)
    values[one], values[two] = values[two], values[one]
    logits[:, known] = values


def _probabilities(logits: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Softmax at the temperature that gives the mean margin; 0 where not valid."""
    inside = logits[:, valid] - logits[:, valid].max(0)
    low, high = 0.01, 100.0
    for _ in range(40):
        temperature = (low * high) ** 0.5
        found = np.exp(inside / temperature)
        found /= found.sum(0)
        best = np.partition(found, len(found) - 2, axis=0)[-2:]
        if (best[1] - best[0]).mean() > MARGIN:
            low = temperature
        else:
            high = temperature
    out = np.zeros(logits.shape, np.float32)
    out[:, valid] = found
    return out
