"""Ranges of activations, from the sizes seen: all of them, a percentile, or what loses least information."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

BINS = 4096
LEVELS = 128  # of int8's sizes
SMALLEST = 1e-30  # below which a range is taken as it is


def finite(array: NDArray[np.float32]) -> NDArray[np.float32]:
    """What is not infinite, as masks are, and not NaN."""
    return array if np.isfinite(np.add.reduce(array, axis=None)) else array[np.isfinite(array)]


class Ranges:
    """Of named tensors, in two passes over the same images: first their ends, then histograms up to these."""

    def __init__(self, names: Sequence[str]) -> None:
        self.ends = dict.fromkeys(names, 0.0)
        self.lowest, self.highest = dict.fromkeys(names, np.inf), dict.fromkeys(names, -np.inf)
        self.counts = {name: np.zeros(BINS, np.int64) for name in names}

    def see_ends(self, values: Mapping[str, NDArray[np.float32]]) -> None:
        """The smallest and the largest value of each."""
        for name, array in values.items():
            array = finite(array)
            low, high = float(array.min(initial=0)), float(array.max(initial=0))
            self.lowest[name], self.highest[name] = min(self.lowest[name], low), max(self.highest[name], high)
            self.ends[name] = max(self.ends[name], -low, high)

    def see_sizes(self, values: Mapping[str, NDArray[np.float32]]) -> None:
        """How often each size comes."""
        for name, array in values.items():
            if self.ends[name] > SMALLEST:
                sizes = np.abs(finite(array)).reshape(-1)
                places = (sizes * np.float32(BINS / self.ends[name])).astype(np.int32)
                self.counts[name] += np.bincount(np.minimum(places, BINS - 1), minlength=BINS)

    def range(self, name: str, method: str, percentile: float) -> tuple[float, float]:
        """Both ends of a tensor's range, no wider than its values and 0. method and percentile: as for `end`."""
        end = self.end(name, method, percentile)
        return max(self.lowest[name], -end), min(self.highest[name], end)

    def end(self, name: str, method: str, percentile: float) -> float:
        """Where the symmetric range of a tensor ends. method: `minmax`, `percentile`, of all numbers, or `entropy`."""
        if method == "minmax" or not self.counts[name].any():
            return self.ends[name]
        if method == "percentile":
            share = np.cumsum(self.counts[name]) / self.counts[name].sum()
            bins = int(np.searchsorted(share, percentile / 100)) + 1
        else:
            bins = least_divergence(self.counts[name])
        return self.ends[name] * min(bins, BINS) / BINS


def least_divergence(counts: NDArray[np.int64]) -> int:
    """How many bins to keep so that, rounded to `LEVELS` sizes, they tell most of the distribution.

    Migacz, "8-bit Inference with TensorRT" (GTC 2017). The first bin, where zeros lie, is left out.
    """
    from scipy.stats import entropy

    counts = counts.astype(np.float64)
    counts[0] = 0
    best, least = len(counts), np.inf
    for bins in range(LEVELS, len(counts) + 1, LEVELS // 4):
        kept = counts[:bins].copy()
        kept[-1] += counts[bins:].sum()
        place = np.arange(bins) * LEVELS // bins
        there = counts[:bins] > 0
        if not there.any():
            continue
        sums = np.bincount(place, counts[:bins], LEVELS)
        sizes = np.bincount(place, there, LEVELS)
        level = np.divide(sums, sizes, out=np.zeros(LEVELS), where=sizes > 0)
        rounded = np.where(there, level[place], 0)
        rounded[-1] = max(rounded[-1], np.finfo(float).tiny)
        divergence = float(entropy(kept, rounded))
        if divergence < least:
            best, least = bins, divergence
    return best
