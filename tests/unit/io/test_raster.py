"""GeoTIFF: what tags say, copies that GDAL makes, and tiles of one grid."""

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from rasters import CUBE, whole, write_envi, write_tiff

from special_steps.core.errors import UserError
from special_steps.io.source import open_source


def test_geotiff_tags(tmp_path):
    tags = [
        {"wavelength": w, "wavelength_units": "Micrometers", "fwhm": "0.01", "bbl": b}
        for w, b in (("0.5", "1"), ("0.6", "0"), ("0.7", "1"))
    ]
    path = write_tiff(tmp_path / "a.tif", x=600, y=900, nodata=-60, tags=tags)
    with rasterio.open(path, "r+") as raster:
        raster.scales, raster.offsets = (0.01, 0.01, 0.1), (0, 0, 1)
    source = open_source(path)
    np.testing.assert_array_equal(whole(source), CUBE)
    np.testing.assert_allclose(source.wavelengths, [500, 600, 700])
    np.testing.assert_allclose(source.fwhm, [10, 10, 10])
    assert source.good_bands.tolist() == [True, False, True]
    assert source.nodata == -60
    np.testing.assert_allclose(source.scale, [100, 100, 10])
    np.testing.assert_allclose(source.offset, [0, 0, 1])
    assert source.transform == (30, 0, 600, 0, -30, 900)
    assert rasterio.crs.CRS.from_wkt(source.crs).to_epsg() == 32633


@pytest.mark.parametrize(("units", "digits"), [("Nanometers", 0), ("Micrometers", 3)])
def test_gdals_copy_of_an_envi_scene_keeps_the_decimals_of_wavelengths(tmp_path, units, digits):
    """GDAL writes them twice: as they are, and as micrometres rounded to three decimals."""
    nm, fwhm = np.array([426.820007, 500.123456, 600.987654]), np.array([5.654321, 6, 6.5])
    header = write_envi(
        tmp_path,
        **{
            "wavelength units": units,
            "wavelength": "{" + ", ".join(f"{v / 10**digits:.9f}" for v in nm) + "}",
            "fwhm": "{" + ", ".join(f"{v / 10**digits:.9f}" for v in fwhm) + "}",
            "data ignore value": "-60",
            "map info": "{UTM, 1, 1, 300000, 5800000, 2, 2, 33, North, WGS-84, units=Meters}",
        },
    )
    rasterio.shutil.copy(tmp_path / "scene.img", tmp_path / "copy.tif", driver="GTiff")
    with rasterio.open(tmp_path / "copy.tif") as raster:
        assert raster.tags(1, ns="IMAGERY")["CENTRAL_WAVELENGTH_UM"] == "0.427"
    scene, copy = open_source(header), open_source(tmp_path / "copy.tif")
    np.testing.assert_allclose(copy.wavelengths, nm, rtol=1e-12)
    np.testing.assert_array_equal(copy.wavelengths, scene.wavelengths)
    np.testing.assert_allclose(copy.fwhm, fwhm, atol=0.51)  # GDAL keeps only the rounded ones
    np.testing.assert_array_equal(whole(copy), CUBE)
    assert (copy.nodata, copy.transform) == (scene.nodata, scene.transform)


def test_rounded_wavelengths_serve_where_there_are_no_others(tmp_path):
    path = write_tiff(tmp_path / "a.tif", tags=[])
    with rasterio.open(path, "r+") as raster:
        for band, um in enumerate(("0.427", "0.500", "0.601"), 1):
            raster.update_tags(band, ns="IMAGERY", CENTRAL_WAVELENGTH_UM=um, FWHM_UM="0.006")
    np.testing.assert_allclose(open_source(path).wavelengths, [427, 500, 601])
    np.testing.assert_allclose(open_source(path).fwhm, 6)
    with rasterio.open(path, "r+") as raster:
        raster.update_tags(1, wavelength="426.82", wavelength_units="nm")  # one band alone
    np.testing.assert_allclose(open_source(path).wavelengths, [427, 500, 601])


def test_a_bands_own_width_goes_with_its_own_wavelength(tmp_path):
    tags = [
        {"wavelength": w, "fwhm": "0.01", "wavelength_units": "um"} for w in ("0.5", "0.6", "0.7")
    ]
    path = write_tiff(tmp_path / "a.tif", tags=tags)
    with rasterio.open(path, "r+") as raster:
        for band in (1, 2, 3):
            raster.update_tags(band, ns="IMAGERY", CENTRAL_WAVELENGTH_UM="9", FWHM_UM="0.006")
    np.testing.assert_allclose(open_source(path).wavelengths, [500, 600, 700])
    np.testing.assert_allclose(open_source(path).fwhm, 10)


def test_a_tag_that_is_no_number(tmp_path):
    path = write_tiff(tmp_path / "a.tif", tags=[{"wavelength": "red"}] * 3)
    with pytest.raises(UserError, match=r"a\.tif: band tag 'wavelength' is no number.*fix it"):
        open_source(path)


def test_tiles_are_joined_and_gaps_are_nan(tmp_path):
    left = write_tiff(tmp_path / "a.tif", x=600, y=900)
    right = write_tiff(tmp_path / "b.tif", CUBE + 1, x=600 + 4 * 30, y=900 - 3 * 30)
    far = write_tiff(tmp_path / "c.tif", CUBE + 2, x=600, y=900 - 20 * 30)
    source = open_source([right, left, far])
    assert source.shape == (3, 25, 8)
    assert source.transform == (30, 0, 600, 0, -30, 900)
    expected = np.full(source.shape, np.nan)
    expected[:, :5, :4], expected[:, 3:8, 4:], expected[:, 20:, :4] = CUBE, CUBE + 1, CUBE + 2
    np.testing.assert_array_equal(whole(source), expected)
    np.testing.assert_array_equal(source.read(10, 15), expected[:, 10:15])  # no tile at all
    assert len(source.files) == 3


def test_the_no_data_edge_of_a_tile_does_not_hide_another(tmp_path):
    edge = CUBE.copy()
    edge[:, :, 2:] = -32768
    first = write_tiff(tmp_path / "a.tif", edge, nodata=-32768)
    second = write_tiff(tmp_path / "b.tif", CUBE + 1, x=60, nodata=-32768)
    expected = np.concatenate([CUBE[:, :, :2], CUBE + 1], axis=2)
    np.testing.assert_array_equal(whole(open_source([first, second])), expected)


@pytest.mark.parametrize(
    "other",
    [{"x": 10}, {"crs": "EPSG:32632"}, {"cube": CUBE[:2]}, {"tags": [{"wavelength": "9"}] * 3}],
)
def test_tiles_of_different_grids_are_refused(tmp_path, other):
    paths = [write_tiff(tmp_path / "a.tif"), write_tiff(tmp_path / "b.tif", **other)]
    with pytest.raises(UserError, match=r"b\.tif"):
        open_source(paths)
