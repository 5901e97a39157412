"""What may be added to a gallery: every id, label, embedding and metadata is looked at before it is written."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np

from ..core.errors import InputError
from ..core.json_text import parse_json
from .manifest import Storage
from .segment import Content, Rows, content_of

ID_BYTES = 4096  # of an id or a label, at most
METADATA_BYTES = 1 << 16
LARGEST_FLOAT16 = 65504.0
LARGEST_FLOAT32 = float(np.finfo(np.float32).max)


def checked_rows(rows: Rows, dim: int, what: str) -> Rows:
    """Rows as they must be, float32 `(n, dim)`, C-contiguous. InputError."""
    if not isinstance(rows, np.ndarray):
        raise InputError(f"{what}: expected a float32 array (n, {dim}), got {type(rows).__name__}")
    if rows.ndim != 2 or rows.shape[1] != dim or rows.dtype != np.float32:
        raise InputError(f"{what}: expected float32 (n, {dim}), got {rows.dtype} of shape {rows.shape}")
    return np.ascontiguousarray(rows)


def checked_limit(value: object, what: str) -> float | None:
    """A limit of similarities, rounded to float32 as these are. InputError for what is no number."""
    if value is None:
        return None
    try:
        limit = np.float64(value if isinstance(value, Real) else np.nan)
    except OverflowError:
        limit = np.float64(np.nan)
    if np.isnan(limit):
        raise InputError(f"search: {what}: expected a number, got {value!r:.40}")
    return float(np.float32(np.clip(limit, -LARGEST_FLOAT32, LARGEST_FLOAT32)))


def several(texts: object, what: str) -> None:
    """InputError for one text where several are expected: it would be taken for its letters."""
    if isinstance(texts, str):
        raise InputError(f"{what}: expected several texts, got one: put it into a list")


def new_content(
    storage: Storage,
    dim: int,
    ids: Sequence[str],
    embeddings: Rows,
    labels: Sequence[str | None] | None,
    metadata: Sequence[Mapping[str, Any] | None] | None,
) -> Content:
    """Rows that can be written. InputError for those that a gallery cannot hold."""
    embeddings, told = checked_new(storage, dim, ids, embeddings, labels, metadata)
    return content_of(storage, embeddings, ids, labels or [None] * len(ids), told)


def checked_new(
    storage: Storage,
    dim: int,
    ids: Sequence[str],
    embeddings: Rows,
    labels: Sequence[str | None] | None,
    metadata: Sequence[Mapping[str, Any] | None] | None,
) -> tuple[Rows, list[str] | None]:
    """New rows' embeddings and metadata as JSON, None where no row has any. InputError for what no gallery can hold."""
    embeddings = checked_rows(embeddings, dim, "embeddings")
    several(ids, "gallery: ids")
    several(labels, "gallery: labels")
    for name, given in (("ids", ids), ("labels", labels), ("metadata", metadata)):
        if given is not None and len(given) != len(embeddings):
            raise InputError(f"gallery: {len(embeddings)} embeddings and {len(given)} {name}")
    for text in (*ids, *(one for one in labels or () if one is not None)):
        check_text(text)
    if len(set(ids)) < len(ids):
        seen: set[str] = set()
        twice = next(one for one in ids if one in seen or seen.add(one))  # type: ignore[func-returns-value]
        raise InputError(f"gallery: id {twice!r:.200} is given twice")
    bad = np.flatnonzero(~np.isfinite(embeddings).all(axis=1))
    if not len(bad) and storage == "float16":
        bad = np.flatnonzero(np.abs(embeddings).max(axis=1, initial=0) > LARGEST_FLOAT16)
    if len(bad):
        limit = "" if storage != "float16" else f", or beyond float16's {LARGEST_FLOAT16:.0f}"
        raise InputError(f"gallery: the embedding of {ids[bad[0]]!r:.200} is not finite{limit}")
    told = None
    if metadata is not None and any(metadata):
        told = ["" if not one else as_json(one) for one in metadata]
    return embeddings, told


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


def as_json(value: Mapping[str, Any]) -> str:
    """Metadata as they are written. InputError for what is no JSON object, or too large."""
    try:
        text = json.dumps(dict(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        parse_json(text.encode("utf-8"))  # as every reader will
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"gallery: metadata: {error}") from error
    if len(text.encode("utf-8")) > METADATA_BYTES:
        raise InputError(f"gallery: metadata: at most {METADATA_BYTES} bytes of JSON for a row")
    return text
