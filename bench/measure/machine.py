"""What a measurement ran on, and what else ran there meanwhile."""

from __future__ import annotations

import contextlib
import os
import platform
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from ...runtimes.core.cpus import usable_cpus
from ...runtimes.core.errors import InputError

SYSTEM = Path("/sys")
SHORT_WINDOW_S = 0.5


def read_text(path: Path) -> str | None:
    """A system file's text; None where there is none."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None


def parse_cpus(text: str) -> tuple[int, ...]:
    """`0,2-3` as CPU numbers; InputError for what this process may not use."""
    cpus: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise InputError(f"cpus: expected numbers and ranges such as 0,2-3, got '{text}'")
        cpus |= set(range(int(first), int(last or first) + 1))
    if missing := cpus - set(usable_cpus()):
        raise InputError(f"cpus: CPU {min(missing)} is not one that this process may use: {shown_cpus(usable_cpus())}")
    return tuple(sorted(cpus))


def shown_cpus(cpus: Iterable[int]) -> str:
    """CPU numbers as `0,2-3`."""
    parts: list[list[int]] = []
    for cpu in sorted(cpus):
        if parts and cpu == parts[-1][-1] + 1:
            parts[-1] = [parts[-1][0], cpu]
        else:
            parts.append([cpu])
    return ",".join("-".join(map(str, part)) for part in parts)


def pinned_to(threads: int, cpus: tuple[int, ...]) -> tuple[int, ...]:
    """The CPUs for a row of `threads` threads: whole cores first, from the end, where the system itself works least."""
    cores: dict[str, list[int]] = {}
    for cpu in reversed(cpus):
        siblings = read_text(SYSTEM / f"devices/system/cpu/cpu{cpu}/topology/thread_siblings_list") or str(cpu)
        cores.setdefault(siblings, []).append(cpu)
    depth = max(len(core) for core in cores.values())
    ordered = [core[level] for level in range(depth) for core in cores.values() if level < len(core)]
    return tuple(sorted(ordered[:threads]))


def cpu_name() -> str:
    """The processor as the system names it."""
    for line in (read_text(Path("/proc/cpuinfo")) or "").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def cgroup_folder() -> Path | None:
    """This process's control group (version 2), or None."""
    for line in (read_text(Path("/proc/self/cgroup")) or "").splitlines():
        if line.startswith("0::"):
            folder = SYSTEM / "fs/cgroup" / line[len("0::") :].lstrip("/")
            return folder if folder.is_dir() else SYSTEM / "fs/cgroup"
    return None


def cpu_quota() -> float | None:
    """How many cores the control groups allow; None without a limit."""
    folder, limits = cgroup_folder(), []
    while folder is not None and folder != SYSTEM:
        quota, _, period = (read_text(folder / "cpu.max") or "max").partition(" ")
        if quota != "max":
            limits.append(int(quota) / int(period or 100_000))
        folder = folder.parent
    # Version 1 of control groups.
    old = SYSTEM / "fs/cgroup/cpu"
    quota, period = read_text(old / "cpu.cfs_quota_us") or "-1", read_text(old / "cpu.cfs_period_us") or "100000"
    if int(quota) > 0:
        limits.append(int(quota) / int(period))
    return min(limits, default=None)


def memory_limit_mb() -> float | None:
    """The control group's memory limit in MB (1e6 bytes); None without one."""
    folder = cgroup_folder()
    text = read_text(folder / "memory.max") if folder else None
    return int(text) / 1e6 if text and text.isdecimal() else None


def frequency_mhz(cpus: Iterable[int]) -> float | None:
    """The mean current frequency of these CPUs; None where the system does not tell."""
    files = (SYSTEM / f"devices/system/cpu/cpu{cpu}/cpufreq/scaling_cur_freq" for cpu in cpus)
    found = [int(text) / 1000 for path in files if (text := read_text(path)) and text.isdecimal()]
    return sum(found) / len(found) if found else None


