"""Areas as polygons: which pixels' centres lie in them, in any CRS and format, and files that are no areas."""

import json
import logging

import numpy as np
import pyogrio.raw
import pytest
import shapely
from affine import Affine
from rasterio.crs import CRS
from rasterio.warp import transform

from special_steps.core.errors import UserError
from special_steps.io.vectors import inside, polygon_files, read_polygons

UTM = CRS.from_epsg(32633).to_wkt(version="WKT2_2019")
GRID = (30.0, 0.0, 400000.0, 0.0, -30.0, 5800000.0)
SHAPE = (40, 50)
SQUARE = shapely.box(400100, 5799200, 400700, 5799850)
HOLED = SQUARE.difference(shapely.box(400300, 5799400, 400500, 5799500))
BOWTIE = shapely.Polygon(
    [(400000, 5799000), (401000, 5799900), (401000, 5799000), (400000, 5799900)]
)
EPSG = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32633"}}


def geojson(path, *shapes, crs=EPSG, **members):
    features = [
        {"type": "Feature", "properties": {}, "geometry": s and json.loads(shapely.to_geojson(s))}
        for s in shapes
    ]
    content = {"type": "FeatureCollection", "features": features} | members
    path.write_text(json.dumps(content | ({} if crs is None else {"crs": crs or None})))
    return path


def vector(path, *shapes, crs="EPSG:32633", kind="Polygon", **options):
    wkb = np.array([shapely.to_wkb(s) for s in shapes], object)
    pyogrio.raw.write(path, wkb, [], [], geometry_type=kind, crs=crs, **options)
    return path


def centres(grid, shape):
    x, y = np.meshgrid(np.arange(shape[1]) + 0.5, np.arange(shape[0]) + 0.5)
    return Affine(*grid) @ (x, y)


def right(*shapes, grid=GRID, shape=SHAPE):
    """By its definition: each pixel's centre."""
    x, y = centres(grid, shape)
    return np.any([shapely.contains_xy(s, x, y) for s in shapes], axis=0)


@pytest.mark.parametrize(
    "grid",
    [
        GRID,
        (30.0, 0.0, 400000.0, 0.0, 30.0, 5798800.0),
        tuple(Affine.translation(400200, 5799900) @ Affine.rotation(30) @ Affine.scale(20, -25))[
            :6
        ],
    ],
    ids=["north up", "south up", "rotated"],
)
def test_pixels_whose_centres_lie_inside(tmp_path, grid):
    shapes = [HOLED, shapely.Polygon([(400800, 5799990), (401490, 5799010), (400811, 5799033)])]
    mask = inside(geojson(tmp_path / "a.geojson", *shapes), UTM, grid, SHAPE)
    assert mask.dtype == bool
    np.testing.assert_array_equal(mask, right(*shapes, grid=grid))
    assert 0 < mask.sum() < mask.size


def test_long_edges_bend_with_the_projection(tmp_path):
    """A parallel of latitude is no straight line in UTM: over 150 km it leaves its chord by hundreds of metres."""
    grid, shape = (100.0, 0.0, 420000.0, 0.0, -100.0, 6600000.0), (300, 1500)
    lon, lat = (
        np.array(v) for v in transform(UTM, "EPSG:4326", [450000, 540000], [6580000, 6590000])
    )
    area = shapely.box(-100, lat[0], lon[1], 89)
    path = geojson(tmp_path / "a.geojson", area, crs=None)
    x, y = centres(grid, shape)
    east, north = (np.reshape(v, shape) for v in transform(UTM, "EPSG:4326", x.ravel(), y.ravel()))
    expected = (north > lat[0]) & (east < lon[1])
    mask = inside(path, UTM, grid, shape)
    np.testing.assert_array_equal(mask, expected)
    near = shapely.box(12, lat[0], lon[1], 60)  # else its corners have no place in UTM
    chords = shapely.Polygon(np.stack(transform("EPSG:4326", UTM, *near.exterior.xy), axis=1))
    assert (right(chords, grid=grid, shape=shape) != expected).sum() > 1000


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:3857", "EPSG:3035", "EPSG:25832", "EPSG:32633"])
@pytest.mark.parametrize("suffix", [".gpkg", ".shp", ".geojson"])
def test_formats_and_systems(tmp_path, suffix, crs):
    moved = shapely.transform(
        shapely.segmentize(HOLED, 10),
        lambda p: np.stack(transform("EPSG:32633", crs, *p.T), axis=1),
    )
    path = tmp_path / f"area{suffix}"
    if suffix == ".geojson":
        geojson(path, moved, crs={"type": "name", "properties": {"name": crs}})
    else:
        vector(path, moved, crs=crs)
    np.testing.assert_array_equal(inside(path, UTM, GRID, SHAPE), right(HOLED))
    polygons, stated = read_polygons(path)
    assert len(polygons) == 1
    assert CRS.from_wkt(stated) == CRS.from_user_input(crs)


