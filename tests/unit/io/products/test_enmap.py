import shutil
from pathlib import Path

import numpy as np
import pytest
from enmap_files import EPSG, SHAPE, STEM, TRANSFORM, Product, write

from special_steps.core.errors import UserError
from special_steps.io.products.enmap import files_of, open_product
from special_steps.io.record import Source

ALL = (slice(0, SHAPE[0]), slice(0, SHAPE[1]))
PART = (slice(2, 6), slice(3, 8))


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
    np.testing.assert_array_equal(source.good_bands, right.good)
    assert rasterio.crs.CRS.from_wkt(source.crs).to_epsg() == EPSG
    assert source.transform == TRANSFORM
    assert source.masked is not None
    np.testing.assert_array_equal(source.masked(*ALL), right.masked)
    np.testing.assert_array_equal(source.masked(*PART), right.masked[PART])
    assert set(source.quality) == set(right.quality)
    for name, layer in source.quality.items():
        np.testing.assert_array_equal(layer(*ALL), right.quality[name], name)
        np.testing.assert_array_equal(layer(*PART), right.quality[name][PART], name)


@pytest.mark.parametrize("level", ["L2A", "L1C"])
@pytest.mark.parametrize("cog", [False, True])
def test_reads_a_product_as_it_was_written(tmp_path: Path, level: str, cog: bool) -> None:
    right = write(tmp_path / "product", level, cog)
    for path in (right.folder, right.image, right.metadata):
        source = open_product(path)
        check(source, right)
        assert source.kind == f"EnMAP {level}"
        assert len(source.notes) == (level == "L1C")
        files = files_of(path)
        assert files[0] == right.image
        assert set(source.files) == set(files)
        assert len(files) == 2 + 5 + 2


@pytest.mark.parametrize("form", ["BSQ", "BIL", "BIP"])
def test_reads_a_raw_image_with_its_header(tmp_path: Path, form: str) -> None:
    right = write(tmp_path, form=form)
    for path in (right.folder, right.image, right.image.with_suffix(".HDR")):
        check(open_product(path), right)
        assert files_of(path)[:3] == [right.image, right.metadata, right.image.with_suffix(".HDR")]
        assert set(open_product(path).files) == set(files_of(path))
    right.image.with_suffix(".HDR").unlink()
    with pytest.raises(UserError, match=r"no .*HDR beside it"):
        open_product(right.image)


def test_reflectances_are_fractions_and_radiances_said_to_be_such(tmp_path: Path) -> None:
    assert open_product(write(tmp_path / "a", "L2A").image).scale == 1e4
    assert "radiances" in open_product(write(tmp_path / "b", "L1C").image).notes[0]


def test_spectrum_of_good_bands_does_not_go_back_to_the_other_detector(tmp_path: Path) -> None:
    right = write(tmp_path)
    source = open_product(right.image)
    assert source.wavelengths is not None and source.good_bands is not None
    assert source.wavelengths[source.good_bands].tolist() == [
        450.1, 551.2, 652.3, 753.4, 854.5, 904.9, 911.5, 931.3, 960.6, 1000.8, 1649.9, 2203.6
    ]  # fmt: skip


def test_detectors_one_after_the_other_without_lists_of_channels(tmp_path: Path) -> None:
    right = write(tmp_path)
    order = [450.0, 910.0, 990.0, 905.0, 1000.0]
    bands = "".join(
        f'<bandID number="{i}"><wavelengthCenterOfBand>{w}</wavelengthCenterOfBand></bandID>'
        for i, w in enumerate(order, 1)
    )
    right.metadata.write_text(f"<l><bandCharacterisation>{bands}</bandCharacterisation></l>")
    for layer in right.folder.glob("*-QL_*"):
        layer.unlink()
    crop(right.image, len(order))
    source = open_product(right.image)
    assert source.good_bands is not None
    assert source.good_bands.tolist() == [True, False, False, True, True]
    assert source.scale == 1e4 and source.nodata == (-32768,) and source.quality == {}


