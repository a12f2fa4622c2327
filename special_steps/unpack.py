"""Unpack: the archive that a product was delivered in becomes a folder."""

import logging
from pathlib import Path

from special_steps.core.atomic import atomic_write
from special_steps.core.cli import run
from special_steps.io.archive import unpack_to

log = logging.getLogger("special")


def unpack(*, archive: Path, out: Path) -> None:
    """Unpack an archive to a folder.

    Args:
        archive: .zip or .tar, also compressed (.tar.gz, .tgz, .tar.bz2, .tar.xz).
        out: folder to write.
    """
    with atomic_write(out) as folder:
        folder.mkdir()
        files = unpack_to(archive, folder)
    log.info("%s: %d files", archive, len(files))


if __name__ == "__main__":
    run(unpack)
