"""What lies in a folder, by name; listings are kept, since each of a folder's hundreds of scenes asks for them."""

import os
import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

SETTLED = (
    2_000_000_000  # ns: file systems with the coarsest clocks tell two changes apart after that
)


def names_in(folder: Path) -> Sequence[str]:
    """The names in a folder, sorted.

    Raises:
        OSError: where it cannot be listed.
    """
    return _listing(folder)[0]


def names_by_lower_case(folder: Path) -> Mapping[str, Sequence[str]]:
    """The names in a folder, sorted, by their lower-case form.

    Raises:
        OSError: where it cannot be listed.
    """
    return _listing(folder)[1]


_Listing = tuple[Sequence[str], Mapping[str, Sequence[str]]]


def _listing(folder: Path) -> _Listing:
    found = os.stat(folder)
    if time.time_ns() - found.st_mtime_ns < SETTLED:  # a change may not show in its time
        return _read(str(folder))
    return _kept(str(folder), found.st_dev, found.st_ino, found.st_mtime_ns)


def _read(folder: str) -> _Listing:
    names = tuple(sorted(os.listdir(folder)))
    by_lower_case: dict[str, list[str]] = {}
    for name in names:
        by_lower_case.setdefault(name.lower(), []).append(name)
    return names, by_lower_case


@lru_cache(maxsize=16)
def _kept(folder: str, device: int, inode: int, changed: int) -> _Listing:
    """A listing as it was at the folder's last change."""
    return _read(folder)
