"""The images of a run: a folder, with labels where it holds a list."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...runtimes.preprocess.image_list import read_image_list
from ...runtimes.preprocess.images import find_images

LIST_NAMES = ("test_list.txt",)


@dataclass(frozen=True)
class ImageSet:
    """Paths, and labels int64 `(n,)` where they are known."""

    paths: tuple[Path, ...]
    labels: NDArray[np.int64] | None

    @classmethod
    def find(cls, folder: Path, list_file: Path | None = None) -> ImageSet:
        """The list given, else the folder's own `test_list.txt`, else every image below the folder, unlabelled."""
        if list_file is None:
            list_file = next((folder / name for name in LIST_NAMES if (folder / name).is_file()), None)
        if list_file is None:
            return cls(tuple(find_images(folder)), None)
        images = read_image_list(list_file, folder)
        return cls(tuple(images.file(i) for i in range(len(images))), images.labels)

    @cached_property
    def digests(self) -> list[bytes]:
        """SHA-256 of each image's bytes; of none for one that cannot be read. Read once."""
        found = []
        for path in self.paths:
            data = b""
            with contextlib.suppress(OSError):
                data = path.read_bytes()
            found.append(hashlib.sha256(data).digest())
        return found

    def sha256(self, chosen: Sequence[int] | NDArray[np.int64], labelled: bool) -> str:
        """Of these images' bytes in order, and their labels where they count."""
        digest = hashlib.sha256(b"".join(self.digests[index] for index in chosen))
        if labelled and self.labels is not None:
            digest.update(self.labels[np.asarray(chosen, dtype=np.int64)].astype("<i8").tobytes())
        return digest.hexdigest()

    def limited(self, count: int) -> ImageSet:
        """The first `count` images, whole."""
        return ImageSet(self.paths[:count], None if self.labels is None else self.labels[:count])
