"""Listings of folders: kept while nothing changes, so that a folder of many scenes is listed once."""

import os
import shutil

import numpy as np
import pytest

from special_steps.io import folders
from special_steps.io.envi_header import write_envi
from special_steps.io.source import open_source, source_files


@pytest.fixture
def listed(monkeypatch):
    """Folders that were listed, one entry each time."""
    found = []
    plain = folders._read
    monkeypatch.setattr(folders, "_read", lambda folder: found.append(folder) or plain(folder))
    folders._kept.cache_clear()
    return found


def test_names(tmp_path):
    for name in ("b.TIF", "a.tif", "B.tif"):
        (tmp_path / name).touch()
    assert list(folders.names_in(tmp_path)) == ["B.tif", "a.tif", "b.TIF"]
    assert folders.names_by_lower_case(tmp_path)["b.tif"] == ["B.tif", "b.TIF"]
    with pytest.raises(OSError):
        folders.names_in(tmp_path / "none")


def test_what_is_new_or_gone_is_seen_at_once(tmp_path):
    for number in range(20):
        (tmp_path / f"{number}").touch()
        assert len(folders.names_in(tmp_path)) == number + 1
    os.utime(tmp_path, (1e9, 1e9))
    assert len(folders.names_in(tmp_path)) == 20
    (tmp_path / "0").unlink()
    assert "0" not in folders.names_in(tmp_path)
    os.utime(tmp_path, (1e9, 1e9))
    shutil.rmtree(tmp_path)
    tmp_path.mkdir()
    assert not folders.names_in(tmp_path)


def test_a_folder_of_many_scenes_is_listed_once(tmp_path, listed):
    for number in range(5):
        write_envi(tmp_path / f"{number}.hdr", np.ones((2, 3, 4), np.int16), "a scene", {})
    os.utime(tmp_path, (1e9, 1e9))
    for number in range(5):
        path = tmp_path / f"{number}.img"
        assert source_files(path) == [path, path.with_suffix(".hdr")]
        assert open_source(path).shape == (2, 3, 4)
    assert listed == [str(tmp_path)]
