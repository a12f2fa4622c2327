"""Wavelengths in nm, from all units and from band names."""

import numpy as np
import pytest

from special_steps.core.errors import UserError
from special_steps.io.wavelengths import bands_in_nm, to_nm, wavelengths_in_names


def test_units():
    assert to_nm([500, 600], "Nanometers", "f").tolist() == [500, 600]
    assert to_nm([0.5, 2.5], "Micrometers", "f").tolist() == [500, 2500]
    assert to_nm([1, 2], "Index", "f") is None
    with pytest.raises(UserError, match="GHz"):
        to_nm([1, 2], "GHz", "f")


def test_a_guessed_unit_is_logged(caplog):
    with caplog.at_level("INFO", "special"):
        assert to_nm([0.5, 2.5], "Unknown", "file.hdr").tolist() == [500, 2500]
        assert to_nm([500, 2500], None, "file.hdr").tolist() == [500, 2500]
    assert "file.hdr" in caplog.text and "micrometres" in caplog.text


def test_band_names_are_taken_for_wavelengths_only_when_they_are():
    assert wavelengths_in_names(["a (1)", "b (2)"], "f") is None
    assert wavelengths_in_names(["a (500.1)", "b"], "f") is None
    assert wavelengths_in_names(["a (500 nm)", "b (600 nm)"], "f").tolist() == [500, 600]
    assert wavelengths_in_names([], "f") is None


def test_widths_have_the_unit_of_the_centres():
    centres, widths = bands_in_nm(np.array([0.5, 0.6]), np.array([0.01, 0.02]), "um", "f")
    np.testing.assert_allclose(centres, [500, 600])
    np.testing.assert_allclose(widths, [10, 20])
    assert bands_in_nm(None, np.array([5.0]), "nm", "f") == (None, None)
    assert bands_in_nm(np.array([1.0]), np.array([5.0]), "Index", "f") == (None, None)
