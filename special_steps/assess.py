"""Assess: how right a map is, and how large its classes are, by reference points, with confidence intervals."""

import csv
import difflib
import io
import json
import logging
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from special_steps.core.assessed import headline, rows
from special_steps.core.atomic import atomic_write
from special_steps.core.classes import UNKNOWN
from special_steps.core.cli import run
from special_steps.core.errors import UserError
from special_steps.core.notes import gathered
from special_steps.core.store import grid_of, open_store, read_array
from special_steps.io.class_map import ClassMap, pixels_of, read_class_map
from special_steps.io.points import read_points
from special_steps.io.reference_sample import OTHER, Strata, read_strata, strata_file

log = logging.getLogger("special")

DRAWS = 4000
LEVEL = 0.95
SHOWN = 5  # points or values in a message


class Estimate(NamedTuple):
    """Estimates, each (class,) or a single number; NaN where they cannot be made."""

    value: np.ndarray
    standard_error: np.ndarray
    low: np.ndarray  # of the 95 % interval
    high: np.ndarray


def estimate(
    stratum: np.ndarray, mapped: np.ndarray, reference: np.ndarray, sizes: np.ndarray, mapped_pixels: np.ndarray,
    references: int, own: bool, unknown: int | None = None,
) -> dict[str, Estimate]:  # fmt: skip
    """Estimate accuracies and areas of a map from a stratified random sample.

    Values and standard errors are the stratified estimators of Olofsson et al. (2014), Good practices for estimating
    area and assessing accuracy of land change, Remote Sensing of Environment 148, eqs. 1-11, where the strata are the
    map's classes; else those of Stehman (2014), Int. J. Remote Sensing 35, of which they are a special case: each is a
    ratio of two stratified means. Both with the correction for finite populations (Cochran 1977, 5.6), which the
    papers leave out because it hardly matters in large strata: a stratum that is looked at whole has no error.

    Intervals of +- 1.96 standard errors, the paper's, fail where a sample meets few errors, and are nothing where it
    meets none: with 300 points of the demo's map they hold the classes' true areas in 76 % of samples. So the intervals
    are ours: quantiles of what the pixels that nobody looked at may be, by a Dirichlet distribution in each stratum,
    whose prior counts as one more point: half of it says that the map is right, half is shared by the other classes
    (for the overall accuracy, one more point in all). Where errors are many the two are the same.

    Args:
        stratum: (point,) int, from 0.
        mapped: (point,) int, class of the map, from 0.
        reference: (point,) int, true class, from 0; those of the map first.
        sizes: (stratum,) pixels.
        mapped_pixels: (class of the map,) pixels.
        references: number of true classes, at least that of the map's.
        own: whether the strata are the classes of the map.
        unknown: class of the map that stands for no class, which no reference is: its pixels count for the areas and as
            missed by the map, not for the overall accuracy.

    Returns:
        overall: accuracy of the pixels with a class, (1,); users: accuracy, (class of the map,); producers: accuracy,
        and share: of the area, (true class,). Those that need a stratum with fewer than two points are NaN.
    """
    classes = len(mapped_pixels)
    points = np.bincount(stratum, minlength=len(sizes))
    enough = (points >= 2) | (points == sizes)
    right = mapped == reference
    is_mapped = [mapped == m for m in range(classes)]
    is_reference = [reference == r for r in range(references)]

    every = np.arange(len(sizes))

    def ratio(
        y: np.ndarray, x: np.ndarray, needed: Sequence[int] | np.ndarray = every
    ) -> tuple[float, float]:
        needed = np.asarray(needed)
        needed = needed[sizes[needed] > 0]
        if not enough[needed].all():
            return np.nan, np.nan
        pixels, count = sizes[needed], points[needed]

        def total(values: np.ndarray) -> np.ndarray:
            return np.bincount(stratum, values, len(sizes))[needed]

        below = float((pixels * total(x) / count).sum())
        if below == 0:
            return np.nan, np.nan
        value = float((pixels * total(y) / count).sum()) / below
        rest = y - value * x
        squares = total(rest**2) - total(rest) ** 2 / count
        variance = squares / np.maximum(count - 1, 1)
        error = float((pixels**2 * (1 - count / pixels) * variance / count).sum())
        return value, np.sqrt(max(error, 0.0)) / below

    one = np.ones(len(stratum))
    of_class = every[every != unknown] if own and unknown is not None else every
    found = {
        "overall": [ratio(right * 1.0, (mapped != unknown) * 1.0, of_class)],
        "users": [
            ratio((right & m) * 1.0, m * 1.0, [i] if own else every)
            for i, m in enumerate(is_mapped)
        ],
        "producers": [ratio((right & r) * 1.0, r * 1.0) for r in is_reference],
        "share": [ratio(r * 1.0, one) for r in is_reference],
    }
    whole = int(np.delete(mapped_pixels, [] if unknown is None else [unknown]).sum())
    limits = _limits(
        stratum, mapped, reference, sizes, classes, references, unknown, of_class, whole
    )
    estimates = {}
    for name, pairs in found.items():
        value, error = np.array(pairs).T
        low, high = (np.where(np.isnan(value), np.nan, limit) for limit in limits[name])
        if name == "users" and not own:  # of a class that no other stratum's points met
            few = np.array([m.sum() < 2 for m in is_mapped])
            value, error, low, high = (np.where(few, np.nan, v) for v in (value, error, low, high))
        # quantiles of a skewed distribution may leave out what was seen
        estimates[name] = Estimate(value, error, np.fmin(low, value), np.fmax(high, value))
    return estimates


