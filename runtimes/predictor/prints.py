"""Where a library's own prints go: it writes to file descriptors 1 and 2, past `sys.stdout` and `sys.stderr`."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def silenced(printed: int) -> Iterator[None]:
    """Drops what is printed to 1 or 2 meanwhile, what other threads print too."""
    with Path(os.devnull).open("w") as nowhere, redirected(printed, nowhere.fileno()):
        yield


@contextlib.contextmanager
def redirected(printed: int, descriptor: int) -> Iterator[None]:
    """Sends what is printed to 1 or 2 meanwhile to another open file, what other threads print too."""
    libc = ctypes.CDLL(None)
    (sys.stdout if printed == 1 else sys.stderr).flush()
    libc.fflush(None)
    kept = os.dup(printed)
    os.dup2(descriptor, printed)
    try:
        yield
    finally:
        libc.fflush(None)
        os.dup2(kept, printed)
        os.close(kept)
