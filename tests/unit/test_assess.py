"""Assess: the paper's worked example, intervals that cover, and what people get wrong when they fill points."""

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from class_maps import NAMES, some_labels, write_map
from stores import make_store

from special_steps.assess import as_classes, assess, estimate
from special_steps.core.errors import UserError
from special_steps.core.store import Grid
from special_steps.io.class_map import read_class_map
from special_steps.io.points import read_points
from special_steps.reference_points import allocate, reference_points

# Olofsson et al. (2014), table 8, page 55: rows are the map's deforestation, forest gain, stable forest and stable
# non-forest; pixels of 30 m. Also an example of the R package mapaccuracy.
COUNTS = np.array([[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]])
PIXELS = np.array([200_000, 150_000, 3_200_000, 6_450_000])
# ours: a map of six classes by its true ones (pixels of the demo's co-trained map); strata with few errors and none
DEMO = np.array(
    [
        [3105, 0, 0, 0, 0, 0], [21, 5828, 171, 0, 0, 0], [13, 18, 12781, 0, 0, 0], [0, 0, 18, 3895, 0, 0],
        [275, 2, 454, 2, 2250, 5], [0, 0, 218, 0, 9, 1603],
    ]
)  # fmt: skip
HARD = np.array([[9000, 2000, 500], [3000, 20000, 2500], [200, 700, 1100]])


