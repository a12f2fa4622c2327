"""File formats: each reader gives back, as (band, y, x), what a test wrote, and says what is wrong with bad files."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import rasterio
from scipy.io import savemat

from special_steps.core.errors import UserError
from special_steps.io.source import (
    Source,
    open_source,
    parse_envi_header,
    plan_axes,
    read_variable,
    to_nm,
    wavelengths_in_names,
)

CUBE = np.arange(3 * 5 * 4, dtype=np.int16).reshape(3, 5, 4) * 7 - 60  # band, y, x
WKT = rasterio.crs.CRS.from_epsg(32633).to_wkt()


def whole(source: Source) -> np.ndarray:
    """All rows, read in two parts so that a mistake in the offsets shows."""
    height = source.shape[1]
    return np.concatenate([source.read(0, 2), source.read(2, height)], axis=1)


def write_envi(
    folder: Path, cube: np.ndarray = CUBE, layout: str = "bsq", order: int = 0, **fields: str
) -> Path:
    """Write an ENVI pair, header beside scene.img; the header's path."""
    kinds = {"u1": 1, "i2": 2, "i4": 3, "f4": 4, "f8": 5, "u2": 12}
    ways = {"bsq": (0, 1, 2), "bil": (1, 0, 2), "bip": (1, 2, 0)}
    stored = cube.transpose(ways[layout]).astype(cube.dtype.newbyteorder("<>"[order]))
    offset = int(fields.get("header offset", 0))
    (folder / "scene.img").write_bytes(b"\0" * offset + stored.tobytes())
    lines = {
        "samples": cube.shape[2],
        "lines": cube.shape[1],
        "bands": cube.shape[0],
        "data type": kinds[cube.dtype.str[1:]],
        "interleave": layout,
        "byte order": order,
    } | fields
    header = folder / "scene.hdr"
    header.write_text("ENVI\n" + "\n".join(f"{k} = {v}" for k, v in lines.items()) + "\n")
    return header


def write_tiff(path: Path, cube: np.ndarray = CUBE, x: float = 0, y: float = 0, **options) -> Path:
    """Write a GeoTIFF whose upper left corner is (x, y), 30 m pixels, wavelengths in its band tags."""
    tags = options.pop("tags", [{"wavelength": str(500 + 100 * i)} for i in range(len(cube))])
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=cube.shape[0],
        height=cube.shape[1],
        width=cube.shape[2],
        dtype=cube.dtype,
        **({"crs": "EPSG:32633", "transform": rasterio.Affine(30, 0, x, 0, -30, y)} | options),
    ) as raster:
        raster.write(cube)
        for band, items in enumerate(tags, 1):
            raster.update_tags(band, **items)
    return path


# --- ENVI ---


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


def test_header_fields_keep_equal_signs_and_line_breaks():
    fields = parse_envi_header("ENVI\nA  b = 1\nmap info = {UTM, units=Meters}\nlist = {1,\n 2}\n")
    assert fields == {"a b": "1", "map info": "UTM, units=Meters", "list": "1,\n 2"}


# --- wavelengths ---


def test_units():
    assert to_nm([500, 600], "Nanometers", "f").tolist() == [500, 600]
    assert to_nm([0.5, 2.5], "Micrometers", "f").tolist() == [500, 2500]
    assert to_nm([1, 2], "Index", "f") is None
    with pytest.raises(UserError, match="GHz"):
        to_nm([1, 2], "GHz", "f")


def test_a_guessed_unit_is_logged(caplog):
    with caplog.at_level("INFO", "special"):
        assert to_nm([0.5, 2.5], "Unknown", "file.hdr").tolist() == [500, 2500]
        assert to_nm([500, 2500], None, "file.hdr").tolist() == [500, 2500]
    assert "file.hdr" in caplog.text and "micrometres" in caplog.text


def test_band_names_are_taken_for_wavelengths_only_when_they_are():
    assert wavelengths_in_names(["a (1)", "b (2)"], "f") is None
    assert wavelengths_in_names(["a (500.1)", "b"], "f") is None
    assert wavelengths_in_names(["a (500 nm)", "b (600 nm)"], "f").tolist() == [500, 600]
    assert wavelengths_in_names([], "f") is None


