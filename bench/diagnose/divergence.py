"""The first tensor inside two runtimes' graphs that is not the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...runtimes.predictor.interface import InnerTensor

# Largest |difference| over the largest |value| of a tensor. Sound float32 graphs stay below SAME (measured: 2e-6); a
# tensor whose most similar one is further than NEAR has no counterpart, as where a converter fused what made it.
SAME, NEAR = 5e-5, 0.05


@dataclass(frozen=True)
class Divergence:
    """index: of the `matched` tensors of both, how many came before. error: relative to the tensor's largest value,
    infinite where the other graph has nothing like it.
    """

    name: str
    kind: str
    other_name: str
    error: float
    index: int
    matched: int


def distance(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Largest |difference| over the largest |value|; infinite where either is not finite."""
    x, y = a.ravel().astype(np.float64), b.ravel().astype(np.float64)
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return float("inf")
    return float(np.abs(x - y).max() / max(np.abs(x).max(), np.abs(y).max(), 1e-30))


def squeezed(tensor: InnerTensor) -> tuple[int, ...]:
    """The shape without sides of 1, in which formats differ."""
    return tuple(side for side in tensor.values.shape if side != 1)


def matches(a: Sequence[InnerTensor], b: Sequence[InnerTensor]) -> list[tuple[InnerTensor, InnerTensor, float]]:
    """Each tensor of `a` that has a counterpart in `b`: that of its shape with the nearest values."""
    by_shape: dict[tuple[int, ...], list[InnerTensor]] = {}
    for tensor in b:
        by_shape.setdefault(squeezed(tensor), []).append(tensor)
    found = []
    for tensor in a:
        if np.ptp(tensor.values) == 0:  # a constant one, say of a saturated gate, tells nothing
            continue
        candidates = [(distance(tensor.values, other.values), other) for other in by_shape.get(squeezed(tensor), ())]
        if candidates:
            error, other = min(candidates, key=lambda candidate: candidate[0])
            if error < NEAR:
                found.append((tensor, other, error))
    return found


def first_divergence(a: Sequence[InnerTensor], b: Sequence[InnerTensor]) -> Divergence | None:
    """Where two graphs, fed the same, part; None when their last tensors agree.

    Before it matched tensors agree and after it they do not, with the fewest exceptions: a difference may vanish again
    in a branch that saturates.
    """
    if not a or not b or distance(a[-1].values, b[-1].values) < SAME:
        return None
    pairs = matches(a, b)
    same = np.array([error < SAME for _, _, error in pairs], dtype=bool)
    differing_before = np.concatenate([[0], np.cumsum(~same)])
    agreeing_after = same.sum() - np.concatenate([[0], np.cumsum(same)])
    index = int(np.argmin(differing_before + agreeing_after))
    later = np.flatnonzero(~same[index:])
    if len(later):
        index += int(later[0])
        tensor, other, error = pairs[index]
        return Divergence(tensor.name, tensor.kind, other.name, error, index, len(pairs))
    # Too different to be recognised from here on: the tensor after the last that agrees.
    agreed = {id(tensor) for (tensor, _, _), ok in zip(pairs, same, strict=True) if ok}
    last = max((position for position, tensor in enumerate(a) if id(tensor) in agreed), default=-1)
    tensor = a[min(last + 1, len(a) - 1)]
    return Divergence(tensor.name, tensor.kind, "", float("inf"), index, len(pairs))
