"""What measuring a group of rows gives, on this machine or on a device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .rows import Row


@dataclass(frozen=True)
class GroupResult:
    """A group's rows, and by row name its embeddings of the image set and of random input, float32 `(n, D)`."""

    rows: list[Row]
    embeddings: Mapping[str, NDArray[np.float32]]
    random: Mapping[str, NDArray[np.float32]]
    warnings: list[str]
