"""Real stores for every test: one embedded PostgreSQL and one chDB a session."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tallystick.clock import SystemClock
from tallystick.plumbing.clickhouse import ClickHouse, migrate_clickhouse
from tallystick.plumbing.embedded.folder import DataFolder
from tallystick.plumbing.embedded.postgres import EmbeddedPostgres
from tallystick.plumbing.postgres import migrate_postgres
from tests.world import World


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    folder = DataFolder(tmp_path_factory.mktemp("pg"))
    server = EmbeddedPostgres(folder)
    server.start()
    yield server
    server.stop()
    folder.close()


@pytest.fixture(scope="module")
def postgres_url(postgres: EmbeddedPostgres, request: pytest.FixtureRequest) -> str:
    name = "t_" + request.module.__name__.replace(".", "_").lower()[-50:]
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'.encode())
        connection.execute(f'CREATE DATABASE "{name}"'.encode())
    url = postgres.url.replace("/tallystick?", f"/{name}?")
    migrate_postgres(url)
    return url


@pytest.fixture(scope="session")
def clickhouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouse]:
    store = ClickHouse(f"chdb://{tmp_path_factory.mktemp('ch')}")
    migrate_clickhouse(store)
    yield store
    store.close()


@pytest.fixture(scope="module")
def world(
    postgres_url: str, clickhouse: ClickHouse, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """Log, door, sink, charger and ledger on real stores, stepped by hand."""
    made = World(postgres_url, clickhouse, tmp_path_factory.mktemp("dedup"), SystemClock())
    made.facts.wipe()
    yield made
    made.close()


@pytest.fixture
def data_folder(tmp_path: Path) -> Path:
    return tmp_path / "data"
