"""ENVI scenes: layouts, byte orders, what a header says, and headers that are wrong."""

import os

import numpy as np
import pytest
import rasterio
from rasters import CUBE, whole, write_envi

from special_steps.core.errors import UserError
from special_steps.io.source import open_source


@pytest.mark.parametrize("layout", ["bsq", "bil", "bip"])
@pytest.mark.parametrize("order", [0, 1])
def test_envi_layouts_and_byte_orders(tmp_path, layout, order):
    header = write_envi(tmp_path, layout=layout, order=order)
    source = open_source(header)
    assert source.shape == CUBE.shape
    np.testing.assert_array_equal(whole(source), CUBE)
    assert source.wavelengths is None and source.good_bands is None and source.nodata == ()


def test_envi_types_offset_and_upper_case(tmp_path):
    for dtype in ("u1", "i4", "f4", "f8", "u2"):
        cube = np.abs(CUBE).astype(dtype)
        header = write_envi(tmp_path, cube, "BIL".lower(), **{"header offset": "13"})
        header.write_text(header.read_text().replace("interleave = bil", "Interleave = BIL"))
        np.testing.assert_array_equal(whole(open_source(header)), cube)


def test_envi_by_header_or_data_file(tmp_path):
    write_envi(tmp_path)
    for name in ("scene.hdr", "scene.img"):
        source = open_source(tmp_path / name)
        assert [f.name for f in source.files] == ["scene.img", "scene.hdr"]
    (tmp_path / "scene.hdr").rename(tmp_path / "scene.img.hdr")
    for name in ("scene.img.hdr", "scene.img"):
        np.testing.assert_array_equal(whole(open_source(tmp_path / name)), CUBE)
    (tmp_path / "scene.img").rename(tmp_path / "plain")
    (tmp_path / "scene.img.hdr").rename(tmp_path / "plain.hdr")
    np.testing.assert_array_equal(whole(open_source(tmp_path / "plain")), CUBE)


def test_envi_header_says_it_all(tmp_path):
    header = write_envi(
        tmp_path,
        **{
            "wavelength units": "Micrometers",
            "wavelength": "{\n 0.5, 0.6,\n 0.7}",
            "fwhm": "{0.01, 0.02, 0.03}",
            "bbl": "{1, 0, 1}",
            "data ignore value": "-9999",
            "reflectance scale factor": "10000.0",
            "map info": "{UTM, 1, 1, 300000, 5800000, 2, 2, 33, North, WGS-84, units=Meters}",
            "description": "{a = b,\n second line}",
        },
    )
    source = open_source(header)
    np.testing.assert_allclose(source.wavelengths, [500, 600, 700])
    np.testing.assert_allclose(source.fwhm, [10, 20, 30])
    assert source.good_bands.tolist() == [True, False, True]
    assert (source.nodata, source.scale) == ((-9999,), 10000)
    assert source.transform == (2, 0, 300000, 0, -2, 5800000)
    assert rasterio.crs.CRS.from_wkt(source.crs).to_epsg() == 32633


def test_envi_wavelengths_in_band_names(tmp_path):
    header = write_envi(
        tmp_path, **{"band names": "{Band 1 (500.5), Band 2 (600.25), Band 3 (700.0)}"}
    )
    np.testing.assert_allclose(open_source(header).wavelengths, [500.5, 600.25, 700])


