"""GeoTIFF: what tags say, copies that GDAL makes, and tiles of one grid."""

import struct

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp
from rasterio.rpc import RPC
from rasters import CUBE, whole, write_envi, write_tiff

from special_steps.core.errors import UserError
from special_steps.io.fill import missing_values
from special_steps.io.source import open_source, source_files


def test_geotiff_tags(tmp_path):
    tags = [
        {"wavelength": w, "wavelength_units": "Micrometers", "fwhm": "0.01", "bbl": b}
        for w, b in (("0.5", "1"), ("0.6", "0"), ("0.7", "1"))
    ]
    path = write_tiff(tmp_path / "a.tif", x=600, y=900, nodata=-60, tags=tags)
    with rasterio.open(path, "r+") as raster:
        raster.scales, raster.offsets = (0.01, 0.01, 0.1), (0, 0, 1)
    source = open_source(path)
    np.testing.assert_array_equal(whole(source), CUBE)
    np.testing.assert_allclose(source.wavelengths, [500, 600, 700])
    np.testing.assert_allclose(source.fwhm, [10, 10, 10])
    assert source.good_bands.tolist() == [True, False, True]
    assert source.nodata == (-60,)
    np.testing.assert_allclose(source.scale, [100, 100, 10])
    np.testing.assert_allclose(source.offset, [0, 0, 1])
    assert source.transform == (30, 0, 600, 0, -30, 900)
    assert rasterio.crs.CRS.from_wkt(source.crs).to_epsg() == 32633


@pytest.mark.parametrize(("units", "digits"), [("Nanometers", 0), ("Micrometers", 3)])
def test_gdals_copy_of_an_envi_scene_keeps_the_decimals_of_wavelengths(tmp_path, units, digits):
    """GDAL writes them twice: as they are, and as micrometres rounded to three decimals."""
    nm, fwhm = np.array([426.820007, 500.123456, 600.987654]), np.array([5.654321, 6, 6.5])
    header = write_envi(
        tmp_path,
        **{
            "wavelength units": units,
            "wavelength": "{" + ", ".join(f"{v / 10**digits:.9f}" for v in nm) + "}",
            "fwhm": "{" + ", ".join(f"{v / 10**digits:.9f}" for v in fwhm) + "}",
            "data ignore value": "-60",
            "map info": "{UTM, 1, 1, 300000, 5800000, 2, 2, 33, North, WGS-84, units=Meters}",
        },
    )
    rasterio.shutil.copy(tmp_path / "scene.img", tmp_path / "copy.tif", driver="GTiff")
    with rasterio.open(tmp_path / "copy.tif") as raster:
        assert raster.tags(1, ns="IMAGERY")["CENTRAL_WAVELENGTH_UM"] == "0.427"
    scene, copy = open_source(header), open_source(tmp_path / "copy.tif")
    np.testing.assert_allclose(copy.wavelengths, nm, rtol=1e-12)
    np.testing.assert_array_equal(copy.wavelengths, scene.wavelengths)
    np.testing.assert_allclose(copy.fwhm, fwhm, atol=0.51)  # GDAL keeps only the rounded ones
    np.testing.assert_array_equal(whole(copy), CUBE)
    assert (copy.nodata, copy.transform) == (scene.nodata, scene.transform)


def test_rounded_wavelengths_serve_where_there_are_no_others(tmp_path):
    path = write_tiff(tmp_path / "a.tif", tags=[])
    with rasterio.open(path, "r+") as raster:
        for band, um in enumerate(("0.427", "0.500", "0.601"), 1):
            raster.update_tags(band, ns="IMAGERY", CENTRAL_WAVELENGTH_UM=um, FWHM_UM="0.006")
    np.testing.assert_allclose(open_source(path).wavelengths, [427, 500, 601])
    np.testing.assert_allclose(open_source(path).fwhm, 6)
    with rasterio.open(path, "r+") as raster:
        raster.update_tags(1, wavelength="426.82", wavelength_units="nm")  # one band alone
    np.testing.assert_allclose(open_source(path).wavelengths, [427, 500, 601])


def test_a_bands_own_width_goes_with_its_own_wavelength(tmp_path):
    tags = [
        {"wavelength": w, "fwhm": "0.01", "wavelength_units": "um"} for w in ("0.5", "0.6", "0.7")
    ]
    path = write_tiff(tmp_path / "a.tif", tags=tags)
    with rasterio.open(path, "r+") as raster:
        for band in (1, 2, 3):
            raster.update_tags(band, ns="IMAGERY", CENTRAL_WAVELENGTH_UM="9", FWHM_UM="0.006")
    np.testing.assert_allclose(open_source(path).wavelengths, [500, 600, 700])
    np.testing.assert_allclose(open_source(path).fwhm, 10)