def crop(image: Path, count: int) -> None:
    """Leave the first bands only."""
    import rasterio

    with rasterio.open(image) as raster:
        cube, profile = raster.read(), raster.profile
    with rasterio.open(image, "w", **(profile | {"count": count})) as raster:
        raster.write(cube[:count])


@pytest.mark.parametrize("change", [str.lower, str.upper])
def test_names_in_another_case(tmp_path: Path, change) -> None:
    right = write(tmp_path / "a")
    (tmp_path / "b").mkdir()
    for file in right.folder.iterdir():
        shutil.copy(file, tmp_path / "b" / change(file.name))
    check(open_product(tmp_path / "b"), right)
    check(open_product(tmp_path / "b" / change(right.image.name)), right)


def test_other_suffixes_and_spellings(tmp_path: Path) -> None:
    right = write(tmp_path)
    right.image.rename(right.image.with_suffix(".tiff"))
    right.metadata.rename(right.metadata.with_name(right.metadata.name + ".XML"))
    check(open_product(tmp_path), right)


def test_plain_image_before_its_cloud_optimised_copy(tmp_path: Path) -> None:
    write(tmp_path, cog=True)
    right = write(tmp_path)
    copy = right.image.with_name(right.image.name.replace(".TIF", "_COG.TIF"))
    assert files_of(tmp_path)[0] == right.image
    assert files_of(copy)[0] == copy
    assert not any("_COG" in file.name for file in files_of(right.image))


def test_missing_layers_are_left_out(tmp_path: Path) -> None:
    right = write(tmp_path)
    for layer in tmp_path.glob("*-QL_*"):
        if "HAZE" not in layer.name:
            layer.unlink()
    source = open_product(right.image)
    assert list(source.quality) == ["haze"]
    assert source.masked is None
    assert len(source.files) == 3


def test_metadata_missing(tmp_path: Path) -> None:
    right = write(tmp_path)
    right.metadata.unlink()
    for path in (tmp_path, right.image):
        assert files_of(path)[0] == right.image
        with pytest.raises(UserError, match=r"L2A-.*no ENMAP01.*-METADATA\.XML beside it"):
            open_product(path)


def test_image_missing(tmp_path: Path) -> None:
    right = write(tmp_path)
    right.image.unlink()
    assert right.metadata in files_of(right.metadata)
    with pytest.raises(
        UserError, match=r"METADATA\.XML: no ENMAP01.*-SPECTRAL_IMAGE\.TIF beside it"
    ):
        open_product(right.metadata)
    right.image.with_suffix(".JPEG2000").write_bytes(b"x")
    with pytest.raises(UserError, match="JPEG2000: not read in this format"):
        open_product(tmp_path)


def test_l1b_has_no_map_grid(tmp_path: Path) -> None:
    for part in ("SPECTRAL_IMAGE_VNIR.TIF", "SPECTRAL_IMAGE_SWIR.TIF", "METADATA.XML"):
        (tmp_path / f"{STEM.format(level='L1B')}-{part}").write_bytes(b"")
    for path in (tmp_path, *files_of(tmp_path)):
        assert files_of(path)
        with pytest.raises(UserError, match=r"L1B has no map grid.*get L2A"):
            open_product(path)


def test_two_products_in_a_folder(tmp_path: Path) -> None:
    first = write(tmp_path, "L2A")
    second = write(tmp_path, "L1C")
    assert {first.image, second.image} <= set(files_of(tmp_path))
    with pytest.raises(UserError, match="holds 2 products"):
        open_product(tmp_path)
    check(open_product(first.image), first)
    check(open_product(second.metadata), second)
    assert not set(files_of(first.image)) & set(files_of(second.image))


def test_what_is_no_enmap_product(tmp_path: Path) -> None:
    right = write(tmp_path / "a")
    layer = next(right.folder.glob("*-QL_QUALITY_CLOUD.TIF"))
    aux = right.folder / (right.image.name + ".aux.xml")
    aux.write_text("<PAMDataset/>")
    desis = tmp_path / "DESIS-HSI-L2A-DT1-SPECTRAL_IMAGE.tif"
    desis.write_bytes(b"")
    for path in (tmp_path, layer, aux, desis, tmp_path / "none", tmp_path / right.image.name):
        assert files_of(path) == []
    assert aux not in files_of(right.folder)


