"""Histograms and counters for Prometheus that cost little to fill: beside a small network the library's own are seen,
of which each value takes half a dozen calls.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate
from threading import Lock

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString


class Histogram:
    """How many values lay up to each of the bounds, in rising order, and their sum. Thread-safe."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0
        self._lock = Lock()

    def observe(self, value: float) -> None:
        """Counts a value."""
        with self._lock:
            self._counts[bisect_left(self._bounds, value)] += 1
            self._sum += value

    def told(self) -> tuple[list[tuple[str, float]], float]:
        """Each bound with how many values lay up to it, and the sum of all."""
        with self._lock:
            counts, total = list(self._counts), self._sum
        names = [str(floatToGoString(bound)) for bound in (*self._bounds, float("inf"))]  # type: ignore[no-untyped-call]
        return list(zip(names, map(float, accumulate(counts)), strict=True)), total


class Histograms(Collector):
    """A metric's, by the values of its label; without one, `of[""]`."""

    def __init__(
        self,
        name: str,
        documentation: str,
        bounds: Sequence[float],
        registry: CollectorRegistry,
        label: str | None = None,
        values: Sequence[str] = ("",),
    ) -> None:
        self._name, self._documentation, self._labels = name, documentation, [label] if label else []
        self.of = {value: Histogram(bounds) for value in values}
        registry.register(self)

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """For the registry."""
        family = HistogramMetricFamily(self._name, self._documentation, labels=self._labels)
        for value, histogram in self.of.items():
            family.add_metric([value] if self._labels else [], *histogram.told())
        yield family


class Counts(Collector):
    """A metric that only rises, by the values of its labels. Thread-safe."""

    def __init__(self, name: str, documentation: str, registry: CollectorRegistry, *labels: str) -> None:
        self._name, self._documentation, self._labels = name, documentation, labels
        self._counts: dict[tuple[str, ...], int] = {} if labels else {(): 0}
        self._lock = Lock()
        registry.register(self)

    def add(self, count: int, *values: str) -> None:
        """So many more, of a value of each label."""
        with self._lock:
            self._counts[values] = self._counts.get(values, 0) + count

    def collect(self) -> Iterator[CounterMetricFamily]:
        """For the registry."""
        family = CounterMetricFamily(self._name, self._documentation, labels=self._labels)
        with self._lock:
            counts = dict(self._counts)
        for values, count in counts.items():
            family.add_metric(values, count)
        yield family