def test_a_tag_that_is_no_number(tmp_path):
    path = write_tiff(tmp_path / "a.tif", tags=[{"wavelength": "red"}] * 3)
    source = open_source(path)
    assert source.wavelengths is None
    assert "a.tif: band tag 'wavelength' is no number (red)" in source.doubts["wavelengths"]


def test_tiles_are_joined_and_gaps_are_masked(tmp_path):
    left = write_tiff(tmp_path / "a.tif", x=600, y=900)
    right = write_tiff(tmp_path / "b.tif", CUBE + 1, x=600 + 4 * 30, y=900 - 3 * 30)
    far = write_tiff(tmp_path / "c.tif", CUBE + 2, x=600, y=900 - 20 * 30)
    source = open_source([right, left, far])
    assert source.shape == (3, 25, 8)
    assert source.transform == (30, 0, 600, 0, -30, 900)
    expected, there = np.zeros(source.shape), np.zeros((25, 8), bool)
    for part, rows, columns in ((CUBE, slice(0, 5), slice(0, 4)), (CUBE + 1, slice(3, 8), slice(4, 8)),
                                (CUBE + 2, slice(20, 25), slice(0, 4))):  # fmt: skip
        expected[:, rows, columns], there[rows, columns] = part, True
    np.testing.assert_array_equal(whole(source), expected)
    np.testing.assert_array_equal(source.masked(slice(0, 25), slice(0, 8)), ~there)
    np.testing.assert_array_equal(source.masked(slice(3, 9), slice(2, 6)), ~there[3:9, 2:6])
    assert (source.read(slice(10, 15), slice(1, 3)) == 0).all()  # no tile at all
    assert source.masked(slice(10, 15), slice(1, 3)).all()
    assert len(source.files) == 3


def test_the_no_data_edge_of_a_tile_does_not_hide_another(tmp_path):
    edge = CUBE.copy()
    edge[:, :, 2:] = -32768
    first = write_tiff(tmp_path / "a.tif", edge, nodata=-32768)
    second = write_tiff(tmp_path / "b.tif", CUBE + 1, x=60, nodata=-32768)
    expected = np.concatenate([CUBE[:, :, :2], CUBE + 1], axis=2)
    np.testing.assert_array_equal(whole(open_source([first, second])), expected)


@pytest.mark.parametrize(
    "other",
    [
        {"x": 10},
        {"crs": "EPSG:32632"},
        {"x": 120, "cube": CUBE[:2]},
        {"x": 120, "tags": [{"wavelength": "900"}] * 3},
        {},  # the same once more
    ],
)
def test_tiles_of_different_grids_are_refused(tmp_path, other):
    paths = [write_tiff(tmp_path / "a.tif"), write_tiff(tmp_path / "b.tif", **other)]
    with pytest.raises(UserError, match=r"b\.tif"):
        open_source(paths)


# --- no data ---

MASK = np.add.outer(np.arange(5), np.arange(4)) < 3  # True: no data
ALL = (slice(0, 5), slice(0, 4))


def is_masked(source) -> np.ndarray:
    """What is masked, read in two parts."""
    return np.concatenate(
        [source.masked(slice(0, 2), slice(0, 4)), source.masked(slice(2, 5), slice(0, 4))]
    )


@pytest.mark.parametrize("internal", [True, False])
def test_masks(tmp_path, internal):
    path = write_tiff(tmp_path / "a.tif")
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal), rasterio.open(path, "r+") as raster:
        raster.write_mask(~MASK)
    assert (tmp_path / "a.tif.msk").exists() != internal
    source = open_source(path)
    np.testing.assert_array_equal(is_masked(source), MASK)
    assert (tmp_path / "a.tif.msk" in source.files) != internal
    assert (tmp_path / "a.tif.msk" in source_files(path)) != internal


def test_a_mask_for_each_band(tmp_path):
    path = write_tiff(tmp_path / "a.tif")
    flags = [{}] * 3
    write_tiff(
        tmp_path / "m.tif",
        np.stack([np.where(MASK, 0, 255), np.full((5, 4), 255), np.full((5, 4), 255)]).astype("u1"),
        tags=flags,
        crs=None,
        transform=None,
    )
    with rasterio.open(tmp_path / "m.tif", "r+") as raster:
        raster.update_tags(**{f"INTERNAL_MASK_FLAGS_{i}": "0" for i in (1, 2, 3)})
    (tmp_path / "m.tif").rename(tmp_path / "a.tif.msk")
    np.testing.assert_array_equal(is_masked(open_source(path)), MASK)


