"""Verdicts from intervals, and how many queries would give one."""

from __future__ import annotations

import numpy as np
import pytest

from edgerecall.bench.schema.power import MOST_QUERIES, Judgement, decide, expected_flips
from edgerecall.bench.schema.rows import BenchResult, Row
from edgerecall.bench.schema.statistics import Interval, clustered_interval


@pytest.mark.parametrize(
    ("change", "decision"),
    [
        (Interval(0.0, -0.001, 0.001), "holds"),
        (Interval(0.0, -0.01, 0.01), "holds"),  # at the limit is within it
        (Interval(0.5, 0.4, 0.6), "holds"),
        (Interval(-0.03, -0.04, -0.02), "fails"),
        (Interval(-0.03, -0.05, -0.01), "undecided"),
        (Interval(0.0, -0.011, 0.011), "undecided"),
        (Interval(-0.5, None, None), "undecided"),
    ],
)
def test_decisions(change: Interval, decision: str) -> None:
    assert decide(change, 0.01, 100).decision == decision


def test_the_queries_that_would_decide() -> None:
    """The half-width falls with the root of their number."""
    assert decide(Interval(0.0, -0.02, 0.02), 0.01, 1000) == Judgement("undecided", 4000)
    assert decide(Interval(-0.04, -0.09, 0.02), 0.01, 1000) == Judgement("undecided", 4000)
    assert decide(Interval(-0.01, -0.02, 0.02), 0.01, 1000) == Judgement("undecided")  # at the limit: none would
    assert decide(Interval(-0.009999, -0.02, 0.0), 0.01, 1000).queries is None  # beyond MOST_QUERIES
    assert MOST_QUERIES > 1000


def test_so_many_queries_do_decide() -> None:
    """Simulated: four times as many as were named decide nearly always; as many as there were, seldom."""
    rng = np.random.default_rng(4)

    def change(classes: int) -> Interval:
        lost = rng.beta(0.5, 24.5, classes)  # 2 % lost on average, against 3 % allowed
        return clustered_interval(
            -(rng.random((classes, 10)) < lost[:, None]).astype(float).ravel(), np.repeat(np.arange(classes), 10)
        )

    first = change(40)
    needed = decide(Interval(-0.02, -0.02 - (first.value - first.low), 0.02), 0.03, 400).queries  # type: ignore[operator]
    assert needed is not None and 400 < needed < 8000
    decided = [decide(change(4 * needed // 10), 0.03, 4 * needed).decision for _ in range(20)]
    before = [decide(change(40), 0.03, 400).decision for _ in range(20)]
    assert decided.count("holds") >= 18 and before.count("undecided") >= 12 and "fails" not in decided


def test_expected_flips() -> None:
    """Against flips counted in many margins of a known density."""
    rng = np.random.default_rng(5)
    before = rng.normal(0.3, 0.2, 200_000)
    moved = rng.normal(0, 0.01, 200_000)
    flips = float((np.sign(before) != np.sign(before + moved)).mean())
    told = [expected_flips(before[part], moved[part]) for part in np.split(rng.permutation(200_000), 100)]
    assert flips < np.median(told) < 4 * flips
    assert min(told) > 0.5 * flips
    assert expected_flips(np.array([0.0, 0.0, 0.1]), np.array([1e-9, 0, 0])) == float("inf")
    assert expected_flips(np.array([0.0, 0.1]), np.zeros(2)) == 0.0


def test_exit_codes() -> None:
    def code(status: str, strict: bool) -> int:
        rows = [Row("a"), Row("b", status=status)]  # type: ignore[arg-type]
        return BenchResult("", "", {}, {}, {"strict": strict}, 1, "", True, "a", rows).exit_code

    assert [code(status, False) for status in ("ok", "undecided", "parity")] == [0, 0, 1]
    assert [code(status, True) for status in ("ok", "undecided", "parity")] == [0, 3, 1]


def test_a_doubt_gives_way_to_a_failure() -> None:
    row = Row("a")
    row.doubt("one", 500)
    row.doubt("two", 900)
    assert (row.status, row.reason, row.queries_to_decide) == ("undecided", "one", 900)
    row.fail("parity", "broken")
    row.doubt("three", 1)
    assert (row.status, row.reason, row.queries_to_decide) == ("parity", "broken", None)
