"""Milvus (https://milvus.io): a collection for each gallery, on a server or in a folder of Milvus Lite."""

from __future__ import annotations

import itertools
import json
import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from threading import Lock, RLock
from typing import Any, TypeVar

import numpy as np
from pymilvus import DataType, MilvusClient

from ..core.errors import InputError, RuntimeFailed
from ..gallery.identity import ModelIdentity
from ..gallery.snapshot import Match
from .address import MISSING, REGISTER, address_of, key_of
from .interface import NewRow, Rows, texts
from .registered import RegisteredStore

PORT = 19530
DIMS = 2, 32_768
EXPECTED = (
    "expected milvus://HOST[:PORT][?collection=NAME&database=NAME&token=TOKEN] or milvus:///FOLDER.db[?collection=NAME]"
)
KEY = 36  # characters of a UUID
NO_LABEL = ""
ABOUT_DIM = 2  # of a vector that nobody searches for: a collection needs one
STEP = 100  # rows of a request, whose size servers bound
PAGE = 1000
PART = 8000  # rows of which keys begin alike, about
FOUND = 16_384  # rows of an answer, at most
WAIT_S = 15
Result = TypeVar("Result")

logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # it logs what it raises, with where in its code


class MilvusStore(RegisteredStore):
    """A collection of rows by a key, with id, label and metadata as JSON, and a row about it in
    `edgerecall_galleries`.

    url: `milvus://HOST:19530` (`milvuss://` with TLS) or, for a folder of this machine, `milvus:///PATH.db`; with
    `?collection=NAME`, `&database=NAME` and `&token=TOKEN`. Searched exactly (index FLAT). A folder is for one process
    at a time, in which its library listens on a free port of 127.0.0.1 without asking who calls. Rows are written in
    steps, not all or none; of two processes that add one id at once the later wins.
    """

    _one: Any = None  # of a file

    def __init__(self, url: str, dim: int | None = None, model: ModelIdentity | None = None, command: str = "") -> None:
        address = address_of(url, PORT, ("token", "database"), EXPECTED)
        self.collection, self.where = address.collection, address.told
        if not (self.collection.isascii() and self.collection.isidentifier()):
            raise InputError(f"collection: expected letters, digits and _, got {self.collection!r:.100}")
        self._file = None if address.host else str(address.path.resolve())
        if self._file is not None and not self._file.endswith(".db"):
            raise InputError(EXPECTED)
        if self._file is not None and dim is None and not (Path(self._file) / "collections").is_dir():
            raise InputError(f"{self.where}: {MISSING}")
        if dim is not None and not DIMS[0] <= dim <= DIMS[1]:
            raise InputError(f"{self.where}: holds embeddings of {DIMS[0]} to {DIMS[1]} numbers, expected {dim}")
        scheme = "https" if address.scheme == "milvuss" else "http"
        place = f"{scheme}://{address.place}"
        direct: dict[str, Any] = {}
        if self._file is not None:
            place, self._one = _opened(self._file, self.where), ONES.setdefault(self._file, RLock())
            direct = {"grpc_options": {"grpc.enable_http_proxy": 0}}  # to a server of this process
        try:
            self._client = self._call(
                MilvusClient,
                place,
                token=address.options.get("token", ""),
                db_name=address.options.get("database", ""),
                dedicated=True,  # else `close` leaves the connection
                **direct,
            )
            self._prepare(dim, model, command)
        except BaseException as error:
            self.close()
            if isinstance(error, RuntimeFailed):
                raise InputError(str(error)) from error
            raise

    def _prepare(self, dim: int | None, model: ModelIdentity | None, command: str) -> None:
        told = None
        if self._call(self._client.has_collection, REGISTER):
            self._call(self._client.load_collection, REGISTER)
            told = next(self._rows(REGISTER, [key_of(self.collection)], ["told"]), None)
        there = self._call(self._client.has_collection, self.collection)
        about = self._settle(None if told is None else told["told"], there, dim, model, command)
        if told is None:
            self._remember(about)
        if not there:  # or its making was interrupted
            try:
                self._create(self.collection, about["dim"])
            except RuntimeFailed:
                if told is None:  # what is told of has to be there
                    self._call(self._client.delete, REGISTER, ids=[key_of(self.collection)])
                raise
        elif not self._call(self._client.list_indexes, self.collection):
            self._call(self._client.create_index, self.collection, _index())
        self._call(self._client.load_collection, self.collection)
        self._take(about)

    def _create(self, name: str, dim: int) -> None:
        schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("key", DataType.VARCHAR, is_primary=True, max_length=KEY)
        schema.add_field("label_key", DataType.VARCHAR, max_length=KEY)
        schema.add_field("told", DataType.JSON)
        schema.add_field("embedding", DataType.FLOAT_VECTOR, dim=dim)
        options = {"schema": schema, "index_params": _index(), "consistency_level": "Strong"}  # a write is seen at once
        self._call(self._client.create_collection, name, **options)

    def _remember(self, about: dict[str, Any]) -> None:
        if not self._call(self._client.has_collection, REGISTER):
            self._create(REGISTER, ABOUT_DIM)
        row = {"key": key_of(self.collection), "label_key": NO_LABEL, "told": about, "embedding": [0.0] * ABOUT_DIM}
        self._call(self._client.upsert, REGISTER, [row])

    def _call(self, work: Callable[..., Result], *arguments: Any, **options: Any) -> Result:
        """RuntimeFailed, a line, for what goes wrong there."""
        try:
            with self._one or nullcontext():  # a file takes one at a time
                return work(*arguments, timeout=WAIT_S, **options)
        except Exception as error:
            lines = str(getattr(error, "message", error)).splitlines() or [type(error).__name__]
            raise RuntimeFailed(f"{self.where}: {lines[0]:.300}") from error

    def _rows(self, collection: str, keys: Sequence[str], fields: list[str]) -> Iterator[dict[str, Any]]:
        for start in range(0, len(keys), PAGE):
            wanted = keys[start : start + PAGE]
            yield from self._call(self._client.get, collection, ids=wanted, output_fields=fields)

    def __len__(self) -> int:
        (told,) = self._call(self._client.query, self.collection, filter="", output_fields=["count(*)"])
        return int(told["count(*)"])

    def known(self, ids: Collection[str]) -> set[str]:
        keys = [key_of(one) for one in texts(ids, "known: ids")]
        return {str(row["told"]["id"]) for row in self._rows(self.collection, keys, ["told"])}

    def labels(self) -> set[str]:
        rows = len(self)
        digits = next(count for count in itertools.count() if rows <= 16**count * PART)
        found: set[str | None] = set()
        for start in itertools.product("0123456789abcdef", repeat=digits):  # an answer has `FOUND` rows at most
            keys = f'key like "{"".join(start)}%"'
            page = self._call(self._client.query, self.collection, filter=keys, limit=FOUND, output_fields=["told"])
            found.update(row["told"]["label"] for row in page)
        return {label for label in found if label is not None}

    def remove(self, ids: Collection[str] = (), labels: Collection[str] = ()) -> int:
        keys = [key_of(one) for one in texts(ids, "remove: ids")]
        chosen = texts(labels, "remove: labels")
        before = len(self)
        for start in range(0, len(keys), PAGE):
            self._call(self._client.delete, self.collection, ids=keys[start : start + PAGE])
        if chosen:
            self._call(self._client.delete, self.collection, filter=of(chosen))
        return before - len(self)

    def build_index(self) -> float:
        """Searches are exact: what is measured is that they are."""
        self.recall = self.measured_recall()
        self._about |= {"recall": self.recall}
        self._remember(self._about)
        return self.recall

    def _write(self, rows: Sequence[NewRow], replace: bool) -> int:
        replaced = self._replaced(rows, replace)
        given = [
            {
                "key": key_of(one.id),
                "label_key": NO_LABEL if one.label is None else key_of(one.label),
                "told": {"id": one.id, "label": one.label, "metadata": one.metadata},
                "embedding": one.embedding,
            }
            for one in rows
        ]
        for start in range(0, len(given), STEP):
            self._call(self._client.upsert, self.collection, given[start : start + STEP])
        return len(replaced)

    def _nearest(self, queries: Rows, k: int, labels: Collection[str] | None, exact: bool) -> list[list[Match]]:
        chosen = None if labels is None else texts(labels, "labels")
        if chosen is not None and not chosen:
            return [[] for _ in queries]
        options = {"limit": k, "output_fields": ["told"], "filter": "" if chosen is None else of(chosen)}
        at_once = max(FOUND // k, 1)
        found: list[list[Match]] = []
        for start in range(0, len(queries), at_once):
            part = list(queries[start : start + at_once])
            answers = self._call(self._client.search, self.collection, data=part, **options)
            found += [[match(one) for one in answer] for answer in answers]
        return found

    def _sample(self, count: int) -> Rows:
        page = self._call(self._client.query, self.collection, filter="", limit=count, output_fields=["embedding"])
        found = [np.asarray(one["embedding"], np.float32) for one in page]
        return np.stack(found) if found else np.empty((0, self.dim), np.float32)

    def close(self) -> None:
        if (client := getattr(self, "_client", None)) is not None:
            client.close()
        if self._file is not None:
            _left(self._file)
            self._file = None


def of(labels: Collection[str]) -> str:
    """Rows with one of these labels, in Milvus' words."""
    return f"label_key in {json.dumps([key_of(one) for one in labels])}"


def match(found: Any) -> Match:
    """What was found."""
    told = found["entity"]["told"]
    return Match(told["id"], float(found["distance"]), told["label"], told["metadata"])


def _index() -> Any:
    """All rows are compared."""
    indexes = MilvusClient.prepare_index_params()
    indexes.add_index("embedding", index_type="FLAT", metric_type="IP")
    return indexes


USERS: Counter[str] = Counter()  # of each file here, which has one server in this process
ONES: dict[str, Any] = {}  # and one lock
GUARD = Lock()


def _opened(file: str, where: str) -> str:
    """The address of a file's server. InputError where another process has it."""
    from milvus_lite.server_manager import server_manager_instance

    logging.getLogger("milvus_lite").setLevel(logging.CRITICAL)
    with GUARD:
        address = server_manager_instance.start_and_get_uri(file)
        if address is None:
            raise InputError(f"{where}: cannot be opened: is another process at it, or is it something else?")
        USERS[file] += 1
        return str(address)


def _left(file: str) -> None:
    from milvus_lite.server_manager import server_manager_instance

    with GUARD:
        USERS[file] -= 1
        if not USERS[file]:
            server_manager_instance.release_server(file)
