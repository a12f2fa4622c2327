"""Reference points: a stratified random sample of a map, for people to fill, and the map's most doubtful places."""

import logging
from pathlib import Path
from typing import Any, Literal

import numpy as np

from special_steps.core.atomic import atomic_write
from special_steps.core.classes import check_class
from special_steps.core.cli import run
from special_steps.core.errors import UserError
from special_steps.io.class_map import ClassMap, read_class_map, read_confidence
from special_steps.io.legend import choice_form
from special_steps.io.points import write_points
from special_steps.io.reference_sample import OTHER, Strata, strata_file, write_strata

log = logging.getLogger("special")

SUPPOSED = 0.8  # user's accuracy of a class of which nothing is expected
Sizes = Literal["proportional", "equal", "neyman"]


def allocate(
    pixels: np.ndarray, points: int, sizes: Sizes, minimum: int, expected: np.ndarray
) -> np.ndarray:
    """Share points among strata.

    Args:
        pixels: (stratum,) of the map, more than 0.
        points: in all; all pixels where there are fewer.
        sizes: equal; proportional to the pixels; or neyman: to pixels times the standard deviation of a pixel's being
            right (Cochran 1977, eq. 5.26), which gives the least error of the overall accuracy.
        minimum: points of a stratum at least; all its pixels where it has fewer.
        expected: (stratum,) user's accuracy that is expected, for neyman.

    Returns:
        (stratum,) int64.

    Raises:
        UserError: when the minimum needs more points than there are.
    """
    least = np.minimum(pixels, minimum)
    points = min(points, int(pixels.sum()))
    if least.sum() > points:
        raise UserError(
            f"{len(pixels)} classes with at least {minimum} points each need {least.sum()}, not {points}; give"
            f" --points {least.sum()}, or a smaller --minimum"
        )
    weight = {
        "equal": np.ones(len(pixels)),
        "proportional": pixels / pixels.sum(),
        "neyman": pixels * np.sqrt(expected * (1 - expected)) / pixels.sum(),
    }[sizes]
    weight = np.maximum(weight, 1e-9)  # a class that is never wrong takes what the others cannot
    low, high = 0.0, float((pixels / weight).max())
    for _ in range(200):  # the scale of the weights with which all points are given out
        scale = (low + high) / 2
        given = np.clip(scale * weight, least, pixels).sum()
        low, high = (scale, high) if given < points else (low, scale)
    wanted = np.clip(high * weight, least, pixels)
    count = np.floor(wanted + 1e-9).astype(np.int64)
    for i in np.argsort(count - wanted, kind="stable"):  # the largest remainders are rounded up
        if count.sum() < points and count[i] < pixels[i]:
            count[i] += 1
    return count


def draw(labels: np.ndarray, counts: dict[int, int], seed: int) -> np.ndarray:
    """Draw pixels of each class by chance, without replacement, in an order that tells nothing.

    Args:
        labels: (y, x) uint8.
        counts: pixels to draw, by label.
        seed: of the generator.

    Returns:
        (point,) int64 positions in the flattened map.
    """
    generator = np.random.default_rng(seed)
    flat = labels.ravel()
    found = [
        generator.choice(np.flatnonzero(flat == label), count, replace=False)
        for label, count in counts.items()
    ]
    return generator.permutation(np.concatenate(found))


