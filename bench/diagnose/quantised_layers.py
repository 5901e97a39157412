"""What each layer of an int8 model loses: its signal-to-noise ratio, and the model with it left in float."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtimes.embed.verify import cosines

Tensors = NDArray[np.float32]
Runner = Callable[[Tensors], Tensors]
NO_NOISE = 1e-20  # relative power of the error, below which there is none: 200 dB
# Of an int8 model's constants and ranges.
STEPS = 1.05  # of a weight's scale, that its value may be off; rounding takes half of one
CUT_OFF = 0.01  # share of an activation's values beyond its range; calibration by percentile leaves a hundredth of it
UNUSED = 64  # times as wide as its values need: six of eight bits are lost; outliers make ranges some times too wide


@dataclass(frozen=True)
class LayerLoss:
    """sqnr_db: of its output in the int8 model against the float one's, 10 log10 of the powers' ratio. cosine: mean of
    the embeddings with the float model's, were this layer alone in float.
    """

    name: str
    kind: str
    sqnr_db: float
    cosine: float


@dataclass(frozen=True)
class Int8Fault:
    """layer: the operator. what: "fault" for constants, "unfit range" for activations. text: with its figures."""

    layer: str
    what: str
    text: str


class QuantisedLayers(ABC):
    """An int8 model beside the float model that it was made from.

    plain, quantised: the models. kinds: the type of each quantised layer, in the graph's order.
    """

    plain: Any
    quantised: Any
    kinds: dict[str, str]

    @abstractmethod
    def runner(self, model: Any) -> Runner:
        """Gives a model's embeddings, L2-normalised `(n, D)`, for float32 `(n, 3, H, W)`."""

    @abstractmethod
    def in_float(self, names: Sequence[str]) -> Any:
        """The int8 model with these layers computed in float, from unrounded weights and inputs."""

    @abstractmethod
    def signal_to_noise(self, tensors: Tensors) -> dict[str, float]:
        """Of each layer's output in dB, over all images together."""

    @abstractmethod
    def faults(self, tensors: Tensors) -> list[Int8Fault]:
        """What is wrong beyond rounding, in the graph's order. tensors: what activations are seen on."""

    def losses(self, tensors: Tensors, on_layer: Callable[[], None] = lambda: None) -> tuple[float, list[LayerLoss]]:
        """The int8 model's mean cosine with the float model's embeddings, and each layer's loss in the graph's order.

        tensors: float32 `(n, 3, H, W)`. on_layer: called after each.
        """
        truth = self.runner(self.plain)(tensors)
        noise = self.signal_to_noise(tensors)
        found = []
        for name, kind in self.kinds.items():
            kept = self.runner(self.in_float([name]))(tensors)
            found.append(LayerLoss(name, kind, noise[name], mean_cosine(kept, truth)))
            on_layer()
        return mean_cosine(self.runner(self.quantised)(tensors), truth), found

    def cosine_with(self, names: Sequence[str], tensors: Tensors) -> float:
        """The mean cosine with the float model's embeddings, were these layers in float."""
        return mean_cosine(self.runner(self.in_float(names))(tensors), self.runner(self.plain)(tensors))


class Noise:
    """The power of signals and of their errors, added up by name."""

    def __init__(self, names: Sequence[str]) -> None:
        self.signal, self.error = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)

    def add(self, name: str, plain: Tensors, rounded: Tensors) -> None:
        """One image's."""
        self.signal[name] += float(np.square(plain, dtype=np.float64).sum())
        self.error[name] += float(np.square(plain.astype(np.float64) - rounded).sum())

    def ratios(self) -> dict[str, float]:
        """In dB, by name."""
        return {
            name: 10 * float(np.log10(max(signal, 1e-300) / max(self.error[name], NO_NOISE * signal, 1e-300)))
            for name, signal in self.signal.items()
        }


class Reach:
    """What of values fed to layers lies beyond the ranges that int8 has for them. ends: by key, the lowest and the
    highest value; names: of the tensor, where that is not the key.
    """

    def __init__(self, ends: dict[str, tuple[float, float]], names: dict[str, str] | None = None) -> None:
        self.ends, self.names = ends, names or {}
        self.beyond, self.count, self.largest = dict.fromkeys(ends, 0), dict.fromkeys(ends, 0), dict.fromkeys(ends, 0.0)

    def see(self, name: str, array: Tensors) -> None:
        """One image's."""
        low, high = self.ends[name]
        step = (high - low) / 255  # by which rounding may pass an end
        self.beyond[name] += int(((array < low - step) | (array > high + step)).sum())
        self.largest[name] = max(self.largest[name], float(np.abs(array).max()))
        self.count[name] += array.size

    def fault(self, name: str, layer: str) -> Int8Fault | None:
        """None where the range fits. layer: that is fed it."""
        low, high = self.ends[name]
        share, largest = self.beyond[name] / max(self.count[name], 1), self.largest[name]
        reach = f"the range of what it is fed, '{self.names.get(name, name)}', is {low:.4g} to {high:.4g} in int8"
        if share > CUT_OFF:
            text = f"{reach}, and {share:.1%} of its values lie beyond, up to {largest:.4g}"
            return Int8Fault(layer, "unfit range", text)
        if max(-low, high) > UNUSED * largest > 0:
            return Int8Fault(layer, "unfit range", f"{reach}, and its values reach no further than {largest:.4g}")
        return None


def wrong_constant(what: str, held: NDArray[Any], wanted: NDArray[Any], allowed: NDArray[Any]) -> str | None:
    """The element of a constant that is furthest off, in multiples of what is allowed; None where all are within."""
    off = np.abs(held - wanted) / np.maximum(allowed, 1e-300)
    if float(off.max()) <= 1:
        return None
    index = np.unravel_index(int(off.argmax()), off.shape)
    count = int((off > 1).sum())
    more = f" (and {count - 1} more of {off.size})" if count > 1 else ""
    at = ", ".join(map(str, index))
    return f"its {what}[{at}] is {held[index]:.4g} in int8 and {wanted[index]:.4g} in float{more}"


def mean_cosine(a: Tensors, b: Tensors) -> float:
    """Of paired rows."""
    return float(cosines(a, b).mean())


def ranked(losses: Sequence[LayerLoss]) -> list[LayerLoss]:
    """Those first that leave the embedding nearest to the float model's when they are kept in float."""
    return sorted(losses, key=lambda one: -one.cosine)
