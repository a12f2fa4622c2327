"""AVIRIS deliveries, which are ENVI: what GDAL, and what the reader, make of a rotated `map info`."""

import numpy as np
import pytest
import rasterio
from aviris_files import NM, WIDTHS, rotated, write_classic, write_ng
from rasterio.crs import CRS

from special_steps.io.source import open_source

AS_GDAL = [{"degrees": d} for d in (0, 42, 90, -86, 179.5, 270)] + [
    {"degrees": 0, "reference": (3, 4), "size": (4, 6)}
]
# Where GDAL (3.10) departs from ENVI's definition, in its ENVI driver
NOT_AS_GDAL = [
    {"degrees": 180},  # it takes the image as one whose rows run north, and columns east still
    {"reference": (3, 4)},  # it does not turn the way from the reference pixel to the corner
    {"size": (4, 6)},  # it takes the pixel's width for its height in the turned axes
]


def test_the_formula():
    """At 90 degrees columns run north and rows east; the reference pixel stays where it is."""
    np.testing.assert_allclose(rotated(100, 200, 2, 3, 90), (0, 3, 100, 2, 0, 200), atol=1e-12)
    np.testing.assert_allclose(rotated(100, 200, 2, 3, 180), (-2, 0, 100, 0, 3, 200), atol=1e-12)
    a, b, c, d, e, f = rotated(100, 200, 2, 3, 37, (3, 4))
    np.testing.assert_allclose((a * 2 + b * 3 + c, d * 2 + e * 3 + f), (100, 200))


def test_the_rotation_that_ornl_daac_publishes():
    """ang20170714t213741: gdalinfo's numbers, whose place ORNL DAAC checked against a map."""
    right = (3.86435309248245, 3.479479153066063, 581226.666764)
    right += (3.479479153066063, -3.86435309248245, 7916192.56364)
    np.testing.assert_allclose(
        rotated(581226.666764, 7916192.56364, 5.2, 5.2, 42), right, rtol=1e-14
    )


@pytest.mark.parametrize("options", AS_GDAL)
def test_gdal_agrees(tmp_path, options):
    right = write_ng(tmp_path, **options)
    with rasterio.open(right.data) as raster:
        np.testing.assert_allclose(tuple(raster.transform)[:6], right.transform, atol=1e-6)
        assert raster.crs.to_epsg() == right.epsg


@pytest.mark.parametrize("options", NOT_AS_GDAL)
def test_gdal_does_not_agree(tmp_path, options):
    """When this fails, GDAL has changed, and what works around it can go."""
    right = write_ng(tmp_path, **options)
    with rasterio.open(right.data) as raster:
        assert not np.allclose(tuple(raster.transform)[:6], right.transform, rtol=0, atol=0.1)


@pytest.mark.parametrize("options", AS_GDAL + NOT_AS_GDAL)
@pytest.mark.parametrize("header", [False, True])
def test_ng_reflectance(tmp_path, options, header):
    right = write_ng(tmp_path, **options)
    source = open_source(right.header if header else right.data)
    np.testing.assert_allclose(source.transform, right.transform, rtol=0, atol=1e-6)
    assert CRS.from_wkt(source.crs).to_epsg() == right.epsg
    values = source.whole()
    np.testing.assert_array_equal(values, right.stored)
    np.testing.assert_array_equal(np.isin(values, source.nodata), np.isnan(right.values))
    window = source.read(slice(2, 6), slice(1, 4))
    np.testing.assert_array_equal(window, right.stored[:, 2:6, 1:4])
    np.testing.assert_allclose(source.wavelengths, NM)
    np.testing.assert_allclose(source.fwhm, WIDTHS)


def test_classic_radiance(tmp_path):
    right = write_classic(tmp_path)
    source = open_source(right.data)
    np.testing.assert_allclose(source.transform, right.transform, rtol=0, atol=1e-6)
    assert CRS.from_wkt(source.crs).to_epsg() == right.epsg
    np.testing.assert_array_equal(source.whole(), right.stored)
    np.testing.assert_allclose(source.wavelengths, NM)
