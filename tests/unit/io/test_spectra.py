"""Users' own spectra: each kind of file as its makers write it, and what is wrong with one said in a line."""

import logging

import numpy as np
import pytest

from special_steps.core.errors import UserError
from special_steps.io.spectra import read_spectra

NM = np.arange(400.0, 1001, 10)
LEAF = 0.05 + 0.4 / (1 + np.exp(-(NM - 715) / 12))
SAND = 0.2 + 0.0003 * (NM - 400)
DELETED = -1.23e34


def table(*columns, form="{:.6f}", mark=","):
    return "\n".join(mark.join(form.format(v) for v in row) for row in zip(*columns, strict=True))


@pytest.fixture
def write(tmp_path):
    def make(text: str, name: str = "mine.csv"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return make


def test_a_table_with_and_without_titles(write):
    body = table(NM, LEAF, SAND)
    for text in (body, "wavelength,leaf,sand\n" + body, "# mine\nnm,leaf,sand\n" + body + "\n\n"):
        nm, spectra = read_spectra(write(text))
        assert np.allclose(nm, NM) and np.allclose(spectra, [LEAF, SAND], atol=1e-6)


@pytest.mark.parametrize("mark", [",", ";", "\t", " "])
def test_other_marks_between_columns(write, mark):
    _, spectra = read_spectra(write(table(NM, SAND, mark=mark), "mine.txt"))
    assert spectra.shape == (1, len(NM)) and np.allclose(spectra[0], SAND, atol=1e-6)


def test_commas_in_numbers_between_semicolons(write):
    text = "Wellenlänge (nm);Sand\n" + table(NM, SAND, mark=";").replace(".", ",")
    assert np.allclose(read_spectra(write(text))[1][0], SAND, atol=1e-6)


def test_micrometres_by_title_and_by_range(write):
    for title in ("", "wavelength (um),sand\n", "Wavelength_micrometers,sand\n"):
        assert np.allclose(read_spectra(write(title + table(NM / 1000, SAND)))[0], NM)


def test_descending_wavelengths_are_turned(write):
    nm, spectra = read_spectra(write(table(NM[::-1], LEAF[::-1])))
    assert np.allclose(nm, NM) and np.allclose(spectra[0], LEAF, atol=1e-6)


def test_stated_percent_needs_no_guess_and_unstated_percent_a_warning(write, caplog):
    dark = 0.01 * LEAF  # its percents look like fractions
    stated = write("nm,leaf (percent)\n" + table(NM, 100 * dark))
    with caplog.at_level(logging.WARNING):
        assert np.allclose(read_spectra(stated)[1], dark, atol=1e-6)
    assert not caplog.records
    for factor, unit in ((100, "percent"), (10_000, "10000")):
        caplog.clear()
        path = write(table(NM, factor * LEAF))
        with caplog.at_level(logging.WARNING):
            assert np.allclose(read_spectra(path)[1], LEAF, atol=1e-5)
        assert "mine.csv" in caplog.text and unit in caplog.text


def test_a_percentage_in_a_name_is_no_unit(write):
    text = "nm,80% sand,fraction clay\n" + table(NM, SAND, LEAF)
    assert np.allclose(read_spectra(write(text))[1], [SAND, LEAF], atol=1e-6)


@pytest.mark.parametrize("mark", [DELETED, -9999.0, np.nan])
def test_few_missing_values_are_filled_in_and_ends_left_out(write, mark, caplog):
    broken = SAND.copy()
    broken[[0, 20, 21, -1]] = mark
    with caplog.at_level(logging.WARNING):
        nm, spectra = read_spectra(write(table(NM, broken, LEAF, form="{:.8g}")))
    assert np.allclose(nm, NM[1:-1]) and np.allclose(spectra, [SAND[1:-1], LEAF[1:-1]], atol=1e-6)
    assert "spectrum 1: 2 values filled in" in caplog.text


def test_empty_cells_are_missing_values(write):
    lines = table(NM, SAND, LEAF).splitlines()
    lines[30] = f"{NM[30]},,{LEAF[30]}"
    assert np.allclose(read_spectra(write("\n".join(lines)))[1][0], SAND, atol=1e-6)


def test_many_missing_values_are_an_error(write):
    broken = SAND.copy()
    broken[20:40] = DELETED
    with pytest.raises(UserError, match=r"mine\.csv: spectrum 1 lacks 20 of 61 values"):
        read_spectra(write(table(NM, broken, form="{:.8g}")))
    with pytest.raises(UserError, match="spectrum 2 has no value"):
        read_spectra(write(table(NM, SAND, 0 * NM + DELETED, form="{:.8g}")))


def envi(folder, header_name, values, fields=""):
    values.tofile(folder / "mine.sli")
    listed = ", ".join(f"{v:.1f}" for v in NM)
    (folder / header_name).write_text(
        f"ENVI\nsamples = {len(NM)}\nlines = {len(values)}\nbands = 1\nheader offset = 0\n"
        f"file type = ENVI Spectral Library\ndata type = {4 if values.itemsize == 4 else 5}\n"
        f"byte order = {int(values.dtype.byteorder == '>')}\n{fields}"
        f"spectra names = {{leaf, sand}}\nwavelength units = Nanometers\nwavelength = {{{listed}}}\n"
    )
    return folder / "mine.sli", folder / header_name


@pytest.mark.parametrize("header", ["mine.hdr", "mine.sli.hdr"])
@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8"])
def test_envi_library_by_either_of_its_files(tmp_path, header, dtype):
    for path in envi(tmp_path, header, np.array([LEAF, SAND], dtype)):
        nm, spectra = read_spectra(path)
        assert np.allclose(nm, NM) and np.allclose(spectra, [LEAF, SAND], atol=1e-6)


def test_envi_library_in_micrometres_with_a_scale_and_no_data(tmp_path):
    values = np.array([LEAF, SAND], "<f4") * 10_000
    values[1, 30] = 77
    path, header = envi(
        tmp_path,
        "mine.hdr",
        values,
        "reflectance scale factor = 10000\ndata ignore value = 77\n",
    )
    text = header.read_text().replace("Nanometers", "Micrometers")
    before, _, listed = text.partition("wavelength = {")
    listed = ", ".join(str(float(v) / 1000) for v in listed.strip("}\n").split(","))
    header.write_text(f"{before}wavelength = {{{listed}}}\n")
    nm, spectra = read_spectra(path)
    assert np.allclose(nm, NM) and np.allclose(spectra, [LEAF, SAND], atol=1e-6)


def test_damaged_envi_libraries_are_named(tmp_path):
    path, header = envi(tmp_path, "mine.hdr", np.array([LEAF, SAND], "<f4"))
    whole = header.read_text()
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(UserError, match=r"mine\.sli: the file is truncated: 120 values"):
        read_spectra(path)
    header.write_text(whole.replace("bands = 1\n", "bands = 3\n"))
    with pytest.raises(UserError, match=r"mine\.hdr: not a spectral library"):
        read_spectra(path)
    header.write_text(whole.split("wavelength units")[0])
    np.array([LEAF, SAND], "<f4").tofile(path)
    with pytest.raises(UserError, match=r"mine\.hdr: states no wavelengths"):
        read_spectra(path)
    header.unlink()
    with pytest.raises(UserError, match="two files, NAME"):
        read_spectra(path)


ECOSTRESS = """Name: Acer rubrum
Type: vegetation
Class: tree
Wavelength Range: VSWIR
Collection Date: 7/19/2010
Description: leaves; 1.5 m above ground: sunlit.
Measurement: Directional (10 Degree) Hemispherical Reflectance
First Column: X
Second Column: Y
X Units: Wavelength (micrometers)
Y Units: Reflectance (percent)
First X Value: 1.0
Last X Value: 0.4
Number of X Values: 61
Additional Information: none

"""


def test_ecostress_text(write):
    body = table(NM[::-1] / 1000, 100 * LEAF[::-1], mark="\t")
    nm, spectra = read_spectra(write(ECOSTRESS + body, "vegetation.tree.acer.vswir.txt"))
    assert np.allclose(nm, NM) and np.allclose(spectra, [LEAF], atol=1e-6)
    other = ECOSTRESS.replace("Reflectance (percent)", "Emissivity")
    with pytest.raises(UserError, match=r"tir\.txt: 'Y Units: emissivity' is no reflectance"):
        read_spectra(write(other + body, "tir.txt"))


def test_usgs_splib07_text_with_its_wavelengths_beside_it_or_above(write):
    values = SAND.copy()
    values[[0, 5]] = DELETED
    column = "\n".join(f" {v:.7E}" for v in values)
    path = write(f" splib07a Record=44: Sand DWO-3 ASDFRa AREF\n{column}\n", "soils/sand.txt")
    with pytest.raises(UserError, match=r"sand\.txt: a USGS spectrum's wavelengths.* 61 values"):
        read_spectra(path)
    for name in ("splib07a_Wavelengths_ASD_0.4-1.0_microns.txt", "soils/wavelengths_ASD.txt"):
        listed = "\n".join(f" {v:.6E}" for v in NM / 1000)
        file = write(f" splib07a Record=1: Wavelengths ASD\n{listed}\n", name)
        other = write(
            " splib07a Record=2: Wavelengths BECK\n 0.2\n 0.3\n 0.4\n", "wavelengths_B.txt"
        )
        nm, spectra = read_spectra(path)
        assert np.allclose(nm, NM[1:]) and np.allclose(spectra, [SAND[1:]], atol=1e-6)
        file.unlink()
        other.unlink()


def test_usgs_splib06_text(write):
    head = (
        "USGS Digital Spectral Library splib06a\nClark and others 2007, USGS, Data Series 231.\n\n"
    )
    rows = table(NM / 1000, LEAF, 0 * NM + DELETED, form="{:.6g}", mark="   ")
    nm, spectra = read_spectra(
        write(f"{head}line 15: wavelength, reflectance, std\n{rows}", "l.asc")
    )
    assert np.allclose(nm, NM) and np.allclose(spectra, [LEAF], atol=1e-5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("some words\nwithout numbers", "row 2 holds 'without numbers'"),
        ("400\n500\n600", "one column only"),
        ("400,0.1\n500,0.1,0.3", "rows of numbers, with 2 or 3 columns"),
        ("400,0.1\n400,0.2\n500,0.1", "wavelength 400 nm is there twice"),
        ("1,0.1\n2,0.2\n700,0.1", "wavelengths from 1 to 700 .*two units mixed.*write them in nm"),
        ("400,5e6\n500,7e6", "values up to 7e.06 are no reflectances"),
        ("nm,a (percent)\n400,50\n500,700", "values up to 700 are no reflectances"),
    ],
)
def test_what_is_no_spectrum_is_named(write, text, message):
    with pytest.raises(UserError, match=rf"mine\.csv: .*{message}"):
        read_spectra(write(text))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"mine\.csv: there is no such file"):
        read_spectra(tmp_path / "mine.csv")
