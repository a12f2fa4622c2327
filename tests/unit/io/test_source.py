"""Files of all formats: the reader is found, folders are looked into, and damaged files are named."""

import os

import h5py
import numpy as np
import pytest
from rasters import CUBE, whole, write_envi, write_tiff
from scipy.io import savemat

from special_steps.core.errors import UserError
from special_steps.io.source import is_archive, open_source, scenes_in, source_files


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.mat: no such file"):
        open_source(tmp_path / "nowhere.mat")
    with pytest.raises(UserError, match="empty list"):
        open_source([])


def test_unknown_suffix(tmp_path):
    (tmp_path / "a.xyz").write_text("1 2 3")
    with pytest.raises(UserError, match=r"a\.xyz: unknown format '\.xyz'.*\.tif"):
        open_source(tmp_path / "a.xyz")


@pytest.mark.parametrize(
    "name", ["a.mat", "a.h5", "a.npy", "a.npz", "a.tif", "a.png", "a.nc", "a.hdr"]
)
@pytest.mark.parametrize("content", [b"", b"this is no image" * 40])
def test_damaged_files_are_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=name.replace(".", r"\.")) as caught:
        open_source(tmp_path / name)
    assert "\n" not in str(caught.value)


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
        open_source(path).whole()


def test_options_of_other_formats_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"scene\.hdr: 'axes' is for \.mat"):
        open_source(write_envi(tmp_path), axes="y x band")
    with pytest.raises(UserError, match="only GeoTIFFs can be joined"):
        open_source([tmp_path / "scene.hdr", tmp_path / "scene.img"])


def test_archives(tmp_path):
    for name in ("a.zip", "A.ZIP", "a.tar.gz", "a.tgz"):
        assert is_archive(name)
        (tmp_path / name).write_bytes(b"PK")
        with pytest.raises(UserError, match="an archive; unpack it, and give the folder"):
            open_source(tmp_path / name)
    assert not is_archive("a.gz.hdr") and not is_archive("zip")


# --- folders ---


def test_a_folder_with_one_scene(tmp_path):
    folder = tmp_path / "scene.img"  # folders may have any name
    folder.mkdir()
    write_envi(folder)
    (folder / "readme.txt").write_text("about it")
    (folder / "._scene.hdr").write_text("of macOS")
    np.testing.assert_array_equal(whole(open_source(folder)), CUBE)
    assert source_files(folder) == [folder / "scene.hdr", folder / "scene.img"]


def test_a_folder_in_a_folder(tmp_path):
    folder = tmp_path / "outer/inner"
    folder.mkdir(parents=True)
    write_tiff(folder / "a.TIF")
    (tmp_path / "outer/back").symlink_to(tmp_path / "outer")  # a loop
    np.testing.assert_array_equal(whole(open_source(tmp_path / "outer")), CUBE)
    assert source_files(tmp_path / "outer") == [folder / "a.TIF"]


def test_a_raster_and_its_header_are_one_scene(tmp_path):
    write_envi(tmp_path)
    (tmp_path / "scene.img").unlink()
    write_tiff(tmp_path / "scene.tif")
    assert scenes_in(tmp_path) == [tmp_path / "scene.tif"]
    assert source_files(tmp_path) == [tmp_path / "scene.tif", tmp_path / "scene.hdr"]


def test_folders_without_or_with_several_scenes(tmp_path):
    with pytest.raises(UserError, match=r"a folder with no scene that is known here; give"):
        open_source(tmp_path)
    assert source_files(tmp_path) == []
    write_tiff(tmp_path / "a.tif")
    write_envi(tmp_path)
    with pytest.raises(UserError, match=r"2 files that may be scenes: a\.tif, scene\.hdr; give"):
        open_source(tmp_path)
    assert source_files(tmp_path) == []


@pytest.mark.parametrize("name", ["a.tif", "a.h5", "a.hdr", "a"])
def test_pipes_and_loops_never_hang(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(UserError, match="neither a file nor a folder"):
        open_source(tmp_path / name)
    assert scenes_in(tmp_path) == []
    (tmp_path / "loop.tif").symlink_to(tmp_path / "loop.tif")
    with pytest.raises(UserError, match=r"loop\.tif: "):
        open_source(tmp_path / "loop.tif")
    with pytest.raises(UserError, match="no scene"):
        open_source(tmp_path)


def test_pipes_beside_a_raster(tmp_path):
    path = write_tiff(tmp_path / "a.tif")
    for name in ("a.hdr", "a.tif.hdr"):
        os.mkfifo(tmp_path / name)
    np.testing.assert_array_equal(whole(open_source(path)), CUBE)
    assert source_files(path) == [path]


def test_files_that_a_scene_is_read_from(tmp_path):
    header = write_envi(tmp_path)
    assert source_files(header) == [header, tmp_path / "scene.img"]
    assert source_files(tmp_path / "scene.img") == [tmp_path / "scene.img", header]
    (tmp_path / "scene.dat").write_bytes(b"")
    assert source_files(header) == [header]  # two data files: told when it is opened
    assert source_files(tmp_path / "no.xyz") == [tmp_path / "no.xyz"]
    path = write_tiff(tmp_path / "a.tif")
    for name in ("a.tif.msk", "a.tif.aux.xml", "a.tfw", "a.hdr"):
        (tmp_path / name).write_text("")
    assert {f.name for f in source_files(path)} == {
        "a.tif", "a.tif.msk", "a.tif.aux.xml", "a.tfw", "a.hdr",
    }  # fmt: skip
