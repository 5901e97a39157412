"""A gallery in a few bits a number: a tenth of float32's memory and less, and nearly its recall."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .._native import BitGallery
from ..core.errors import InputError

Rows = NDArray[np.float32]
CANDIDATES = 500  # rows, nearest by sign, that all bits rank, for each query
BLOCK = 16384  # rows that are rotated at a time


def rotation(dim: int, seed: int) -> Rows:
    """A random orthogonal matrix, float32 `(dim, dim)`, uniform over all: after it the numbers of an embedding are
    about normal and equally large, which is what a few bits each can hold.
    """
    drawn = np.random.default_rng(seed).standard_normal((dim, dim))
    q, r = np.linalg.qr(drawn)
    return np.asarray(q * np.sign(np.diag(r)), dtype=np.float32)


class CompressedGallery:
    """Embeddings in 1 to 4 bits a number and two float32 a row, with `dim` rounded up to 64: 512 numbers in 3 bits are
    200 bytes instead of 2048.

    centre: float32 `(dim,)`, the mean of the embeddings to come, or of some like them; see `fit`. Rows, less it, are
    rotated at random by `seed` and quantised number by number (near Gao and Long, "RaBitQ", 2024). A search finds by
    the Hamming distance of the signs, over all rows, and ranks the nearest by all bits against the float32 query.
    Thread-safe but for `add`, which refuses while another thread uses the gallery.
    """

    def __init__(self, centre: Rows, bits: int = 3, seed: int = 0) -> None:
        if centre.ndim != 1:
            raise InputError(f"centre: expected one row of numbers, got an array of shape {centre.shape}")
        self.bits, self.seed = bits, seed
        self._rotation = rotation(len(centre), seed)
        self._gallery = BitGallery(np.ascontiguousarray(centre.astype(np.float32) @ self._rotation), bits)

    @classmethod
    def fit(cls, sample: Rows, bits: int = 3, seed: int = 0) -> CompressedGallery:
        """An empty gallery for embeddings like these, `(n, dim)`; some thousands are enough."""
        if sample.ndim != 2 or not len(sample):
            raise InputError(f"sample: expected embeddings (n, dim), got an array of shape {sample.shape}")
        return cls(sample.mean(axis=0, dtype=np.float64).astype(np.float32), bits, seed)

    def add(self, rows: Rows) -> None:
        """Appends rows, float32 `(n, dim)`. InputError on values that are not finite; the gallery is then unchanged."""
        self._check(rows, "rows")
        bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
        if len(bad):
            raise InputError(f"gallery: row {bad[0]} has a value that is not finite")
        for start in range(0, len(rows), BLOCK):
            self._gallery.add(self._rotated(rows[start : start + BLOCK]))

    def search(
        self, queries: Rows, k: int, candidates: int = CANDIDATES, threads: int = 1
    ) -> tuple[NDArray[np.int64], Rows]:
        """The best `k` rows of each query, float32 `(n, dim)`, and their similarities, both `(n, k)`; -1 and -inf where
        there are fewer. candidates: more find more of what float32 would, and take longer.
        """
        self._check(queries, "queries")
        if candidates < 1:
            raise InputError(f"search: expected candidates of 1 or more, got {candidates}")
        return self._gallery.search(self._rotated(queries), k, candidates, threads)

    def _check(self, rows: Rows, what: str) -> None:
        if rows.ndim != 2 or rows.shape[1] != self.dim:
            raise InputError(f"{what}: expected an array of shape (n, {self.dim}), got {rows.shape}")

    def _rotated(self, rows: Rows) -> Rows:
        return np.ascontiguousarray(rows.astype(np.float32, copy=False) @ self._rotation)

    def __len__(self) -> int:
        return len(self._gallery)

    @property
    def dim(self) -> int:
        """Numbers of an embedding."""
        return self._gallery.dim

    @property
    def bytes(self) -> int:
        """Of the stored rows, without the rotation's `4 dim^2`, which the seed gives again."""
        return self._gallery.bytes
