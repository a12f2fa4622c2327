"""The spectral library: there, whole, and missed by name."""

from types import SimpleNamespace

import numpy as np
import pytest

from special_steps.core.errors import UserError
from special_steps.io import spectral_library
from special_steps.io.spectral_library import read_library


def test_every_spectrum_has_a_description():
    nm, spectra, rows = read_library()
    assert spectra.shape == (len(rows), len(nm)) and len(rows) > 1000
    assert nm[0] == pytest.approx(400) and nm[-1] == pytest.approx(2450)
    assert (np.diff(nm) > 0).all()
    assert {"NAME", "LEVEL_3"} <= rows[0].keys()


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setattr(spectral_library, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"earthlib.*envs/run\.sh"):
        read_library()


def test_another_version_is_named(monkeypatch, tmp_path):
    found = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(spectral_library, "find_spec", lambda name: found)
    with pytest.raises(UserError, match=r"spectra\.sli: not earthlib 1\.1's library"):
        read_library()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "spectra.sli.hdr").write_text("ENVI\nlines = 2\nwavelength = {1, 2}\n")
    (tmp_path / "data" / "spectra.sli").write_bytes(bytes(12))
    with pytest.raises(UserError, match=r"spectra\.sli: not earthlib 1\.1's library"):
        read_library()
