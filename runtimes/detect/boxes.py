"""A detection network's outputs to boxes: as it gives them itself, or decoded from PicoDet's heads.

PicoDet (https://arxiv.org/abs/2111.00902) has, for each cell of some grids, a score of each class and how far the box's
four sides are: each a distribution over whole numbers of strides (https://arxiv.org/abs/2006.04388, eq. 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import RuntimeFailed

FIRST_STRIDE = 8  # of the finest grid; the next have twice, four times, ... as much
CANDIDATES = 1000  # of a grid, the best
Floats = NDArray[np.float32]
Outputs = Sequence[Any]  # arrays, where the network is one for detection


def decoded(
    outputs: Outputs, size: tuple[int, int], picture: tuple[int, int], threshold: float, limit: float, told: bool = True
) -> Floats:
    """Rows float32 `(n, 6)`: class, score, xmin, ymin, xmax, ymax in the picture's pixels, best first.

    outputs: `(n, 6)` such rows (and how many), of a network that suppresses itself; or boxes `(1, M, 4)` in the input's
    pixels and scores `(1, classes, M)`; or, grid by grid, scores `(1, cells, classes)`, then as many distributions
    `(1, cells, 4 * bins)`. size: height and width of the input. picture: of the picture. threshold: the least score.
    limit: of boxes of a class that overlap by more, the best one alone. told: whether the network knows the picture's
    size; if not, rows of its own are in the input's pixels too. RuntimeFailed for other outputs.
    """
    for one in outputs:
        if not isinstance(one, np.ndarray) or one.dtype.kind not in "fiu":
            raise RuntimeFailed("detector: expected arrays of numbers as outputs")
    if len(outputs) in (1, 2) and outputs[0].ndim == 2:
        rows = np.asarray(outputs[0], np.float32)
        if rows.size < 6:  # how the reference's networks say that there is nothing
            return np.empty((0, 6), np.float32)
        if rows.shape[1] != 6:
            raise RuntimeFailed(f"detector: expected rows of 6 numbers, got {list(rows.shape)}")
        if not np.isfinite(rows).all():
            raise RuntimeFailed("detector: a box is not finite")
        rows = rows[rows[:, 1] >= threshold]
        rows = rows[np.argsort(-rows[:, 1], kind="stable")]
        return inside(rows if told else enlarged(rows, size, picture), picture)
    if len(outputs) == 2 and all(one.ndim == 3 for one in outputs) and outputs[0].shape[2] == 4:
        if outputs[0].shape[0] != 1 or outputs[1].shape[0] != 1:
            raise RuntimeFailed(f"detector: expected outputs of one picture, got {len(outputs[0])}")
        boxes, scores = np.asarray(outputs[0][0], np.float32), np.asarray(outputs[1][0], np.float32).T
        if len(boxes) != len(scores):
            raise RuntimeFailed(f"detector: {len(boxes)} boxes, and scores of {len(scores)}")
    else:
        boxes, scores = of_heads(outputs, size)
    if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
        raise RuntimeFailed("detector: a box or a score is not finite")
    found = [np.empty((0, 6), np.float32)]
    for kind in range(scores.shape[1]):
        chosen = np.flatnonzero(scores[:, kind] >= threshold)
        kept = chosen[suppressed(boxes[chosen], scores[chosen, kind], limit, pixel=0)]
        kinds = np.full(len(kept), kind, np.float32)
        found.append(np.column_stack([kinds, scores[kept, kind], boxes[kept]]))
    rows = np.concatenate(found).astype(np.float32)
    rows = rows[np.argsort(-rows[:, 1], kind="stable")]
    return inside(enlarged(rows, size, picture), picture)


def of_heads(outputs: Outputs, size: tuple[int, int]) -> tuple[Floats, Floats]:
    """Boxes `(n, 4)` in the input's pixels, and scores `(n, classes)`, of PicoDet's grids."""
    grids = len(outputs) // 2
    boxes, scores = [], []
    for at, (score, distances) in enumerate(zip(outputs[:grids], outputs[grids:], strict=False)):
        stride = FIRST_STRIDE << at
        high, wide = (-(-side // stride) for side in size)
        shapes = f"{list(score.shape)} and {list(distances.shape)}"
        if len(outputs) % 2 or score.ndim != 3 or score.shape[:2] != (1, high * wide):
            raise RuntimeFailed(f"detector: expected scores of {high} x {wide} cells of {stride} pixels, got {shapes}")
        if distances.shape[:2] != score.shape[:2] or distances.ndim != 3 or distances.shape[2] % 4:
            raise RuntimeFailed(f"detector: expected distributions of 4 sides for each cell, got {shapes}")
        if not score.shape[2] or not distances.shape[2]:
            raise RuntimeFailed(f"detector: expected classes and bins, got {shapes}")
        best = np.argsort(-score[0].max(axis=1), kind="stable")[:CANDIDATES]
        rows, columns = np.divmod(best, wide)
        centres = (np.column_stack([columns, rows]) + 0.5) * stride
        sides = expected(np.asarray(distances[0][best], np.float64).reshape(len(best), 4, -1)) * stride
        boxes.append(np.column_stack([centres - sides[:, :2], centres + sides[:, 2:]]))
        scores.append(np.asarray(score[0][best], np.float32))
    if not boxes:
        raise RuntimeFailed(
            f"detector: expected boxes, or scores and distributions of grids, got {len(outputs)} output"
        )
    return np.concatenate(boxes).astype(np.float32), np.concatenate(scores)


def expected(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """The expected value of 0, 1, ... by the softmax over the last axis."""
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(weights @ np.arange(logits.shape[-1]) / weights.sum(axis=-1))


def enlarged(rows: Floats, size: tuple[int, int], picture: tuple[int, int]) -> Floats:
    """From the input's pixels to the picture's."""
    rows = rows.copy()
    rows[:, 2:] *= np.tile(np.asarray(picture[::-1], np.float32) / np.asarray(size[::-1], np.float32), 2)
    return rows


def inside(rows: Floats, picture: tuple[int, int]) -> Floats:
    """Boxes inside the picture; what is not in it at all is left out."""
    rows = rows.copy()
    rows[:, [2, 4]] = rows[:, [2, 4]].clip(0, picture[1])
    rows[:, [3, 5]] = rows[:, [3, 5]].clip(0, picture[0])
    return rows[(rows[:, 2] < rows[:, 4]) & (rows[:, 3] < rows[:, 5])]


def suppressed(boxes: NDArray[np.generic], scores: NDArray[np.generic], limit: float, pixel: int = 1) -> list[int]:
    """Greedy non-maximum suppression: indices of boxes `(n, 4)`, best first, that overlap (IoU) with none before them
    by more than `limit`. pixel: 1 where a box's last pixels are in it, as for the reference's answers.
    """
    kept: list[int] = []
    sides = np.asarray(boxes, np.float64).reshape(-1, 4)
    areas = np.maximum(sides[:, 2:] - sides[:, :2] + pixel, 0).prod(axis=1)
    left = np.argsort(-np.asarray(scores, np.float64), kind="stable")
    while len(left):
        best, left = int(left[0]), left[1:]
        kept.append(best)
        low, high = np.maximum(sides[best, :2], sides[left, :2]), np.minimum(sides[best, 2:], sides[left, 2:])
        inner = np.maximum(high - low + pixel, 0).prod(axis=1)
        left = left[inner <= limit * (areas[best] + areas[left] - inner)]
    return kept
