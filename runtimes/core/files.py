"""Writing without half-written results: a temporary name beside the target, then a rename."""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import InputError


def user_cache() -> Path:
    """Our folder in the user's cache, where what can be made again is kept; it may not be there yet."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "edgerecall"


def read_text(path: Path, name: str, encoding: str = "utf-8") -> str:
    """A text file from outside. InputError, which begins with `name`, where it cannot be read or is none."""
    try:
        return path.read_text(encoding=encoding)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a UTF-8 text file"
        raise InputError(f"{name}: {reason}") from error


def write_error(path: Path, error: OSError) -> InputError:
    """An OSError while writing, as one line with the remedy."""
    reason = error.strerror or str(error)
    return InputError(f"cannot write {path}: {reason}; free some space or choose another place")


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yields a temporary path in the target's folder, renamed to `path` on success and removed otherwise.

    A link is followed; what is no regular file (a pipe, /dev/stdout) is written in place.
    """
    path = path.resolve()
    if path.exists() and not path.is_file():
        if path.is_dir():
            raise InputError(f"cannot write {path}: expected a file name, this is a folder")
        yield path
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise write_error(path, error) from error
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text atomically."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def atomic_folder(path: Path, replace: str | None = None) -> Iterator[Path]:
    """Yields a new folder beside `path`, renamed to it on success and removed otherwise.

    A folder already there is an InputError, unless it is empty or holds a file named `replace`: only what such a
    command made before is swapped out, at the end.
    """
    path = path.resolve()
    if path.exists():
        refuse_to_replace(path, replace)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        temporary.chmod(0o755)
    except OSError as error:
        raise write_error(path, error) from error
    try:
        yield temporary
        if path.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{path.name}.old.", dir=path.parent))
            path.replace(old)
            try:
                temporary.replace(path)
            except OSError:
                old.replace(path)
                raise
            shutil.rmtree(old, ignore_errors=True)
        else:
            temporary.replace(path)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def refuse_to_replace(path: Path, mark: str | None, remedy: str = "remove it or give another name") -> None:
    """InputError unless `path` is an empty folder or one that holds a file named `mark`."""
    if path.is_dir() and not any(path.iterdir()):
        return
    if mark is None:
        raise InputError(f"{path} exists already: {remedy}")
    if not (path / mark).is_file():
        raise InputError(f"{path} holds no {mark} and is not replaced: remove it yourself or give another name")


def sha256(path: Path) -> str:
    """The file's SHA-256, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def unpack_tar(archive: tarfile.TarFile, into: Path) -> None:
    """Everything in an archive, into a folder and nowhere else. tarfile.TarError for a member that points out of it.

    By tarfile's own filter where this Python has it (3.10.12, 3.11.4 and newer); elsewhere files and folders alone.
    """
    if hasattr(tarfile, "data_filter"):
        archive.extractall(into, filter="data")
        return
    for member in archive.getmembers():
        inside = (into / member.name).resolve().is_relative_to(into.resolve())
        if not inside or not (member.isfile() or member.isdir()):
            raise tarfile.TarError(f"'{member.name}' is no file or folder inside the archive's own")
    archive.extractall(into)
