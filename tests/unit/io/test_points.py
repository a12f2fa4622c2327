"""Points: they come back from each format where they were, and a mistake is told in one line."""

import json

import numpy as np
import pyogrio.raw
import pytest
import shapely
from class_maps import CRS
from rasterio.crs import CRS as RasterioCRS

from special_steps.core.errors import UserError
from special_steps.io.points import read_points, write_points

WKT = RasterioCRS.from_string(CRS).to_wkt()
X, Y = np.array([300005.0, 300425.0, 300333.25]), np.array([5799995.0, 5799705.0, 5799999.5])
COLUMNS = {"id": [1, 2, 3], "reference": [None, "bäume, hohe", ""], "confidence": [0.5, 0.25, 1.0]}


@pytest.mark.parametrize("name", ["p.gpkg", "p.geojson", "p.csv"])
def test_points_come_back(tmp_path, name):
    columns = COLUMNS | {"x": X.tolist(), "y": Y.tolist()}
    write_points(tmp_path / name, X, Y, columns, WKT)
    found = read_points(tmp_path / name, WKT)
    assert np.abs(found.x - X).max() < 1e-3 and np.abs(found.y - Y).max() < 1e-3
    assert found.columns["id"] == ["1", "2", "3"]
    assert found.columns["reference"] == ["", "bäume, hohe", ""]
    assert [float(v) for v in found.columns["confidence"]] == [0.5, 0.25, 1]


def test_geojson_is_in_longitude_and_latitude(tmp_path):
    write_points(tmp_path / "p.geojson", X, Y, COLUMNS, WKT)
    content = json.loads((tmp_path / "p.geojson").read_text())
    longitude, latitude = content["features"][0]["geometry"]["coordinates"]
    assert 11 < longitude < 13 and 52 < latitude < 53
    content["crs"] = {"type": "name", "properties": {"name": CRS}}  # GeoJSON of 2008
    for feature, x, y in zip(content["features"], X, Y, strict=True):
        feature["geometry"]["coordinates"] = [x, y]
    (tmp_path / "old.geojson").write_text(json.dumps(content))
    assert np.abs(read_points(tmp_path / "old.geojson", WKT).x - X).max() < 1e-6


def test_what_spreadsheets_and_gis_make_of_it(tmp_path):
    (tmp_path / "p.csv").write_text("﻿ID;X;Y;Reference\n1;300005;5799995; water \n;;;\n")
    found = read_points(tmp_path / "p.csv", WKT)
    assert found.columns["reference"] == ["water"] and found.x.tolist() == [300005]
    shapes = shapely.to_wkb([shapely.MultiPoint([(300005, 5799995)])])
    ids = np.array([np.nan])  # a column of whole numbers with gaps
    pyogrio.raw.write(
        tmp_path / "m.gpkg", np.array(shapes, object), [ids], ["id"], geometry_type="MultiPoint",
        driver="GPKG", crs=CRS,
    )  # fmt: skip
    found = read_points(tmp_path / "m.gpkg", WKT)
    assert found.x.tolist() == [300005] and found.columns["id"] == [""]


def feature(geometry, **properties):
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def point(*place):
    return {"type": "Point", "coordinates": place}


BAD = {
    "words.txt": ("hello", "no column 'x'|no points"),
    "empty.csv": ("x,y,reference\n", "no points in the file"),
    "text.csv": ("x,y\n300005,north\n", "row 2: y is 'north', no number"),
    "ragged.csv": ("x,y,reference\n1,2\n", "row 2 has 2 columns"),
    "noxy.csv": ("lon,lat\n1,2\n", "no column 'x'"),
    "twice.csv": ("x,y,Reference,reference\n1,2,a,b\n", "two columns are called 'reference'"),
    "p.shp": ("\0\0", "no GeoPackage, GeoJSON or CSV"),
    "cut.geojson": ('{"type": "FeatureColl', "no valid JSON"),
    "topo.geojson": ('{"type": "Topology"}', "'Topology', no GeoJSON FeatureCollection"),
    "none.geojson": ('{"type": "FeatureCollection", "features": []}', "no points in the file"),
    "line.geojson": (
        [feature({"type": "LineString", "coordinates": [[1, 2], [3, 4]]})],
        "shape 1 is a LineString",
    ),
    "nowhere.geojson": ([feature(point(12, 52)), feature(None)], "point 2 has no place"),
    "metres.geojson": ([feature(point(300005, 5799995))], "no longitude and latitude"),
    "odd.geojson": ([feature({"type": "Point"})], "not as GeoJSON has it"),
    "cut.gpkg": ("SQLite format 3\0 and no more", "damaged"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files(tmp_path, name):
    content, message = BAD[name]
    if isinstance(content, list):
        content = json.dumps({"type": "FeatureCollection", "features": content})
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message) as error:
        read_points(tmp_path / name, WKT)
    assert name in str(error.value)


def test_a_geopackage_without_crs_or_with_several_layers(tmp_path):
    shapes = np.array(shapely.to_wkb(shapely.points(X, Y)), object)
    options = {"fields": [], "field_data": [], "geometry_type": "Point", "driver": "GPKG"}
    with pytest.warns(UserWarning, match="crs"):
        pyogrio.raw.write(tmp_path / "p.gpkg", shapes, crs=None, **options)
    with pytest.raises(UserError, match="states no CRS"):
        read_points(tmp_path / "p.gpkg", WKT)
    for layer in ("a", "b"):
        pyogrio.raw.write(
            tmp_path / "q.gpkg", shapes, crs=CRS, layer=layer, append=layer == "b", **options
        )
    with pytest.raises(UserError, match="several layers"):
        read_points(tmp_path / "q.gpkg", WKT)


def test_a_map_without_crs_takes_csv_only(tmp_path):
    write_points(tmp_path / "p.csv", X, Y, {"x": X.tolist(), "y": Y.tolist()}, None)
    assert read_points(tmp_path / "p.csv", None).x.tolist() == X.tolist()
    with pytest.raises(UserError, match=r"no CRS.*\.csv"):
        write_points(tmp_path / "p.gpkg", X, Y, COLUMNS, None)
    write_points(tmp_path / "p.gpkg", X, Y, COLUMNS, WKT)
    with pytest.raises(UserError, match="map has no CRS"):
        read_points(tmp_path / "p.gpkg", None)
    with pytest.raises(UserError, match="ends in"):
        write_points(tmp_path / "p.kml", X, Y, COLUMNS, WKT)
