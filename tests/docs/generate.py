"""Writes what is generated: the schema of both stores as it is after all migrations."""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path

from tallystick.plumbing.clickhouse import DATABASE, ClickHouse, migrate_clickhouse
from tallystick.plumbing.embedded.folder import DataFolder
from tallystick.plumbing.embedded.postgres import EmbeddedPostgres, binary
from tallystick.plumbing.postgres import migrate_postgres

ROOT = Path(__file__).parents[2]
POSTGRES_SCHEMA = ROOT / "docs" / "schema" / "postgres.sql"
CLICKHOUSE_SCHEMA = ROOT / "docs" / "schema" / "clickhouse.sql"


def postgres_schema(url: str) -> str:
    """The schema as pg_dump tells it, without versions and session settings."""
    dump = subprocess.run(
        [binary("pg_dump"), "--schema-only", "--no-owner", "--no-privileges", url],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    lines = [
        line
        for line in dump.splitlines()
        if line and not re.match(r"--|SET |SELECT pg_catalog|\\(un)?restrict", line)
    ]
    return "\n".join(lines) + "\n"


def clickhouse_schema(store: ClickHouse) -> str:
    """The schema as SHOW CREATE TABLE tells it."""
    tables = store.query_rows(
        f"SELECT name FROM system.tables WHERE database = '{DATABASE}' ORDER BY name"
    )
    statements = [
        store.query_rows(f"SHOW CREATE TABLE {DATABASE}.{table['name']}")[0]["statement"]
        for table in tables
    ]
    return ";\n\n".join(statements) + ";\n"


def main() -> None:
    POSTGRES_SCHEMA.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = DataFolder(Path(scratch))
        server = EmbeddedPostgres(folder)
        server.start()
        migrate_postgres(server.url)
        POSTGRES_SCHEMA.write_text(postgres_schema(server.url), "utf-8")
        server.stop()
        store = ClickHouse(f"chdb://{scratch}/clickhouse")
        migrate_clickhouse(store)
        CLICKHOUSE_SCHEMA.write_text(clickhouse_schema(store), "utf-8")
        store.close()
        folder.close()


if __name__ == "__main__":
    main()
