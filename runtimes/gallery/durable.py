"""Files that neither a crash nor a power cut can tear: written under a temporary name, brought to the disk, renamed.

All that changes a gallery on disk goes through here, so that tests can stop at every step.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ..core.files import write_error

TEMPORARY = ".tmp"  # what a file is called until it is whole


@contextmanager
def durable_file(path: Path) -> Iterator[IO[bytes]]:
    """Yields a stream; when the block ends, its bytes and then the name `path` are on the disk.

    Where the block or the disk fails, nothing of `path` has changed. InputError for what the disk refuses.
    """
    temporary = path.with_name(path.name + TEMPORARY)
    try:
        with temporary.open("wb") as stream:
            yield stream
            stream.flush()
            synchronise(stream.fileno())
        rename(temporary, path)
        synchronise_folder(path.parent)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def make_folder(folder: Path) -> None:
    """A folder and those that it lies in, their names on the disk. InputError for what the disk refuses."""
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for one in missing:
            synchronise_folder(one.parent)
    except OSError as error:
        raise write_error(folder, error) from error


def synchronise(descriptor: int) -> None:
    """A file's bytes to the disk."""
    os.fsync(descriptor)


def rename(source: Path, target: Path) -> None:
    """The step by which a file appears, or one replaces another."""
    source.replace(target)


def synchronise_folder(folder: Path) -> None:
    """A folder's names to the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        synchronise(descriptor)
    finally:
        os.close(descriptor)
