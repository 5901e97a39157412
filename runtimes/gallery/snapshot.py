"""A gallery as it was when it was read: what a search goes over, whatever is written meanwhile."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._native import search_rows
from ..core.errors import InputError
from .manifest import GalleryManifest, SegmentEntry
from .new_rows import several
from .segment import Rows, Segment
from .texts import hashes_of

OVERFETCH = 4  # times k, where near-duplicates are dropped
ROUNDED = 1e-7  # what a cosine may lack of a limit that is rounded to float32
TOGETHER = 16  # queries, of those for which more rows are looked for


@dataclass(frozen=True)
class Match:
    """A row that a search found. similarity: the inner product with what is stored; the cosine of the signs, where
    these alone are. metadata: None without any.
    """

    id: str
    similarity: float
    label: str | None
    metadata: dict[str, Any] | None


@dataclass(frozen=True)
class Snapshot:
    """What a reader sees. firsts: the number of each segment's first row, `(segments + 1,)`."""

    manifest: GalleryManifest
    segments: tuple[Segment, ...]
    firsts: NDArray[np.int64]

    @classmethod
    def of(cls, root: Path, manifest: GalleryManifest, known: Mapping[SegmentEntry, Segment]) -> Snapshot:
        """Of a manifest. known: segments that are open already."""
        made = [known.get(one) or Segment(root, one, manifest.storage, manifest.dim) for one in manifest.segments]
        return cls(manifest, tuple(made), np.cumsum([0, *map(len, made)], dtype=np.int64))

    def place(self, row: int) -> tuple[Segment, int]:
        """A row by its number among all."""
        part = int(np.searchsorted(self.firsts, row, side="right")) - 1
        return self.segments[part], row - int(self.firsts[part])

    def match(self, row: int, similarity: float) -> Match:
        """What is known of a row."""
        segment, at = self.place(row)
        content = segment.content
        try:
            label = int(content.labels[at])
            name = None if label < 0 else content.names[label]
            told = "" if content.metadata is None else content.metadata[at]
            return Match(content.ids[at], similarity, name, json.loads(told) if told else None)
        except (IndexError, ValueError) as error:
            raise InputError(f"{segment.path}: damaged at row {at}: see 'edgerecall gallery verify'") from error

    def rows_of(self, ids: Collection[str]) -> dict[Segment, list[int]]:
        """Where rows with one of these ids are."""
        wanted, hashes = set(ids), hashes_of(ids)
        found = {segment: segment.rows_of(hashes, wanted) for segment in self.segments} if ids else {}
        return {segment: rows for segment, rows in found.items() if rows}

    def search(
        self,
        queries: Rows,
        k: int,
        threads: int,
        labels: Collection[str] | None,
        progress: Callable[[float], object] | None = None,
    ) -> tuple[NDArray[np.int64], Rows]:
        """Rows by their numbers, and similarities, both `(n, k)`; -1 and -inf where there are fewer. InputError."""
        if type(k) is not int or k < 1:
            raise InputError(f"search: expected k of 1 or more, got {k!r:.40}")
        several(labels, "search: labels")
        k = min(k, max(int(self.firsts[-1]), 1))
        wanted = None if labels is None else set(labels)
        parts = [one.searched(None if wanted is None else one.unlike(wanted)) for one in self.segments]
        return search_rows(parts, queries, k, threads, progress)

    def told(
        self, rows: NDArray[np.int64], similarities: Rows, k: int, least: float | None, duplicate: float | None
    ) -> list[Match]:
        """What a search found for one query, as far as it is to be told: see `DiskGallery.search`."""
        told: list[Match] = []
        shown: list[NDArray[np.float64]] = []
        for row, similarity in zip(rows.tolist(), similarities.tolist(), strict=True):
            if row < 0 or len(told) == k or (least is not None and similarity < least):
                break
            if duplicate is not None:
                segment, at = self.place(row)
                one = segment.floats(at).astype(np.float64)
                one = one / max(float(np.linalg.norm(one)), 1e-30)
                if shown and float((np.stack(shown) @ one).max()) >= duplicate - ROUNDED:
                    continue
                shown.append(one)
            told.append(self.match(row, similarity))
        return told

    def distinct(
        self,
        queries: Rows,
        k: int,
        threads: int,
        labels: Collection[str] | None,
        least: float | None,
        duplicate: float,
    ) -> list[list[Match]]:
        """`told` of each query, looking further for those that lack some, where there may be more."""
        wanted = k * OVERFETCH
        rows, similarities = self.search(queries, wanted, threads, labels)
        found = [self.told(*one, k, least, duplicate) for one in zip(rows, similarities, strict=True)]
        left = list(range(len(queries)))
        while True:
            last = dict(zip(left, zip(rows[:, -1].tolist(), similarities[:, -1].tolist(), strict=True), strict=True))
            left = [
                one
                for one in left
                if len(found[one]) < k and last[one][0] >= 0 and (least is None or last[one][1] >= least)
            ]
            if not left or wanted >= self.firsts[-1]:
                return found
            wanted *= OVERFETCH
            parts = [left[start : start + TOGETHER] for start in range(0, len(left), TOGETHER)]
            answers = [self.search(queries[part], wanted, threads, labels) for part in parts]
            rows, similarities = (np.concatenate([one[at] for one in answers]) for at in (0, 1))
            for one, row, near in zip(left, rows, similarities, strict=True):
                found[one] = self.told(row, near, k, least, duplicate)
