"""The one row schema of a measurement."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Status = Literal["ok", "parity", "failed", "missing"]


@dataclass
class Row:
    """One runtime, measured in a worker process of its own.

    Latencies are of one inference of a batch; `samples_ns` are all of them, in the order they were taken.
    threads: as the runtime tells, else as seen. cores_used: CPU time over wall time while timing; busy_threads: threads
    seen at work. cosine_min: the lowest over the golden images (against the
    training framework) and all images (against the baseline row). delta_recall1: against the baseline row.
    """

    runtime: str
    artifact: str | None = None
    version: str | None = None
    precision: str | None = None
    threads: int | None = None
    batch: int = 1
    size_mb: float | None = None
    import_ms: float | None = None
    load_ms: float | None = None
    first_ms: float | None = None
    latency_p50_ms: float | None = None
    latency_p90_ms: float | None = None
    latency_p99_ms: float | None = None
    images_per_s: float | None = None
    cores_used: float | None = None
    busy_threads: int | None = None
    peak_rss_mb: float | None = None
    cosine_min: float | None = None
    golden_max_error: float | None = None
    neighbour_flips: float | None = None
    recall1: float | None = None
    delta_recall1: float | None = None
    mean_ap: float | None = None
    status: Status = "ok"
    reason: str | None = None
    detail: dict[str, Any] = field(default_factory=dict)
    samples_ns: list[int] = field(default_factory=list)

    def set_samples(self, samples: NDArray[Any]) -> None:
        """Fills the latency columns from int64 nanoseconds `(n,)`."""
        self.samples_ns = [int(sample) for sample in samples]
        p50, p90, p99 = np.percentile(samples, [50, 90, 99]) / 1e6
        self.latency_p50_ms, self.latency_p90_ms, self.latency_p99_ms = float(p50), float(p90), float(p99)
        self.images_per_s = float(self.batch * len(samples) / (samples.sum() / 1e9))

    def fail(self, status: Status, reason: str) -> None:
        """Marks the row; the first reason stays."""
        if self.status == "ok":
            self.status, self.reason = status, reason


@dataclass(frozen=True)
class BenchResult:
    """All rows and what they depend on. problem: what is wrong with the run as a whole, or None."""

    command: str
    bundle: str
    machine: dict[str, Any]
    packages: dict[str, str]
    options: dict[str, Any]
    images: int
    labelled: bool
    baseline: str | None
    rows: list[Row]
    problem: str | None = None
    warnings: list[str] = field(default_factory=list)
    bad_images: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0 all rows valid; 1 a parity or runtime failure; 2 nothing could run here."""
        if all(row.status == "missing" for row in self.rows):
            return 2
        return 0 if self.problem is None and all(row.status == "ok" for row in self.rows) else 1
