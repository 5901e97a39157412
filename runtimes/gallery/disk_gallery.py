"""A gallery in a folder: embeddings with ids, labels and metadata, searched exactly where they lie.

A change writes new files, then replaces `gallery.json`: whatever stops it, the gallery is as before or as after. One
process writes at a time; any number read, each what was there when it opened or refreshed.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import RLock
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from .._native import search_rows
from ..bundle.bundle import Bundle
from ..core.errors import InputError
from ..core.files import write_error
from ..core.json_text import parse_json
from ..predictor.registry import tool_versions
from .durable import TEMPORARY, make_folder, rename, synchronise_folder
from .identity import ModelIdentity, difference, identity_of
from .manifest import FILE, MOST_ROWS, GalleryManifest, SegmentEntry, Storage
from .segment import Content, Mask, Rows, Segment, content_of, joined, write_removed, write_segment
from .texts import hashes_of

LOCK = "lock"
ID_BYTES = 4096  # of an id or a label, at most
METADATA_BYTES = 1 << 16
LARGEST_FLOAT16 = 65504.0
MERGED = 1 << 16  # rows of a segment, up to which it is joined with new ones
ATTEMPTS = 10  # to open while another process writes
OVERFETCH = 4  # times k, where near-duplicates are dropped
TOGETHER = 16  # queries, of those for which more rows are looked for
OURS = re.compile(rf"\d{{8,}}-\d+\.(safetensors|removed)({re.escape(TEMPORARY)})?")


@dataclass(frozen=True)
class Match:
    """A row that a search found. similarity: the inner product with what is stored. metadata: None without any."""

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


class DiskGallery:
    """A gallery on disk; use as a context manager, or close(). Thread-safe; a writer's changes are seen by its own
    searches at once, and by other processes when they `refresh`.

    InputError for what is no gallery, is damaged, or is being written by another process.
    """

    def __init__(self, root: str | Path, writable: bool = False, model: Bundle | ModelIdentity | None = None) -> None:
        self.root = Path(root)
        self._lock: IO[bytes] | None = None
        self._changing = RLock()
        self._owner = os.getpid()
        if writable:
            if not (self.root / FILE).is_file():
                GalleryManifest.read(self.root)  # says that there is none
            self._take_lock()
        try:
            self._now = self._read()
            if model is not None:
                self.require_model(model)
            if writable:
                self._remove_strays()
        except BaseException:
            self.close()
            raise

    @classmethod
    def create(
        cls,
        root: str | Path,
        dim: int,
        storage: Storage = "float32",
        model: ModelIdentity | None = None,
        command: str = "",
    ) -> DiskGallery:
        """A new, empty one, to be written. InputError where the folder holds anything."""
        made = cls.__new__(cls)
        made.root, made._lock, made._changing, made._owner = Path(root), None, RLock(), os.getpid()
        if made.root.exists() and (not made.root.is_dir() or not made._is_fresh()):
            raise InputError(f"{root} exists already: remove it or give another name")
        manifest = GalleryManifest(dim=dim, storage=storage, model=model, tools=tool_versions(), command=command)
        make_folder(made.root)
        made._take_lock()
        try:
            if not made._is_fresh():  # another process was faster
                raise InputError(f"{root} exists already: remove it or give another name")
            manifest.write(made.root)
            made._now = made._read()
        except BaseException:
            made.close()
            raise
        return made

    def _is_fresh(self) -> bool:
        """Whether nothing is there but what an interrupted `create` leaves."""
        return {path.name for path in self.root.iterdir()} <= {LOCK, FILE + TEMPORARY}

    def __len__(self) -> int:
        return self._now.manifest.rows

    def __enter__(self) -> DiskGallery:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets another process write."""
        if self._lock is not None:
            if self._owner == os.getpid():  # a forked child has the same lock, and leaves it
                with contextlib.suppress(OSError):
                    fcntl.flock(self._lock, fcntl.LOCK_UN)
            self._lock.close()
            self._lock = None

    @property
    def manifest(self) -> GalleryManifest:
        """What it consists of now."""
        return self._now.manifest

    @property
    def segments(self) -> tuple[Segment, ...]:
        """Its rows' files now."""
        return self._now.segments

    @property
    def dim(self) -> int:
        """Numbers of an embedding."""
        return self._now.manifest.dim

    @property
    def bytes(self) -> int:
        """Of its files."""
        return sum(file.bytes for file in self._now.manifest.files) + (self.root / FILE).stat().st_size

    def require_model(self, model: Bundle | ModelIdentity) -> None:
        """InputError unless the gallery's embeddings come from this model, or were brought without one."""
        ours = self._now.manifest.model
        theirs = identity_of(model) if isinstance(model, Bundle) else model
        if ours is not None and (why := difference(ours, theirs)):
            raise InputError(f"{self.root}: {why}; query by the model that it was built with, or build it anew")

    def refresh(self) -> bool:
        """Sees what other processes have changed since; whether there was anything."""
        with self._changing:
            found = self._read()
            changed = found.manifest != self._now.manifest
            self._now = found
        return changed

    def search(
        self,
        queries: Rows,
        k: int = 10,
        threads: int = 1,
        labels: Collection[str] | None = None,
        min_similarity: float | None = None,
        duplicate: float | None = None,
        progress: Callable[[float], object] | None = None,
    ) -> list[list[Match]]:
        """The best k of each query, float32 `(n, dim)`, best first; fewer where there are no more.

        labels: rows of these alone. min_similarity: none below it. duplicate: of rows whose embeddings are at least
        this similar, in cosine, to a better one of the same query, only that one is told.
        """
        queries = self._checked(queries, "queries")
        for name, value in (("min_similarity", min_similarity), ("duplicate", duplicate)):
            if value is not None and value != value:
                raise InputError(f"search: {name}: expected a number, got {value}")
        now = self._now
        wanted = k if duplicate is None else k * OVERFETCH
        rows, similarities = self._search(now, queries, wanted, threads, labels, progress)
        found = [self._told(now, *one, k, min_similarity, duplicate) for one in zip(rows, similarities, strict=True)]
        left = list(range(len(queries)))
        while duplicate is not None:
            # Those that lack some, where there are rows left that they may have.
            last = dict(zip(left, zip(rows[:, -1].tolist(), similarities[:, -1].tolist(), strict=True), strict=True))
            left = [
                one
                for one in left
                if len(found[one]) < k
                and last[one][0] >= 0
                and (min_similarity is None or last[one][1] >= min_similarity)
                and wanted < now.firsts[-1]
            ]
            if not left:
                break
            wanted *= OVERFETCH
            parts = [left[start : start + TOGETHER] for start in range(0, len(left), TOGETHER)]
            answers = [self._search(now, queries[part], wanted, threads, labels, progress) for part in parts]
            rows, similarities = (np.concatenate([one[at] for one in answers]) for at in (0, 1))
            for one, row, near in zip(left, rows, similarities, strict=True):
                found[one] = self._told(now, row, near, k, min_similarity, duplicate)
        return found

    def search_rows(
        self, queries: Rows, k: int = 10, threads: int = 1, labels: Collection[str] | None = None
    ) -> tuple[NDArray[np.int64], Rows]:
        """As `search`, but numbers: rows by their place in this gallery as it is now, and similarities, both `(n, k)`;
        -1 and -inf where there are fewer. See `match`.
        """
        return self._search(self._now, self._checked(queries, "queries"), k, threads, labels, None)

    def match(self, row: int, similarity: float) -> Match:
        """What is known of a row that `search_rows` found, before any change."""
        return self._now.match(row, similarity)

    def _search(
        self,
        now: Snapshot,
        queries: Rows,
        k: int,
        threads: int,
        labels: Collection[str] | None,
        progress: Callable[[float], object] | None,
    ) -> tuple[NDArray[np.int64], Rows]:
        if type(k) is not int or k < 1:
            raise InputError(f"search: expected k of 1 or more, got {k!r:.40}")
        if isinstance(labels, str):
            raise InputError("search: labels: expected several texts, got one: put it into a list")
        k = min(k, max(int(now.firsts[-1]), 1))
        wanted = None if labels is None else set(labels)
        parts = [one.searched(None if wanted is None else one.unlike(wanted)) for one in now.segments]
        return search_rows(parts, queries, k, threads, progress)

    @staticmethod
    def _told(
        now: Snapshot, rows: NDArray[np.int64], similarities: Rows, k: int, least: float | None, duplicate: float | None
    ) -> list[Match]:
        told: list[Match] = []
        shown: list[Rows] = []
        for row, similarity in zip(rows.tolist(), similarities.tolist(), strict=True):
            if row < 0 or len(told) == k or (least is not None and similarity < least):
                break
            if duplicate is not None:
                segment, at = now.place(row)
                one = segment.embedding(at)
                one = one / max(float(np.linalg.norm(one)), 1e-30)
                if shown and float((np.stack(shown) @ one).max()) >= duplicate:
                    continue
                shown.append(one)
            told.append(now.match(row, similarity))
        return told

    def add(
        self,
        ids: Sequence[str],
        embeddings: Rows,
        labels: Sequence[str | None] | None = None,
        metadata: Sequence[Mapping[str, Any] | None] | None = None,
        replace: bool = False,
    ) -> int:
        """Adds rows, float32 `(n, dim)`, on the disk when this returns. Returns how many were replaced.

        replace: rows that are there with one of these ids go in the same step; without, they are an InputError. So are
        values that are not finite or, in a float16 gallery, too large for it. metadata: what JSON holds.
        """
        new = self._content(ids, embeddings, labels, metadata)
        with self._change() as now:
            if now.manifest.rows + len(ids) > MOST_ROWS:
                raise InputError(f"gallery: at most {MOST_ROWS} rows")
            old = self._rows_of(now, ids)
            if old and not replace:
                segment, row = next((one, rows[0]) for one, rows in old.items())
                raise InputError(f"gallery: id {segment.content.ids[row]!r:.200} is there already")
            if not len(ids):
                return 0
            entries = self._without(now, old)
            merged = self._tail(now, entries, len(ids))
            kept, tail = entries[: len(entries) - merged], entries[len(entries) - merged :]
            known = [self._opened(now, one) for one in tail]
            entry = write_segment(self.root, self._name(0, "safetensors"), joined(known, new))
            self._commit((*kept, entry))
        return sum(map(len, old.values()))

    def remove(self, ids: Collection[str] = (), labels: Collection[str] = ()) -> int:
        """Removes rows with one of these ids, or one of these labels. Returns how many there were."""
        if isinstance(ids, str) or isinstance(labels, str):
            raise InputError("remove: expected several texts, got one: put it into a list")
        with self._change() as now:
            old = self._rows_of(now, ids)
            for segment in now.segments if labels else ():
                found = np.flatnonzero(~segment.unlike(set(labels)) & ~segment.gone).tolist()
                old[segment] = sorted({*old.get(segment, []), *found})
            old = {segment: rows for segment, rows in old.items() if rows}
            if old:
                self._commit(tuple(self._without(now, old)))
        return sum(map(len, old.values()))

    def labels(self) -> set[str]:
        """Those of rows that are there."""
        return {name for segment in self._now.segments for name in segment.used_labels}

    def rows(self) -> Iterator[Match]:
        """What is known of every row that is there; its similarity is 0."""
        now = self._now
        for segment, first in zip(now.segments, now.firsts.tolist(), strict=False):
            for row in np.flatnonzero(~segment.gone).tolist():
                yield now.match(first + row, 0.0)

    def known(self, ids: Collection[str]) -> set[str]:
        """Those of these ids that are there."""
        found = self._rows_of(self._now, ids)
        return {segment.content.ids[row] for segment, rows in found.items() for row in rows}

    def compact(self) -> None:
        """All rows into one file, without those removed."""
        with self._change() as now:
            if len(now.segments) == 1 and now.segments[0].removed is None:
                return
            parts = [part for part in joined(now.segments, None) if len(part)]
            entries = (write_segment(self.root, self._name(0, "safetensors"), parts),) if parts else ()
            self._commit(entries)

    def _content(
        self,
        ids: Sequence[str],
        embeddings: Rows,
        labels: Sequence[str | None] | None,
        metadata: Sequence[Mapping[str, Any] | None] | None,
    ) -> Content:
        embeddings = self._checked(embeddings, "embeddings")
        if isinstance(ids, str) or isinstance(labels, str):
            raise InputError("gallery: ids and labels: expected several texts, got one: put it into a list")
        for name, given in (("ids", ids), ("labels", labels), ("metadata", metadata)):
            if given is not None and len(given) != len(embeddings):
                raise InputError(f"gallery: {len(embeddings)} embeddings and {len(given)} {name}")
        for text in (*ids, *(one for one in labels or () if one is not None)):
            check_text(text)
        if len(set(ids)) < len(ids):
            seen: set[str] = set()
            twice = next(one for one in ids if one in seen or seen.add(one))  # type: ignore[func-returns-value]
            raise InputError(f"gallery: id {twice!r:.200} is given twice")
        told = None
        if metadata is not None and any(metadata):
            told = ["" if not one else _json(one) for one in metadata]
        bad = np.flatnonzero(~np.isfinite(embeddings).all(axis=1))
        storage = self._now.manifest.storage
        if not len(bad) and storage == "float16":
            bad = np.flatnonzero(np.abs(embeddings).max(axis=1, initial=0) > LARGEST_FLOAT16)
        if len(bad):
            limit = "" if storage != "float16" else f", or beyond float16's {LARGEST_FLOAT16:.0f}"
            raise InputError(f"gallery: the embedding of {ids[bad[0]]!r:.200} is not finite{limit}")
        return content_of(storage, embeddings, ids, labels or [None] * len(ids), told)

    def _checked(self, rows: Rows, what: str) -> Rows:
        if not isinstance(rows, np.ndarray):
            raise InputError(f"{what}: expected a float32 array (n, {self.dim}), got {type(rows).__name__}")
        if rows.ndim != 2 or rows.shape[1] != self.dim or rows.dtype != np.float32:
            raise InputError(f"{what}: expected float32 (n, {self.dim}), got {rows.dtype} of shape {rows.shape}")
        return np.ascontiguousarray(rows)

    @staticmethod
    def _rows_of(now: Snapshot, ids: Collection[str]) -> dict[Segment, list[int]]:
        wanted, hashes = set(ids), hashes_of(ids)
        found = {segment: segment.rows_of(hashes, wanted) for segment in now.segments} if ids else {}
        return {segment: rows for segment, rows in found.items() if rows}

    def _without(self, now: Snapshot, old: Mapping[Segment, Sequence[int]]) -> list[SegmentEntry]:
        """The segments' entries, with these rows removed too."""
        entries = []
        for number, segment in enumerate(now.segments):
            entry = segment.entry
            if segment in old:
                gone: Mask = segment.gone.copy()
                gone[list(old[segment])] = True
                if gone.all():
                    continue
                file = write_removed(self.root, self._name(number + 1, "removed"), gone)
                entry = entry.model_copy(update={"removed": file, "removed_rows": int(gone.sum())})
            entries.append(entry)
        return entries

    @staticmethod
    def _tail(now: Snapshot, entries: Sequence[SegmentEntry], rows: int) -> int:
        """How many of the last segments are joined with new rows: those not much larger, so that many small changes
        neither leave many files nor write the same rows over and over.
        """
        count = 0
        for entry in reversed(entries):
            if entry.rows > 2 * rows or entry.rows + rows > MERGED:
                break
            count += 1
            rows += entry.rows
        return count

    def _name(self, offset: int, suffix: str) -> str:
        return f"{self._now.manifest.next_file:08d}-{offset}.{suffix}"

    def _commit(self, entries: tuple[SegmentEntry, ...]) -> None:
        """Makes these the gallery's segments, and removes files that are none of it."""
        before = self._now
        manifest = before.manifest.model_copy(
            update={
                "generation": before.manifest.generation + 1,
                "next_file": before.manifest.next_file + 1,
                "segments": entries,
            }
        )
        self._now = self._replaced_by(manifest)
        self._remove_strays()

    def _replaced_by(self, manifest: GalleryManifest) -> Snapshot:
        """Writes a manifest; what is there then."""
        known = {segment.entry: segment for segment in self._now.segments}
        try:
            after = Snapshot.of(self.root, manifest, known)
        except OSError as error:
            raise write_error(self.root, error) from error
        manifest.write(self.root)
        return after

    def _opened(self, now: Snapshot, entry: SegmentEntry) -> Segment:
        return next((one for one in now.segments if one.entry == entry), None) or Segment(
            self.root, entry, now.manifest.storage, self.dim
        )

    def take_over(self, other: DiskGallery) -> None:
        """Becomes what another gallery is, which was made in a folder on the same disk and is of no use afterwards: in
        one step, whatever its model, storage and number of rows.
        """
        with self._change() as now:
            entries = []
            for number, segment in enumerate(other.segments):
                segment.require_whole()
                name = self._name(number, "safetensors")
                rename(segment.path, self.root / name)
                file = segment.entry.file.model_copy(update={"path": name})
                entries.append(segment.entry.model_copy(update={"file": file}))
            synchronise_folder(self.root)
            manifest = other.manifest.model_copy(
                update={
                    "generation": now.manifest.generation + 1,
                    "next_file": now.manifest.next_file + 1,
                    "segments": tuple(entries),
                }
            )
            self._now = self._replaced_by(manifest)
            self._remove_strays()

    def _read(self) -> Snapshot:
        """As the folder has it. Another process may replace files while they are opened."""
        known = {one.entry: one for one in self._now.segments} if hasattr(self, "_now") else {}
        for attempt in range(ATTEMPTS):
            manifest = GalleryManifest.read(self.root)
            try:
                return Snapshot.of(self.root, manifest, known)
            except (OSError, InputError) as error:
                again = GalleryManifest.read(self.root) != manifest
                if not again or attempt == ATTEMPTS - 1:
                    reason = error if isinstance(error, InputError) else f"{error.filename}: {error.strerror}"
                    raise InputError(f"{self.root}: the gallery is damaged: {reason}") from error
        raise AssertionError

    def _change(self) -> _Change:
        return _Change(self)

    def _take_lock(self) -> None:
        try:
            self._lock = (self.root / LOCK).open("ab")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise InputError(
                f"{self.root}: this gallery is open for writing already, here or in another process: try again when it"
                " is closed"
            ) from None
        except OSError as error:
            raise write_error(self.root / LOCK, error) from error

    def _remove_strays(self) -> None:
        """Files of changes that were stopped, or of what was replaced. Readers that map them keep them."""
        ours = {file.path for file in self._now.manifest.files}
        with contextlib.suppress(OSError):  # what is in the way of removing them is in the way of nothing else
            for path in list(self.root.iterdir()):
                if (OURS.fullmatch(path.name) and path.name not in ours) or path.name == FILE + TEMPORARY:
                    path.unlink(missing_ok=True)