def test_alpha_and_a_mask(tmp_path):
    other = MASK[::-1, ::-1]
    cube = np.concatenate([CUBE, np.where(MASK, 0, 128)[None].astype(np.int16)])
    path = write_tiff(
        tmp_path / "a.tif", cube, tags=[{"wavelength": str(v)} for v in (500, 600, 700)]
    )
    with rasterio.open(path, "r+") as raster:
        raster.colorinterp = [ColorInterp.gray, *[ColorInterp.undefined] * 2, ColorInterp.alpha]
    source = open_source(path)
    np.testing.assert_array_equal(is_masked(source), MASK)
    assert source.shape == (3, 5, 4) and source.wavelengths.tolist() == [500, 600, 700]
    np.testing.assert_array_equal(whole(source), CUBE)
    with rasterio.open(path, "r+") as raster:
        raster.write_mask(~other)
    np.testing.assert_array_equal(is_masked(open_source(path)), MASK | other)


def test_values_that_mean_no_data_in_a_sidecar(tmp_path):
    path = write_tiff(tmp_path / "a.tif")
    (tmp_path / "a.tif.aux.xml").write_text(
        "<PAMDataset>" + "".join(
            f'<PAMRasterBand band="{i}"><NoDataValue>{v}</NoDataValue></PAMRasterBand>'
            for i, v in ((1, -60), (2, -60), (3, -60))
        ) + "</PAMDataset>"
    )  # fmt: skip
    source = open_source(path)
    assert source.nodata == (-60,) and tmp_path / "a.tif.aux.xml" in source.files


def test_values_that_mean_no_data_in_one_band_only(tmp_path):
    path = write_tiff(tmp_path / "a.tif")
    (tmp_path / "a.tif.aux.xml").write_text(
        "<PAMDataset>" + "".join(
            f'<PAMRasterBand band="{i}"><NoDataValue>{v}</NoDataValue></PAMRasterBand>'
            for i, v in ((1, CUBE[0, 0, 0]), (2, CUBE[1, 1, 1]), (3, CUBE[0, 3, 3]))
        ) + "</PAMDataset>"
    )  # fmt: skip
    source = open_source(path)
    assert source.nodata == ()  # CUBE[0, 3, 3] is a measurement in the first band
    assert np.argwhere(is_masked(source)).tolist() == [[0, 0], [1, 1]]


def test_values_that_mean_no_data_by_a_tag_of_the_raster(tmp_path):
    path = write_tiff(tmp_path / "a.tif")
    with rasterio.open(path, "r+") as raster:
        raster.update_tags(NODATA_VALUES=" ".join(str(v) for v in CUBE[:, 1, 1]))
    assert np.argwhere(is_masked(open_source(path))).tolist() == [[1, 1]]


@pytest.mark.parametrize("bands", [2, 4])
def test_pictures_with_alpha(tmp_path, bands):
    cube = np.arange(20 * bands, dtype=np.uint8).reshape(bands, 5, 4) + 1
    cube[-1] = np.where(MASK, 0, 255)
    with rasterio.open(
        tmp_path / "a.png", "w", driver="PNG", count=bands, height=5, width=4, dtype="uint8"
    ) as raster:
        raster.write(cube)
    source = open_source(tmp_path / "a.png", one_layer=True)
    np.testing.assert_array_equal(whole(source), cube[:-1])
    np.testing.assert_array_equal(is_masked(source), MASK)
    assert source.photometric == ("rgb" if bands == 4 else "grey")


def test_damaged_sidecars_and_odd_names(tmp_path):
    for name in ("a?b.tif", "a&b=c#!.tif", "ü ö.tif", "GTIFF_DIR:1:x.tif", "zip+%20.tif"):
        path = write_tiff(tmp_path / name)
        for end in (".msk", ".aux.xml"):
            (tmp_path / (name + end)).write_text("<no xml")
        np.testing.assert_array_equal(whole(open_source(path)), CUBE)


def test_a_world_file(tmp_path):
    path = write_tiff(tmp_path / "a.tif", crs=None, transform=None)
    (tmp_path / "a.tfw").write_text("30\n0\n0\n-30\n15\n-15\n")  # the first pixel's centre
    source = open_source(path)
    assert source.transform == (30, 0, 0, 0, -30, 0) and source.crs is None
    assert tmp_path / "a.tfw" in source.files


