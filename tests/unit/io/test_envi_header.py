"""ENVI headers: their fields, and scenes that are written and read back."""

import numpy as np
import pytest
import rasterio

from special_steps.core.errors import UserError
from special_steps.io.envi_header import envi_list, parse_envi_header, write_envi
from special_steps.io.source import open_source


def test_header_fields_keep_equal_signs_and_line_breaks():
    fields = parse_envi_header(
        "ENVI\nA  b = 1\nmap info = {UTM, units=Meters}\nlist = {1,\n 2}\n", "f"
    )
    assert fields == {"a b": "1", "map info": "UTM, units=Meters", "list": "1,\n 2"}


def test_only_envi_headers_are_read():
    with pytest.raises(UserError, match=r"a\.hdr: not an ENVI header"):
        parse_envi_header("samples = 3\n", "a.hdr")


def test_lists_have_twelve_numbers_a_line():
    assert envi_list(np.arange(14), "d") == "{\n0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11,\n12, 13}"
    assert envi_list(np.array([0.25]), ".1f") == "{\n0.2}"


@pytest.mark.parametrize("dtype", ["u1", "<i2", ">i2", "f4", "f8"])
def test_a_written_scene_is_read_back(tmp_path, dtype):
    cube = np.arange(60).reshape(3, 5, 4).astype(dtype)
    fields = {"wavelength units": "nm", "wavelength": envi_list(np.array([500.5, 600, 700]), ".1f")}
    write_envi(tmp_path / "a.hdr", cube, "a scene", fields | {"data ignore value": 7})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.hdr", "a.img"]
    source = open_source(tmp_path / "a.hdr")
    values = source.read(slice(0, 5), slice(0, 4))
    np.testing.assert_array_equal(values, cube)
    assert values.dtype.itemsize == cube.dtype.itemsize
    assert source.wavelengths.tolist() == [500.5, 600, 700]
    assert source.nodata == (7,)
    with rasterio.open(tmp_path / "a.img") as raster:  # GDAL agrees
        np.testing.assert_array_equal(raster.read(), cube)
    assert (tmp_path / "a.hdr").read_text().startswith("ENVI\ndescription = {a scene}\n")