class _Change:
    """A change under way: nobody else makes one."""

    def __init__(self, gallery: DiskGallery) -> None:
        self.gallery = gallery

    def __enter__(self) -> Snapshot:
        gallery = self.gallery
        gallery._changing.acquire()
        try:
            self._check()
            if GalleryManifest.read(gallery.root) != gallery._now.manifest:  # a change of ours was interrupted
                gallery._now = gallery._read()
        except BaseException:
            gallery._changing.release()
            raise
        return gallery._now

    def _check(self) -> None:
        """InputError unless this process has the lock of the gallery that is there."""
        gallery = self.gallery
        if gallery._lock is None:
            raise InputError(f"{gallery.root}: opened to be read: open it with writable=True")
        if gallery._owner != os.getpid():
            raise InputError(f"{gallery.root}: opened by the process that this one was forked from: open it here")
        ours = os.fstat(gallery._lock.fileno())
        try:
            there = (gallery.root / LOCK).stat()
        except OSError:
            there = None
        if there is None or (ours.st_dev, ours.st_ino) != (there.st_dev, there.st_ino):
            raise InputError(f"{gallery.root}: was replaced since it was opened: open it again")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        gallery = self.gallery
        try:
            if kind is not None:  # what was written of the change has no place, unless it was the last step
                with contextlib.suppress(InputError):
                    gallery._now = gallery._read()
                    gallery._remove_strays()
        finally:
            gallery._changing.release()


def check_text(text: object, limit: int = ID_BYTES) -> None:
    """InputError unless it can be an id or a label."""
    if not isinstance(text, str):
        raise InputError(f"gallery: an id or a label is a text, got {type(text).__name__}")
    try:
        size = len(text.encode("utf-8"))
    except UnicodeEncodeError:
        raise InputError(f"gallery: {text!r:.200} is no text in UTF-8") from None
    if not 0 < size <= limit:
        raise InputError(f"gallery: an id or a label has 1 to {limit} bytes, got {size}")


def _json(value: Mapping[str, Any]) -> str:
    try:
        text = json.dumps(dict(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        parse_json(text.encode("utf-8"))  # as every reader will
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"gallery: metadata: {error}") from error
    if len(text.encode("utf-8")) > METADATA_BYTES:
        raise InputError(f"gallery: metadata: at most {METADATA_BYTES} bytes of JSON for a row")
    return text
