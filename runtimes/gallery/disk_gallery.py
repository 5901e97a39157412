"""A gallery in a folder: embeddings with ids, labels and metadata, searched exactly where they lie, or by an index.

A change writes new files, then replaces `gallery.json`: whatever stops it, the gallery is as before or as after. One
process writes at a time; any number read, each what was there when it opened or refreshed.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from threading import Lock, RLock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..approximate.faiss_index import FaissIndex
from ..bundle.bundle import Bundle
from ..core.errors import InputError
from ..core.files import write_error
from ..predictor.registry import tool_versions
from .durable import TEMPORARY, durable_file, make_folder, rename, synchronise_folder
from .identity import ModelIdentity, require_same
from .indexed import IndexedSearch, made_of, opened
from .lock import LOCK, WriteLock
from .manifest import FILE, MOST_ROWS, GalleryManifest, IndexEntry, SegmentEntry, Storage
from .new_rows import checked_limit, checked_rows, new_content, several
from .segment import Mask, Rows, Segment, described, joined, write_removed, write_segment
from .snapshot import Match, Snapshot

MERGED = 1 << 16  # rows of a segment, up to which it is joined with new ones
ATTEMPTS = 10  # to open while another process writes
OURS = re.compile(rf"\d{{8,}}-\d+\.(safetensors|removed|faiss)({re.escape(TEMPORARY)})?")


class DiskGallery:
    """A gallery on disk; use as a context manager, or close(). Thread-safe; a writer's changes are seen by its own
    searches at once, and by other processes when they `refresh`.

    InputError for what is no gallery, is damaged, or is being written by another process.
    """

    def __init__(self, root: str | Path, writable: bool = False, model: Bundle | ModelIdentity | None = None) -> None:
        self.root = Path(root)
        self._changing = RLock()
        self._lock: WriteLock | None = None
        self._opening = Lock()
        self._index: tuple[IndexEntry, FaissIndex] | None = None  # that was opened last
        self._indexed: tuple[Snapshot, IndexedSearch] | None = None  # and a snapshot's rows in it
        if writable:
            if not (self.root / FILE).is_file():
                GalleryManifest.read(self.root)  # says that there is none
            self._lock = WriteLock(self.root)
        try:
            self._now = read_snapshot(self.root, {})
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
        root = Path(root)
        if root.exists() and not (root.is_dir() and is_fresh(root)):
            raise InputError(f"{root} exists already: remove it or give another name")
        manifest = GalleryManifest(dim=dim, storage=storage, model=model, tools=tool_versions(), command=command)
        make_folder(root)
        lock = WriteLock(root)
        try:
            if not is_fresh(root):  # another process was faster
                raise InputError(f"{root} exists already: remove it or give another name")
            manifest.write(root)
        finally:
            lock.release()
        return cls(root, writable=True)

    def __len__(self) -> int:
        return self._now.manifest.rows

    def __enter__(self) -> DiskGallery:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets another process write."""
        with self._opening:
            self._index = self._indexed = None
        if self._lock is not None:
            self._lock.release()
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
        require_same(self.root, self._now.manifest.model, model)

    def refresh(self) -> bool:
        """Sees what other processes have changed since; whether there was anything."""
        with self._changing:
            found = self._read()
            changed = found.manifest != self._now.manifest
            if changed:
                self._now = found
                self._forget_index()
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
        exact: bool = False,
    ) -> list[list[Match]]:
        """The best k of each query, float32 `(n, dim)`, best first; fewer where there are no more. By the index where
        there is one, unless the search is to be `exact` or has labels or duplicate.

        labels: rows of these alone. min_similarity: none below it. duplicate: of rows whose embeddings are at least
        this similar, in cosine, to a better one of the same query, only that one is told.
        """
        queries = checked_rows(queries, self.dim, "queries")
        min_similarity = checked_limit(min_similarity, "min_similarity")
        duplicate = checked_limit(duplicate, "duplicate")
        now = self._now
        if duplicate is not None:
            return now.distinct(queries, k, threads, labels, min_similarity, duplicate)
        by_index = None if labels is not None or exact else self._by_index(now)
        if by_index is not None:
            rows, similarities = by_index.search(queries, k, threads)
        else:
            rows, similarities = now.search(queries, k, threads, labels, progress)
        return [now.told(*one, k, min_similarity, None) for one in zip(rows, similarities, strict=True)]

    def prepare(self, before: DiskGallery | None = None) -> None:
        """Opens the index, where there is one, which the first search would; or shares that of a gallery `before`,
        where it is the same. InputError where it is damaged.
        """
        if before is not None:
            self._index = before._index
        self._by_index(self._now)

    def _by_index(self, now: Snapshot) -> IndexedSearch | None:
        """A search by the snapshot's index, opened once; None without one, or where it has been replaced since."""
        entry = now.manifest.index
        if entry is None:
            return None
        with self._opening:
            if self._indexed is not None and self._indexed[0] is now:
                return self._indexed[1]
            if self._index is None or self._index[0].file != entry.file:
                try:
                    self._index = entry, opened(self.root, entry, self.dim)
                except InputError:
                    if GalleryManifest.read(self.root).index == entry:
                        raise
                    return None
            found = IndexedSearch.of(self.root, now, entry, self._index[1])
            self._indexed = now, found
        return found

    def _forget_index(self) -> None:
        """Frees what no search needs any longer."""
        with self._opening:
            self._indexed = None
            if self._index is not None and self._index[0] != self._now.manifest.index:
                self._index = None

    def search_rows(
        self, queries: Rows, k: int = 10, threads: int = 1, labels: Collection[str] | None = None
    ) -> tuple[NDArray[np.int64], Rows]:
        """As `search`, but numbers: rows by their place in this gallery as it is now, and similarities, both `(n, k)`;
        -1 and -inf where there are fewer. See `match`.
        """
        return self._now.search(checked_rows(queries, self.dim, "queries"), k, threads, labels)

    def match(self, row: int, similarity: float) -> Match:
        """What is known of a row that `search_rows` found, before any change."""
        return self._now.match(row, similarity)

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
        new = new_content(self.manifest.storage, self.dim, ids, embeddings, labels, metadata)
        with self._change() as now:
            if now.manifest.rows + len(ids) > MOST_ROWS:
                raise InputError(f"gallery: at most {MOST_ROWS} rows")
            old = now.rows_of(ids)
            if old and not replace:
                segment, row = next((one, rows[0]) for one, rows in old.items())
                raise InputError(f"gallery: id {segment.content.ids[row]!r:.200} is there already")
            if not len(ids):
                return 0
            entries = self._without(now, old)
            merged = self._tail(entries, len(ids))
            kept, tail = entries[: len(entries) - merged], entries[len(entries) - merged :]
            known = [self._opened(now, one) for one in tail]
            entry = write_segment(self.root, self._name(0, "safetensors"), joined(known, new))
            self._commit((*kept, entry))
        return sum(map(len, old.values()))

    def remove(self, ids: Collection[str] = (), labels: Collection[str] = ()) -> int:
        """Removes rows with one of these ids, or one of these labels. Returns how many there were."""
        several(ids, "remove: ids")
        several(labels, "remove: labels")
        with self._change() as now:
            old = now.rows_of(ids)
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

    def stored_rows(self) -> Iterator[tuple[Match, Rows]]:
        """Every row that is there, with its embedding as it is kept, float32 `(dim,)`."""
        now = self._now
        for segment, first in zip(now.segments, now.firsts.tolist(), strict=False):
            for row in np.flatnonzero(~segment.gone).tolist():
                yield now.match(first + row, 0.0), segment.floats(row)

    def known(self, ids: Collection[str]) -> set[str]:
        """Those of these ids that are there."""
        found = self._now.rows_of(ids)
        return {segment.content.ids[row] for segment, rows in found.items() for row in rows}

    def rows_with(self, ids: Collection[str]) -> dict[str, Match]:
        """What is known of those of these ids that are there; their similarity is 0."""
        now = self._now
        firsts = dict(zip(now.segments, now.firsts.tolist(), strict=False))
        found = [now.match(firsts[segment] + row, 0.0) for segment, rows in now.rows_of(ids).items() for row in rows]
        return {one.id: one for one in found}

    def compact(self) -> None:
        """All rows into one file, without those removed."""
        with self._change() as now:
            if len(now.segments) == 1 and now.segments[0].removed is None:
                return
            parts = [part for part in joined(now.segments, None) if len(part)]
            entries = (write_segment(self.root, self._name(0, "safetensors"), parts),) if parts else ()
            self._commit(entries)

    def build_index(self, kind: str, threads: int = 1, advance: Callable[[int], object] = lambda rows: None) -> float:
        """An index of all rows for approximate search, in place of the one there may be; its recall@10 against exact
        search, 0 to 1.

        kind: `faiss:IVF<lists>` or `faiss:HNSW<links>`. Rows that are added later are searched exactly beside it.
        InputError.
        """
        import faiss

        with self._change() as now:
            if not now.manifest.rows:
                raise InputError(f"{self.root}: has no rows of which an index could be made")
            index, recall = made_of(now, kind, threads, advance)
            name = self._name(0, "faiss")
            with durable_file(self.root / name) as stream:
                stream.write(index.to_bytes())
            entry = IndexEntry(
                file=described(self.root, self.root / name),
                kind=kind,
                segments=tuple(one.entry.file.path for one in now.segments),
                rows=tuple(map(len, now.segments)),
                effort=index.effort,
                recall=recall,
                version=faiss.__version__,
            )
            self._commit(now.manifest.segments, now.manifest.model_copy(update={"index": entry}))
        return recall

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
    def _tail(entries: Sequence[SegmentEntry], rows: int) -> int:
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

    def _commit(self, entries: tuple[SegmentEntry, ...], manifest: GalleryManifest | None = None) -> None:
        """Makes these the gallery's segments, and removes files that are none of it. manifest: what else it says; as it
        does by default.
        """
        before = self._now
        manifest = manifest or before.manifest
        index = manifest.index
        if index is not None and not {one.file.path for one in entries} & set(index.segments):
            index = None  # nothing of what it has is left
        manifest = manifest.model_copy(
            update={
                "index": index,
                "generation": before.manifest.generation + 1,
                "next_file": before.manifest.next_file + 1,
                "segments": entries,
            }
        )
        try:
            after = Snapshot.of(self.root, manifest, {segment.entry: segment for segment in before.segments})
        except OSError as error:
            raise write_error(self.root, error) from error
        manifest.write(self.root)
        self._now = after
        self._forget_index()
        self._remove_strays()

    def _opened(self, now: Snapshot, entry: SegmentEntry) -> Segment:
        return next((one for one in now.segments if one.entry == entry), None) or Segment(
            self.root, entry, now.manifest.storage, self.dim
        )

    def take_over(self, other: DiskGallery) -> None:
        """Becomes what another gallery is, which was made in a folder on the same disk and is of no use afterwards: in
        one step, whatever its model, storage and number of rows.
        """
        with self._change():
            entries = []
            for number, segment in enumerate(other.segments):
                segment.require_whole()
                name = self._name(number, "safetensors")
                rename(segment.path, self.root / name)
                file = segment.entry.file.model_copy(update={"path": name})
                entries.append(segment.entry.model_copy(update={"file": file}))
            synchronise_folder(self.root)
            self._commit(tuple(entries), other.manifest.model_copy(update={"index": None}))

    def _read(self) -> Snapshot:
        return read_snapshot(self.root, {one.entry: one for one in self._now.segments})

    @contextlib.contextmanager
    def _change(self) -> Iterator[Snapshot]:
        """A change under way: what is there before it. Nobody else makes one."""
        with self._changing:
            if self._lock is None:
                raise InputError(f"{self.root}: opened to be read: open it with writable=True")
            self._lock.require()
            if GalleryManifest.read(self.root) != self._now.manifest:  # a change of ours was interrupted
                self._now = self._read()
            try:
                yield self._now
            except BaseException:  # what was written of it has no place, unless it was the last step
                with contextlib.suppress(InputError):
                    self._now = self._read()
                    self._remove_strays()
                raise

    def _remove_strays(self) -> None:
        """Files of changes that were stopped, or of what was replaced. Readers that map them keep them."""
        ours = {file.path for file in self._now.manifest.files}
        with contextlib.suppress(OSError):  # what is in the way of removing them is in the way of nothing else
            for path in list(self.root.iterdir()):
                if (OURS.fullmatch(path.name) and path.name not in ours) or path.name == FILE + TEMPORARY:
                    path.unlink(missing_ok=True)


def is_fresh(root: Path) -> bool:
    """Whether a folder holds nothing but what an interrupted `create` leaves."""
    return {path.name for path in root.iterdir()} <= {LOCK, FILE + TEMPORARY}


def read_snapshot(root: Path, known: Mapping[SegmentEntry, Segment]) -> Snapshot:
    """A gallery as its folder has it; another process may replace files while they are opened. known: segments that are
    open already. InputError.
    """
    for attempt in range(ATTEMPTS):
        manifest = GalleryManifest.read(root)
        try:
            return Snapshot.of(root, manifest, known)
        except (OSError, InputError) as error:
            again = GalleryManifest.read(root) != manifest
            if not again or attempt == ATTEMPTS - 1:
                if isinstance(error, InputError):
                    raise
                raise InputError(f"{error.filename}: {error.strerror}: the gallery is damaged") from error
    raise AssertionError
