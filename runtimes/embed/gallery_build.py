"""Images into a gallery on disk, a part at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..core.errors import ImageError, InputError
from ..gallery.disk_gallery import DiskGallery
from ..gallery.entries import Entry
from ..gallery.new_rows import check_text
from .batches import BadImage
from .model import Embedding

PART = 2048  # images that are added in one step: what an interruption loses, at most


class Embeds(Protocol):
    """What embeds images: an `EmbeddingModel`, or one around it."""

    def stream(self, paths: Sequence[Path], on_bad: BadImage | None = None) -> Iterator[tuple[list[Path], Embedding]]:
        """Parts of `(paths, float32 (n, D))`, in order."""


def usable(entries: Sequence[Entry], on_bad: BadImage | None) -> list[Entry]:
    """Those whose ids and labels a gallery can hold; the others go to `on_bad`, or the first one is raised."""
    kept = []
    for entry in entries:
        try:
            check_text(entry.id)
            if entry.label is not None:
                check_text(entry.label)
            kept.append(entry)
        except InputError as error:
            if on_bad is None:
                raise
            on_bad(entry.path, ImageError(f"{entry.path}: {error}"))
    return kept


def embed_into(
    gallery: DiskGallery,
    model: Embeds,
    entries: Sequence[Entry],
    on_bad: BadImage | None,
    replace: bool = False,
    advance: Callable[[int], object] = lambda count: None,
) -> int:
    """Embeds images and adds them; returns how many. A bad one goes to `on_bad`, or is raised.

    What was added when this is interrupted is there. A replaced image without new metadata keeps what it had. Names and
    labels that a gallery cannot hold are bad images too; InputError, before anything is embedded, for ids that are
    there already, unless `replace`.
    """
    entries = usable(entries, on_bad)
    if not replace and (there := gallery.known([entry.id for entry in entries])):
        raise InputError(
            f"{gallery.root}: {len(there)} of {len(entries)} images are there already, {min(there)!r:.200} for one:"
            " replace them, or leave them out"
        )
    added = 0
    for start in range(0, len(entries), PART):
        part: dict[Path, list[Entry]] = {}
        chosen = entries[start : start + PART]
        for entry in chosen:
            part.setdefault(entry.path, []).append(entry)
        before = gallery.rows_with([entry.id for entry in chosen if entry.metadata is None]) if replace else {}
        good: list[Entry] = []
        rows: list[NDArray[np.float32]] = []
        for paths, embeddings in model.stream([entry.path for entry in chosen], on_bad):
            good += [part[path].pop(0) for path in paths]
            rows.append(embeddings)
            advance(len(paths))
        if good:
            ids, labels = [one.id for one in good], [one.label for one in good]
            metadata = [before[one.id].metadata if one.id in before else one.metadata for one in good]
            gallery.add(ids, np.concatenate(rows), labels, metadata, replace)
            added += len(good)
    return added
