"""What lies in a folder, by name; listings are kept, since each of a folder's hundreds of scenes asks for them."""

import os
import re
import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from special_steps.core.errors import UserError

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


def best_named(path: Path, name: re.Pattern[str], order: Sequence[str]) -> list[Path]:
    """A file of such a name; or of a folder those whose names say the first kind of `order` that is there.

    Args:
        path: the file, or the folder; [] for what is neither.
        name: of the file, whole; its first group says the kind, in any case.
        order: the kinds, the best first.
    """
    if path.is_file():
        return [path] if name.fullmatch(path.name) else []
    if not path.is_dir():
        return []
    kinds = [kind.lower() for kind in order]
    named = [(kinds.index(m[1].lower()), m[0]) for n in names_in(path) if (m := name.fullmatch(n))]
    best = min((kind for kind, _ in named), default=0)
    return [path / n for kind, n in named if kind == best]


def only_one(path: Path, found: Sequence[Path], product: str, example: str, several: str) -> Path:
    """The file of a product that a folder has; a path that is no folder as it is.

    Args:
        path: the folder, or the file.
        found: what it has.
        product: its name.
        example: a file that makes a folder one.
        several: what more than one are called.

    Raises:
        UserError: where the folder has none, or several.
    """
    if not path.is_dir():
        return path
    if not found:
        raise UserError(
            f"{path}: no {product} file in the folder; give one that has {example}, or the file itself"
        )
    if len(found) > 1:
        raise UserError(
            f"{path}: {len(found)} {several} in the folder, {found[0].name} and {found[1].name} among"
            " them; give the one that is meant"
        )
    return found[0]


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
