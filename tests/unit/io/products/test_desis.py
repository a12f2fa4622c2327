import shutil
from pathlib import Path

import numpy as np
import pytest
from desis_files import EPSG, SHAPE, STEM, TRANSFORM, Product, write

from special_steps.core.errors import UserError
from special_steps.io.products.desis import files_of, open_product
from special_steps.io.record import Source

ALL = (slice(0, SHAPE[0]), slice(0, SHAPE[1]))
PART = (slice(1, 5), slice(2, 7))


def values(source: Source, rows: slice = ALL[0], columns: slice = ALL[1]) -> np.ndarray:
    stored = source.read(rows, columns)
    scale, offset = (np.reshape(v, (-1, 1, 1)) for v in (source.scale, source.offset))
    return np.where(np.isin(stored, source.nodata), np.nan, stored / scale + offset)


def check(source: Source, right: Product) -> None:
    import rasterio

    assert source.shape == right.values.shape
    np.testing.assert_allclose(values(source), right.values, rtol=1e-12)
    np.testing.assert_allclose(
        values(source, *PART), right.values[(slice(None), *PART)], rtol=1e-12
    )
    np.testing.assert_array_equal(source.wavelengths, right.wavelengths)
    np.testing.assert_array_equal(source.fwhm, right.fwhm)
    assert source.good_bands is not None and source.good_bands.all()
    assert rasterio.crs.CRS.from_wkt(source.crs).to_epsg() == EPSG
    assert source.transform == TRANSFORM
    assert set(source.quality) == set(right.quality)
    for name, layer in source.quality.items():
        np.testing.assert_array_equal(layer(*ALL), right.quality[name], name)
        np.testing.assert_array_equal(layer(*PART), right.quality[name][PART], name)


@pytest.mark.parametrize("level", ["L2A", "L1C"])
def test_reads_a_product_as_it_was_written(tmp_path: Path, level: str) -> None:
    right = write(tmp_path, level)
    for path in (right.folder, right.image, right.metadata):
        source = open_product(path)
        check(source, right)
        assert source.kind == f"DESIS {level}"
        assert len(source.notes) == (level == "L1C")
        assert files_of(path)[0] == right.image
        assert set(source.files) == set(files_of(path))
        assert len(source.files) == 2 + (level == "L2A")


@pytest.mark.parametrize("bands", [60, 79])
def test_binned_bands(tmp_path: Path, bands: int) -> None:
    right = write(tmp_path, bands=bands)
    check(open_product(tmp_path), right)


def test_reflectances_are_fractions_and_radiances_said_to_be_such(tmp_path: Path) -> None:
    assert open_product(write(tmp_path / "a", "L2A").image).scale == 1e4
    assert "radiances" in open_product(write(tmp_path / "b", "L1C").image).notes[0]


@pytest.mark.parametrize("change", [str.lower, str.upper])
def test_names_in_another_case(tmp_path: Path, change) -> None:
    right = write(tmp_path / "a")
    (tmp_path / "b").mkdir()
    for file in right.folder.iterdir():
        shutil.copy(file, tmp_path / "b" / change(file.name))
    check(open_product(tmp_path / "b"), right)
    check(open_product(tmp_path / "b" / change(right.metadata.name)), right)


def test_header_beside_the_image_does_not_count(tmp_path: Path) -> None:
    right = write(tmp_path)
    count, height, width = right.values.shape
    header = right.image.with_suffix(".hdr")
    header.write_text(
        f"ENVI\nsamples = {width}\nlines = {height}\nbands = {count}\nfile type = TIFF\ndata type = 2\n"
        f"interleave = bip\nbyte order = 0\nheader offset = 0\nwavelength units = nanometers\n"
        f"wavelength = {{{', '.join(str(i) for i in range(count))}}}\nreflectance scale factor = 5\n"
    )
    check(open_product(right.image), right)
    assert set(open_product(right.image).files) == set(files_of(right.image))


def test_missing_layer_is_left_out(tmp_path: Path) -> None:
    right = write(tmp_path)
    next(tmp_path.glob("*QL_QUALITY-2.tif")).unlink()
    assert open_product(right.image).quality == {}


def test_metadata_missing(tmp_path: Path) -> None:
    right = write(tmp_path)
    right.metadata.unlink()
    with pytest.raises(UserError, match=r"no DESIS-HSI.*-METADATA\.XML beside it"):
        open_product(right.image)


def test_l1b_has_no_map_grid(tmp_path: Path) -> None:
    image = tmp_path / f"{STEM.format(level='L1B')}-SPECTRAL_IMAGE.tif"
    image.write_bytes(b"")
    assert files_of(image) == [image]
    with pytest.raises(UserError, match="L1B has no map grid"):
        open_product(image)


def test_what_is_no_desis_product(tmp_path: Path) -> None:
    right = write(tmp_path / "a")
    enmap = tmp_path / "ENMAP01-____L2A-DT1-SPECTRAL_IMAGE.TIF"
    enmap.write_bytes(b"")
    layer = next(right.folder.glob("*QL_QUALITY-2.tif"))
    for path in (tmp_path, layer, enmap, tmp_path / "none"):
        assert files_of(path) == []


@pytest.mark.parametrize(("part", "size"), [("image", 600), ("metadata", 900), ("metadata", 0)])
def test_damaged_file(tmp_path: Path, part: str, size: int) -> None:
    right = write(tmp_path)
    path = getattr(right, part)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(UserError, match=path.name):
        open_product(right.folder).whole()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("<bandNumber>12<", "<bandNumber>x<", "bandNumber is no number"),
        ("<wavelengthCenterOfBand>401.9<", "<wavelengthCenterOfBand><", "wavelengthCenterOfBand"),
        ("<gainOfBand>0.0001<", "<gainOfBand>0.0<", "gainOfBand of band 12 is 0"),
    ],
)
def test_metadata_that_cannot_be_used(tmp_path: Path, old: str, new: str, message: str) -> None:
    right = write(tmp_path)
    text = right.metadata.read_text()
    assert old in text
    right.metadata.write_text(text.replace(old, new, 1))
    with pytest.raises(UserError, match=message) as error:
        open_product(right.image)
    assert "\n" not in str(error.value)


def test_name_without_a_level(tmp_path: Path) -> None:
    right = write(tmp_path)
    image = right.image.rename(tmp_path / "DESIS_x-SPECTRAL_IMAGE.tif")
    right.metadata.rename(tmp_path / "DESIS_x-METADATA.xml")
    with pytest.raises(UserError, match="does not say L1C or L2A"):
        open_product(image)