def test_a_tile_that_lies_far_away(tmp_path):
    paths = [write_tiff(tmp_path / "a.tif"), write_tiff(tmp_path / "b.tif", x=3e9)]
    with pytest.raises(UserError, match=r"b\.tif: lies so far from"):
        open_source(paths)


@pytest.mark.parametrize("value", [np.nan, np.inf, -3.4028234663852886e38, -9999.9])
def test_values_of_floats_that_mean_no_data(tmp_path, value):
    cube = CUBE.astype(np.float32)
    cube[:, 1, 2] = value
    source = open_source(write_tiff(tmp_path / "a.tif", cube, nodata=value))
    assert missing_values(whole(source), source.nodata)[:, 1, 2].all()
    assert missing_values(whole(source), source.nodata).sum() == 3


def test_a_rasters_own_no_data_counts_with_that_of_its_past(tmp_path):
    path = write_tiff(tmp_path / "a.tif", nodata=-60)
    with rasterio.open(path, "r+") as raster:
        raster.update_tags(ns="ENVI", data_ignore_value="-9999")
    assert open_source(path).nodata == (-60, -9999)
    with rasterio.open(path, "r+") as raster:
        raster.update_tags(ns="ENVI", data_ignore_value="?")
    source = open_source(path)
    assert source.nodata == (-60,) and not source.doubts


# --- what tags say ---


def test_units_of_the_whole_raster_and_of_values(tmp_path):
    tags = [{"wavelength": v, "units": "reflectance"} for v in ("0.5", "0.6", "0.7")]
    path = write_tiff(tmp_path / "a.tif", tags=tags)
    np.testing.assert_allclose(open_source(path).wavelengths, [500, 600, 700])
    path = write_tiff(tmp_path / "b.tif", tags=[{"wavelength": v} for v in ("5e3", "6e3", "7e3")])
    with rasterio.open(path, "r+") as raster:
        raster.update_tags(wavelength_units="Angstroms")
    np.testing.assert_allclose(open_source(path).wavelengths, [500, 600, 700])


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ([("500", "nm"), ("0.6", "um"), ("0.7", "um")], "different units"),
        ([("500", "furlongs")] * 3, "furlongs"),
        ([("{500}", "nm")] * 3, "no number"),
        ([("500 nm", "nm")] * 3, "no number"),
        ([("1", "nm"), ("2", "nm"), ("3", "nm")], "bands' numbers"),
    ],
)
def test_wavelength_tags_that_are_not_clear(tmp_path, tags, message):
    tags = [{"wavelength": w, "wavelength_units": u} for w, u in tags]
    source = open_source(write_tiff(tmp_path / "a.tif", tags=tags))
    assert source.wavelengths is None
    assert (
        message in source.doubts["wavelengths"]
        and "cube.wavelengths" in source.doubts["wavelengths"]
    )


def test_tags_that_nothing_needs_are_told_and_left_out(tmp_path):
    tags = [{"wavelength": w, "bbl": "no", "fwhm": "wide"} for w in ("500", "600", "700")]
    source = open_source(write_tiff(tmp_path / "a.tif", tags=tags))
    assert source.wavelengths.tolist() == [500, 600, 700] and not source.doubts
    assert source.good_bands is None and source.fwhm is None
    assert [name for note in source.notes for name in ("bbl", "fwhm") if name in note] == [
        "fwhm",
        "bbl",
    ]


@pytest.mark.parametrize("unit", ["nm", "um", "µm"])
def test_wavelengths_in_descriptions(tmp_path, unit):
    path = write_tiff(tmp_path / "a.tif", tags=[])
    nm = np.array([500, 600.5, 2400])
    with rasterio.open(path, "r+") as raster:
        raster.descriptions = [f"band ({v / (1 if unit == 'nm' else 1000):g} {unit})" for v in nm]
    np.testing.assert_allclose(open_source(path).wavelengths, nm)


@pytest.mark.parametrize(
    "names", [["PC 1 (95.3)", "PC 2 (3.1)", "PC 3 (0.9)"], ["a (1)", "b (2)", "c (3)"]]
)
def test_numbers_in_descriptions_that_are_no_wavelengths(tmp_path, names):
    path = write_tiff(tmp_path / "a.tif", tags=[])
    with rasterio.open(path, "r+") as raster:
        raster.descriptions = names
    assert open_source(path).wavelengths is None


