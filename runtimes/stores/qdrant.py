"""Qdrant (https://qdrant.tech): a collection for each gallery, on a server or in a folder of its client."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

import numpy as np
from qdrant_client import QdrantClient, models

from ..core.errors import InputError, RuntimeFailed
from ..gallery.identity import ModelIdentity
from ..gallery.new_rows import several
from ..gallery.snapshot import Match
from .interface import NewRow, Rows, Store

COLLECTION = "products"
REGISTER = "edgerecall_galleries"
SPACE = uuid.UUID("5f3a1b52-6c5e-4d0c-9d7e-3a1f1c9b2e10")  # of the points' names
PAGE = 1000
WAIT_S = 15
Result = TypeVar("Result")


class QdrantStore(Store):
    """A collection whose payload has id, label and metadata, and a point about it in `edgerecall_galleries`.

    url: `qdrant://HOST:6333` (`qdrants://` with TLS) or, for a folder of this machine, `qdrant:///PATH`; with
    `?collection=NAME` and `&api_key=KEY`. A folder is searched exactly, by one process at a time.
    """

    def __init__(self, url: str, dim: int | None = None, model: ModelIdentity | None = None, command: str = "") -> None:
        parts = urlsplit(url)
        options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        if unknown := sorted(set(options) - {"collection", "api_key"}):
            raise InputError(f"qdrant: expected collection and api_key, got {unknown[0]!r:.80}")
        self.collection = options.get("collection", COLLECTION)
        self.where = f"{parts.scheme}://{parts.netloc}{parts.path}, collection {self.collection}"
        self.local = not parts.netloc
        if self.local and len(parts.path) < 2:
            raise InputError(f"qdrant: expected a host or a folder, got {url!r:.80}")
        try:
            self._client = (
                QdrantClient(path=parts.path)
                if self.local
                else QdrantClient(
                    url=f"{'https' if parts.scheme == 'qdrants' else 'http'}://{parts.netloc}",
                    api_key=options.get("api_key"),
                    timeout=WAIT_S,
                )
            )
        except (RuntimeError, ValueError, OSError) as error:
            raise InputError(f"{self.where}: {str(error).splitlines()[0]:.300}") from error
        try:
            self._prepare(dim, model, command)
        except BaseException:
            self._client.close()
            raise

    def _prepare(self, dim: int | None, model: ModelIdentity | None, command: str) -> None:
        if self._call(self._client.collection_exists, REGISTER):
            points = self._call(self._client.retrieve, REGISTER, [point(self.collection)], with_payload=True)
        else:
            points = []
        if not points:
            if dim is None:
                raise InputError(f"{self.where}: expected a gallery, and there is none: make one by 'gallery push'")
            told = None if model is None else model.model_dump(mode="json")
            payload: dict[str, Any] = {"dim": dim, "model": told, "command": command, "index": None, "recall": None}
            vectors = models.VectorParams(size=dim, distance=models.Distance.DOT)
            self._call(self._client.create_collection, self.collection, vectors_config=vectors)
            self._remember(payload)
        else:
            payload = points[0].payload or {}
        if dim is not None and payload["dim"] != dim:
            raise InputError(f"{self.where}: has embeddings of {payload['dim']} numbers, expected {dim}")
        self._about = payload
        self.dim, self.index, self.recall = payload["dim"], payload["index"], payload["recall"]
        self.model = (
            None if payload["model"] is None else ModelIdentity.model_validate_json(json.dumps(payload["model"]))
        )

    def _remember(self, payload: dict[str, Any]) -> None:
        if not self._call(self._client.collection_exists, REGISTER):
            vectors = models.VectorParams(size=1, distance=models.Distance.DOT)
            self._call(self._client.create_collection, REGISTER, vectors_config=vectors)
        one = models.PointStruct(id=point(self.collection), vector=[0.0], payload=payload)
        self._call(self._client.upsert, REGISTER, [one], wait=True)

    def _call(self, work: Callable[..., Result], *arguments: Any, **options: Any) -> Result:
        """RuntimeFailed, a line, for what goes wrong there."""
        try:
            return work(*arguments, **options)
        except Exception as error:
            lines = str(error).splitlines() or [type(error).__name__]
            raise RuntimeFailed(f"{self.where}: {lines[0]:.300}") from error

    def __len__(self) -> int:
        return int(self._call(self._client.count, self.collection, exact=True).count)

    def known(self, ids: Collection[str]) -> set[str]:
        several(ids, "known: ids")
        found = self._call(self._client.retrieve, self.collection, [point(one) for one in ids], with_payload=["id"])
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
        several(ids, "remove: ids")
        several(labels, "remove: labels")
        before = len(self)
        if ids:
            chosen = models.PointIdsList(points=[point(one) for one in ids])
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

    def _write(self, rows: Sequence[NewRow]) -> None:
        points = [
            models.PointStruct(
                id=point(one.id),
                vector=one.embedding.tolist(),
                payload={"id": one.id, "label": one.label, "metadata": one.metadata},
            )
            for one in rows
        ]
        self._call(self._client.upsert, self.collection, points, wait=True)

    def _nearest(self, queries: Rows, k: int, labels: Collection[str] | None, exact: bool) -> list[list[Match]]:
        wanted = [
            models.QueryRequest(
                query=row.tolist(),
                limit=k,
                with_payload=True,
                filter=None if labels is None else of(labels),
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


def point(name: str) -> str:
    """A row's point: Qdrant's are numbers or UUIDs."""
    return str(uuid.uuid5(SPACE, name))


def of(labels: Collection[str]) -> models.Filter:
    """Rows with one of these labels."""
    return models.Filter(must=[models.FieldCondition(key="label", match=models.MatchAny(any=list(labels)))])


def match(found: Any) -> Match:
    """What was found."""
    told = found.payload or {}
    return Match(told["id"], float(found.score), told["label"], told["metadata"])
