"""ENVI's `map info` against its definition, and against what GDAL writes."""

import numpy as np
import pytest
import rasterio

from special_steps.io.map_info import corners_transform


def fields(reference="1, 1", size="2, 3", rest="33, North, WGS-84, units=Meters"):
    return f"UTM, {reference}, 500, 900, {size}, {rest}".split(",")


def turned(degrees):
    return fields(rest=f"33, North, WGS-84, units=Meters, rotation={degrees}")


@pytest.mark.parametrize(
    ("stated", "right"),
    [
        (fields(), (2, 0, 500, 0, -3, 900)),
        (fields(rest="33"), (2, 0, 500, 0, -3, 900)),
        (fields(reference="1.5, 1.5"), (2, 0, 499, 0, -3, 901.5)),
        (fields(reference="11, 21"), (2, 0, 480, 0, -3, 960)),
        (turned("0.0"), (2, 0, 500, 0, -3, 900)),
        (turned(90), (0, 3, 500, 2, 0, 900)),
        (turned(-90), (0, -3, 500, -2, 0, 900)),
        (turned("180.00000"), (-2, 0, 500, 0, 3, 900)),
        (turned(" 360"), (2, 0, 500, 0, -3, 900)),
        (fields(rest="11,  North,  WGS-84,  units=Meters, 0"), (2, 0, 500, 0, -3, 900)),
        (fields(rest="11,  North,  WGS-84,  units=Meters, 90"), (0, 3, 500, 2, 0, 900)),
        (fields(reference="3, 4", rest="units=Meters, rotation=90"), (0, 3, 491, 2, 0, 896)),
    ],
)
def test_by_definition(stated, right):
    np.testing.assert_allclose(corners_transform(stated), right, atol=1e-12)


def test_turned_pixels_keep_size_and_reference():
    a, b, c, d, e, f = corners_transform(fields("3, 4", rest="x, units=Meters, rotation=37"))
    np.testing.assert_allclose(
        [np.hypot(a, d), np.hypot(b, e), a * b + d * e], [2, 3, 0], atol=1e-12
    )
    np.testing.assert_allclose([a * 2 + b * 3 + c, d * 2 + e * 3 + f], [500, 900])


@pytest.mark.parametrize("crs", ["EPSG:32633", "EPSG:4326", "EPSG:3035", None])
@pytest.mark.parametrize("rows", [-5.0, 5.0])
def test_what_gdal_writes(tmp_path, crs, rows):
    right = (4.0 if rows < 0 else 5.0, 0.0, 12.0, 0.0, rows, 50.0)
    options = {"crs": crs, "transform": rasterio.Affine(*right), "dtype": "uint8"}
    with rasterio.open(
        tmp_path / "a.img", "w", driver="ENVI", width=3, height=2, count=1, **options
    ):
        pass
    lines = (tmp_path / "a.hdr").read_text().splitlines()
    line = next(v for v in lines if v.startswith("map info"))
    assert corners_transform(line.partition("{")[2].strip("}").split(",")) == right


@pytest.mark.parametrize(
    "stated",
    [
        fields()[:6],
        fields(reference="a, 1"),
        fields(size="0, 1"),
        fields(reference="nan, 1"),
        turned("x"),
    ],
)
def test_what_is_none(stated):
    with pytest.raises(ValueError, match=r"fewer than 7|could not convert|not finite"):
        corners_transform(stated)
