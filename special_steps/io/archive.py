"""Archives that products are delivered in, unpacked without trusting what they say."""

import re
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

from tqdm import tqdm

from special_steps.core.errors import UserError
from special_steps.io.record import reading

MOST = 100_000  # files; a product has a few dozen
LONG = b"xgXLK"  # types of headers whose data are read as a whole (POSIX, Solaris, GNU)
LONGEST = 1 << 20  # bytes of such data: a name, a link's target, other attributes
BY_HAND = "unpack it yourself, and give the folder"


class Member(NamedTuple):
    """A file in an archive."""

    name: str
    size: int  # bytes, unpacked
    key: zipfile.ZipInfo | tarfile.TarInfo
    plain: bool  # no link, device or pipe


class _Header(tarfile.TarInfo):
    """A header in a .tar; long names and more of it are read as a whole, so they must not be a bomb."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Header":
        """See tarfile.

        Raises:
            ValueError: for names that are none.
        """
        return _checked_header(super().frombuf(buf, encoding, errors))

    @classmethod
    def _frombuf(cls, *args: Any, **options: Any) -> "_Header":
        """What newer tarfile (3.13.4) calls in its place."""
        return _checked_header(super()._frombuf(*args, **options))  # type: ignore[misc]


def _checked_header(info: "_Header") -> "_Header":
    if info.type in LONG and info.size > LONGEST:
        raise ValueError(f"a name or other attribute of {info.size} bytes")
    return info


@contextmanager
def _opened(path: Path) -> Iterator[tuple[list[Member], zipfile.ZipFile | tarfile.TarFile]]:
    """What is in an archive besides folders, and the open archive."""
    with path.open(
        "rb"
    ) as file:  # not zipfile.is_zipfile: it takes a .tar with a .zip inside for one
        is_zip = file.read(2) == b"PK"
    if is_zip:
        with zipfile.ZipFile(path) as packed:
            infos = [i for i in packed.infolist() if not i.is_dir()]
            kinds = [stat.S_IFMT(i.external_attr >> 16) for i in infos]
            if any(i.flag_bits & 1 for i in infos):
                raise UserError(f"{path}: needs a password; {BY_HAND}")
            yield (
                [
                    Member(i.filename, i.file_size, i, kind in (0, stat.S_IFREG))
                    for i, kind in zip(infos, kinds, strict=True)
                ],
                packed,
            )
    else:
        try:
            with tarfile.open(path, tarinfo=_Header) as tar:
                yield [Member(i.name, i.size, i, i.isfile()) for i in tar if not i.isdir()], tar
        except MemoryError as error:  # what it says of itself decides how much unpacking takes
            raise UserError(
                f"{path}: takes more memory to unpack than there is; the archive may be damaged, get it"
                f" again, or {BY_HAND}"
            ) from error


def unpack_to(archive: Path, folder: Path) -> list[Path]:
    """Unpack a .zip or .tar (also compressed) into an existing folder.

    Returns:
        The files that were written.

    Raises:
        UserError: for a damaged archive, one that holds links, devices or paths out of it, and one that is too large.
    """
    if not archive.is_file():
        raise UserError(f"{archive}: no such file; check the path in the config")
    written = []
    with reading(archive), _opened(archive) as (members, packed):
        if not members:
            raise UserError(f"{archive}: holds no file; get it again")
        for member in members:
            _check(member, archive)
        if len(members) > MOST:
            raise UserError(f"{archive}: holds {len(members)} files, {MOST} at most; {BY_HAND}")
        total, free = sum(m.size for m in members), shutil.disk_usage(folder).free
        if total > free:
            raise UserError(
                f"{archive}: unpacks to {total / 2**30:.1f} GiB, but {free / 2**30:.1f} GiB are free;"
                " make room"
            )
        for member in tqdm(members, desc="unpack", disable=None):
            target = folder.joinpath(*_parts(member))
            target.parent.mkdir(parents=True, exist_ok=True)
            with _stream(packed, member) as source, target.open("xb") as file:
                _copy(source, file, member, archive)
            written.append(target)
    return written


def _parts(member: Member) -> tuple[str, ...]:
    return PurePosixPath(member.name.replace("\\", "/")).parts


def _check(member: Member, archive: Path) -> None:
    """Refuse what could write elsewhere, or is no file."""
    if not member.plain:
        raise UserError(f"{archive}: holds a link or device, '{member.name[:80]}'; {BY_HAND}")
    parts = _parts(member)
    if not parts or parts[0] == "/" or ".." in parts or re.match("[A-Za-z]:", parts[0]):
        raise UserError(
            f"{archive}: holds '{member.name[:80]}', a path out of the archive; {BY_HAND}"
        )


def _stream(packed: zipfile.ZipFile | tarfile.TarFile, member: Member) -> IO[bytes]:
    if isinstance(packed, zipfile.ZipFile):
        return packed.open(member.key)  # type: ignore[arg-type]
    stream = packed.extractfile(member.key)  # type: ignore[arg-type]
    assert stream is not None  # a regular file
    return stream


def _copy(source: IO[bytes], target: IO[bytes], member: Member, archive: Path) -> None:
    """Copy a file, never more than the archive says that it has."""
    left = member.size
    while block := source.read(min(left + 1, 1 << 20)):
        left -= len(block)
        if left < 0:
            raise UserError(f"{archive}: '{member.name[:80]}' is larger than stated; get it again")
        target.write(block)
    if left:
        raise UserError(f"{archive}: '{member.name[:80]}' is cut short; get it again")
