"""Statements are carried out as their comments say: what names an index is found by one.

A partial index serves only a statement that repeats its condition. One that does not is right in
every test and reads a whole history for each row in use; only its plan tells.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import psycopg

import tallystick
from tallystick.plumbing.exchange import numbered
from tallystick.plumbing.postgres import BY_INDEX
from tallystick.plumbing.sql import load_statements

SOURCE = Path(tallystick.__file__).parent


def statements() -> Iterator[tuple[str, str]]:
    """PostgreSQL's statements that name an index, but those completed when they run."""
    for path in sorted(SOURCE.rglob("*.sql")):
        if "migrations" in path.parts:
            continue
        package = ".".join(path.parent.relative_to(SOURCE.parent).parts)
        for name, text in load_statements(package, path.name).items():
            is_for_clickhouse = "tallystick." in text
            if "Index: " in text and "{" not in text and not is_for_clickhouse:
                yield f"{package}: {name}", text


def tables_read_whole(node: dict[str, Any]) -> Iterator[str]:
    """Tables that a plan reads from end to end."""
    if node["Node Type"] == "Seq Scan":
        yield node["Relation Name"]
    for part in node.get("Plans", ()):
        yield from tables_read_whole(part)


def test_a_statement_that_names_an_index_reads_no_table_whole(postgres_url: str) -> None:
    whole: dict[str, list[str]] = {}
    count = 0
    with psycopg.connect(postgres_url, options=BY_INDEX) as connection:
        for name, text in statements():
            sql, _ = numbered(text.encode())
            found = connection.pgconn.exec_(b"EXPLAIN (GENERIC_PLAN, FORMAT JSON) " + sql)
            assert found.status == psycopg.pq.ExecStatus.TUPLES_OK, (name, found.error_message)
            (plan,) = msgspec.json.decode(found.get_value(0, 0) or b"")
            whole[name] = list(tables_read_whole(plan["Plan"]))
            count += 1
    assert {name: tables for name, tables in whole.items() if tables} == {}
    assert count > 150, "statements are no longer found"
