"""Images into a gallery on disk, a part at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..gallery.disk_gallery import DiskGallery
from ..gallery.entries import Entry
from .batches import BadImage
from .model import Embedding

PART = 2048  # images that are added in one step: what an interruption loses, at most


class Embeds(Protocol):
    """What embeds images: an `EmbeddingModel`, or one around it."""

    def stream(self, paths: Sequence[Path], on_bad: BadImage | None = None) -> Iterator[tuple[list[Path], Embedding]]:
        """Parts of `(paths, float32 (n, D))`, in order."""


def embed_into(
    gallery: DiskGallery,
    model: Embeds,
    entries: Sequence[Entry],
    on_bad: BadImage | None,
    replace: bool = False,
    advance: Callable[[int], object] = lambda count: None,
) -> int:
    """Embeds images and adds them; returns how many. A bad one goes to `on_bad`, or is raised.

    What was added when this is interrupted is there.
    """
    added = 0
    for start in range(0, len(entries), PART):
        part = {entry.path: entry for entry in entries[start : start + PART]}
        good: list[Entry] = []
        rows: list[NDArray[np.float32]] = []
        for paths, embeddings in model.stream(list(part), on_bad):
            good += [part[path] for path in paths]
            rows.append(embeddings)
            advance(len(paths))
        if good:
            gallery.add([one.id for one in good], np.concatenate(rows), [one.label for one in good], replace=replace)
            added += len(good)
    return added
