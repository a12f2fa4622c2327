"""ENVI scenes: layouts, byte orders, what a header says, and headers that are wrong."""

import numpy as np
import pytest
import rasterio
from rasters import CUBE, whole, write_envi

from special_steps.core.errors import UserError
from special_steps.io.source import open_source


@pytest.mark.parametrize("layout", ["bsq", "bil", "bip"])
@pytest.mark.parametrize("order", [0, 1])
def test_envi_layouts_and_byte_orders(tmp_path, layout, order):
    header = write_envi(tmp_path, layout=layout, order=order)
    source = open_source(header)
    assert source.shape == CUBE.shape
    np.testing.assert_array_equal(whole(source), CUBE)
    assert source.wavelengths is None and source.good_bands is None and source.nodata is None


def test_envi_types_offset_and_upper_case(tmp_path):
    for dtype in ("u1", "i4", "f4", "f8", "u2"):
        cube = np.abs(CUBE).astype(dtype)
        header = write_envi(tmp_path, cube, "BIL".lower(), **{"header offset": "13"})
        header.write_text(header.read_text().replace("interleave = bil", "Interleave = BIL"))
        np.testing.assert_array_equal(whole(open_source(header)), cube)


def test_envi_by_header_or_data_file(tmp_path):
    write_envi(tmp_path)
    for name in ("scene.hdr", "scene.img"):
        source = open_source(tmp_path / name)
        assert [f.name for f in source.files] == ["scene.img", "scene.hdr"]
    (tmp_path / "scene.hdr").rename(tmp_path / "scene.img.hdr")
    for name in ("scene.img.hdr", "scene.img"):
        np.testing.assert_array_equal(whole(open_source(tmp_path / name)), CUBE)
    (tmp_path / "scene.img").rename(tmp_path / "plain")
    (tmp_path / "scene.img.hdr").rename(tmp_path / "plain.hdr")
    np.testing.assert_array_equal(whole(open_source(tmp_path / "plain")), CUBE)


def test_envi_header_says_it_all(tmp_path):
    header = write_envi(
        tmp_path,
        **{
            "wavelength units": "Micrometers",
            "wavelength": "{\n 0.5, 0.6,\n 0.7}",
            "fwhm": "{0.01, 0.02, 0.03}",
            "bbl": "{1, 0, 1}",
            "data ignore value": "-9999",
            "reflectance scale factor": "10000.0",
            "map info": "{UTM, 1, 1, 300000, 5800000, 2, 2, 33, North, WGS-84, units=Meters}",
            "description": "{a = b,\n second line}",
        },
    )
    source = open_source(header)
    np.testing.assert_allclose(source.wavelengths, [500, 600, 700])
    np.testing.assert_allclose(source.fwhm, [10, 20, 30])
    assert source.good_bands.tolist() == [True, False, True]
    assert (source.nodata, source.scale) == (-9999, 10000)
    assert source.transform == (2, 0, 300000, 0, -2, 5800000)
    assert rasterio.crs.CRS.from_wkt(source.crs).to_epsg() == 32633


def test_envi_wavelengths_in_band_names(tmp_path):
    header = write_envi(
        tmp_path, **{"band names": "{Band 1 (500.5), Band 2 (600.25), Band 3 (700.0)}"}
    )
    np.testing.assert_allclose(open_source(header).wavelengths, [500.5, 600.25, 700])


def test_envi_mistakes(tmp_path):
    header = write_envi(tmp_path)
    text, data = header.read_text(), tmp_path / "scene.img"
    for old, new, message in (
        ("ENVI\n", "", "not an ENVI header"),
        ("samples = 4\n", "", "samples"),
        ("lines = 5", "lines = many", "many"),
        ("data type = 2", "data type = 6", "data type 6"),
        ("interleave = bsq", "interleave = bsx", "bsx"),
        ("byte order = 0", "byte order = 0\nfile compression = 1", "compressed"),
        ("byte order = 0", "byte order = 0\nbbl = {1, no, 1}", "bbl"),
        ("byte order = 0", "byte order = 0\nwavelength units = GHz\nwavelength = {1,2,3}", "GHz"),
    ):
        assert old in text
        header.write_text(text.replace(old, new))
        with pytest.raises(UserError, match=message):
            open_source(header)
    header.write_text(text)
    data.write_bytes(data.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"scene\.img: the file is truncated: 119 bytes.*120"):
        open_source(header)
    data.unlink()
    with pytest.raises(UserError, match=r"scene\.hdr: no data file"):
        open_source(header)
