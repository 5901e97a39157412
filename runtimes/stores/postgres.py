"""PostgreSQL with the extension pgvector (https://github.com/pgvector/pgvector): a table for each gallery."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import numpy as np
import psycopg
from pgvector import Vector
from pgvector.psycopg import register_vector
from psycopg import sql
from psycopg.types.json import Jsonb
from psycopg_pool import ConnectionPool, PoolTimeout

from ..core.errors import InputError, RuntimeFailed
from ..gallery.identity import ModelIdentity
from ..gallery.new_rows import several
from ..gallery.snapshot import Match
from .interface import NewRow, Rows, Store

TABLE = "products"
REGISTER = "edgerecall_galleries"
CONNECTIONS = 8
WAIT_S = 15.0
MOST_INDEXED = 2000  # numbers of an embedding, that pgvector's HNSW takes
LONGEST_LIST = 1000  # hnsw.ef_search, at most


class PostgresStore(Store):
    """A table `id, label, metadata, embedding`, which anybody may read, and a line about it in `edgerecall_galleries`.

    url: `postgresql://...`, with `table=NAME` among its options.
    """

    def __init__(self, url: str, dim: int | None = None, model: ModelIdentity | None = None, command: str = "") -> None:
        address, self.table = address_and_table(url)
        self.where = f"{without_password(address)}, table {self.table}"
        self._pool = ConnectionPool(
            address,
            min_size=1,
            max_size=CONNECTIONS,
            timeout=WAIT_S,
            open=False,
            kwargs={"connect_timeout": int(WAIT_S), "application_name": "edgerecall"},
            configure=configured,
            check=ConnectionPool.check_connection,
        )
        try:
            with psycopg.connect(address, connect_timeout=int(WAIT_S), autocommit=True) as first:
                self._prepare(first, dim, model, command)
            self._pool.open(wait=True, timeout=WAIT_S)
        except (psycopg.Error, PoolTimeout) as error:
            self._pool.close()
            raise InputError(f"{self.where}: {first_line(error)}") from error
        except BaseException:
            self._pool.close()
            raise

    def _prepare(
        self, connection: psycopg.Connection[Any], dim: int | None, model: ModelIdentity | None, command: str
    ) -> None:
        known = connection.execute("SELECT to_regclass(%s)", [REGISTER]).fetchone()
        if dim is not None and known == (None,):
            connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
            connection.execute(
                sql.SQL(
                    "CREATE TABLE IF NOT EXISTS {} (name text PRIMARY KEY, dim int NOT NULL, model jsonb, command text,"
                    " made timestamptz NOT NULL DEFAULT now(), index text, recall float8)"
                ).format(sql.Identifier(REGISTER))
            )
        elif known == (None,):
            raise InputError(f"{self.where}: expected a gallery, and there is none: make one by 'gallery push'")
        found = connection.execute(
            sql.SQL("SELECT dim, model, index, recall FROM {} WHERE name = %s").format(sql.Identifier(REGISTER)),
            [self.table],
        ).fetchone()
        if found is None:
            if dim is None:
                raise InputError(f"{self.where}: expected a gallery, and there is none: make one by 'gallery push'")
            self._create(connection, dim, model, command)
            found = (dim, None if model is None else model.model_dump(mode="json"), None, None)
        elif dim is not None and found[0] != dim:
            raise InputError(f"{self.where}: has embeddings of {found[0]} numbers, expected {dim}")
        self.dim, told, self.index, self.recall = found
        self.model = None if told is None else ModelIdentity.model_validate_json(json.dumps(told))

    def _create(self, connection: psycopg.Connection[Any], dim: int, model: ModelIdentity | None, command: str) -> None:
        with connection.transaction():
            connection.execute(
                sql.SQL(
                    "CREATE TABLE {} (id text PRIMARY KEY, label text, metadata jsonb, embedding vector({}) NOT NULL)"
                ).format(sql.Identifier(self.table), sql.Literal(dim))
            )
            connection.execute(sql.SQL("CREATE INDEX ON {} (label)").format(sql.Identifier(self.table)))
            connection.execute(
                sql.SQL("INSERT INTO {} (name, dim, model, command) VALUES (%s, %s, %s, %s)").format(
                    sql.Identifier(REGISTER)
                ),
                [self.table, dim, None if model is None else Jsonb(model.model_dump(mode="json")), command],
            )

    @contextmanager
    def _connection(self) -> Iterator[psycopg.Connection[Any]]:
        """A transaction. RuntimeFailed, a line, for what the database says."""
        try:
            with self._pool.connection() as connection:
                yield connection
        except (psycopg.Error, PoolTimeout) as error:
            raise RuntimeFailed(f"{self.where}: {first_line(error)}") from error

    def _sql(self, text: str) -> sql.Composed:
        return sql.SQL(text).format(sql.Identifier(self.table))

    def __len__(self) -> int:
        with self._connection() as connection:
            (count,) = connection.execute(self._sql("SELECT count(*) FROM {}")).fetchone() or (0,)
        return int(count)

    def known(self, ids: Collection[str]) -> set[str]:
        several(ids, "known: ids")
        usable = [one for one in ids if "\0" not in one]
        with self._connection() as connection:
            return {row[0] for row in connection.execute(self._sql("SELECT id FROM {} WHERE id = ANY(%s)"), [usable])}

    def labels(self) -> set[str]:
        with self._connection() as connection:
            found = connection.execute(self._sql("SELECT DISTINCT label FROM {} WHERE label IS NOT NULL"))
            return {row[0] for row in found}

    def remove(self, ids: Collection[str] = (), labels: Collection[str] = ()) -> int:
        several(ids, "remove: ids")
        several(labels, "remove: labels")
        with self._connection() as connection:
            done = connection.execute(
                self._sql("DELETE FROM {} WHERE id = ANY(%s) OR label = ANY(%s)"), [list(ids), list(labels)]
            )
            return done.rowcount

    def build_index(self) -> float:
        if self.dim > MOST_INDEXED:
            raise InputError(
                f"{self.where}: HNSW takes embeddings of at most {MOST_INDEXED} numbers, these have {self.dim}"
            )
        name = sql.Identifier(f"{self.table}_embedding_hnsw"[:63])
        with self._connection() as connection:
            connection.execute(sql.SQL("DROP INDEX IF EXISTS {}").format(name))
            connection.execute(
                sql.SQL("CREATE INDEX {} ON {} USING hnsw (embedding vector_ip_ops)").format(
                    name, sql.Identifier(self.table)
                )
            )
        self.index, self.recall = "hnsw", self.measured_recall()
        with self._connection() as connection:
            connection.execute(
                sql.SQL("UPDATE {} SET index = %s, recall = %s WHERE name = %s").format(sql.Identifier(REGISTER)),
                [self.index, self.recall, self.table],
            )
        return self.recall

    def _write(self, rows: Sequence[NewRow]) -> None:
        values = [(one.id, one.label, one.metadata and Jsonb(one.metadata), Vector(one.embedding)) for one in rows]
        with self._connection() as connection, connection.cursor() as cursor:
            cursor.executemany(
                self._sql(
                    "INSERT INTO {} (id, label, metadata, embedding) VALUES (%s, %s, %s, %s) ON CONFLICT (id) DO UPDATE"
                    " SET label = excluded.label, metadata = excluded.metadata, embedding = excluded.embedding"
                ),
                values,
            )

    def _nearest(self, queries: Rows, k: int, labels: Collection[str] | None, exact: bool) -> list[list[Match]]:
        where = "" if labels is None else " WHERE label = ANY(%(labels)s)"
        query = self._sql(
            "SELECT id, -(embedding <#> %(query)s), label, metadata FROM {}"
            + where
            + " ORDER BY embedding <#> %(query)s LIMIT %(k)s"
        )
        found = []
        with self._connection() as connection:
            if exact:
                connection.execute("SET LOCAL enable_indexscan = off")
            elif self.index is not None:
                connection.execute(f"SET LOCAL hnsw.ef_search = {min(max(2 * k, 64), LONGEST_LIST)}")
            for row in queries:
                given = {"query": Vector(row), "k": k, "labels": list(labels or ())}
                found.append([Match(*one) for one in connection.execute(query, given)])
        return found

    def _sample(self, count: int) -> Rows:
        with self._connection() as connection:
            rows = connection.execute(self._sql("SELECT embedding FROM {} ORDER BY md5(id) LIMIT %s"), [count])
            found = [
                np.asarray(row[0].to_numpy() if hasattr(row[0], "to_numpy") else row[0], np.float32) for row in rows
            ]
        return np.stack(found) if found else np.empty((0, self.dim), np.float32)

    def close(self) -> None:
        self._pool.close()


def configured(connection: psycopg.Connection[Any]) -> None:
    """A new connection, that knows vectors."""
    register_vector(connection)
    connection.commit()


def address_and_table(url: str) -> tuple[str, str]:
    """What the driver takes, and the gallery's table."""
    parts = urlsplit(url)
    options = parse_qsl(parts.query, keep_blank_values=True)
    tables = [value for name, value in options if name == "table"]
    if len(tables) > 1 or (tables and not (0 < len(tables[0].encode()) <= 48 and tables[0].isprintable())):
        raise InputError(f"table: expected one name of at most 48 bytes, got {tables!r:.120}")
    left = urlencode([(name, value) for name, value in options if name != "table"])
    return urlunsplit(parts._replace(query=left)), (tables or [TABLE])[0]


def without_password(address: str) -> str:
    """As it may be told."""
    parts = urlsplit(address)
    host = parts.netloc.rsplit("@", 1)
    user = host[0].split(":", 1)[0] + "@" if len(host) > 1 else ""
    shown = [(name, value) for name, value in parse_qsl(parts.query) if name != "password"]
    return urlunsplit(parts._replace(netloc=user + host[-1], query=urlencode(shown, safe="/")))


def first_line(error: Exception) -> str:
    """What a driver says, in a line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