def test_geojson_is_longitude_and_latitude(tmp_path):
    corner = np.stack(transform(UTM, "EPSG:4326", [400100, 400700], [5799200, 5799850]), axis=1)
    area = shapely.box(*corner[0], *corner[1])
    names = ["urn:ogc:def:crs:OGC:1.3:CRS84", "urn:ogc:def:crs:EPSG::4326", "EPSG:4326"]
    paths = [geojson(tmp_path / "plain.geojson", area, crs=None)]
    paths += [
        geojson(tmp_path / f"{i}.geojson", area, crs={"type": "name", "properties": {"name": name}})
        for i, name in enumerate(names)
    ]
    masks = [inside(path, UTM, GRID, SHAPE) for path in paths]
    assert 0.9 < masks[0].sum() / right(SQUARE).sum() < 1.1
    for mask in masks[1:]:
        np.testing.assert_array_equal(mask, masks[0])


def test_scene_in_degrees(tmp_path):
    grid, shape = (0.01, 0, 12.0, 0, -0.01, 53.0), (60, 80)
    wkt = CRS.from_epsg(4326).to_wkt()
    area = shapely.Polygon([(12.103, 52.9), (12.7, 52.852), (12.311, 52.45)])
    path = geojson(tmp_path / "a.json", area, crs=None)
    np.testing.assert_array_equal(
        inside(path, wkt, grid, shape), right(area, grid=grid, shape=shape)
    )


@pytest.mark.parametrize(
    "content",
    [
        shapely.MultiPolygon([HOLED, shapely.box(400900, 5799000, 401200, 5799100)]),
        shapely.GeometryCollection([HOLED, shapely.Point(400000, 5800000)]),
        shapely.force_3d(HOLED, 12.5),
        BOWTIE,
    ],
    ids=["multi", "collection", "with heights", "crossing itself"],
)
def test_kinds_of_shapes(tmp_path, content, caplog):
    caplog.set_level(logging.INFO, "special")
    expected = right(shapely.make_valid(content))
    paths = [geojson(tmp_path / "a.geojson", content)]
    paths.append(tmp_path / "bare.geojson")
    paths[1].write_text(json.dumps(json.loads(shapely.to_geojson(content)) | {"crs": EPSG}))
    paths.append(tmp_path / "feature.geojson")
    feature = {
        "type": "Feature",
        "properties": None,
        "geometry": json.loads(shapely.to_geojson(content)),
    }
    paths[2].write_text("\ufeff" + json.dumps(feature | {"crs": EPSG}), encoding="utf-8")
    paths.append(vector(tmp_path / "a.gpkg", content, kind="Unknown"))
    for path in paths:
        np.testing.assert_array_equal(inside(path, UTM, GRID, SHAPE), expected)
        assert not any(p.has_z for p in read_polygons(path)[0])
    assert ("repaired" in caplog.text) == (content is BOWTIE)


def test_overlapping_polygons_do_not_cancel_out(tmp_path):
    path = geojson(tmp_path / "a.geojson", SQUARE, HOLED, HOLED, None)
    np.testing.assert_array_equal(inside(path, UTM, GRID, SHAPE), right(SQUARE))


def test_points_beside_polygons_are_left_out(tmp_path, caplog):
    path = geojson(tmp_path / "a.geojson", SQUARE, shapely.Point(401000, 5799000))
    np.testing.assert_array_equal(inside(path, UTM, GRID, SHAPE), right(SQUARE))
    assert "Point beside polygons left out" in caplog.text


def test_world_wide_polygon(tmp_path):
    """Most of it has no place in the scene's projection."""
    path = geojson(tmp_path / "a.geojson", shapely.box(-180, -90, 180, 90), crs=None)
    assert inside(path, UTM, GRID, SHAPE).all()


def test_layers_of_a_geopackage(tmp_path):
    path = vector(tmp_path / "a.gpkg", shapely.Point(1, 2), kind="Point", layer="trees")
    vector(path, SQUARE, layer="area", append=True)
    np.testing.assert_array_equal(inside(path, UTM, GRID, SHAPE), right(SQUARE))
    vector(path, HOLED, layer="clouds", append=True)
    with pytest.raises(UserError, match=r"several layers may hold polygons \(area, clouds\)"):
        read_polygons(path)


def test_parts_of_a_shapefile(tmp_path):
    path = vector(tmp_path / "a.shp", SQUARE)
    assert {p.suffix for p in polygon_files(path)} >= {".shp", ".shx", ".dbf", ".prj"}
    assert polygon_files(tmp_path / "a.gpkg") == [tmp_path / "a.gpkg"]
    for suffix in (".shx", ".prj"):
        part = path.with_suffix(suffix)
        part.rename(path.with_suffix(suffix.upper()))
        read_polygons(path)
        path.with_suffix(suffix.upper()).rename(tmp_path / "away")
        with pytest.raises(UserError, match=rf"a\{suffix}: no such file, but a shapefile needs it"):
            read_polygons(path)
        (tmp_path / "away").rename(part)


