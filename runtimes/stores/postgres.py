"""PostgreSQL with the extension pgvector (https://github.com/pgvector/pgvector): a table for each gallery."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote

import numpy as np
import psycopg
from pgvector import Vector
from pgvector.psycopg import register_vector
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from psycopg.types.json import Jsonb
from psycopg_pool import ConnectionPool, PoolTimeout

from ..core.errors import InputError, RuntimeFailed
from ..gallery.identity import ModelIdentity
from ..gallery.snapshot import Match
from .interface import IsThere, NewRow, Rows, Store, texts

TABLE = "products"
REGISTER = "edgerecall_galleries"
CONNECTIONS = 8
WAIT_S = 15.0
STATEMENT_S = 60.0  # that anything but the making of an index may take
OPTIONS: dict[str, Any] = {
    "connect_timeout": int(WAIT_S),
    "application_name": "edgerecall",
    "client_encoding": "utf8",
    "tcp_user_timeout": 1000 * int(WAIT_S),
}
EXPECTED = "expected postgresql://[USER@]HOST[:PORT]/DATABASE[?table=NAME], a password in it percent-encoded"
CREATING = 0x6564676572  # the lock of whoever makes a gallery
MOST_INDEXED = 2000  # numbers of an embedding, that pgvector's HNSW takes
LONGEST_LIST = 1000  # hnsw.ef_search, at most


EXACT = "SET LOCAL enable_indexscan = off"


class PostgresStore(Store):
    """A table `id, label, metadata, embedding`, which anybody may read, and a line about it in `edgerecall_galleries`.

    url: `postgresql://...`, with `table=NAME` among its options.
    """

    def __init__(self, url: str, dim: int | None = None, model: ModelIdentity | None = None, command: str = "") -> None:
        address, self.table = address_and_table(url)
        self.where = f"{told_address(address)}, table {self.table}"
        self._pool = ConnectionPool(
            address,
            min_size=1,
            max_size=CONNECTIONS,
            timeout=WAIT_S,
            open=False,
            kwargs=OPTIONS,
            configure=configured,
            check=ConnectionPool.check_connection,
        )
        try:
            with psycopg.connect(address, autocommit=True, **OPTIONS) as first:
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
        if connection.execute("SHOW server_encoding").fetchone() == ("SQL_ASCII",):
            raise InputError(f"{self.where}: its encoding is SQL_ASCII, which keeps bytes and no text: use UTF8")
        with connection.transaction():
            if dim is not None:
                connection.execute("SELECT pg_advisory_xact_lock(%s)", [CREATING])
            found = self._registered(connection)
            if found is None and dim is not None:
                self._create(connection, dim, model, command)
                found = self._registered(connection)
        if found is None:
            raise InputError(f"{self.where}: expected a gallery, and there is none: make one by 'gallery push'")
        self.dim, told, self.index, self.recall = found
        if dim is not None and self.dim != dim:
            raise InputError(f"{self.where}: has embeddings of {self.dim} numbers, expected {dim}")
        self.model = None if told is None else ModelIdentity.model_validate_json(json.dumps(told))

    def _registered(self, connection: psycopg.Connection[Any]) -> tuple[Any, ...] | None:
        """What is known of the gallery; None without its table."""
        names = [sql.Identifier(name).as_string(connection) for name in (REGISTER, self.table)]
        there = connection.execute("SELECT to_regclass(%s), to_regclass(%s)", names).fetchone() or (None, None)
        if None in there:
            return None
        return connection.execute(
            sql.SQL("SELECT dim, model, index, recall FROM {} WHERE name = %s").format(sql.Identifier(REGISTER)),
            [self.table],
        ).fetchone()

    def _create(self, connection: psycopg.Connection[Any], dim: int, model: ModelIdentity | None, command: str) -> None:
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        connection.execute(
            sql.SQL(
                "CREATE TABLE IF NOT EXISTS {} (name text PRIMARY KEY, dim int NOT NULL, model jsonb, command text,"
                " made timestamptz NOT NULL DEFAULT now(), index text, recall float8)"
            ).format(sql.Identifier(REGISTER))
        )
        connection.execute(
            sql.SQL(
                "CREATE TABLE {} (id text PRIMARY KEY, label text, metadata jsonb, embedding vector({}) NOT NULL)"
            ).format(sql.Identifier(self.table), sql.Literal(dim))
        )
        connection.execute(sql.SQL("CREATE INDEX ON {} (label)").format(sql.Identifier(self.table)))
        told = None if model is None else Jsonb(model.model_dump(mode="json"))
        connection.execute(
            sql.SQL(
                "INSERT INTO {} (name, dim, model, command) VALUES (%s, %s, %s, %s) ON CONFLICT (name) DO UPDATE SET"
                " dim = excluded.dim, model = excluded.model, command = excluded.command, index = NULL, recall = NULL"
            ).format(sql.Identifier(REGISTER)),
            [self.table, dim, told, command],
        )

    @contextmanager
    def _connection(self) -> Iterator[psycopg.Connection[Any]]:
        """A transaction. RuntimeFailed, a line, for what the database says."""
        try:
            with self._pool.connection() as connection:
                yield connection
        except (psycopg.Error, PoolTimeout, UnicodeError) as error:
            raise RuntimeFailed(f"{self.where}: {first_line(error)}") from error

    def _sql(self, text: str) -> sql.Composed:
        return sql.SQL(text).format(sql.Identifier(self.table))

    def __len__(self) -> int:
        with self._connection() as connection:
            (count,) = connection.execute(self._sql("SELECT count(*) FROM {}")).fetchone() or (0,)
        return int(count)

    def known(self, ids: Collection[str]) -> set[str]:
        usable = texts(ids, "known: ids")
        with self._connection() as connection:
            return {row[0] for row in connection.execute(self._sql("SELECT id FROM {} WHERE id = ANY(%s)"), [usable])}

    def labels(self) -> set[str]:
        with self._connection() as connection:
            found = connection.execute(self._sql("SELECT DISTINCT label FROM {} WHERE label IS NOT NULL"))
            return {row[0] for row in found}

    def remove(self, ids: Collection[str] = (), labels: Collection[str] = ()) -> int:
        given = [texts(ids, "remove: ids"), texts(labels, "remove: labels")]
        with self._connection() as connection:
            done = connection.execute(self._sql("DELETE FROM {} WHERE id = ANY(%s) OR label = ANY(%s)"), given)
            return done.rowcount

    def build_index(self) -> float:
        if self.dim > MOST_INDEXED:
            raise InputError(
                f"{self.where}: HNSW takes embeddings of at most {MOST_INDEXED} numbers, these have {self.dim}"
            )
        table, name, new = (sql.Identifier(f"{self.table}{end}") for end in ("", "_hnsw", "_hnsw_new"))
        with self._connection() as connection:
            connection.execute("SET LOCAL statement_timeout = 0")
            connection.execute(sql.SQL("DROP INDEX IF EXISTS {}").format(new))
            connection.execute(sql.SQL("CREATE INDEX {} ON {} USING hnsw (embedding vector_ip_ops)").format(new, table))
        with self._connection() as connection:  # searches wait for this alone
            connection.execute(sql.SQL("DROP INDEX IF EXISTS {}").format(name))
            connection.execute(sql.SQL("ALTER INDEX {} RENAME TO {}").format(new, name))
        self.index = "hnsw"
        self.recall = self.measured_recall()
        with self._connection() as connection:
            connection.execute(
                sql.SQL("UPDATE {} SET index = %s, recall = %s WHERE name = %s").format(sql.Identifier(REGISTER)),
                [self.index, self.recall, self.table],
            )
        return self.recall

    def _write(self, rows: Sequence[NewRow], replace: bool) -> int:
        values = [(one.id, one.label, one.metadata and Jsonb(one.metadata), Vector(one.embedding)) for one in rows]
        conflict = "UPDATE SET label = excluded.label, metadata = excluded.metadata, embedding = excluded.embedding"
        with self._connection() as connection, connection.cursor() as cursor:
            there = cursor.execute(
                self._sql("SELECT id FROM {} WHERE id = ANY(%s) FOR UPDATE"), [[one.id for one in rows]]
            ).fetchall()
            cursor.executemany(
                self._sql(
                    "INSERT INTO {} (id, label, metadata, embedding) VALUES (%s, %s, %s, %s) ON CONFLICT (id) DO "
                )
                + sql.SQL(conflict if replace else "NOTHING"),
                values,
            )
            if not replace and cursor.rowcount < len(rows):
                there = there or [(rows[0].id,)]
                raise IsThere(f"{self.where}: id {min(there)[0]!r:.200} is there already")
        return len(there)

    def _nearest(self, queries: Rows, k: int, labels: Collection[str] | None, exact: bool) -> list[list[Match]]:
        where = "" if labels is None else " WHERE label = ANY(%(labels)s)"
        query = self._sql(
            "SELECT id, -(embedding <#> %(query)s), label, metadata FROM {}"
            + where
            + " ORDER BY embedding <#> %(query)s LIMIT %(k)s"
        )
        exact = exact or self.index is None  # whatever index others have made since
        given = [{"query": Vector(row), "k": k, "labels": texts(labels or (), "labels")} for row in queries]
        with self._connection() as connection:
            if exact:
                connection.execute(EXACT)
            else:
                connection.execute(f"SET LOCAL hnsw.ef_search = {min(max(2 * k, 64), LONGEST_LIST)}")
            found = [[Match(*one) for one in connection.execute(query, one_given)] for one_given in given]
            # The index passes over rows that were removed, and gives no more than its list holds.
            short = [] if exact else [at for at, matches in enumerate(found) if len(matches) < k]
            if short:
                connection.execute(EXACT)
            for at in short:
                found[at] = [Match(*one) for one in connection.execute(query, given[at])]
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
    connection.execute(f"SET statement_timeout = {int(1000 * STATEMENT_S)}")
    register_vector(connection)
    connection.commit()


def address_and_table(url: str) -> tuple[str, str]:
    """What the driver takes, and the gallery's table."""
    before, mark, query = url.partition("?")
    options = query.split("&") if mark else []
    tables = [unquote(one.partition("=")[2]) for one in options if one.partition("=")[0] == "table"]
    if len(tables) > 1 or (tables and not (0 < len(tables[0].encode()) <= 48 and tables[0].isprintable())):
        raise InputError("table: expected one name of at most 48 printable bytes")
    left = "&".join(one for one in options if one.partition("=")[0] != "table")
    return before + (f"?{left}" if left else ""), (tables or [TABLE])[0]


def told_address(address: str) -> str:
    """Host and database of an address, without what is secret. InputError where it is none."""
    try:
        parts = conninfo_to_dict(address)
    except (psycopg.Error, ValueError, UnicodeError):
        raise InputError(EXPECTED) from None
    host, port, name = (str(parts.get(key) or "") for key in ("host", "port", "dbname"))
    if (port and not port.replace(",", "").isdigit()) or "@" in host + name:  # a part of a password, perhaps
        raise InputError(EXPECTED)
    return f"postgresql://{host}{':' + port if port else ''}/{name}"


def first_line(error: Exception) -> str:
    """What a driver says, in a line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
