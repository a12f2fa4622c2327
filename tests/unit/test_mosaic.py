"""The mosaic of a campaign: values at the places of its scenes, legend, what is left out."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest
import rasterio
from class_maps import NAMES, write_map
from rasterio.transform import Affine

from special_steps.core.errors import UserError
from special_steps.core.palette import class_colours, rgb_of
from special_steps.mosaic import mosaic


def shifted(path, labels, east, north, **how):
    """A map whose corner lies so many pixels from the others'."""
    write_map(path, labels, **how)
    with rasterio.open(path, "r+") as raster:
        raster.transform = raster.transform @ Affine.translation(east, -north)
    return path


@pytest.fixture
def maps(tmp_path):
    """Two maps that overlap: the second lies 4 pixels east and 3 south, and has no data in a corner."""
    for name in "ab":
        (tmp_path / "results" / name).mkdir(parents=True)
    first = write_map(tmp_path / "results/a/map.tif", np.full((10, 8), 1))
    labels = np.full((10, 8), 2)
    labels[:2, :3] = 0
    return [first, shifted(tmp_path / "results/b/map.tif", labels, 4, -3)]


def joined(tmp_path, maps, **how):
    out = tmp_path / "results/mosaic/hsi.vrt"
    scenes = [path.parent.name for path in maps]
    mosaic(**{"scenes": scenes, "maps": maps, "colours": {}, "out": out} | how)
    return out


WANTED = np.zeros((13, 12))
WANTED[:10, :8] = 1
WANTED[3:, 4:] = 2
WANTED[3:5, 4:7] = 1  # no data of the later map lets the earlier one through


def test_values_lie_at_their_places(tmp_path, maps):
    out = joined(tmp_path, maps, colours={"water": "#010203"})
    with rasterio.open(out) as raster:
        np.testing.assert_array_equal(raster.read(1), WANTED)
        assert raster.crs.to_epsg() == 32633
        assert raster.nodata == 0
        assert raster.transform == Affine(10, 0, 300000, 0, -10, 5800000)
        colours = raster.colormap(1)
        assert [colours[i][:3] for i in (1, 2, 3)] == [
            rgb_of(c) for c in class_colours(NAMES, {"water": "#010203"})
        ]
        assert colours[0][3] == 0
        assert raster.tags()["CLASS_3"] == "bare soil"
        # at places of both scenes, as a GIS asks
        assert [int(v[0]) for v in raster.sample([(300005, 5799995), (300115, 5799875)])] == [1, 2]


def test_the_later_map_wins(tmp_path, maps):
    with rasterio.open(joined(tmp_path, maps[::-1])) as raster:
        found = raster.read(1)
    assert (found[:10, :8] == 1).all()
    assert (found[10:, 4:] == 2).all()


def test_the_folder_can_be_moved(tmp_path, maps):
    joined(tmp_path, maps)
    (tmp_path / "results").rename(tmp_path / "elsewhere")
    with rasterio.open(tmp_path / "elsewhere/mosaic/hsi.vrt") as raster:
        np.testing.assert_array_equal(raster.read(1), WANTED)


def test_the_legend_has_names(tmp_path, maps):
    """GDAL shows them as categories; checked with gdalinfo by hand, which not every machine has."""
    tree = ElementTree.parse(joined(tmp_path, maps))
    assert [one.text for one in tree.iter("Category")] == ["no data", *NAMES]


def test_unknown_pixels_are_what_they_are_on_the_maps(tmp_path, maps):
    """Grey, and told from a class of that name, as export writes them."""
    names = [*NAMES, "unknown"]
    for path in maps:
        write_map(path, np.full((10, 8), 4), names=names, unknown=True)
    with rasterio.open(joined(tmp_path, maps)) as raster:
        assert raster.tags()["UNKNOWN"] == "4" and (raster.read(1) == 4).any()
        grey = rgb_of(class_colours(names, {}, unknown=True)[-1])
        assert raster.colormap(1)[4][:3] == grey and len(set(grey)) == 1


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({"crs": "EPSG:32632"}, r"its CRS \(EPSG:32632\)"),
        ({"side": 5.0}, "its pixels are 5 x 5, not 10 x 10"),
        ({"crs": None}, "no georeference"),
    ],
)
def test_maps_on_other_grids_are_left_out_and_named(tmp_path, maps, caplog, how, reason):
    (tmp_path / "results/c").mkdir()
    other = write_map(tmp_path / "results/c/map.tif", np.full((10, 8), 3), **how)
    with rasterio.open(joined(tmp_path, [*maps, other])) as raster:
        np.testing.assert_array_equal(raster.read(1), WANTED)
    assert "c is not in it beside a" in caplog.text
    assert re.search(reason, caplog.text)


def test_rotated_maps_are_left_out(tmp_path, maps, caplog):
    with rasterio.open(maps[1], "r+") as raster:
        raster.transform = raster.transform @ Affine.rotation(30)
    joined(tmp_path, maps)
    assert "rotated; export: {north_up: null}" in caplog.text


def test_without_georeference_the_first_stands_alone(tmp_path, caplog):
    for name in "ab":
        (tmp_path / "results" / name).mkdir(parents=True)
    maps = [
        write_map(tmp_path / f"results/{n}/map.tif", np.full((4, 5), 1), crs=None) for n in "ab"
    ]
    with rasterio.open(joined(tmp_path, maps)) as raster:
        assert raster.shape == (4, 5)
    assert "b is not in it" in caplog.text


def test_other_classes_are_refused(tmp_path, maps):
    write_map(maps[1], np.full((10, 8), 2), names=NAMES[::-1])
    with pytest.raises(UserError, match=r"classes bare soil, trees, water, but .* has water"):
        joined(tmp_path, maps)
