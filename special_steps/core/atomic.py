"""Write, then rename: a file or folder is there whole, or it is not there."""

import errno
import os
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling of `path`; put it in place, fsynced, when the block ends without an error.

    Works for files and directories, and keeps the suffix, which writers like GDAL and NumPy look at. Two writers of
    the same path do not disturb each other: the one that ends last wins, whole.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path)
    temporary = _sibling(path, "tmp")
    _remove(temporary)
    try:
        yield temporary
        for folder, _, files in os.walk(temporary):
            for name in files:
                _sync(Path(folder, name))
            _sync(Path(folder))
        if temporary.is_file():
            _sync(temporary)
        _replace(temporary, path)
        _sync(path.parent)
    finally:
        _remove(temporary)


@contextmanager
def scratch_folder(beside: Path) -> Iterator[Path]:
    """Yield an empty hidden folder beside a path, for what is needed on the way to it; it goes when the block ends.

    Not in the system's folder for temporary files, which may be small, or memory.
    """
    path = Path(beside).with_name(f"{Path(beside).name}.scratch")
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path)
    temporary = _sibling(path, "tmp")
    _remove(temporary)
    temporary.mkdir()
    try:
        yield temporary
    finally:
        _remove(temporary)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sibling(path: Path, kind: str) -> Path:
    """A hidden name beside `path` that is this process's own, also on a disk that machines share."""
    return path.with_name(f".{kind}-{socket.gethostname()}-{os.getpid()}-{path.name}")


def _sweep(path: Path) -> None:
    """Remove what killed writers of `path` left; only processes of this machine are known to be dead."""
    host, name = re.escape(socket.gethostname()), re.escape(path.name)
    for sibling in path.parent.iterdir():
        found = re.fullmatch(rf"\.(?:tmp|old)-{host}-(\d+)-{name}", sibling.name)
        if found and not _alive(int(found[1])):
            _remove(sibling)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _replace(new: Path, path: Path) -> None:
    while True:
        try:
            os.replace(new, path)
            return
        except OSError as error:  # rename(2) does not replace a directory that has files
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        old = _sibling(path, "old")
        with suppress(FileNotFoundError):  # another writer of the same path was faster
            os.rename(path, old)
        _remove(old)
