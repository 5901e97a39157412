"""Two results of the same rows: which got slower, larger or less right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .gates import Gates
from .rows import BenchResult, Row

# What must agree for figures to be comparable: name, value of a result.
CONDITIONS: tuple[tuple[str, Callable[[BenchResult], Any]], ...] = (
    ("processor", lambda result: result.machine.get("cpu")),
    ("usable cores", lambda result: result.machine.get("cores")),
    ("core limit", lambda result: result.machine.get("cpu_quota")),
    ("governor", lambda result: result.machine.get("governor")),
    ("images and labels", lambda result: f"{result.images} of sha256 {result.images_sha256[:12]}"),
    ("stage", lambda result: result.options.get("stage")),
    ("pinning", lambda result: (result.options.get("pin"), tuple(result.options.get("cpus") or ()))),
)
# And for each row.
ROW_CONDITIONS = ("device", "precision", "threads", "batch", "stage")


@dataclass(frozen=True)
class Change:
    """A figure of one row, before and after. failed: by more than is allowed, and more than its own scatter."""

    row: str
    figure: str
    old: float
    new: float
    failed: bool
    remark: str = ""

    @property
    def share(self) -> float:
        """Relative change; positive is more."""
        return (self.new - self.old) / self.old if self.old else 0.0


@dataclass(frozen=True)
class Comparison:
    """differences: conditions that do not agree. missing: rows of the old result that the new one lacks or lost."""

    differences: list[str]
    missing: list[str]
    changes: list[Change]

    @property
    def failures(self) -> list[str]:
        """What a gate must stop, a line each."""
        lines = [f"{change.row}: {change.figure} {describe(change)}" for change in self.changes if change.failed]
        return [*self.missing, *lines]


def describe(change: Change) -> str:
    """Before and after in a few words."""
    remark = f", {change.remark}" if change.remark else ""
    if change.figure in SHARES:
        return f"{change.old:.4f} -> {change.new:.4f}{remark}"
    return f"{change.old:.4g} -> {change.new:.4g} ({change.share:+.1%}{remark})"


SHARES = ("recall@1", "mAP")


def key(row: Row) -> tuple[Any, ...]:
    """What makes two rows the same row."""
    return (row.runtime, row.device, row.asked_precision, row.asked_threads, row.batch, row.stage)


def median_interval(row: Row) -> tuple[float, float]:
    """p50 of single rounds, lowest and highest but for the outer tenths, in ms: what chance alone does to it."""
    medians = np.asarray(row.round_medians_ns) / 1e6
    low, high = np.percentile(medians, [10, 90])
    return float(low), float(high)


def compare_results(old: BenchResult, new: BenchResult, fail_above: float) -> Comparison:
    """fail_above: allowed share of p50, peak memory and size above the old ones; recall@1 and mAP may not fall by more
    than that result's own gate (0.002 unless it says otherwise).
    """
    differences = [f"{name}: {value(old)} and {value(new)}" for name, value in CONDITIONS if value(old) != value(new)]
    gates = Gates.read(None, **(new.options.get("gates") or {}))
    found = {key(row): row for row in new.rows}
    missing, changes = [], []
    for before in old.rows:
        if before.status != "ok":
            continue
        after = found.get(key(before))
        if after is None:
            missing.append(f"{before.name}: not in the new result")
            continue
        if after.status != "ok":
            missing.append(f"{before.name}: was ok, now {after.status}: {after.reason}")
        if not after.measured:
            continue
        for name in ROW_CONDITIONS:
            values = getattr(before, name), getattr(after, name)
            if values[0] != values[1]:
                differences.append(f"{before.name}: {name}: {values[0]} and {values[1]}")
        changes += row_changes(before, after, fail_above, gates.max_recall_drop)
    return Comparison(differences, missing, changes)


def row_changes(old: Row, new: Row, fail_above: float, recall_drop: float) -> list[Change]:
    """The figures of one row."""
    changes = []
    if old.latency_p50_ms and new.latency_p50_ms:
        slower = new.latency_p50_ms / old.latency_p50_ms - 1
        (_, highest), (lowest, _) = median_interval(old), median_interval(new)
        within = lowest <= highest
        failed = slower > fail_above and not within
        remark = "within the rounds' scatter" if slower > fail_above and within else ""
        changes.append(Change(old.name, "p50 ms", old.latency_p50_ms, new.latency_p50_ms, failed, remark))
    for figure, before, after in (
        ("peak RSS MB", old.peak_rss_mb, new.peak_rss_mb),
        ("size MB", old.size_mb, new.size_mb),
    ):
        if before and after:
            changes.append(Change(old.name, figure, before, after, after / before - 1 > fail_above))
    for figure, before, after in (("recall@1", old.recall1, new.recall1), ("mAP", old.mean_ap, new.mean_ap)):
        if before is not None and after is not None:
            changes.append(Change(old.name, figure, before, after, before - after > recall_drop))
    return changes