def test_envi_mistakes(tmp_path):
    header = write_envi(tmp_path)
    text, data = header.read_text(), tmp_path / "scene.img"
    for old, new, message in (
        ("ENVI\n", "", "not an ENVI header"),
        ("samples = 4\n", "", "samples"),
        ("lines = 5", "lines = many", "many"),
        ("data type = 2", "data type = 6", "data type 6"),
        ("interleave = bsq", "interleave = bsx", "bsx"),
        ("byte order = 0", "byte order = 0\nfile compression = 1", "compressed"),
        ("samples = 4", "samples = 4.5", "'4.5' is no whole number"),
        ("samples = 4", "samples = 0", "samples = 0"),
        ("samples = 4", "samples = -4", "is negative"),
        ("samples = 4", "samples = 1000000000000", "describes 30000000000000: cut short"),
        ("samples = 4", "samples = 4\nsamples = 5", r"'4 / 5 \(stated twice\)' is no whole number"),
        ("bands = 3", "bands = 2", "describes 80: longer than that"),
        ("interleave = bsq\n", "", "no field 'interleave'.*bsq, bil or bip"),
        ("byte order = 0\n", "", "field 'byte order' is missing"),
        ("byte order = 0", "byte order = 2", "write 0 .*or 1"),
        ("byte order = 0", "byte order = 0\nheader offset = -1", "header offset = -1 is negative"),
        ("byte order = 0", "byte order = 0\nmajor frame offsets = {1}", "major frame offsets"),
        ("byte order = 0", "byte order = 0\nmajor frame offsets = {-1, 0}", "major frame offsets"),
        ("byte order = 0", "byte order = 0\nminor frame offsets = {a, 0}", "minor frame offsets"),
        ("byte order = 0", "byte order = 0\nfile type = ENVI Spectral Library", "spectral library"),
    ):
        assert old in text
        header.write_text(text.replace(old, new))
        with pytest.raises(UserError, match=message):
            open_source(header)
    header.write_text(text)
    data.write_bytes(data.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"scene\.img: the file has 119 bytes.*120: cut short"):
        open_source(header)
    data.unlink()
    with pytest.raises(UserError, match=r"scene\.hdr: no data file"):
        open_source(header)


# --- what headers of the wild look like ---


def edited(header, text, encoding="utf-8"):
    """The header with more lines at its end."""
    header.write_bytes((header.read_text() + text).encode(encoding))
    return header


@pytest.mark.parametrize(
    ("layout", "major", "minor"),
    [(layout, (3, 5), (2, 7)) for layout in ("bsq", "bil", "bip")] + [("bip", (0, 0), (1, 0))],
)
def test_bytes_around_frames_are_skipped(tmp_path, layout, major, minor):
    """Minor frames are lines (bsq, bil) or spectra (bip), major ones the next larger (ENVI's help, article 4661)."""
    header = write_envi(tmp_path, layout=layout, order=1)
    ways = {"bsq": (0, 1, 2), "bil": (1, 0, 2), "bip": (1, 2, 0)}
    data = b"\x11" * 9
    for outer in CUBE.transpose(ways[layout]).astype(">i2"):
        data += b"\xfa" * major[0]
        for inner in outer:
            data += b"\xfb" * minor[0] + inner.tobytes() + b"\xfc" * minor[1]
        data += b"\xfd" * major[1]
    (tmp_path / "scene.img").write_bytes(data)
    edited(
        header,
        f"header offset = 9\nmajor frame offsets = {{{major[0]}, {major[1]}}}\n"
        f"minor frame offsets = {{{minor[0]}, {minor[1]}}}\n",
    )
    np.testing.assert_array_equal(whole(open_source(header)), CUBE)


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1"])
def test_texts_of_all_systems(tmp_path, line_end, encoding):
    header = write_envi(tmp_path)
    text = header.read_text() + (
        "; wavelength = {1, 2, 3}\ndescription = { 20 µm, {x} and\n bands = 9 }\n\n"
        "\tWaveLength   Units\t=\tNanometers\nWAVELENGTH\t=\n\t{ 4.265e+02,\t500,\n; more\n 600.5,\n}\n"
        "data_ignore_value = -9.999e+03\n"
    )
    header.write_bytes(text.replace("\n", line_end).encode(encoding))
    source = open_source(header)
    assert source.wavelengths.tolist() == [426.5, 500, 600.5]
    assert source.nodata == (-9999,) and not source.doubts and not source.notes
    np.testing.assert_array_equal(whole(source), CUBE)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf_16_is_refused(tmp_path, encoding):
    header = edited(write_envi(tmp_path), "", encoding)
    with pytest.raises(UserError, match=r"scene\.hdr: no plain text \(UTF-16.*UTF-8"):
        open_source(header)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("wavelength = {500, 600,\n 700\nfwhm = {1, 2, 3}\n", "wavelength"),
        ("wavelength = {500, 600,\n 700\nx start = 1\nfwhm =\n {1, 2, 3}\n", "wavelength"),
        ("description = {one\n two\nwavelength = {500, 600, 700}\n", "description"),
        ("band names = {a,\n b, c\n", "band names"),
    ],
)
def test_a_missing_brace_is_named(tmp_path, text, name):
    with pytest.raises(UserError, match=rf"scene\.hdr: the brace of field '{name}' is not closed"):
        open_source(edited(write_envi(tmp_path), text))


