"""Labels that people give: which pixels they are, in any CRS and format, and each mistake in one line."""

import json

import numpy as np
import pyogrio.raw
import pytest
import shapely
from affine import Affine
from rasterio.crs import CRS as RasterioCRS
from rasterio.warp import transform

from special_steps.core.errors import UserError
from special_steps.core.store import UNKNOWN, Grid
from special_steps.io.given_labels import read_given_labels
from special_steps.io.points import write_points

NAMES = ["water", "Tall trees", "roof"]
CRS = "EPSG:32633"
WKT = RasterioCRS.from_string(CRS).to_wkt()
GRID = Grid(WKT, (10.0, 0.0, 300000.0, 0.0, -10.0, 5800000.0))
SHAPE = (8, 12)
# (row, column) of pixels, and their classes
PIXELS, CLASSES = [(0, 0), (3, 4), (7, 11)], ["water", " tall  TREES", "roof"]
WANTED = np.zeros(SHAPE, np.uint8)
WANTED[tuple(np.transpose(PIXELS))] = [1, 2, 3]


def centres(pixels, grid=GRID):
    rows, columns = np.transpose(pixels) + 0.5
    return Affine(*grid.transform) @ (columns, rows)


def read(path, grid=GRID, nodata=None):
    return read_given_labels(path, NAMES, grid, SHAPE, nodata)


def geojson(path, shapes, classes, crs=CRS):
    features = [
        {
            "type": "Feature",
            "properties": {"class": c},
            "geometry": json.loads(shapely.to_geojson(s)),
        }
        for s, c in zip(shapes, classes, strict=True)
    ]
    member = {"crs": {"type": "name", "properties": {"name": crs}}}
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features} | member))
    return path


@pytest.mark.parametrize("name", ["p.gpkg", "p.geojson", "p.csv"])
def test_points_in_each_format(tmp_path, name):
    x, y = centres(PIXELS)
    write_points(tmp_path / name, x, y, {"Class": CLASSES, "x": x.tolist(), "y": y.tolist()}, WKT)
    np.testing.assert_array_equal(read(tmp_path / name), WANTED)


def test_points_in_another_crs_on_a_turned_grid(tmp_path):
    turned = Affine.translation(300000, 5800000) @ Affine.rotation(30) @ Affine.scale(10, -10)
    grid = Grid(WKT, tuple(turned)[:6])
    x, y = transform(CRS, "EPSG:3857", *centres(PIXELS, grid))
    points = [shapely.Point(*p) for p in zip(x, y, strict=True)]
    path = geojson(tmp_path / "p.geojson", points, CLASSES, "EPSG:3857")
    np.testing.assert_array_equal(read(path, grid), WANTED)


def test_a_scene_without_georeference_takes_columns_and_rows(tmp_path):
    lines = [f"{c + 0.5},{-r - 0.5},{k}" for (r, c), k in zip(PIXELS, CLASSES, strict=True)]
    (tmp_path / "p.csv").write_text("\n".join(["x,y,class", *lines]))
    np.testing.assert_array_equal(read(tmp_path / "p.csv", UNKNOWN), WANTED)


def test_polygons_are_the_pixels_whose_centres_lie_in_them(tmp_path):
    """Beside points, in one file, with a shape of several parts and one that reaches out of the scene."""
    square = shapely.box(300011, 5799951, 300039, 5799989)
    far = shapely.box(300096, 5799900, 300500, 5799940)
    two = shapely.MultiPolygon([shapely.box(300060, 5799990, 300070, 5800000), far])
    shapes = [square, two, shapely.MultiPoint([(300005, 5799995)])]
    path = geojson(tmp_path / "p.geojson", shapes, ["water", "roof", "tall trees"])
    x, y = centres([(r, c) for r in range(8) for c in range(12)])
    wanted = np.zeros(96, np.uint8)
    wanted[shapely.contains_xy(square, x, y)] = 1
    wanted[shapely.contains_xy(two, x, y)] = 3
    wanted[0] = 2
    assert (wanted == 1).sum() == 12  # by hand: 3 columns of 4 rows
    np.testing.assert_array_equal(read(path), wanted.reshape(SHAPE))
    wkb = np.array(shapely.to_wkb(shapes[:2]), object)
    values = [np.array(["water", "roof"], object)]
    pyogrio.raw.write(
        tmp_path / "p.gpkg", wkb, values, ["class"], geometry_type="Unknown", driver="GPKG", crs=CRS
    )
    wanted[wanted == 2] = 0  # no point is in this file
    np.testing.assert_array_equal(read(tmp_path / "p.gpkg"), wanted.reshape(SHAPE))


