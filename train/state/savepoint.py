"""Savepoints: the files of one checkpoint, all of one moment.

`PREFIX.pdparams`, `.pdopt`, `.pdstates` (and `.pdema`) are written beside the old ones as `.PREFIX.SUFFIX.new`, then a
`.PREFIX.commit` that names them, then each is renamed, then the commit is removed. A process killed at any point leaves
either the old files, or a commit from which `recover` finishes the renames.
"""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from ...runtimes.core.errors import InputError
from ...runtimes.core.files import write_error

SUFFIXES = (".pdparams", ".pdopt", ".pdstates", ".pdema")
COMMIT = ".commit"
Writer = Callable[[Any, Path], None]


def paddle_save(state: Any, path: Path) -> None:
    """`paddle.save`, on the disk when it returns, in a form that numpy 1 reads too.

    numpy 2 pickles arrays under a module name that numpy 1.24, which PaddleClas pins, does not have. Pickle protocol 3
    writes such a name as a line of its own, so that the older one, which both know, can take its place.
    """
    import paddle

    buffer = io.BytesIO()
    paddle.save(state, buffer, protocol=3)
    data = buffer.getvalue().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
    with path.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def save(prefix: Path, states: dict[str, Any], write: Writer = paddle_save) -> None:
    """Writes suffix -> state as one savepoint. InputError when the disk does not take it; the old one then stays."""
    recover(prefix)
    staged = {suffix: _staged(prefix, suffix) for suffix in states}
    _clean(prefix)
    try:
        prefix.parent.mkdir(parents=True, exist_ok=True)
        for suffix, state in states.items():
            write(state, staged[suffix])
        with _staged(prefix, COMMIT).open("w", encoding="utf-8") as stream:
            stream.write(json.dumps(sorted(states)))
            stream.flush()
            os.fsync(stream.fileno())
        _staged(prefix, COMMIT).replace(_commit(prefix))
    except (OSError, RuntimeError, ValueError) as error:  # Paddle wraps what the file system says
        _clean(prefix)
        reason = error if isinstance(error, OSError) else OSError(0, str(error).strip().splitlines()[-1])
        raise write_error(prefix.with_name(prefix.name + ".pdparams"), reason) from error
    except KeyboardInterrupt:
        _clean(prefix)
        raise
    recover(prefix)


def recover(prefix: Path) -> None:
    """Finishes a savepoint whose renames were cut off. What is still being written is left alone."""
    commit = _commit(prefix)
    try:
        suffixes = json.loads(commit.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return
    except ValueError:
        commit.unlink()  # cut off by a power failure: it names nothing
        return
    for suffix in suffixes:
        with suppress(FileNotFoundError):  # renamed already
            _staged(prefix, suffix).replace(path_of(prefix, suffix))
    for suffix in set(SUFFIXES) - set(suffixes):
        path_of(prefix, suffix).unlink(missing_ok=True)  # of an older savepoint
    commit.unlink(missing_ok=True)


def _clean(prefix: Path) -> None:
    for suffix in (*SUFFIXES, COMMIT):
        _staged(prefix, suffix).unlink(missing_ok=True)


def path_of(prefix: Path, suffix: str) -> Path:
    """A file of the savepoint."""
    return prefix.with_name(prefix.name + suffix)


def exists(prefix: Path) -> bool:
    """Whether there is anything to resume from."""
    return path_of(prefix, ".pdparams").is_file() or _commit(prefix).is_file()


def keep_newest(folder: Path, epoch: int, count: int) -> None:
    """Removes the `epoch_N` savepoints up to `epoch` but for the `count` newest; later ones are of another run."""
    numbers = {int(m[1]) for path in folder.glob("epoch_*.pdparams") if (m := re.fullmatch(r"epoch_(\d+)", path.stem))}
    for number in sorted(number for number in numbers if number <= epoch)[:-count]:
        for suffix in SUFFIXES:
            path_of(folder / f"epoch_{number}", suffix).unlink(missing_ok=True)


def prefix_of(path: Path) -> Path:
    """The prefix, also from the name of any file of the savepoint."""
    return path.with_suffix("") if path.suffix in SUFFIXES else path


def existing(path: Path) -> Path:
    """`prefix_of`; InputError when there is no such savepoint."""
    prefix = prefix_of(path)
    if not exists(prefix):
        raise InputError(f"nothing to resume from: {path_of(prefix, '.pdparams')} does not exist")
    return prefix


def _staged(prefix: Path, suffix: str) -> Path:
    return prefix.with_name(f".{prefix.name}{suffix}.new")


def _commit(prefix: Path) -> Path:
    return prefix.with_name(f".{prefix.name}{COMMIT}")
