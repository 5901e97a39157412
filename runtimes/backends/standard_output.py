"""Where a library's own prints go: it writes to file descriptor 1, past `sys.stdout`."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def standard_output_to(descriptor: int) -> Iterator[None]:
    """Sends what is printed meanwhile to another open file, what other threads print too."""
    libc = ctypes.CDLL(None)
    sys.stdout.flush()
    libc.fflush(None)
    standard_output = os.dup(1)
    os.dup2(descriptor, 1)
    try:
        yield
    finally:
        libc.fflush(None)
        os.dup2(standard_output, 1)
        os.close(standard_output)
