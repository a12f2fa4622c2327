"""Maps as polygons, and areas of classes."""

import csv

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from rasterio.features import rasterize
from stores import add_confidence, make_prediction, make_rgb, one_hot

from special_steps.core.errors import UserError
from special_steps.export import export
from special_steps.polygons import class_areas, outlines, patches, polygons, sieved, smallest_patch

UTM = rasterio.CRS.from_epsg(32633).to_wkt()
AFFINE = [30.0, 0.0, 369000.0, 0.0, -30.0, 5808000.0]
NAMES = ["water", "trees & <shrubs>", "bäume"]

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def blobs(shape=(60, 80), classes=3, seed=0):
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(seed)
    fields = [gaussian_filter(rng.standard_normal(shape), 3) for _ in range(classes)]
    labels = (np.argmax(fields, 0) + 1).astype("u1")
    labels[:6, :9] = 0
    return labels


def made(
    tmp_path, labels, crs=UTM, transform=AFFINE, min_area=0, names=NAMES, reject=None, **settings
):
    labels = np.asarray(labels)
    rng = np.random.default_rng(0)
    probabilities = one_hot(labels, len(names)) * rng.uniform(0.6, 1, labels.shape).astype("f4")
    store = make_prediction(tmp_path / "p.zarr", probabilities, names, labels == 0, crs, transform)
    if reject is not None:
        add_confidence(store, rng.random(labels.shape))
    out = tmp_path / "out"
    export(
        prediction=store,
        rgb=make_rgb(tmp_path / "rgb.zarr", labels == 0),
        class_map=out / "map.tif",
        confidence_map=out / "confidence.tif",
        probability_map=out / "probabilities.tif",
        style=out / "map.qml",
        picture=out / "map.png",
        colours={},
        networks=None,
        reject=reject,
        north_up=None,
    )
    polygons(
        class_map=out / "map.tif",
        confidence_map=out / "confidence.tif",
        out=out / "polygons.gpkg",
        style=out / "polygons.qml",
        table=out / "areas.csv",
        colours={},
        min_area=min_area,
        **settings,
    )
    return out


def read(out):
    about, _, shapes, values = pyogrio.raw.read(out / "polygons.gpkg")
    return about, shapely.from_wkb(shapes), dict(zip(about["fields"], values, strict=True))


def rows_of(out):
    with (out / "areas.csv").open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_unknown_pixels_are_polygons_and_a_line_of_their_own(tmp_path):
    labels = blobs()
    out = made(tmp_path, labels, reject=0.5)
    with rasterio.open(out / "map.tif") as raster:
        found = raster.read(1)
    assert set(np.unique(found)) == {0, 1, 2, 3, 4}
    _, _, fields = read(out)
    of_unknown = fields["label"] == 4
    assert set(fields["class"][of_unknown]) == {"unknown"}
    assert fields["pixels"][of_unknown].sum() == (found == 4).sum()
    rows = rows_of(out)
    assert [row["class"] for row in rows] == [*NAMES, "unknown"]
    assert [int(row["pixels"]) for row in rows] == np.bincount(found.ravel())[1:].tolist()
    assert sum(float(row["share"]) for row in rows) == pytest.approx(1, abs=1e-5)
    assert 'k="color" v="189,189,189,255"' in (out / "polygons.qml").read_text()


def test_polygons_are_the_map(tmp_path):
    """Drawn back into pixels they are the same, their fields what the pixels say, and all is valid."""
    labels = blobs()
    out = made(tmp_path, labels)
    about, shapes, fields = read(out)
    assert about["crs"] == "EPSG:32633" and about["geometry_type"] == "MultiPolygon"
    assert shapely.is_valid(shapes).all()
    back = rasterize(
        zip(shapes, fields["label"], strict=True), labels.shape, transform=rasterio.Affine(*AFFINE)
    )
    np.testing.assert_array_equal(back, labels)
    assert fields["class"].tolist() == [NAMES[i - 1] for i in fields["label"]]
    np.testing.assert_allclose(fields["area_m2"], shapely.area(shapes), rtol=1e-9)
    np.testing.assert_allclose(fields["pixels"] * 900.0, fields["area_m2"])
    with rasterio.open(out / "confidence.tif") as raster:
        confidence = raster.read(1)
    for shape, found in zip(shapes, fields["confidence"], strict=True):
        inside = rasterize([shape], labels.shape, transform=rasterio.Affine(*AFFINE)) > 0
        assert found == pytest.approx(confidence[inside].mean(), rel=1e-5)


def test_corners_that_touch_are_valid():
    rng = np.random.default_rng(0)
    labels = rng.integers(1, 3, (40, 50)).astype("u1")
    found = patches(labels, np.zeros(labels.shape, "f4"), None)
    shapes = outlines(found.number, rasterio.Affine.identity())
    assert shapely.is_valid(shapes).all()
    np.testing.assert_allclose(shapely.area(shapes), found.pixels)