def _limits(
    stratum: np.ndarray,
    mapped: np.ndarray,
    reference: np.ndarray,
    sizes: np.ndarray,
    classes: int,
    references: int,
    unknown: int | None,
    of_class: np.ndarray,
    whole: int,
) -> dict[str, np.ndarray]:
    """Ends of the intervals of `estimate`: (2, class) by name; what they are worth is for the caller to know."""
    generator = np.random.default_rng(0)
    real = np.arange(references) != unknown  # what a pixel can be
    others = int(real.sum()) - 1
    hits, right = np.zeros((DRAWS, references)), np.zeros(DRAWS)
    called, actual = np.zeros((DRAWS, classes)), np.zeros((DRAWS, references))
    for number, pixels in enumerate(sizes):
        inside = stratum == number
        looked = int(inside.sum())
        if not looked:
            continue
        met, share = np.unique(mapped[inside], return_counts=True)
        counts = np.zeros((len(met), references))
        np.add.at(counts, (np.searchsorted(met, mapped[inside]), reference[inside]), 1)
        prior = np.where(real, np.full(counts.shape, 0.5 / max(others, 1)), 0)
        prior[np.arange(len(met)), met] = 0.5 if others else 1.0
        prior[met == unknown] = real / real.sum()
        prior *= (share / looked)[:, None]
        chances = generator.standard_gamma(
            np.broadcast_to((counts + prior).ravel(), (DRAWS, counts.size))
        )
        chances /= chances.sum(1, keepdims=True)
        rest = generator.multinomial(int(pixels) - looked, chances)
        held = (counts.ravel() + rest).reshape(DRAWS, *counts.shape)
        called[:, met] += held.sum(2)
        actual += held.sum(1)
        hits[:, met] += held[:, np.arange(len(met)), met]
        # many strata with a point each would say that the map is wrong where no point does: so one point for all
        if number not in of_class:
            continue
        good = int((mapped == reference)[inside].sum())
        half = 0.5 / len(of_class)
        chance = generator.beta(good + half, looked - good + half, DRAWS)
        right += good + generator.binomial(int(pixels) - looked, chance)
    ends = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    with np.errstate(invalid="ignore", divide="ignore"):
        every = {
            "overall": np.minimum(right[:, None] / whole, 1),
            "users": hits[:, :classes] / called,
            "producers": hits / actual,
            "share": actual / sizes.sum(),
        }
    return {name: np.quantile(values, ends, axis=0) for name, values in every.items()}


