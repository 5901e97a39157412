"""Many texts in two arrays: their UTF-8 bytes one after the other, and where each begins and the last one ends."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..core.errors import InputError

Numbers = NDArray[np.uint64]


@dataclass(frozen=True)
class Texts:
    """Texts in a mapped file: each is read when it is asked for. offsets: uint64 `(n + 1,)`; data: uint8."""

    offsets: Numbers
    data: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __iter__(self) -> Iterator[str]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> str:
        """InputError where the file is damaged."""
        try:
            begin, end = int(self.offsets[index]), int(self.offsets[index + 1])
            if not begin <= end <= len(self.data):
                raise IndexError
            return self.data[begin:end].tobytes().decode("utf-8")
        except (IndexError, UnicodeDecodeError):
            raise InputError(f"the gallery is damaged at text {index}: see 'edgerecall gallery verify'") from None

    def problem(self) -> str | None:
        """What is wrong with the offsets or the bytes, in words."""
        if not len(self.offsets) or self.offsets[0] != 0 or self.offsets[-1] != len(self.data):
            return "the texts' offsets do not fit their bytes"
        if (self.offsets[1:] < self.offsets[:-1]).any():
            return "the texts' offsets do not rise"
        try:
            self.data.tobytes().decode("utf-8")
        except UnicodeDecodeError as error:
            return f"byte {error.start} of the texts is not UTF-8"
        return None


def packed(texts: Iterable[str]) -> Texts:
    """Texts in that form. UnicodeEncodeError for one with half of a surrogate pair."""
    encoded = [text.encode("utf-8") for text in texts]
    offsets = np.zeros(len(encoded) + 1, np.uint64)
    np.cumsum([len(one) for one in encoded], out=offsets[1:])
    return Texts(offsets, np.frombuffer(b"".join(encoded), np.uint8))


def hash_of(text: str) -> int:
    """The first 8 bytes of the SHA-256 of its UTF-8, little-endian: finds a text among millions."""
    return int.from_bytes(hashlib.sha256(text.encode("utf-8")).digest()[:8], "little")


def hashes_of(texts: Iterable[str]) -> Numbers:
    """`hash_of` each, uint64 `(n,)`."""
    return np.fromiter(map(hash_of, texts), np.uint64)