def test_a_stale_envi_domain_of_more_bands(tmp_path):
    """As after gdal_translate -b: the domain is of all bands, the bands' own tags are right."""
    path = write_tiff(tmp_path / "a.tif")
    with rasterio.open(path, "r+") as raster:
        raster.update_tags(ns="ENVI", wavelength="{400, 500, 600, 700}", bbl="{0, 1, 1, 1}")
    source = open_source(path)
    assert source.wavelengths.tolist() == [500, 600, 700] and source.good_bands is None
    assert "bbl has 4 values for 3 bands" in source.notes[0]


def test_scales(tmp_path):
    path = write_tiff(tmp_path / "a.tif")
    with rasterio.open(path, "r+") as raster:
        raster.scales, raster.offsets = (0.5, 0, 0.5), (0, 0, 0)
    source = open_source(path)
    assert "a.tif" in source.doubts["scale"] and "cube.scale" in source.doubts["scale"]
    with rasterio.open(path, "r+") as raster:
        raster.scales, raster.offsets = (0.5, 0.5, 0.5), (0, np.nan, 0)
    assert "scale" in open_source(path).doubts
    with rasterio.open(path, "r+") as raster:
        raster.scales, raster.offsets = (0.5, 0.5, 0.5), (0, 0, 0)
        raster.update_tags(ns="ENVI", reflectance_scale_factor="0")
    source = open_source(path)
    assert (source.scale == 2).all() and not source.doubts


# --- an ENVI header beside it ---


def test_a_header_beside_a_raster_speaks_of_values_when_it_is_the_rasters(tmp_path):
    path = write_tiff(tmp_path / "scene.tif", tags=[])
    fields = {
        "wavelength": "{500, 600, 700}",
        "bbl": "{1, 1, 0}",
        "reflectance scale factor": "10000",
    }
    write_envi(tmp_path, **fields, **{"data ignore value": "-60"})
    source = open_source(
        path
    )  # converted from the ENVI file beside it: its values may be other ones
    assert source.wavelengths.tolist() == [500, 600, 700] and source.good_bands.tolist() == [
        1,
        1,
        0,
    ]
    assert (source.scale, source.nodata) == (1, ())
    assert tmp_path / "scene.hdr" in source.files
    (tmp_path / "scene.img").unlink()
    source = open_source(path)
    assert (source.scale, source.nodata) == (10000, (-60,))
    write_tiff(path, CUBE.astype(np.float32), tags=[])
    source = open_source(path)
    assert (source.scale, source.nodata) == (1, ())
    write_tiff(path, CUBE[:, :4], tags=[])  # of another size
    assert open_source(path).wavelengths is None


# --- files of other kinds ---


def test_only_geotiff_and_png_are_read(tmp_path):
    inner = write_tiff(tmp_path / "inner.tif")
    rasterio.shutil.copy(inner, tmp_path / "a.vrt", driver="VRT")
    rasterio.shutil.copy(inner, tmp_path / "b.img", driver="HFA")
    for name in ("a.vrt", "b.img"):
        (tmp_path / name).rename(tmp_path / "x.tif")
        with pytest.raises(UserError, match=r"x\.tif: cannot be read"):
            open_source(tmp_path / "x.tif")


@pytest.mark.parametrize(
    "options",
    [
        {"tiled": True, "blockxsize": 16, "blockysize": 16},
        {"interleave": "pixel"},
        {"interleave": "band"},
        {"BIGTIFF": "YES"},
        {"ENDIANNESS": "BIG"},
        {"compress": "zstd", "predictor": 2},
        {"compress": "lerc"},
        {"compress": "lzma"},
        {"compress": "deflate", "predictor": 2, "tiled": True, "blockxsize": 16, "blockysize": 16},
    ],
)
def test_ways_to_store(tmp_path, options):
    np.testing.assert_array_equal(
        whole(open_source(write_tiff(tmp_path / "a.TIF", **options))), CUBE
    )


@pytest.mark.parametrize("dtype", ["i1", "u1", "u2", "u4", "i8", "u8", "f8"])
def test_types(tmp_path, dtype):
    cube = np.arange(-60 if dtype == "i1" else 0, 60).astype(dtype)[:60].reshape(3, 5, 4)
    source = open_source(write_tiff(tmp_path / "a.tif", cube))
    assert whole(source).dtype == np.dtype(dtype)
    np.testing.assert_array_equal(whole(source), cube)