@pytest.mark.parametrize(
    ("text", "nodata"),
    [
        ("-9999", (-9999,)),
        ("{ -9999 }", (-9999,)),
        ("{-9999, 0}", (-9999, 0)),
        ("-9.999e3", (-9999,)),
        ("-3.40282347e+38", (-3.40282347e38,)),
        ("1e400", (np.inf,)),
        ("", ()),
        ("{}", ()),
        ("none", ()),
        ("N/A", ()),
    ],
)
def test_values_to_ignore(tmp_path, text, nodata):
    source = open_source(write_envi(tmp_path, **{"data ignore value": text}))
    assert source.nodata == nodata and not source.doubts
    source = open_source(write_envi(tmp_path, **{"data ignore value": "NaN"}))
    assert np.isnan(source.nodata).all() and len(source.nodata) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("-9,999", "one number or several"),
        ("1,234.5", "one number or several"),
        ("-1.#QNAN", "not a list of numbers"),
        ("-9999 DN", "not a list of numbers"),
        ("-9999 ; as told", "not a list of numbers"),
        ("-9_999", "not a list of numbers"),
        ("-9999\ndata ignore value = 0", "stated twice"),
    ],
)
def test_values_to_ignore_that_are_not_clear(tmp_path, text, message):
    source = open_source(write_envi(tmp_path, **{"data ignore value": text}))
    assert source.nodata == ()
    assert (
        message in source.doubts["nodata"]
        and "scenes.<name>.cube.nodata" in source.doubts["nodata"]
    )
    assert str(tmp_path / "scene.hdr") in source.doubts["nodata"]


@pytest.mark.parametrize(
    ("fields", "scale", "offset"),
    [
        ({"reflectance scale factor": "1e4"}, 10000, 0),
        ({"reflectance scale factor": "{10000}"}, 10000, 0),
        ({"data gain values": "{0.1, 0.2, 0.5}"}, [10, 5, 2], 0),
        ({"data gain values": "0.5"}, [2, 2, 2], 0),
        ({"data offset values": "{1, 2, 3}"}, 1, [1, 2, 3]),
        ({"data gain values": "{1, 1, 1}", "reflectance scale factor": "100"}, 100, 0),
    ],
)
def test_scales(tmp_path, fields, scale, offset):
    source = open_source(write_envi(tmp_path, **fields))
    assert not source.doubts
    np.testing.assert_allclose(np.broadcast_to(source.scale, 3), np.broadcast_to(scale, 3))
    np.testing.assert_allclose(np.broadcast_to(source.offset, 3), np.broadcast_to(offset, 3))


@pytest.mark.parametrize(
    "fields",
    [
        {"reflectance scale factor": "0"},
        {"reflectance scale factor": "-1"},
        {"reflectance scale factor": "inf"},
        {"reflectance scale factor": "{10000, 1000, 100}"},
        {"reflectance scale factor": "10,000"},
        {"reflectance scale factor": "10000 DN"},
        {"data gain values": "{1, 0, 1}"},
        {"data gain values": "{1, 2}"},
        {"data gain values": "{1, nan, 1}"},
        {"data offset values": "{1, nan, 1}"},
        {"data offset values": "{a, b, c}"},
        {"data gain values": "{2, 2, 2}", "reflectance scale factor": "100"},
    ],
)
def test_scales_that_are_not_clear(tmp_path, fields):
    source = open_source(write_envi(tmp_path, **fields))
    assert (
        "scene.hdr" in source.doubts["scale"]
        and "scenes.<name>.cube.scale" in source.doubts["scale"]
    )
    assert source.scale == 1 and source.offset == 0


