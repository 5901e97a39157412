"""A gallery's index for approximate search: what it covers of the rows that are there; others are searched exactly."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .._native import search_rows
from ..approximate.faiss_index import TOP, FaissIndex, rows_sampled
from ..core.errors import InputError
from .manifest import IndexEntry
from .segment import Rows, Segment, signs_of, unit_signs
from .snapshot import Snapshot

BLOCK = 1 << 14  # rows that are handed over at once
SAMPLE = 200  # rows that are asked for to measure the recall
OVERFETCH = 2  # times k rows are asked for: some of them may be gone
REMEDY = "make it again by 'gallery compact --index', or search exactly"
TIE = 1e-6  # by which similarities of equal rows differ


def made_of(now: Snapshot, kind: str, threads: int, advance: Callable[[int], object]) -> tuple[FaissIndex, float]:
    """An index of all rows that a snapshot has, removed ones too, and its recall@10 against exact search.

    The recall is that of rows of the gallery, themselves left out, and decides how far each search looks.
    """
    chosen = np.random.default_rng(0).permutation(int(now.firsts[-1]))[: rows_sampled(kind)]
    index = FaissIndex.build(kind, now.manifest.dim, blocks(now.segments), taken(now, chosen), threads, advance)
    there = np.flatnonzero(~np.concatenate([one.gone for one in now.segments]))
    asked = np.random.default_rng(1).permutation(there)[:SAMPLE]
    queries = taken(now, asked)
    exact = similarities_of_others(asked, *now.search(queries, TOP + 1, threads, None))
    covered = IndexedSearch(now, now.segments, index, tuple(map(len, now.segments)))

    def measured() -> float:
        near = similarities_of_others(asked, *covered.search(queries, TOP + 1, threads, complete=False))
        pairs = [(ours, theirs) for ours, theirs in zip(near, exact, strict=True) if len(theirs)]
        shares = [float((ours >= theirs[-1] - TIE).sum()) / len(theirs) for ours, theirs in pairs]
        return float(np.mean(shares)) if shares else 1.0

    return index, index.tune(measured)


def similarities_of_others(asked: NDArray[np.int64], rows: NDArray[np.int64], similarities: Rows) -> list[Rows]:
    """What was found for rows of the gallery, but for themselves, `TOP` at most of each."""
    return [
        near[(found != row) & (found >= 0)][:TOP] for row, found, near in zip(asked, rows, similarities, strict=True)
    ]


def blocks(segments: Sequence[Segment]) -> Iterator[Rows]:
    """All rows as they are kept, float32."""
    for segment in segments:
        for start in range(0, len(segment), BLOCK):
            yield segment.floats(slice(start, start + BLOCK))


def taken(now: Snapshot, rows: NDArray[np.int64]) -> Rows:
    """Some rows as they are kept, float32 `(n, dim)`."""
    found = np.empty((len(rows), now.manifest.dim), np.float32)
    parts = np.searchsorted(now.firsts, rows, side="right") - 1
    for part in np.unique(parts).tolist():
        where = parts == part
        found[where] = now.segments[part].floats(rows[where] - now.firsts[part])
    return found


def written(root: Path, entry: IndexEntry) -> bytes:
    """The index's file. InputError where it is not as it was written."""
    path = root / entry.file.path
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}: {REMEDY}") from error
    if hashlib.sha256(data).hexdigest() != entry.file.sha256:
        raise InputError(f"{path}: its sha256 differs: it has changed since it was written: {REMEDY}")
    return data


def opened(root: Path, entry: IndexEntry, dim: int) -> FaissIndex:
    """The index that a gallery's folder holds. InputError where it is none of such rows."""
    data = written(root, entry)
    try:
        return FaissIndex.read(data, entry.kind, entry.effort, dim, sum(entry.rows))
    except InputError as error:
        raise InputError(f"{root / entry.file.path}: {error}: {REMEDY}") from error


