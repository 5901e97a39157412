"""The CPUs of this process."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path


@cache
def has_vnni() -> bool:
    """Whether this x86 CPU adds products of 8-bit numbers in 32 bits; False where the system does not tell."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return not {"avx512_vnni", "avx_vnni"}.isdisjoint(flags.split())


def usable_cpus() -> tuple[int, ...]:
    """The CPUs that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))