def test_fields_that_nothing_needs_are_told_and_left_out(tmp_path):
    source = open_source(
        write_envi(
            tmp_path,
            **{"bbl": "{1, no, 1}", "wavelength": "{500, 600, 700}", "fwhm": "{5, wide, 7}"},
            **{"data reflectance gain values": "{1, 2, 3}"},
        )
    )
    assert source.good_bands is None and source.fwhm is None and not source.doubts
    assert ["bbl" in note for note in source.notes].count(True) == 1
    assert any("fwhm" in note for note in source.notes)
    assert any("reflectance gain values" in note for note in source.notes)
    source = open_source(write_envi(tmp_path, bbl="{1, 0}", wavelength="[500. 600. 700.]"))
    assert source.wavelengths.tolist() == [500, 600, 700] and source.good_bands is None
    assert "bbl has 2 values for 3 bands" in source.notes[0]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"wavelength": "{500, 600}"}, "2 wavelengths for 3 bands"),
        ({"wavelength": "{500 nm, 600 nm, 700 nm}"}, "not a list of numbers"),
        ({"wavelength": "{500, 600, 700}\nwavelength = {501, 600, 700}"}, "stated twice"),
        (
            {"wavelength": "{500, 600, 700}", "wavelength units": "nm\nwavelength units = um"},
            "stated twice",
        ),
        ({"wavelength": "{1, 2, 3}"}, "bands' numbers"),
    ],
)
def test_wavelengths_that_are_not_clear(tmp_path, fields, message):
    source = open_source(write_envi(tmp_path, **fields))
    assert source.wavelengths is None
    assert (
        message in source.doubts["wavelengths"]
        and "cube.wavelengths" in source.doubts["wavelengths"]
    )


def test_the_same_field_twice_is_no_mistake(tmp_path):
    header = edited(
        write_envi(tmp_path, wavelength="{500, 600, 700}"), "wavelength = {500,600,\n700}\n"
    )
    assert open_source(header).wavelengths.tolist() == [500, 600, 700]


def test_a_place_that_is_stated_twice(tmp_path):
    place = "map info = {UTM, 1, 1, 300000, 5800000, 2, 2, 33, North, WGS-84, units=Meters}\n"
    source = open_source(edited(write_envi(tmp_path), place + place.replace("300000", "400000")))
    assert source.transform is None and source.crs is None
    assert any("no georeference" in note and "twice" in note for note in source.notes)


def test_classifications_are_read_as_they_are(tmp_path):
    header = write_envi(tmp_path, np.arange(20, dtype=np.uint8).reshape(1, 5, 4) % 3)
    edited(
        header, "file type = ENVI Classification\nclasses = 3\nclass names = {Unclassified, a, b}\n"
    )
    assert whole(open_source(header)).tolist() == (np.arange(20).reshape(1, 5, 4) % 3).tolist()


def test_misspelt_fields_are_told(tmp_path):
    source = open_source(write_envi(tmp_path, **{"data ignore values": "7", "scan lines": "9"}))
    assert source.nodata == () and len(source.notes) == 1
    assert "'data ignore values' is not known; if it is 'data ignore value'" in source.notes[0]
    source = open_source(
        write_envi(tmp_path, **{"data ignore value": "7", "wavelengths": "x\nwavelength={5,6,7}"})
    )
    assert source.nodata == (7,) and not source.notes


def test_a_value_on_the_next_line(tmp_path):
    fields = {"data ignore value": "\n -9999", "sensor type": "", "bbl": "\n\t{1,\n1, 0}"}
    source = open_source(write_envi(tmp_path, **fields))
    assert source.nodata == (-9999,) and source.good_bands.tolist() == [True, True, False]


# --- which file belongs to which ---


def rename(folder, **names):
    for old, new in names.items():
        (folder / old.replace("_", ".")).rename(folder / new)


def test_upper_and_mixed_case(tmp_path):
    write_envi(tmp_path)
    rename(tmp_path, scene_img="SCENE.IMG", scene_hdr="SCENE.HDR")
    for name in ("SCENE.IMG", "SCENE.HDR"):
        np.testing.assert_array_equal(whole(open_source(tmp_path / name)), CUBE)
    (tmp_path / "SCENE.HDR").rename(tmp_path / "Scene.Hdr")
    for name in ("SCENE.IMG", "Scene.Hdr"):
        np.testing.assert_array_equal(whole(open_source(tmp_path / name)), CUBE)


