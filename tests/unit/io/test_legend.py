"""Legends of class maps, as GDAL and QGIS read them."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest
import rasterio
import rasterio.shutil

from special_steps.io.legend import attribute_table, choice_form, polygon_style, raster_style

NAMES = ["water", "trees & <shrubs>", 'bäume "alt"']
COLOURS = ["#0000ff", "#00ff00", "#a1b2c3"]


def test_gdal_reads_the_attribute_table(tmp_path):
    """Rasterio shows no such tables, but GDAL's VRT copies the names and the table that GDAL has read."""
    path = tmp_path / "a.tif"
    profile = {"driver": "GTiff", "height": 2, "width": 2, "count": 1, "dtype": "uint8"}
    with rasterio.open(
        path, "w", transform=rasterio.Affine(1, 0, 5, 0, -1, 5), **profile
    ) as raster:
        raster.write_colormap(1, {1: (9, 9, 9, 255)})
        raster.write(np.array([[[0, 1], [2, 3]]], "u1"))
    path.with_name("a.tif.aux.xml").write_text(attribute_table(NAMES, COLOURS), encoding="utf-8")
    with rasterio.open(path) as raster:
        assert raster.colormap(1) == {  # before the file's own, which has 256 entries
            0: (0, 0, 0, 0),
            1: (0, 0, 255, 255),
            2: (0, 255, 0, 255),
            3: (161, 178, 195, 255),
        }
        rasterio.shutil.copy(raster, tmp_path / "b.vrt", driver="VRT")
    read = ElementTree.parse(tmp_path / "b.vrt").getroot()
    assert [c.text for c in read.iter("Category")] == ["no data", *NAMES]
    (table,) = read.iter("GDALRasterAttributeTable")
    columns = [(f.findtext("Name"), f.findtext("Usage")) for f in table.iter("FieldDefn")]
    assert columns == [
        ("Value", "5"), ("Class", "2"), ("Red", "6"), ("Green", "7"), ("Blue", "8"), ("Alpha", "9")
    ]  # fmt: skip
    rows = [[f.text for f in row.iter("F")] for row in table.iter("Row")]
    assert rows == [
        ["0", "no data", "0", "0", "0", "0"],
        ["1", NAMES[0], "0", "0", "255", "255"],
        ["2", NAMES[1], "0", "255", "0", "255"],
        ["3", NAMES[2], "161", "178", "195", "255"],
    ]


def parsed(text):
    assert text.startswith("<!DOCTYPE qgis")
    return ElementTree.fromstring(text)


def test_the_style_of_a_map_has_the_classes_and_no_data():
    (renderer,) = parsed(raster_style(NAMES, COLOURS)).iter("rasterrenderer")
    assert renderer.get("type") == "paletted" and renderer.get("band") == "1"
    keys = ("value", "color", "alpha", "label")
    found = [tuple(e.get(key) for key in keys) for e in renderer.iter("paletteEntry")]
    assert found == [
        ("0", "#ffffff", "0", "no data"),
        *((str(i), c, "255", n) for i, (c, n) in enumerate(zip(COLOURS, NAMES, strict=True), 1)),
    ]


@pytest.mark.parametrize("name", NAMES)
def test_the_style_of_polygons(name):
    style = parsed(polygon_style(NAMES, COLOURS))
    (renderer,) = style.iter("renderer-v2")
    assert renderer.get("attr") == "class"
    (category,) = (c for c in renderer.iter("category") if c.get("value") == name)
    (symbol,) = (s for s in renderer.iter("symbol") if s.get("name") == category.get("symbol"))
    colour = next(p.get("v") for p in symbol.iter("prop") if p.get("k") == "color")
    red, green, blue, alpha = map(int, re.findall(r"\d+", colour))
    assert (f"#{red:02x}{green:02x}{blue:02x}", alpha) == (COLOURS[NAMES.index(name)], 255)


def test_the_form_offers_words_and_nothing():
    names = ["water", 'trees & "old" <x>']
    (field,) = ElementTree.fromstring(choice_form("reference", names)).iter("field")
    options = {o.get("name"): o.get("value") for o in field.iter("Option") if o.get("value")}
    assert options == {"": "{2839923C-8B7D-419E-B84B-CA2FE9B80EC7}"} | dict(
        zip(names, names, strict=True)
    )
