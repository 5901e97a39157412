"""Whether a set of queries can tell that a change keeps a limit, and how many could."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .statistics import Interval

Decision = Literal["holds", "fails", "undecided"]
SURPRISE = 0.025  # the chance of what contradicts an expectation: one end of a 95 % interval
FEW_FLIPS = 3  # more are a surprise where one at most was expected
MOST_QUERIES = 10_000_000  # no set that decides only beyond is worth naming


@dataclass(frozen=True)
class Judgement:
    """A change against the drop that is allowed. queries: about as many of such classes would decide, where undecided;
    None where no sensible number would, since the change lies at the limit.
    """

    decision: Decision
    queries: int | None = None


def decide(change: Interval, allowed: float, queries: int) -> Judgement:
    """A change of a share, with its interval, against an allowed drop of `allowed`, found by `queries` queries.

    It holds where the whole interval keeps the limit, and fails where the whole breaks it; a limit of 0 is judged by
    these queries alone. The half-width falls with the root of the number of queries; so many decide that it is no wider
    than the distance to the limit.
    """
    if allowed == 0:
        return Judgement("fails" if change.value < 0 else "holds")
    if change.low is None or change.high is None:
        return Judgement("undecided")
    if change.low >= -allowed:
        return Judgement("holds")
    if change.high < -allowed:
        return Judgement("fails")
    distance = change.value + allowed
    width = change.value - change.low if distance > 0 else change.high - change.value
    if abs(distance) * np.sqrt(MOST_QUERIES / queries) <= width:
        return Judgement("undecided")
    return Judgement("undecided", max(queries + 1, ceil(queries * (width / distance) ** 2)))


def expected_flips(margins: NDArray[np.float64], moved: Sequence[float] | NDArray[np.float64]) -> float:
    """The share of queries whose first neighbour is expected to become right or wrong, by how near they were to it.

    margins `(q,)`: of the baseline, each query's similarity to its best relevant image less that to its best other one.
    moved `(q,)`: by how much the row moved each margin. A margin changes its sign where it moves by more than its size;
    near zero margins are taken to lie as densely as the smallest of them do, so that this says something also where no
    query changed. An upper estimate: half of the moves lead away from zero. Infinite where margins are zero.
    """
    sizes = np.sort(np.abs(margins))
    nearest = ceil(len(sizes) ** 0.5)  # so many of them tell the density
    edge = float(sizes[nearest - 1])
    step = float(np.mean(np.abs(moved)))
    if step == 0.0:
        return 0.0
    return nearest / len(sizes) * step / edge if edge > 0 else float("inf")


def between_near_ties(
    change: Interval, differences: NDArray[np.float64], hits: NDArray[np.float64], flips: float
) -> Interval:
    """A change's interval, narrowed where the row moved the embeddings by so little that of these queries less than
    one is expected to flip: then single queries at a tie change, and no class as a whole.

    differences `(q,)`: of the figure; hits `(q,)`: of recall@1, -1, 0 or 1. flips: `expected_flips`. Where no
    figure changed, no more than `flips` will. Where as few flipped as were expected, those that fall (or rise) among as
    many queries are Poisson, of a mean that is exponential about the expected one and learns from those seen (the gamma
    is conjugate); every query may besides change by as much as the most that did not flip.
    """
    if change.low is None or change.high is None:
        return change
    if not differences.any():
        return Interval(0.0, max(change.low, -flips), min(change.high, flips))
    from scipy import special

    count, seen = len(hits), int(np.count_nonzero(hits))
    expected = flips * count
    if expected > 1 or (seen and special.pdtrc(seen - 1, expected) < SURPRISE):
        return change
    quiet = float(np.abs(differences[hits == 0]).max(initial=0.0))

    def most(flipped: int) -> float:
        learnt = special.gammaincinv(1 + flipped, 1 - SURPRISE) * expected / (1 + expected)
        return max(float(learnt), flipped) / count + quiet

    low, high = most(int((hits < 0).sum())), most(int((hits > 0).sum()))
    return Interval(change.value, max(change.low, -low), min(change.high, high))
