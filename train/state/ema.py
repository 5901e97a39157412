"""An exponential moving average of the weights (Polyak and Juditsky, 1992), running statistics included."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import paddle

from .checkpoint import set_tensors


class MovingAverage:
    """`average = decay * average + (1 - decay) * value` of everything in a layer's state, in float32. The trainer
    averages the network; its class head stays as it is.
    """

    def __init__(self, layer: Any, decay: float) -> None:
        self.decay = decay
        with paddle.no_grad():
            self.state = {name: value.astype("float32").clone() for name, value in layer.state_dict().items()}

    def update(self, layer: Any) -> None:
        """Takes the layer's values in."""
        with paddle.no_grad():
            for name, value in layer.state_dict().items():
                average = self.state[name]
                average.set_value(self.decay * average + (1.0 - self.decay) * value.astype("float32"))

    def load(self, arrays: dict[str, Any], path: Path) -> None:
        """Takes a checkpoint's values. InputError when they do not fit."""
        set_tensors(self.state, arrays, path)
