"""The run's images as the model takes them: read and preprocessed once, however many rows take them."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...runtimes.core.errors import ImageError
from ...runtimes.embed.batches import stream_tensors
from ...runtimes.preprocess.ops import Preprocess

READ_BATCH = 8
LIMIT_BYTES = 4 << 30
SHARE_OF_FREE = 4  # a fourth of what the folder of temporary files has free, at most
Tensors = NDArray[np.float32]


class TensorCache:
    """Tensors in a temporary file without a name; preprocessed anew at each use where they would not fit.

    kept: int64 `(n,)`, the indices of the images that could be read. bad: why the others could not, a line each.
    """

    def __init__(
        self, paths: Sequence[Path], preprocess: Preprocess, on_step: Callable[[float], None], limit: int = LIMIT_BYTES
    ) -> None:
        self.preprocess, self.bad = preprocess, list[str]()
        kept: list[int] = []
        needed = 4 * len(paths) * int(np.prod(preprocess.output_shape))
        room = shutil.disk_usage(tempfile.gettempdir()).free // SHARE_OF_FREE
        self._file = tempfile.TemporaryFile() if needed <= min(limit, room) else None  # noqa: SIM115 - see close

        def on_bad(path: Path, error: ImageError) -> None:
            self.bad.append(str(error))

        for indices, tensors in stream_tensors(paths, preprocess, READ_BATCH, 1, on_bad):
            kept += indices
            self._keep(tensors)
            on_step(len(kept) / len(paths))
        self._flush()
        self.kept = np.asarray(kept, dtype=np.int64)
        self.paths = [paths[index] for index in kept]

    def _keep(self, tensors: Tensors) -> None:
        if self._file is not None:
            try:
                self._file.write(tensors.data)
            except OSError:  # no space after all
                self.close()

    def _flush(self) -> None:
        if self._file is not None:
            try:
                self._file.flush()
            except OSError:
                self.close()

    def batches(self, size: int, order: NDArray[np.int64] | None = None) -> Iterator[Tensors]:
        """The good images, float32 `(<= size, 3, H, W)`. order: their indices, as they are wanted; all by default."""
        order = np.arange(len(self.paths)) if order is None else order
        if self._file is None or not len(order):
            for _, tensors in stream_tensors([self.paths[i] for i in order], self.preprocess, size, 1, None):
                yield tensors
            return
        shape = (len(self.paths), *self.preprocess.output_shape)
        whole = np.memmap(self._file, np.float32, "r", shape=shape)
        for start in range(0, len(order), size):
            yield np.asarray(whole[order[start : start + size]])

    def close(self) -> None:
        """Frees the space."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None
