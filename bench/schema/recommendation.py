"""Which row is faster, and which to ship."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .rows import LOCAL, BenchResult, Row, Speed
from .statistics import Interval, paired_ratio


def per_image_ms(row: Row) -> float:
    """Median time of one image."""
    assert row.latency_p50_ms is not None
    return row.latency_p50_ms / row.batch


def times_as_fast(row: Row, other: Row) -> Interval:
    """How many times as fast a row is as another that was timed in turns with it, by image; below 1: slower."""
    rounds = min(len(row.round_medians_ns), len(other.round_medians_ns))
    own, its = (np.asarray(one.round_medians_ns[:rounds]) / one.batch for one in (row, other))
    return paired_ratio(its, own)


def compare_rows(a: Row, b: Row) -> Speed:
    """Two rows that were timed in turns, the slower against the faster."""
    slow, fast = sorted((a, b), key=per_image_ms, reverse=True)
    found = times_as_fast(fast, slow)
    return Speed(slow.name, fast.name, found.value, found.low, found.high)


def speeds(rows: Sequence[Row]) -> list[Speed]:
    """Every measured row beside the fastest of its group and batch: only these were timed in turns."""
    found = []
    timed = [row for row in rows if row.measured and row.round_medians_ns and not row.emulated]
    for key in dict.fromkeys((row.group, row.batch) for row in timed):
        together = sorted((row for row in timed if (row.group, row.batch) == key), key=per_image_ms)
        found += [compare_rows(row, together[0]) for row in together[1:]]
    return found


def verdict(result: BenchResult) -> str:
    """Which row to ship, for each machine whose times mean something: the fastest per image whose every check held;
    where it cannot be told from others, the one that needs least memory.
    """
    real = [row for row in result.rows if not row.emulated]
    return "; ".join(ship(result, device) for device in dict.fromkeys(row.device for row in real))


def ship(result: BenchResult, device: str) -> str:
    """The verdict for one machine."""
    where = "" if device == LOCAL else f" on {device}"
    on_it = [row for row in result.rows if row.device == device]
    passed = [row for row in on_it if row.status == "ok" and row.latency_p50_ms is not None]
    sound = [row for row in passed if row.meaningless is None]
    if result.problem or not sound:
        why = "no row passed every check"
        undecided = [row for row in on_it if row.status == "undecided" and row.meaningless is None]
        if not result.problem and passed:
            why = passed[0].meaningless or why
        elif not result.problem and undecided:
            why = f"{undecided[0].name} is undecided: {undecided[0].reason}"
        return f"ship none of these{where}: {why}"
    best = min(sound, key=per_image_ms)
    equal = [best]
    for row in sound:
        if row is not best and (row.group, row.batch) == (best.group, best.batch):
            speed = compare_rows(row, best)
            if speed.low is not None and speed.low <= 1:
                equal.append(row)
    chosen = min(equal, key=lambda row: row.peak_rss_mb or 0.0)
    kept = "recall" if result.labelled else "the embeddings"
    why = f"the fastest {where.strip() or 'here'} that keeps {kept}"
    if len(equal) > 1:
        others = ", ".join(row.name for row in equal if row is not chosen)
        why += f" (not told apart in speed from {others}, and needs the least memory of them)"
    doubt = "; but its figures carry warnings" if chosen.warnings or result.warnings else ""
    return f"ship {chosen.name}: {why}{doubt}"
