"""Pixels that a scene's settings leave out: quality layers, a raster, an area."""

import json
from pathlib import Path

import numpy as np
import pytest
from rasters import write_tiff

from special_steps.core.errors import UserError
from special_steps.io.record import Source
from special_steps.io.scene_mask import scene_mask
from special_steps.io.source import open_source

SIZE = (20, 30)
LAYERS = {
    "cloud": np.add.outer(np.arange(20), np.arange(30)) < 8,
    "cirrus": np.add.outer(np.arange(20), -np.arange(30)) > 10,
    "haze": np.zeros(SIZE, bool),
}


@pytest.fixture
def scene(tmp_path) -> Source:
    """30 m pixels from (0, 0), EPSG:32633."""
    return open_source(write_tiff(tmp_path / "scene.tif", np.ones((3, *SIZE), "f4")))


def with_quality(scene: Source) -> Source:
    from dataclasses import replace

    return replace(
        scene, quality={n: lambda y, x, layer=layer: layer[y, x] for n, layer in LAYERS.items()}
    )


def found(scene, mask=None, mask_quality=None, area=None):
    return scene_mask(scene, mask=mask, mask_quality=mask_quality, area=area)


def raster(path: Path, layer, **options) -> dict:
    return {"path": str(write_tiff(path, layer[None], **options)), "values": None, "align": False}


def polygon(path: Path, west: float, north: float, east: float, south: float) -> Path:
    ring = [[west, north], [east, north], [east, south], [west, south], [west, north]]
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32633"}}
    shape = {
        "type": "Feature",
        "properties": {},
        "geometry": {"type": "Polygon", "coordinates": [ring]},
    }
    path.write_text(json.dumps({"type": "FeatureCollection", "crs": crs, "features": [shape]}))
    return path


def test_nothing_asked_leaves_nothing_out(scene):
    left_out, files = found(scene)
    assert left_out.shape == SIZE and not left_out.any() and files == []


def test_clouds_are_left_out_unless_told_otherwise_and_that_is_told(scene, caplog):
    cloudy = with_quality(scene)
    np.testing.assert_array_equal(found(cloudy)[0], LAYERS["cloud"])
    assert "6.0 % of the pixels are left out; mask_quality: [] keeps them" in caplog.text
    caplog.clear()
    assert not found(cloudy, mask_quality=[])[0].any()
    both = LAYERS["cloud"] | LAYERS["cirrus"]
    np.testing.assert_array_equal(found(cloudy, mask_quality=["cloud", "cirrus"])[0], both)
    assert "haze" not in caplog.text and not found(cloudy, mask_quality=["haze"])[0].any()
    assert not [r for r in caplog.records if r.levelname == "WARNING"]


def test_an_unknown_layer_lists_those_there(scene):
    with pytest.raises(
        UserError, match=r"no layer 'clouds'; the product has here: cloud, cirrus, haze"
    ):
        found(with_quality(scene), mask_quality=["clouds"])
    with pytest.raises(
        UserError, match=r"scene\.tif: .*no layer 'cloud'; the product has here: none"
    ):
        found(scene, mask_quality=["cloud"])


def test_a_mask_of_the_same_grid(scene, tmp_path):
    layer = np.random.default_rng(0).integers(0, 4, SIZE).astype("u1")
    mask = raster(tmp_path / "mask.tif", layer)
    left_out, files = found(scene, mask)
    np.testing.assert_array_equal(left_out, layer != 0)
    assert tmp_path / "mask.tif" in files
    np.testing.assert_array_equal(
        found(scene, mask | {"values": [1, 3]})[0], np.isin(layer, [1, 3])
    )


def test_a_mask_on_another_grid(scene, tmp_path):
    layer = np.zeros((10, 20), "u1")
    layer[2:5, 3:9] = 1
    mask = raster(tmp_path / "mask.tif", layer, x=300, y=-150)
    with pytest.raises(UserError, match=r"mask\.tif: .*Set mask\.align: true"):
        found(scene, mask)
    left_out = found(scene, mask | {"align": True})[0]
    right = np.zeros(SIZE, bool)
    right[7:10, 13:19] = True
    np.testing.assert_array_equal(left_out, right)  # and what it does not reach is kept
    left_out = found(scene, mask | {"align": True, "values": [0]})[0]
    inside = np.zeros(SIZE, bool)
    inside[5:15, 10:30] = True
    np.testing.assert_array_equal(left_out, inside & ~right)
    small = raster(tmp_path / "small.tif", layer, crs=None, transform=None)
    with pytest.raises(UserError, match=r"small\.tif: has 10 x 20 pixels .* the scene has 20 x 30"):
        found(scene, small)


def test_an_area(scene, tmp_path):
    area = polygon(tmp_path / "a.geojson", 90, -60, 600, -300)
    left_out, files = found(scene, area=area)
    right = np.ones(SIZE, bool)
    right[2:10, 3:20] = False
    np.testing.assert_array_equal(left_out, right)
    assert files == [area]


def test_all_reasons_together(scene, tmp_path):
    layer = np.zeros(SIZE, "u1")
    layer[4] = 1
    area = polygon(tmp_path / "a.geojson", 0, 0, 600, -600)
    left_out, files = found(
        with_quality(scene), raster(tmp_path / "m.tif", layer), ["cirrus"], area
    )
    right = LAYERS["cirrus"] | (layer > 0)
    right[:, 20:] = True
    np.testing.assert_array_equal(left_out, right)
    assert {f.name for f in files} == {"m.tif", "a.geojson"}


def test_nothing_is_left(scene, tmp_path):
    with pytest.raises(UserError, match=r"a\.geojson"):
        found(scene, area=polygon(tmp_path / "a.geojson", 9000, 9600, 9900, 9000))
    with pytest.raises(UserError, match=r"scene\.tif: .*leave out every pixel"):
        found(scene, raster(tmp_path / "m.tif", np.ones(SIZE, "u1")))


@pytest.mark.parametrize("name", ["none.tif", "none.geojson"])
def test_files_that_are_not_there(scene, tmp_path, name):
    path = str(tmp_path / name)
    options = (
        {"area": Path(path)}
        if "geojson" in name
        else {"mask": {"path": path, "values": None, "align": False}}
    )
    with pytest.raises(UserError, match=rf"{name}: no such file"):
        found(scene, **options)
