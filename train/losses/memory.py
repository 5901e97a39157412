"""Cross-batch memory: a ring of the most recent embeddings (Wang et al., arXiv 1912.06798)."""

from __future__ import annotations

from typing import Any

import numpy as np
import paddle
from numpy.typing import NDArray
from paddle import nn

from ...runtimes.core.errors import InputError

TINY = 1e-6  # below a standard deviation


class CrossBatchMemory(nn.Layer):
    """A true FIFO of `size` embeddings, float32 `(size, dim)`, with int64 labels.

    `fill` entries are valid; the next is written at `pointer`, over the oldest once the ring is full.
    Both are kept in the int64 buffer `state` (pointer, fill), so that a checkpoint holds them.
    """

    feats: paddle.Tensor
    targets: paddle.Tensor
    state: paddle.Tensor

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        if size < 1 or dim < 1:
            raise InputError(f"memory: expected a size and a dimension of 1 or more, got {size} and {dim}")
        self.size, self.dim = size, dim
        self.register_buffer("feats", paddle.zeros([size, dim], dtype="float32"))
        self.register_buffer("targets", paddle.zeros([size], dtype="int64"))
        self.register_buffer("state", paddle.zeros([2], dtype="int64"))
        self.pointer, self.fill = 0, 0

    def enqueue(self, feats: paddle.Tensor, targets: paddle.Tensor) -> paddle.Tensor:
        """Stores a batch, float32 `(B, dim)` and int64 `(B,)`, over the oldest entries.

        Returns the slots it went to, int64 `(B,)`. InputError when the batch is larger than the memory.
        """
        count = int(feats.shape[0])
        if count > self.size:
            raise InputError(f"memory: a batch of {count} does not fit a memory of {self.size}: raise xbm_size")
        slots = (paddle.arange(count, dtype="int64") + self.pointer) % self.size
        with paddle.no_grad():
            first = min(count, self.size - self.pointer)
            values = feats.detach().astype("float32")
            self._write(self.pointer, values[:first], targets[:first])
            if first < count:
                self._write(0, values[first:], targets[first:])
        self._move((self.pointer + count) % self.size, min(self.fill + count, self.size))
        return slots

    def _write(self, start: int, feats: paddle.Tensor, targets: paddle.Tensor) -> None:
        stop = start + int(feats.shape[0])
        self.feats[start:stop] = feats
        self.targets[start:stop] = targets

    def get(self) -> tuple[paddle.Tensor, paddle.Tensor]:
        """The valid entries: float32 `(fill, dim)` and int64 `(fill,)`, in slot order."""
        return self.feats[: self.fill], self.targets[: self.fill]

    def load(self, arrays: dict[str, NDArray[Any]], where: str) -> None:
        """Takes a checkpoint's `feats`, `targets` and `state`. InputError when they are of another size.

        PaddleClas writes no `state`. Its unused rows are zero, so the fill is known; where it would have gone on
        writing is not, and is taken to be after the last used row.
        """
        shapes = {"feats": (self.size, self.dim), "targets": (self.size,)}
        if "state" in arrays:
            shapes["state"] = (2,)
        for name, shape in shapes.items():
            found = arrays[name].shape if name in arrays else None
            if found != shape:
                raise InputError(f"{where}: memory {name}: expected {shape}, found {found}: is xbm_size another?")
        if "state" in arrays:
            pointer, fill = (int(value) for value in arrays["state"])
        else:
            used = np.flatnonzero(np.abs(arrays["feats"]).sum(axis=1))
            fill = int(used[-1]) + 1 if len(used) else 0
            pointer = fill % self.size
        if not (0 <= pointer < self.size and 0 <= fill <= self.size):
            raise InputError(f"{where}: memory state: pointer {pointer} and fill {fill} do not fit {self.size} entries")
        self.feats.set_value(arrays["feats"].astype(np.float32))
        self.targets.set_value(arrays["targets"].astype(np.int64))
        self._move(pointer, fill)

    def _move(self, pointer: int, fill: int) -> None:
        self.pointer, self.fill = pointer, fill
        self.state.set_value(np.array([pointer, fill], dtype=np.int64))


def matched(keys: paddle.Tensor, batch: paddle.Tensor, unit_length: bool) -> paddle.Tensor:
    """Embeddings of the memory, float32 `(fill, dim)`, moved and stretched to the mean and the standard deviation that
    the batch, float32 `(B, dim)`, has in each dimension: XBN (Ajanthan et al., arXiv 2303.17127, section 4).
    unit_length: L2-normalised again.
    """
    spread = keys.std(axis=0, unbiased=False) + TINY
    found = (keys - keys.mean(axis=0)) / spread * batch.std(axis=0, unbiased=False) + batch.mean(axis=0)
    return nn.functional.normalize(found, axis=1) if unit_length else found
