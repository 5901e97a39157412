"""How long `edgerecall --help` takes: the median of 10 runs, in seconds. The house rule is under 0.3 s."""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

from support.environment import print_machine

RUNS = 10


def main() -> None:
    """Prints the median."""
    print_machine()
    beside = Path(sys.executable).with_name("edgerecall")
    program = str(beside) if beside.exists() else shutil.which("edgerecall")
    if program is None:
        raise SystemExit("edgerecall is not installed in this environment")
    seconds = []
    for _ in range(RUNS):
        start = time.perf_counter()
        subprocess.run([program, "--help"], stdout=subprocess.DEVNULL, check=True)
        seconds.append(time.perf_counter() - start)
    print(f"edgerecall --help: median {statistics.median(seconds):.3f} s of {RUNS}, target: at most 0.300 s")


if __name__ == "__main__":
    main()
