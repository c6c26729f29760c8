"""Bytes and CPU of one event at each stage, on real stores: what `benchmarks/sizing.py` rests on.

    python -m benchmarks.sizes

Runs of 40 events with random ids (UUIDs, as SDKs make them), 20 tenants, 20,000 users and
values that do not repeat, sent through the product's parts in one process: door, log, sink,
rollups, charger. Sizes are what the stores say of themselves after all merges. CPU is that of
this process (all threads, chDB's too), so PostgreSQL's is not in it. What ClickHouse's part of
a step costs is measured around the calls that go to it.
"""

from __future__ import annotations

import gzip
import random
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lz4.frame  # type: ignore[import-untyped]
import msgspec
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
from tests.world import World

from tallystick.clock import SystemClock, format_time
from tallystick.events.model import EVENT_FIELDS
from tallystick.plumbing.clickhouse import ClickHouse, migrate_clickhouse
from tallystick.plumbing.embedded.folder import DataFolder
from tallystick.plumbing.embedded.postgres import EmbeddedPostgres
from tallystick.plumbing.log.model import decode_payload
from tallystick.plumbing.postgres import migrate_postgres

EVENTS_PER_RUN = 40
RUNS = 7_500
BATCH = 500
SPAN_SECONDS = 600
KAFKA_HEAD_BYTES = 20
_KEPT = (
    *("facts", "runs", "charges", "rollup_minute", "rollup_hour", "rollup_hour_model"),
    *("rollup_day", "rollup_day_model", "rollup_day_run", "rollup_user"),
)
"""Tables of ClickHouse that are kept for long; deltas are not."""

"""Mark and MAC before the canonical event (docs/kafka.md)."""

Row = tuple[str, str]


def make_run(rng: random.Random, started_at: int) -> list[dict[str, Any]]:
    """One run: start, 24 model calls, 7 tool calls of two events each, end."""
    run = {
        "tenant_id": f"tenant-{rng.randrange(20)}",
        "run_id": str(uuid.UUID(int=rng.getrandbits(128), version=4)),
        "user_id": f"user-{rng.randrange(20_000)}",
        "workflow": f"workflow-{rng.randrange(6)}",
        "agent": "helper",
        "team": f"team-{rng.randrange(4)}",
        "product": "desk",
        "feature": f"feature-{rng.randrange(5)}",
        "customer_tier": rng.choice(("free", "pro", "enterprise")),
        "environment": "production",
        "source": "gateway",
    }
    events: list[dict[str, Any]] = []
    for step in range(EVENTS_PER_RUN):
        at = started_at + step * 400_000 + rng.randrange(400_000)
        ids = {"event_id": str(uuid.UUID(int=rng.getrandbits(128), version=4))}
        events.append({**ids, "event_time": format_time(at), **run, **make_step(rng, step)})
    return events


def make_step(rng: random.Random, step: int) -> dict[str, Any]:
    """What the event of one step says besides what all events of its run say."""
    if step in (0, EVENTS_PER_RUN - 1):
        return {"event_type": "run_started" if step == 0 else "run_completed"}
    if step % 5 in (3, 4) and step < 37:
        tool = {"tool": f"tool-{step % 3}", "tool_call_id": f"call_{rng.getrandbits(96):024x}"}
        if step % 5 == 3:
            return {"event_type": "tool_call_started", **tool}
        return {"event_type": "tool_call_finished", **tool, "latency_ms": rng.randrange(20, 3_000)}
    tokens = rng.randrange(300, 12_000)
    return {
        "event_type": "token_usage",
        "provider": "openai",
        "model": rng.choice(("gpt-4o", "gpt-4o-mini", "gpt-4.1")),
        "request_id": f"req_{rng.getrandbits(96):024x}",
        "latency_ms": rng.randrange(400, 20_000),
        "tokens_input": tokens,
        "tokens_output": rng.randrange(5, 1_500),
        "tokens_cache_read": tokens // 2,
    }


