"""The spectral library: there, whole, in two parts that share no source, and missed by name."""

from types import SimpleNamespace

import numpy as np
import pytest

from special_steps.core.errors import UserError
from special_steps.io import spectral_library
from special_steps.io.spectral_library import read_library, reserved, source_of


def test_every_spectrum_has_a_description():
    for part in ("simulation", "evidence"):
        nm, spectra, rows = read_library(part)
        assert spectra.shape == (len(rows), len(nm)) and len(rows) > 1000
        assert nm[0] == pytest.approx(400) and nm[-1] == pytest.approx(2450)
        assert (np.diff(nm) > 0).all()
        assert {"NAME", "LEVEL_3"} <= rows[0].keys()


def test_no_spectrum_and_no_source_serves_both_parts():
    (_, drawn, drawn_rows), (_, known, known_rows) = map(read_library, ("simulation", "evidence"))
    assert len(drawn_rows) + len(known_rows) == 7261
    assert not {s.tobytes() for s in drawn} & {s.tobytes() for s in known}
    assert not set(map(source_of, drawn_rows)) & set(map(source_of, known_rows))


def test_about_a_third_of_a_material_is_for_simulation_and_half_of_it_at_most():
    kinds = [[r["LEVEL_3"] for r in read_library(part)[2]] for part in ("simulation", "evidence")]
    for kind in ("soil", "canopy"):
        drawn, known = (rows.count(kind) for rows in kinds)
        assert drawn / (drawn + known) == pytest.approx(1 / 3, abs=0.01)
    assert set(kinds[0]) < set(kinds[1])  # those of one source are not in it
    assert all(kinds[0].count(kind) <= kinds[1].count(kind) for kind in set(kinds[0]))


def test_the_parts_do_not_depend_on_the_order_of_the_spectra():
    def row(name: str, kind: str) -> dict[str, str]:
        return {"NAME": name, "LEVEL_3": kind, "LAT": "", "LON": "", "SOURCE": "asd"}

    rows = [row(f"s{n % 7}.{n:03}-", "stone") for n in range(35)] + [row("one.001-", "single")] * 3
    there = {r["NAME"]: bool(here) for r, here in zip(rows, reserved(rows), strict=True)}
    back = reserved(rows[::-1])
    assert there == {r["NAME"]: bool(here) for r, here in zip(rows[::-1], back, strict=True)}
    assert sum(there.values()) == 15 and not there["one.001-"]  # three of seven series, whole


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setattr(spectral_library, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"earthlib.*envs/run\.sh"):
        read_library("evidence")


def test_another_version_is_named(monkeypatch, tmp_path):
    found = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(spectral_library, "find_spec", lambda name: found)
    with pytest.raises(UserError, match=r"spectra\.sli: not earthlib 1\.1's library"):
        read_library("evidence")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "spectra.sli.hdr").write_text("ENVI\nlines = 2\nwavelength = {1, 2}\n")
    (tmp_path / "data" / "spectra.sli").write_bytes(bytes(12))
    with pytest.raises(UserError, match=r"spectra\.sli: not earthlib 1\.1's library"):
        read_library("evidence")
