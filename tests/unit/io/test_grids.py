"""Layers on the scene's grid: the same grid however it is written, every other one told or brought to it."""

import logging
from pathlib import Path

import numpy as np
import pytest
from rasterio import Affine
from rasterio.crs import CRS
from rasterio.warp import transform

from special_steps.core.errors import UserError
from special_steps.core.store import UNKNOWN, Grid
from special_steps.io.grids import as_source, on_scene_grid
from special_steps.io.record import Source

VALUES = np.arange(1, 2 * 5 * 6 + 1, dtype=np.uint8).reshape(2, 5, 6)
UTM = CRS.from_epsg(32633).to_wkt(version="WKT2_2019")
SCENE = Grid(UTM, (10.0, 0.0, 400000.0, 0.0, -10.0, 5800000.0))


def wkt(epsg: int, version: str = "WKT2_2019") -> str:
    return CRS.from_epsg(epsg).to_wkt(version=version)


def source(grid: Grid, values: np.ndarray = VALUES, masked: np.ndarray | None = None) -> Source:
    return Source(
        [Path("gt.tif")],
        values.shape,
        lambda rows, columns: values[:, rows, columns],
        masked=None if masked is None else lambda rows, columns: masked[rows, columns],
        crs=grid.crs,
        transform=grid.transform,
    )


def read(grid: Grid, values: np.ndarray = VALUES, scene: Grid = SCENE, size=(5, 6), **options):
    align, masked = options.get("align", False), options.get("masked")
    return on_scene_grid(
        source(grid, values, masked), scene, size, align=align, what="ground truth"
    )


def moved(x: float = 0, y: float = 0, width: float = 10, height: float = -10) -> Grid:
    return Grid(UTM, (width, 0, 400000 + x, 0, height, 5800000 + y))


def turned(degrees: float) -> Grid:
    return Grid(UTM, tuple(Affine(*SCENE.transform) @ Affine.rotation(degrees))[:6])


# --- the same grid --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "grid",
    [
        SCENE,
        moved(0.4, -0.4),  # coordinates that were rounded
        Grid(wkt(32633, "WKT1_GDAL"), SCENE.transform),
        Grid(wkt(32633, "WKT1_ESRI"), SCENE.transform),
        Grid(wkt(25833), SCENE.transform),  # ETRS89
        Grid(None, SCENE.transform),
    ],
)
@pytest.mark.parametrize("align", [False, True])
def test_the_same_grid_however_it_is_written(grid, align, caplog):
    layers = read(grid, align=align)
    np.testing.assert_array_equal(layers.values, VALUES)
    assert not layers.outside.any() and not layers.masked.any()
    assert not caplog.records


def test_a_rotated_grid_is_the_same_as_itself():
    layers = read(turned(30), scene=turned(30))
    np.testing.assert_array_equal(layers.values, VALUES)


def test_longitudes_may_count_on_beyond_180():
    scene = Grid(wkt(4326), (0.01, 0, -170.0, 0, -0.01, 10.0))
    layers = read(scene._replace(transform=(0.01, 0, 190.0, 0, -0.01, 10.0)), scene=scene)
    np.testing.assert_array_equal(layers.values, VALUES)


def test_the_files_mask_comes_along():
    masked = VALUES[0] % 2 == 0
    np.testing.assert_array_equal(read(SCENE, masked=masked).masked, masked)
    layers = read(moved(10), masked=masked, align=True)
    np.testing.assert_array_equal(layers.masked[:, 1:], masked[:, :-1])


# --- positions that cannot be checked -------------------------------------------------------------

ARBITRARY = 'ENGCRS["Arbitrary",EDATUM["x"],CS[Cartesian,2],AXIS["(E)",east],AXIS["(N)",north],LENGTHUNIT["m",1]]'


@pytest.mark.parametrize(
    ("grid", "scene", "words"),
    [
        (UNKNOWN, SCENE, "the file has no georeference"),
        (SCENE, UNKNOWN, "the scene has no georeference"),
        (Grid(None, (1.0, 0, 0, 0, -1.0, 0)), SCENE, "the file has no georeference"),
        (Grid(ARBITRARY, (1.0, 0, 0, 0, -1.0, 0)), SCENE, "the file has no georeference"),
        (Grid(None, (2.0, 0, 10.0, 0, -2.0, 10.0)), SCENE, "the file does not state the CRS"),
        (SCENE, Grid(None, (2.0, 0, 10.0, 0, -2.0, 10.0)), "the scene does not state the CRS"),
        (Grid("broken", (2.0, 0, 10.0, 0, -2.0, 10.0)), SCENE, "the file does not state the CRS"),
        (Grid(UTM, (0.0, 0, 10.0, 0, 0.0, 10.0)), SCENE, "the file has no georeference"),
    ],
)
def test_a_position_that_cannot_be_checked_is_told(grid, scene, words, caplog):
    layers = read(grid, scene=scene)
    np.testing.assert_array_equal(layers.values, VALUES)
    (told,) = caplog.messages
    assert told.startswith("gt.tif: the position could not be checked") and words in told
    with pytest.raises(
        UserError, match=rf"cannot be aligned.*: {words}.*ground_truth\.align: false"
    ):
        read(grid, scene=scene, align=True)