def bodies(rng: random.Random) -> Iterator[bytes]:
    """Requests of BATCH events; runs overlap, as they do."""
    now = SystemClock().now() - SPAN_SECONDS * 1_000_000
    step = (SPAN_SECONDS - 20) * 1_000_000 // RUNS
    events = [event for run in range(RUNS) for event in make_run(rng, now + run * step)]
    events.sort(key=lambda event: event["event_time"])
    encoder = msgspec.json.Encoder()
    for start in range(0, len(events), BATCH):
        yield encoder.encode(events[start : start + BATCH])


class Counted:
    """CPU seconds inside some calls, of all threads of this process."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def around(self, owner: Any, *names: str) -> None:
        """Count the calls of these methods from now on."""
        for name in names:
            setattr(owner, name, self._counted(getattr(owner, name)))

    def _counted(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **more: Any) -> Any:
            before = time.process_time()
            try:
                return call(*arguments, **more)
            finally:
                self.seconds += time.process_time() - before

        return counted


def cpu_of(work: Callable[[], object]) -> float:
    """CPU seconds of one call, of all threads."""
    before = time.process_time()
    work()
    return time.process_time() - before


def run_out(step: Callable[[], int]) -> Callable[[], None]:
    """Step until there is nothing left."""

    def out() -> None:
        while step():
            pass

    return out


class Database:
    """Sizes that PostgreSQL and ClickHouse tell of themselves."""

    def __init__(self, url: str, clickhouse: ClickHouse) -> None:
        self._connection = psycopg.connect(url, autocommit=True)
        self._clickhouse = clickhouse

    def bytes_of(self, *tables: str) -> int:
        """Tables with their indexes and TOAST."""
        return sum(self._one(f"SELECT pg_total_relation_size('{table}')") for table in tables)

    def wal_bytes(self) -> int:
        """WAL written so far."""
        return self._one("SELECT pg_current_wal_lsn() - '0/0'")

    def close(self) -> None:
        self._connection.close()

    def _one(self, sql: str) -> int:
        row = self._connection.execute(sql.encode()).fetchone()
        assert row is not None
        return int(row[0])

    def parts(self) -> dict[str, int]:
        """Bytes on disk by table, of active parts."""
        found = self._clickhouse.query_rows(
            "SELECT table, sum(bytes_on_disk) AS size FROM system.parts "
            "WHERE active AND database = 'tallystick' GROUP BY table"
        )
        return {row["table"]: int(row["size"]) for row in found}


def wire_rows(sent: list[bytes], payloads: list[bytes]) -> Iterator[Row]:
    """The event as sent, in Kafka and in the archive."""
    count = RUNS * EVENTS_PER_RUN
    yield "request body, JSON", per(sum(map(len, sent)), count)
    yield "request body, JSON, gzip", per(sum(len(gzip.compress(one, 1)) for one in sent), count)
    values, compressed = 0, 0
    columns: list[list[Any]] = [[] for _ in EVENT_FIELDS]
    for payload in payloads:
        batch = decode_payload(payload)[0]
        size = max(len(column) for column in batch)
        whole = [column if len(column) == size else column * size for column in batch]
        encoded = [msgspec.msgpack.encode(list(row)) for row in zip(*whole, strict=True)]
        values += sum(map(len, encoded)) + KAFKA_HEAD_BYTES * size
        macs = random.Random(1).randbytes(16 * size)
        keys = b"".join(row.encode() for row in whole[EVENT_FIELDS.index("run_id")])
        compressed += len(lz4.frame.compress(b"".join(encoded) + keys + macs))
        for gathered, column in zip(columns, whole, strict=True):
            gathered += column
    yield "Kafka value, canonical form", per(values, count)
    yield f"the same with its key in batches of {BATCH}, lz4", per(compressed, count)
    table = pa.table(dict(zip(EVENT_FIELDS, columns, strict=True)))
    table = table.append_column("log_offset", pa.array(range(count), pa.int64()))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "events.parquet"
        pq.write_table(table, path, compression="zstd", compression_level=3, row_group_size=100_000)
        yield "archive, Parquet zstd (this script's own writer)", per(path.stat().st_size, count)


def per(amount: float, count: int, unit: str = "bytes an event") -> str:
    """An amount shared by a count, for the table."""
    return f"{amount / count:,.1f} {unit}"


def store_rows(world: World, database: Database, clickhouse: ClickHouse) -> Iterator[Row]:
    """Follow everything that was sent; sizes and CPU of each step."""
    count = RUNS * EVENTS_PER_RUN
    store = Counted()
    store.around(world.facts, "append", "query_landed_until", "query_landed_offsets")
    wal = database.wal_bytes()
    sink = cpu_of(run_out(world.sink.step))
    yield "sink step in all / its ClickHouse inserts", cpu(sink, count, store.seconds)
    yield "WAL of a sink step", per(database.wal_bytes() - wal, count)
    rollups = cpu_of(run_out(world.rollups.step))
    yield "rollups (all of it ClickHouse's)", cpu(rollups, count)
    store.seconds, wal = 0.0, database.wal_bytes()
    store.around(world.facts, "query_attempts", "post_lines")
    charger = cpu_of(run_out(world.charger.step))
    yield "charger in all / its ClickHouse queries", cpu(charger, count, store.seconds)
    yield "WAL of the charger", per(database.wal_bytes() - wal, RUNS, "bytes a run")
    before = time.process_time()
    for table in _KEPT:
        clickhouse.command(f"OPTIMIZE TABLE tallystick.{table} FINAL")
    yield "merging all parts once", cpu(time.process_time() - before, count)
    for table in _KEPT:
        clickhouse.command(
            f"CREATE TABLE tallystick.{table}_zstd AS tallystick.{table} "
            "SETTINGS default_compression_codec = 'ZSTD(1)'"
        )
        clickhouse.command(f"INSERT INTO tallystick.{table}_zstd SELECT * FROM tallystick.{table}")
        clickhouse.command(f"OPTIMIZE TABLE tallystick.{table}_zstd FINAL")
    ledger = database.bytes_of("ledger.operation", "ledger.run_charge")
    yield "ledger: operation and run charge, indexes too", per(ledger, RUNS, "bytes a run")
    for table, size in sorted(database.parts().items()):
        if table.startswith(("runs", "charges")):
            yield f"ClickHouse {table}", per(size, RUNS, "bytes a run")
        elif table != "schema_migration":
            yield f"ClickHouse {table}", per(size, count)


def cpu(seconds: float, count: int, part: float | None = None) -> str:
    """CPU of an event, and a part of it, for the table."""
    share = "" if part is None else f" / {part / count * 1e6:.1f}"
    return f"{seconds / count * 1e6:.1f}{share} microseconds of CPU an event"


def main() -> None:
    """Measure, print, and write the result."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        folder = DataFolder(Path(name) / "data")
        server = EmbeddedPostgres(folder)
        server.start()
        migrate_postgres(server.url)
        clickhouse = ClickHouse(f"chdb://{name}/clickhouse")
        migrate_clickhouse(clickhouse)
        world = World(server.url, clickhouse, Path(name), SystemClock())
        database = Database(server.url, clickhouse)
        sent = list(bodies(random.Random(7)))
        door = cpu_of(lambda: [world.send_body(body) for body in sent])
        count = RUNS * EVENTS_PER_RUN
        rows.append(("door: parse, redact, deduplicate, compress, append", cpu(door, count)))
        batches = world.log.read(0, batches_max=1 << 30)
        rows += wire_rows(sent, [batch.payload for batch in batches])
        rows.append(("PostgreSQL log, indexes too", per(database.bytes_of("log.batch"), count)))
        rows += store_rows(world, database, clickhouse)
        world.close()
        index = sum(one.stat().st_size for one in (Path(name) / "index").rglob("*.sst"))
        rows.append(("deduplication index", per(index, count)))
        database.close()
        clickhouse.close()
        server.stop()
        folder.close()
    lines = [
        f"{RUNS * EVENTS_PER_RUN:,} events in {RUNS:,} runs. Tables named `_zstd` are the "
        "same compressed by ZSTD(1).",
        "",
        "| what | figure |",
        "| --- | --- |",
        *(f"| {what} | {figure} |" for what, figure in rows),
    ]
    print("\n".join(lines))


if __name__ == "__main__":
    main()
