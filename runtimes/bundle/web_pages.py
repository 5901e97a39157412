"""The archive of 'edgerecall cross web': what browsers are served."""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from ..core.errors import InputError
from ..core.files import unpack_tar

ARCHIVE = "edgerecall-web"
ARCHIVES = Path("dist")
VERSION = "version.txt"  # inside: of the edgerecall that made it


def find_pages(given: Sequence[Path], option: str) -> Path:
    """The archive of 'edgerecall cross web': of those given, else the one in dist/. option: that gives them.

    InputError with the remedy.
    """
    name = f"{ARCHIVE}.tar.gz"
    for archive in [path for path in given if path.name == name] or [ARCHIVES / name]:
        if archive.is_file():
            return archive
    raise InputError(f"no {name}: run 'edgerecall cross web' here, or name the archive with {option}")


def unpack_pages(archive: Path, folder: Path) -> None:
    """Its files into a new folder. InputError when it is no such archive."""
    try:
        with tarfile.open(archive) as packed:
            unpack_tar(packed, folder.parent)
        (folder.parent / ARCHIVE).rename(folder)
    except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
        raise InputError(f"{archive}: expected an archive of 'edgerecall cross web': {error}") from error
    made = folder / VERSION
    found = made.read_text(encoding="utf-8").strip() if made.is_file() else "none"
    if found != version("edgerecall"):
        raise InputError(
            f"{archive}: made by edgerecall {found}, this is {version('edgerecall')}: run 'edgerecall cross web' again"
        )
