"""Tanager scenes, against files written after Planet's specification."""

import h5py
import numpy as np
import pytest
from rasterio.crs import CRS
from tanager_files import FILL, HEIGHT, WIDTH, Product, write

from special_steps.core.errors import UserError
from special_steps.io.products.tanager import files_of, holds, open_product
from special_steps.io.record import Source

ALL = slice(0, HEIGHT), slice(0, WIDTH)
ASSETS = ["ortho_sr", "basic_sr", "ortho_radiance", "basic_radiance"]


def assert_right(source: Source, right: Product) -> None:
    assert source.shape == right.values.shape
    block = source.read(*ALL)
    assert block.dtype == np.float32
    np.testing.assert_array_equal(block, right.values)
    assert (source.scale, source.offset, source.nodata) == (1.0, 0.0, (FILL,))
    np.testing.assert_array_equal(source.wavelengths, right.wavelengths)
    np.testing.assert_array_equal(source.fwhm, right.fwhm)
    if right.good is None:
        assert source.good_bands is None
    else:
        np.testing.assert_array_equal(source.good_bands, right.good)
    np.testing.assert_array_equal(source.masked(*ALL), right.masked)
    assert source.transform == right.transform
    assert (CRS.from_wkt(source.crs).to_epsg() if source.crs else None) == right.epsg
    assert set(source.quality) == set(right.quality)
    for name, mask in right.quality.items():
        np.testing.assert_array_equal(source.quality[name](*ALL), mask, err_msg=name)


@pytest.mark.parametrize("asset", ASSETS)
def test_each_product_is_read_as_its_specification_says(tmp_path, asset):
    right = write(tmp_path, asset)
    source = open_product(right.path)
    assert_right(source, right)
    assert source.kind == "Tanager " + asset.replace("_", " ").replace("sr", "surface reflectance")
    assert source.files == [right.path]
    assert not source.doubts
    assert any("radiances" in n for n in source.notes) == ("radiance" in asset)
    assert any("no georeference" in n for n in source.notes) == ("basic" in asset)


@pytest.mark.parametrize("rows", [slice(0, 3), slice(2, 7), slice(6, 7)])
@pytest.mark.parametrize("columns", [slice(0, 5), slice(1, 3), slice(4, 5)])
def test_windows_are_parts_of_the_whole(tmp_path, rows, columns):
    source = open_product(write(tmp_path).path)
    np.testing.assert_array_equal(source.read(rows, columns), source.whole()[:, rows, columns])
    for window in (source.masked, *source.quality.values()):
        np.testing.assert_array_equal(window(rows, columns), window(*ALL)[rows, columns])


def test_missing_layers_are_just_not_there(tmp_path):
    absent = ("nodata_pixels", "beta_cirrus_mask", "fwhm", "good_wavelengths", "_FillValue")
    source = open_product(write(tmp_path, absent=absent).path)
    assert source.masked is None
    assert set(source.quality) == {"cloud"}
    assert source.fwhm is source.good_bands is None
    assert source.nodata == (FILL,)


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ({"absent": ("epsg_code",)}, "crs"),
        ({"attributes": {"epsg_code": np.int64(7)}}, "crs"),
        ({"structure": "GROUP=GridStructure\n"}, "transform"),
        ({"structure": "UpperLeftPointMtrs=(0,a)\nLowerRightMtrs=(30,0)\n"}, "transform"),
        ({"structure": "UpperLeftPointMtrs=(0,0)\nLowerRightMtrs=(30,30)\n"}, "transform"),
    ],
)
def test_a_georeference_that_cannot_be_used_is_a_doubt(tmp_path, asked, name):
    source = open_product(write(tmp_path, **asked).path)
    assert source.crs is source.transform is None
    assert set(source.doubts) == {name}


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"absent": ("surface_reflectance",)}, "no surface_reflectance or toa_radiance"),
        ({"absent": ("wavelengths",)}, "no attribute 'wavelengths'"),
        ({"attributes": {"fwhm": np.ones(3)}}, "fwhm has 3 numbers for a cube of 9 bands"),
    ],
)
def test_a_file_without_what_is_needed(tmp_path, asked, message):
    right = write(tmp_path, **asked)
    with pytest.raises(UserError, match=message) as error:
        open_product(right.path)
    assert str(right.path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_cube_without_three_axes(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["HDFEOS/GRIDS/HYP/Data Fields/toa_radiance"] = np.zeros((2, 2))
    with pytest.raises(UserError, match="not \\(band, y, x\\)"):
        open_product(path)


def test_damaged_files(tmp_path):
    right = write(tmp_path)
    whole = right.path.read_bytes()
    for kept in (len(whole) // 2, 100, 0):
        right.path.write_bytes(whole[:kept])
        with pytest.raises(UserError, match="damaged"):
            open_product(right.path)


def test_another_hdf5_file(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["HDFEOS/SWATHS/PRS_L2D_HCO/Data Fields/VNIR_Cube"] = np.zeros((2, 2, 2))
        assert not holds(file)
    with pytest.raises(UserError, match="no surface_reflectance"):
        open_product(path)


def test_renamed_files_are_known_by_their_content(tmp_path):
    right = write(tmp_path, name="scene.hdf5")
    with h5py.File(right.path) as file:
        assert holds(file)
    assert files_of(right.path) == []
    assert_right(open_product(right.path), right)


@pytest.mark.parametrize("name", ["A_ORTHO_SR_HDF5.H5", "a_Basic_Radiance_hdf5.h5"])
def test_names_in_either_case(tmp_path, name):
    right = write(tmp_path, name=name)
    assert files_of(right.path) == files_of(tmp_path) == [right.path]
    assert_right(open_product(tmp_path), right)


def test_of_a_folder_with_several_assets_the_ortho_reflectance_is_taken(tmp_path):
    rights = {asset: write(tmp_path, asset) for asset in ASSETS}
    (tmp_path / "20250608_091605_90_4001.json").write_text("{}")
    assert files_of(tmp_path) == [rights["ortho_sr"].path]
    assert_right(open_product(tmp_path), rights["ortho_sr"])
    assert files_of(rights["basic_sr"].path) == [rights["basic_sr"].path]


def test_folders_without_or_with_several_scenes(tmp_path):
    assert files_of(tmp_path) == files_of(tmp_path / "absent") == []
    with pytest.raises(UserError, match="no Tanager file in the folder"):
        open_product(tmp_path)
    write(tmp_path)
    write(tmp_path, name="20250609_091605_90_4001_ortho_sr_hdf5.h5")
    assert files_of(tmp_path) == []
    with pytest.raises(UserError, match="2 Tanager scenes in the folder"):
        open_product(tmp_path)
