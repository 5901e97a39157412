"""What is asked of a bench, and the rows that follow from it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from ...runtimes.core.errors import InputError
from ...runtimes.predictor.interface import RunOptions
from ...runtimes.predictor.precision import QUANTISATIONS
from ...runtimes.predictor.registry import all_names, backend
from .gates import Gates
from .rows import Row

STAGES = ("model", "e2e")
OnProgress = Callable[[str, float], None]  # what goes on, and the share of all that is done


@dataclass(frozen=True)
class BenchOptions:
    """The cross product of runtimes, their artifacts' quantisations, threads, precision and batch makes the rows.

    quantisation: of artifacts; empty: each that the bundle has for a runtime. precision: how runtimes compute.

    samples: timed inferences per row, spread over `rounds`, and fewer where they take longer than `seconds`.
    timeout_s: for one answer of a worker. together: how many rows are timed in turns; more make groups, one after
    another. stage: what latency is of: the model, or the way from the image's bytes to its neighbours (e2e).
    pin: whether a row's worker is bound to as many CPUs, of `cpus` (all when empty), as it has threads. strict: a
    request that was not honoured, or a noisy run, fails. devices: where the same rows run besides here, by the archives
    device_programs or those in dist/, on CPUs named as there. every: the runtimes are all that can be had, not a
    choice by name: what is missing here is a row with its reason, and no failure, but for those `named` besides.
    sequential: rows on this machine are embedded no further than it takes to know that they fail.
    """

    runtimes: tuple[str, ...] = field(default_factory=all_names)
    quantisation: tuple[str, ...] = ()
    threads: tuple[int, ...] = (1,)
    precision: tuple[str, ...] = ("fp32",)
    batch: tuple[int, ...] = (1,)
    samples: int = 200
    rounds: int = 10
    seconds: float = 20.0
    timeout_s: float = 300.0
    together: int = 8
    stage: str = "model"
    pin: bool = True
    cpus: tuple[int, ...] = ()
    strict: bool = False
    devices: tuple[str, ...] = ()
    device_programs: tuple[str, ...] = ()
    device_cpus: str = "all"
    every: bool = False
    named: tuple[str, ...] = ()
    sequential: bool = False
    gates: Gates = field(default_factory=Gates)

    def __post_init__(self) -> None:
        for runtime in self.runtimes:
            backend(runtime)
        for axis in ("runtimes", "quantisation", "threads", "precision", "batch"):
            values: tuple[Any, ...] = getattr(self, axis)
            if len(set(values)) < len(values) or not (values or axis == "quantisation"):
                raise InputError(f"{axis}: expected each value once, got {', '.join(map(str, values)) or 'none'}")
        for name in self.quantisation:
            if name not in QUANTISATIONS:
                raise InputError(f"quantisation: expected one of {', '.join(QUANTISATIONS)}, got '{name}'")
        for threads, precision in product(self.threads, self.precision):
            RunOptions(threads=threads, precision=precision)  # checks them
        for batch in self.batch:
            RunOptions(batch=batch)
        for name in COUNTS:
            if not 1 <= getattr(self, name) <= MOST:
                raise InputError(f"{name}: expected 1 to {MOST}, got {getattr(self, name)}")
        if not 0 < self.seconds < float("inf"):
            raise InputError(f"seconds: expected more than 0, got {self.seconds:g}")
        if self.rounds > self.samples:
            raise InputError(f"rounds: expected at most as many as samples ({self.samples}), got {self.rounds}")
        if self.devices and self.stage != "model":
            raise InputError("devices measure the model: use them with --stage model")
        if self.stage not in STAGES:
            raise InputError(f"stage: expected one of {', '.join(STAGES)}, got '{self.stage}'")

    def row(self, runtime: str, quantisation: str, threads: int, precision: str, batch: int, group: int = 0) -> Row:
        """An empty row, named after what sets it apart from the others; an artifact in fp32 goes without saying."""
        marks = ((self.precision, precision), (self.threads, f"{threads}t"), (self.batch, f"b{batch}"))
        lowered = [quantisation] if quantisation != "fp32" else []
        name = " ".join([runtime, *lowered, *(mark for axis, mark in marks if len(axis) > 1)])
        return Row(
            runtime=runtime,
            name=name,
            group=group,
            stage=self.stage,
            quantisation=quantisation,
            requested_precision=precision,
            requested_threads=threads,
            batch=batch,
        )

    def models(self, available: Callable[[str], Sequence[str]]) -> list[tuple[str, str]]:
        """Runtimes with the quantisations of their rows. available: those that the bundle has for a runtime; where that
        is none, the row tells why. What only a browser runs is left to it, where one is among the devices.
        """
        elsewhere = any(device.startswith("browser") for device in self.devices)
        return [
            (runtime, quantisation)
            for runtime in self.runtimes
            if not (elsewhere and backend(runtime).devices == ("browser",))
            for quantisation in self.quantisation or tuple(available(runtime)) or ("fp32",)
        ]

    def groups(self, available: Callable[[str], Sequence[str]]) -> list[list[Row]]:
        """The rows, runtimes changing fastest, in groups of at most `together`, runtimes of one setting together."""
        settings = [
            [self.row(*model, threads, precision, batch) for model in self.models(available)]
            for precision, threads, batch in product(self.precision, self.threads, self.batch)
        ]
        groups: list[list[Row]] = []
        for rows in settings:
            if groups and len(groups[-1]) + len(rows) <= self.together:
                groups[-1] += rows
            else:
                groups.append(rows)
        for index, group in enumerate(groups):
            for row in group:
                row.group = index
        return groups


COUNTS, MOST = ("samples", "rounds", "together"), 1_000_000


def parse_range(text: str, name: str) -> tuple[int, ...]:
    """`1,2,4-8` or `1-16*2` (doubling) or `0-100+25` as whole numbers. InputError naming the option."""
    values: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,6})(?:-(\d{1,6})(?:([+*])(\d{1,4}))?)?\s*", part)
        if match is None:
            raise InputError(f"{name}: expected numbers and ranges such as 1,2,4-8 or 1-16*2, got '{text}'")
        first, last, kind, step = int(match[1]), int(match[2] or match[1]), match[3] or "+", int(match[4] or 1)
        if last < first or step < 1 or (kind == "*" and (step < 2 or first < 1)):
            raise InputError(f"{name}: '{part.strip()}' is no rising range")
        while first <= last:
            values.append(first)
            first = first * step if kind == "*" else first + step
            if len(values) > 1000:
                raise InputError(f"{name}: '{text}' has more than 1000 values")
    return tuple(values)


def names_in(text: str) -> list[str]:
    """A comma list's parts."""
    return [name.strip() for name in text.split(",")]


def parse_names(text: str, everything: Sequence[str]) -> tuple[str, ...]:
    """A comma list; `all` in it stands for everything."""
    named = names_in(text)
    others = [name for name in named if name != "all"]
    return tuple(others) if len(others) == len(named) else tuple(dict.fromkeys((*everything, *others)))