def describe_machine() -> dict[str, Any]:
    """Processor, usable cores, limits, memory, system, load and frequency governor before the run."""
    cpus = usable_cpus()
    return {
        "cpu": cpu_name(),
        "architecture": platform.machine(),
        "cores": len(cpus),
        "cpus": shown_cpus(cpus),
        "cpu_quota": cpu_quota(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "memory_limit_mb": memory_limit_mb(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load_1min": round(os.getloadavg()[0], 2),
        "governor": read_text(SYSTEM / f"devices/system/cpu/cpu{cpus[0]}/cpufreq/scaling_governor"),
        "frequency_mhz": frequency_mhz(cpus),
    }


def throttle_count() -> int:
    """How often the hardware or the control group has slowed this machine down since it started."""
    files = SYSTEM.glob("devices/system/cpu/cpu*/thermal_throttle/*_throttle_count")
    total = sum(int(text) for path in files if (text := read_text(path)) and text.isdecimal())
    folder = cgroup_folder()
    for line in (read_text(folder / "cpu.stat") or "").splitlines() if folder else ():
        name, _, value = line.partition(" ")
        total += int(value) if name == "nr_throttled" else 0
    return total


def energy_uj() -> dict[str, tuple[int, int]]:
    """Microjoules counted by each processor package and where the counter wraps; empty where it may not be read."""
    found = {}
    for zone in sorted(SYSTEM.glob("class/powercap/intel-rapl:?")):
        now, wraps = read_text(zone / "energy_uj"), read_text(zone / "max_energy_range_uj")
        if now and wraps:
            found[zone.name] = (int(now), int(wraps))
    return found


def joules_between(before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]]) -> float | None:
    """Energy of all packages between two readings; None where there are none."""
    used = [(after[zone][0] - now) % wraps for zone, (now, wraps) in before.items() if zone in after]
    return sum(used) / 1e6 if used else None


@dataclass(frozen=True)
class Disturbance:
    """What happened on the machine beside us. other_cores: CPU time of other processes over time, None if too short.

    throttled: how often the machine was slowed down. seconds: how long it was watched.
    """

    seconds: float
    other_cores: float | None
    throttled: int

    def warnings(self, cores: int) -> list[str]:
        """One line for each thing that makes the figures doubtful."""
        found = []
        if self.other_cores is not None and self.other_cores > max(0.15, 0.03 * cores):
            found.append(
                f"noisy: other processes used {self.other_cores:.2f} cores while timing; stop them and run again"
            )
        if self.throttled:
            found.append(f"throttled: the machine was slowed down {self.throttled} times while timing")
        return found


class Watch:
    """Counts what others do while it runs. own: asked at both ends for our workers that are alive."""

    def __init__(self, own: Callable[[], Iterable[int]]) -> None:
        self._own = own
        self._start, self._busy, self._throttled = time.monotonic(), self._others_s(), throttle_count()

    def stop(self) -> Disturbance:
        """What was counted."""
        seconds, others = time.monotonic() - self._start, self._others_s() - self._busy
        other_cores = max(others, 0.0) / seconds if seconds >= SHORT_WINDOW_S else None
        return Disturbance(seconds, other_cores, throttle_count() - self._throttled)

    def _others_s(self) -> float:
        """CPU seconds of all processes but this one and its workers, since the machine started."""
        times = psutil.cpu_times()
        busy = times.user + times.nice + times.system
        busy += getattr(times, "irq", 0.0) + getattr(times, "softirq", 0.0) + getattr(times, "steal", 0.0)
        own = psutil.Process().cpu_times()
        busy -= own.user + own.system + own.children_user + own.children_system  # of workers that have ended
        for pid in self._own():
            with contextlib.suppress(psutil.NoSuchProcess):
                worker = psutil.Process(pid).cpu_times()
                busy -= worker.user + worker.system
        return float(busy)