def test_one_bit_and_palettes(tmp_path):
    cube = (CUBE[:1] % 2).astype(np.uint8)
    for photometric in ("minisblack", "miniswhite"):
        path = write_tiff(tmp_path / "a.tif", cube, tags=[], nbits=1, photometric=photometric)
        np.testing.assert_array_equal(whole(open_source(path)), cube)
    path = write_tiff(tmp_path / "p.tif", cube, tags=[], photometric="palette")
    with rasterio.open(path, "r+") as raster:
        raster.write_colormap(1, {0: (9, 8, 7, 255), 1: (1, 2, 3, 255)})
    source = open_source(path)
    assert source.photometric == "palette" and source.colours[1] == (1, 2, 3, 255)
    np.testing.assert_array_equal(whole(source), cube)


def test_png_of_sixteen_bits(tmp_path):
    cube = (CUBE + 60).astype(np.uint16) * 100
    with rasterio.open(
        tmp_path / "a.png", "w", driver="PNG", count=1, height=5, width=4, dtype="uint16"
    ) as raster:
        raster.write(cube[:1])
    source = open_source(tmp_path / "a.png", one_layer=True)
    np.testing.assert_array_equal(whole(source), cube[:1])
    assert (source.kind, source.photometric, source.transform) == ("PNG", "grey", None)


def test_pixel_is_point_lies_half_a_pixel_further(tmp_path):
    path = write_tiff(tmp_path / "a.tif", x=600, y=900)
    with rasterio.open(path, "r+") as raster:
        raster.update_tags(AREA_OR_POINT="Point")
    assert open_source(path).transform == (30, 0, 600, 0, -30, 900)


@pytest.mark.parametrize("kind", ["gcps", "rpcs"])
def test_georeference_that_is_not_used_is_told(tmp_path, kind):
    path = write_tiff(tmp_path / "a.tif", crs=None, transform=None)
    with rasterio.open(path, "r+") as raster:
        if kind == "gcps":
            points = [
                GroundControlPoint(r, c, c * 30.0, r * -30.0) for r, c in ((0, 0), (0, 4), (5, 0))
            ]
            raster.gcps = points, rasterio.crs.CRS.from_epsg(32633)
        else:
            one = [0.0] * 19 + [1.0]
            raster.rpcs = RPC(
                height_off=0, height_scale=1, lat_off=0, lat_scale=1, long_off=0, long_scale=1,
                line_off=0, line_scale=1, samp_off=0, samp_scale=1, line_num_coeff=one,
                line_den_coeff=one, samp_num_coeff=one, samp_den_coeff=one,
            )  # fmt: skip
    source = open_source(path)
    assert source.transform is None
    assert any("not used" in note and "a.tif" in note for note in source.notes)


# --- pages ---


def page(image: np.ndarray, offset: int, last: bool, kind: int = 0) -> bytes:
    """A TIFF directory and its image (y, x, sample) uint16 behind it, which begin at `offset`."""
    height, width, samples = image.shape
    tags = [
        (254, 4, 1, kind), (256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 16), (259, 3, 1, 1),
        (262, 3, 1, 1), (273, 4, 1, offset + 2 + 11 * 12 + 4), (277, 3, 1, samples), (278, 4, 1, height),
        (279, 4, 1, image.size * 2), (284, 3, 1, 1),
    ]  # fmt: skip
    if samples > 1:
        assert samples == 2  # so that both numbers of bits fit into the tag
        tags[3] = (258, 3, 2, 16 | 16 << 16)
    size = 2 + len(tags) * 12 + 4 + image.size * 2
    body = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *t) for t in tags)
    return body + struct.pack("<I", 0 if last else offset + size) + image.astype("<u2").tobytes()


def write_pages(path, images, kinds=None):
    data = b"II*\0" + struct.pack("<I", 8)
    for i, image in enumerate(images):
        data += page(image, len(data), i == len(images) - 1, kinds[i] if kinds else 0)
    path.write_bytes(data)
    return path


PAGES = (CUBE + 60).astype(np.uint16)


def test_pages_are_bands(tmp_path):
    path = write_pages(tmp_path / "a b (1).tif", [band[:, :, None] for band in PAGES])
    source = open_source(path)
    assert source.shape == (3, 5, 4) and source.files == [path]
    np.testing.assert_array_equal(whole(source), PAGES)


def test_pages_of_several_bands(tmp_path):
    images = np.concatenate([PAGES, PAGES + 500])
    pairs = [images[i : i + 2].transpose(1, 2, 0) for i in (0, 2, 4)]
    np.testing.assert_array_equal(
        whole(open_source(write_pages(tmp_path / "a.tif", pairs))), images
    )


