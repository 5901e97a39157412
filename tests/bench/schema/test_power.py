"""Verdicts from intervals, and how many queries would give one."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from edgerecall.bench.schema.power import MOST_QUERIES, SURPRISE, Judgement, between_near_ties, decide, expected_flips
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


def judged(before: NDArray[np.float64], moved: NDArray[np.float64], classes: NDArray[np.int64]) -> Interval:
    """The interval of recall@1's change where margins move so, narrowed."""
    hits = (before + moved > 0).astype(np.float64) - (before > 0)
    return between_near_ties(clustered_interval(hits, classes), hits, hits, expected_flips(before, moved))


def test_one_query_at_a_tie_is_no_class() -> None:
    """Noise too small for more than a flip in a set, of 800 queries of 14 classes: whether one is seen or none."""
    rng = np.random.default_rng(3)
    classes = np.arange(800) % 14
    flips, holds, covered = list[int](), list[bool](), list[bool]()
    for _ in range(300):
        before = rng.standard_normal(800) * 0.1 + 0.05
        found = judged(before, rng.standard_normal(800) * 5e-5, classes)
        assert found.low is not None and found.high is not None and found.low <= found.value <= found.high
        flips.append(round(abs(found.value) * 800))
        holds.append(decide(found, 0.002, 800).decision == "holds")
        covered.append(found.low <= 0.0 <= found.high)  # noise favours neither side
    assert 0 < np.mean(np.array(flips) > 0) < 0.5, "some of the sets show a flip, as real ones do"
    assert np.mean(covered) > 0.97 and np.mean(holds) > 0.97


def test_what_contradicts_the_noise_is_not_narrowed() -> None:
    rng = np.random.default_rng(3)
    classes = np.arange(800) % 14
    before = np.abs(rng.standard_normal(800)) * 0.1 + 0.01
    moved = rng.standard_normal(800) * 1e-5
    fallen = moved - np.where((classes == 3) & (np.arange(800) < 60), before + 0.01, 0)  # five queries of one class
    wide = clustered_interval(-((before + fallen < 0).astype(np.float64)), classes)
    assert judged(before, fallen, classes) == wide and wide.low is not None and wide.low < -0.002
    hits = np.zeros(800)
    hits[5] = 1.0
    whole = clustered_interval(hits, classes)
    assert between_near_ties(whole, hits, hits, 0.2 / 800) != whole
    assert between_near_ties(whole, hits, hits, 2 / 800) == whole  # more than one is expected
    assert between_near_ties(whole, hits, hits, 0.01 / 800) == whole  # and here none at all, yet one is seen
    assert between_near_ties(Interval(0.1, None, None), hits, hits, 1e-4) == Interval(0.1, None, None)


def test_map_that_only_rose_by_rounding_may_not_fall_by_a_class() -> None:
    """Every average precision a little higher: the interval's other end is as near."""
    rises, hits, classes = np.full(800, 1e-7), np.zeros(800), np.arange(800) % 14
    rises[::7] = 3e-7
    whole = clustered_interval(rises, classes)
    narrowed = between_near_ties(whole, rises, hits, 1e-6)
    assert narrowed.low is not None and narrowed.high is not None
    assert -1e-5 < narrowed.low <= narrowed.value <= narrowed.high < 1e-5
    quiet = between_near_ties(clustered_interval(hits, classes), hits, hits, 1e-6)
    assert quiet == Interval(0.0, -1e-6, 1e-6)


def test_how_many_more_may_flip() -> None:
    """The Poisson's and the gamma's limits as scipy.stats has them."""
    stats = pytest.importorskip("scipy.stats")
    wide = Interval(-1 / 800, -0.5, 0.5)
    hits = np.zeros(800)
    hits[5] = -1.0
    for expected in (0.1, 0.5, 0.9):
        fallen, risen = (
            max(stats.gamma.ppf(1 - SURPRISE, 1 + seen) * expected / (1 + expected), seen) / 800 for seen in (1, 0)
        )
        found = between_near_ties(wide, hits, hits, expected / 800)
        assert (found.low, found.high) == pytest.approx((-fallen, risen), rel=1e-9)
    least = stats.gamma.ppf(SURPRISE, 1)  # of a mean, below which one that is seen is a surprise
    assert between_near_ties(wide, hits, hits, 0.99 * least / 800) == wide
    assert between_near_ties(wide, hits, hits, 1.01 * least / 800) != wide