def points_of(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Map's and true class of each point of a matrix of counts."""
    row, column = np.nonzero(counts)
    return np.repeat(row, counts[row, column]), np.repeat(column, counts[row, column])


def halves(found):
    """1.96 standard errors."""
    return 1.96 * found.standard_error


def by_equation_7() -> list[float]:
    """1.96 standard errors of producer's accuracies, as the paper's eq. 7 is printed."""
    points = COUNTS.sum(1)
    shares = COUNTS / points[:, None]
    users, held = np.diag(shares), (PIXELS[:, None] * shares).sum(0)
    producers = PIXELS * users / held
    found = []
    for j in range(4):
        first = (
            PIXELS[j] ** 2 * (1 - producers[j]) ** 2 * users[j] * (1 - users[j]) / (points[j] - 1)
        )
        each = PIXELS**2 * shares[:, j] * (1 - shares[:, j]) / (points - 1)
        second = producers[j] ** 2 * (each.sum() - each[j])
        found.append(1.96 * np.sqrt(first + second) / held[j])
    return found


def test_the_papers_example():
    mapped, reference = points_of(COUNTS)
    found = estimate(mapped, mapped, reference, PIXELS, PIXELS, 4, True)
    assert found["overall"].value.round(2) == 0.95 and halves(found["overall"]).round(2) == 0.02
    assert found["users"].value.round(2).tolist() == [0.88, 0.73, 0.93, 0.96]
    assert halves(found["users"]).round(2).tolist() == [0.07, 0.10, 0.04, 0.02]
    assert found["producers"].value.round(2).tolist() == [0.75, 0.85, 0.93, 0.96]
    # printed (page 54): 0.21, 0.23, 0.03, 0.01; the second and fourth are not what eq. 7 gives, by hand (below) and in
    # mapaccuracy, though all else agrees
    assert halves(found["producers"]).round(2).tolist() == [0.21, 0.25, 0.03, 0.02]
    assert halves(found["producers"]) == pytest.approx(by_equation_7(), abs=1e-4)
    hectares = PIXELS.sum() * 0.09
    area, half = found["share"].value * hectares, halves(found["share"]) * hectares
    assert area == pytest.approx([21_158, 11_686, 285_770, 581_386], abs=1)
    assert half == pytest.approx([6_158, 3_756, 15_510, 16_282], abs=1)
    # where there are errors enough, our intervals are about the paper's
    for kind in ("overall", "users", "share"):
        width = found[kind].high - found[kind].low
        assert width == pytest.approx(2 * halves(found[kind]), rel=0.15)


def test_by_another_maps_strata_as_by_its_own_when_they_are_the_same():
    mapped, reference = points_of(COUNTS)
    own, other = (estimate(mapped, mapped, reference, PIXELS, PIXELS, 4, o) for o in (True, False))
    for kind in own:
        for one, two in zip(own[kind], other[kind], strict=True):
            assert np.allclose(one, two)


def simulated(truth: np.ndarray, points: int, minimum: int, times: int) -> dict[str, np.ndarray]:
    """Share of simulated samples whose interval holds the true value, by kind and class."""
    generator = np.random.default_rng(5)
    pixels, classes = truth.sum(1), len(truth)
    count = allocate(pixels, points, "proportional", minimum, np.full(classes, 0.8))
    true = {
        "overall": np.array([np.trace(truth) / truth.sum()]),
        "users": np.diag(truth) / pixels,
        "producers": np.diag(truth) / truth.sum(0),
        "share": truth.sum(0) / truth.sum(),
    }
    covered = {kind: np.zeros(len(values)) for kind, values in true.items()}
    for _ in range(times):
        drawn = [
            generator.multivariate_hypergeometric(r, n) for r, n in zip(truth, count, strict=True)
        ]
        mapped, reference = points_of(np.array(drawn))
        found = estimate(mapped, mapped, reference, pixels, pixels, classes, True)
        for kind, values in true.items():
            covered[kind] += (found[kind].low <= values) & (values <= found[kind].high)
    return {kind: values / times for kind, values in covered.items()}


@pytest.mark.parametrize(("truth", "points"), [(DEMO, 300), (HARD, 200)])
def test_intervals_cover(truth, points, monkeypatch):
    monkeypatch.setattr(
        "special_steps.assess.DRAWS", 1000
    )  # quicker, and enough for a mean over samples
    covered = simulated(truth, points, 30, 200)
    assert 0.92 <= covered["share"].mean() <= 0.98
    assert 0.92 <= covered["overall"].mean() <= 0.98
    assert 0.92 <= covered["users"].mean() <= 0.98
    assert covered["share"].min() >= 0.9 and covered["producers"].mean() >= 0.92


def test_points_of_another_map_give_the_truth_too():
    """Strata of a poor map, a better one is assessed: estimates are right in the mean, and intervals cover."""
    generator = np.random.default_rng(2)
    true = generator.choice(3, 20_000, p=[0.2, 0.3, 0.5])
    old = np.where(generator.random(true.size) < 0.3, generator.integers(0, 3, true.size), true)
    new = np.where(generator.random(true.size) < 0.1, generator.integers(0, 3, true.size), true)
    sizes, pixels = np.bincount(old), np.bincount(new)
    right = [np.mean((new == true)[new == c]) for c in range(3)]
    values, covered = [], np.zeros(4)
    for _ in range(100):
        drawn = np.concatenate(
            [generator.choice(np.flatnonzero(old == s), 80, replace=False) for s in range(3)]
        )
        found = estimate(old[drawn], new[drawn], true[drawn], sizes, pixels, 3, False)
        values.append(found["users"].value)
        truth = [np.mean(new == true), *right]
        low, high = (
            np.concatenate([getattr(found[k], end) for k in ("overall", "users")])
            for end in ("low", "high")
        )
        covered += (low <= truth) & (truth <= high)
    assert np.mean(values, 0) == pytest.approx(right, abs=0.01)
    assert covered.min() >= 88


def test_a_stratum_that_was_looked_at_whole_has_no_error():
    mapped, reference = np.repeat([0, 1], 10), np.repeat([0, 1, 0], [8, 6, 6])
    found = estimate(mapped, mapped, reference, np.array([10, 10]), np.array([10, 10]), 2, True)
    for each in found.values():
        assert np.allclose(each.low, each.value) and np.allclose(each.high, each.value)
        assert not each.standard_error.any()


def test_one_point_in_a_stratum():
    mapped, reference = np.repeat([0, 1], [10, 1]), np.repeat([0, 1], [9, 2])
    found = estimate(mapped, mapped, reference, np.array([50, 50]), np.array([50, 50]), 2, True)
    assert found["users"].value[0] == pytest.approx(0.9) and np.isnan(found["users"].value[1])
    for kind in ("overall", "producers", "share"):
        assert np.isnan(found[kind]).all()


def test_words():
    names = ["water", "Bare soil"]
    written = ["Water", " bare  SOIL", "", "other"]
    assert as_classes(written, list("abcd"), names, "f").tolist() == [0, 1, -1, 2]
    # a class of that name is meant
    assert as_classes(["other"], ["a"], ["other", "water"], "f").tolist() == [0]


# files


@pytest.fixture
def sample(tmp_path, monkeypatch) -> tuple[Path, Path]:
    """A map, and a CSV of points that are filled with what the map says, but for every tenth."""
    monkeypatch.chdir(tmp_path)
    class_map = write_map(tmp_path / "map.tif", some_labels())
    reference_points(class_map, out=tmp_path / "r.csv", points=90, minimum=20)
    found = read_class_map(class_map)
    rows = read_rows(tmp_path / "r.csv")
    for i, row in enumerate(rows):
        place = found.pixels(np.array([float(row["x"])]), np.array([float(row["y"])]))
        row["reference"] = NAMES[(found.labels[place][0] - 1 + (i % 10 == 0)) % 3]
    write_rows(tmp_path / "r.csv", rows)
    return class_map, tmp_path / "r.csv"


def read_rows(path):
    with path.open() as stream:
        return list(csv.DictReader(stream))


def write_rows(path, rows):
    with path.open("w") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def test_the_loop(sample, capsys, caplog):
    assess(*sample, map_id={"scene": "field", "run": "hsi"})
    found = json.loads(Path("r.assessment.json").read_text())
    assert found["scene"] == "field" and found["warnings"] == []
    assert found["interpreted"] == found["drawn"] == 90 and found["unit"] == "m2"
    assert np.array(found["error_matrix"]).sum() == 90
    overall = found["overall_accuracy"]
    assert overall["low"] < overall["value"] < overall["high"] and overall["standard_error"] > 0
    assert sum(c["area"]["value"] for c in found["classes"]) == pytest.approx(100 * 40 * 57)
    assert sum(c["map_area"] for c in found["classes"]) == pytest.approx(100 * 40 * 57)
    rows = read_rows(Path("r.assessment.csv"))
    assert [row["class"] for row in rows] == ["all", *NAMES]
    assert float(rows[0]["overall_accuracy"]) == overall["value"]
    told = capsys.readouterr().out
    assert f"overall accuracy {overall['value']:.3f}" in told and "bare soil" in told
    assert not [r for r in caplog.records if r.levelname == "WARNING"]


def test_geopackage_and_geojson_give_the_same(sample, tmp_path):
    class_map, points = sample
    assess(class_map, points)
    wanted = json.loads(Path("r.assessment.json").read_text())
    filled = {row["id"]: row["reference"] for row in read_rows(points)}
    crs = read_class_map(class_map).grid.crs
    for suffix in ("gpkg", "geojson"):
        from special_steps.io.points import write_points

        read = read_points(points, crs)
        columns = read.columns | {"reference": [filled[i] for i in read.columns["id"]]}
        write_points(tmp_path / f"r.{suffix}", read.x, read.y, columns, crs)
        assess(class_map, tmp_path / f"r.{suffix}")
        found = json.loads(Path("r.assessment.json").read_text())
        assert {k: v for k, v in found.items() if k != "points"} == {
            k: v for k, v in wanted.items() if k != "points"
        }


def change(**values):
    """Change the fourth point's columns."""
    return lambda rows: rows[3].update(values)


def same_place(rows):
    """The fifth point lies where the fourth does, with another reference."""
    other = NAMES[(NAMES.index(rows[3]["reference"]) + 1) % 3]
    rows[4].update(x=rows[3]["x"], y=rows[3]["y"], reference=other)


def moved(rows):
    """The fourth point lies a pixel further east, or west, where no other point lies."""
    taken = {(row["x"], row["y"]) for row in rows}
    steps = (str(float(rows[3]["x"]) + step) for step in (10, -10, 20, -20))
    rows[3]["x"] = next(
        x for x in steps if (x, rows[3]["y"]) not in taken and 300040 < float(x) < 300590
    )


REFUSED = {
    "typo": (change(reference="watr"), r"'watr' \(point 4; nearest: water\).*'other'"),
    "unknown": (change(reference="?"), r"'\?' \(point 4\); the classes are"),
    "outside": (change(x="1000"), "point 4 outside of the map"),
    "nodata": (change(x="300005"), "point 4 where the map has no data"),
    "moved": (moved, "point 4 moved to another pixel"),
    "doubled": (same_place, "points 4 and 5 lie in one pixel and have different references"),
    "empty": (lambda rows: [r.update(reference=" ") for r in rows], "empty at all points"),
    "no column": (lambda rows: [r.pop("reference") for r in rows], "no column 'reference'"),
    "added": (change(id="77a"), "point 77a not of the sample"),
    "two samples": (change(sample="0123"), "several samples"),
    "other sample": (lambda rows: [r.update(sample="0123") for r in rows], "strata of another"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(sample, name):
    how, message = REFUSED[name]
    rows = read_rows(sample[1])
    how(rows)
    write_rows(sample[1], rows)
    with pytest.raises(UserError, match=message) as error:
        assess(*sample)
    assert str(sample[1].stem) in str(error.value) and "\n" not in str(error.value)
    assert not Path("r.assessment.json").exists()


def warnings_of(sample, rows=None):
    if rows:
        write_rows(sample[1], rows)
    assess(*sample)
    found = json.loads(Path("r.assessment.json").read_text())
    return found, " | ".join(found["warnings"])


def test_some_are_empty_or_deleted(sample):
    rows = read_rows(sample[1])
    rows[5]["reference"] = ""
    found, told = warnings_of(sample, rows[:-3])
    assert "4 of 90 points have no reference" in told
    assert (found["interpreted"], found["drawn"]) == (86, 90)


def test_doubled_with_the_same_reference(sample):
    rows = read_rows(sample[1])
    found, told = warnings_of(sample, [*rows, rows[3]])
    assert "point 4 in pixels that have a point already: counted once" in told
    assert found["interpreted"] == 90


def test_fewer_than_two_points_in_a_stratum(sample):
    rows, strata = read_rows(sample[1]), read_rows(sample[1].with_name("r.strata.csv"))
    water = [i for i, row in enumerate(strata) if row["stratum"] == "water"]
    for i in water[1:]:
        rows[i]["reference"] = ""
    found, told = warnings_of(sample, rows)
    assert "fewer than 2 points with a reference in the map's class 'water' (1 point)" in told
    assert found["overall_accuracy"]["value"] is None
    users = [c["users_accuracy"]["value"] for c in found["classes"]]
    assert users[0] is None and None not in users[1:]


def test_none_of_the_classes(sample):
    rows = read_rows(sample[1])
    rows[0]["reference"] = rows[1]["reference"] = "Other"
    found, _ = warnings_of(sample, rows)
    assert [c["class"] for c in found["classes"]] == [*NAMES, "other"]
    assert found["classes"][3]["area"]["value"] > 0
    assert found["classes"][3]["users_accuracy"]["value"] is None


def test_a_class_that_nobody_found(sample):
    rows = read_rows(sample[1])
    for row in rows:
        row["reference"] = row["reference"].replace("water", "trees")
    found, told = warnings_of(sample, rows)
    assert "no reference point is 'water': its producer's accuracy cannot be estimated" in told
    assert found["classes"][0]["area"]["value"] == 0 and found["classes"][0]["area"]["high"] > 0


def test_points_of_another_map(sample, tmp_path):
    other = write_map(tmp_path / "other.tif", np.where(some_labels() > 0, some_labels(seed=3), 0))
    found, told = warnings_of((other, sample[1]))
    assert "drawn from another map" in told and found["design"] == "stratified by another map"
    smaller = write_map(tmp_path / "smaller.tif", some_labels() * (np.arange(40) > 0)[:, None])
    rows = [r for r in read_rows(sample[1]) if float(r["y"]) < 5799990]
    write_rows(sample[1], rows)
    with pytest.raises(UserError, match=r"2280 pixels of data, but .*smaller.tif has 2223"):
        assess(smaller, sample[1])
    sample[1].with_name("r.strata.csv").unlink()
    with pytest.raises(UserError, match=r"strata are not there.*--strata"):
        assess(other, sample[1])
    assess(*sample)  # its own map needs none


def test_points_that_do_not_say_how_they_were_drawn(sample, tmp_path):
    rows = [{k: row[k] for k in ("x", "y", "reference")} for row in read_rows(sample[1])]
    write_rows(tmp_path / "own.csv", rows)
    assess(sample[0], tmp_path / "own.csv")
    found = json.loads(Path("own.assessment.json").read_text())
    assert (
        "estimates hold only if each pixel of the map had the same chance" in found["warnings"][0]
    )


def test_strata_that_are_damaged_or_elsewhere(sample, tmp_path):
    strata = sample[1].with_name("r.strata.csv")
    shutil.move(strata, tmp_path / "elsewhere.csv")
    assess(*sample, strata=tmp_path / "elsewhere.csv")
    strata.write_text("id,x\n1,2\n")
    with pytest.raises(UserError, match=re.escape("r.strata.csv: not as special_steps")):
        assess(*sample)
    with pytest.raises(UserError, match="no such file"):
        assess(*sample, strata=tmp_path / "none.csv")


def test_points_on_pixels_that_were_learned_from_never_count(sample, tmp_path):
    """Also where the map was exported on another grid than the scene's: here, rows from south to north."""
    class_map, points = sample
    found = read_class_map(class_map)
    rows = read_rows(points)
    x, y = (np.array([float(row[k]) for row in rows[:7]]) for k in "xy")
    marked = np.zeros(found.labels.shape, np.uint8)
    marked[found.pixels(x, y)] = 1
    a, b, c, d, e, f = found.grid.transform
    grid = Grid(found.grid.crs, (a, b, c, d, -e, f + e * len(marked)))
    given = make_store(tmp_path / "labels.zarr", grid, labels=np.ascontiguousarray(marked[::-1]))
    assess(class_map, points, given=given)
    told = json.loads(Path("r.assessment.json").read_text())
    assert told["interpreted"] == told["drawn"] == len(rows) - 7
    (warning,) = told["warnings"]
    assert "7 points lie on pixels whose label was given" in warning
    write_rows(tmp_path / "few.csv", rows[7:])
    assess(class_map, tmp_path / "few.csv", strata=points.with_name("r.strata.csv"))
    less = json.loads(Path("few.assessment.json").read_text())
    assert less["overall_accuracy"] == told["overall_accuracy"]
    assert less["error_matrix"] == told["error_matrix"]


# pixels of unknown class


def test_with_unknown_pixels_by_hand():
    """Two classes and unknown (60, 30 and 10 pixels), 10 points each; the third reference never occurs."""
    mapped = np.repeat([0, 1, 2], 10)
    reference = np.repeat([0, 1, 1, 0, 0, 1], [9, 1, 8, 2, 3, 7])
    sizes = np.array([60, 30, 10])
    found = estimate(mapped, mapped, reference, sizes, sizes, 3, True, unknown=2)
    assert found["overall"].value[0] == pytest.approx((54 + 24) / 90)  # of the pixels with a class
    assert found["producers"].value[0] == pytest.approx(
        54 / (54 + 6 + 3)
    )  # unknown ones are missed
    assert found["share"].value[:2] == pytest.approx([0.63, 0.37]) and found["share"].high[2] == 0
    assert (found["overall"].low < found["overall"].value < found["overall"].high).all()


@pytest.mark.parametrize("own", [True, False])
def test_intervals_cover_with_unknown_pixels(own):
    generator = np.random.default_rng(1)
    true = generator.choice(3, 20_000, p=[0.3, 0.3, 0.4])
    map_of = np.where(generator.random(true.size) < 0.1, generator.integers(0, 3, true.size), true)
    unknown = generator.random(true.size) < np.where(map_of == true, 0.1, 0.5)
    now = np.where(unknown, 3, map_of)
    strata = now if own else map_of
    sizes, pixels = np.bincount(strata), np.bincount(now)
    truth = [np.mean((map_of == true)[~unknown]), *np.bincount(true) / true.size]
    covered = np.zeros(4)
    for _ in range(100):
        drawn = np.concatenate(
            [
                generator.choice(np.flatnonzero(strata == s), 60, replace=False)
                for s in range(len(sizes))
            ]
        )
        found = estimate(strata[drawn], now[drawn], true[drawn], sizes, pixels, 4, own, unknown=3)
        low, high = (
            np.concatenate([getattr(found[k], end)[:n] for k, n in (("overall", 1), ("share", 3))])
            for end in ("low", "high")
        )
        covered += (low <= truth) & (truth <= high)
    assert covered.min() >= 88


def with_unknown(tmp_path, labels):
    return write_map(tmp_path / "map.tif", labels, [*NAMES, "unknown"], unknown=True)


def test_the_loop_with_unknown_pixels(tmp_path, monkeypatch, capsys):
    """A stratum of its own, whose points have a class or none; the overall accuracy is of what has a class."""
    monkeypatch.chdir(tmp_path)
    labels = some_labels()
    labels[20:30, 3:] = 4
    class_map = with_unknown(tmp_path, labels)
    reference_points(class_map, out=tmp_path / "r.csv", points=100, minimum=20, doubtful=0)
    assert "what is there: water, trees, bare soil\n" in capsys.readouterr().out
    strata = read_rows(tmp_path / "r.strata.csv")
    assert sum(row["stratum"] == "unknown" for row in strata) >= 20
    rows = read_rows(tmp_path / "r.csv")
    for row, said in zip(rows, strata, strict=True):
        row["reference"] = "other" if said["stratum"] == "unknown" else said["stratum"]
    write_rows(tmp_path / "r.csv", rows)
    assess(class_map, tmp_path / "r.csv")
    found = json.loads(Path("r.assessment.json").read_text())
    assert [c["class"] for c in found["classes"]] == [*NAMES, "unknown", "other"]
    assert found["overall_accuracy"]["value"] == 1 and found["coverage"] == pytest.approx(0.75)
    unknown, other = found["classes"][3:]
    assert unknown["map_area"] == other["area"]["value"] == 100 * 10 * 57
    assert unknown["users_accuracy"]["value"] is None and unknown["area"]["value"] is None
    assert "of the 75.0% of the map that has a class" in capsys.readouterr().out
    rows[0]["reference"] = "unknown"
    write_rows(tmp_path / "r.csv", rows)
    with pytest.raises(UserError, match=r"'unknown' \(point 1\).*nothing where you cannot tell"):
        assess(class_map, tmp_path / "r.csv")


def test_unknown_without_points_leaves_the_overall_accuracy(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    labels = some_labels()
    labels[20:30, 3:] = 4
    class_map = with_unknown(tmp_path, labels)
    reference_points(class_map, out=tmp_path / "r.csv", points=100, minimum=20)
    rows, strata = read_rows(tmp_path / "r.csv"), read_rows(tmp_path / "r.strata.csv")
    for row, said in zip(rows, strata, strict=True):
        row["reference"] = "" if said["stratum"] == "unknown" else said["stratum"]
    found, told = warnings_of((class_map, tmp_path / "r.csv"), rows)
    assert "fewer than 2 points with a reference where the map is 'unknown'" in told
    assert found["overall_accuracy"]["value"] == 1
    assert found["classes"][0]["area"]["value"] is None


def test_a_map_that_is_unknown_everywhere(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    labels = np.where(some_labels() > 0, 4, 0)
    class_map = with_unknown(tmp_path, labels)
    reference_points(class_map, out=tmp_path / "r.csv", points=30, minimum=20)
    rows = read_rows(tmp_path / "r.csv")
    for i, row in enumerate(rows):
        row["reference"] = NAMES[i % 3]
    found, _ = warnings_of((class_map, tmp_path / "r.csv"), rows)
    assert found["coverage"] == 0 and found["overall_accuracy"]["value"] is None
    assert found["classes"][0]["area"]["value"] == pytest.approx(100 * 40 * 57 / 3)
    assert "of the 0.0% of the map" in capsys.readouterr().out
