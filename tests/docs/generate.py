"""Writes what is generated: the schema of both stores after all migrations, and of events.

With `--release-schemas` it also writes down today's event schemas as released: from then on
a test refuses any change that is not purely additive (docs/schemas/README.md).
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml  # type: ignore[import-untyped]

from tallystick.events.asyncapi import build_asyncapi
from tallystick.events.fields import SCHEMA_VERSION
from tallystick.events.model import EVENT_FIELDS
from tallystick.events.schemas import build_schemas
from tallystick.plumbing.clickhouse import DATABASE, ClickHouse, migrate_clickhouse
from tallystick.plumbing.embedded.folder import DataFolder
from tallystick.plumbing.embedded.postgres import EmbeddedPostgres, binary
from tallystick.plumbing.postgres import migrate_postgres

ROOT = Path(__file__).parents[2]
POSTGRES_SCHEMA = ROOT / "docs" / "schema" / "postgres.sql"
CLICKHOUSE_SCHEMA = ROOT / "docs" / "schema" / "clickhouse.sql"
_SCHEMAS = ROOT / "docs" / "schemas"
SCHEMA_FOLDER = _SCHEMAS / "events" / f"v{SCHEMA_VERSION}"
RELEASED = _SCHEMAS / "events" / "released" / f"v{SCHEMA_VERSION}.json"
ASYNCAPI = _SCHEMAS / "asyncapi.yaml"


def schema_files() -> dict[Path, str]:
    """The published event schemas by path."""
    files = {SCHEMA_FOLDER / name: _json_text(schema) for name, schema in build_schemas().items()}
    folder = f"{SCHEMA_FOLDER.relative_to(_SCHEMAS).as_posix()}/"
    return {**files, ASYNCAPI: yaml.safe_dump(build_asyncapi(folder), sort_keys=False, width=100)}


def released_text() -> str:
    """Today's schemas and event fields, to be compared with later ones."""
    return _json_text(
        {
            "schema_version": SCHEMA_VERSION,
            "event_fields": list(EVENT_FIELDS),
            "schemas": build_schemas(),
        }
    )


def _json_text(content: object) -> str:
    return json.dumps(content, indent=2) + "\n"


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


def write_schemas(*, is_release: bool) -> None:
    RELEASED.parent.mkdir(parents=True, exist_ok=True)
    SCHEMA_FOLDER.mkdir(parents=True, exist_ok=True)
    for path, text in schema_files().items():
        path.write_text(text, "utf-8")
    if is_release:
        RELEASED.write_text(released_text(), "utf-8")


def main() -> None:
    write_schemas(is_release="--release-schemas" in sys.argv)
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
