"""Real stores for every test: one embedded PostgreSQL and one chDB a session."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tallystick.clock import SystemClock
from tallystick.plumbing.clickhouse import ClickHouse, migrate_clickhouse
from tallystick.plumbing.embedded.folder import DataFolder
from tallystick.plumbing.embedded.postgres import EmbeddedPostgres
from tallystick.plumbing.postgres import migrate_postgres
from tests.kafka_brokers import Brokers, BrokersUnavailable
from tests.world import World

_no_brokers: list[str] = []
"""Why no Kafka broker could be started: said at the end of the run, where it is seen."""


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
    return make_database(postgres, "t_" + request.module.__name__.replace(".", "_").lower()[-50:])


def make_database(postgres: EmbeddedPostgres, name: str) -> str:
    """A fresh, migrated database; return its URL."""
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


@pytest.fixture(scope="session")
def kafka_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Brokers]:
    """One real Kafka broker, for contract tests."""
    yield from _running_brokers(1, tmp_path_factory.mktemp("kafka-1"))


@pytest.fixture(scope="session")
def kafka_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Brokers]:
    """Three real Kafka brokers, for fault tests; a test leaves all three running."""
    yield from _running_brokers(3, tmp_path_factory.mktemp("kafka-3"))


def _running_brokers(count: int, folder: Path) -> Iterator[Brokers]:
    try:
        brokers = Brokers(count, folder)
    except BrokersUnavailable as error:
        if os.environ.get("CI") == "true":
            pytest.fail(f"with CI=true real Kafka brokers are a must: {error}")
        _no_brokers.append(str(error))
        pytest.skip(f"no real Kafka broker: {error}")
    try:
        yield brokers.start()
    finally:
        brokers.stop()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say loudly when the tests on real Kafka brokers did not run."""
    for reason in dict.fromkeys(_no_brokers):
        terminalreporter.write_sep("!", "KAFKA TESTS WERE SKIPPED", red=True, bold=True)
        terminalreporter.write_line(f"No real Kafka broker could be started: {reason}")


@pytest.fixture
def data_folder(tmp_path: Path) -> Path:
    return tmp_path / "data"