def test_areas_are_those_of_the_map_not_sieved(tmp_path):
    labels = blobs()
    labels[30, 30] = 3 - labels[30, 30] // 2
    out = made(tmp_path, labels, min_area=20 * 900)
    rows = rows_of(out)
    assert [row["class"] for row in rows] == NAMES
    for i, row in enumerate(rows, 1):
        pixels = int((labels == i).sum())
        assert int(row["pixels"]) == pixels
        assert float(row["share"]) == pytest.approx(pixels / (labels > 0).sum(), abs=1e-6)
        assert float(row["area_m2"]) == pixels * 900
        assert float(row["area_ha"]) == pytest.approx(pixels * 0.09)
    _, _, fields = read(out)
    assert fields["pixels"].min() >= 20
    assert fields["pixels"].sum() == (labels > 0).sum()


def test_a_class_without_pixels_has_a_row(tmp_path):
    out = made(tmp_path, np.ones((5, 6), int))
    assert [row["pixels"] for row in rows_of(out)] == ["30", "0", "0"]
    assert len(read(out)[1]) == 1


def test_without_georeference_areas_are_pixels(tmp_path):
    labels = blobs()
    out = made(tmp_path, labels, crs=None, transform=None, min_area=10)
    about, shapes, fields = read(out)
    assert about["crs"] is None and "area_m2" not in fields
    assert fields["pixels"].min() >= 10
    np.testing.assert_allclose(shapely.area(shapes), fields["pixels"])
    bounds = shapely.total_bounds(shapes)
    np.testing.assert_array_equal(bounds, [0, -60, 80, 0])  # as QGIS shows such a map
    assert {row["area_m2"] for row in rows_of(out)} == {""}


def test_areas_in_degrees(tmp_path):
    labels = np.ones((50, 4), int)
    labels[25:] = 2
    wgs = rasterio.CRS.from_epsg(4326).to_wkt()
    out = made(tmp_path, labels, crs=wgs, transform=[0.01, 0, 13, 0, -0.01, 60.0])
    north, south = (float(row["area_m2"]) for row in rows_of(out)[:2])
    assert south > 1.005 * north
    _, _, fields = read(out)
    np.testing.assert_allclose(np.sort(fields["area_m2"]), [north, south], rtol=1e-6)


def test_a_turned_scene(tmp_path):
    """Polygons lie on the map, which is turned north up."""
    turned = list(rasterio.Affine.translation(369000, 5808000) @ rasterio.Affine.rotation(30))[:6]
    labels = np.full((40, 50), 2)
    out = made(tmp_path, labels, transform=turned)
    _, shapes, fields = read(out)
    with rasterio.open(out / "map.tif") as raster:
        assert fields["pixels"].sum() == (raster.read(1) > 0).sum()
        assert shapely.box(*raster.bounds).contains(shapely.union_all(shapes))


def test_sieved_by_hand():
    labels = np.array(
        [
            [1, 1, 1, 2, 2],
            [1, 3, 1, 2, 2],
            [1, 1, 1, 0, 2],
            [0, 0, 0, 0, 0],
            [3, 3, 0, 1, 1],
        ],
        "u1",
    )
    wanted = labels.copy()
    wanted[1, 1] = 1
    np.testing.assert_array_equal(sieved(labels, 3), wanted)  # the last row's have no neighbour
    np.testing.assert_array_equal(sieved(labels, 1), labels)
    np.testing.assert_array_equal(sieved(np.zeros((3, 3), "u1"), 3), np.zeros((3, 3)))


@pytest.mark.parametrize("fewest", [2, 5, 30])
def test_after_sieving_small_patches_with_neighbours_are_gone(fewest):
    noise = np.random.default_rng(0).integers(1, 6, (100, 100)).astype("u1")
    for labels in (blobs((100, 100), 5), noise):
        found = patches(sieved(labels, fewest), np.zeros(labels.shape, "f4"), None)
        assert found.pixels.min() >= fewest
        assert found.pixels.sum() == (labels > 0).sum()


def test_the_smallest_patch():
    areas = np.full(10, 900.0)
    assert smallest_patch(None, areas, 5000) == 4
    assert smallest_patch(None, None, 2) == 2
    assert smallest_patch(0, areas, 5000) == 1
    assert smallest_patch(1800, areas, 5000) == 2
    assert smallest_patch(1801, areas, 5000) == 3
    assert smallest_patch(7, None, 5000) == 7
    with pytest.raises(UserError, match=r"export\.min_area: 1e\+07 m2 is more than.*4\.5e\+06 m2"):
        smallest_patch(1e7, areas, 5000)
    with pytest.raises(UserError, match=r"export\.min_area: 31 pixels is more than.*30 pixels"):
        smallest_patch(31, None, 30)


def test_a_min_area_larger_than_the_scene_writes_nothing(tmp_path):
    with pytest.raises(UserError, match="more than the whole map"):
        made(tmp_path, blobs(), min_area=1e9)
    assert not (tmp_path / "out" / "polygons.gpkg").exists()
    assert not (tmp_path / "out" / "areas.csv").exists()


def test_class_areas_by_hand():
    labels = np.array([[1, 1], [2, 0]], "u1")
    found = class_areas(labels, ["a", "b"], np.array([10.0, 20.0]))
    assert [(one["pixels"], one["area_m2"]) for one in found] == [(2, 20.0), (1, 20.0)]
    assert found[0]["share"] == pytest.approx(2 / 3, abs=1e-6)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1)])
def test_tiny_maps(tmp_path, shape):
    out = made(tmp_path, np.ones(shape, int), min_area=None)
    _, shapes, fields = read(out)
    assert len(shapes) == 1 and fields["pixels"].tolist() == [np.prod(shape)]
