"""Cubes of xarray as sources: bands, place, masks; what is stale or unknown is refused or told."""

import numpy as np
import pytest
import xarray
from rasters import whole

from special_steps.core.errors import UserError
from special_steps.core.store import Grid, new_store, write_array
from special_steps.io.array_xarray import source_of
from special_steps.io.bands import choose_bands

VALUES = np.random.default_rng(0).random((4, 5, 6), np.float32)  # band, y, x
NM = [450.0, 550, 650, 860]
UTM = "EPSG:32633"
ALL = {"wavelengths": None, "scale": None, "bad_ranges": [], "drop_bands": []}


def cube(dims=("band", "y", "x"), **coords) -> xarray.DataArray:
    array = xarray.DataArray(VALUES, dims=dims, coords={"band": NM} | coords)
    return array.rename("reflectance")


def placed(**more) -> xarray.DataArray:
    """With centres of pixels of 2 m, and the CRS as rioxarray has it."""
    array = cube(x=101 + 2.0 * np.arange(6), y=99 - 2.0 * np.arange(5), **more)
    array = array.assign_coords(spatial_ref=0)
    array.spatial_ref.attrs["crs_wkt"] = UTM
    array.spatial_ref.attrs["GeoTransform"] = "100.0 2.0 0.0 100.0 0.0 -2.0"
    return array


@pytest.mark.parametrize("dims", [("y", "x", "band"), ("x", "band", "y"), ("band", "y", "x")])
def test_dimensions_are_known_by_name_in_any_order(dims):
    source = source_of(cube().transpose(*dims))
    np.testing.assert_array_equal(whole(source), VALUES)
    np.testing.assert_array_equal(source.wavelengths, NM)
    part = source.read(slice(1, 3), slice(2, 6))
    np.testing.assert_array_equal(part, VALUES[:, 1:3, 2:6])


def test_other_names_of_dimensions_and_micrometres():
    renamed = cube().rename(band="wavelength", y="lat", x="lon")
    renamed = renamed.assign_coords(wavelength=np.array(NM) / 1000)
    source = source_of(renamed)
    np.testing.assert_array_equal(whole(source), VALUES)
    np.testing.assert_allclose(source.wavelengths, NM)


def test_unknown_dimensions_are_refused_and_may_be_named():
    unnamed = xarray.DataArray(VALUES.transpose(1, 2, 0))
    with pytest.raises(UserError, match=r"dim_0, dim_1, dim_2 are band, y and x\? Rename"):
        source_of(unnamed)
    np.testing.assert_array_equal(whole(source_of(unnamed, axes="y x band")), VALUES)


def test_no_wavelengths_are_refused_once_they_are_asked_for():
    for numbers in (range(1, 5), [7, 8, 9, 10], np.arange(4.0)):
        source = source_of(cube().assign_coords(band=list(numbers)))
        with pytest.raises(UserError, match=r"no wavelengths lie along its bands; give them in nm"):
            choose_bands(source, **ALL)
    np.testing.assert_array_equal(choose_bands(source, **ALL | {"wavelengths": NM}).nm, NM)


def test_whole_numbers_are_wavelengths_unless_they_count():
    assert source_of(cube().assign_coords(band=[450, 550, 650, 860])).wavelengths[0] == 450


def test_a_variable_along_the_bands_and_text_are_wavelengths():
    numbered = cube().assign_coords(band=[1, 2, 3, 4])
    for values in (NM, [str(v) for v in NM]):
        source = source_of(numbered.assign_coords(wavelength=("band", values)))
        np.testing.assert_array_equal(source.wavelengths, NM)


def test_widths_and_good_bands_beside():
    told = cube(fwhm=("band", [10.0] * 4), good_band=("band", [True, False, True, True]))
    source = source_of(told)
    assert source.fwhm.tolist() == [10.0] * 4
    assert source.good_bands.tolist() == [True, False, True, True]


