"""PRISMA products, against files of the same layout."""

import h5py
import numpy as np
import pytest
from prisma_files import CENTRES, LINES, PADDED, SAMPLES, ZERO, Product, write
from rasterio.crs import CRS

from special_steps.core.errors import UserError
from special_steps.io.products.prisma import files_of, holds, open_product
from special_steps.io.record import Source

ALL = slice(0, LINES), slice(0, SAMPLES)
LEVELS = ["1", "2B", "2C", "2D"]


def ascending(source: Source) -> np.ndarray:
    assert source.wavelengths is not None
    return np.argsort(source.wavelengths)


def in_units(source: Source, block: np.ndarray) -> np.ndarray:
    scale, offset = (
        np.broadcast_to(v, len(block))[:, None, None] for v in (source.scale, source.offset)
    )
    return (block / scale + offset)[ascending(source)]


def assert_right(source: Source, right: Product) -> None:
    order = ascending(source)
    assert source.shape == right.values.shape
    block = source.read(*ALL)
    assert block.dtype == np.uint16
    np.testing.assert_allclose(in_units(source, block), right.values, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(source.wavelengths[order], right.wavelengths)
    np.testing.assert_allclose(source.fwhm[order], right.fwhm)
    np.testing.assert_array_equal(source.good_bands[order], right.good)
    np.testing.assert_array_equal(
        (block[source.good_bands] == source.nodata[0]).all(0), right.missing
    )
    assert source.transform == right.transform
    assert (CRS.from_wkt(source.crs).to_epsg() if source.crs else None) == right.epsg
    assert set(source.quality) == set(right.quality)
    for name, mask in right.quality.items():
        np.testing.assert_array_equal(source.quality[name](*ALL), mask, err_msg=name)


@pytest.mark.parametrize("level", LEVELS)
def test_each_level_is_read_as_its_specification_says(tmp_path, level):
    right = write(tmp_path, level)
    source = open_product(right.path)
    assert_right(source, right)
    assert source.kind == f"PRISMA L{level}"
    assert source.files == [right.path]
    assert not source.doubts


def test_bands_that_were_not_acquired_are_left_out_and_the_overlap_is_of_one_detector(tmp_path):
    source = open_product(write(tmp_path).path)
    assert source.shape[0] == sum((c > 0).sum() for c in CENTRES.values())
    nm = source.wavelengths[source.good_bands]
    detector = np.repeat([0, 1], [6, 7])[source.good_bands]
    assert (np.diff(detector[np.argsort(nm)]) >= 0).all()  # no jump back
    assert nm.max() == pytest.approx(2496.9)
    assert nm[detector == 0].max() == pytest.approx(929.4)


def test_a_zero_in_one_band_is_a_value(tmp_path):
    source = open_product(write(tmp_path).path)
    block = source.read(*ALL)
    assert (block[:, *ZERO] == 0).sum() == 1
    assert (block[:, *PADDED[0]] == 0).all()


@pytest.mark.parametrize("rows", [slice(0, 3), slice(2, 7), slice(6, 7)])
@pytest.mark.parametrize("columns", [slice(0, 5), slice(1, 3), slice(4, 5)])
@pytest.mark.parametrize("level", ["1", "2D"])
def test_windows_are_parts_of_the_whole(tmp_path, level, rows, columns):
    source = open_product(write(tmp_path, level).path)
    np.testing.assert_array_equal(source.read(rows, columns), source.whole()[:, rows, columns])
    for window in source.quality.values():
        np.testing.assert_array_equal(window(rows, columns), window(*ALL)[rows, columns])


def test_corners_are_centres_of_pixels_unless_the_cube_fills_them(tmp_path):
    centres = open_product(write(tmp_path / "a").path)
    outer = open_product(write(tmp_path / "b", outer_corners=True).path)
    assert centres.transform == outer.transform == (30.0, 0.0, 499995.0, 0.0, -30.0, 4500015.0)


def test_corners_that_fit_neither_way_are_a_doubt(tmp_path):
    right = write(tmp_path, attributes={"Product_LRcorner_easting": np.float32(501000)})
    source = open_product(right.path)
    assert source.transform is None
    assert source.crs is None
    assert "990 m by 180 m apart" in source.doubts["transform"]


@pytest.mark.parametrize(
    ("absent", "attributes", "name"),
    [(("Epsg_Code",), {}, "transform"), ((), {"Epsg_Code": np.uint32(1)}, "crs")],
)
def test_a_georeference_that_cannot_be_used_is_a_doubt(tmp_path, absent, attributes, name):
    source = open_product(write(tmp_path, absent=absent, attributes=attributes).path)
    assert source.transform is None
    assert "Epsg_Code" in source.doubts[name]


@pytest.mark.parametrize(("level", "lines"), [("1", 2), ("2B", 2), ("2C", 1), ("2D", 0)])
def test_radiances_and_the_sensor_geometry_are_said(tmp_path, level, lines):
    notes = open_product(write(tmp_path, level).path).notes
    assert len(notes) == lines
    assert any("radiances" in n for n in notes) == (level in ("1", "2B"))
    assert any("no georeference" in n for n in notes) == (level != "2D")


def test_a_band_whose_flag_is_0_is_not_good(tmp_path):
    flags = (CENTRES["Swir"] > 0).astype(np.uint8)
    flags[2] = 0
    source = open_product(write(tmp_path, attributes={"List_Cw_Swir_Flags": flags}).path)
    assert not source.good_bands[np.isclose(source.wavelengths, 1606.2)].any()


def test_missing_quality_layers_are_just_not_there(tmp_path):
    absent = ("SWIR_PIXEL_SAT_ERR_MATRIX", "Cloud_Mask")
    assert set(open_product(write(tmp_path, "1", absent=absent).path).quality) == {"water", "snow"}


def test_without_widths_or_flags(tmp_path):
    source = open_product(write(tmp_path, absent=("List_Fwhm_Swir", "List_Cw_Vnir_Flags")).path)
    assert source.fwhm is None
    assert source.good_bands.sum() == 11


@pytest.mark.parametrize(
    ("absent", "attributes", "message"),
    [
        (("SWIR_Cube",), {}, "SWIR_Cube"),
        (("List_Cw_Vnir",), {}, "List_Cw_Vnir"),
        (("L2ScaleSwirMax",), {}, "L2ScaleSwirMax"),
        ((), {"L2ScaleVnirMax": np.float32(0)}, "L2ScaleVnirMin is 0.0 and L2ScaleVnirMax 0.0"),
        ((), {"L2ScaleVnirMax": np.float32(np.nan)}, "L2ScaleVnirMax is nan"),
        ((), {"List_Cw_Swir": np.ones(4, np.float32)}, "4 numbers for a cube of 9 bands"),
        ((), {"List_Cw_Swir": np.zeros(9, np.float32)}, "all wavelengths"),
        ((), {"List_Fwhm_Vnir": np.ones(4, np.float32)}, "List_Fwhm_Vnir"),
    ],
)
def test_a_file_without_what_is_needed(tmp_path, absent, attributes, message):
    right = write(tmp_path, absent=absent, attributes=attributes)
    with pytest.raises(UserError, match=message) as error:
        open_product(right.path)
    assert str(right.path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_scale_of_0_in_l1(tmp_path):
    right = write(tmp_path, "1", attributes={"ScaleFactor_Swir": np.float32(0)})
    with pytest.raises(UserError, match=r"ScaleFactor_Swir is 0\.0"):
        open_product(right.path)


def test_cubes_of_two_sizes(tmp_path):
    right = write(tmp_path, absent=("SWIR_Cube",))
    with h5py.File(right.path, "a") as file:
        file["HDFEOS/SWATHS/PRS_L2D_HCO/Data Fields/SWIR_Cube"] = np.zeros((LINES, 9, 2), "u2")
    with pytest.raises(UserError, match="of one size"):
        open_product(right.path)


def test_a_cube_of_another_type(tmp_path):
    right = write(tmp_path, absent=("SWIR_Cube",))
    with h5py.File(right.path, "a") as file:
        file["HDFEOS/SWATHS/PRS_L2D_HCO/Data Fields/SWIR_Cube"] = np.zeros(
            (LINES, 9, SAMPLES), "f4"
        )
    with pytest.raises(UserError, match="SWIR_Cube is float32, not uint16"):
        open_product(right.path)


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
        file["HDFEOS/SWATHS/HYP/Data Fields/toa_radiance"] = np.zeros((2, 2, 2))
        assert not holds(file)
    with pytest.raises(UserError, match="no PRISMA swath"):
        open_product(path)


def test_renamed_files_are_known_by_their_content(tmp_path):
    right = write(tmp_path, name="scene.h5")
    with h5py.File(right.path) as file:
        assert holds(file)
    assert files_of(right.path) == []
    assert_right(open_product(right.path), right)


@pytest.mark.parametrize(
    "name", ["PRS_L2D_STD_20200524103704_20200524103708_0001.HE5", "prs_l2d_std_1_2_0001.he5"]
)
def test_names_in_either_case(tmp_path, name):
    right = write(tmp_path, name=name)
    assert files_of(right.path) == files_of(tmp_path) == [right.path]
    assert_right(open_product(tmp_path), right)


def test_of_a_folder_with_several_levels_the_map_is_taken(tmp_path):
    write(tmp_path, "1")
    write(tmp_path, "2C")
    right = write(tmp_path, "2D")
    (tmp_path / "readme.txt").write_text("")
    assert files_of(tmp_path) == [right.path]
    assert_right(open_product(tmp_path), right)


def test_folders_without_or_with_several_products(tmp_path):
    assert files_of(tmp_path) == files_of(tmp_path / "absent") == []
    with pytest.raises(UserError, match="no PRISMA file in the folder"):
        open_product(tmp_path)
    write(tmp_path)
    write(tmp_path, name="PRS_L2D_STD_20200601103704_20200601103708_0001.he5")
    assert files_of(tmp_path) == []
    with pytest.raises(UserError, match="2 PRISMA files of the same level"):
        open_product(tmp_path)
