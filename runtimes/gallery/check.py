"""Whether a gallery on disk is whole: every file's hash, and what is in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np

from ..core.errors import InputError
from .disk_gallery import DiskGallery
from .indexed import written
from .segment import WORD, Segment
from .texts import hashes_of

BLOCK = 1 << 14  # rows looked at together


def problems(gallery: DiskGallery, progress: Callable[[float], object] = lambda share: None) -> list[str]:
    """What is wrong, a line each. progress(share of the bytes read)."""
    found: list[str] = []
    total, done = max(sum(segment.entry.file.bytes for segment in gallery.segments), 1), 0
    for segment in gallery.segments:
        if problem := segment.problem():
            found.append(problem)
        done += segment.entry.file.bytes
        progress(done / total)
    if (entry := gallery.manifest.index) is not None:
        try:
            written(gallery.root, entry)
        except InputError as error:
            found.append(str(error))
    live: Counter[str] = Counter()
    for segment in gallery.segments:
        try:
            found += [f"{segment.path.name}: {problem}" for problem in _of(segment, live)]
        except (InputError, ValueError, IndexError) as error:
            found.append(f"{segment.path.name}: cannot be read: {error}")
    if twice := [one for one, count in live.items() if count > 1]:
        found.append(f"{len(twice)} ids stand for several rows, {twice[0]!r:.200} for one")
    return found


def _of(segment: Segment, live: Counter[str]) -> list[str]:
    content = segment.content
    found = []
    texts = {"ids": content.ids, "labels": content.names, "metadata": content.metadata}
    for name, one in texts.items():
        if one is not None and (problem := one.problem()):
            found.append(f"{name}: {problem}")
    if found:
        return found
    if len(content.labels) and not -1 <= content.labels.min() <= content.labels.max() < len(content.names):
        found.append("a row's label is none of those there")
    if int(segment.gone.sum()) != segment.entry.removed_rows:
        found.append(f"{int(segment.gone.sum())} rows are marked as removed, {segment.entry.removed_rows} should be")
    for start in range(0, len(segment), BLOCK):
        rows = slice(start, start + BLOCK)
        ids = [content.ids[row] for row in range(start, min(start + BLOCK, len(segment)))]
        if (hashes_of(ids) != content.hashes[rows]).any():
            found.append("ids and their hashes differ")
        for name, array in content.stored.items():
            if array.dtype.kind == "f" and not np.isfinite(array[rows]).all():
                found.append(f"{name}: a value is not finite")
        behind = segment.dim % WORD
        if (
            segment.storage == "binary"
            and behind
            and (content.stored["embeddings"][rows, -1] >> np.uint64(behind)).any()
        ):
            found.append("embeddings: a sign behind the last number")
        live.update(one for one, gone in zip(ids, segment.gone[rows], strict=True) if not gone)
    return list(dict.fromkeys(found))
