"""HDF5: datasets of a file, links, filters, attributes."""

import h5py
import numpy as np
import pytest

from special_steps.core.errors import UserError
from special_steps.io.hdf5 import dataset, numbers, open_hdf5, text, unknown_filters


@pytest.fixture
def path(tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["values"] = np.arange(3)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["group/values"] = np.arange(6).reshape(2, 3)
        file["soft"] = h5py.SoftLink("/group/values")
        file["broken"] = h5py.SoftLink("/nowhere")
        file["outside"] = h5py.ExternalLink("other.h5", "values")
        file["detour"] = h5py.SoftLink("/outside")
        layout = h5py.VirtualLayout((3,), "i8")
        layout[:] = h5py.VirtualSource(tmp_path / "other.h5", "values", (3,))
        file.create_virtual_dataset("virtual", layout)
        file.create_dataset("packed", data=np.arange(9), compression="gzip")
    return tmp_path / "a.h5"


@pytest.mark.parametrize("name", ["group/values", "/group/values", "group/values/", "soft"])
def test_datasets(path, name):
    with open_hdf5(path) as file:
        np.testing.assert_array_equal(dataset(file, name)[...], [[0, 1, 2], [3, 4, 5]])
        assert unknown_filters(dataset(file, "packed")) == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("group", "'group' is a folder inside the file"),
        ("no", "no 'no' in the file"),
        ("group/no", "no 'group/no' in the file"),
        ("group/values/no", "no 'group/values/no' in the file"),
        ("", "no '' in the file"),
        ("group//values", "group//values"),
        ("broken", "cannot be read"),
        ("outside", "link to another file, other.h5"),
        ("detour", "other.h5"),
        ("virtual", "lie in other files"),
    ],
)
def test_what_cannot_be_read(path, name, message):
    with pytest.raises(UserError, match=rf"a\.h5: .*{message}"), open_hdf5(path) as file:
        dataset(file, name)


def test_damaged_files(tmp_path, path):
    for data in (b"", b"nothing", path.read_bytes()[:700]):
        (tmp_path / "b.h5").write_bytes(data)
        with pytest.raises(UserError, match=r"b\.h5: cannot be read"), open_hdf5(tmp_path / "b.h5"):
            pass


def test_texts():
    assert (
        text(b"a b\0\0")
        == text("a b\n")
        == text(np.array([b"a b", b"c"]))
        == text(["a b"])
        == "a b"
    )
    assert text(np.array([])) == "" and text(7) == "7" and text(b"\xb5m")


def test_numbers():
    assert (
        numbers(b" 10000.0 ").tolist()
        == numbers(["1e4"]).tolist()
        == numbers(10000).tolist()
        == [1e4]
    )
    assert numbers(np.array([[1, 2], [3, 4]])).tolist() == [1, 2, 3, 4]
    assert numbers(()).tolist() == []
    for value in ("Reflectance x 10000", b"\xff", ""):
        with pytest.raises(ValueError):
            numbers(value)
