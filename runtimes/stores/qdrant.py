"""Qdrant (https://qdrant.tech): a collection for each gallery, on a server or in a folder of its client."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext
from threading import RLock
from typing import Any, TypeVar

import numpy as np
from qdrant_client import QdrantClient, models

from ..core.errors import InputError, RuntimeFailed
from ..gallery.identity import ModelIdentity
from ..gallery.snapshot import Match
from .address import MISSING, REGISTER, address_of, key_of
from .interface import NewRow, Rows, texts
from .registered import RegisteredStore

PAGE = 1000
STEP = 100  # points of a request, which servers take 32 MiB of
PORT = 6333
EXPECTED = "expected qdrant://HOST[:PORT][?collection=NAME&api_key=KEY] or qdrant:///FOLDER[?collection=NAME]"
WAIT_S = 15
Result = TypeVar("Result")


class QdrantStore(RegisteredStore):
    """A collection whose payload has id, label and metadata, and a point about it in `edgerecall_galleries`.

    url: `qdrant://HOST:6333` (`qdrants://` with TLS) or, for a folder of this machine, `qdrant:///PATH`; with
    `?collection=NAME` and `&api_key=KEY`. A folder is searched exactly, by one process at a time. Rows are written in
    steps, not all or none; of two processes that add one id at the same time the later wins.
    """

    def __init__(self, url: str, dim: int | None = None, model: ModelIdentity | None = None, command: str = "") -> None:
        address = address_of(url, PORT, ("api_key",), EXPECTED)
        self.collection, self.local, self.where = address.collection, address.host is None, address.told
        if self.local and dim is None and not (address.path / "meta.json").is_file():
            raise InputError(f"{self.where}: {MISSING}")
        self._one = RLock()
        try:
            if self.local:
                self._client = QdrantClient(path=str(address.path))
            else:
                self._client = QdrantClient(
                    url=f"{'https' if address.scheme == 'qdrants' else 'http'}://{address.place}",
                    api_key=address.options.get("api_key"),
                    timeout=WAIT_S,
                    check_compatibility=False,
                )
        except (RuntimeError, ValueError, OSError) as error:
            raise InputError(f"{self.where}: {str(error).splitlines()[0]:.300}") from error
        try:
            self._prepare(dim, model, command)
        except RuntimeFailed as error:
            self._client.close()
            raise InputError(str(error)) from error
        except BaseException:
            self._client.close()
            raise

    def _prepare(self, dim: int | None, model: ModelIdentity | None, command: str) -> None:
        points = []
        if self._call(self._client.collection_exists, REGISTER):
            points = self._call(self._client.retrieve, REGISTER, [key_of(self.collection)], with_payload=True)
        there = self._call(self._client.collection_exists, self.collection)
        about = self._settle((points[0].payload or {}) if points else None, there, dim, model, command)
        if not points:
            self._remember(about)
        if not there:  # or its making was interrupted
            vectors = models.VectorParams(size=about["dim"], distance=models.Distance.DOT)
            self._call(self._client.create_collection, self.collection, vectors_config=vectors)
        self._take(about)

    def _remember(self, payload: dict[str, Any]) -> None:
        if not self._call(self._client.collection_exists, REGISTER):
            vectors = models.VectorParams(size=1, distance=models.Distance.DOT)
            self._call(self._client.create_collection, REGISTER, vectors_config=vectors)
        one = models.PointStruct(id=key_of(self.collection), vector=[0.0], payload=payload)
        self._call(self._client.upsert, REGISTER, [one], wait=True)

    def _call(self, work: Callable[..., Result], *arguments: Any, **options: Any) -> Result:
        """RuntimeFailed, a line, for what goes wrong there."""
        try:
            with self._one if self.local else nullcontext():  # a folder's client is for one thread at a time
                return work(*arguments, **options)
        except Exception as error:
            lines = str(error).splitlines() or [type(error).__name__]
            raise RuntimeFailed(f"{self.where}: {lines[0]:.300}") from error

    def __len__(self) -> int:
        return int(self._call(self._client.count, self.collection, exact=True).count)

    def known(self, ids: Collection[str]) -> set[str]:
        wanted = [key_of(one) for one in texts(ids, "known: ids")]
        found = self._call(self._client.retrieve, self.collection, wanted, with_payload=["id"])
        return {str((one.payload or {})["id"]) for one in found}

    def _pages(self, **options: Any) -> list[Any]:
        found: list[Any] = []
        after = None
        while True:
            page, after = self._call(self._client.scroll, self.collection, limit=PAGE, offset=after, **options)
            found += page
            if after is None:
                return found

    def labels(self) -> set[str]:
        told = [one.payload["label"] for one in self._pages(with_payload=["label"])]
        return {label for label in told if label is not None}

    def remove(self, ids: Collection[str] = (), labels: Collection[str] = ()) -> int:
        ids, labels = texts(ids, "remove: ids"), texts(labels, "remove: labels")
        before = len(self)
        if ids:
            chosen = models.PointIdsList(points=[key_of(one) for one in ids])
            self._call(self._client.delete, self.collection, chosen, wait=True)
        if labels:
            self._call(self._client.delete, self.collection, models.FilterSelector(filter=of(labels)), wait=True)
        return before - len(self)

    def build_index(self) -> float:
        """Qdrant makes its own (HNSW) as rows come, and a folder has none: only the recall is measured."""
        self.index = None if self.local else "hnsw"
        self.recall = self.measured_recall()
        self._about |= {"index": self.index, "recall": self.recall}
        self._remember(self._about)
        return self.recall

    def _write(self, rows: Sequence[NewRow], replace: bool) -> int:
        replaced = self._replaced(rows, replace)
        points = [
            models.PointStruct(
                id=key_of(one.id),
                vector=one.embedding.tolist(),
                payload={"id": one.id, "label": one.label, "metadata": one.metadata},
            )
            for one in rows
        ]
        for start in range(0, len(points), STEP):
            self._call(self._client.upsert, self.collection, points[start : start + STEP], wait=True)
        return len(replaced)

    def _nearest(self, queries: Rows, k: int, labels: Collection[str] | None, exact: bool) -> list[list[Match]]:
        wanted = [
            models.QueryRequest(
                query=row.tolist(),
                limit=k,
                with_payload=True,
                filter=None if labels is None else of(texts(labels, "labels")),
                params=None if self.local else models.SearchParams(exact=exact),
            )
            for row in queries
        ]
        answers = self._call(self._client.query_batch_points, self.collection, wanted)
        return [[match(one) for one in answer.points] for answer in answers]

    def _sample(self, count: int) -> Rows:
        page, _ = self._call(self._client.scroll, self.collection, limit=count, with_vectors=True)
        found = [np.asarray(one.vector, np.float32) for one in page]
        return np.stack(found) if found else np.empty((0, self.dim), np.float32)

    def close(self) -> None:
        self._client.close()


def of(labels: Collection[str]) -> models.Filter:
    """Rows with one of these labels."""
    return models.Filter(must=[models.FieldCondition(key="label", match=models.MatchAny(any=list(labels)))])


def match(found: Any) -> Match:
    """What was found."""
    told = found.payload or {}
    return Match(told["id"], float(found.score), told["label"], told["metadata"])
