"""Arrays of MATLAB, HDF5 and NumPy files, whatever else these files hold."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import rasterio
from rasters import CUBE, whole
from scipy.io import savemat

from special_steps.core.errors import UserError
from special_steps.io.arrays import read_variable
from special_steps.io.source import open_source


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


def test_only_numbers_of_an_npz_are_listed_and_objects_are_never_loaded(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, cube=CUBE, words=np.array(["ä", "b"]), things=np.array([{}], dtype=object))
    source = open_source(path, axes="band y x")
    assert source.variables == {"cube": CUBE.shape}
    np.testing.assert_array_equal(whole(source), CUBE)
    with pytest.raises(UserError, match=r"no variable 'things'; the file has 'cube' \(3, 5, 4\)"):
        read_variable(path, "things")


def test_an_npz_with_changed_bytes(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, cube=np.random.default_rng(0).random((9, 8, 7)))
    data = bytearray(path.read_bytes())
    data[350:370] = bytes(20)
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"a\.npz: cannot be read"):
        open_source(path).read(0, 3)


def test_an_npy_file_under_another_name(tmp_path):
    np.save(tmp_path / "a.npy", CUBE)
    (tmp_path / "a.npy").rename(tmp_path / "a.npz")
    with pytest.raises(UserError, match=r"a\.npz: cannot be read.*another format"):
        open_source(tmp_path / "a.npz")
    np.save(tmp_path / "b.npy", np.full((3, 4, 5), "x"))
    with pytest.raises(UserError, match=r"b\.npy.*no numeric variable"):
        open_source(tmp_path / "b.npy")


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
    assert open_source(path, variable="flat", one_layer=True).shape == (1, 3, 20)
