"""The archive of 'edgerecall cross web': what browsers are served."""

from __future__ import annotations

import tarfile
from collections.abc import Sequence
from pathlib import Path

from .errors import InputError
from .files import unpack_tar

ARCHIVE = "edgerecall-web"
ARCHIVES = Path("dist")


def find_pages(given: Sequence[Path]) -> Path:
    """The archive of 'edgerecall cross web': of those given, else the one in dist/. InputError with the remedy."""
    name = f"{ARCHIVE}.tar.gz"
    for archive in [path for path in given if path.name == name] or [ARCHIVES / name]:
        if archive.is_file():
            return archive
    raise InputError(f"no {name}: run 'edgerecall cross web' here, or name the archive with --device-program")


def unpack_pages(archive: Path, folder: Path) -> None:
    """Its files into a new folder. InputError when it is no such archive."""
    try:
        with tarfile.open(archive) as packed:
            unpack_tar(packed, folder.parent)
        (folder.parent / ARCHIVE).rename(folder)
    except (OSError, EOFError, tarfile.TarError) as error:
        raise InputError(f"{archive}: expected an archive of 'edgerecall cross web': {error}") from error
