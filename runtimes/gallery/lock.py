"""Who may write to a gallery: one process at a time, by a lock on a file in it."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from typing import IO

from ..core.errors import InputError
from ..core.files import write_error

LOCK = "lock"


class WriteLock:
    """The lock of the gallery in a folder, held until `release`. InputError where another has it."""

    def __init__(self, root: Path) -> None:
        self.root, self._owner = root, os.getpid()
        path = root / LOCK
        try:
            self._stream: IO[bytes] | None = path.open("ab")
            fcntl.flock(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            raise InputError(
                f"{root}: this gallery is open for writing already, here or in another process: try again when it is"
                " closed"
            ) from None
        except OSError as error:
            raise write_error(path, error) from error

    def require(self) -> None:
        """InputError unless this process has the lock of the gallery that is there now."""
        if self._owner != os.getpid():
            raise InputError(f"{self.root}: opened by the process that this one was forked from: open it here")
        if self._stream is None:
            raise InputError(f"{self.root}: is closed")
        ours = os.fstat(self._stream.fileno())
        try:
            there = (self.root / LOCK).stat()
        except OSError:
            there = None
        if there is None or (ours.st_dev, ours.st_ino) != (there.st_dev, there.st_ino):
            raise InputError(f"{self.root}: was replaced since it was opened: open it again")

    def release(self) -> None:
        """Lets another write. A forked child leaves the lock to its parent."""
        if self._stream is None:
            return
        if self._owner == os.getpid():
            with contextlib.suppress(OSError):
                fcntl.flock(self._stream, fcntl.LOCK_UN)
        self._stream.close()
        self._stream = None
