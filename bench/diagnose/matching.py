"""Whether two graphs' tensors are the same one: wholly, in most channels, or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...runtimes.predictor.interface import InnerTensor

Values = NDArray[np.float32]
# What one float32 operator of two runtimes may differ by: of a channel's largest |value|, and of the tensor's. Measured
# on sound graphs: at most a tenth of it.
OF_CHANNEL, OF_TENSOR = 2e-5, 5e-6
MOST = 0.5  # of the channels, or of the elements, of a tensor that is faulty in the others
SAMPLE = 4096


def plain(values: NDArray[np.float32]) -> Values:
    """Float32 `(N, ...)` without the other sides of 1, in which formats differ."""
    values = np.atleast_1d(values)
    shape = values.shape[:1] + tuple(side for side in values.shape[1:] if side != 1)
    return np.asarray(values, dtype=np.float32).reshape(shape)


@dataclass(frozen=True)
class Match:
    """How one tensor compares with a sound one.

    agrees: everywhere. share: of the channels that are not constant, or of the elements without those that agree at the
    smallest or largest value, the larger of both, that agree. wrong: channels that do not, worst first. error: the
    largest |difference| over the sound tensor's largest |value|; infinite for NaN. axis: of the channels.
    """

    agrees: bool
    share: float
    wrong: tuple[int, ...]
    error: float
    axis: int = 1


def by_channel(values: Values, axis: int = 1) -> NDArray[np.float32]:
    """`(channels, everything else)`."""
    if values.ndim == 1:
        return values.reshape(1, -1)
    return np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)


def match(made: Values, sound: Values) -> Match:
    """Two `plain` tensors of one shape. Of three dimensions, either of the last two may be the channels': that along
    which fewer differ.
    """
    if made.ndim != 3:
        return match_along(made, sound, 1)
    return min((match_along(made, sound, axis) for axis in (1, 2)), key=lambda found: (-found.share, len(found.wrong)))


def match_along(made: Values, sound: Values, axis: int) -> Match:
    """`match` with the channels along this axis."""
    own, known = by_channel(made, axis), by_channel(sound, axis)
    scale = np.abs(known).max(axis=1)
    whole = max(float(np.nan_to_num(scale).max()), 1e-30)
    allowed = OF_CHANNEL * scale + OF_TENSOR * whole
    with np.errstate(invalid="ignore", over="ignore"):
        off = np.nan_to_num(np.abs(own - known), nan=np.inf)
    worst = off.max(axis=1)
    bad = ~(worst <= allowed)  # NaN too
    if not bad.any():
        return Match(True, 1.0, (), float(worst.max()) / whole, axis)
    lowest, highest = known.min(axis=1), known.max(axis=1)
    alive = highest > lowest
    near = off <= allowed[:, None]
    telling = ~near | ((known > known.min()) & (known < known.max()))  # zeros of ReLUs are alike everywhere
    shares = [float(np.mean(~bad[alive]))] if alive.sum() > 1 else []
    shares.append(float(np.mean(near[telling])))
    wrong = np.flatnonzero(bad)
    wrong = wrong[np.argsort(-worst[wrong] / np.maximum(scale[wrong].astype(np.float64), 1e-30), kind="stable")]
    return Match(False, max(shares), tuple(map(int, wrong)), float(worst.max()) / whole, axis)


class Known:
    """The sound graph's tensors, by shape, to be looked up by value."""

    def __init__(self, tensors: Sequence[InnerTensor]) -> None:
        self.tensors = list(tensors)
        self.values = [plain(tensor.values) for tensor in tensors]
        self._by_shape: dict[tuple[int, ...], list[int]] = {}
        for index, values in enumerate(self.values):
            self._by_shape.setdefault(values.shape, []).append(index)

    def of_shape(self, shape: tuple[int, ...]) -> list[int]:
        """Indices, in the graph's order."""
        return self._by_shape.get(shape, [])

    def find(self, made: Values, after: int, taken: set[int], partly: bool) -> tuple[int, Match] | None:
        """The tensor that this is: one that agrees, else, if partly, the one not taken yet that most of it agrees with.

        Of several equal ones the first after index `after`.
        """
        step = max(made.size // SAMPLE, 1)
        sample = made.ravel()[::step]
        best: tuple[int, Match] | None = None
        for index in sorted(self.of_shape(made.shape), key=lambda one: (one <= after, one)):
            known = self.values[index]
            near = np.abs(known.ravel()[::step] - sample) <= 1e-3 * max(float(np.abs(sample).max()), 1e-30)
            if np.mean(near) < MOST / 4:
                continue
            found = match(made, known)
            if found.agrees:
                return index, found
            if partly and index not in taken and found.share >= MOST and (best is None or found.share > best[1].share):
                best = index, found
        return best
