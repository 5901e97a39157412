"""What every database that holds a gallery answers, and how a row gets there from one on disk."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..bundle.bundle import Bundle
from ..core.errors import InputError
from ..gallery.disk_gallery import DiskGallery
from ..gallery.identity import ModelIdentity, require_same
from ..gallery.new_rows import checked_limit, checked_new, checked_rows, several
from ..gallery.snapshot import Match

Rows = NDArray[np.float32]
PART = 1000  # rows that are written in one step
SAMPLE, TOP = 100, 10  # rows that are asked for, and neighbours of each, to measure an index's recall
TIE = 1e-6  # by which similarities of equal rows differ
MOST_FOUND = 10_000


@dataclass(frozen=True)
class NewRow:
    """A row as it is written. metadata: a JSON object, or none."""

    id: str
    label: str | None
    metadata: dict[str, Any] | None
    embedding: Rows


class IsThere(InputError):
    """A row that was to be new is there already."""


def texts(given: Collection[str], what: str) -> list[str]:
    """Texts that a database can hold, of those asked for: no row has any other."""
    several(given, what)
    return [one for one in given if _is_text(one)]


def _is_text(one: str) -> bool:
    try:
        one.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return "\0" not in one


class Store(ABC):
    """A gallery in a database: embeddings with ids, labels and metadata, of one model. Thread-safe; close() it.

    where: the database and the place in it, without a password. model: by which the embeddings were made; None where
    they came without one. index: of what kind, and how much of the exact answer it gave when it was made (recall@10).

    InputError for what is no such gallery or cannot be reached.
    """

    where: str
    dim: int
    model: ModelIdentity | None
    index: str | None
    recall: float | None

    def require_model(self, model: Bundle | ModelIdentity) -> None:
        """InputError unless the embeddings come from this model, or were brought without one."""
        require_same(self.where, self.model, model)

    def add(
        self,
        ids: Sequence[str],
        embeddings: Rows,
        labels: Sequence[str | None] | None = None,
        metadata: Sequence[Mapping[str, Any] | None] | None = None,
        replace: bool = False,
    ) -> int:
        """Adds rows, float32 `(n, dim)`, all or none. Returns how many were replaced.

        replace: rows that are there with one of these ids are written over; without, they are an InputError. So are
        values that are not finite.
        """
        checked_new("float32", self.dim, ids, embeddings, labels, metadata)
        labels, metadata = labels or [None] * len(ids), metadata or [None] * len(ids)
        rows = [
            NewRow(one, label, dict(told) if told else None, row)
            for one, label, told, row in zip(ids, labels, metadata, embeddings, strict=True)
        ]
        for row in rows:
            if "\0" in row.id + (row.label or "") or has_nul(row.metadata):
                raise InputError(f"{self.where}: id {row.id!r:.200}: a database holds no text with a NUL in it")
        return self._write(rows, replace) if rows else 0

    def search(
        self,
        queries: Rows,
        k: int = 10,
        threads: int = 1,
        labels: Collection[str] | None = None,
        min_similarity: float | None = None,
        duplicate: float | None = None,
        exact: bool = False,
    ) -> list[list[Match]]:
        """The best k of each query, float32 `(n, dim)`, best first; by the index where there is one and the search is
        not `exact`.

        threads: the database has its own. labels: rows of these alone, always exactly. min_similarity: none below it.
        duplicate: for galleries on disk alone.
        """
        if duplicate is not None:
            raise InputError(f"{self.where}: near-duplicates are told apart in galleries on disk alone")
        if not 1 <= k <= MOST_FOUND:
            raise InputError(f"search: k: expected 1 to {MOST_FOUND}, got {k}")
        checked = checked_rows(queries, self.dim, "queries")
        if not np.isfinite(checked).all():
            raise InputError("queries: a value is not finite")
        min_similarity = checked_limit(min_similarity, "min_similarity")
        found = self._nearest(checked, k, labels, exact or labels is not None)
        low = -np.inf if min_similarity is None else min_similarity
        return [[one for one in matches if np.float32(one.similarity) >= low] for matches in found]

    def measured_recall(self) -> float:
        """Which part of the best rows for each of a sample of rows the index finds; of rows as similar, any."""
        queries = self._sample(SAMPLE)
        if not len(queries):
            return 1.0
        exact, approximate = (self._nearest(queries, TOP, None, one) for one in (True, False))
        shares = [
            sum(one.similarity >= theirs[-1].similarity - TIE for one in ours) / len(theirs)
            for theirs, ours in zip(exact, approximate, strict=True)
            if theirs
        ]
        return float(np.mean(shares)) if shares else 1.0

    @abstractmethod
    def __len__(self) -> int:
        """Its rows."""

    @abstractmethod
    def known(self, ids: Collection[str]) -> set[str]:
        """Those of these ids that are there."""

    @abstractmethod
    def labels(self) -> set[str]:
        """Those of rows."""

    @abstractmethod
    def remove(self, ids: Collection[str] = (), labels: Collection[str] = ()) -> int:
        """Removes rows with one of these ids, or one of these labels. Returns how many there were."""

    @abstractmethod
    def build_index(self) -> float:
        """Makes the approximate index that the database has, and measures its recall@10 against exact search."""

    @abstractmethod
    def close(self) -> None:
        """Leaves the database."""

    @abstractmethod
    def _write(self, rows: Sequence[NewRow], replace: bool) -> int:
        """Checked rows, all or none; how many replaced one. IsThere where one is there and must not be replaced."""

    @abstractmethod
    def _nearest(self, queries: Rows, k: int, labels: Collection[str] | None, exact: bool) -> list[list[Match]]: ...

    @abstractmethod
    def _sample(self, count: int) -> Rows:
        """Some rows' embeddings, the same ones every time, float32 `(n, dim)`."""

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def require_numbers(source: DiskGallery) -> None:
    """InputError for a gallery of signs alone, which a database would compare with a query's numbers."""
    if source.manifest.storage == "binary":
        raise InputError(f"{source.root}: keeps signs alone: build one of another storage to copy it into a database")


