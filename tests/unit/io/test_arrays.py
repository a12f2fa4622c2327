"""Arrays of MATLAB, HDF5, netCDF and NumPy files, whatever else these files hold."""

import pickle
import struct
import time
import warnings
from pathlib import Path

import h5py
import numpy as np
import pytest
import rasterio
from rasters import CUBE
from scipy.io import netcdf_file, savemat
from scipy.sparse import csc_matrix

from special_steps.core.errors import UserError
from special_steps.io.arrays import open_array, read_variable, read_wavelengths
from special_steps.io.record import Source

LAST = CUBE.transpose(1, 2, 0)  # y, x, band


def opened(path: Path, **options) -> Source:
    return open_array(
        path, **({"variable": None, "axes": None, "shape": None, "one_layer": False} | options)
    )


def holds(source: Source, cube: np.ndarray = CUBE) -> None:
    """All of it, and windows of it, are right."""
    np.testing.assert_array_equal(source.whole(), cube)
    for rows, columns in (
        (slice(0, 2), slice(1, 3)),
        (slice(2, 5), slice(0, 4)),
        (slice(4, 9), slice(3, None)),
    ):
        block = source.read(rows, columns)
        np.testing.assert_array_equal(block, cube[:, rows, columns])
        assert block.dtype.isnative


# MATLAB up to v7


def test_matlab_v5(tmp_path):
    path = tmp_path / "a.mat"
    savemat(path, {"cube": LAST, "small": np.ones((5, 4)), "text": "x"})
    source = opened(path)  # the only 3-D array, y x band by default
    holds(source)
    assert source.variables == {"cube": (5, 4, 3), "small": (5, 4)}
    assert opened(path, variable="cube", axes="x y band").shape == (3, 4, 5)


def test_matlab_struct_with_an_envi_header(tmp_path):
    params = {
        "wavelength_units": "Nanometers",
        "wavelength": np.array([500.0, 600, 700]),
        "bbl": np.array([1, 1, 0]),
        "data_ignore_value": "-50",
        "reflectance_scale_factor": "10000",
    }
    savemat(tmp_path / "a.mat", {"cube": LAST, "params": params})
    source = opened(tmp_path / "a.mat")
    assert source.wavelengths.tolist() == [500, 600, 700]
    assert source.good_bands.tolist() == [True, True, False]
    assert (source.nodata, source.scale) == ((-50,), 10000)


@pytest.mark.parametrize(
    "stated",
    [
        np.array(["0.5", "0.6", "0.7"], object),
        np.array([[0.5], [0.6], [0.7]]),
        "{0.5, 0.6, 0.7}",
        np.array(["0.5 ", "0.6 ", "0.7 "]),
    ],
)
def test_matlab_wavelengths_as_cells_texts_and_columns(tmp_path, stated):
    info = {"Wavelength": stated, "Wavelength_Units": "Micrometers"}
    savemat(tmp_path / "a.mat", {"hsi": {"Data": LAST, "info": info}})
    source = opened(tmp_path / "a.mat", variable="hsi.Data")
    np.testing.assert_allclose(source.wavelengths, [500, 600, 700])


def test_matlab_structs_and_cells(tmp_path):
    path = tmp_path / "a.mat"
    cells = np.empty((1, 2), object)
    cells[0, 0], cells[0, 1] = LAST, LAST + 1
    one = np.empty((1, 1), object)
    one[0, 0] = LAST
    elements = np.array([(LAST,), (LAST + 2,)], [("Data", object)])
    savemat(
        path,
        {"hsi": {"Data": LAST, "in": {"er": LAST}}, "cells": cells, "one": one, "list": elements},
    )
    for name in ("hsi.Data", "hsi.in.er", "cells{1}", "one{1}", "one", "list(1).Data"):
        holds(opened(path, variable=name))
    holds(opened(path, variable="cells{2}"), CUBE + 1)
    holds(opened(path, variable="list(2).Data"), CUBE + 2)
    with pytest.raises(
        UserError, match=r"'hsi' is a struct; name an array in it: 'hsi\.Data' \(5, 4, 3\)"
    ):
        opened(path, variable="hsi")
    with pytest.raises(UserError, match=r"'cells' is a cell array; .*'cells\{1\}' \(5, 4, 3\)"):
        opened(path, variable="cells")
    with pytest.raises(
        UserError, match=r"Give 'variable'; the file has 'hsi\.Data' .*'list\(2\)\.Data'"
    ):
        opened(path)
    savemat(path, {"hsi": {"Data": LAST, "name": "MUUFL"}})
    holds(opened(path))
    savemat(path, {"data": one})
    with pytest.raises(UserError, match=r"Give 'variable'; the file has 'data\{1\}'"):
        opened(path)