def test_neither_has_a_georeference(caplog):
    np.testing.assert_array_equal(read(UNKNOWN, scene=UNKNOWN).values, VALUES)
    assert not caplog.records
    with pytest.raises(UserError, match=r"has 5 x 6 pixels .height x width., the scene has 6 x 5"):
        read(UNKNOWN, scene=UNKNOWN, size=(6, 5))
    with pytest.raises(UserError, match=r"has 5 x 6 pixels .height x width., the scene has 6 x 5"):
        read(UNKNOWN, size=(6, 5))


# --- other grids are told -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("grid", "words"),
    [
        (moved(30), ["30 m east", "(3 pixels in x)"]),
        (moved(-30, 20), ["30 m west and 20 m north", "(3 pixels in x, 2 pixels in y)"]),
        (moved(5, -5), ["5 m east and 5 m south", "0.5 pixels in x, 0.5 pixels in y", "centres"]),
        (moved(0, 5), ["5 m north", "(0.5 pixels in y)"]),
        (moved(2), ["2 m east", "(0.2 pixels in x)"]),
        (moved(0, -50, height=10), ["upside down", "50 m (5 pixels)"]),
        (moved(60, width=-10), ["mirrored"]),
        (moved(width=5, height=-5), ["0.5 x 0.5 times as large", "ground_truth.align: true"]),
        (moved(width=20, height=-20), ["2 x 2 times as large"]),
        (turned(10), ["turned by 10 degrees"]),
        (Grid(wkt(32632), SCENE.transform), ["'WGS 84 / UTM zone 32N'", "'WGS 84 / UTM zone 33N'"]),
        (Grid(wkt(4326), (0.0001, 0, 13.5, 0, -0.0001, 52.3)), ["'WGS 84'"]),
        (Grid(wkt(23033), SCENE.transform), ["'ED50 / UTM zone 33N'", "west"]),
        (Grid(None, moved(30).transform), ["30 m east", "no CRS"]),
        (Grid(wkt(32733), (10.0, 0, 1e30, 0, -10.0, 5.8e6)), ["does not reach"]),
    ],
)  # fmt: skip
def test_another_grid_is_refused_with_the_difference(grid, words):
    with pytest.raises(UserError) as caught:
        read(grid)
    for word in ("gt.tif: ", *words, "ground_truth.align: true"):
        assert word in str(caught.value)


def test_units_are_those_of_the_scene():
    scene = Grid(wkt(4326), (0.001, 0, 13.0, 0, -0.001, 52.0))
    with pytest.raises(UserError, match=r"0\.003 degrees east of the scene .3 pixels in x"):
        read(scene._replace(transform=(0.001, 0, 13.003, 0, -0.001, 52.0)), scene=scene)
    feet = Grid(wkt(2263), SCENE.transform)
    with pytest.raises(UserError, match="30 US survey foot east"):
        read(Grid(wkt(2263), moved(30).transform), scene=feet)
    with pytest.raises(UserError, match="30 units east"):
        read(Grid(None, moved(30).transform), scene=Grid(None, SCENE.transform))


def test_another_size_on_the_same_grid_is_refused_with_both():
    with pytest.raises(UserError, match=r"has 5 x 6 pixels, the scene has 4 x 6.*align: true"):
        read(SCENE, size=(4, 6))
    with pytest.raises(
        UserError, match=r"lies 10 m east.*and has 5 x 6 pixels, the scene has 4 x 4"
    ):
        read(moved(10), size=(4, 4))


# --- aligned --------------------------------------------------------------------------------------


def test_shifted_layers_are_brought_to_the_scene(caplog):
    with caplog.at_level(logging.INFO, "special"):
        layers = read(moved(30, -10), align=True)
    np.testing.assert_array_equal(layers.values[:, 1:, 3:], VALUES[:, :4, :3])
    assert layers.outside[0].all() and layers.outside[:, :3].all()
    assert not layers.outside[1:, 3:].any() and not layers.values[:, layers.outside].any()
    assert "covers 40.0 % of the scene" in caplog.text


def test_layers_as_a_source_of_the_scenes_grid():
    given = source(moved(30, -10))
    found = as_source(given, on_scene_grid(given, SCENE, (5, 6), align=True, what="mask"))
    assert found.shape == VALUES.shape and found.masked is not None
    window = slice(1, 3), slice(2, 5)
    np.testing.assert_array_equal(found.read(*window)[:, :, 1:], VALUES[:, 0:2, 0:2])
    np.testing.assert_array_equal(found.masked(*window), [[True, False, False]] * 2)
    assert (
        as_source(
            given, on_scene_grid(source(SCENE), SCENE, (5, 6), align=True, what="mask")
        ).masked
        is None
    )


