"""Archives: what products come in, and what nobody should unpack."""

import io
import stat
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from special_steps.core.errors import UserError
from special_steps.io import archive as module
from special_steps.io.archive import unpack_to

FILES = {
    "a/b.txt": b"one",
    "a/c/d.bin": bytes(range(256)) * 9000,
    "empty": b"",
    "a/./e": b"e",
    "ünï code.txt": b"u",
}


def write_zip(path: Path, files=FILES, method=zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as packed:
        for name, data in files.items():
            packed.writestr(name, data)
        packed.mkdir("folder")
    return path


def write_tar(path: Path, files=FILES, kind="") -> Path:
    with tarfile.open(path, f"w:{kind}") as packed:
        info = tarfile.TarInfo("a")
        info.type = tarfile.DIRTYPE
        packed.addfile(info)
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            packed.addfile(info, io.BytesIO(data))
    return path


def written(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def out(tmp_path) -> Path:
    (tmp_path / "deep" / "out").mkdir(parents=True)
    return tmp_path / "deep" / "out"


@pytest.mark.parametrize(
    "name", ["s.zip", "s.tar", "s.tar.gz", "s.tgz", "s.tar.bz2", "s.tar.xz", "S.ZIP", "S.TGZ"]
)
def test_archives_are_unpacked(tmp_path, out, name):
    kind = {"gz": "gz", "tgz": "gz", "bz2": "bz2", "xz": "xz"}.get(
        name.lower().rpartition(".")[2], ""
    )
    path = (write_zip if "zip" in name.lower() else lambda p: write_tar(p, kind=kind))(
        tmp_path / name
    )
    files = unpack_to(path, out)
    wanted = {str(Path(name)): data for name, data in FILES.items()}
    assert written(out) == wanted
    assert {str(f.relative_to(out)) for f in files} == set(wanted)


def test_a_tar_with_a_zip_inside_is_a_tar(tmp_path, out):
    inner = write_zip(tmp_path / "inner.zip", method=zipfile.ZIP_STORED).read_bytes()
    unpack_to(write_tar(tmp_path / "a.tar", {"inner.zip": inner}), out)
    assert written(out) == {"inner.zip": inner}


BAD = ["../x", "a/../../x", "/x", "/etc/x", "..\\x", "C:\\x", "C:/x", "a/..", "\\x"]


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("write", [write_zip, write_tar])
def test_paths_out_of_it_are_refused(tmp_path, out, name, write):
    path = write(tmp_path / "a", {"good": b"g", name: b"bad"})
    with pytest.raises(UserError, match="a path out of the archive; unpack it yourself"):
        unpack_to(path, out)
    assert written(tmp_path) == {"a": path.read_bytes()}  # nothing at all


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE]
)
def test_links_and_devices_of_a_tar_are_refused(tmp_path, out, kind):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as packed:
        info = tarfile.TarInfo("thing")
        info.type, info.linkname = kind, "/etc/passwd"
        packed.addfile(info)
    with pytest.raises(UserError, match="a link or device, 'thing'"):
        unpack_to(path, out)


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_links_of_a_zip_are_refused(tmp_path, out, kind):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as packed:
        info = zipfile.ZipInfo("thing")
        info.external_attr = (kind | 0o777) << 16
        packed.writestr(info, "/etc/passwd")
    with pytest.raises(UserError, match="a link or device, 'thing'"):
        unpack_to(path, out)


def test_bombs_are_refused(tmp_path, out, monkeypatch):
    path = write_zip(tmp_path / "a.zip", {"zeros": b"\0" * 10_000_000})
    assert path.stat().st_size < 20_000
    usage = module.shutil.disk_usage(tmp_path)._replace(free=9_000_000)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(UserError, match=r"unpacks to 0\.0 GiB, but 0\.0 GiB are free"):
        unpack_to(path, out)
    monkeypatch.undo()
    monkeypatch.setattr(module, "MOST", 3)
    with pytest.raises(UserError, match="holds 5 files, 3 at most"):
        unpack_to(write_tar(tmp_path / "a.tar"), out)
    assert not written(out)


@pytest.mark.parametrize("stated", [5, 999_999])
def test_a_size_that_is_a_lie(tmp_path, out, stated):
    """More than stated is never written; nor is less taken for whole."""
    data = b"x" * 100_000
    raw = write_zip(tmp_path / "a.zip", {"zeros": data}, zipfile.ZIP_STORED).read_bytes()
    raw = raw.replace(len(data).to_bytes(4, "little"), stated.to_bytes(4, "little"))
    (tmp_path / "a.zip").write_bytes(raw)
    with pytest.raises(UserError, match=r"a\.zip: .*; get it again"):
        unpack_to(tmp_path / "a.zip", out)
    assert sum(map(len, written(out).values())) <= max(stated, len(data))


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tgz"])
@pytest.mark.parametrize("share", [0, 0.001, 0.3, 0.9, 0.999])
def test_truncated(tmp_path, out, name, share):
    data = np.random.default_rng(0).bytes(300_000)
    write = (
        write_zip if name == "a.zip" else lambda p, f: write_tar(p, f, "gz" if "g" in name else "")
    )
    path = write(tmp_path / name, {"data": data, "more": data[::-1]})
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * share)])
    if name == "a.tar" and share == 0.999:  # its padding
        unpack_to(path, out)
        return
    with pytest.raises(UserError, match=f"{name}: "):
        unpack_to(path, out)


def test_damaged(tmp_path, out):
    path = write_zip(tmp_path / "a.zip", {"data": b"abc" * 9999})
    raw = bytearray(path.read_bytes())
    raw[50] ^= 255
    path.write_bytes(raw)
    with pytest.raises(UserError, match=r"a\.zip: cannot be read"):
        unpack_to(path, out)


@pytest.mark.parametrize("names", [["a", "a/b"], ["a/b", "a"], ["a", "./a"], ["n" * 300]])
@pytest.mark.parametrize("write", [write_zip, write_tar])
def test_names_that_cannot_stand_beside_each_other(tmp_path, out, names, write):
    path = write(tmp_path / "x", {n: b"1" for n in names})
    with pytest.raises(UserError, match="x: "):
        unpack_to(path, out)


def test_a_password(tmp_path, out):
    raw = bytearray(write_zip(tmp_path / "a.zip", {"data": b"abc"}).read_bytes())
    raw[raw.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "a.zip").write_bytes(raw)
    with pytest.raises(UserError, match="needs a password; unpack it yourself"):
        unpack_to(tmp_path / "a.zip", out)


def test_no_file(tmp_path, out):
    with pytest.raises(UserError, match=r"no\.zip: no such file"):
        unpack_to(tmp_path / "no.zip", out)
    (tmp_path / "a.zip").write_bytes(b"hello")
    with pytest.raises(UserError, match=r"a\.zip: cannot be read"):
        unpack_to(tmp_path / "a.zip", out)
