"""Files of all formats: the reader is found, and damaged files are named."""

import h5py
import numpy as np
import pytest
from rasters import write_envi, write_tiff
from scipy.io import savemat

from special_steps.core.errors import UserError
from special_steps.io.source import open_source


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.mat: no such file"):
        open_source(tmp_path / "nowhere.mat")
    with pytest.raises(UserError, match="empty list"):
        open_source([])


def test_unknown_suffix(tmp_path):
    (tmp_path / "a.xyz").write_text("1 2 3")
    with pytest.raises(UserError, match=r"a\.xyz: unknown format '\.xyz'.*\.tif"):
        open_source(tmp_path / "a.xyz")


@pytest.mark.parametrize("name", ["a.mat", "a.h5", "a.npy", "a.npz", "a.tif", "a.png"])
@pytest.mark.parametrize("content", [b"", b"this is no image" * 40])
def test_damaged_files_are_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=name.replace(".", r"\.")):
        open_source(tmp_path / name)


@pytest.mark.parametrize("name", ["a.mat", "a.h5", "a.npz", "a.tif"])
def test_truncated_files_are_named(tmp_path, name):
    path, big = tmp_path / name, np.random.default_rng(0).random((3, 50, 40))
    if name == "a.mat":
        savemat(path, {"cube": big})
    elif name == "a.h5":
        with h5py.File(path, "w") as file:
            file["cube"] = big
    elif name == "a.npz":
        np.savez(path, cube=big)
    else:
        write_tiff(path, big)
    path.write_bytes(path.read_bytes()[:-9000])
    with pytest.raises(UserError, match=name.replace(".", r"\.")):
        open_source(path).read(0, 3)


def test_options_of_other_formats_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"scene\.hdr: 'axes' is for \.mat"):
        open_source(write_envi(tmp_path), axes="y x band")
    with pytest.raises(UserError, match="only GeoTIFF tiles"):
        open_source([tmp_path / "scene.hdr", tmp_path / "scene.img"])
