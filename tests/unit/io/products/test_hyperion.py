import shutil
from pathlib import Path

import numpy as np
import pytest
from hyperion_files import CENTRES, EPSG, SCENE, SHAPE, TRANSFORM, WIDTHS, Product, write

from special_steps.core.errors import UserError
from special_steps.io.products import hyperion
from special_steps.io.products.hyperion import files_of, open_product
from special_steps.io.record import Source

ALL = (slice(0, SHAPE[0]), slice(0, SHAPE[1]))
PART = (slice(2, 7), slice(1, 4))


def check(source: Source, right: Product) -> None:
    import rasterio

    assert source.shape == right.values.shape
    scale = np.reshape(source.scale, (-1, 1, 1))
    np.testing.assert_array_equal(source.whole() / scale, right.values)
    np.testing.assert_array_equal(source.read(*PART) / scale, right.values[(slice(None), *PART)])
    assert source.offset == 0 and source.nodata == ()
    assert source.wavelengths is not None and source.fwhm is not None
    assert source.wavelengths.tolist() == [CENTRES[n] for n in right.numbers]
    widths = dict(zip(right.numbers, source.fwhm.tolist(), strict=True))
    assert {n: widths[n] for n in WIDTHS} == WIDTHS
    np.testing.assert_array_equal(source.good_bands, right.good)
    assert rasterio.crs.CRS.from_wkt(source.crs).to_epsg() == EPSG
    assert source.transform == TRANSFORM
    assert source.masked is not None
    np.testing.assert_array_equal(source.masked(*ALL), right.masked)
    np.testing.assert_array_equal(source.masked(*PART), right.masked[PART])


@pytest.mark.parametrize("level", ["L1T", "L1GST"])
def test_reads_a_product_as_it_was_written(tmp_path: Path, level: str) -> None:
    right = write(tmp_path, level=level)
    band = tmp_path / f"{SCENE}_B020_{level}.TIF"
    for path in (right.folder, right.metadata, band):
        source = open_product(path)
        check(source, right)
        assert source.kind == {"L1T": "Hyperion L1T", "L1GST": "Hyperion L1Gst"}[level]
        assert "radiances" in source.notes[0]
        assert "189 of 198 calibrated bands are not there: 9, 10" in source.notes[1]
        assert files_of(path)[0] == right.metadata
        assert set(source.files) == set(files_of(path))
        assert len(source.files) == 1 + len(right.numbers)


def test_a_whole_product_has_the_196_unique_bands_in_order(tmp_path: Path) -> None:
    source = open_product(write(tmp_path, range(1, 243)).folder)
    assert len(source.notes) == 1
    assert source.wavelengths is not None and source.good_bands is not None
    good = source.wavelengths[source.good_bands]
    assert len(source.wavelengths) == 198 and len(good) == 196
    assert (np.diff(good) > 0).all()
    assert set(np.unique(source.scale)) == {40, 80}


def test_table_of_bands_has_no_slip() -> None:
    for part in (slice(0, 70), slice(70, 242)):
        steps = np.diff(hyperion.CENTRES[part])
        assert steps.min() > 9.9 and steps.max() < 10.2
        assert np.abs(np.diff(hyperion.WIDTHS[part])).max() < 0.12
    assert hyperion.CENTRES.shape == hyperion.WIDTHS.shape == (242,)
    for number, centre in CENTRES.items():
        assert hyperion.CENTRES[number - 1] == centre


@pytest.mark.parametrize("change", [str.lower, str.upper])
def test_names_in_another_case(tmp_path: Path, change) -> None:
    right = write(tmp_path / "a")
    (tmp_path / "b").mkdir()
    for file in right.folder.iterdir():
        shutil.copy(file, tmp_path / "b" / change(file.name))
    check(open_product(tmp_path / "b"), right)
    check(open_product(tmp_path / "b" / change(right.metadata.name)), right)


def test_metadata_missing(tmp_path: Path) -> None:
    right = write(tmp_path)
    right.metadata.unlink()
    for path in (tmp_path, tmp_path / f"{SCENE}_B008_L1T.TIF"):
        assert files_of(path)
        with pytest.raises(UserError, match=f"no {SCENE}_MTL_L1T.TXT beside it"):
            open_product(path)


def test_bands_missing(tmp_path: Path) -> None:
    right = write(tmp_path, [])
    assert files_of(right.metadata) == [right.metadata]
    with pytest.raises(UserError, match="put the bands there"):
        open_product(tmp_path)


def test_several_products_in_a_folder(tmp_path: Path) -> None:
    first = write(tmp_path)
    second = write(tmp_path, level="L1GST")
    with pytest.raises(UserError, match="holds 2 Hyperion products"):
        open_product(tmp_path)
    check(open_product(first.metadata), first)
    check(open_product(second.metadata), second)


def test_sensor_grid_is_refused(tmp_path: Path) -> None:
    path = tmp_path / f"{SCENE}.L1R"
    path.write_bytes(b"")
    assert files_of(path) == [path]
    with pytest.raises(UserError, match="no map grid"):
        open_product(path)


def test_what_is_no_hyperion_product(tmp_path: Path) -> None:
    write(tmp_path / "a")
    ali = tmp_path / "EO1A0380332014325110PZ_B02_L1T.TIF"
    ali.write_bytes(b"")
    for path in (tmp_path, ali, tmp_path / "a" / "README.txt", tmp_path / f"{SCENE}_B008_L1T.TIF"):
        assert files_of(path) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [("SCALING_FACTOR_SWIR = 80.000000", ""), ("= 80.000000", "= 0"), ("= 80.000000", "= e")],
)
def test_scaling_not_stated(tmp_path: Path, old: str, new: str) -> None:
    right = write(tmp_path)
    right.metadata.write_text(right.metadata.read_text().replace(old, new))
    with pytest.raises(UserError, match="no SCALING_FACTOR_SWIR above 0"):
        open_product(tmp_path)


def test_damaged_band(tmp_path: Path) -> None:
    write(tmp_path)
    band = tmp_path / f"{SCENE}_B150_L1T.TIF"
    band.write_bytes(band.read_bytes()[:200])
    with pytest.raises(UserError, match=band.name):
        open_product(tmp_path).whole()


def test_band_of_another_grid(tmp_path: Path) -> None:
    import rasterio

    write(tmp_path)
    band = tmp_path / f"{SCENE}_B150_L1T.TIF"
    with rasterio.open(band, "r+") as raster:
        raster.transform = rasterio.Affine(30, 0, 0, 0, -30, 0)
    with pytest.raises(UserError, match=r"B150.*not on the grid"):
        open_product(tmp_path)
