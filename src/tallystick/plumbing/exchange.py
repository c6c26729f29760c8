"""Many statements in one exchange with PostgreSQL: one send, one wait, one commit.

psycopg's own pipeline waits on the socket at each statement and builds a cursor for each; a
group of the ledger has ten statements, and that was half of the CPU of a group. Here all of
them are put into libpq's buffer, flushed together, and their results read when they are there.
Parameters travel as text without a type, so the statements' casts decide (bytes as they are);
results are binary.
Statements are prepared at first use and known by connection: what is prepared outlives a
rollback, as the protocol says (PostgreSQL documentation, "Extended Query").
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Generator, Mapping, Sequence
from functools import lru_cache
from itertools import count
from typing import Any, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

import psycopg
from psycopg import pq
from psycopg.abc import PQGen
from psycopg.adapt import Transformer
from psycopg.waiting import Ready, Wait

AsyncConnection = psycopg.AsyncConnection[Any]
Connection = psycopg.Connection[Any]
Row = tuple[Any, ...]
T = TypeVar("T")

STATEMENTS_MAX = 500
"""Statements that a connection keeps prepared; others are parsed each time."""

_PLACEHOLDER = re.compile(rb"%\((\w+)\)s")
_ABORTED = pq.ExecStatus.PIPELINE_ABORTED
_SYNCED = pq.ExecStatus.PIPELINE_SYNC
_FAILED = (pq.ExecStatus.FATAL_ERROR, pq.ExecStatus.BAD_RESPONSE)


class Statement(NamedTuple):
    """A statement with its arguments by name: texts, numbers, flags, bytes or None."""

    sql: bytes
    arguments: Mapping[str, Any]


class _Known:
    """What a connection has prepared, and what reads its rows."""

    def __init__(self, transformer: Any) -> None:
        self.names: dict[bytes, bytes] = {}
        self.numbers = count(1)
        self.transformer = transformer


_known: WeakKeyDictionary[AsyncConnection | Connection, _Known] = WeakKeyDictionary()


def _known_of(connection: AsyncConnection | Connection) -> _Known:
    known = _known.get(connection)
    if known is None:
        # psycopg's own preparing would forget all of ours when a transaction is rolled back
        connection.prepare_threshold = None
        known = _known[connection] = _Known(Transformer(connection))
    return known


async def exchange(
    connection: AsyncConnection, statements: Sequence[Statement], *, commits: bool
) -> list[list[Row]]:
    """Carry out statements in the connection's transaction, which begins here if none has.

    Returns, for each, its rows or one row with the count of rows. Raises what psycopg does.
    The connection is one that runs nothing else.
    """
    known = _known_of(connection)
    try:
        carried = await _wait(
            connection.pgconn, _carry_out(connection.pgconn, known, statements, commits)
        )
    except BaseException:
        if connection.pgconn.pipeline_status != pq.PipelineStatus.OFF:
            await connection.close()  # cut off halfway: nobody can tell what comes next
        raise
    return [_rows(known, one) for one in carried]


def exchange_blocking(
    connection: Connection, statements: Sequence[Statement], *, commits: bool
) -> list[list[Row]]:
    """The same over a blocking connection; psycopg prepares nothing on it any more."""
    known = _known_of(connection)
    try:
        carried = connection.wait(_carry_out(connection.pgconn, known, statements, commits))
    except BaseException:
        if connection.pgconn.pipeline_status != pq.PipelineStatus.OFF:
            connection.close()
        raise
    return [_rows(known, one) for one in carried]


async def _wait(pgconn: pq.abc.PGconn, steps: PQGen[T]) -> T:
    """Let steps go on whenever the socket is ready.

    psycopg's own wait costs twice as much: a timer and closures each time, to look for Ctrl-C.
    """
    loop = asyncio.get_running_loop()
    try:
        wanted = next(steps)
        while True:
            ready: asyncio.Future[Ready] = loop.create_future()
            socket = pgconn.socket
            loop.add_reader(socket, _tell, ready, Ready.R)
            if wanted & Wait.W:
                loop.add_writer(socket, _tell, ready, Ready.W)
            try:
                found = await ready
            finally:
                loop.remove_reader(socket)
                if wanted & Wait.W:
                    loop.remove_writer(socket)
            wanted = steps.send(found)
    except StopIteration as stop:
        carried: T = stop.value
        return carried


def _tell(ready: asyncio.Future[Ready], state: Ready) -> None:
    if not ready.done():
        ready.set_result(state)


_BEGIN = Statement(b"BEGIN", {})
_COMMIT = Statement(b"COMMIT", {})


def _carry_out(
    pgconn: pq.abc.PGconn, known: _Known, statements: Sequence[Statement], commits: bool
) -> PQGen[list[pq.abc.PGresult]]:
    begins = pgconn.transaction_status == pq.TransactionStatus.IDLE
    # what begins and commits here needs to say neither: a pipeline is a transaction by itself,
    # committed at its end (PostgreSQL documentation, "Pipelining")
    before = [_BEGIN] if begins and not commits else []
    after = [_COMMIT] if commits and not begins else []
    every = [*before, *statements, *after]
    pgconn.enter_pipeline_mode()
    fresh: dict[bytes, bytes] = {}
    is_prepared = [_send(pgconn, known, fresh, statement) for statement in every]
    pgconn.pipeline_sync()
    while pgconn.flush():
        if (yield Wait.RW) & Ready.R:
            pgconn.consume_input()
    results = yield from _fetch(pgconn)
    pgconn.exit_pipeline_mode()
    for result in results:
        if result.status in _FAILED:
            raise psycopg.errors.error_from_result(result)
        if result.status == _ABORTED:
            raise psycopg.OperationalError("the exchange was aborted")
    known.names.update(fresh)
    answers = iter(results)
    found = [_after(answers, has_parse) for has_parse in is_prepared]
    return found[len(before) : len(before) + len(statements)]


def _after(answers: Any, has_parse: bool) -> pq.abc.PGresult:
    """The result of a statement, which comes after that of its preparation."""
    if has_parse:
        next(answers)
    found: pq.abc.PGresult = next(answers)
    return found


def _send(
    pgconn: pq.abc.PGconn, known: _Known, fresh: dict[bytes, bytes], statement: Statement
) -> bool:
    """Put a statement into the buffer; whether its preparation goes before it."""
    sql, names = numbered(statement.sql)
    arguments = [statement.arguments[name] for name in names]
    values = [_text(one) for one in arguments]
    formats = [one.__class__ is bytes for one in arguments]
    name = known.names.get(sql) or fresh.get(sql)
    if name is not None:
        pgconn.send_query_prepared(name, values, formats, pq.Format.BINARY)
        return False
    if len(known.names) + len(fresh) >= STATEMENTS_MAX:
        pgconn.send_query_params(sql, values, None, formats, pq.Format.BINARY)
        return False
    fresh[sql] = name = b"ts_%d" % next(known.numbers)  # never one that a failure left behind
    pgconn.send_prepare(name, sql)
    pgconn.send_query_prepared(name, values, formats, pq.Format.BINARY)
    return True


def _fetch(pgconn: pq.abc.PGconn) -> Generator[Wait, Ready, list[pq.abc.PGresult]]:
    """Read results until all are there."""
    results: list[pq.abc.PGresult] = []
    while True:
        while pgconn.is_busy():
            yield Wait.R
            pgconn.consume_input()
        result = pgconn.get_result()
        if result is None:
            continue  # the end of one statement's results
        if result.status == _SYNCED:
            return results
        results.append(result)


def _rows(known: _Known, result: pq.abc.PGresult) -> list[Row]:
    if not result.nfields:
        return [(result.command_tuples or 0,)]
    known.transformer.set_pgresult(result)
    rows: list[Row] = known.transformer.load_rows(0, result.ntuples, tuple)
    return rows


@lru_cache(maxsize=2000)
def numbered(sql: bytes) -> tuple[bytes, tuple[str, ...]]:
    """Write %(name)s as $1, $2...; with the names in that order."""
    names: list[str] = []

    def number(found: re.Match[bytes]) -> bytes:
        name = found[1].decode()
        if name not in names:
            names.append(name)
        return b"$%d" % (names.index(name) + 1)

    text = _PLACEHOLDER.sub(number, sql)
    return text.replace(b"%%", b"%"), tuple(names)


def _text(value: Any) -> bytes | None:
    """An argument as PostgreSQL reads it."""
    if type(value) is int:
        return b"%d" % value
    if value is None or type(value) is bytes:
        return value
    if value is True or value is False:
        return b"t" if value else b"f"
    text = str(value)
    if "\0" in text:
        raise psycopg.DataError("PostgreSQL text fields cannot contain NUL (0x00) bytes")
    return text.encode()