def test_a_header_beside_pages(tmp_path):
    write_envi(tmp_path, PAGES, wavelength="{500, 600, 700}", bbl="{1, 0, 1}")
    (tmp_path / "scene.img").unlink()
    source = open_source(write_pages(tmp_path / "scene.tif", [band[:, :, None] for band in PAGES]))
    assert source.wavelengths.tolist() == [500, 600, 700] and source.good_bands.tolist() == [
        1,
        0,
        1,
    ]


def test_pages_of_different_sizes_are_refused(tmp_path):
    path = write_pages(tmp_path / "a.tif", [PAGES[0][:, :, None], PAGES[1][:2, :2, None]])
    with pytest.raises(UserError, match=r"a\.tif: 2 pages of different sizes \(2 x 2, 5 x 4\)"):
        open_source(path)
    rasterio.shutil.copy(f"GTIFF_DIR:1:{path}", tmp_path / "one.tif", driver="GTiff")  # the way out
    np.testing.assert_array_equal(whole(open_source(tmp_path / "one.tif")), PAGES[:1])


def test_thumbnails_and_overviews_are_no_pages(tmp_path):
    path = write_pages(tmp_path / "a.tif", [PAGES[0][:, :, None], PAGES[1][:2, :2, None]], [0, 1])
    np.testing.assert_array_equal(whole(open_source(path)), PAGES[:1])
    path = write_tiff(tmp_path / "b.tif", np.tile(CUBE, (1, 8, 8)))
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as raster:
        raster.write_mask(np.tile(~MASK, (8, 8)))
        raster.build_overviews([2, 4])
    source = open_source(path)
    np.testing.assert_array_equal(source.whole(), np.tile(CUBE, (1, 8, 8)))
    assert source.masked(slice(0, 40), slice(0, 32)).sum() == 64 * MASK.sum()


# --- a file for each band ---


def bands_of(folder, cube=CUBE, **options):
    return [
        write_tiff(
            folder / f"b{i}.tif", band[None], tags=[{"wavelength": str(500 + 100 * i)}], **options
        )
        for i, band in enumerate(cube)
    ]


def test_files_of_bands_in_the_order_of_the_list(tmp_path):
    paths = bands_of(tmp_path)
    source = open_source([paths[2], paths[0], paths[1]])
    assert source.wavelengths.tolist() == [700, 500, 600]
    np.testing.assert_array_equal(whole(source), CUBE[[2, 0, 1]])
    assert source.transform == (30, 0, 0, 0, -30, 0)


def test_files_of_bands_with_no_data_of_their_own(tmp_path):
    cube = CUBE.copy()
    cube[0, 0, 0], cube[1, 1, 1] = 0, 0
    paths = [
        write_tiff(tmp_path / f"b{i}.tif", band[None], tags=[{}], nodata=nodata)
        for i, (band, nodata) in enumerate(zip(cube, (0, -60, None), strict=True))
    ]
    source = open_source(paths)
    values = whole(source)
    assert source.nodata == () and source.masked is None
    assert np.argwhere(np.isnan(values)).tolist() == [[0, 0, 0]]
    np.testing.assert_array_equal(np.nan_to_num(values), cube)


def test_files_of_bands_that_state_different_things(tmp_path):
    paths = bands_of(tmp_path)
    with rasterio.open(paths[1], "r+") as raster:
        raster.update_tags(1, bbl="0")
        raster.scales, raster.offsets = (0.5,), (3,)
    source = open_source(paths)
    assert source.good_bands.tolist() == [True, False, True]
    assert (source.scale.tolist(), source.offset.tolist()) == ([1, 2, 1], [0, 3, 0])
    write_tiff(paths[2], CUBE[2:], tags=[{}])
    source = open_source(paths)
    assert source.wavelengths is None
    assert "b2.tif: states no wavelengths" in source.doubts["wavelengths"]


def test_detectors_in_two_files(tmp_path):
    visible = write_tiff(tmp_path / "v.tif")
    infrared = write_tiff(
        tmp_path / "s.tif", CUBE + 9, tags=[{"wavelength": str(v)} for v in (900, 1000, 1100)]
    )
    source = open_source([visible, infrared])
    assert source.wavelengths.tolist() == [500, 600, 700, 900, 1000, 1100]
    np.testing.assert_array_equal(whole(source), np.concatenate([CUBE, CUBE + 9]))


# --- tiles ---


