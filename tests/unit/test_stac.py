"""The STAC item of a run's files."""

import hashlib
import json
import re
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import rasterio
import shapely
from jsonschema import Draft202012Validator
from stac_schemas import core_errors, extension_errors
from stores import make_cube, make_prediction, make_rgb, one_hot

from special_steps.core.palette import class_colours
from special_steps.core.prediction import write_prediction
from special_steps.core.store import Grid, open_store
from special_steps.export import export
from special_steps.stac import KINDS, footprint, item, lineage, stac

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

UTM = rasterio.CRS.from_epsg(32633).to_wkt()
AFFINE = (30.0, 0.0, 369000.0, 0.0, -30.0, 5808000.0)
NAMES = ["water", "trees & shrubs", "Bäume", "***"]
NUMBER, TEXT = {"type": "number"}, {"type": "string", "minLength": 1}
STAMP = {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$"}
CLASS = {  # https://github.com/stac-extensions/classification, version 2.0.0
    "type": "object",
    "required": ["value", "name"],
    "properties": {
        "value": {"type": "integer"},
        "name": {"type": "string", "pattern": "^[0-9A-Za-z_-]+$"},
        "title": TEXT,
        "description": TEXT,
        "color_hint": {"type": "string", "pattern": "^[0-9A-F]{6}$"},
        "nodata": {"type": "boolean"},
        "percentage": {"type": "number", "minimum": 0, "maximum": 100},
    },
    "additionalProperties": False,
}
BAND = {
    "type": "object",
    "required": ["name"],
    "properties": {
        "name": TEXT,
        "eo:center_wavelength": {"type": "number", "exclusiveMinimum": 0},
        "eo:full_width_half_max": {"type": "number", "exclusiveMinimum": 0},
    },
    "additionalProperties": False,
}
ASSET = {
    "type": "object",
    "required": ["href", "type", "roles", "title"],
    "properties": {
        "href": {"type": "string", "minLength": 1, "pattern": "^\\.{1,2}/[^ ]+$"},
        "title": TEXT,
        "type": TEXT,
        "roles": {"type": "array", "items": TEXT, "minItems": 1},
        "data_type": {"enum": ["uint8", "float32"]},
        "nodata": {"anyOf": [NUMBER, {"enum": ["nan", "inf", "-inf"]}]},
        "bands": {"type": "array", "items": BAND, "minItems": 1},
        "file:size": {"type": "integer", "minimum": 0},
        "file:checksum": {"type": "string", "pattern": "^1220[0-9a-f]{64}$"},
        "raster:scale": NUMBER,
        "raster:offset": NUMBER,
        "classification:classes": {
            "type": "array", "items": CLASS, "minItems": 1, "uniqueItems": True
        },
    },
    "additionalProperties": False,
}  # fmt: skip
# The shape of an item of ours: STAC's fields and the extensions' that we write, with no other beside them
ITEM = {
    "type": "object",
    "required": ["type", "stac_version", "id", "geometry", "properties", "links", "assets"],
    "properties": {
        "type": {"const": "Feature"},
        "stac_version": {"const": "1.1.0"},
        "stac_extensions": {"type": "array", "items": TEXT, "uniqueItems": True},
        "id": TEXT,
        "geometry": {
            "anyOf": [
                {"type": "null"},
                {
                    "type": "object",
                    "required": ["type", "coordinates"],
                    "properties": {
                        "type": {"const": "Polygon"},
                        "coordinates": {
                            "type": "array",
                            "minItems": 1,
                            "items": {
                                "type": "array",
                                "minItems": 4,
                                "items": {
                                    "type": "array", "items": NUMBER, "minItems": 2, "maxItems": 2
                                },
                            },
                        },
                    },
                },
            ]
        },
        "bbox": {"type": "array", "items": NUMBER, "minItems": 4, "maxItems": 4},
        "links": {"type": "array"},
        "assets": {"type": "object", "additionalProperties": ASSET},
        "properties": {
            "type": "object",
            "required": ["datetime", "hsi:wavelength_min", "hsi:wavelength_max", "processing:software"],
            "properties": {
                "datetime": STAMP,
                "created": STAMP,
                "title": TEXT,
                "description": TEXT,
                "proj:code": {"type": ["string", "null"], "pattern": "^[A-Z]+:[0-9A-Z]+$"},
                "proj:wkt2": {"type": "string"},
                "proj:shape": {
                    "type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2
                },
                "proj:transform": {"type": "array", "items": NUMBER, "minItems": 6, "maxItems": 6},
                "hsi:wavelength_min": NUMBER,
                "hsi:wavelength_max": NUMBER,
                "processing:level": TEXT,
                "processing:lineage": TEXT,
                "processing:software": {"type": "object", "additionalProperties": TEXT},
            },
            "patternProperties": {"^special:": {}},
            "additionalProperties": False,
        },
    },
    "if": {"properties": {"geometry": {"type": "object"}}},
    "then": {"required": ["bbox"]},
    "else": {"properties": {"bbox": False}},
    "additionalProperties": False,
}  # fmt: skip


def check(found):
    json.dumps(found, allow_nan=False)
    errors = Draft202012Validator(ITEM).iter_errors(found)
    assert not [f"{list(e.absolute_path)}: {e.message}" for e in errors]
    prefixes = set(re.findall(r'"([a-z]+):[a-z_]+":', json.dumps(found))) - {"special"}
    stated = {re.search(r"\.io/(\w+)/v", url)[1] for url in found["stac_extensions"]}
    named = {"projection": "proj"}
    assert {named.get(one, one) for one in stated} == prefixes
    assert extension_errors(found) == []


def made(grid=Grid(UTM, AFFINE), shape=(40, 60), **changes):  # noqa: B008
    told = {
        "identifier": "harbour-hsi",
        "files": {name: {"size": 10, "sha256": "ab" * 32} for name in KINDS},
        "grid": grid,
        "shape": shape,
        "class_names": NAMES,
        "probabilities": NAMES,
        "colours": class_colours(NAMES),
        "shares": [0.5, 0.25, 0.25, 0],
        "scene": {"href": "../cube.zarr", "wavelengths": [410.5, 700, 2450], "fwhm": [8, 9, 10]},
        "provenance": [{"step": "ingest", "versions": {"numpy": "2.0"}}],
        "prompts": {"classes": {"water": []}, "clip": None},
        "created": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    }
    return item(**told | changes)


def test_unknown_is_a_value_of_the_map_and_no_band_of_probabilities():
    names = [*NAMES, "unknown"]
    found = made(class_names=names, colours=class_colours(names, unknown=True), shares=[0.2] * 5)
    check(found)
    classes = found["assets"]["map"]["classification:classes"]
    assert (classes[-1]["value"], classes[-1]["name"], classes[-1]["color_hint"]) == (
        5,
        "unknown",
        "BDBDBD",
    )
    assert [band["name"] for band in found["assets"]["probabilities"]["bands"]] == NAMES


def test_the_shape():
    found = made()
    check(found)
    properties = found["properties"]
    assert properties["datetime"] == "2026-01-02T03:04:05Z"
    assert properties["proj:code"] == "EPSG:32633"
    assert properties["proj:transform"] == list(AFFINE)
    assert (properties["hsi:wavelength_min"], properties["hsi:wavelength_max"]) == (0.4105, 2.45)
    assert [b["eo:full_width_half_max"] for b in found["assets"]["scene"]["bands"]] == [0.008, 0.009, 0.01]  # fmt: skip
    assert properties["processing:software"]["numpy"] == "2.0"


@pytest.fixture
def pystac():
    return pytest.importorskip(
        "pystac", reason="pystac is not installed: pip install --no-deps -r envs/oracle.txt"
    )


@pytest.mark.parametrize("grid", [Grid(UTM, AFFINE), Grid()])
def test_stac_s_own_schema(pystac, grid):
    found = made(grid)
    assert core_errors(found) == []
    read = pystac.Item.from_dict(found)
    assert read.id == "harbour-hsi" and read.datetime.year == 2026
    assert read.assets["map"].href == "./map.tif" and read.bbox == found.get("bbox")


def test_the_schemas_see_mistakes(pystac):
    found = made()
    found["assets"]["map"]["classification:classes"][1]["color_hint"] = "#0000ff"
    found["properties"]["proj:shape"] = [40.5, 60]
    found["assets"]["map"]["file:checksum"] = "SHA"
    found["properties"]["processing:software"] = "SPECIAL"
    told = " ".join(extension_errors(found))
    assert all(word in told for word in ("#0000ff", "40.5", "SHA", "'SPECIAL'"))
    del found["bbox"]
    assert any("bbox" in text for text in core_errors(found))


def test_the_classes():
    classes = made()["assets"]["map"]["classification:classes"]
    assert [c["value"] for c in classes] == [0, 1, 2, 3, 4]
    assert [c["title"] for c in classes] == ["no data", *NAMES]
    assert [c["name"] for c in classes] == ["no-data", "water", "trees-shrubs", "B-ume", "class-4"]
    assert classes[0]["nodata"] is True
    assert [c["color_hint"] for c in classes[1:]] == [c[1:].upper() for c in class_colours(NAMES)]
    assert [c["percentage"] for c in classes[1:]] == [50, 25, 25, 0]


@pytest.mark.parametrize(
    "grid",
    [
        Grid(),
        Grid(UTM),
        Grid(None, AFFINE),
        Grid('LOCAL_CS["site grid",UNIT["metre",1]]', AFFINE),
    ],
)
def test_without_a_place_on_the_ground_there_is_no_footprint(grid):
    found = made(grid)
    check(found)
    assert found["geometry"] is None


def test_only_files_that_are_there():
    found = made(files={"map.tif": {"size": 1, "sha256": "00" * 32}})
    assert set(found["assets"]) == {"map", "scene"}


def test_the_footprint():
    ring = footprint(Grid(UTM, AFFINE), (40, 60))
    shape = shapely.Polygon(ring)
    assert ring[0] == ring[-1] and shapely.is_ccw(shape.exterior) and shape.is_valid
    back = rasterio.warp.transform("EPSG:4326", UTM, *np.array(ring).T)
    assert (min(back[0]), max(back[1])) == pytest.approx((369000, 5808000), abs=0.05)
    assert (max(back[0]), min(back[1])) == pytest.approx((370800, 5806800), abs=0.05)


def test_files_digests_and_lineage(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    labels = np.random.default_rng(0).integers(1, 3, (20, 30))
    folder = Path("results/harbour/hsi")
    cube = make_cube(Path("results/harbour/cube.zarr"), np.ones((3, 20, 30)), [400, 500, 600])
    first = make_prediction(
        folder / "pseudo.zarr", one_hot(labels, 2), NAMES[:2], crs=UTM, transform=AFFINE
    )
    weights = tmp_path / "my.safetensors"
    weights.write_bytes(b"weights")
    last = folder / "consensus.zarr"
    write_prediction(
        last,
        one_hot(labels, 2),
        labels == 0,
        step="consensus",
        settings={"from": str(tmp_path / "secret" / "a.csv"), "n": [1, {"b": None}]},
        inputs=[first, weights],
        class_names=NAMES[:2],
        grid=Grid(UTM, AFFINE),
    )
    export(
        prediction=last,
        rgb=make_rgb(Path("rgb.zarr"), labels == 0),
        class_map=folder / "map.tif",
        confidence_map=folder / "confidence.tif",
        probability_map=folder / "probabilities.tif",
        style=folder / "map.qml",
        picture=folder / "map.png",
        colours={},
        networks=None,
        reject=None,
        north_up=None,
    )
    files = [folder / name for name in ("map.tif", "confidence.tif", "map.png")]
    stac(
        files=files,
        prediction=last,
        cube=cube,
        identifier="harbour-hsi",
        colours={"water": "#010203"},
        prompts={
            "classes": {"water": ["sea"]},
            "clip": {"model": "bundled", "weights": str(weights), "templates": None},
        },
        out=folder / "stac-item.json",
    )
    text = (folder / "stac-item.json").read_text(encoding="utf-8")
    assert str(tmp_path) not in text
    found = json.loads(text)
    check(found)
    for path, key in zip(files, ("map", "confidence", "overview"), strict=True):
        asset = found["assets"][key]
        assert (folder / asset["href"]).is_file()
        assert asset["file:checksum"] == "1220" + hashlib.sha256(path.read_bytes()).hexdigest()
        assert asset["file:size"] == path.stat().st_size
    assert (folder / found["assets"]["scene"]["href"]).is_dir()
    assert found["assets"]["map"]["classification:classes"][1]["color_hint"] == "010203"
    told = found["properties"]["special:provenance"]
    assert [one["step"] for one in told] == ["test", "consensus"]
    assert told[0]["digest"] == open_store(first).attrs["digest"]
    assert told[1]["settings"] == {"from": "a.csv", "n": [1, {"b": None}]}
    assert told[1]["inputs"] == {
        "results/harbour/hsi/pseudo.zarr": told[0]["digest"],
        "my.safetensors": hashlib.sha256(b"weights").hexdigest(),
    }
    prompts = found["properties"]["special:prompts"]
    assert prompts["clip"]["sha256"] == {"my.safetensors": hashlib.sha256(b"weights").hexdigest()}
    assert lineage(last) == told