def test_two_scenes_whose_names_differ_in_case_only(tmp_path):
    write_envi(tmp_path, CUBE + 1)
    rename(tmp_path, scene_img="A.img", scene_hdr="A.hdr")
    write_envi(tmp_path, CUBE)
    rename(tmp_path, scene_img="a.img", scene_hdr="a.hdr")
    if (tmp_path / "A.img").samefile(tmp_path / "a.img"):
        pytest.skip("this file system does not tell upper from lower case")
    for name in ("a.img", "a.hdr"):
        np.testing.assert_array_equal(whole(open_source(tmp_path / name)), CUBE)
    for name in ("A.img", "A.hdr"):
        np.testing.assert_array_equal(whole(open_source(tmp_path / name)), CUBE + 1)


def test_a_header_of_another_data_file_of_the_same_stem(tmp_path):
    write_envi(tmp_path, CUBE + 1)
    rename(tmp_path, scene_img="scene.dat", scene_hdr="scene.dat.hdr")
    write_envi(tmp_path)
    for name in ("scene.img", "scene.hdr"):
        np.testing.assert_array_equal(whole(open_source(tmp_path / name)), CUBE)
    for name in ("scene.dat", "scene.dat.hdr"):
        np.testing.assert_array_equal(whole(open_source(tmp_path / name)), CUBE + 1)


def test_two_data_files_for_a_header(tmp_path):
    header = write_envi(tmp_path)
    (tmp_path / "scene.bsq").write_bytes((tmp_path / "scene.img").read_bytes())
    with pytest.raises(UserError, match=r"scene\.hdr: which data file.*scene\.img or scene\.bsq"):
        open_source(header)
    np.testing.assert_array_equal(whole(open_source(tmp_path / "scene.bsq")), CUBE)  # the way out


def test_a_data_file_of_an_unusual_suffix_is_named(tmp_path):
    header = write_envi(tmp_path)
    rename(tmp_path, scene_img="scene.rfl")
    with pytest.raises(UserError, match=r"scene\.hdr: no data file.*as path: scene\.rfl"):
        open_source(header)
    np.testing.assert_array_equal(whole(open_source(tmp_path / "scene.rfl")), CUBE)


def test_folders_pipes_and_loops_are_no_files(tmp_path):
    header = write_envi(tmp_path)
    rename(tmp_path, scene_img="scene.dat")
    (tmp_path / "scene.img").mkdir()
    os.mkfifo(tmp_path / "scene.raw")
    os.mkfifo(tmp_path / "scene.dat.hdr")
    np.testing.assert_array_equal(whole(open_source(header)), CUBE)
    np.testing.assert_array_equal(whole(open_source(tmp_path / "scene.dat")), CUBE)
    with pytest.raises(UserError, match=r"scene\.raw: neither a file nor a folder"):
        open_source(tmp_path / "scene.raw")
    (tmp_path / "loop.hdr").symlink_to(tmp_path / "loop.hdr")
    (tmp_path / "loop.img").write_bytes(b"1")
    for name in ("loop.hdr", "loop.img"):
        with pytest.raises(UserError, match=r"loop\.(hdr|img): "):
            open_source(tmp_path / name)
    (tmp_path / "link.hdr").symlink_to(header)
    (tmp_path / "link.img").symlink_to(tmp_path / "scene.dat")
    np.testing.assert_array_equal(whole(open_source(tmp_path / "link.hdr")), CUBE)


def test_headers_of_esri_are_none(tmp_path):
    (tmp_path / "a.hdr").write_text("BYTEORDER I\nNROWS 5\nNCOLS 4\nNBANDS 3\nLAYOUT BIL\n")
    (tmp_path / "a.bil").write_bytes(CUBE.tobytes())
    with pytest.raises(UserError, match=r"a\.hdr: not an ENVI header"):
        open_source(tmp_path / "a.bil")
