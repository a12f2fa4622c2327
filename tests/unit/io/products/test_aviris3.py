import h5py
import numpy as np
import pytest
from aviris3_files import (
    FWHM,
    HEIGHT,
    LINES,
    STEP,
    TOP,
    WAVELENGTHS,
    WIDTH,
    Scene,
    write,
    write_radiance,
)

from special_steps.core.errors import UserError
from special_steps.io import lookup
from special_steps.io.hdf5 import open_hdf5
from special_steps.io.products import aviris3, cf, emit
from special_steps.io.record import Source


def assert_right(source: Source, scene: Scene) -> None:
    from rasterio.crs import CRS

    assert source.shape == scene.values.shape
    read = source.whole()
    np.testing.assert_array_equal(np.where(read == source.nodata[0], np.nan, read), scene.values)
    rows, columns = slice(7, 31), slice(12, 50)
    part = source.read(rows, columns)
    np.testing.assert_array_equal(part, read[:, rows, columns])
    np.testing.assert_allclose(source.wavelengths, WAVELENGTHS)
    np.testing.assert_allclose(source.fwhm, FWHM, rtol=1e-6)
    assert source.transform == pytest.approx(scene.transform, abs=1e-6)
    assert CRS.from_wkt(source.crs).to_epsg() == 32611 and source.crs.startswith("PROJCRS")
    assert source.files == [scene.path] and source.nodata == (-9999.0,) and not source.doubts


@pytest.mark.parametrize("mapping", ["transverse_mercator", "projection"])
@pytest.mark.parametrize("scales", [True, False])
def test_reflectance(tmp_path, mapping, scales):
    scene = write(tmp_path, mapping=mapping, scales=scales)
    source = aviris3.open_product(scene.path)
    assert_right(source, scene)
    assert source.kind == "AVIRIS-3 L2A" and source.notes == () and source.quality == {}


def test_grid_mapping_that_the_cube_does_not_name(tmp_path):
    scene = write(tmp_path)
    with h5py.File(scene.path, "r+") as file:
        del file["reflectance/reflectance"].attrs["grid_mapping"]
    assert_right(aviris3.open_product(scene.path), scene)


def test_radiance_of_the_sensor_grid_is_put_on_the_map(tmp_path, monkeypatch):
    monkeypatch.setattr(lookup, "BYTES", 9000)
    scene = write_radiance(tmp_path)
    source = aviris3.open_product(tmp_path)
    assert_right(source, scene)
    masked = source.masked(slice(3, 20), slice(0, WIDTH))
    np.testing.assert_array_equal(masked, np.isnan(scene.values[0, 3:20]))
    assert masked.any() and not masked.all()
    assert source.kind == "AVIRIS-5 L1B" and "radiances (uW nm-1 cm-2 sr-1)" in source.notes[0]


def test_radiance_without_table(tmp_path):
    scene = write_radiance(tmp_path)
    with h5py.File(scene.path, "r+") as file:
        del file["geolocation_lookup_table"]
    with pytest.raises(UserError, match="give variable: radiance/radiance with axes"):
        aviris3.open_product(scene.path)


def test_files_by_name_folder_and_case(tmp_path):
    scene = write(tmp_path)
    stem = "AV320250111t195928_000"
    for other in (
        f"{stem}_L2A_OE_f576f24d_UNC_ORT.nc",
        f"{stem}_L1B_RDN_f576f24d_OBS.nc",
        f"{stem}_L1B_RDN_f576f24d_BANDMASK.nc",
        f"{stem}_L2A_OE_f576f24d_RFL_ORT_QL.tif",
        f"{stem}_L2A_OE_f576f24d.yaml",
    ):
        (tmp_path / other).touch()
        assert aviris3.files_of(tmp_path / other) == []
    assert aviris3.files_of(scene.path) == aviris3.files_of(tmp_path) == [scene.path]
    write_radiance(tmp_path, name=f"{stem}_L1B_RDN_0a1b2c3d_RDN.nc")
    assert aviris3.files_of(tmp_path) == [scene.path]
    assert aviris3.files_of(tmp_path / "missing" / scene.path.name) == []


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("AV320231008T173943_L2A_OE_MAIN_98B13FFF_RFL_ORT.NC", "AVIRIS-3 L2A"),
        ("AV520250801t165910_005_L2A_OE_da8b3ef7_RFL_ORT.nc", "AVIRIS-5 L2A"),
        (
            "ang20231022t092801_000_L2A_OE_0b4f48b4_RFL_ORT_corr_topo_brdf_glint_v1.nc",
            "AVIRIS-NG L2A",
        ),
    ],
)
def test_names_of_the_sensors(tmp_path, name, kind):
    scene = write(tmp_path, name=name)
    assert aviris3.files_of(tmp_path) == [scene.path]
    assert aviris3.open_product(tmp_path).kind == kind


def test_folder_with_several_scenes_is_refused(tmp_path):
    write(tmp_path)
    write(tmp_path, name="AV320250111t195928_001_L2A_OE_f576f24d_RFL_ORT.nc")
    with pytest.raises(UserError, match=r"2 AVIRIS scenes.*give one file"):
        aviris3.files_of(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no AVIRIS file"):
        aviris3.open_product(tmp_path / "empty")


def test_known_by_content_when_renamed(tmp_path):
    for made in (write(tmp_path), write_radiance(tmp_path)):
        renamed = made.path.rename(tmp_path / "scene.h5")
        assert aviris3.files_of(renamed) == []
        with open_hdf5(renamed) as file:
            assert aviris3.holds(file) and not emit.holds(file)
        source = aviris3.open_product(renamed)
        assert_right(source, made._replace(path=renamed))
        assert source.kind.startswith("AVIRIS L")


def test_damaged_and_incomplete_files(tmp_path):
    scene = write(tmp_path)
    whole = scene.path.read_bytes()
    scene.path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"AV3.*damaged"):
        aviris3.open_product(scene.path)
    scene = write(tmp_path)
    with h5py.File(scene.path, "r+") as file:
        del file["reflectance/wavelength"]
    with pytest.raises(UserError, match="neither 'reflectance/reflectance' nor"):
        aviris3.open_product(scene.path)


def test_image_cut_without_its_table(tmp_path):
    scene = write_radiance(tmp_path)
    with h5py.File(scene.path, "r+") as file:
        cut = file["radiance/radiance"][:, : LINES // 2]
        del file["radiance/radiance"]
        file["radiance/radiance"] = cut
    with pytest.raises(UserError, match="cut without its lookup table"):
        aviris3.open_product(scene.path).whole()


def test_of_a_cut_scene_the_coordinates_count(tmp_path):
    """Tools that cut keep the old GeoTransform."""
    scene = write(tmp_path, scales=False)
    with h5py.File(scene.path, "r+") as file:
        cut, northing = file["reflectance/reflectance"][:, 10:], file["northing"][10:]
        for name in ("reflectance/reflectance", "northing"):
            del file[name]
        file["reflectance/reflectance"], file["northing"] = cut, northing
    source = aviris3.open_product(scene.path)
    assert source.shape[1] == HEIGHT - 10
    assert source.transform[5] == pytest.approx(TOP - 10 * STEP, abs=1e-6)


def test_generic_reader_agrees(tmp_path):
    scene = write(tmp_path)
    with open_hdf5(scene.path) as file:
        assert cf.holds(file)
    assert_right(cf.open_product(scene.path), scene)