def test_matlab_sparse_complex_logical_and_text(tmp_path):
    path = tmp_path / "a.mat"
    labels = np.array([[0, 2, 0], [1, 0, 3]])
    savemat(
        path, {"s": csc_matrix(labels.astype(float)), "c": LAST * 1j, "l": LAST > 0, "t": "text"}
    )
    np.testing.assert_array_equal(opened(path, variable="s", one_layer=True).whole()[0], labels)
    holds(opened(path, variable="l"), CUBE > 0)
    with pytest.raises(UserError, match="'c' holds complex numbers"):
        opened(path, variable="c").whole()
    with pytest.raises(UserError, match="'t' holds text; the file has 's'"):
        opened(path, variable="t")


def test_matlab_v4(tmp_path):
    savemat(tmp_path / "a.mat", {"flat": CUBE.transpose(0, 2, 1).reshape(3, 20) * 1.0}, format="4")
    holds(opened(tmp_path / "a.mat", axes="band (x y)", shape={"x": 4}))


def test_a_header_that_claims_more_than_the_file_can_hold(tmp_path):
    path = tmp_path / "a.mat"
    savemat(path, {"cube": LAST})
    data = path.read_bytes()
    path.write_bytes(data.replace(struct.pack("<3i", 5, 4, 3), struct.pack("<3i", 10**6, 10**6, 3)))
    with pytest.raises(UserError, match=r"a\.mat: .*damaged .*shape \(1000000, 1000000, 3\)"):
        opened(path)


@pytest.mark.parametrize("compressed", [False, True])
def test_structs_of_damaged_files_are_not_given_to_scipy(tmp_path, compressed):
    """SciPy crashes, without an exception, on some of these."""
    path = tmp_path / "a.mat"
    savemat(path, {"cube": LAST, "s": {"wave": np.arange(3.0)}}, do_compression=compressed)
    whole = path.read_bytes()
    assert opened(path).shape == CUBE.shape
    for place in range(128 if compressed else whole.index(b"wave") - 80, len(whole), 3):
        for value in (0, 255):
            path.write_bytes(whole[:place] + bytes([value]) + whole[place + 1 :])
            try:
                opened(path).whole()
            except UserError as error:
                assert "a.mat: " in str(error)


# MATLAB v7.3