def as_classes(
    values: Sequence[str], ids: Sequence[str], names: list[str], where: str
) -> np.ndarray:
    """What people wrote, as classes: letters' case and blanks do not matter.

    Args:
        values: of each point, "" for none.
        ids: of each point, for messages.
        names: the map's classes.
        where: the file, for messages.

    Returns:
        (point,) int64: position in `names`, len(names) for OTHER, -1 for none.

    Raises:
        UserError: for other words, each with the nearest class.
    """
    known = {" ".join(name.casefold().split()): i for i, name in enumerate(names)}
    known = {OTHER: len(names), "": -1} | known
    wrong: dict[str, list[str]] = defaultdict(list)
    found = np.full(len(values), -1)
    for i, value in enumerate(values):
        key = " ".join(value.casefold().split())
        if key in known:
            found[i] = known[key]
        else:
            wrong[value].append(ids[i])
    if wrong:
        told = []
        for value, at in list(wrong.items())[:SHOWN]:
            close = difflib.get_close_matches(value.casefold(), [n for n in known if n], 1, 0.5)
            name = [*names, OTHER][known[close[0]]] if close else None
            told.append(f"'{value}' ({_points(at)}{f'; nearest: {name}' if name else ''})")
        more = ", ..." if len(wrong) > SHOWN else ""
        raise UserError(
            f"{where}: column 'reference' has what is no class: {', '.join(told)}{more}; the classes are"
            f" {', '.join(names)}; write '{OTHER}' where none of them is there, and nothing where you cannot tell"
        )
    return found


def _points(ids: Sequence[str]) -> str:
    """Points by their ids, not all of many."""
    listed = ", ".join(ids[:SHOWN]) + (", ..." if len(ids) > SHOWN else "")
    return f"point{'s' if len(ids) > 1 else ''} {listed}"


class Sample(NamedTuple):
    """Points with a reference, on a map."""

    stratum: np.ndarray  # (point,) from 0
    mapped: np.ndarray  # (point,) class of the map, from 0
    reference: np.ndarray  # (point,) true class, from 0
    strata: list[str]
    sizes: np.ndarray  # (stratum,) pixels
    own: bool  # whether the strata are the map's classes
    design: str  # how they were drawn, in words
    drawn: int  # points with and without a reference


