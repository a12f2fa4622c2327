"""Square metres of a pixel."""

import numpy as np
import pytest
from rasterio.crs import CRS

from special_steps.core.store import Grid
from special_steps.io.ground_area import pixel_areas


def areas(crs, transform, shape=(10, 20)):
    return pixel_areas(Grid(CRS.from_user_input(crs).to_wkt(), tuple(transform)), shape)


@pytest.mark.parametrize(
    "transform", [(30, 0, 369000, 0, -30, 5808000), (0, 30, 369000, 30, 0, 5808000)]
)
def test_in_metres_sides_are_multiplied(transform):
    np.testing.assert_array_equal(areas(32633, transform), np.full(10, 900.0))


def test_in_feet():
    found = areas(2263, (10, 0, 980000, 0, -10, 200000))  # New York Long Island, US survey feet
    np.testing.assert_allclose(found, 100 * (1200 / 3937) ** 2, rtol=1e-9)


def test_in_degrees_against_the_ellipsoid():
    """Closed form of a cell's area on WGS 84 (Snyder 1987, eqs. 3-12 and 14-21)."""
    a, e = 6378137.0, np.sqrt(0.00669437999014)
    step, top = 0.01, 60.0

    def q(latitude):
        s = np.sin(np.radians(latitude))
        log = np.log((1 - e * s) / (1 + e * s)) / (2 * e)
        return (1 - e**2) * (s / (1 - e**2 * s**2) - log)

    edges = top - step * np.arange(101)
    wanted = np.radians(step) * a**2 / 2 * (q(edges[:-1]) - q(edges[1:]))
    found = areas(4326, (step, 0, 13, 0, -step, top), (100, 30))
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    assert found[-1] > 1.02 * found[0]


def test_web_mercator_is_not_believed():
    y = 6378137 * np.log(np.tan(np.pi / 4 + np.radians(60) / 2))
    found = areas(3857, (10, 0, 1400000, 0, -10, y), (1, 4))
    assert found[0] == pytest.approx(100 * 0.25, rel=0.01)  # cos^2 of 60 degrees


def test_without_a_place_there_is_no_area():
    assert pixel_areas(Grid(), (3, 4)) is None
    assert pixel_areas(Grid(CRS.from_epsg(32633).to_wkt()), (3, 4)) is None
    assert pixel_areas(Grid(None, (1.0, 0, 0, 0, 1, 0)), (3, 4)) is None


def test_places_that_are_not_on_earth_have_none():
    grid = Grid('LOCAL_CS["site grid",UNIT["metre",1]]', (2.0, 0.0, 0.0, 0.0, -2.0, 0.0))
    assert pixel_areas(grid, (3, 4)) is None
    moon = CRS.from_string("+proj=longlat +a=1737400 +b=1737400 +no_defs").to_wkt()
    found = pixel_areas(Grid(moon, (0.1, 0, 0, 0, -0.1, 0)), (3, 4))
    assert found is None or np.isfinite(found).all()


def test_one_row():
    assert areas(4326, (0.01, 0, 13, 0, -0.01, 60), (1, 1)).shape == (1,)