class IndexedSearch:
    """Searches a snapshot by an index of some of its segments, and the others exactly.

    covered: the index's segments in its order; None for one that is no longer there, whose rows are passed over. rows:
    of each, in the index.
    """

    def __init__(self, now: Snapshot, covered: Sequence[Segment | None], index: FaissIndex, rows: Sequence[int]):
        self._now, self._index = now, index
        firsts = {id(one): first for one, first in zip(now.segments, now.firsts.tolist(), strict=False)}
        # Of each row of the index, its number in the snapshot.
        parts = [
            np.full(count, -1, np.int64)
            if one is None
            else np.where(one.gone, -1, firsts[id(one)] + np.arange(count, dtype=np.int64))
            for one, count in zip(covered, rows, strict=True)
        ]
        self._rows = np.concatenate([*parts, [-1]])  # the last is that of what was not found
        self._live = int((self._rows >= 0).sum())
        known = {id(one) for one in covered}
        self._left = [one for one in now.segments if id(one) not in known]
        self._firsts = [firsts[id(one)] for one in self._left]

    @classmethod
    def of(cls, root: Path, now: Snapshot, entry: IndexEntry, index: FaissIndex) -> IndexedSearch:
        """By the index that a snapshot's folder holds. InputError where it is of other rows."""
        by_path = {one.entry.file.path: one for one in now.segments}
        covered = [by_path.get(path) for path in entry.segments]
        if any(one is not None and len(one) != rows for one, rows in zip(covered, entry.rows, strict=True)):
            raise InputError(f"{root / entry.file.path}: is of other rows: {REMEDY}")
        return cls(now, covered, index, entry.rows)

    def search(self, queries: Rows, k: int, threads: int, complete: bool = True) -> tuple[NDArray[np.int64], Rows]:
        """As `Snapshot.search`, with similarities to what is stored. complete: the search is exact where so many of the
        index's rows are gone that it gives too few.
        """
        if type(k) is not int or k < 1:
            raise InputError(f"search: expected k of 1 or more, got {k!r:.40}")
        k = min(k, max(int(self._now.firsts[-1]), 1))
        if len(bad := np.flatnonzero(~np.isfinite(queries).all(axis=1))):
            raise InputError(f"search: query {bad[0]} is not finite")
        dim, binary = self._now.manifest.dim, self._now.manifest.storage == "binary"
        asked = unit_signs(signs_of(queries), dim) if binary else queries
        numbers = self._index.search(asked, min(OVERFETCH * k + TOP, max(len(self._index), 1)), threads)
        candidates = self._rows[numbers]
        rows, similarities = np.full((len(queries), k), -1, np.int64), np.full((len(queries), k), -np.inf, np.float32)
        others = self._exact(queries, k, threads)
        lacking = []
        for at, query in enumerate(asked):
            near = np.unique(candidates[at][candidates[at] >= 0])
            if complete and len(near) < min(k, self._live):  # what it named is gone: nearer rows may be behind that
                lacking.append(at)
                continue
            scores = taken(self._now, near).astype(np.float64) @ query.astype(np.float64)
            if binary:
                scores = 1 - 2 * np.rint((1 - scores) / 2 * dim) / dim  # as exact search gives them
            found = np.concatenate([near, others[0][at]])
            scored = np.concatenate([scores, others[1][at]]).astype(np.float32)
            best = np.lexsort((found, -scored))[:k]
            rows[at, : len(best)], similarities[at, : len(best)] = found[best], scored[best]
        if lacking:
            rows[lacking], similarities[lacking] = self._now.search(queries[lacking], k, threads, None)
        return rows, similarities

    def _exact(self, queries: Rows, k: int, threads: int) -> tuple[NDArray[np.int64], Rows]:
        """Of the rows that the index does not have."""
        if not self._left:
            return np.empty((len(queries), 0), np.int64), np.empty((len(queries), 0), np.float32)
        rows, similarities = search_rows([one.searched() for one in self._left], queries, k, threads, None)
        starts = np.cumsum([0, *map(len, self._left)])
        part = np.clip(np.searchsorted(starts, rows, side="right") - 1, 0, len(self._left) - 1)
        moved = rows - starts[part] + np.asarray(self._firsts)[part]
        return np.where(rows < 0, -1, moved), similarities
