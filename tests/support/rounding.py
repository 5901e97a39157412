"""What float32 arithmetic may differ by from one CPU to another: bounds that hold for every order of summation.

BLAS and oneDNN choose their kernels by the CPU, and a kernel's edge cases by the size of the batch: they add the same
products in another order, with or without fused multiply-add. Then results are not equal to the bit, and need not be.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

UNIT = 2.0**-24  # float32's unit roundoff
CELLS = 4  # of the fake runtime's grid, along each side


def gamma(roundings: int) -> float:
    """Higham, Accuracy and Stability of Numerical Algorithms, 3.1: a sum of products in which each term is rounded at
    most `roundings` times, in any order, is off by at most this share of the sum of the terms' absolute values.
    """
    return roundings * UNIT / (1 - roundings * UNIT)


def fake_embeddings(batch: NDArray[np.float32], dim: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What the fake runtime's projection is in float64, and how far float32 may be from it; both `(n, dim)`.

    An output is a sum over all cells of weight times mean, so over pixels of products: a pixel passes through the
    additions of its cell, a division, a multiplication by the weight, and the additions of all cells.
    """
    weights = np.random.default_rng(0).standard_normal((3 * CELLS * CELLS, dim)).astype(np.float32).astype(np.float64)
    channels, height, width = batch.shape[1:]
    tall, wide = height // CELLS, width // CELLS

    def project(pixels: NDArray[np.float64], by: NDArray[np.float64]) -> NDArray[np.float64]:
        cells = [
            pixels[:, c, y * tall : (y + 1) * tall, x * wide : (x + 1) * wide].mean(axis=(1, 2))
            for c in range(channels)
            for y in range(CELLS)
            for x in range(CELLS)
        ]
        return np.asarray(np.stack(cells, axis=1) @ by)

    exact = batch.astype(np.float64)
    roundings = tall * wide + 2 + len(weights)
    return project(exact, weights), gamma(roundings) * project(np.abs(exact), np.abs(weights))


def apart(rows: NDArray[np.float64]) -> float:
    """The largest difference of those two rows that are most alike: a bound far below it tells all rows apart."""
    gaps = np.abs(rows[:, None] - rows[None]).max(axis=2)
    return float(gaps[~np.eye(len(rows), dtype=bool)].min())


def normalised(
    rows: NDArray[np.float64], bounds: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The rows at length 1, and how far float32 may be from them when it is `bounds` from the rows.

    With y the row, b its bounds: |(y + b) / |y + b| - y / |y|| <= (b + |b|) / (|y| - |b|), and the rounding of the
    length, of its root and of the quotient.
    """
    lengths, lost = (np.linalg.norm(x, axis=1, keepdims=True) for x in (rows, bounds))
    return rows / lengths, (bounds + lost) / (lengths - lost) + gamma(rows.shape[1] + 3)
