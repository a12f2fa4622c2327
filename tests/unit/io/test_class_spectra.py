"""The table of mean spectra."""

import numpy as np
import pytest

from special_steps.io.class_spectra import ClassSpectra, read_class_spectra, write_class_spectra

NAMES = ['trees, "old"', "Wässer"]
SPECTRA = ClassSpectra(
    np.array([423.039, 500.0, 2450]),
    np.array([True, False, True]),
    np.array([5, 0]),
    np.array([[1e-5, 2, 3], [np.nan] * 3]),
    np.array([[0.1, 0.2, 0.3], [np.nan] * 3]),
)


def test_what_is_written_is_read(tmp_path):
    write_class_spectra(tmp_path / "s.csv", NAMES, SPECTRA)
    for one, two in zip(read_class_spectra(tmp_path / "s.csv", NAMES), SPECTRA, strict=True):
        np.testing.assert_array_equal(one, two)
    assert "Wässer,500,,,0,false" in (tmp_path / "s.csv").read_text(encoding="utf-8")


def test_spectra_of_other_classes_are_refused(tmp_path):
    write_class_spectra(tmp_path / "s.csv", NAMES, SPECTRA)
    with pytest.raises(ValueError, match="other classes"):
        read_class_spectra(tmp_path / "s.csv", NAMES[::-1])


def test_good_bands():
    drawn = SPECTRA.good_bands()
    assert drawn.wavelengths.tolist() == [423.039, 2450] and drawn.mean.shape == (2, 2)
