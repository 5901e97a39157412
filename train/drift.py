"""Feature drift: how far the embeddings of the same images move while the network trains.

D(t, dt) = mean over images of ||f_t(x) - f_{t-dt}(x)||^2, L2-normalised (Wang et al., arXiv 1912.06798, eq. 2). A
memory pays when this is small over the time that an embedding stays in it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import paddle
from numpy.typing import NDArray

from ..runtimes.embed.model import l2_normalize

IMAGES = 32


class DriftProbe:
    """A few training images, encoded again and again in evaluation mode. images float32 `(N, 3, H, W)`."""

    def __init__(self, images: NDArray[np.float32]) -> None:
        self.images = images
        self.last: NDArray[np.float32] | None = None

    def measure(self, network: Any) -> float | None:
        """The drift since the last call; None at the first."""
        network.eval()
        with paddle.no_grad():
            now = l2_normalize(network(paddle.to_tensor(self.images)).astype("float32").numpy())
        network.train()
        before, self.last = self.last, now
        return None if before is None else float(((now - before) ** 2).sum(axis=1).mean())