def copy_gallery(
    source: DiskGallery, target: Store, replace: bool = False, advance: Callable[[int], object] = lambda count: None
) -> tuple[int, int]:
    """A gallery's rows into a database, in steps; how many were written, and how many were there.

    Rows that are there stay as they are, unless `replace`: an interrupted copy goes on where it was. InputError for a
    gallery of signs alone.
    """
    require_numbers(source)
    if source.dim != target.dim:
        raise InputError(f"{target.where}: has embeddings of {target.dim} numbers, {source.root} of {source.dim}")
    if (source.manifest.model is None) != (target.model is None):
        one, other = (target.where, source.root) if source.manifest.model is None else (source.root, target.where)
        raise InputError(
            f"{one} has embeddings of a model, and {other} of none that is known: they are not one gallery"
        )
    if source.manifest.model is not None:
        target.require_model(source.manifest.model)
    written = left = 0
    rows = source.stored_rows()
    while part := list(islice(rows, PART)):
        there = set() if replace else target.known([match.id for match, _ in part])
        new = [(match, row) for match, row in part if match.id not in there]
        try:
            _add(target, new, replace)
        except IsThere:  # another copy is under way
            there = target.known([match.id for match, _ in part])
            new = [(match, row) for match, row in part if match.id not in there]
            _add(target, new, replace)
        written, left = written + len(new), left + len(there)
        advance(len(part))
    return written, left


def _add(target: Store, rows: Sequence[tuple[Match, Rows]], replace: bool) -> None:
    if rows:
        matches = [match for match, _ in rows]
        target.add(
            [one.id for one in matches],
            np.stack([row for _, row in rows]),
            [one.label for one in matches],
            [one.metadata for one in matches],
            replace,
        )


def has_nul(value: Any) -> bool:
    """Whether a text of JSON has a NUL in it."""
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, Mapping):
        return any(has_nul(one) for pair in value.items() for one in pair)
    return isinstance(value, list | tuple) and any(has_nul(one) for one in value)
