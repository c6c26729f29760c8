"""ClickHouse, embedded (`chdb:///folder`) or a server (`http://user:secret@host:port/`).

Both are reached by clickhouse-connect with the same SQL; callers cannot tell them apart.
Rows are read as JSON objects, facts are written as Arrow. 64-bit integers arrive as JSON
numbers, 128-bit sums as text: money never passes through a float.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import clickhouse_connect
import msgspec
from clickhouse_connect import common as clickhouse_settings
from clickhouse_connect.driver.exceptions import ClickHouseError
from urllib3.exceptions import HTTPError

from tallystick.errors import StoreUnavailable
from tallystick.plumbing.postgres import digest_of, load_migrations, require_same_digest

if TYPE_CHECKING:
    import pyarrow as pa

DATABASE = "tallystick"

# Each request stands alone: no server-side session, and the plain wire format that every
# version speaks.
clickhouse_settings.set_setting("autogenerate_session_id", False)
clickhouse_settings.set_setting("use_protocol_version", False)

# They warn of each failed request with its address, in which a query's values stand: they may be
# personal. What failed is raised as well.
for _talker in ("urllib3.connectionpool", "clickhouse_connect"):
    logging.getLogger(_talker).setLevel(logging.ERROR)


INSERTS = {"async_insert": "0", "max_partitions_per_insert_block": "0"}
"""An insert is over when it is answered: rows that wait in a buffer of the server could land after
we have read back what did. Newer versions, chDB among them, buffer unless they are told not to.
And events of a whole history may come at once: by default more than 100 months are refused."""


class ClickHouse:
    """One connection to the facts; calls on it are serialized by the driver."""

    def __init__(self, url: str, *, timeout_seconds: float | None = None) -> None:
        """`timeout_seconds` bounds each request, on the server too."""
        bounds: dict[str, Any] = {}
        if timeout_seconds is not None and not url.startswith("chdb:"):
            bounds = {
                "send_receive_timeout": timeout_seconds,
                "settings": {"max_execution_time": timeout_seconds},
            }
        try:
            self._client = clickhouse_connect.get_client(dsn=url, query_limit=0, **bounds)
            for name, value in INSERTS.items():
                self._client.set_client_setting(name, value)
        except (ClickHouseError, OSError, RuntimeError) as error:
            raise StoreUnavailable("ClickHouse does not answer") from error

    def query_rows(
        self, sql: str, parameters: Mapping[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """Run a SELECT; return rows by column name."""
        try:
            answer = self._client.raw_query(
                sql, parameters=dict(parameters or {}), fmt="JSONEachRow"
            )
        except (ClickHouseError, OSError) as error:
            raise _failure("a query", error) from error
        return [msgspec.json.decode(line) for line in answer.splitlines()]

    def command(self, sql: str, parameters: Mapping[str, Any] | None = None) -> None:
        """Run a statement that returns nothing."""
        try:
            self._client.command(sql, parameters=dict(parameters or {}))
        except (ClickHouseError, OSError) as error:
            raise _failure("a statement", error) from error

    def insert_arrow(self, table: str, rows: pa.Table) -> None:
        """Append an Arrow table; returns once it is on disk."""
        try:
            self._client.insert_arrow(f"{DATABASE}.{table}", rows)
        except (ClickHouseError, OSError) as error:
            raise _failure("rows", error) from error

    def insert_arrow_if(self, table: str, structure: str, rows: pa.Table, condition: str) -> None:
        """Append an Arrow table if a condition holds on the server, else nothing."""
        import pyarrow as pa

        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, rows.schema) as writer:
            writer.write_table(rows)
        names = ", ".join(rows.column_names)
        sql = (
            f"INSERT INTO {DATABASE}.{table} ({names}) SELECT {names} "
            f"FROM input('{structure}') WHERE {condition} FORMAT Arrow"
        )
        try:
            self._client.command(sql, data=_Rows(sink.getvalue()))
        except (ClickHouseError, OSError) as error:
            raise _failure("rows", error) from error

    def close(self) -> None:
        """Let the connection go."""
        self._client.close()


class _Rows(bytes):
    """Rows behind an INSERT, for the driver: it reads any text that it sends, to tell whether
    it may send it twice. These are none, and to search megabytes of them took 2 µs a fact.
    """

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Nothing that could be read as SQL."""
        return ""


def _failure(what: str, error: Exception) -> StoreUnavailable:
    """What a caller is told: what ClickHouse said, but not where it is and what it was asked."""
    if isinstance(error, OSError) or isinstance(error.__cause__, HTTPError):
        return StoreUnavailable("ClickHouse cannot be reached")
    return StoreUnavailable(f"ClickHouse refused {what}: {_first_line(error)}")


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:300] if str(error) else type(error).__name__


def migrate_clickhouse(store: ClickHouse, *, cluster: str = "") -> list[str]:
    """Bring the facts' schema up to date; return the names that were applied now.

    With a `cluster`, tables are made on all of its nodes and replicated. ClickHouse has no
    transactions over DDL: each statement is written so that running it again does no harm, and
    a migration is recorded when all of its statements ran.
    """
    store.command(for_cluster(f"CREATE DATABASE IF NOT EXISTS {DATABASE}", cluster))
    create = (
        f"CREATE TABLE IF NOT EXISTS {DATABASE}.schema_migration "
        "(name String, digest String, applied_at DateTime64(6, 'UTC')) "
        "ENGINE = MergeTree ORDER BY name"
    )
    store.command(for_cluster(create, cluster))
    rows = store.query_rows(f"SELECT name, digest FROM {DATABASE}.schema_migration")
    done = {row["name"]: row["digest"] for row in rows}
    applied: list[str] = []
    for name, text in load_migrations("clickhouse"):
        if name in done:
            require_same_digest(name, text, done[name])
            continue
        for statement in statements_of(text):
            store.command(for_cluster(statement, cluster))
        store.command(
            f"INSERT INTO {DATABASE}.schema_migration "
            "SELECT {name:String}, {digest:String}, now64(6)",
            {"name": name, "digest": digest_of(text)},
        )
        applied.append(name)
    return applied


def for_cluster(statement: str, cluster: str) -> str:
    """The same DDL for all nodes of a cluster, with replicated tables; unchanged without one.

    >>> for_cluster("CREATE TABLE IF NOT EXISTS a.b (c Bool) ENGINE = MergeTree", "x")
    "CREATE TABLE IF NOT EXISTS a.b ON CLUSTER 'x' (c Bool) ENGINE = ReplicatedMergeTree"
    >>> for_cluster("ALTER TABLE a.b DROP PARTITION ID '202401'", "x")
    "ALTER TABLE a.b ON CLUSTER 'x' DROP PARTITION ID '202401'"
    """
    if not cluster:
        return statement
    name = cluster.replace("\\", "\\\\").replace("'", "\\'")
    placed = _NAMES.sub(rf"\g<0> ON CLUSTER '{name}'", statement, count=1)
    return _ENGINE.sub(r"ENGINE = Replicated\1MergeTree", placed)


_NAMES = re.compile(r"(?:CREATE (?:TABLE|DATABASE|VIEW) IF NOT EXISTS|ALTER TABLE) [\w.]+")
_ENGINE = re.compile(r"ENGINE = (\w*)MergeTree\b")


def statements_of(text: str) -> list[str]:
    """Split a migration at the semicolons that end a line."""
    pieces = "\n".join(
        line for line in text.splitlines() if not line.lstrip().startswith("--")
    ).split(";\n")
    return [piece.strip().rstrip(";") for piece in pieces if piece.strip(" \n;")]
