"""Some rows of a gallery in one file: embeddings, ids, labels and metadata. Written once, then mapped."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._native import StoredRows, to_int8
from ..core.errors import InputError
from ..core.files import sha256
from .durable import durable_file
from .manifest import PartFile, SegmentEntry, Storage
from .tensors import map_tensors, write_tensors
from .texts import Texts, hashes_of, packed

Rows = NDArray[np.float32]
Mask = NDArray[np.bool_]
UNLABELLED = -1
REST = 2.0**-16  # of a row's scale: a step of what its codes leave
ARRAYS = {"float32": "<f4", "float16": "<f2", "int8": "|i1", "binary": "<u8"}
WORD = 64  # signs in one number of a binary storage


@dataclass(frozen=True)
class Content:
    """Rows to be written, in memory or mapped. stored: what the storage keeps of the embeddings, by array name.

    labels: of each row, an index into `names` or -1. longest: no row is longer; longest_rest: nor is what int8's codes
    leave of any.
    """

    stored: dict[str, NDArray[Any]]
    ids: Texts
    hashes: NDArray[np.uint64]
    labels: NDArray[np.int32]
    names: Texts
    metadata: Texts | None
    longest: float
    longest_rest: float

    def __len__(self) -> int:
        return len(self.ids)


def content_of(
    storage: Storage, embeddings: Rows, ids: Sequence[str], labels: Sequence[str | None], metadata: Sequence[str] | None
) -> Content:
    """Embeddings, checked float32 `(n, dim)`, as a storage keeps them."""
    stored: dict[str, NDArray[Any]]
    longest_rest = 0.0
    kept = embeddings if storage != "float16" else embeddings.astype(np.float16).astype(np.float32)
    if storage == "int8":
        codes, scales, rest = to_int8(embeddings)
        stored = {"embeddings": codes, "scales": scales, "rest": rest}
        left = np.linalg.norm(rest * REST, axis=1) * scales
        longest_rest = float(left.max(initial=0)) * 1.00001
    elif storage == "binary":
        stored = {"embeddings": signs_of(embeddings)}
        kept = unit_signs(stored["embeddings"], embeddings.shape[1])
    else:
        stored = {"embeddings": embeddings.astype(ARRAYS[storage], copy=False)}
    names = sorted({label for label in labels if label is not None})
    numbers = {name: number for number, name in enumerate(names)}
    return Content(
        stored,
        packed(ids),
        hashes_of(ids),
        np.asarray([UNLABELLED if label is None else numbers[label] for label in labels], np.int32),
        packed(names),
        None if metadata is None else packed(metadata),
        float(max(np.linalg.norm(rows.astype(np.float64), axis=1).max(initial=0.0) for rows in (embeddings, kept))),
        longest_rest,
    )


def sign_words(dim: int) -> int:
    """Of a row's signs."""
    return -(-dim // WORD)


def signs_of(rows: Rows) -> NDArray[np.uint64]:
    """float32 `(n, dim)` -> `(n, words)`: bit i % 64 of word i // 64 is set where number i is more than 0."""
    bits = np.zeros((len(rows), sign_words(rows.shape[1]) * WORD), np.bool_)
    bits[:, : rows.shape[1]] = rows > 0
    return np.packbits(bits, axis=1, bitorder="little").view("<u8")


def unit_signs(signs: NDArray[np.uint64], dim: int) -> Rows:
    """What signs stand for, `(..., dim)` of length 1: their inner products are their cosines."""
    bits = np.unpackbits(signs.view(np.uint8), axis=-1, count=dim, bitorder="little")
    unit = np.float32(1 / dim**0.5)
    return np.where(bits, unit, -unit)


class Segment:
    """One that is there. entry: what the manifest says of it. Opening it reads the header alone."""

    def __init__(self, root: Path, entry: SegmentEntry, storage: Storage, dim: int) -> None:
        self.path, self.entry, self.storage, self.dim = root / entry.file.path, entry, storage, dim
        self.removed = None if entry.removed is None else _read_removed(root / entry.removed.path, entry.rows)
        size = self.path.stat().st_size
        if size != entry.file.bytes or not self.path.is_file():
            raise InputError(f"{self.path}: expected {entry.file.bytes} bytes, got {size}: the gallery is damaged")
        arrays, notes, self._bytes = map_tensors(self.path)
        self._hashed = False
        rows = entry.rows
        shapes: dict[str, tuple[str, tuple[int | None, ...]]] = {
            "embeddings": (ARRAYS[storage], (rows, sign_words(dim) if storage == "binary" else dim)),
            "id_offsets": ("<u8", (rows + 1,)),
            "id_hashes": ("<u8", (rows,)),
            "ids": ("|u1", (None,)),
            "labels": ("<i4", (rows,)),
            "label_names": ("|u1", (None,)),
            "label_offsets": ("<u8", (None,)),
        }
        if storage == "int8":
            shapes |= {"scales": ("<f4", (rows,)), "rest": ("<i2", (rows, dim))}
        if "metadata" in arrays:
            shapes |= {"metadata": ("|u1", (None,)), "metadata_offsets": ("<u8", (rows + 1,))}
        for name, (dtype, shape) in shapes.items():
            found = arrays.get(name)
            if found is None or found.dtype != dtype or not _fits(found.shape, shape):
                got = "none" if found is None else f"{found.dtype.str} of shape {found.shape}"
                raise InputError(f"{self.path}: expected {name}, {dtype} of shape {shape}, got {got}")
        longest, longest_rest = (self._length(notes, name) for name in ("longest", "longest_rest"))
        kept = ("embeddings", "scales", "rest")
        self.content = Content(
            {name: arrays[name] for name in kept if name in shapes},
            Texts(arrays["id_offsets"], arrays["ids"]),
            arrays["id_hashes"],
            arrays["labels"],
            Texts(arrays["label_offsets"], arrays["label_names"]),
            Texts(arrays["metadata_offsets"], arrays["metadata"]) if "metadata" in arrays else None,
            longest,
            longest_rest,
        )

    def _length(self, notes: dict[str, str], name: str) -> float:
        try:
            length = float(notes[name])
        except (KeyError, ValueError):
            length = -1.0
        if not 0 <= length < float("inf"):
            raise InputError(f"{self.path}: expected {name} in its metadata, a length: the gallery is damaged")
        return length

    def floats(self, rows: int | slice | NDArray[np.int64]) -> Rows:
        """Embeddings as they are kept, float32: `(dim,)` of a row, `(n, dim)` of several."""
        stored = self.content.stored
        if self.storage == "binary":
            return unit_signs(np.ascontiguousarray(stored["embeddings"][rows]), self.dim)
        found = stored["embeddings"][rows].astype(np.float32)
        if self.storage == "int8":
            found = (found + stored["rest"][rows] * np.float32(REST)) * stored["scales"][rows][..., None]
        return np.asarray(found, np.float32)

    def problem(self) -> str | None:
        """What is wrong with its files' bytes; None where they are those that were written."""
        if hashlib.sha256(self._bytes.data).hexdigest() != self.entry.file.sha256:
            return f"{self.entry.file.path}: its sha256 differs: it has changed since it was written"
        removed = self.entry.removed
        bits = b"" if self.removed is None else self.removed.tobytes()
        if removed is not None and hashlib.sha256(bits).hexdigest() != removed.sha256:
            return f"{removed.path}: its sha256 differs: it has changed since it was written"
        self._hashed = True
        return None

    def require_whole(self) -> None:
        """InputError unless `problem` finds none; it looks once."""
        if not self._hashed and (problem := self.problem()):
            raise InputError(f"{self.path.parent}: {problem}; build the gallery again")

    def __len__(self) -> int:
        return self.entry.rows

    @cached_property
    def gone(self) -> Mask:
        """Whether each row was removed, `(n,)`."""
        if self.removed is None:
            return np.zeros(len(self), np.bool_)
        return np.unpackbits(self.removed, count=len(self), bitorder="little").astype(np.bool_)

    def searched(self, also_excluded: Mask | None = None) -> StoredRows:
        """What a search goes over. also_excluded: rows that are not to be found, beside those removed."""
        excluded = self.removed
        if also_excluded is not None:
            excluded = np.packbits(self.gone | also_excluded, bitorder="little")
        stored = self.content.stored
        values, rest = stored["embeddings"], stored.get("rest")
        if self.storage == "float16":
            values = values.view(np.uint16)
        return StoredRows(
            self.storage,
            values,
            stored.get("scales"),
            rest,
            excluded,
            longest=self.content.longest,
            longest_rest=self.content.longest_rest,
            dim=self.dim,
        )

    def rows_of(self, hashes: NDArray[np.uint64], ids: set[str]) -> list[int]:
        """The rows there that have one of these ids."""
        found = np.flatnonzero(np.isin(self.content.hashes, hashes) & ~self.gone)
        return [int(row) for row in found if self.content.ids[int(row)] in ids]

    @cached_property
    def label_numbers(self) -> dict[str, int]:
        """Labels, and what stands for them here."""
        return {name: number for number, name in enumerate(self.content.names)}

    @property
    def used_labels(self) -> set[str]:
        """Those of rows that are there."""
        used = np.unique(self.content.labels[~self.gone])
        return {self.content.names[number] for number in used.tolist() if number >= 0}

    def unlike(self, labels: set[str]) -> Mask:
        """Rows without one of these labels, `(n,)`."""
        wanted = [self.label_numbers[name] for name in labels if name in self.label_numbers]
        return ~np.isin(self.content.labels, np.asarray(wanted, np.int32))


def _fits(shape: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    return len(shape) == len(wanted) and all(b in (None, a) for a, b in zip(shape, wanted, strict=True))


def _read_removed(path: Path, rows: int) -> NDArray[np.uint8]:
    size = path.stat().st_size
    if size != (rows + 7) // 8 or not path.is_file():
        raise InputError(
            f"{path}: expected {(rows + 7) // 8} bytes, a bit for each row, got {size}: the gallery is damaged"
        )
    return np.fromfile(path, np.uint8)


def joined(segments: Iterable[Segment], last: Content | None) -> list[Content]:
    """What is left of some segments, and new rows behind them, to be written as one. InputError for a segment that is
    not as it was written: what is wrong does not get a new hash.
    """
    parts = []
    for segment in segments:
        segment.require_whole()
        left = np.flatnonzero(~segment.gone)
        parts.append(segment.content if len(left) == len(segment) else _chosen(segment.content, left))
    return [*parts, *([last] if last is not None else [])]


def _chosen(content: Content, rows: NDArray[np.int64]) -> Content:
    texts = content.metadata
    return replace(
        content,
        stored={name: array[rows] for name, array in content.stored.items()},
        ids=packed(content.ids[row] for row in rows.tolist()),
        hashes=content.hashes[rows],
        labels=content.labels[rows],
        metadata=None if texts is None else packed(texts[row] for row in rows.tolist()),
    )


def write_segment(root: Path, name: str, parts: Sequence[Content]) -> SegmentEntry:
    """Rows as one new file of the gallery, which it becomes a part of by the manifest alone."""
    names = sorted({one for part in parts for one in part.names})
    numbers = {one: number for number, one in enumerate(names)}
    metadata = None
    if any(part.metadata is not None for part in parts):
        metadata = [packed([""] * len(part)) if part.metadata is None else part.metadata for part in parts]
    labels = packed(names)
    arrays = {
        **{key: [part.stored[key] for part in parts] for key in parts[0].stored},
        **_text_arrays("id_offsets", "ids", [part.ids for part in parts]),
        "id_hashes": [part.hashes for part in parts],
        "labels": [_renumbered(part, numbers) for part in parts],
        **_text_arrays("label_offsets", "label_names", [labels]),
        **(_text_arrays("metadata_offsets", "metadata", metadata) if metadata else {}),
    }
    path = root / name
    notes = {
        "format": "edgerecall gallery 1",
        "longest": repr(max(part.longest for part in parts)),
        "longest_rest": repr(max(part.longest_rest for part in parts)),
    }
    with durable_file(path) as stream:
        write_tensors(stream, arrays, notes)
    return SegmentEntry(file=described(root, path), rows=sum(map(len, parts)))


def _text_arrays(offsets: str, data: str, parts: Sequence[Texts]) -> dict[str, list[NDArray[Any]]]:
    begins: list[NDArray[Any]] = [np.zeros(1, np.uint64)]
    end = 0
    for part in parts:
        begins.append(part.offsets[1:] + np.uint64(end))
        end += len(part.data)
    return {offsets: begins, data: [part.data for part in parts]}


def _renumbered(part: Content, numbers: dict[str, int]) -> NDArray[np.int32]:
    if len(part) and not UNLABELLED <= part.labels.min() <= part.labels.max() < len(part.names):
        raise InputError(
            "the gallery is damaged: a row's label is none of those there: see 'edgerecall gallery verify'"
        )
    table = np.asarray([numbers[name] for name in part.names] + [UNLABELLED], np.int32)
    return table[part.labels]  # -1 takes the last


def write_removed(root: Path, name: str, gone: Mask) -> PartFile:
    """A bit for each row."""
    path = root / name
    with durable_file(path) as stream:
        stream.write(np.packbits(gone, bitorder="little").data)
    return described(root, path)


def described(root: Path, path: Path) -> PartFile:
    """Size and hash of a file that was just written."""
    return PartFile(path=path.relative_to(root).as_posix(), bytes=path.stat().st_size, sha256=sha256(path))
