"""Two results of the same rows: which got slower, larger or less right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..schema.gates import Gates
from ..schema.power import decide
from ..schema.rows import SOUND, BenchResult, Row
from ..schema.statistics import clustered_interval, unpaired_ratio

# What must agree for figures to be comparable: name, value of a result.
CONDITIONS: tuple[tuple[str, Callable[[BenchResult], Any]], ...] = (
    ("processor", lambda result: result.machine.get("cpu")),
    ("usable cores", lambda result: result.machine.get("cores")),
    ("core limit", lambda result: result.machine.get("cpu_quota")),
    ("governor", lambda result: result.machine.get("governor")),
    ("images and labels", lambda result: f"{result.images} of sha256 {result.images_sha256[:12]}"),
    ("stage", lambda result: result.options.get("stage")),
    ("preprocessing", lambda result: result.options.get("preprocess")),
    ("pinning", lambda result: (result.options.get("pin"), str(result.options.get("cpus")))),
)
# And for each row.
ROW_CONDITIONS = ("precision", "threads", "gpu", "gpu_driver")
# Why it cannot be told: rounds of a run scatter too much, or its queries are too few.
Doubt = Literal["", "scatter", "queries"]


@dataclass(frozen=True)
class Change:
    """A figure of one row, before and after. failed: by more than is allowed, and surely so; doubt: why that cannot be
    told, if so.
    """

    row: str
    figure: str
    old: float
    new: float
    failed: bool
    remark: str = ""
    doubt: Doubt = ""

    @property
    def verdict(self) -> str:
        """In a word or two."""
        return "FAILED" if self.failed else f"cannot tell ({self.doubt})" if self.doubt else "ok"

    @property
    def line(self) -> str:
        """The row, the figure, before and after."""
        return f"{self.row}: {self.figure} {describe(self)}"

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
    def doubts(self) -> list[str]:
        """What cannot be told, a line each."""
        return [change.line for change in self.changes if change.doubt]

    @property
    def failures(self) -> list[str]:
        """What a gate must stop, a line each."""
        return [*self.missing, *(change.line for change in self.changes if change.failed)]


def describe(change: Change) -> str:
    """Before and after in a few words."""
    remark = f", {change.remark}" if change.remark else ""
    if change.figure in SHARES:
        return f"{change.old:.4f} -> {change.new:.4f}{remark}"
    return f"{change.old:.4g} -> {change.new:.4g} ({change.share:+.1%}{remark})"


SHARES = ("recall@1", "mAP", "cosine min")


def key(row: Row) -> tuple[Any, ...]:
    """What makes two rows the same row."""
    asked = (row.quantisation, row.requested_precision, row.requested_threads, row.batch, row.stage)
    return (row.runtime, row.device, *asked)


def compare_results(old: BenchResult, new: BenchResult, fail_above: float) -> Comparison:
    """fail_above: allowed share of p50, peak memory and size above the old ones. recall@1 and mAP may not fall, and the
    cosine not lie, beyond the stricter of the two results' gates.
    """
    differences = [f"{name}: {value(old)} and {value(new)}" for name, value in CONDITIONS if value(old) != value(new)]
    gates = [Gates.read(None, **(result.options.get("gates") or {})) for result in (old, new)]
    recall_drop = min(g.max_recall_drop for g in gates)
    found = {key(row): row for row in new.rows}
    missing, changes = [f"the new run: {new.problem}"] if new.problem else [], []
    sound = [row for row in old.rows if row.status in SOUND]
    if not sound:
        missing.append("the old result has no sound row to compare with")
    for before in sound:
        after = found.get(key(before))
        if after is None:
            missing.append(f"{before.name}: not in the new result")
            continue
        if after.status not in SOUND:
            missing.append(f"{before.name}: was {before.status}, now {after.status}: {after.reason}")
        if not after.measured:
            continue
        for name in ROW_CONDITIONS:
            values = getattr(before, name), getattr(after, name)
            if values[0] != values[1]:
                differences.append(f"{before.name}: {name}: {values[0]} and {values[1]}")
        missing += [f"{before.name}: {figure}: not in the new result" for figure in lost_figures(before, after)]
        changes += row_changes(before, after, fail_above)
        same = old.query_classes == new.query_classes
        classes = np.asarray(old.query_classes if same else [], dtype=np.int64)
        changes += retrieval_changes(before, after, classes, recall_drop)
        if before.cosine_min is not None and after.cosine_min is not None:
            low = after.cosine_min < max(g.cosine_limit(before.lowered) for g in gates)
            changes.append(Change(before.name, "cosine min", before.cosine_min, after.cosine_min, low))
    return Comparison(differences, missing, changes)


FIGURES = {
    "p50 ms": "latency_p50_ms",
    "peak RSS MB": "peak_rss_mb",
    "size MB": "size_mb",
    "recall@1": "recall1",
    "mAP": "mean_ap",
    "cosine min": "cosine_min",
}


def lost_figures(old: Row, new: Row) -> list[str]:
    """Those that the old row has and the new one lacks: nothing is held against a figure that is not there."""
    return [figure for figure, name in FIGURES.items() if getattr(old, name) is not None and getattr(new, name) is None]


def row_changes(old: Row, new: Row, fail_above: float) -> list[Change]:
    """The figures of one row."""
    changes = []
    if old.latency_p50_ms and new.latency_p50_ms:
        slower = new.latency_p50_ms / old.latency_p50_ms - 1
        ratio = unpaired_ratio(np.asarray(new.round_medians_ns), np.asarray(old.round_medians_ns))
        chance = ratio.low is not None and ratio.low <= 1 + fail_above
        remark = "not surely more than allowed" if slower > fail_above and chance else ""
        changes.append(
            Change(
                old.name,
                "p50 ms",
                old.latency_p50_ms,
                new.latency_p50_ms,
                slower > fail_above and not chance,
                remark,
                "scatter" if remark else "",
            )
        )
    for figure in ("peak RSS MB", "size MB"):
        before, after = (getattr(row, FIGURES[figure]) for row in (old, new))
        if before and after:
            changes.append(Change(old.name, figure, before, after, after / before - 1 > fail_above))
    return changes


def retrieval_changes(old: Row, new: Row, classes: NDArray[np.int64], allowed: float) -> list[Change]:
    """recall@1 and mAP of one row, by its queries where both results keep them; classes `(q,)`: of these."""
    changes = []
    kept = {
        "recall@1": tuple(np.array(list(row.hits), dtype=np.float64) for row in (old, new)),
        "mAP": tuple(np.asarray(row.average_precisions, dtype=np.float64) for row in (old, new)),
    }
    for figure, (first, second) in kept.items():
        before, after = (getattr(row, FIGURES[figure]) for row in (old, new))
        if before is None or after is None:
            continue
        failed, remark, doubt = before - after > allowed, "", False
        if allowed and len(first) == len(second) == len(classes) and (first != second).any():
            change = clustered_interval(second - first, classes)
            found = decide(change, allowed, len(classes))
            failed, doubt = found.decision == "fails", found.decision == "undecided"
            if change.low is not None and change.high is not None:
                remark = f"{change.low:+.4f} to {change.high:+.4f}"
            if doubt:
                remark += f", about {found.queries:,} queries would tell" if found.queries else ", at the limit"
        changes.append(Change(old.name, figure, before, after, failed, remark, "queries" if doubt else ""))
    return changes
