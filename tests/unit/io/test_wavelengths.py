"""Wavelengths in nm, from all units and from band names."""

import numpy as np
import pytest

from special_steps.core.errors import UserError
from special_steps.io.wavelengths import is_unit, merged, stated_bands, to_nm, wavelengths_in_names

NM = np.array([440.0, 550.0, 2400.0])


@pytest.mark.parametrize(
    ("values", "unit"),
    [
        (NM, "Nanometers"),
        (NM, " nanometre "),
        (NM, "NM"),
        (NM / 1e3, "Micrometers"),
        (NM / 1e3, "microns"),
        (NM / 1e3, "µm"),  # micro sign
        (NM / 1e3, "\u03bcm"),  # Greek letter
        (NM / 1e6, "Millimeters"),
        (NM / 1e7, "cm"),
        (NM / 1e9, "Meters"),
        (NM / 1e9, "m"),
        (NM * 10, "Angstroms"),
        (NM * 10, "Å"),
        (NM * 10, "\u212b"),  # the sign of the unit
        (1e7 / NM, "Wavenumber"),
        (1e7 / NM, "cm-1"),
        (1e7 / NM, "1/cm"),
        (299_792_458 / NM, "GHz"),
        (299_792_458e3 / NM, "MHz"),
        (299_792.458 / NM, "THz"),
    ],
)
def test_units(values, unit):
    np.testing.assert_allclose(to_nm(values, unit, "f"), NM, rtol=1e-12)
    np.testing.assert_allclose(to_nm(values[::-1], unit, "f"), NM[::-1], rtol=1e-12)
    np.testing.assert_allclose(to_nm(values[:, None], unit, "f"), NM, rtol=1e-12)
    assert is_unit(unit.strip())


def test_a_guessed_unit_is_logged(caplog):
    with caplog.at_level("INFO", "special"):
        assert to_nm([0.5, 2.5], "Unknown", "file.hdr").tolist() == [500, 2500]
        assert to_nm([500, 2500], None, "file.hdr").tolist() == [500, 2500]
    assert "file.hdr" in caplog.text and "micrometres" in caplog.text


def test_numbers_that_are_said_to_be_no_wavelengths():
    assert to_nm([1, 2], "Index", "f") is None
    assert not is_unit("Index") and not is_unit("reflectance") and not is_unit("")


@pytest.mark.parametrize(
    ("values", "unit", "message"),
    [
        ([1, 2, 3, 4], None, "bands' numbers"),
        ([0, 1, 2, 3], "Unknown", "bands' numbers"),
        ([4, 3, 2, 1], None, "bands' numbers"),
        ([1, 2, 3, 4], "Nanometers", "bands' numbers"),
        ([5, 6, 7, 8], None, "bands' numbers"),
        (np.arange(1, 225), "nm", "bands' numbers"),
        ([0, 0], "nm", "0 or NaN"),
        ([np.nan, np.nan], None, "0 or NaN"),
        ([-500, 600], "nm", "-500 is negative"),
        ([0.5, 600], None, "two units"),
        ([0.5, 600], "nm", "two units"),
        ([0.5, 600], "um", "two units"),
        ([500, 600], "um", "wrong unit"),
        ([0.5, 0.6], "nm", "wrong unit"),
        ([500, 600], "furlongs", "furlongs"),
        ([500, 600], "nm um", "no unit known"),
    ],
)
def test_numbers_that_are_no_wavelengths(values, unit, message):
    with pytest.raises(UserError, match=rf"f: .*{message}.*scenes\.<name>\.cube\.wavelengths"):
        to_nm(np.array(values, float), unit, "f")


def test_spectra_at_each_nanometre_and_thermal_bands_are_no_numbering():
    assert to_nm(np.arange(350, 400), None, "f")[0] == 350
    assert to_nm(np.arange(8, 13), "um", "f").tolist() == [8000, 9000, 10000, 11000, 12000]


def test_unknown_ones_stay_unknown():
    values = to_nm([0, 0.5, np.nan, 0.7], "um", "f")
    np.testing.assert_allclose(values, [np.nan, 500, np.nan, 700])