def test_attributes_count_as_long_as_they_are_of_these_bands():
    """As rioxarray gives ENVI files: the header's lists stay whole when bands are chosen."""
    header = {"wavelength": "{450, 550, 650, 860}", "bbl": "{1, 0, 1, 1}"}
    told = cube().assign_attrs(header)
    assert source_of(told).good_bands.tolist() == [True, False, True, True]
    numbered = told.assign_coords(band=[1, 2, 3, 4])
    np.testing.assert_array_equal(source_of(numbered).wavelengths, NM)
    for stale in (told.isel(band=[0, 1, 2]), told.isel(band=slice(None, None, -1))):
        source = source_of(stale)
        np.testing.assert_array_equal(source.wavelengths, stale.band)
        assert source.good_bands is None
        assert any("tell good bands of other bands than it has" in n for n in source.notes)


def test_a_coordinate_of_good_bands_counts_before_attributes():
    told = cube(good_band=("band", [True, True, True, False])).assign_attrs(
        wavelengths=NM, good_bands=[True, False, True, True]
    )
    assert source_of(told).good_bands.tolist() == [True, True, True, False]


def test_scale_and_fill_of_values_that_nobody_decoded():
    stored = xarray.DataArray(np.full((4, 5, 6), 2500, np.int16), dims=("band", "y", "x"))
    stored = stored.assign_coords(band=NM).assign_attrs(scale_factor=1e-4, _FillValue=-9999)
    source = source_of(stored)
    assert source.scale == pytest.approx(10_000)
    assert source.nodata == (-9999,)


def test_a_place_of_coordinates_and_crs():
    source = source_of(placed())
    assert source.transform == (2.0, 0.0, 100.0, 0.0, -2.0, 100.0)
    assert 'ID["EPSG",32633]' in source.crs


def test_a_cut_cube_lies_where_its_coordinates_say():
    cut = placed().isel(y=slice(1, 4), x=slice(2, 6))  # GeoTransform stays what it was
    assert source_of(cut).transform == (2.0, 0.0, 104.0, 0.0, -2.0, 98.0)


def test_a_stated_transform_is_exact_where_coordinates_are_rounded():
    array = placed().assign_coords(x=(101 + 2.0 * np.arange(6)).astype("f4") + np.float32(1e-5))
    assert source_of(array).transform == (2.0, 0.0, 100.0, 0.0, -2.0, 100.0)


def store(path, grid) -> xarray.Dataset:
    with new_store(path, step="t", settings={}, inputs=[], grid=grid) as group:
        write_array(group, "reflectance", VALUES, ("band", "y", "x"))
        write_array(group, "nodata", VALUES[0] > 0.7, ("y", "x"))
        write_array(group, "band", np.array(NM), ("band",))
        write_array(group, "good_band", np.array([True, True, False, True]), ("band",))
    return xarray.open_zarr(path)


def test_our_own_stores_are_read_back(tmp_path):
    transform = (0.1, 0.0, 1 / 3, 0.0, -0.1, 2 / 3)
    wkt = source_of(placed()).crs
    source = source_of(store(tmp_path / "c.zarr", Grid(wkt, transform)))
    np.testing.assert_array_equal(whole(source), VALUES)
    assert (source.crs, source.transform) == (wkt, transform)
    assert source.good_bands.tolist() == [True, True, False, True]
    np.testing.assert_array_equal(source.masked(slice(0, 5), slice(0, 6)), VALUES[0] > 0.7)
    np.testing.assert_array_equal(
        source.masked(slice(2, 3), slice(1, 4)), VALUES[0, 2:3, 1:4] > 0.7
    )
    assert not source.notes


def test_a_rotated_store_lies_where_it_says_with_a_word_of_caution(tmp_path):
    rotated = (1.0, 0.5, 0.0, 0.5, -1.0, 0.0)
    source = source_of(store(tmp_path / "r.zarr", Grid(UTM, rotated)).reflectance)
    assert source.transform == rotated
    assert "right only if no part of it was cut off" in source.notes[-1]


def test_which_of_several_cubes():
    two = xarray.Dataset({"a": cube(), "b": cube() * 2})
    with pytest.raises(UserError, match=r"which variable\? Give 'variable'; .*'a' \(4, 5, 6\)"):
        source_of(two)
    np.testing.assert_array_equal(whole(source_of(two, variable="b")), VALUES * 2)


@pytest.mark.parametrize("kind", [complex, str])
def test_no_numbers_are_refused(kind):
    with pytest.raises(UserError, match=r"complex numbers|text"):
        source_of(cube().astype(kind))


def test_two_dimensions_are_refused():
    with pytest.raises(UserError):
        source_of(cube()[0])
