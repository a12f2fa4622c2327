import h5py
import numpy as np
import pytest
from cf_files import GOOD, WAVELENGTHS, Cube, write

from special_steps.core.errors import UserError
from special_steps.io.hdf5 import open_hdf5
from special_steps.io.products import aviris3, cf, emit
from special_steps.io.record import Source


def assert_right(source: Source, cube: Cube) -> None:
    from rasterio.crs import CRS

    whole = source.whole()
    assert whole.dtype == cube.stored.dtype
    np.testing.assert_array_equal(whole, cube.stored)
    values = np.where(whole == source.nodata[0], np.nan, whole / source.scale + source.offset)
    np.testing.assert_allclose(values, cube.values, rtol=1e-6, atol=1e-9)
    part = source.read(slice(2, 9), slice(5, 33))
    np.testing.assert_array_equal(part, cube.stored[:, 2:9, 5:33])
    np.testing.assert_allclose(source.wavelengths, WAVELENGTHS * 1000, rtol=1e-6)
    np.testing.assert_allclose(source.fwhm, WAVELENGTHS * 10, rtol=1e-6)
    np.testing.assert_array_equal(source.good_bands, GOOD == 1)
    assert source.transform == pytest.approx(cube.transform, abs=1e-9)
    assert CRS.from_wkt(source.crs).to_epsg() == 4326
    assert not source.doubts and source.notes == ()


@pytest.mark.parametrize("order", ["band y x", "y x band", "x y band"])
def test_order_of_the_axes_comes_from_their_coordinates(tmp_path, order):
    cube = write(tmp_path / "cube.nc", order=order)
    assert_right(cf.open_product(cube.path), cube)


@pytest.mark.parametrize(
    "how",
    [
        {"geotransform": False},
        {"crs": False},
        {"ascending": True},
        {"ascending": True, "geotransform": False},
        {"unit": "nm"},
        {"packed": True},
        {"own_wavelengths": False},
        {"name": "Rrs"},
    ],
    ids=str,
)
def test_variants(tmp_path, how):
    cube = write(tmp_path / "cube.nc", **how)
    with open_hdf5(cube.path) as file:
        assert cf.holds(file) and not emit.holds(file) and not aviris3.holds(file)
    assert_right(cf.open_product(cube.path), cube)


def test_corners_written_as_coordinates_are_right_by_geotransform(tmp_path):
    cube = write(tmp_path / "cube.nc")
    with h5py.File(cube.path, "r+") as file:
        step = cube.transform[0]
        file["lon"][...] -= step / 2
        file["lat"][...] += step / 2
    assert_right(cf.open_product(cube.path), cube)


def test_percent_and_radiance(tmp_path):
    cube = write(tmp_path / "cube.nc")
    with h5py.File(cube.path, "r+") as file:
        file["reflectance"].attrs["units"] = "%"
    assert cf.open_product(cube.path).scale == 100
    with h5py.File(cube.path, "r+") as file:
        file["reflectance"].attrs["units"] = "W m-2 sr-1 um-1"
    assert "radiances (W m-2 sr-1 um-1)" in cf.open_product(cube.path).notes[0]


def test_reflectance_is_chosen_beside_its_uncertainty(tmp_path):
    cube = write(tmp_path / "cube.nc")
    with h5py.File(cube.path, "r+") as file:
        file.copy("reflectance", "reflectance_uncertainty")
        for axis, scale in enumerate(("bands", "lat", "lon")):
            file["reflectance_uncertainty"].dims[axis].attach_scale(file[scale])
    assert_right(cf.open_product(cube.path), cube)


def test_which_of_several(tmp_path):
    cube = write(tmp_path / "cube.nc", name="a")
    with h5py.File(cube.path, "r+") as file:
        file["b"] = file["a"][()]
        for axis, scale in enumerate(("bands", "lat", "lon")):
            file["b"].dims[axis].attach_scale(file[scale])
    with pytest.raises(UserError, match="which of a, b"):
        cf.open_product(cube.path)


def test_uneven_coordinates_leave_the_georeference_in_doubt(tmp_path):
    cube = write(tmp_path / "cube.nc")
    with h5py.File(cube.path, "r+") as file:
        file["lon"][4] += 0.01
    source = cf.open_product(cube.path)
    assert source.transform is None and "not evenly spaced" in source.doubts["transform"]


def test_unknown_crs_is_in_doubt(tmp_path):
    cube = write(tmp_path / "cube.nc")
    with h5py.File(cube.path, "r+") as file:
        file["lon"].attrs["units"] = file["lat"].attrs["units"] = "m"
        file["crs"].attrs["crs_wkt"] = "nonsense"
    source = cf.open_product(cube.path)
    assert source.crs is None and "crs" in source.doubts


def test_other_files_are_not_held(tmp_path):
    path = tmp_path / "other.nc"
    with h5py.File(path, "w") as file:
        file["cube"] = np.zeros((4, 5, 6))
        file["wavelength"] = np.arange(4.0)
        file["group"] = h5py.SoftLink("/")
        file["outside"] = h5py.ExternalLink("missing.nc", "/cube")
    with open_hdf5(path) as file:
        assert not cf.holds(file)
    with pytest.raises(UserError, match="no cube with x, y and wavelengths"):
        cf.open_product(path)


def test_damaged_file(tmp_path):
    cube = write(tmp_path / "cube.nc")
    whole = cube.path.read_bytes()
    cube.path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"cube\.nc.*damaged"):
        cf.open_product(cube.path)