def test_scene_without_georeference(tmp_path):
    path = geojson(tmp_path / "a.geojson", SQUARE)
    with pytest.raises(UserError, match="no CRS; give the area as a raster mask"):
        inside(path, None, GRID, SHAPE)
    with pytest.raises(UserError, match="no transform; give the area"):
        inside(path, UTM, None, SHAPE)
    local = 'ENGCRS["map",EDATUM["here"],CS[Cartesian,2],AXIS["x",east],AXIS["y",north],LENGTHUNIT["metre",1]]'
    with pytest.raises(UserError, match="cannot be converted to the scene's CRS"):
        inside(path, local, GRID, SHAPE)


@pytest.mark.parametrize(
    "area",
    [
        shapely.box(500000, 5799200, 500100, 5799850),
        shapely.box(400001, 5799981, 400004, 5799984),
    ],
    ids=["elsewhere", "between the centres"],
)
def test_area_without_a_pixel(tmp_path, area):
    with pytest.raises(UserError) as error:
        inside(geojson(tmp_path / "a.geojson", area), UTM, GRID, SHAPE)
    text = str(error.value)
    assert "a.geojson: no pixel of the scene" in text
    assert (
        "the scene spans x 400000.0 to 401500.0, y 5798800.0 to 5800000.0 (longitude 13.5" in text
    )
    assert f"the polygons x {area.bounds[0]:.1f} to" in text
    assert "\n" not in text


def test_area_on_the_other_side_of_the_world(tmp_path):
    path = geojson(tmp_path / "a.geojson", shapely.box(-71, -40, -70, -39), crs=None)
    with pytest.raises(
        UserError, match=r"the polygons longitude -71\.00000 to -70\.00000, latitude -40"
    ):
        inside(path, UTM, GRID, SHAPE)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.geojson", b"", "no GeoJSON, GeoPackage or shapefile"),
        ("a.geojson", b'{"type": "FeatureCollection", "features": [', "no valid JSON"),
        ("a.geojson", b'{"type": "gdal_streamed_alg", "command_line": "gdal"}', "is no GeoJSON"),
        ("a.geojson", b'{"type": "Topology", "objects": {}}', "is no GeoJSON"),
        ("a.geojson", b'{"a": 1}', "is no GeoJSON"),
        ("a.geojson", b'{"type": "FeatureCollection", "features": null}', "a shape is not as GeoJSON has it"),
        ("a.geojson", b'{"type": "FeatureCollection", "features": []}', r"it holds no shapes"),
        ("a.geojson", b'{"type": "Polygon", "coordinates": [[[1, 2], [3, 4]]]}', "a shape is not as GeoJSON has it"),
        ("a.geojson", b'{"type": "Polygon", "coordinates": "x"}', "a shape is not as GeoJSON has it"),
        ("a.geojson", b'{"type": "LineString", "coordinates": [[1, 2], [3, 4]]}', "it holds LineString"),
        ("a.gpkg", b"<OGRVRTDataSource></OGRVRTDataSource>", "no GeoJSON, GeoPackage or shapefile"),
        ("a.gpkg", b"SQLite format 3\0" + b"\0" * 100, "SQLite file that is no GeoPackage"),
        ("a.gpkg", b"SQLite format 3\0" + b"\0" * 52 + b"GPKG" + b"\0" * 400, "cannot be read"),
        ("a.kml", b"<?xml version='1.0'?><kml></kml>", "no GeoJSON, GeoPackage or shapefile"),
    ],
)  # fmt: skip
def test_files_that_are_no_areas(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        read_polygons(tmp_path / name)
    assert "\n" not in str(error.value)


def test_cut_files(tmp_path):
    for path in (vector(tmp_path / "a.gpkg", HOLED), vector(tmp_path / "a.shp", HOLED)):
        content = path.read_bytes()
        path.write_bytes(content[: len(content) * 2 // 3])
        with pytest.raises(UserError):
            read_polygons(path)


@pytest.mark.parametrize(
    "crs",
    [
        {"type": "link", "properties": {"href": "http://example.com"}},
        {"type": "name", "properties": {"name": "mine"}},
    ],
)
def test_unknown_crs_of_geojson(tmp_path, crs):
    with pytest.raises(UserError, match="no CRS known here; save the file in EPSG:4326"):
        read_polygons(geojson(tmp_path / "a.geojson", SQUARE, crs=crs))


def test_no_crs_at_all(tmp_path):
    with pytest.raises(UserError, match="'crs' is null, no CRS known here"):
        read_polygons(geojson(tmp_path / "a.geojson", SQUARE, crs={}))
    with pytest.raises(UserError, match="are no longitude and latitude"):
        read_polygons(geojson(tmp_path / "a.geojson", SQUARE, crs=None))
    with pytest.raises(UserError, match="states no CRS; set it"):
        read_polygons(vector(tmp_path / "a.gpkg", SQUARE, crs=None))


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"a\.gpkg: no such file"):
        read_polygons(tmp_path / "a.gpkg")
