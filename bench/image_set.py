"""The images of a run: a folder, with labels where it holds a list."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..runtimes.image_list import read_image_list
from ..runtimes.images import find_images

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

    def limited(self, count: int) -> ImageSet:
        """The first `count` images, whole."""
        return ImageSet(self.paths[:count], None if self.labels is None else self.labels[:count])