def gather(
    found: ClassMap, class_map: Path, points: Path, strata: Path | None, given: Path | None = None
) -> Sample:
    """Read the points, put them on the map, and find out how they were drawn.

    Points on pixels whose label the map has learned from (`given`) are left out: they say nothing about the others.

    Raises:
        UserError: for all that makes estimates wrong; see the messages.
    """
    read = read_points(points, found.grid.crs)
    if "reference" not in read.columns:
        has = ", ".join(read.columns) or "none"
        raise UserError(
            f"{points}: no column 'reference' (its columns: {has}); write there what is at each point"
        )
    ids = read.columns.get("id") or [str(i) for i in range(1, len(read.x) + 1)]
    reference = as_classes(read.columns["reference"], ids, found.classes, str(points))
    if found.unknown:  # whose place comes before that of OTHER
        reference[reference == len(found.classes)] = len(found.names)
    if (reference < 0).all():
        raise UserError(
            f"{points}: column 'reference' is empty at all points; write there what is at each point"
        )
    row, column = found.pixels(read.x, read.y)
    outside = [ids[i] for i in np.flatnonzero(row < 0)]
    if outside:
        raise UserError(
            f"{points}: {_points(outside)} outside of the map ({class_map}); give the points of this scene, or delete"
            " those outside"
        )
    label = found.labels[row, column].astype(np.int64)
    empty = [ids[i] for i in np.flatnonzero(label == 0)]
    if empty:
        raise UserError(
            f"{points}: {_points(empty)} where the map has no data ({class_map}); delete them, or give the points of"
            " this scene"
        )
    pixel = row * found.labels.shape[1] + column
    kept = _without_doubles(pixel, reference, ids, points)
    drawn = len(kept)
    plan = _plan(read.columns.get("sample"), found, points, strata)
    if plan is not None:
        where = {i: n for n, i in enumerate(plan.ids)}
        _check_places(plan, where, ids, pixel, found, points)
        drawn = len(plan.ids)
    if given is not None:
        learned = _learned(given, read.x, read.y)
        count = int((learned & (reference >= 0))[kept].sum())
        kept, drawn = kept[~learned[kept]], drawn - int(learned[kept].sum())
        if count:
            log.warning(
                "%s: %d points lie on pixels whose label was given for the map to learn from, and are left out",
                points, count,
            )  # fmt: skip
    kept = kept[reference[kept] >= 0]
    if not len(kept):
        raise UserError(f"{points}: no point with a reference is left; fill more of them")
    if len(kept) < drawn:
        log.warning(
            "%s: %d of %d points have no reference and are left out; estimates suppose that they are as the others",
            points, drawn - len(kept), drawn,
        )  # fmt: skip
    mapped = label[kept] - 1
    pixels = np.bincount(found.labels.ravel(), minlength=len(found.names) + 1)[1:]
    samples = set(read.columns.get("sample") or [""])
    if plan is not None and plan.digest != found.digest:
        names = list(plan.pixels)
        stratum = np.array([names.index(plan.stratum[where[ids[i]]]) for i in kept])
        sizes = np.array(list(plan.pixels.values()))
        if sizes.sum() != pixels.sum():
            raise UserError(
                f"{points}: drawn from a map with {sizes.sum()} pixels of data, but {class_map} has {pixels.sum()};"
                " give the points of a map of this scene with the same mask"
            )
        log.warning(
            "%s: drawn from another map than %s; estimates hold (Stehman 2014), with wider intervals than points drawn"
            " from this one would give",
            points, class_map,
        )  # fmt: skip
        own, design = False, "stratified by another map"
    else:
        names, stratum, sizes, own = found.names, mapped, pixels, True
        design = "stratified by this map"
        if plan is None and samples != {found.digest}:
            log.warning(
                "%s: does not say how its points were drawn (no column 'sample' of special_steps.reference_points);"
                " estimates hold only if each pixel of the map had the same chance to be drawn",
                points,
            )
            design = "stratified afterwards; supposes a simple random sample"
    return Sample(stratum, mapped, reference[kept], names, sizes, own, design, drawn)


