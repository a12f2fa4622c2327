"""Maps as cloud-optimised GeoTIFFs: their layout, told from their bytes."""

import struct

import numpy as np
import pytest
import rasterio

from special_steps.core.store import Grid
from special_steps.io.geotiff import map_grid, moved, strips_of, write_raster

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

GRID = Grid(rasterio.CRS.from_epsg(32633).to_wkt(), (30.0, 0.0, 369000.0, 0.0, -30.0, 5808000.0))
SIZES = {3: 2, 4: 4, 16: 8}  # bytes of TIFF's types that offsets have
OFFSETS = 324  # TileOffsets


def directories(path):
    """Of each image in a classic TIFF: where its directory is, and its tags (type, count, values or their place)."""
    data = path.read_bytes()
    assert data[:4] == b"II*\0"
    found, at = [], struct.unpack_from("<I", data, 4)[0]
    while at:
        (count,) = struct.unpack_from("<H", data, at)
        tags = {}
        for i in range(count):
            tag, kind, number, value = struct.unpack_from("<HHII", data, at + 2 + 12 * i)
            tags[tag] = (kind, number, value)
        found.append((at, tags))
        (at,) = struct.unpack_from("<I", data, at + 2 + 12 * count)
    return data, found


def tiles(data, tags):
    kind, number, value = tags[OFFSETS]
    if number == 1:
        return [value]
    return list(struct.unpack_from(f"<{number}{'I' if SIZES[kind] == 4 else 'H'}", data, value))


def check_layout(path):
    """What makes a GeoTIFF cloud-optimised: tiles; directories first, the largest image's before its overviews';
    pixels of the smallest overview before those of larger ones, those of the image last.
    """
    data, images = directories(path)
    places = [at for at, _ in images]
    assert places == sorted(places)
    widths = [tags[256][2] & 0xFFFF for _, tags in images]
    assert widths == sorted(widths, reverse=True)
    starts = [[offset for offset in tiles(data, tags) if offset] for _, tags in images]
    assert all(322 in tags for _, tags in images)  # TileWidth
    assert max(places) < min(min(s) for s in starts)
    for smaller, larger in zip(starts[:0:-1], starts[-2::-1], strict=True):
        assert max(smaller) < min(larger)
    assert b"LAYOUT=IFDS_BEFORE_DATA" in data[:1000]
    return len(images) - 1


def written(path, data, **options):
    told = {"nodata": 0, "resampling": "mode"} | options
    write_raster(path, strips_of(data), data.shape, str(data.dtype), ["what"], GRID, **told)
    return path


@pytest.mark.parametrize(("size", "overviews"), [((40, 30), 0), ((257, 300), 1), ((1100, 700), 3)])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_the_layout(tmp_path, size, overviews, dtype):
    data = np.random.default_rng(0).integers(0, 5, size).astype(dtype)
    path = written(tmp_path / "a.tif", data)
    assert check_layout(path) == overviews
    assert [p.name for p in tmp_path.iterdir()] == ["a.tif"]
    with rasterio.open(path) as raster:
        assert raster.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert len(raster.overviews(1)) == overviews
        np.testing.assert_array_equal(raster.read(1), data)
        assert (raster.crs.to_epsg(), tuple(raster.transform)[:6]) == (32633, GRID.transform)


def test_the_check_refuses_a_plain_geotiff(tmp_path):
    data = np.ones((1, 600, 600), "u1")
    profile = {"driver": "GTiff", "height": 600, "width": 600, "count": 1, "dtype": "uint8"}
    with rasterio.open(
        tmp_path / "a.tif", "w", tiled=True, blockxsize=256, blockysize=256, **profile
    ) as raster:
        raster.write(data)
        raster.build_overviews([2, 4])
    with pytest.raises(AssertionError):
        check_layout(tmp_path / "a.tif")


def overview(path):
    with rasterio.open(path, overview_level=0) as raster:
        return raster.read(1)


def test_overviews_of_classes_hold_classes_the_most_frequent(tmp_path):
    """Means would make class 2 of 1 and 3."""
    data = np.where(np.indices((600, 600)).sum(0) % 4 == 0, 3, 1).astype("u1")
    found = overview(written(tmp_path / "a.tif", data, colours={1: (1, 2, 3, 255)}))
    assert set(np.unique(found)) == {1}
    data[:] = np.random.default_rng(0).choice([1, 7], (600, 600))
    assert set(np.unique(overview(written(tmp_path / "a.tif", data)))) == {1, 7}


def test_overviews_of_numbers_hold_means_of_what_is_there(tmp_path):
    data = np.zeros((600, 600), "f4")
    data[::2] = 1
    data[:100] = np.nan
    path = written(tmp_path / "a.tif", data, nodata=float("nan"), resampling="average")
    found = overview(path)
    assert np.isnan(found[:50]).all()
    np.testing.assert_allclose(found[50:], 0.5)


def test_bands_names_scale_and_tags(tmp_path):
    data = np.random.default_rng(0).integers(0, 250, (3, 300, 20)).astype("u1")
    strips = [data[:, :256], data[:, 256:]]
    write_raster(
        tmp_path / "a.tif",
        strips,
        (300, 20),
        "uint8",
        ["a", "bäume", "c"],
        Grid(),
        nodata=255,
        resampling="average",
        scale=0.004,
        tags={"CLASS_1": "Flüsse & <Seen>"},
    )
    check_layout(tmp_path / "a.tif")
    with rasterio.open(tmp_path / "a.tif") as raster:
        np.testing.assert_array_equal(raster.read(), data)
        assert raster.descriptions == ("a", "bäume", "c")
        assert raster.scales == (0.004,) * 3
        assert raster.tags()["CLASS_1"] == "Flüsse & <Seen>"


def test_strips_that_do_not_fill_the_map_leave_nothing(tmp_path):
    with pytest.raises(ValueError, match="the strips have 20 rows, the map 30"):
        write_raster(
            tmp_path / "a.tif",
            [np.zeros((1, 20, 10), "u1")],
            (30, 10),
            "uint8",
            ["a"],
            GRID,
            nodata=0,
            resampling="mode",
        )
    assert not list(tmp_path.iterdir())


def test_what_is_moved_where_nothing_is_turned():
    values = np.arange(6, dtype="u1").reshape(2, 3)
    for north_up in (None, True, False):
        grid, pixel = map_grid(Grid(), (2, 3), north_up)
        assert grid == Grid() and pixel is None
        assert moved(values, pixel, 0) is values
    _, pixel = map_grid(GRID, (2, 3), None)
    assert pixel is None
    turned = Grid(None, (0.0, 1.0, 0.0, 1.0, 0.0, 0.0))  # rows and columns swapped
    grid, pixel = map_grid(turned, (2, 3), None)
    np.testing.assert_array_equal(moved(values, pixel, 0), values.T[::-1])
    assert map_grid(turned, (2, 3), False) == (turned, None)
