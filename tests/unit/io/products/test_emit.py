import h5py
import numpy as np
import pytest
from emit_files import FWHM, GOOD, HEIGHT, LINES, V002, V003, WAVELENGTHS, WIDTH, Granule, write

from special_steps.core.errors import UserError
from special_steps.io import lookup
from special_steps.io.hdf5 import open_hdf5
from special_steps.io.products import cf, emit
from special_steps.io.record import Source


def values_of(source: Source, rows: slice, columns: slice) -> np.ndarray:
    read = source.read(rows, columns)
    masked = source.masked(rows, columns)
    assert (read[:, masked] == source.nodata[0]).all()
    return np.where(masked, np.nan, read)


def assert_right(source: Source, granule: Granule) -> None:
    assert source.shape == granule.values.shape
    whole = values_of(source, slice(0, HEIGHT), slice(0, WIDTH))
    np.testing.assert_array_equal(whole, granule.values)
    np.testing.assert_array_equal(source.masked(slice(0, HEIGHT), slice(0, WIDTH)), granule.masked)
    for rows, columns in ((slice(10, 31), slice(40, 77)), (slice(89, 90), slice(0, WIDTH))):
        np.testing.assert_array_equal(
            values_of(source, rows, columns), granule.values[:, rows, columns]
        )


@pytest.mark.parametrize("chunks", [None, (16, 25, 4), (70, 50, 6)])
def test_reflectance_is_put_on_the_map_by_the_table(tmp_path, chunks):
    granule = write(tmp_path, chunks=chunks)
    source = emit.open_product(granule.path)
    assert_right(source, granule)
    assert source.kind == "EMIT L2A" and source.notes == () and not source.doubts
    assert source.files == [granule.path, granule.mask]
    assert source.nodata == (-9999.0,) and source.scale == 1.0
    np.testing.assert_allclose(source.wavelengths, WAVELENGTHS)
    np.testing.assert_allclose(source.fwhm, FWHM, rtol=1e-6)
    np.testing.assert_array_equal(source.good_bands, GOOD == 1)


def test_georeference_is_of_corners(tmp_path):
    from rasterio.crs import CRS

    granule = write(tmp_path)
    source = emit.open_product(granule.path)
    assert source.transform == pytest.approx(granule.transform, abs=1e-12)
    assert CRS.from_wkt(source.crs).to_epsg() == 4326
    assert source.crs.startswith("GEOGCRS")


def test_negative_numbers_in_the_table_are_pixels_too(tmp_path):
    granule = write(tmp_path, filled=True)
    assert_right(emit.open_product(granule.path), granule)


@pytest.mark.parametrize("fill", [-9999, 0])
def test_fill_value_of_the_table_is_no_pixel(tmp_path, fill):
    granule = write(tmp_path)
    with h5py.File(granule.path, "r+") as file:
        for name in ("glt_x", "glt_y"):
            table = file["location"][name]
            stored = table[()]
            stored[stored == 0] = fill
            table[...] = stored
            table.attrs["_FillValue"] = np.array([-9999], np.int32)
    assert_right(emit.open_product(granule.path), granule)


def test_strips_of_few_bytes_read_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(lookup, "BYTES", 3000)
    granule = write(tmp_path, chunks=(16, 25, 4))
    assert_right(emit.open_product(granule.path), granule)


@pytest.mark.parametrize("version", ["001", "002", "003"])
def test_quality_by_the_names_of_the_flags(tmp_path, version):
    if version == "001":
        granule = write(tmp_path)
    else:
        granule = write(
            tmp_path,
            name="EMIT_L2A_RFL_002_20220810T034103.nc",
            mask=f"EMIT_L2A_MASK_{version}_20220810T034103_2222203_001.nc",
            mask_bands=V002 if version == "002" else V003,
        )
    source = emit.open_product(granule.path)
    flags = {n.lower(): f for n, f in granule.flags.items()}
    right = {
        "cloud": flags["cloud flag"] | flags.get("spectf-cloud flag", False),
        "cirrus": flags["cirrus flag"],
        "water": flags["water flag"],
        "dilated_cloud": flags["dilated cloud flag"],
    }
    if version != "003":
        right["spacecraft"] = flags["spacecraft flag"]
    assert set(source.quality) == set(right)
    for name, flag in right.items():
        read = source.quality[name](slice(0, HEIGHT), slice(0, WIDTH))
        assert read.dtype == bool and read.any()
        np.testing.assert_array_equal(read, flag, err_msg=name)
        part = source.quality[name](slice(30, 50), slice(11, 64))
        np.testing.assert_array_equal(part, flag[30:50, 11:64])


def test_without_mask_there_is_no_quality(tmp_path):
    granule = write(tmp_path, mask=None)
    source = emit.open_product(granule.path)
    assert source.quality == {} and source.files == [granule.path]
    assert_right(source, granule)


def test_radiance_comes_with_a_note(tmp_path):
    granule = write(
        tmp_path,
        content="radiance",
        name="EMIT_L1B_RAD_001_20220810T034103_2222203_001.nc",
    )
    source = emit.open_product(tmp_path)
    assert_right(source, granule)
    assert source.kind == "EMIT L1B" and source.good_bands is None
    assert "radiances (uW/cm^2/SR/nm)" in source.notes[0]


