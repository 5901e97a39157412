"""Latency figures against plain definitions and planted noise."""

from __future__ import annotations

import numpy as np
import pytest

from edgerecall.bench.schema.statistics import (
    drift,
    is_steady,
    mean_interval,
    median_absolute_deviation,
    noise,
    paired_ratio,
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


def test_mean_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(2)
    inside = 0
    for seed in range(200):
        differences = rng.choice([-1.0, 0.0, 1.0], p=[0.1, 0.85, 0.05], size=300)
        found = mean_interval(differences, seed)
        assert found.low is not None and found.high is not None and found.low <= found.value <= found.high
        inside += found.low <= -0.05 <= found.high
    assert 0.90 < inside / 200 < 0.985
    nothing = mean_interval(np.zeros(50))
    assert (nothing.value, nothing.low, nothing.high) == (0.0, 0.0, 0.0)


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