# --- GeoTIFF and tiles ---


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


# --- MATLAB, HDF5, NumPy ---


def test_matlab_v5(tmp_path):
    path = tmp_path / "a.mat"
    savemat(path, {"cube": CUBE.transpose(1, 2, 0), "small": np.ones((5, 4)), "text": "x"})
    source = open_source(path)  # the only 3-D array, y x band by default
    np.testing.assert_array_equal(whole(source), CUBE)
    assert source.variables == {"cube": (5, 4, 3), "small": (5, 4)}
    assert open_source(path, variable="cube", axes="x y band").shape == (3, 4, 5)


def test_matlab_struct_with_an_envi_header(tmp_path):
    params = {
        "wavelength_units": "Nanometers",
        "wavelength": np.array([500.0, 600, 700]),
        "bbl": np.array([1, 1, 0]),
        "data_ignore_value": "-50",
        "reflectance_scale_factor": "10000",
    }
    savemat(tmp_path / "a.mat", {"cube": CUBE.transpose(1, 2, 0), "params": params})
    source = open_source(tmp_path / "a.mat")
    assert source.wavelengths.tolist() == [500, 600, 700]
    assert source.good_bands.tolist() == [True, True, False]
    assert (source.nodata, source.scale) == (-50, 10000)


def write_matlab_73(path: Path, **arrays: np.ndarray) -> None:
    """MATLAB v7.3 is HDF5 after a 512-byte block, and stores axes in the opposite order."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=array.T)


def test_matlab_73_axes_are_as_in_matlab(tmp_path):
    path = tmp_path / "a.mat"
    flat = CUBE.transpose(0, 2, 1).reshape(3, 20)  # band (x y)
    write_matlab_73(path, cube=CUBE.transpose(1, 2, 0), turned=CUBE, flat=flat)
    np.testing.assert_array_equal(whole(open_source(path, variable="cube")), CUBE)
    source = open_source(path, variable="turned", axes="band y x")
    np.testing.assert_array_equal(whole(source), CUBE)
    source = open_source(path, variable="flat", axes="band (x y)", shape={"x": 4})
    np.testing.assert_array_equal(whole(source), CUBE)


def test_hdf5_attributes_and_georeference(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        data = file.create_dataset("site/Reflectance/Data", data=CUBE.transpose(1, 2, 0))
        data.attrs["Scale_Factor"], data.attrs["Data_Ignore_Value"] = [10000.0], [-9999.0]
        system = file.create_group("site/Reflectance/Metadata/Coordinate_System")
        system["Map_Info"] = "UTM, 1.0, 1.0, 257000.0, 4112000.0, 1.0, 1.0, 11, North, WGS-84"
        system["EPSG Code"] = "32611"
    source = open_source(path)
    np.testing.assert_array_equal(whole(source), CUBE)
    assert (source.scale, source.nodata) == (10000, -9999)
    assert source.transform == (1, 0, 257000, 0, -1, 4112000)
    assert rasterio.crs.CRS.from_wkt(source.crs).to_epsg() == 32611


def test_numpy(tmp_path):
    np.save(tmp_path / "a.npy", CUBE)
    np.testing.assert_array_equal(whole(open_source(tmp_path / "a.npy", axes="band y x")), CUBE)
    np.savez(tmp_path / "a.npz", cube=CUBE, names=np.array(["a", "b"]))
    np.testing.assert_array_equal(
        whole(open_source(tmp_path / "a.npz", variable="cube", axes="band y x")), CUBE
    )


@pytest.mark.parametrize(
    ("axes", "shape", "stored"),
    [
        ("y x band", None, CUBE.transpose(1, 2, 0)),
        ("band, y, x", None, CUBE),
        ("x band y", None, CUBE.transpose(2, 0, 1)),
        ("band (x y)", {"x": 4, "y": 5}, CUBE.transpose(0, 2, 1).reshape(3, 20)),
        ("band (y x)", {"y": 5}, CUBE.reshape(3, 20)),
        ("(y x) band", {"x": 4}, CUBE.transpose(1, 2, 0).reshape(20, 3)),
        ("(band y x)", {"x": 4, "y": 5, "band": 3}, CUBE.reshape(60)),
        ("y x class", {"class": 3}, CUBE.transpose(1, 2, 0)),
    ],
)
def test_axes(axes, shape, stored):
    plan = plan_axes(stored.shape, axes, shape, "f")
    assert plan.shape == CUBE.shape
    np.testing.assert_array_equal(plan.arrange(stored), CUBE)


@pytest.mark.parametrize(
    ("axes", "shape", "message"),
    [
        ("y x", None, "name 2 axes, but the array has 3"),
        ("y x wavelength", None, "no pattern"),
        ("y y band", None, "no pattern"),
        ("y x band)", None, "no pattern"),
        ("band x", None, "no pattern"),
        ("y x band", {"y": 9}, "does not fit axis 'y' of length 5"),
        ("y x band", {"z": 9}, "not in axes"),
    ],
)
def test_wrong_axes(axes, shape, message):
    with pytest.raises(UserError, match=message):
        plan_axes((5, 4, 3), axes, shape, "f")


@pytest.mark.parametrize("shape", [{"x": 3, "y": 5}, {"x": 7}, {"x": 0, "y": 5}])
def test_wrong_shape_of_joined_axes(shape):
    with pytest.raises(UserError, match=r"does not fit axis 'x y' of length 20"):
        plan_axes((3, 20), "band (x y)", shape, "f")
    with pytest.raises(UserError, match="how long are x and y"):
        plan_axes((3, 20), "band (x y)", None, "f")


# --- mistakes that all formats share ---


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.mat: no such file"):
        open_source(tmp_path / "nowhere.mat")
    with pytest.raises(UserError, match="empty list"):
        open_source([])


def test_unknown_suffix(tmp_path):
    (tmp_path / "a.xyz").write_text("1 2 3")
    with pytest.raises(UserError, match=r"a\.xyz: unknown format '\.xyz'.*\.tif"):
        open_source(tmp_path / "a.xyz")


@pytest.mark.parametrize("name", ["a.mat", "a.h5", "a.npy", "a.npz", "a.tif", "a.png"])
@pytest.mark.parametrize("content", [b"", b"this is no image" * 40])
def test_damaged_files_are_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=name.replace(".", r"\.")):
        open_source(tmp_path / name)


@pytest.mark.parametrize("name", ["a.mat", "a.h5", "a.npz", "a.tif"])
def test_truncated_files_are_named(tmp_path, name):
    path, big = tmp_path / name, np.random.default_rng(0).random((3, 50, 40))
    if name == "a.mat":
        savemat(path, {"cube": big})
    elif name == "a.h5":
        with h5py.File(path, "w") as file:
            file["cube"] = big
    elif name == "a.npz":
        np.savez(path, cube=big)
    else:
        write_tiff(path, big)
    path.write_bytes(path.read_bytes()[:-9000])
    with pytest.raises(UserError, match=name.replace(".", r"\.")):
        open_source(path).read(0, 3)


def test_variables_are_listed_when_the_name_is_wrong_or_missing(tmp_path):
    path = tmp_path / "a.mat"
    savemat(path, {"one": CUBE, "two": CUBE, "labels": np.ones((5, 4))})
    listing = r"a\.mat: .*'one' \(3, 5, 4\), 'two' \(3, 5, 4\), 'labels' \(5, 4\)"
    for variable in (None, "three"):
        with pytest.raises(UserError, match=listing):
            open_source(path, variable=variable)
    with pytest.raises(UserError, match=listing):
        read_variable(path, "three")


def test_a_2d_array_needs_axes(tmp_path):
    path = tmp_path / "a.mat"
    savemat(path, {"flat": CUBE.reshape(3, 20)})
    with pytest.raises(UserError, match=r"a\.mat.*2-D array of shape \(3, 20\).*'axes'.*'shape'"):
        open_source(path, variable="flat")
    with pytest.raises(UserError, match="needs the band axis"):
        open_source(path, variable="flat", axes="y x")
    assert open_source(path, variable="flat", labels=True).shape == (1, 3, 20)


def test_options_of_other_formats_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"scene\.hdr: 'axes' is for \.mat"):
        open_source(write_envi(tmp_path), axes="y x band")
    with pytest.raises(UserError, match="only GeoTIFF tiles"):
        open_source([tmp_path / "scene.hdr", tmp_path / "scene.img"])
