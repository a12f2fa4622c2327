"""Reference points: strata, sizes, chance; what people fill tells nothing of the map."""

import csv
from xml.etree import ElementTree

import numpy as np
import pytest
import rasterio
from class_maps import NAMES, some_labels, write_map

from special_steps.core.errors import UserError
from special_steps.io.class_map import read_class_map
from special_steps.io.points import read_points
from special_steps.io.reference_sample import read_strata
from special_steps.reference_points import allocate, doubtful_places, draw, reference_points

PIXELS = np.array([1000, 9000, 90000])
EVEN = np.full(3, 0.8)


@pytest.mark.parametrize(
    ("sizes", "minimum", "expected", "count"),
    [
        ("equal", 1, EVEN, [100, 100, 100]),
        ("proportional", 1, EVEN, [3, 27, 270]),
        ("proportional", 50, EVEN, [50, 50, 200]),
        ("neyman", 1, EVEN, [3, 27, 270]),
        # 1 : 9 * 0.5 / 0.3 : 90 * 0.1 / 0.3, and so on by hand
        ("neyman", 1, np.array([0.5, 0.5, 0.99]), [11, 97, 192]),
        ("neyman", 20, np.array([1.0, 0.5, 1.0]), [20, 260, 20]),
    ],
)
def test_sizes(sizes, minimum, expected, count):
    assert allocate(PIXELS, 300, sizes, minimum, expected).tolist() == count


def test_sizes_of_the_papers_example():
    """Olofsson et al. (2014), table 5, page 53."""
    pixels = np.array([200_000, 150_000, 3_200_000, 6_450_000])
    expected = np.array([0.7, 0.6, 0.9, 0.95])
    assert allocate(pixels, 641, "proportional", 1, expected).tolist() == [13, 10, 205, 413]
    assert allocate(pixels, 640, "equal", 1, expected).tolist() == [160] * 4


def test_small_strata_are_taken_whole():
    pixels = np.array([5, 40, 100])
    assert allocate(pixels, 60, "equal", 10, EVEN).tolist() == [5, 28, 27]
    assert allocate(pixels, 1000, "proportional", 10, EVEN).tolist() == pixels.tolist()
    with pytest.raises(UserError, match="need 90, not 60; give --points 90"):
        allocate(PIXELS, 60, "equal", 30, EVEN)


def test_every_pixel_of_a_class_has_the_same_chance():
    labels = np.repeat([[1, 2]], 10, 0).repeat(5, 1)
    met = np.zeros(labels.size)
    for seed in range(400):
        pixel = draw(labels, {1: 10, 2: 5}, seed)
        assert len(set(pixel)) == 15 and (labels.ravel()[pixel] == 1).sum() == 10
        met[pixel] += 1
    for label, chance in ((1, 0.2), (2, 0.1)):
        share = met.reshape(labels.shape)[labels == label] / 400
        assert abs(share.mean() - chance) < 1e-12
        assert share.std() == pytest.approx((chance * (1 - chance) / 400) ** 0.5, rel=0.35)


def test_doubtful_places_are_the_least_sure_and_apart():
    confidence = np.ones((60, 80), np.float32)
    for y, x in ((10, 10), (50, 70), (30, 40)):
        confidence[y - 2 : y + 3, x - 2 : x + 3] = 0.1
    confidence[5, 60] = 0  # a single odd pixel
    confidence[:, :5] = np.nan
    found = doubtful_places(confidence, 3)
    y, x = np.divmod(found, 80)
    near = {(round(a / 10), round(b / 10)) for a, b in zip(y, x, strict=True)}
    assert near == {(1, 1), (5, 7), (3, 4)}
    more = np.stack(np.divmod(doubtful_places(confidence, 20), 80), 1)
    assert not np.isnan(confidence[tuple(more.T)]).any()
    apart = np.linalg.norm(more[:, None] - more[None], axis=2)[np.triu_indices(len(more), 1)]
    assert len(more) == 20 and apart.min() >= np.sqrt(60 * 75 / 60)
    assert len(doubtful_places(np.full((3, 3), np.nan, np.float32), 5)) == 0