def test_tiles_of_rotated_and_south_up_grids(tmp_path):
    for turn in (rasterio.Affine.rotation(30), rasterio.Affine.scale(1, -1)):
        grid = rasterio.Affine(30, 0, 600, 0, -30, 900) @ turn
        places = [grid, grid @ rasterio.Affine.translation(4, 5)]
        paths = [
            write_tiff(tmp_path / f"{i}.tif", CUBE + i, transform=place)
            for i, place in enumerate(places)
        ]
        source = open_source(paths[::-1])
        assert source.shape == (3, 10, 8)
        np.testing.assert_allclose(source.transform, tuple(grid)[:6])
        np.testing.assert_array_equal(whole(source)[:, :5, :4], CUBE)
        np.testing.assert_array_equal(whole(source)[:, 5:, 4:], CUBE + 1)


def test_what_a_tile_calls_no_data_is_stored_all_the_same(tmp_path):
    """In labels it may be a class; where tiles overlap, another tile's value counts."""
    labels = np.array([[[0, 1, 2, 1], [0, 2, 1, 0]]], np.uint8)
    first = write_tiff(tmp_path / "a.tif", labels, nodata=0)
    second = write_tiff(tmp_path / "b.tif", labels + 5, x=90, nodata=0)
    source = open_source([first, second], one_layer=True)
    rows, columns = slice(0, 2), slice(0, 7)
    assert source.nodata == (0,) and not source.masked(rows, columns).any()
    assert source.read(rows, columns)[0].tolist() == [[0, 1, 2, 1, 6, 7, 6], [0, 2, 1, 5, 7, 6, 5]]


def test_tiles_of_different_types_and_no_data(tmp_path):
    cube = CUBE.astype(np.float32)
    cube[:, 0] = np.nan
    cube[0, 1, 1] = -60  # no data in the other tile only
    first = write_tiff(tmp_path / "a.tif", CUBE, nodata=-60)
    second = write_tiff(tmp_path / "b.tif", cube, x=120)
    source = open_source([first, second])
    values, missing = whole(source), source.masked(slice(0, 5), slice(0, 8))
    assert source.nodata == ()
    assert np.isnan(values[0, 0, 0]) and values[0, 1, 5] == -60
    assert not missing.any() and np.isnan(values[:, 0, 4:]).all()
    np.testing.assert_array_equal(values[1:, :, :4], CUBE[1:])


def test_a_nan_edge_does_not_hide_another_tile(tmp_path):
    edge = CUBE.astype(np.float32)
    edge[:, :, 2:] = np.nan
    paths = [write_tiff(tmp_path / "a.tif", edge), write_tiff(tmp_path / "b.tif", CUBE + 1.0, x=60)]
    source = open_source(paths)
    expected = np.concatenate([CUBE[:, :, :2], CUBE + 1], axis=2)
    np.testing.assert_array_equal(whole(source), expected)
    assert not source.masked(slice(0, 5), slice(0, 6)).any()


def test_what_tiles_state_differently(tmp_path):
    first = write_tiff(tmp_path / "a.tif")
    second = write_tiff(tmp_path / "b.tif", x=120)
    with rasterio.open(second, "r+") as raster:
        raster.update_tags(1, bbl="0")
        raster.update_tags(2, bbl="1")
        raster.update_tags(3, bbl="1")
        raster.scales = (0.1,) * 3
    source = open_source([first, second])
    assert source.good_bands.tolist() == [False, True, True]
    assert "b.tif: states another scale than" in source.doubts["scale"]
    assert "scenes.<name>.cube.scale" in source.doubts["scale"]
    write_tiff(second, x=120, tags=[])
    source = open_source([first, second])
    assert source.wavelengths is None and "cube.wavelengths" in source.doubts["wavelengths"]


def test_tiles_without_georeference_are_refused(tmp_path):
    options = {"crs": None, "transform": None, "tags": []}
    paths = [
        write_tiff(tmp_path / "a.tif", **options),
        write_tiff(tmp_path / "b.tif", CUBE[:, :3], **options),
    ]
    with pytest.raises(UserError, match=r"a\.tif: has no georeference.*one file"):
        open_source(paths)


def test_tiles_with_palettes_of_their_own_are_refused(tmp_path):
    paths = []
    for i in range(2):
        path = write_tiff(
            tmp_path / f"{i}.tif",
            (CUBE[:1] % 2).astype("u1"),
            x=120 * i,
            tags=[],
            photometric="palette",
        )
        with rasterio.open(path, "r+") as raster:
            raster.write_colormap(1, {0: (9, 8, 7, 255), 1: (i, 2, 3, 255)})
        paths.append(path)
    with pytest.raises(UserError, match=r"1\.tif: its palette differs"):
        open_source(paths, one_layer=True)
