"""Latency samples into figures, with their uncertainty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...runtimes.core.contract import CONTRACT

Floats = NDArray[np.float64]
CONFIDENCE = 0.95
RESAMPLES, IN_TAIL = 2000, 25  # draws, and of those at least so many beyond a limit
STEADY: float = CONTRACT["warm_up"]["steady"]
DRIFT = 0.05
FEW_ROUNDS = 4
FEW_CLASSES = 10  # that changed, below which draws of them do not tell how many may
NO_ERROR, RARE = 1e-3, 0.01  # a draw's standard error that is none beside the sample's; a share of draws


@dataclass(frozen=True)
class Interval:
    """An estimate and its confidence interval, of 95 % where nothing else is said.

    low and high are None where there is too little to tell.
    """

    value: float
    low: float | None
    high: float | None


def is_steady(medians: Sequence[float]) -> bool:
    """Whether the last of the windows' medians moved by less than `STEADY` against both before it."""
    if len(medians) < 3:
        return False
    last = medians[-1]
    return all(abs(last - earlier) <= STEADY * last for earlier in medians[-3:-1])


def median_absolute_deviation(samples: NDArray[np.int64]) -> float:
    """The median distance from the median, in the samples' unit."""
    return float(np.median(np.abs(samples - np.median(samples))))


def paired_ratio(slow: Floats, fast: Floats) -> Interval:
    """How many times longer `slow` took than `fast`, both `(rounds,)` medians of the same interleaved rounds.

    The geometric mean of the rounds' ratios with Student's t interval of their logarithms.
    """
    logs = np.log(slow / fast)
    value = float(np.exp(logs.mean()))
    if len(logs) < FEW_ROUNDS:
        return Interval(value, None, None)
    if np.ptp(logs) == 0:
        return Interval(value, value, value)
    return students_interval(value, logs.var(ddof=1) / len(logs), len(logs) - 1)


def unpaired_ratio(new: Floats, old: Floats) -> Interval:
    """How many times longer `new` took, from `(rounds,)` medians of two runs: Welch's t interval of logarithms."""
    if min(len(new), len(old)) < FEW_ROUNDS:
        return Interval(float(np.median(new) / np.median(old)) if len(new) and len(old) else 1.0, None, None)
    a, b = np.log(new), np.log(old)
    value = float(np.exp(a.mean() - b.mean()))
    if np.ptp(a) == np.ptp(b) == 0:
        return Interval(value, value, value)
    of_a, of_b = a.var(ddof=1) / len(a), b.var(ddof=1) / len(b)
    freedom = (of_a + of_b) ** 2 / (of_a**2 / (len(a) - 1) + of_b**2 / (len(b) - 1))  # Welch and Satterthwaite
    return students_interval(value, of_a + of_b, freedom)


def students_interval(value: float, variance: float, freedom: float) -> Interval:
    """A ratio's interval, of the given degrees of freedom; variance: that of its logarithm."""
    from scipy import special

    factor = np.exp(special.stdtrit(freedom, (1 + CONFIDENCE) / 2) * np.sqrt(variance))
    return Interval(value, float(value / factor), float(value * factor))


def drift(medians: Floats) -> float | None:
    """Share by which latency rose (or fell) over the rounds; None where that may be chance or is below `DRIFT`.

    Theil-Sen slope of the rounds' medians; its 95 % interval must not hold zero.
    """
    if len(medians) < FEW_ROUNDS:
        return None
    slope, low, high = theil_sen(medians)
    change = float(slope * (len(medians) - 1) / np.median(medians))
    return change if low * high > 0 and abs(change) > DRIFT else None


def theil_sen(values: Floats) -> tuple[float, float, float]:
    """The median slope of all pairs of `(n,)` values at equal steps, and the limits of its 95 % interval.

    Sen, "Estimates of the Regression Coefficient Based on Kendall's Tau", 1968, equation 2.6.
    """
    from scipy import special

    first, second = np.triu_indices(len(values), 1)
    slopes = np.sort((values[second] - values[first]) / (second - first))
    sizes = np.array([len(values), *np.unique(values, return_counts=True)[1]])
    terms = sizes * (sizes - 1) * (2 * sizes + 5) / 18
    reach = special.ndtri((1 + CONFIDENCE) / 2) * np.sqrt(terms[0] - terms[1:].sum())
    low = max(round((len(slopes) - reach) / 2) - 1, 0)
    high = min(round((len(slopes) + reach) / 2), len(slopes) - 1)
    return float(np.median(slopes)), float(slopes[low]), float(slopes[high])