@pytest.fixture
def classes(tmp_path):
    labels = some_labels()
    generator = np.random.default_rng(1)
    with rasterio.open(
        tmp_path / "confidence.tif",
        "w",
        driver="GTiff",
        count=1,
        height=40,
        width=60,
        dtype="float32",
    ) as raster:
        raster.write(generator.random((1, 40, 60)).astype("f4"))
    return write_map(tmp_path / "map.tif", labels)


@pytest.mark.parametrize("suffix", ["gpkg", "geojson", "csv"])
def test_the_sample(tmp_path, classes, suffix, capsys):
    out = tmp_path / f"r.{suffix}"
    reference_points(classes, out=out, points=90, minimum=20, doubtful=7)
    found = read_class_map(classes)
    read = read_points(out, found.grid.crs)
    assert set(read.columns) == {"id", "x", "y", "reference", "sample"}
    assert set(read.columns["reference"]) == {""} and set(read.columns["sample"]) == {found.digest}
    strata = read_strata(tmp_path / "r.strata.csv")
    assert strata.ids == read.columns["id"] == [str(i) for i in range(1, 91)]
    row, column = found.pixels(read.x, read.y)
    assert [NAMES[v - 1] for v in found.labels[row, column]] == strata.stratum
    assert strata.stratum != sorted(strata.stratum)  # the order tells nothing
    counts = np.bincount(found.labels.ravel())[1:]
    assert strata.pixels == dict(zip(NAMES, counts, strict=True))
    doubtful = read_points(tmp_path / f"r.doubtful.{suffix}", found.grid.crs)
    assert len(doubtful.x) == 7 and set(doubtful.columns["map"]) <= set(NAMES)
    assert "fill" in capsys.readouterr().out


@pytest.mark.parametrize("suffix", ["gpkg", "geojson", "csv"])
def test_qgis_has_the_classes_to_choose_from(tmp_path, classes, suffix):
    reference_points(classes, out=tmp_path / f"r.{suffix}", points=90, minimum=20)
    for name, column, more in (("r", "reference", ["other"]), ("r.doubtful", "class", [])):
        form = tmp_path / f"{name}.qml"
        if suffix == "csv":
            assert not form.exists()
            continue
        (field,) = ElementTree.parse(form).iter("field")
        assert field.get("name") == column
        assert field.find("editWidget").get("type") == "ValueMap"
        choices = [one.get("name") for one in field.iter("Option") if one.get("value")]
        assert choices == ["", *NAMES, *more]


def test_a_form_of_somebody_s_own_is_kept(tmp_path, classes):
    (tmp_path / "r.qml").write_text("mine")
    with pytest.raises(UserError, match=r"r\.qml: there is such a file"):
        reference_points(classes, out=tmp_path / "r.gpkg")
    assert not (tmp_path / "r.gpkg").exists()


def test_the_seed_decides(tmp_path, classes):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        reference_points(classes, out=tmp_path / f"{name}.csv", points=60, minimum=1, seed=seed)
    a, b, c = ((tmp_path / f"{name}.csv").read_text() for name in "abc")
    assert a == b != c


def test_a_map_without_place_or_confidence(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path = write_map(tmp_path / "map.tif", some_labels(), crs=None)
    reference_points(path, points=60, minimum=1)
    with (tmp_path / "reference.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert all(float(row["x"]) % 1 == 0.5 and -40 < float(row["y"]) < 0 for row in rows)
    told = capsys.readouterr().out
    assert "no CRS" in told and "No confidence.tif" in told


def test_mistakes(tmp_path, classes):
    out = tmp_path / "r.gpkg"
    for options, message in (
        ({"expected": {"tree": 0.9}}, "did you mean 'trees'"),
        ({"expected": {"trees": 90.0}}, "90 for 'trees' is no share"),
        ({"points": 50}, "give --points 90"),
        ({"points": 0}, "at least 1"),
        ({"out": tmp_path / "r.kml"}, "ends in"),
    ):
        with pytest.raises(UserError, match=message):
            reference_points(classes, **{"out": out} | options)
        assert not out.exists()
    reference_points(classes, out=out)
    before = out.read_bytes()
    with pytest.raises(UserError, match=r"r\.gpkg: there is such a file"):
        reference_points(classes, out=out)
    assert out.read_bytes() == before