def _learned(given: Path, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(point,) bool, which points lie on labelled pixels; the map may lie on another grid than the scene."""
    store = open_store(given, labels=("y", "x"))
    labels = read_array(store, "labels")
    rows, columns = pixels_of(grid_of(store), labels.shape, x, y)
    return (labels[rows, columns] > 0) & (rows >= 0)


def _without_doubles(
    pixel: np.ndarray, reference: np.ndarray, ids: Sequence[str], points: Path
) -> np.ndarray:
    """Positions of points, one for each pixel.

    Raises:
        UserError: when a pixel has two references.
    """
    first: dict[int, int] = {}
    doubled = []
    for i, place in enumerate(pixel.tolist()):
        before = first.setdefault(place, i)
        if before == i:
            continue
        doubled.append(ids[i])
        if reference[before] < 0:
            first[place] = i
        elif reference[i] >= 0 and reference[i] != reference[before]:
            raise UserError(
                f"{points}: points {ids[before]} and {ids[i]} lie in one pixel and have different references; delete"
                " the wrong one"
            )
    if doubled:
        log.warning(
            "%s: %s in pixels that have a point already: counted once", points, _points(doubled)
        )
    return np.array(sorted(first.values()))


def _plan(
    samples: list[str] | None, found: ClassMap, points: Path, strata: Path | None
) -> Strata | None:
    """How the points were drawn; None for points of this map without the file, and for those that do not say.

    Raises:
        UserError: for points of another map without their strata, and strata of other points.
    """
    digests = set(samples or [])
    if len(digests) > 1:
        raise UserError(
            f"{points}: column 'sample' has several values ({', '.join(sorted(digests)[:SHOWN])}): points of several"
            " samples; give one sample"
        )
    digest = digests.pop() if digests else ""
    file = strata or strata_file(points)
    if strata is None and not file.is_file():
        if digest and digest != found.digest:
            raise UserError(
                f"{points}: drawn from another map, and its strata are not there ({file}); put that file beside the"
                " points, or give it with --strata"
            )
        return None
    plan = read_strata(file)
    if digest and plan.digest != digest:
        raise UserError(
            f"{file}: the strata of another sample than {points}; give those of the points"
        )
    return plan


def _check_places(
    plan: Strata,
    where: dict[str, int],
    ids: Sequence[str],
    pixel: np.ndarray,
    found: ClassMap,
    points: Path,
) -> None:
    """Refuse points that were added or moved.

    Raises:
        UserError: naming them.
    """
    added = [i for i in ids if i not in where]
    if added:
        raise UserError(
            f"{points}: {_points(added)} not of the sample; points that were not drawn by chance make estimates wrong:"
            " delete them"
        )
    row, column = found.pixels(plan.x, plan.y)
    place = row * found.labels.shape[1] + column
    moved = [i for i, there in zip(ids, pixel, strict=True) if place[where[i]] != there]
    if moved:
        raise UserError(
            f"{points}: {_points(moved)} moved to another pixel than was drawn; put them back, or delete them"
        )


def describe(sample: Sample, found: ClassMap) -> dict[str, Any]:
    """The estimates as the JSON file has them; see `assess`."""
    pixels = np.bincount(found.labels.ravel(), minlength=len(found.names) + 1)[1:]
    names = found.names + [OTHER] * bool((sample.reference == len(found.names)).any())
    estimates = estimate(
        sample.stratum,
        sample.mapped,
        sample.reference,
        sample.sizes,
        pixels,
        len(names),
        sample.own,
        len(found.classes) if found.unknown else None,
    )
    points = np.bincount(sample.stratum, minlength=len(sample.sizes))
    few = [
        f"'{name}' ({n} point{'s' if n != 1 else ''})"
        for name, n, size in zip(sample.strata, points, sample.sizes, strict=True)
        if n < 2 and n < size and not (found.unknown and sample.own and name == UNKNOWN)
    ]
    if few:
        log.warning(
            "fewer than 2 points with a reference in the map's class %s: neither its user's accuracy can be estimated"
            " nor anything of the whole map (overall and producer's accuracies, areas); fill more of its points",
            ", ".join(few),
        )
    if found.unknown and sample.own and points[-1] < min(2, sample.sizes[-1]):
        log.warning(
            "fewer than 2 points with a reference where the map is '%s': producer's accuracies and areas cannot be"
            " estimated, for nobody knows what is there; fill more of its points",
            UNKNOWN,
        )
    counts = np.zeros((len(found.names), len(names)), np.int64)
    np.add.at(counts, (sample.mapped, sample.reference), 1)
    never = [n for i, n in enumerate(found.classes) if not counts[:, i].any()]
    if never and not few:
        log.warning(
            "no reference point is %s: %s producer's accuracy cannot be estimated",
            " or ".join(f"'{n}'" for n in never), "its" if len(never) == 1 else "their",
        )  # fmt: skip
    area = found.pixel_area()
    unit = area or 1.0

    def told(estimated: Estimate, i: int, times: float = 1.0) -> dict[str, float | None]:
        values = (getattr(estimated, field)[i] * times for field in Estimate._fields)
        numbers = [float(v) if np.isfinite(v) else None for v in values]
        return dict(zip(Estimate._fields, numbers, strict=True))

    nothing = Estimate(*np.full((4, 1), np.nan))
    whole = float(pixels.sum()) * unit
    of_class = len(found.classes)
    return {
        "design": sample.design,
        "drawn": sample.drawn,
        "interpreted": len(sample.reference),
        "unit": "m2" if area else "pixels",
        "coverage": float(pixels[:of_class].sum() / pixels.sum()),
        "overall_accuracy": told(estimates["overall"], 0),
        "classes": [
            {
                "class": name,
                "map_area": float(pixels[i]) * unit if i < len(pixels) else 0.0,
                "map_points": int(counts[i].sum()) if i < len(pixels) else 0,
                "reference_points": int(counts[:, i].sum()),
                "users_accuracy": told(*((estimates["users"], i) if i < of_class else (nothing, 0))),
                "producers_accuracy": told(*((estimates["producers"], i) if i < of_class else (nothing, 0))),
                "share": told(*((nothing, 0) if name == UNKNOWN and found.unknown else (estimates["share"], i))),
                "area": told(*((nothing, 0) if name == UNKNOWN and found.unknown else (estimates["share"], i)), whole),
            }
            for i, name in enumerate(names)
        ],
        "error_matrix": counts.tolist(),
    }  # fmt: skip


def as_text(found: dict[str, Any]) -> str:
    """The estimates as people read them in a terminal."""
    table = rows(found)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = [
        "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in table
    ]
    return "\n".join([headline(found), *lines])


def as_csv(found: dict[str, Any]) -> str:
    """The estimates as a table: a row for the whole map, one per class; standard errors beside the intervals."""
    kinds = ("users_accuracy", "producers_accuracy", "area")
    fields = ("", "_standard_error", "_low", "_high")
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(
        ["class", "unit", "map_area", "map_points", "reference_points"]
        + [f"{kind}{field}" for kind in kinds for field in fields]
        + [f"overall_accuracy{field}" for field in fields]
    )
    blank = [""] * len(fields)
    writer.writerow(
        ["all", found["unit"], sum(c["map_area"] for c in found["classes"]), *[found["interpreted"]] * 2]
        + blank * len(kinds)
        + list(found["overall_accuracy"].values())
    )  # fmt: skip
    for each in found["classes"]:
        values = [v for kind in kinds for v in each[kind].values()]
        head = [each["class"], found["unit"], each["map_area"]]
        writer.writerow([*head, each["map_points"], each["reference_points"], *values, *blank])
    return table.getvalue()


def assess(
    class_map: Path,
    points: Path,
    *,
    strata: Path | None = None,
    scores: Path | None = None,
    table: Path | None = None,
    map_id: dict[str, Any] | None = None,
    given: Path | None = None,
) -> None:
    """Estimate a map's accuracies and its classes' areas, with 95 % intervals, from points that people have filled.

    Args:
        class_map: the map.tif of a run, or its store
        points: GeoPackage, GeoJSON or CSV with column `reference`, from special_steps.reference_points
        strata: the NAME.strata.csv of the sample, where it is not beside the points
        scores: JSON file to write, everything, also warnings; without it, NAME.assessment.json in the present folder
        table: CSV file to write, a row per class; without it, NAME.assessment.csv in the present folder
        map_id: which map it is, such as '{"scene": "demo", "run": "hsi"}': copied into the JSON file
        given: the scene's labels.zarr, where the map has learned from labels: points on them are left out
    """
    with gathered() as told:
        found = read_class_map(class_map)
        sample = gather(found, class_map, points, strata, given)
        estimates = describe(sample, found)
    result = (map_id or {}) | {"map": str(class_map), "points": str(points)} | estimates
    result["warnings"] = told
    with atomic_write(scores or Path(f"{points.stem}.assessment.json")) as file:
        file.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    with atomic_write(table or Path(f"{points.stem}.assessment.csv")) as file:
        file.write_text(as_csv(estimates), encoding="utf-8")
    print(as_text(estimates))


if __name__ == "__main__":
    run(assess, positional=True)