def test_less_than_half_a_pixel_is_the_nearest_pixel():
    np.testing.assert_array_equal(read(moved(4, 4), align=True).values, VALUES)


@pytest.mark.parametrize(
    ("grid", "values"),
    [
        (moved(0, -50, height=10), VALUES[:, ::-1]),
        (moved(60, width=-10), VALUES[:, :, ::-1]),
        (Grid(UTM, (0, 10.0, 400000, -10.0, 0, 5800000)), VALUES.transpose(0, 2, 1)),
        (moved(width=5, height=-5), VALUES.repeat(2, 1).repeat(2, 2)),
        (moved(width=10 / 3, height=-10 / 3), VALUES.repeat(3, 1).repeat(3, 2)),
        (moved(-20, 10), np.pad(VALUES, ((0, 0), (1, 4), (2, 3)))),
    ],
)
def test_other_orientation_resolution_and_size(grid, values):
    layers = read(grid, np.ascontiguousarray(values), align=True)
    np.testing.assert_array_equal(layers.values, VALUES)
    assert not layers.outside.any()


def test_coarser_layers():
    values = np.arange(1, 10, dtype=np.int16).reshape(1, 3, 3)
    layers = read(moved(width=20, height=-20), values, align=True)
    np.testing.assert_array_equal(layers.values, values.repeat(2, 1).repeat(2, 2)[:, :5])


def test_a_rotated_grid():
    """Pixels of the scene that a turned file, made of the scene's own values, covers have them again."""
    grid = turned(30)
    fine = Affine(*grid.transform) @ Affine.translation(-50, -50) @ Affine.scale(0.1)
    y, x = np.mgrid[0:1500, 0:1500] + 0.5
    column, row = np.floor(np.array(~Affine(*SCENE.transform) @ fine @ (x, y))).astype(int)
    inside = (column >= 0) & (column < 6) & (row >= 0) & (row < 5)
    values = np.zeros((1, 1500, 1500), np.uint8)
    values[0, inside] = VALUES[0, row[inside], column[inside]]
    layers = read(Grid(UTM, tuple(fine)[:6]), values, align=True)
    np.testing.assert_array_equal(layers.values, VALUES[:1])


@pytest.mark.parametrize("epsg", [4326, 32632, 3857, 3035])
def test_another_crs(epsg):
    """A fine raster in another CRS, each pixel with the value of the scene's pixel that it lies in."""
    x, y = Affine(*SCENE.transform) @ np.array([[0, 6, 0, 6], [0, 0, 5, 5]], float)
    xs, ys = transform(CRS.from_wkt(UTM), CRS.from_epsg(epsg), x, y)
    west, north, east, south = min(xs), max(ys), max(xs), min(ys)
    count = 400
    fine = Affine((east - west) / count, 0, west, 0, (south - north) / count, north)
    row, column = np.mgrid[0:count, 0:count] + 0.5
    there = transform(
        CRS.from_epsg(epsg), CRS.from_wkt(UTM), *(v.ravel() for v in fine @ (column, row))
    )
    at = np.floor(np.array(~Affine(*SCENE.transform) @ np.array(there))).astype(int)
    inside = (at[0] >= 0) & (at[0] < 6) & (at[1] >= 0) & (at[1] < 5)
    values = np.zeros((1, count * count), np.uint8)
    values[0, inside] = VALUES[0, at[1][inside], at[0][inside]]
    layers = read(Grid(wkt(epsg), tuple(fine)[:6]), values.reshape(1, count, count), align=True)
    np.testing.assert_array_equal(layers.values, VALUES[:1])


def test_layers_of_another_place_are_refused_also_when_aligned():
    with pytest.raises(UserError, match=r"covers no pixel of the scene.*400100.*400000"):
        read(moved(100), align=True)
    with pytest.raises(UserError, match="covers no pixel"):
        read(Grid(wkt(4326), (0.0001, 0, -70.0, 0, -0.0001, -30.0)), align=True)


def test_only_the_part_of_a_large_file_is_read_that_the_scene_needs():
    asked = []

    def window(rows: slice, columns: slice) -> np.ndarray:
        asked.append((rows.stop - rows.start, columns.stop - columns.start))
        return np.ones((1, rows.stop - rows.start, columns.stop - columns.start), np.uint8)

    large = Source(
        [Path("gt.tif")],
        (1, 10**6, 10**6),
        window,
        crs=UTM,
        transform=moved(-50000, 50000).transform,
    )
    layers = on_scene_grid(large, SCENE, (100, 70), align=True, what="ground truth")
    assert layers.values.all() and max(asked) <= (32, 70)
