"""What measuring a group of rows gives, on this machine or on a device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...runtimes.bundle.bundle import Bundle
from .rows import Row


@dataclass(frozen=True)
class Evidence:
    """What a device handed in of a row that differs. runtime, quantisation: what opens the same artifact here.

    tensor: what it made of `image`, a file here, float32 `(3, H, W)`; None where that is as sealed, or not known.
    golden: its raw embeddings of the golden tensors, float32 `(n, D)`; None where it did not come so far.
    """

    runtime: str
    quantisation: str
    image: Path | None
    tensor: NDArray[np.float32] | None
    golden: NDArray[np.float32] | None

    @property
    def key(self) -> object:
        """The same for evidence of the same."""
        arrays = (None if array is None else array.tobytes() for array in (self.tensor, self.golden))
        return (self.runtime, self.quantisation, self.image, *arrays)


Explain = Callable[[Bundle, Evidence], str | None]  # why it differs, in a sentence


@dataclass(frozen=True)
class GroupResult:
    """A group's rows, and by row name its embeddings of the image set and of random input, float32 `(n, D)`.

    evidence: by row name, of a device's rows that differ.
    """

    rows: list[Row]
    embeddings: Mapping[str, NDArray[np.float32]]
    random: Mapping[str, NDArray[np.float32]]
    warnings: list[str]
    evidence: Mapping[str, Evidence] = field(default_factory=dict)