def test_some_shapes_are_left_out(tmp_path, caplog):
    x, y = centres([*PIXELS, (1, 1), (2, 2), (50, 50)])
    classes = [*CLASSES, "", "water", "roof"]
    write_points(tmp_path / "p.gpkg", x, y, {"class": classes}, WKT)
    nodata = np.zeros(SHAPE, bool)
    nodata[2, 2] = True
    np.testing.assert_array_equal(read(tmp_path / "p.gpkg", nodata=nodata), WANTED)
    told = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert [text.partition(": ")[2] for text in told] == [
        "1 of 5 shapes lie outside of the scene and are left out",
        "1 of 5 shapes lie where it has no data and are left out",
    ]


def test_two_points_of_one_class_in_a_pixel_are_one_label(tmp_path):
    x, y = centres([(1, 1), (1, 1)])
    write_points(tmp_path / "p.gpkg", x + np.array([1, 2]), y, {"class": ["roof", "roof"]}, WKT)
    assert read(tmp_path / "p.gpkg").sum() == 3


ROWS = "x,y,class\n300005,5799995,water\n"
BAD = {
    "no column": ("x,y,kind\n300005,5799995,water\n", "no column 'class' .its columns: x, y, kind"),
    "unknown class": (ROWS + "300015,5799995,rof\n", "'rof' is not a class.*did you mean 'roof'"),
    "no class": ("x,y,class\n300005,5799995,\n", "'class' is empty"),
    "outside": ("x,y,class\n1,2,water\n", "all shapes lie outside of the scene"),
    "no data": ("x,y,class\n300115,5799995,water\n", "all shapes lie where the scene has no data"),
    "two classes": (
        ROWS + "300006,5799994,roof\n",
        r"shapes 1 \('water'\) and 2 \('roof'\) give one pixel \(row 0, column 0",
    ),
    "empty": ("x,y,class\n", "no points in the file"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files(tmp_path, name):
    text, message = BAD[name]
    nodata = np.zeros(SHAPE, bool)
    nodata[0, 11] = True
    (tmp_path / "mine.csv").write_text(text)
    with pytest.raises(UserError, match=message) as error:
        read(tmp_path / "mine.csv", nodata=nodata)
    assert "mine.csv" in str(error.value)


def test_places_that_cannot_be_told(tmp_path):
    x, y = centres(PIXELS)
    write_points(tmp_path / "p.gpkg", x, y, {"class": CLASSES}, WKT)
    with pytest.raises(UserError, match="the scene has no CRS"):
        read(tmp_path / "p.gpkg", UNKNOWN)
    wkb = np.array(shapely.to_wkb(shapely.points(x, y)), object)
    with pytest.warns(UserWarning, match="crs"):
        pyogrio.raw.write(
            tmp_path / "q.gpkg", wkb, [np.array(CLASSES, object)], ["class"],
            geometry_type="Point", driver="GPKG", crs=None,
        )  # fmt: skip
    with pytest.raises(UserError, match="states no CRS"):
        read(tmp_path / "q.gpkg")
    line = geojson(tmp_path / "l.geojson", [shapely.LineString([(0, 0), (1, 1)])], ["roof"])
    with pytest.raises(UserError, match="shape 1 is a LineString"):
        read(line)
    with pytest.raises(UserError, match="no such file"):
        read(tmp_path / "nowhere.gpkg")