@pytest.mark.parametrize(
    ("part", "size"), [("image", 700), ("image", 0), ("metadata", 900), ("metadata", 0)]
)
def test_damaged_file(tmp_path: Path, part: str, size: int) -> None:
    right = write(tmp_path)
    path = getattr(right, part)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(UserError, match=path.name):
        open_product(right.folder).whole()


def test_damaged_or_other_layer(tmp_path: Path) -> None:
    right = write(tmp_path / "a")
    layer = next(right.folder.glob("*-QL_QUALITY_CLOUD.TIF"))
    layer.write_bytes(layer.read_bytes()[:100])
    with pytest.raises(UserError, match="QL_QUALITY_CLOUD"):
        open_product(right.image).quality["cloud"](*ALL)
    import rasterio

    layer.unlink()
    sizes = {"count": 1, "height": 3, "width": 4, "dtype": "uint8"}
    with rasterio.open(layer, "w", driver="GTiff", transform=rasterio.Affine(*TRANSFORM), **sizes):
        pass
    with pytest.raises(UserError, match=r"QL_QUALITY_CLOUD.*does not fit the image"):
        open_product(right.image)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("<wavelengthCenterOfBand>551.2<", "<wavelengthCenterOfBand>x<", "wavelengthCenterOfBand"),
        ("<FWHMOfBand>7.051</FWHMOfBand>", "", "FWHMOfBand is not a number for every band"),
        ("<GainOfBand>0.0001<", "<GainOfBand>0<", "GainOfBand of band 1 is 0"),
        ("<GainOfBand>0.0001<", "<GainOfBand>nan<", "GainOfBand"),
        ('<bandID number="2"><wave', '<bandID number="b"><wave', "bandID's number"),
        ("<bandCharacterisation>", "<bands>", "METADATA"),
        ("<backgroundValue>-32768", "<backgroundValue>none", "backgroundValue 'none'"),
        ("<expectedChannelsList>1,2", "<expectedChannelsList>1;2", "VNIR is no list of numbers"),
    ],
)
def test_metadata_that_cannot_be_used(tmp_path: Path, old: str, new: str, message: str) -> None:
    right = write(tmp_path)
    text = right.metadata.read_text()
    assert old in text
    right.metadata.write_text(text.replace(old, new, 1))
    with pytest.raises(UserError, match=message) as error:
        open_product(right.image)
    assert "\n" not in str(error.value) and str(right.metadata) in str(error.value)


def test_cut_image(tmp_path: Path) -> None:
    right = write(tmp_path)
    crop(right.image, 4)
    with pytest.raises(UserError, match=r"describes 16 bands, but .* has 4"):
        open_product(right.image)


def test_radiances_need_their_gains(tmp_path: Path) -> None:
    right = write(tmp_path, "L1C")
    right.metadata.write_text(right.metadata.read_text().replace("GainOfBand", "Gain"))
    with pytest.raises(UserError, match="no GainOfBand in it"):
        open_product(right.image)


def test_bands_without_a_wavelength_and_namespaces(tmp_path: Path) -> None:
    right = write(tmp_path)
    text = right.metadata.read_text().replace(">450.1<", ">0<")
    right.metadata.write_text(text.replace("<level_X ", '<level_X xmlns="http://x.org/enmap" '))
    source = open_product(right.image)
    assert source.good_bands is not None
    assert source.good_bands.tolist() == [False, *right.good[1:].tolist()]


def test_level_of_the_metadata_where_names_do_not_say_it(tmp_path: Path) -> None:
    right = write(tmp_path)
    image = right.image.rename(tmp_path / "ENMAP_munich-SPECTRAL_IMAGE.TIF")
    metadata = right.metadata.rename(tmp_path / "ENMAP_munich-METADATA.XML")
    assert open_product(image).kind == "EnMAP L2A"
    metadata.write_text(metadata.read_text().replace("L2A", "L3"))
    with pytest.raises(UserError, match="says L1C or L2A"):
        open_product(image)