def test_band_names_are_taken_for_wavelengths_only_when_they_are():
    assert wavelengths_in_names(["a (1)", "b (2)"], "f") is None
    assert wavelengths_in_names(["a (500.1)", "b"], "f") is None
    assert wavelengths_in_names(["a (500 nm)", "b (600 nm)"], "f").tolist() == [500, 600]
    assert wavelengths_in_names(["a (500.0)", "b (450.5)"], "f").tolist() == [500, 450.5]
    assert wavelengths_in_names(["a (0.5)", "b (0.6)"], "f").tolist() == [500, 600]
    assert wavelengths_in_names(["B1 at 500nm", "B2 at 600 nm"], "f").tolist() == [500, 600]
    assert wavelengths_in_names(["490-510 nm", "590-610 nm"], "f") is None
    assert wavelengths_in_names(["PC 1 (95.3)", "PC 2 (3.1)"], "f") is None  # shares
    assert wavelengths_in_names(["a (500 nm)", "b (0.6 um)"], "f") is None
    assert wavelengths_in_names(["a (1.2.3)", "b (600.1)"], "f") is None
    assert wavelengths_in_names([None, "b (600.1)"], "f") is None
    assert wavelengths_in_names([], "f") is None


def test_widths_have_the_unit_of_the_centres():
    stated = stated_bands(np.array([0.5, 0.6]), np.array([0.01, 0.02]), "um", 2, "f")
    np.testing.assert_allclose(stated["wavelengths"], [500, 600])
    np.testing.assert_allclose(stated["fwhm"], [10, 20])
    assert not stated["doubts"] and not stated["notes"]
    stated = stated_bands(np.array([0, 0.6]), np.array([0, 0.02]), "um", 2, "f")
    assert stated["fwhm"][1] == pytest.approx(20)
    for unit, one in (("cm-1", 1e7), ("GHz", 299_792_458)):
        low, high = one / 605, one / 595
        stated = stated_bands(np.array([one / 600]), np.array([high - low]), unit, 1, "f")
        assert stated["fwhm"][0] == pytest.approx(10, rel=1e-3)
    assert stated_bands(None, np.array([5.0]), "nm", 1, "f")["fwhm"] is None
    assert stated_bands(np.array([1.0]), np.array([5.0]), "Index", 1, "f")["wavelengths"] is None


@pytest.mark.parametrize(
    ("centres", "widths", "unit"),
    [
        ([0.5, 0.6], [6.5, 7], "um"),  # widths in nm
        ([500, 600], [0.0065, 0.007], "nm"),  # widths in micrometres
        ([500, 600], [0, 0], "nm"),
        ([500, 600], [np.nan, np.nan], "nm"),
        ([500, 600], [-5, -5], "nm"),
        ([500, 600], [5, 5, 5], "nm"),
    ],
)
def test_widths_that_cannot_be_are_told_and_left_out(centres, widths, unit):
    stated = stated_bands(np.array(centres, float), np.array(widths, float), unit, 2, "f")
    assert stated["wavelengths"] is not None and stated["fwhm"] is None
    assert not stated["doubts"] and len(stated["notes"]) == 1 and "left out" in stated["notes"][0]


def test_wavelengths_that_cannot_be_used_are_a_doubt():
    stated = stated_bands(np.array([500.0, 600]), np.array([5.0, 5]), "nm", 3, "f")
    assert stated["wavelengths"] is None and stated["fwhm"] is None
    assert "2 wavelengths for 3 bands" in stated["doubts"]["wavelengths"]


def test_the_first_place_that_states_a_field_counts():
    found = merged(
        {
            "wavelengths": None,
            "doubts": {"wavelengths": "odd", "scale": "odd too"},
            "notes": ("a",),
        },
        {"wavelengths": 1, "scale": None},
        {"wavelengths": 2, "fwhm": 3, "doubts": {"scale": "later"}, "notes": ("a", "b")},
    )
    assert found == {
        "wavelengths": 1,
        "scale": None,
        "fwhm": 3,
        "doubts": {"scale": "odd too"},
        "notes": ("a", "b"),
    }