def doubtful_places(confidence: np.ndarray, count: int) -> np.ndarray:
    """The least sure places of a map, apart from each other.

    A place's confidence is the mean of its 3 x 3 pixels: a single odd pixel is no place. Places lie at least as far
    apart as the centres of `count` squares that cover a third of the map would.

    Args:
        confidence: (y, x) float32, NaN = no data.
        count: places at most.

    Returns:
        (place,) int64 positions in the flattened map, the least sure first.
    """
    from scipy.ndimage import uniform_filter

    there = ~np.isnan(confidence)
    weight = uniform_filter(there.astype(np.float32), 3, mode="constant")
    total = uniform_filter(np.where(there, confidence, np.float32(0)), 3, mode="constant")
    mean = np.where(there, total / np.maximum(weight, 1e-6), np.inf)
    apart = np.sqrt(there.sum() / (3 * count))
    side = max(
        1, int(apart / 2)
    )  # of blocks, of which each has one candidate: its least sure pixel
    height, width = mean.shape
    rows, columns = -(-height // side), -(-width // side)
    padded = np.full((rows * side, columns * side), np.inf, np.float32)
    padded[:height, :width] = mean
    blocks = padded.reshape(rows, side, columns, side).swapaxes(1, 2).reshape(rows, columns, -1)
    best = blocks.argmin(2)
    y = np.arange(rows)[:, None] * side + best // side
    x = np.arange(columns)[None] * side + best % side
    value = blocks.min(2).ravel()
    places = np.stack([y.ravel(), x.ravel()], 1)
    chosen: list[int] = []
    for i in np.argsort(value, kind="stable"):
        if len(chosen) == count or not np.isfinite(value[i]):
            break
        if not chosen or np.hypot(*(places[chosen] - places[i]).T).min() >= apart:
            chosen.append(int(i))
    return places[chosen] @ [width, 1] if chosen else np.empty(0, np.int64)


def accuracies(names: list[str], expected: dict[str, float]) -> np.ndarray:
    """User's accuracy that is expected of each class.

    Raises:
        UserError: for classes that the map does not have, and for what is no share.
    """
    for name, value in expected.items():
        check_class(name, names, "--expected")
        if not 0 <= value <= 1:
            raise UserError(f"--expected: {value:g} for '{name}' is no share; write 0.9 for 90 %")
    return np.array([expected.get(name, SUPPOSED) for name in names])


def reference_points(
    class_map: Path,
    *,
    out: Path | None = None,
    points: int = 300,
    sizes: Sizes = "proportional",
    minimum: int = 30,
    expected: dict[str, float] | None = None,
    seed: int = 0,
    doubtful: int = 20,
    confidence: Path | None = None,
) -> None:
    """Draw points of a map for people to say what is there, so that `assess` can say how right the map is.

    Args:
        class_map: the map.tif of a run, or its store
        out: file to write, .gpkg, .geojson or .csv; without it, reference.gpkg in the present folder. Beside it
            NAME.strata.csv (what the map says there: assess needs it, who fills the points should not see it) and
            NAME.doubtful with the same ending; and for QGIS NAME.qml, with which classes are chosen from a list
        points: number of points
        sizes: points of each class proportional to its area, equal, or neyman (by area and expected accuracy)
        minimum: points of each class at least
        expected: user's accuracy that is expected of each class, for neyman, such as '{"water": 0.95}'; 0.8 for others
        seed: of the random numbers
        doubtful: number of most doubtful places, to look at or to label; 0 for none
        confidence: the map's confidence.tif, where it is not beside the map
    """
    if points < 1 or minimum < 1 or doubtful < 0:
        raise UserError("--points and --minimum must be at least 1, --doubtful at least 0")
    found = read_class_map(class_map)
    out = out or Path("reference.gpkg" if found.grid.crs else "reference.csv")
    others = [strata_file(out), out.with_name(f"{out.stem}.doubtful{out.suffix}")]
    forms = [path.with_suffix(".qml") for path in (out, others[1])]
    for file in (out, *others, *forms):
        if file.exists():
            raise UserError(
                f"{file}: there is such a file, which may hold somebody's work; give another --out, or delete it"
            )
    pixels = np.bincount(found.labels.ravel(), minlength=len(found.names) + 1)[1:]
    there = np.flatnonzero(pixels)
    accuracy = accuracies(found.classes, expected or {})
    accuracy = np.append(accuracy, [SUPPOSED] * found.unknown)[there]
    count = allocate(pixels[there], points, sizes, minimum, accuracy)
    pixel = draw(found.labels, dict(zip((there + 1).tolist(), count.tolist(), strict=True)), seed)
    rows, columns = np.divmod(pixel, found.labels.shape[1])
    x, y = found.places(rows, columns)
    ids = [str(i) for i in range(1, len(pixel) + 1)]
    stratum = [found.names[label - 1] for label in found.labels.ravel()[pixel]]
    held = {name: int(n) for name, n in zip(found.names, pixels, strict=True) if n}
    table = {
        "id": [int(i) for i in ids],
        "x": x.tolist(),
        "y": y.tolist(),
        "reference": [None] * len(ids),
        "sample": [found.digest] * len(ids),
    }
    words = found.classes + [OTHER] * (OTHER not in found.classes)
    _write_points(out, x, y, table, found.grid.crs, {"reference": words})
    write_strata(others[0], Strata(ids, x, y, stratum, held, found.digest))
    print(
        f"{out}: {len(ids)} points; write into 'reference' what is there: {', '.join(found.classes)}"
    )
    print(f"{others[0]}: what the map says there; not for those who fill the points")
    for i, number in zip(there, count, strict=True):
        share = pixels[i] / pixels.sum()
        print(f"  {found.names[i]:24} {number:5} points, {share:6.1%} of the map")
    known = there < len(found.classes)  # the overall accuracy is that of the pixels with a class
    if known.any():
        share = pixels[there[known]] / pixels[there[known]].sum()
        spread = (accuracy * (1 - accuracy) / np.maximum(count - 1, 1))[known]
        error = 1.96 * np.sqrt((share**2 * spread).sum())
        told = "expected" if expected else f"{SUPPOSED} in all classes"
        print(
            f"With user's accuracies as {told}, the overall accuracy will be known to ± {error:.3f}."
        )
    if doubtful:
        _write_doubtful(others[1], found, read_confidence(class_map, confidence), doubtful)
    if found.grid.crs is None:
        print(
            "The map has no CRS: x and y are its columns and (negative) rows, 0 at the upper left."
        )
    print(f"When they are filled: python -m special_steps.assess {class_map} {out}")


def _write_points(
    out: Path,
    x: np.ndarray,
    y: np.ndarray,
    table: dict[str, list[Any]],
    crs: str | None,
    choices: dict[str, list[str]],
) -> None:
    """Write points, and what QGIS offers for the column that is to be filled; of a CSV it opens no form."""
    write_points(out, x, y, table, crs)
    ((column, words),) = choices.items()
    if out.suffix.lower() != ".csv":
        with atomic_write(out.with_suffix(".qml")) as file:
            file.write_text(choice_form(column, words), encoding="utf-8")


def _write_doubtful(out: Path, found: ClassMap, confidence: np.ndarray | None, count: int) -> None:
    """Write the most doubtful places, or say why there are none."""
    if confidence is None:
        print("No confidence.tif beside the map: no list of doubtful places; give --confidence.")
        return
    if confidence.shape != found.labels.shape:
        raise UserError(
            f"--confidence: {confidence.shape} pixels (y, x), but the map has {found.labels.shape}; give the"
            " confidence of this map"
        )
    confidence = np.where(found.labels > 0, confidence, np.float32(np.nan))
    pixel = doubtful_places(confidence, count)
    x, y = found.places(*np.divmod(pixel, found.labels.shape[1]))
    table = {
        "id": list(range(1, len(pixel) + 1)),
        "x": x.tolist(),
        "y": y.tolist(),
        "class": [None] * len(pixel),
        "map": [found.names[label - 1] for label in found.labels.ravel()[pixel]],
        "confidence": [round(float(v), 4) for v in confidence.ravel()[pixel]],
    }
    _write_points(out, x, y, table, found.grid.crs, {"class": found.classes})
    print(
        f"{out}: the {len(pixel)} most doubtful places; not a sample, they never count for accuracy"
    )


if __name__ == "__main__":
    run(reference_points, positional=True)