def test_files_by_name_folder_and_case(tmp_path):
    granule = write(tmp_path)
    assert emit.files_of(granule.path) == emit.files_of(tmp_path) == [granule.path, granule.mask]
    for other in ("EMIT_L2A_RFLUNCERT_001_20220810T034103_2222203_001.nc", "readme.txt"):
        (tmp_path / other).touch()
        assert emit.files_of(tmp_path / other) == []
    assert emit.files_of(granule.mask) == []
    assert emit.files_of(tmp_path / "missing" / granule.path.name) == []
    write(tmp_path, content="radiance", name="EMIT_L1B_RAD_001_20220810T034103_2222203_001.nc")
    assert emit.files_of(tmp_path)[0] == granule.path
    upper = write(
        tmp_path / "upper", name=granule.path.name.upper(), mask=granule.mask.name.lower()
    )
    assert_right(emit.open_product(tmp_path / "upper"), upper)
    assert emit.files_of(upper.path) == [upper.path, upper.mask]


def test_of_versions_the_highest(tmp_path):
    write(tmp_path)
    newer = write(
        tmp_path,
        name="EMIT_L2A_RFL_002_20220810T034103.nc",
        mask="EMIT_L2A_MASK_003_20220810T034103.nc",
        mask_bands=V003,
    )
    assert emit.files_of(tmp_path) == [newer.path, newer.mask]


def test_folder_with_several_acquisitions_is_refused(tmp_path):
    write(tmp_path)
    write(tmp_path, name="EMIT_L2A_RFL_001_20220811T000000_2222301_002.nc", mask=None)
    with pytest.raises(UserError, match=r"2 EMIT acquisitions.*give one file"):
        emit.files_of(tmp_path)
    with pytest.raises(UserError, match="no EMIT_L2A_RFL"):
        (tmp_path / "empty").mkdir()
        emit.open_product(tmp_path / "empty")


def test_known_by_content_when_renamed(tmp_path):
    granule = write(tmp_path)
    renamed = granule.path.rename(tmp_path / "scene.h5")
    assert emit.files_of(renamed) == []
    with open_hdf5(renamed) as file:
        assert emit.holds(file) and not cf.holds(file)
    with open_hdf5(granule.mask) as file:
        assert not emit.holds(file)
    source = emit.open_product(renamed)
    assert source.quality == {}
    assert_right(source, granule)


def test_damaged_files(tmp_path):
    granule = write(tmp_path)
    whole = granule.path.read_bytes()
    granule.path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"EMIT_L2A_RFL.*damaged"):
        emit.open_product(granule.path)
    granule = write(tmp_path)
    granule.mask.write_bytes(b"no netCDF")
    with pytest.raises(UserError, match=r"EMIT_L2A_MASK.*damaged"):
        emit.open_product(granule.path)


@pytest.mark.parametrize(
    "missing", ["location/glt_x", "sensor_band_parameters/wavelengths", "reflectance"]
)
def test_incomplete_file(tmp_path, missing):
    granule = write(tmp_path, mask=None)
    with h5py.File(granule.path, "r+") as file:
        del file[missing]
    with pytest.raises(UserError, match=missing):
        emit.open_product(granule.path)


def test_without_geotransform_there_is_a_doubt(tmp_path):
    granule = write(tmp_path, mask=None)
    with h5py.File(granule.path, "r+") as file:
        del file.attrs["geotransform"], file.attrs["spatial_ref"]
    source = emit.open_product(granule.path)
    assert source.transform is None and source.crs is None
    assert set(source.doubts) == {"transform", "crs"}


def test_image_cut_without_its_table(tmp_path):
    granule = write(tmp_path, mask=None)
    with h5py.File(granule.path, "r+") as file:
        cut = file["reflectance"][: LINES // 2]
        del file["reflectance"]
        file["reflectance"] = cut
    source = emit.open_product(granule.path)
    with pytest.raises(UserError, match="cut without its lookup table"):
        source.read(slice(0, HEIGHT), slice(0, WIDTH))


def test_mask_of_another_image(tmp_path):
    granule = write(tmp_path)
    with h5py.File(granule.mask, "r+") as file:
        cut = file["mask"][1:]
        del file["mask"]
        file["mask"] = cut
    with pytest.raises(UserError, match=r"mask of \(69, 50\) pixels beside an image of \(70, 50\)"):
        emit.open_product(granule.path)


def test_windows_read_little_more_than_the_image_once(tmp_path, monkeypatch):
    granule = write(tmp_path, mask=None)
    monkeypatch.setattr(lookup, "LINES", 4)
    read = []
    original = h5py.Dataset.__getitem__

    def counting(self, key, *args, **kwargs):
        found = original(self, key, *args, **kwargs)
        if self.name == "/reflectance":
            read.append(found.size)
        return found

    monkeypatch.setattr(h5py.Dataset, "__getitem__", counting)
    source = emit.open_product(granule.path)
    for start in range(0, HEIGHT, 16):
        source.read(slice(start, min(start + 16, HEIGHT)), slice(0, WIDTH))
    assert sum(read) < 1.6 * granule.values.shape[0] * LINES * 50