def noise(samples: NDArray[np.int64], medians: Floats) -> list[str]:
    """What in a row's own samples (of equal work; none otherwise) makes its figures doubtful, a line each."""
    found = []
    if change := drift(medians):
        found.append(f"latency {'rose' if change > 0 else 'fell'} by {abs(change):.0%} over the rounds")
    if not len(samples):
        return found
    centre = float(np.median(samples))
    spread = median_absolute_deviation(samples) / centre
    if spread > 0.1:
        found.append(f"samples scatter: half of them lie more than {spread:.0%} from the median")
    far = float((samples > 2 * centre).mean())
    if far > 0.05:
        found.append(f"{far:.0%} of the samples took more than twice the median")
    return found


def clustered_interval(
    differences: Floats, classes: NDArray[np.int64], seed: int = 0, confidence: float = CONFIDENCE
) -> Interval:
    """The mean of paired differences `(n,)`, of -1 to 1, whose classes `(n,)` are drawn together, with its interval.

    Queries of one class stand and fall together, so that whole classes are drawn with replacement and the mean is
    studentised by its cluster-robust standard error: the bootstrap-t (Cameron, Gelbach and Miller, "Bootstrap-Based
    Improvements for Inference with Clustered Errors", 2008). Draws cannot show what no class or few classes did: the
    interval is at least as wide as the shares of classes that lost and won may differ from those seen
    (Clopper and Pearson).
    """
    value = float(differences.mean())
    _, place = np.unique(classes, return_inverse=True)
    sums = np.bincount(place, differences).astype(np.float64)
    sizes = np.bincount(place).astype(np.float64)
    count = len(sums)
    if count < 2:
        return Interval(value, None, None)
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    least = [value - rare_change(-sums, sizes, tails[1]), value + rare_change(sums, sizes, tails[1])]
    own = float(clustered_error(sums[None], sizes[None], np.array([value]))[0])
    if own <= NO_ERROR**4:  # the same in every class
        return Interval(value, *least)
    rng = np.random.default_rng(seed)
    means: list[Floats] = []
    errors: list[Floats] = []
    chunk = max(1, 4_000_000 // count)
    resamples = max(RESAMPLES, round(IN_TAIL / tails[0]))
    for start in range(0, resamples, chunk):
        drawn = rng.integers(0, count, (min(chunk, resamples - start), count))
        total, size = sums[drawn], sizes[drawn]
        means.append(np.asarray(total.sum(axis=1) / size.sum(axis=1)))
        errors.append(clustered_error(total, size, means[-1]))
    mean, error = np.concatenate(means), np.concatenate(errors)
    none = error < NO_ERROR * own
    if none.mean() > RARE:  # the ratio's tails do not exist
        low, high = np.quantile(mean, tails)
    else:
        high, low = value - np.quantile((mean[~none] - value) / error[~none], tails) * own
    return Interval(value, min(float(low), least[0]), max(float(high), least[1]))


def rare_change(sums: Floats, sizes: Floats, level: float) -> float:
    """By how much more the mean may rise than it did, where few of the classes rose; sums, sizes `(classes,)`.
    level: of the upper limit, one-sided.

    Where none did, one that does is taken to rise as a whole.
    """
    from scipy import special

    risen = sums > 0
    changed, count = int(risen.sum()), len(sums)
    if changed > FEW_CLASSES:
        return 0.0
    bound = 1.0 if changed == count else float(special.betaincinv(changed + 1, count - changed, level))
    rise = float(sums[risen].mean() / sizes.mean()) if changed else 1.0
    return (bound - changed / count) * rise


def clustered_error(sums: Floats, sizes: Floats, mean: Floats) -> Floats:
    """The cluster-robust standard error of means `(r,)` over clusters, from their sums and sizes `(r, clusters)`."""
    count = sums.shape[1]
    rest = sums - mean[:, None] * sizes
    return np.asarray(np.sqrt((rest**2).sum(axis=1) * count / (count - 1)) / sizes.sum(axis=1))
