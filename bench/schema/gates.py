"""What every row must hold, from the command line or a YAML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from ...runtimes.core.config import Frozen, read_yaml, validate
from .power import decide
from .rows import GateVerdict, Row
from .statistics import Interval

Share = Annotated[float, Field(ge=0, le=1)]
LEAST_COSINE = 0.999  # of rows in float, where no other is given
Positive = Annotated[float, Field(gt=0)]
# Figures whose drop is judged, by `Row.change`'s names, in words.
DROPS = {
    "recall1": "recall@1",
    "mixed1": "recall@1 in the baseline's gallery",
    "map": "mAP",
    "mixed_map": "mAP in the baseline's gallery",
}


class Gates(Frozen):
    """Limits; those left out are not checked. Recall, mAP and flips are shares, 0 to 1.

    Drops of recall and mAP are judged by their intervals, as of other queries; a limit of 0 by these images alone.
    min_cosine: by default 0.999, and none for rows that are int8 or compute in less than fp32: recall judges them.
    """

    min_cosine: Annotated[float, Field(ge=-1, le=1)] | None = None
    max_recall_drop: Share = 0.002
    max_map_drop: Share | None = None
    max_neighbour_flips: Share | None = None
    max_p50_ms: Positive | None = None
    max_p99_ms: Positive | None = None
    max_peak_rss_mb: Positive | None = None
    max_size_mb: Positive | None = None

    @classmethod
    def read(cls, path: Path | None, **given: Any) -> Gates:
        """From a YAML file, if any; what is `given` and not None goes before it."""
        data = read_yaml(path) if path else {}
        name = f"gates {path}" if path else "gates"
        return validate(cls, {**data, **{key: value for key, value in given.items() if value is not None}}, name)

    def cosine_limit(self, lowered: bool = False) -> float:
        """The least cosine that a row may have; -1 for no limit. lowered: as `Row.lowered` says."""
        if self.min_cosine is not None:
            return self.min_cosine
        return -1.0 if lowered else LEAST_COSINE

    @property
    def drops(self) -> dict[str, float]:
        """The drop that is allowed, of each figure (of `Row.change`) that is judged by one."""
        mean_ap = {} if self.max_map_drop is None else dict.fromkeys(("map", "mixed_map"), self.max_map_drop)
        return {**dict.fromkeys(("recall1", "mixed1"), self.max_recall_drop), **mean_ap}

    def check(self, row: Row) -> None:
        """Marks a row that breaks a gate, or may."""
        limits = (
            ("nearest neighbours changed for", row.neighbour_flips, self.max_neighbour_flips, "{:.4f} of the images"),
            ("the artifact has", row.size_mb, self.max_size_mb, "{:.2f} MB"),
        )
        timed = (
            ("p50 is", row.latency_p50_ms, self.max_p50_ms, "{:.3f} ms"),
            ("p99 is", row.latency_p99_ms, self.max_p99_ms, "{:.3f} ms"),
            ("peak memory is", row.peak_rss_mb, self.max_peak_rss_mb, "{:.1f} MB"),
        )
        for figure, allowed in self.drops.items():
            if (change := row.change(figure)) is not None:
                judge_drop(row, DROPS[figure], change, allowed)
        limit = self.cosine_limit(row.lowered)
        if row.cosine_min is not None and not row.cosine_min >= limit:
            row.fail("parity", f"cosine fell to {row.cosine_min:.6f}, allowed {limit:g}")
        elif self.min_cosine is None and row.lowered and row.cosine_min is not None and row.recall1 is None:
            row.doubt(
                f"recall judges rows of lower precision, and these images have no labels: cosine fell to"
                f" {row.cosine_min:.6f}; give a labelled list, or --min-cosine",
                None,
            )
        for what, value, most, text in limits if row.emulated else (*limits, *timed):
            if value is not None and most is not None and value > most:
                row.fail("parity", f"{what} {text.format(value)}, allowed {most:g}")


def judge_drop(row: Row, what: str, change: Interval, allowed: float) -> None:
    """Fails the row, or doubts it, by a change against the drop that is allowed."""
    text = f"{what} {'fell' if change.value < 0 else 'rose'} by {abs(change.value):.4f}"
    queries = row.queries or 0
    found = decide(change, allowed, queries)
    row.verdicts.append(GateVerdict(what, found.decision, allowed, found.queries))
    if allowed > 0 and change.low is not None and change.high is not None:
        text += f" ({change.low:+.4f} to {change.high:+.4f})"
    if found.decision == "fails":
        row.fail("parity", f"{text}, allowed {allowed:g}")
    elif found.decision == "undecided":
        number = "no sensible number" if found.queries is None else f"about {found.queries:,}, in such classes,"
        row.doubt(f"{text}, allowed {allowed:g}: {queries:,} queries cannot tell; {number} would", found.queries)
