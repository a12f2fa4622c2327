"""Unpack: a whole folder, or none."""

import zipfile

import pytest

from special_steps.core.errors import UserError
from special_steps.unpack import unpack


def test_the_folder_is_whole_or_not_there(tmp_path):
    path, out = tmp_path / "a.zip", tmp_path / "out"
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("scene/a.txt", b"one")
    unpack(archive=path, out=out)
    assert (out / "scene" / "a.txt").read_bytes() == b"one"
    with zipfile.ZipFile(path, "a") as packed:
        packed.writestr("scene/a.txt/b", b"two")  # cannot stand beside a.txt
    with pytest.raises(UserError, match=r"a\.zip"):
        unpack(archive=path, out=tmp_path / "second")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.zip", "out"]
