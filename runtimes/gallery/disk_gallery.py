"""A gallery in a folder: embeddings with ids, labels and metadata, searched exactly where they lie.

A change writes new files, then replaces `gallery.json`: whatever stops it, the gallery is as before or as after. One
process writes at a time; any number read, each what was there when it opened or refreshed.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import RLock
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from .._native import search_rows
from ..core.errors import InputError
from ..core.files import write_error
from ..predictor.registry import tool_versions
from .durable import TEMPORARY
from .identity import ModelIdentity, difference
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

    def __init__(self, root: str | Path, writable: bool = False) -> None:
        self.root = Path(root)
        self._lock: IO[bytes] | None = None
        self._changing = RLock()
        if writable:
            self._take_lock()
        try:
            self._now = self._read()
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
        root = Path(root)
        if root.exists() and (not root.is_dir() or any(root.iterdir())):
            raise InputError(f"{root} exists already: remove it or give another name")
        manifest = GalleryManifest(dim=dim, storage=storage, model=model, tools=tool_versions(), command=command)
        try:
            root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise write_error(root, error) from error
        manifest.write(root)
        return cls(root, writable=True)

    def __len__(self) -> int:
        return self._now.manifest.rows

    def __enter__(self) -> DiskGallery:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets another process write."""
        if self._lock is not None:
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

    def require_model(self, model: ModelIdentity) -> None:
        """InputError unless the gallery's embeddings come from this model."""
        ours = self._now.manifest.model
        if ours is not None and (why := difference(ours, model)):
            raise InputError(f"{self.root}: {why}; query by the model that it was built with, or build it anew")

    def refresh(self) -> bool:
        """Sees what other processes have changed since; whether there was anything."""
        with self._changing:
            found = self._read()
            changed = found.manifest.generation != self._now.manifest.generation
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
        now = self._now
        wanted = k if duplicate is None else min(k * OVERFETCH, max(len(self), 1))
        while True:
            rows, similarities = self._search(now, queries, wanted, threads, labels, progress)
            found = [
                self._told(now, *one, k, min_similarity, duplicate) for one in zip(rows, similarities, strict=True)
            ]
            if duplicate is None or wanted >= now.manifest.rows or all(len(one) == k for one in found):
                return found
            wanted = min(wanted * OVERFETCH, now.manifest.rows)

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
        if not 1 <= k <= MOST_ROWS:
            raise InputError(f"search: expected k of 1 or more, got {k}")
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
            known = [Segment(self.root, one, now.manifest.storage, self.dim) for one in tail]
            entry = write_segment(self.root, self._name(0, "safetensors"), joined(known, new))
            self._commit((*kept, entry))
        return sum(map(len, old.values()))

    def remove(self, ids: Collection[str] = (), labels: Collection[str] = ()) -> int:
        """Removes rows with one of these ids, or one of these labels. Returns how many there were."""
        with self._change() as now:
            old = self._rows_of(now, ids)
            for segment in now.segments if labels else ():
                found = np.flatnonzero(~segment.unlike(set(labels)) & ~segment.gone).tolist()
                old[segment] = sorted({*old.get(segment, []), *found})
            old = {segment: rows for segment, rows in old.items() if rows}
            if old:
                self._commit(tuple(self._without(now, old)))
        return sum(map(len, old.values()))

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
        for name, given in (("ids", ids), ("labels", labels), ("metadata", metadata)):
            if given is not None and len(given) != len(embeddings):
                raise InputError(f"gallery: {len(embeddings)} embeddings and {len(given)} {name}")
        if len(set(ids)) < len(ids):
            seen: set[str] = set()
            twice = next(one for one in ids if one in seen or seen.add(one))  # type: ignore[func-returns-value]
            raise InputError(f"gallery: id {twice!r:.200} is given twice")
        for text in (*ids, *(one for one in labels or () if one is not None)):
            _check_text(text, ID_BYTES)
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
        after = Snapshot.of(self.root, manifest, {segment.entry: segment for segment in before.segments})
        try:
            manifest.write(self.root)
        except InputError:
            self._now = self._read()  # it may have been written, and the disk failed after it
            raise
        self._now = after
        self._remove_strays()

    def _read(self) -> Snapshot:
        """As the folder has it. Another process may replace files while they are opened."""
        known = {one.entry: one for one in self._now.segments} if hasattr(self, "_now") else {}
        for attempt in range(ATTEMPTS):
            manifest = GalleryManifest.read(self.root)
            try:
                return Snapshot.of(self.root, manifest, known)
            except (OSError, InputError) as error:
                again = GalleryManifest.read(self.root).generation != manifest.generation
                if not again or attempt == ATTEMPTS - 1:
                    reason = error if isinstance(error, InputError) else f"{error.filename}: {error.strerror}"
                    raise InputError(f"{self.root}: the gallery is damaged: {reason}") from error
        raise AssertionError

    def _change(self) -> _Change:
        return _Change(self)

    def _take_lock(self) -> None:
        if not (self.root / FILE).is_file():
            GalleryManifest.read(self.root)  # says that there is none
        try:
            self._lock = (self.root / LOCK).open("ab")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise InputError(
                f"{self.root}: another process writes to this gallery: try again when it has ended"
            ) from None
        except OSError as error:
            raise write_error(self.root / LOCK, error) from error

    def _remove_strays(self) -> None:
        """Files of changes that were stopped, or of what was replaced. Readers that map them keep them."""
        ours = {file.path for file in self._now.manifest.files}
        for path in list(self.root.iterdir()):
            made = path.suffix in (".safetensors", ".removed", TEMPORARY) and path.name[:8].isdigit()
            if (made and path.name not in ours) or path.name == FILE + TEMPORARY:
                path.unlink(missing_ok=True)


class _Change:
    """A change under way: nobody else makes one."""

    def __init__(self, gallery: DiskGallery) -> None:
        self.gallery = gallery

    def __enter__(self) -> Snapshot:
        gallery = self.gallery
        gallery._changing.acquire()
        if gallery._lock is None:
            gallery._changing.release()
            raise InputError(f"{gallery.root}: opened to be read: open it with writable=True")
        return gallery._now

    def __exit__(self, *_: object) -> None:
        self.gallery._changing.release()


def _check_text(text: str, limit: int) -> None:
    try:
        size = len(text.encode("utf-8"))
    except UnicodeEncodeError:
        raise InputError(f"gallery: {text!r:.200} is no text in UTF-8") from None
    if not 0 < size <= limit:
        raise InputError(f"gallery: an id or a label has 1 to {limit} bytes, got {size}")


def _json(value: Mapping[str, Any]) -> str:
    try:
        text = json.dumps(dict(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        _check_text(text, METADATA_BYTES)
    except (TypeError, ValueError) as error:
        raise InputError(f"gallery: metadata: {error}") from error
    return text