def write_matlab_73(path: Path, said: bool = True, **arrays: np.ndarray) -> None:
    """MATLAB v7.3 is HDF5 after a 512-byte block, and stores axes in the opposite order."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=array.T)
            if said:
                file[name].attrs["MATLAB_class"] = np.bytes_("double")
    if said:
        with path.open("r+b") as stream:
            stream.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(512))


def test_matlab_73_axes_are_as_in_matlab(tmp_path):
    path = tmp_path / "a.mat"
    flat = CUBE.transpose(0, 2, 1).reshape(3, 20)  # band (x y)
    write_matlab_73(path, cube=LAST, turned=CUBE, flat=flat)
    holds(opened(path, variable="cube"))
    holds(opened(path, variable="turned", axes="band y x"))
    holds(opened(path, variable="flat", axes="band (x y)", shape={"x": 4}))
    path.rename(tmp_path / "a.h5")
    holds(opened(tmp_path / "a.h5", variable="cube"))


def test_hdf5_named_mat_is_read_as_matlab_reads_it_with_a_note(tmp_path):
    write_matlab_73(tmp_path / "a.mat", said=False, cube=LAST)
    source = opened(tmp_path / "a.mat")
    holds(source)
    assert "without MATLAB's own marks" in source.notes[0]


def test_matlab_73_structs_cells_and_texts(tmp_path):
    path = tmp_path / "a.mat"
    write_matlab_73(path, x=np.ones((2, 2)))
    with h5py.File(path, "r+") as file:

        def put(group: h5py.Group, name: str, values: np.ndarray, kind: str) -> h5py.Dataset:
            item = group.create_dataset(name, data=values)
            item.attrs["MATLAB_class"] = np.bytes_(kind)
            return item

        def chars(text: str) -> np.ndarray:
            return np.array([[ord(c)] for c in text], "u2")

        refs = file.create_group("#refs#")
        items = [put(refs, "a", LAST.T, "int16"), put(refs, "b", (LAST + 1).T, "int16")]
        put(refs, "c", LAST.T, "int16")
        put(file, "data", np.array([[i.ref] for i in items], h5py.ref_dtype), "cell")
        hsi = file.create_group("hsi")
        hsi.attrs["MATLAB_class"] = np.bytes_("struct")
        put(hsi, "Data", LAST.T, "int16")
        put(hsi, "wavelength", np.array([[500.0], [600], [700]]), "double")
        put(hsi, "wavelength_units", chars("Nanometers"), "char")
        file.create_group("elements")["Data"] = np.array([[i.ref] for i in items], h5py.ref_dtype)
        put(file, "words", chars("not a cube"), "char")
        put(file, "table", np.zeros((6, 1), "u4"), "table")
        put(file, "empty", np.array([0, 5, 4], "u8"), "double").attrs["MATLAB_empty"] = 1
        sparse = file.create_group("labels")
        sparse.attrs["MATLAB_class"], sparse.attrs["MATLAB_sparse"] = np.bytes_("double"), 2
        matrix = csc_matrix(np.array([[0.0, 2, 0], [1, 0, 3]]))
        sparse["data"], sparse["ir"], sparse["jc"] = matrix.data, matrix.indices, matrix.indptr
        hsi["self"] = hsi  # a loop
    for name in ("hsi.Data", "hsi/Data", "data{1}", "elements(1).Data"):
        holds(opened(path, variable=name))
    holds(opened(path, variable="data{2}"), CUBE + 1)
    source = opened(path, variable="hsi.Data")
    assert source.wavelengths.tolist() == [500, 600, 700]
    assert set(source.variables) == {
        *("x", "data{1}", "data{2}", "elements(1).Data", "elements(2).Data", "hsi.Data", "hsi.wavelength", "labels")
    }  # fmt: skip
    labels = opened(path, variable="labels", one_layer=True).whole()
    np.testing.assert_array_equal(labels[0], [[0, 2, 0], [1, 0, 3]])
    with pytest.raises(UserError, match="'words' holds text"):
        opened(path, variable="words")
    with pytest.raises(UserError, match="'table' holds a MATLAB table"):
        opened(path, variable="table")
    with pytest.raises(UserError, match="'empty' holds an empty array"):
        opened(path, variable="empty")


# HDF5


def write_hdf5(path: Path, data: np.ndarray = LAST, **attributes: object) -> Path:
    with h5py.File(path, "w") as file:
        file["cube"] = data
        for name, value in attributes.items():
            file["cube"].attrs[name.replace("__", " ")] = value
    return path


def test_hdf5_attributes_and_georeference(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        data = file.create_dataset("site/Reflectance/Data", data=LAST)
        data.attrs["Scale_Factor"], data.attrs["Data_Ignore_Value"] = [10000.0], [-9999.0]
        system = file.create_group("site/Reflectance/Metadata/Coordinate_System")
        system["Map_Info"] = "UTM, 1.0, 1.0, 257000.0, 4112000.0, 1.0, 1.0, 11, North, WGS-84"
        system["EPSG Code"] = "32611"
    source = opened(path)
    holds(source)
    assert (source.scale, source.nodata) == (10000, (-9999,))
    assert source.transform == (1, 0, 257000, 0, -1, 4112000)
    assert rasterio.crs.CRS.from_wkt(source.crs).to_epsg() == 32611


def test_neon_before_2016(tmp_path):
    path = write_hdf5(
        tmp_path / "a.h5",
        CUBE,
        Scale__Factor="10000.0",
        data__ignore__value="15000.0",
        DIMENSION_LABELS=["Wavelength", "Line", "Sample"],
    )
    with h5py.File(path, "r+") as file:
        file["wavelength"] = [[0.5, 0.6, 0.7]]
        file["map info"] = np.array(
            ["UTM,1.000,1.000,256521.0,4112571.0,1.0,1.0,11,North,WGS-84,units=Meters"], "S100"
        )
    source = opened(path)  # axes are labelled
    holds(source)
    assert (source.scale, source.nodata) == (10000, (15000,))
    np.testing.assert_allclose(source.wavelengths, [500, 600, 700])
    assert source.transform == (1, 0, 256521, 0, -1, 4112571)
    assert rasterio.crs.CRS.from_wkt(source.crs).to_epsg() == 32611
    np.testing.assert_allclose(read_wavelengths(path, "wavelength"), [500, 600, 700])


@pytest.mark.parametrize(
    ("attributes", "scale", "offset"),
    [
        ({"scale_factor": 0.0001, "add_offset": 0.05}, 10000, 0.05),  # CF multiplies
        ({"Scale_Factor": 10000}, 10000, 0),  # NEON divides
        ({"Scale__Factor": "10000.0 "}, 10000, 0),
        ({"Reflectance_Scale_Factor": np.bytes_("1e4")}, 10000, 0),
        ({"Scale_Factor": 0.0001}, 10000, 0),  # nobody divides reflectance by it
        ({"scale_factor": np.float32([0.5])}, 2, 0),
        ({"scale_factor": 1.0, "add_offset": 0}, 1, 0),
        ({"scale_factor": np.array([0.1, 0.2, 0.4])}, [10, 5, 2.5], 0),
    ],
)
def test_scales_are_read_by_name_and_size(tmp_path, attributes, scale, offset):
    source = opened(write_hdf5(tmp_path / "a.h5", **attributes))
    np.testing.assert_allclose(source.scale, scale)
    assert (source.offset, source.doubts) == (offset, {})


@pytest.mark.parametrize(
    ("attributes", "field", "why"),
    [
        (
            {"scale_factor": 10000},
            "scale",
            "scale: 0.0001 to multiply by 10000, or scale: 10000 to divide",
        ),
        ({"Scale_Factor": 0.5}, "scale", "multiplied by it"),
        ({"Scale_Factor": "Reflectance x 10000"}, "scale", "'Reflectance x 10000', no number"),
        ({"scale_factor": [0.1, 0.2]}, "scale", "2 numbers for 3 bands"),
        ({"scale_factor": 0.0}, "scale", "is '0.0'"),
        ({"scale_factor": 0.001, "Scale__Factor": 10000}, "scale", "several attributes"),
        ({"offset": 5}, "offset", "'offset' is '5'"),
        ({"_FillValue": "the lowest"}, "nodata", "'the lowest', no number"),
    ],
)
def test_what_attributes_state_unclearly_is_a_doubt(tmp_path, attributes, field, why):
    source = opened(write_hdf5(tmp_path / "a.h5", **attributes))
    assert list(source.doubts) == [field]
    assert why in source.doubts[field]


@pytest.mark.parametrize(
    ("attributes", "dtype", "nodata"),
    [
        ({"_FillValue": np.float32([-9999])}, "f4", (-9999,)),
        ({"missing__value": "-9999"}, "i2", (-9999,)),
        ({"NoDataValue": -1.0, "FillValue": [-2, -3]}, "i2", (-1, -2, -3)),
        ({"Data_Ignore_Value": "-9999.0, -8888"}, "f8", (-9999, -8888)),
        ({"_FillValue": np.nan}, "f4", ()),
        ({"_FillValue": 1e20}, "f4", (float(np.float32(1e20)),)),
        ({"_FillValue": np.uint64(2**64 - 1)}, "u8", (2**64 - 1,)),
        ({"nodata": "none"}, "i2", ()),
        ({"_FillValue": np.int16(-1), "_Unsigned": "true"}, "i2", (65535,)),
        ({"_FillValue": -9999.0}, "f2", (float(np.float16(-9999)),)),
        ({"_FillValue": 0}, "i2", (0,)),
    ],
)
def test_values_that_mean_no_data(tmp_path, attributes, dtype, nodata):
    source = opened(write_hdf5(tmp_path / "a.h5", LAST.astype(dtype), **attributes))
    assert sorted(source.nodata) == sorted(nodata)
    assert (source.doubts, source.notes) == ({}, ())


def test_a_fill_value_that_the_type_cannot_hold_is_noted(tmp_path):
    source = opened(
        write_hdf5(tmp_path / "a.h5", LAST.astype("u2"), _FillValue=-9999, missing_value=0.5)
    )
    assert source.nodata == ()
    assert "no uint16 value can be -9999, so attribute '_FillValue' is not used" in source.notes[0]
    assert "0.5" in source.notes[1]


def test_hdf5s_own_fill_value(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("cube", data=LAST, fillvalue=-999)
        file.create_dataset("other", data=LAST)
    assert opened(tmp_path / "a.h5", variable="cube").nodata == (-999,)
    assert opened(tmp_path / "a.h5", variable="other").nodata == ()


def test_valid_range_and_unsigned(tmp_path):
    source = opened(write_hdf5(tmp_path / "a.h5", valid_range=np.int16([0, 300])))
    holds(source, np.where((CUBE >= 0) & (CUBE <= 300), CUBE, np.nan))
    assert "stored values outside 0 to 300 ('valid_range') count as no data" in source.notes[0]
    # floating limits of packed values are in the units of the unpacked ones
    source = opened(
        write_hdf5(tmp_path / "a.h5", valid_min=0.0, valid_max=0.03, scale_factor=0.0001)
    )
    holds(source, np.where((CUBE >= 0) & (CUBE <= 300), CUBE, np.nan))
    source = opened(write_hdf5(tmp_path / "a.h5", _Unsigned="true"))
    holds(source, CUBE.astype("u2"))
    source = opened(write_hdf5(tmp_path / "a.h5", valid_range="all"))
    holds(source)
    assert "no range of numbers" in source.notes[0]


def test_wavelengths_beside_the_cube(tmp_path):
    path = write_hdf5(tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        file["about/bands/wavelengths"] = np.float32([0.5, 0.6, 0.7])
        file["about/bands/wavelengths"].attrs["Units"] = "micrometers"
        file["about/bands/fwhm"] = np.float32([0.01, 0.01, 0.02])
        file["about/bands/good_wavelengths"] = [1, 0, 1]
        file["about/names"] = [b"a", b"b", b"c"]
    source = opened(path)
    np.testing.assert_allclose(source.wavelengths, [500, 600, 700], rtol=1e-6)
    np.testing.assert_allclose(source.fwhm, [10, 10, 20], rtol=1e-6)
    assert source.good_bands.tolist() == [True, False, True]
    np.testing.assert_allclose(
        read_wavelengths(path, "about/bands/wavelengths"), [500, 600, 700], rtol=1e-6
    )
    with h5py.File(path, "r+") as file:
        file["wavelength"] = [400.0, 500, 600]  # nearer to the cube
    assert opened(path).wavelengths.tolist() == [400, 500, 600]
    with h5py.File(path, "r+") as file:
        file["center_wavelengths"] = [410.0, 500, 600]
    source = opened(path)
    assert source.wavelengths is None
    assert "'center_wavelengths', 'wavelength'" in source.doubts["wavelengths"]


def test_a_vector_with_a_unit_of_wavelengths_or_attributes_of_the_cube_state_them(tmp_path):
    path = write_hdf5(tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        file["bands"] = [500.0, 600, 700]
    assert opened(path).wavelengths is None  # these may be anything
    with h5py.File(path, "r+") as file:
        file["bands"].attrs["units"] = "nm"
        file["fwhm"] = [5.0, 6, 7]
        file["fwhm"].attrs["units"] = "nm"
    assert opened(path).wavelengths.tolist() == [500, 600, 700]
    path = write_hdf5(tmp_path / "b.h5", wavelengths=[0.5, 0.6, 0.7], wavelength_units="um")
    np.testing.assert_allclose(opened(path).wavelengths, [500, 600, 700])


def test_bands_on_another_axis_than_the_last_are_noticed(tmp_path):
    path = write_hdf5(tmp_path / "a.h5", CUBE)
    with h5py.File(path, "r+") as file:
        file["wavelength"] = [500.0, 600, 700]
    with pytest.raises(
        UserError, match=r"shape \(3, 5, 4\), and 3 wavelengths.*write axes: 'band y x'"
    ):
        opened(path)
    holds(opened(path, axes="band y x"))


def test_named_dimensions_are_the_axes(tmp_path):
    path = write_hdf5(tmp_path / "a.nc", CUBE)
    with h5py.File(path, "r+") as file:
        for i, (name, values) in enumerate(
            {
                "wavelength": [500.0, 600, 700],
                "y": 100.0 - 10 * np.arange(5),
                "x": 50.0 + 10 * np.arange(4),
            }.items()
        ):
            file[name] = values
            file[name].make_scale(name)
            file["cube"].dims[i].attach_scale(file[name])
        file["crs"] = 0
        file["crs"].attrs["crs_wkt"] = rasterio.crs.CRS.from_epsg(32633).to_wkt()
        file["cube"].attrs["grid_mapping"] = "crs"
    source = opened(path)
    holds(source)
    assert source.wavelengths.tolist() == [500, 600, 700]
    assert source.transform == (10, 0, 45, 0, -10, 105)
    assert rasterio.crs.CRS.from_wkt(source.crs).to_epsg() == 32633
    source = opened(path, axes="band x y")
    assert source.transform is None
    assert "the file names them 'band y x'" in source.notes[0]


def test_a_dimension_without_values_states_none(tmp_path):
    path = write_hdf5(tmp_path / "a.nc", LAST)
    with h5py.File(path, "r+") as file:
        file["wavelength"] = np.zeros(3, "f4")
        file["wavelength"].make_scale(
            "This is a netCDF dimension but not a netCDF variable.         3"
        )
    source = opened(path)
    assert source.wavelengths is None
    assert (list(source.variables), source.doubts) == (["cube"], {})


def test_axes_of_length_1_are_left_out(tmp_path):
    path = write_hdf5(tmp_path / "a.h5", CUBE[None])
    holds(opened(path, variable="cube", axes="band y x"))
    path = write_hdf5(tmp_path / "b.h5", LAST[None, :, None])
    holds(opened(path))
    path = write_hdf5(tmp_path / "c.h5", LAST[None, :, :1, None])
    with pytest.raises(UserError, match="which of those of length 1 are left out is not clear"):
        opened(path, axes="y x band")
    path = write_hdf5(tmp_path / "d.h5", CUBE[:1])
    assert opened(path, one_layer=True).shape == (1, 5, 4)


def test_links(tmp_path):
    path = write_hdf5(tmp_path / "a.h5")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["elsewhere"] = LAST
    with h5py.File(path, "r+") as file:
        file["soft"] = h5py.SoftLink("/cube")
        file["loop"] = h5py.SoftLink("/loop")
        file["nowhere"] = h5py.SoftLink("/gone")
        file["group/again"] = file["/"]
        file["out"] = h5py.ExternalLink("b.h5", "elsewhere")
        file["far"] = h5py.SoftLink("/out")
        layout = h5py.VirtualLayout(LAST.shape, LAST.dtype)
        layout[...] = h5py.VirtualSource(str(tmp_path / "b.h5"), "elsewhere", LAST.shape)
        file.create_virtual_dataset("virtual", layout)
    holds(opened(path, variable="soft"))
    holds(opened(path, variable="/cube"))
    for name in ("loop", "nowhere"):
        with pytest.raises(UserError, match="leads nowhere"):
            opened(path, variable=name)
    with pytest.raises(UserError, match=r"'out' is a link to another file, b\.h5"):
        opened(path, variable="out")
    with pytest.raises(UserError, match=r"'far' is a link to another file"):
        opened(path, variable="far")
    with pytest.raises(UserError, match="'virtual' lie in other files"):
        opened(path, variable="virtual")


def test_what_is_no_number_does_not_disturb_and_cannot_be_a_cube(tmp_path):
    path = write_hdf5(tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        file["complex"] = LAST * 1j
        file["records"] = np.zeros((5, 4, 3), [("a", "f4"), ("b", "i2")])
        file["words"] = np.array([b"a", b"b"])
        file["strings"] = ["a", "b"]
        file.create_dataset("refs", data=np.array([file["cube"].ref], h5py.ref_dtype))
        file["enum"] = np.zeros((5, 4), h5py.enum_dtype({"soil": 0, "tree": 1}, "i1"))
        file["flags"] = np.zeros((5, 4), bool)
        file["null"] = h5py.Empty("f4")
        file["ragged"] = np.array([np.arange(2), np.arange(3)], h5py.vlen_dtype("i4"))
    source = opened(path)
    holds(source)
    assert set(source.variables) == {"cube", "enum", "flags"}
    for name, why in {"complex": "complex", "records": "records", "words": "text", "refs": "references",
                      "null": "empty", "ragged": "objects"}.items():  # fmt: skip
        with pytest.raises(UserError, match=f"'{name}' holds .*{why}.*the file has 'cube'"):
            opened(path, variable=name)


@pytest.mark.parametrize("dtype", [">i2", ">f4", "f2", "u1", "i8", "g"])
def test_types(tmp_path, dtype):
    right = np.abs(CUBE) if dtype == "u1" else CUBE
    for order in ("C", "F"):
        array = np.array(right.transpose(1, 2, 0).astype(dtype), order=order)
        np.save(tmp_path / "a.npy", array)
        holds(opened(tmp_path / "a.npy"), right.astype(dtype))
    if dtype != "g":
        holds(opened(write_hdf5(tmp_path / "a.h5", array)), right.astype(dtype))


def test_empty_unwritten_and_absurd_hdf5_arrays(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("none", (0, 4, 3), "f4")
        file.create_dataset("unwritten", (5, 4, 3), "f4")
        file.create_dataset("claims", (10**6, 10**6, 200), "f4", chunks=(10, 10, 10))[
            :10, :10, :10
        ] = 1
    with pytest.raises(UserError, match=r"has no values, its shape is \(0, 4, 3\)"):
        opened(tmp_path / "a.h5", variable="none")
    with pytest.raises(UserError, match="no value of 'unwritten' was ever written"):
        opened(tmp_path / "a.h5", variable="unwritten").whole()
    with pytest.raises(UserError, match=r"'claims' .*never filled"):
        opened(tmp_path / "a.h5", variable="claims")


def test_an_unknown_compression_is_named(tmp_path):
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk((5, 4, 3))
    plist.set_deflate(4)
    path = tmp_path / "a.h5"
    with h5py.File(path, "w", libver="earliest") as file:
        h5py.h5d.create(
            file.id, b"cube", h5py.h5t.NATIVE_INT16, h5py.h5s.create_simple((5, 4, 3)), plist
        )
        file["cube"][...] = LAST
    data = path.read_bytes()
    name = data.index(b"deflate")
    head = data[:name].rfind(b"\x01\x00\x08\x00", name - 16, name)
    data = data[:head] + (32099).to_bytes(2, "little") + data[head + 2 :]
    path.write_bytes(data.replace(b"deflate", b"dense\0\0"))
    with pytest.raises(UserError, match=r"dense \(number 32099\).*hdf5plugin"):
        opened(path)


def test_a_file_of_thousands_of_arrays_is_listed_in_time(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for i in range(3000):
            file[f"g{i % 50}/d{i}"] = np.zeros(3)
        file["cube"] = LAST
    start = time.process_time()
    holds(opened(tmp_path / "a.h5"))
    assert time.process_time() - start < 10
    with pytest.raises(UserError, match="and 2961 more") as told:
        opened(tmp_path / "a.h5", variable="nothing")
    assert len(str(told.value)) < 3000


# netCDF 3, HDF4, names


def write_netcdf3(path: Path, version: int = 1) -> None:
    with netcdf_file(path, "w", version=version) as file:
        for name, size in {"band": 3, "lat": 5, "lon": 4, "chars": 2}.items():
            file.createDimension(name, size)
        file.createVariable("wavelength", "f8", ("band",))[:] = [500, 600, 700]
        file.variables["wavelength"].units = "nm"
        file.createVariable("lat", "f8", ("lat",))[:] = 50 - 0.5 * np.arange(5)
        file.createVariable("lon", "f8", ("lon",))[:] = 8 + 0.5 * np.arange(4)
        file.variables["lat"].units, file.variables["lon"].units = "degrees_north", "degrees_east"
        file.createVariable("title", "c", ("chars",))[:] = [b"a", b"b"]
        cube = file.createVariable("rfl", "i2", ("band", "lat", "lon"))
        cube[:] = CUBE
        cube.scale_factor, cube._FillValue = 0.0001, np.int16(-999)


@pytest.mark.parametrize(
    ("name", "version"), [("a.nc", 1), ("a.nc3", 2), ("a.h5", 1), ("a.mat", 2)]
)
def test_netcdf3(tmp_path, name, version):
    write_netcdf3(tmp_path / name, version)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # SciPy warns of maps that stay open
        source = opened(tmp_path / name)
        holds(source)
    assert (source.scale, source.nodata) == (pytest.approx(10000), (-999, -32767))
    assert source.wavelengths.tolist() == [500, 600, 700]
    assert source.transform == (0.5, 0, 7.75, 0, -0.5, 50.25)
    assert rasterio.crs.CRS.from_wkt(source.crs).to_epsg() == 4326


def test_formats_that_are_not_read_say_so(tmp_path):
    (tmp_path / "a.hdf").write_bytes(b"\x0e\x03\x13\x01" + bytes(100))
    with pytest.raises(UserError, match=r"a\.hdf: an HDF4 file.*h4toh5"):
        opened(tmp_path / "a.hdf")
    (tmp_path / "a.nc").write_bytes(b"CDF\x05" + bytes(100))
    with pytest.raises(UserError, match=r"a\.nc: .*CDF-5.*nccopy"):
        opened(tmp_path / "a.nc")
    (tmp_path / "a.npy").write_bytes(pickle.dumps({"cube": 1}))
    with pytest.raises(UserError, match=r"a\.npy: a Python pickle; it is never loaded"):
        opened(tmp_path / "a.npy")


@pytest.mark.parametrize("suffix", ["nc", "nc4", "hdf", "he5", "hdf5", "H5", "npy"])
def test_hdf5_under_other_names(tmp_path, suffix):
    holds(opened(write_hdf5(tmp_path / f"a.{suffix}")))


# NumPy


def test_numpy(tmp_path):
    np.save(tmp_path / "a.npy", CUBE)
    holds(opened(tmp_path / "a.npy", axes="band y x"))
    np.save(tmp_path / "b.npy", CUBE.transpose(0, 2, 1).reshape(3, 20))
    holds(opened(tmp_path / "b.npy", axes="band (x y)", shape={"x": 4}))
    np.save(tmp_path / "c.npy", LAST.reshape(20, 3))
    holds(opened(tmp_path / "c.npy", axes="(y x) band", shape={"x": 4}))
    names = np.array(["a", "b"])
    np.savez(
        tmp_path / "a.npz",
        cube=LAST,
        names=names,
        wavelength=[0.5, 0.6, 0.7],
        wavelength_units="um",
    )
    source = opened(tmp_path / "a.npz", variable="cube")
    holds(source)
    np.testing.assert_allclose(source.wavelengths, [500, 600, 700])


def test_only_numbers_of_an_npz_are_listed_and_objects_are_never_loaded(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, cube=CUBE, words=np.array(["ä", "b"]), things=np.array([{}], dtype=object))
    source = opened(path, axes="band y x")
    assert source.variables == {"cube": CUBE.shape}
    holds(source)
    with pytest.raises(
        UserError, match=r"'things' holds objects; they are never loaded.*'cube' \(3, 5, 4\)"
    ):
        read_variable(path, "things")
    np.save(tmp_path / "a.npy", np.array([{}], dtype=object))
    with pytest.raises(UserError, match=r"no numeric variable, but 'array' \(objects\)"):
        opened(tmp_path / "a.npy")


def test_an_npz_with_changed_bytes(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, cube=np.random.default_rng(0).random((9, 8, 7)))
    data = bytearray(path.read_bytes())
    data[350:370] = bytes(20)
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"a\.npz: cannot be read"):
        opened(path).whole()


def test_an_npy_file_under_another_name(tmp_path):
    np.save(tmp_path / "a.npy", LAST)
    (tmp_path / "a.npy").rename(tmp_path / "a.npz")
    holds(opened(tmp_path / "a.npz"))
    np.save(tmp_path / "b.npy", np.full((3, 4, 5), "x"))
    with pytest.raises(UserError, match=r"b\.npy.*no numeric variable"):
        opened(tmp_path / "b.npy")


@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
def test_numpy_headers_that_claim_too_much(tmp_path, name):
    (np.save if name == "a.npy" else np.savez)(tmp_path / name, LAST)
    data = (tmp_path / name).read_bytes()
    start = data.index(b"(5, 4, 3)")
    data = (
        data[:start] + b"(1000000, 1000000, 3)" + data[start + 9 : start + 9] + data[start + 21 :]
    )
    if name == "a.npy":
        data = data[:start] + b"(1000000, 1000000, 3), }" + data[start + 24 :]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=rf"{name}: "):
        opened(tmp_path / name).whole()


# all of them


def test_variables_are_listed_when_the_name_is_wrong_or_missing(tmp_path):
    path = tmp_path / "a.mat"
    savemat(path, {"one": CUBE, "two": CUBE, "labels": np.ones((5, 4))})
    listing = r"a\.mat: .*'one' \(3, 5, 4\), 'two' \(3, 5, 4\), 'labels' \(5, 4\)"
    for variable in (None, "three"):
        with pytest.raises(UserError, match=listing):
            opened(path, variable=variable)
    with pytest.raises(UserError, match=listing):
        read_variable(path, "three")


def test_a_2d_array_needs_axes(tmp_path):
    path = tmp_path / "a.mat"
    savemat(path, {"flat": CUBE.reshape(3, 20)})
    with pytest.raises(UserError, match=r"a\.mat.*2-D array of shape \(3, 20\).*'axes'.*'shape'"):
        opened(path, variable="flat")
    with pytest.raises(UserError, match="needs the band axis"):
        opened(path, variable="flat", axes="y x")
    assert opened(path, variable="flat", one_layer=True).shape == (1, 3, 20)


def test_a_shape_that_may_be_meant_otherwise_is_noted(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((200, 9, 9)))
    assert (
        "taken as y x band, 9 bands; if that is wrong, give 'axes'"
        in opened(tmp_path / "a.npy").notes[0]
    )
    assert opened(tmp_path / "a.npy", axes="y x band").notes == ()


@pytest.mark.parametrize("name", ["a.mat", "b.mat", "a.h5", "a.nc", "a.npy", "a.npz"])
def test_cut_and_changed_files_give_values_or_one_error(tmp_path, name):
    path = tmp_path / name
    if name == "a.mat":
        savemat(
            path,
            {"cube": LAST, "s": {"wavelength": np.array([500.0, 600, 700])}},
            do_compression=True,
        )
    elif name == "b.mat":
        write_matlab_73(path, cube=LAST)
    elif name == "a.h5":
        write_hdf5(path, scale_factor=0.1)
    elif name == "a.nc":
        write_netcdf3(path)
    else:
        (np.save if name == "a.npy" else np.savez)(path, LAST)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    damaged = [whole[: int(n)] for n in rng.integers(0, len(whole), 15)]
    for _ in range(60):
        data = bytearray(whole)
        for place in rng.integers(0, min(len(whole), 4000), 4):
            data[place] = rng.integers(0, 256)
        damaged.append(bytes(data))
    for data in damaged:
        path.write_bytes(data)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                opened(path).whole()
        except UserError as error:
            assert "\n" not in str(error)
            assert str(path) in str(error)
