"""Latency figures against plain definitions and planted noise."""

from __future__ import annotations

import numpy as np
import pytest

from edgerecall.bench.retrieval.significance import binomial_above
from edgerecall.bench.schema.statistics import (
    clustered_interval,
    drift,
    is_steady,
    median_absolute_deviation,
    noise,
    paired_ratio,
    theil_sen,
    unpaired_ratio,
)


def test_steady_needs_three_windows_that_agree() -> None:
    assert not is_steady([1.0, 1.0])
    assert is_steady([5.0, 1.01, 1.0, 1.0])
    assert not is_steady([1.1, 1.0, 1.0])
    assert not is_steady([1.0, 1.0, 1.1])


def test_median_absolute_deviation() -> None:
    assert median_absolute_deviation(np.array([1, 1, 2, 2, 4, 6, 9])) == 1.0


def test_paired_ratio_sees_through_common_drift() -> None:
    rng = np.random.default_rng(0)
    machine = np.linspace(1.0, 3.0, 12)  # slows down for both
    fast = machine * (1 + 0.01 * rng.standard_normal(12))
    slow = 1.3 * machine * (1 + 0.01 * rng.standard_normal(12))
    found = paired_ratio(slow, fast)
    assert found.low is not None and found.high is not None
    assert found.low < 1.3 < found.high and found.high - found.low < 0.05
    assert paired_ratio(slow[:3], fast[:3]).low is None
    same = paired_ratio(fast, fast)
    assert (same.value, same.low, same.high) == (1.0, 1.0, 1.0)


def test_paired_ratio_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    inside = 0
    for _ in range(400):
        found = paired_ratio(np.exp(0.1 * rng.standard_normal(10)) * 1.2, np.exp(0.1 * rng.standard_normal(10)))
        assert found.low is not None and found.high is not None
        inside += found.low <= 1.2 <= found.high
    assert 0.92 < inside / 400 < 0.98


def clustered(rng: np.random.Generator, kind: str) -> tuple[np.ndarray, np.ndarray, float]:
    """Differences of correlated queries, in classes of 2 to 50, with the truth."""
    count = 120
    classes = np.repeat(np.arange(count), rng.integers(2, 51, count))
    if kind == "mAP":
        shared = 0.1 * rng.standard_normal(count)[classes]
        return -0.02 + shared + 0.3 * rng.standard_normal(len(classes)), classes, -0.02
    if kind == "skewed":
        shared = 0.03 * (1 - rng.exponential(1, count))[classes]
        return -0.01 + shared + 0.05 * rng.standard_normal(len(classes)), classes, -0.01
    lost, won = (rng.beta(9 * share, 9 * (1 - share), count)[classes] for share in (0.1, 0.05))
    draw = rng.random(len(classes))
    return np.where(draw < lost, -1.0, np.where(draw > 1 - won, 1.0, 0.0)), classes, -0.05


@pytest.mark.parametrize("kind", ["mAP", "skewed", "recall"])
def test_the_clustered_interval_covers_the_truth(kind: str) -> None:
    """Where an interval over single queries, as if they were drawn alone, does not."""
    rng = np.random.default_rng(2)
    inside = alone = 0
    for seed in range(500):
        differences, classes, truth = clustered(rng, kind)
        found = clustered_interval(differences, classes, seed)
        assert found.low is not None and found.high is not None and found.low <= found.value <= found.high
        inside += found.low <= truth <= found.high
        alone += abs(found.value - truth) <= 1.96 * differences.std() / len(differences) ** 0.5
    assert 0.93 <= inside / 500 <= 0.97, inside
    assert alone / 500 < 0.9, alone


def test_clustered_intervals_at_the_edges() -> None:
    classes = np.repeat(np.arange(10), 5)
    nothing = clustered_interval(np.zeros(50), classes)
    # Clopper and Pearson's of none of 10 classes.
    assert nothing.value == 0.0 and nothing.low == -nothing.high == pytest.approx(0.025**0.1 - 1)
    cancelled = clustered_interval(np.tile([1.0, -1.0], 25), np.repeat(np.arange(25), 2))
    assert cancelled.value == 0.0 and cancelled.low is not None and cancelled.low < 0
    all_lost = clustered_interval(np.full(200, -1.0), np.arange(200) // 5)
    assert (all_lost.value, all_lost.low) == (-1.0, -1.0) and all_lost.high is not None and -1 < all_lost.high < -0.9
    one = clustered_interval(np.linspace(0, 1, 50), np.zeros(50, dtype=np.int64))
    assert one.low is None and one.high is None
    rare = np.zeros(5000)
    rare[7] = -1.0
    few = clustered_interval(rare, np.arange(5000) // 5)
    assert few.low is not None and few.high is not None and -0.002 < few.low < few.value <= few.high < 0.004


def test_drift_is_not_seen_in_noise() -> None:
    rng = np.random.default_rng(3)
    assert drift(1 + 0.02 * rng.standard_normal(10)) is None
    rising = drift(np.linspace(1.0, 1.2, 10) + 0.005 * rng.standard_normal(10))
    assert rising == pytest.approx(0.2 / 1.1, rel=0.15)
    assert drift(np.linspace(1.0, 1.2, 3)) is None


def test_noise_names_what_it_sees() -> None:
    rng = np.random.default_rng(4)
    calm = (1e6 * (1 + 0.01 * rng.standard_normal(200))).astype(np.int64)
    flat = np.full(10, 1e6)
    assert noise(calm, flat) == []
    assert "latency rose by" in noise(calm, np.linspace(1e6, 1.3e6, 10))[0]
    assert "latency fell by" in noise(calm, np.linspace(1.3e6, 1e6, 10))[0]
    wide = (1e6 * (1 + 0.6 * rng.random(200))).astype(np.int64)
    wide[:20] *= 4
    said = noise(wide, flat)
    assert any("scatter" in line for line in said) and any("twice the median" in line for line in said)


def test_as_scipy_computes_them() -> None:
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(5)
    for count in (4, 5, 9, 10, 40, 150, 200):
        values = rng.normal(10, 2, count) + np.arange(count) / count
        for one in (
            values,
            np.round(values),
            np.full(count, 3.0),
            np.where(values < 12, 10.0, values),
        ):  # and with ties
            slope, _, low, high = stats.theilslopes(one)
            assert theil_sen(one) == pytest.approx((slope, low, high), rel=1e-12)
        slow, fast = np.exp(rng.normal(size=(2, count)))
        own = paired_ratio(slow, fast)
        low, high = stats.ttest_1samp(np.log(slow / fast), 0.0).confidence_interval(0.95)
        assert (own.low, own.high) == pytest.approx((np.exp(low), np.exp(high)), rel=1e-9)
        new, old = np.exp(rng.normal(size=count)), np.exp(rng.normal(0.3, 2, size=7))
        own = unpaired_ratio(new, old)
        low, high = stats.ttest_ind(np.log(new), np.log(old), equal_var=False).confidence_interval(0.95)
        assert (own.low, own.high) == pytest.approx((np.exp(low), np.exp(high)), rel=1e-9)
    for count in (1, 7, 600, 60_000):
        for share in (0.0, 1e-4, 0.3, 1.0):
            for hits in {0, 1, count // 3, count}:
                expected = stats.binomtest(hits, count, share, alternative="greater").pvalue
                assert binomial_above(hits, count, share) == pytest.approx(expected, rel=1e-8, abs=1e-300)
