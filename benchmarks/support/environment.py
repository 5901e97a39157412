"""What every benchmark prints first, so that a figure can be quoted with the CPU that it was measured on."""

from __future__ import annotations

import os

from edgerecall.bench.measure.machine import cpu_name
from edgerecall.runtimes.core.cpus import usable_cpus


def machine_line() -> str:
    """The CPU's model, the cores that this process may use, and the load before the run."""
    return f"{cpu_name()}, {len(usable_cpus())} cores, load {os.getloadavg()[0]:.2f} before the run"


def print_machine() -> None:
    """The first line."""
    print(machine_line(), flush=True)
