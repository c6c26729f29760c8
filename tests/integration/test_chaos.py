"""The distributed form while everything under it fails: brokers, stores, workers, the network.

Three real brokers, a PostgreSQL of its own, chDB as a server of its own, two sinks, a charger,
a vault. A load runs without end; each round one fault of the list comes, is mended, and the next
one comes. In the end every acknowledged event is counted, charged and in the quotas once.
SIGSTOP stands for the network: connections stay open and nothing answers.

TALLYSTICK_KILL_ROUNDS sets how many faults there are, TALLYSTICK_KILL_SEED their order.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import httpx
import pytest

from tallystick.errors import StoreUnavailable
from tallystick.plumbing.embedded.folder import DataFolder
from tallystick.plumbing.embedded.postgres import EmbeddedPostgres
from tests.conftest import make_database
from tests.distributed import LEASE_SECONDS, Cluster
from tests.integration.test_distributed import assert_exact, post, usage
from tests.kafka_brokers import Brokers

pytestmark = pytest.mark.slow
ROUNDS = int(os.environ.get("TALLYSTICK_KILL_ROUNDS", "13"))
EVENTS_PER_REQUEST = 50


@pytest.fixture
def own_postgres(tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    """A server that may be killed: other tests have another one."""
    folder = DataFolder(tmp_path / "postgres")
    server = EmbeddedPostgres(folder)
    server.start()
    yield server
    server.stop()
    folder.close()


@pytest.fixture
def cluster(
    tmp_path: Path, own_postgres: EmbeddedPostgres, kafka_cluster: Brokers
) -> Iterator[Cluster]:
    made = Cluster(
        tmp_path / "cluster",
        make_database(own_postgres, "chaos"),
        kafka_cluster.bootstrap,
        f"chaos-{os.getpid()}",
        TALLYSTICK_KAFKA_PARTITIONS="4",
        TALLYSTICK_KAFKA_REPLICATION="3",
    )
    yield made
    made.stop()


class Load(threading.Thread):
    """Sends requests, each until it is acknowledged, every tenth one twice."""

    def __init__(self, client: httpx.Client) -> None:
        super().__init__(daemon=True)
        self.requests = 0
        self._client = client
        self._ending = threading.Event()

    def run(self) -> None:
        while not self._ending.is_set():
            start = self.requests * EVENTS_PER_REQUEST
            events = [usage("chaos", number) for number in range(start, start + EVENTS_PER_REQUEST)]
            for _ in range(2 if self.requests % 10 == 0 else 1):
                post(self._client, events)
            self.requests += 1
            time.sleep(0.05)

    def wait_for_more(self, requests: int) -> None:
        """Wait until so many further requests were acknowledged."""
        goal, deadline = self.requests + requests, time.monotonic() + 120
        while self.requests < goal:
            assert time.monotonic() < deadline, "the doors acknowledge nothing"
            time.sleep(0.02)

    def end(self) -> int:
        """Finish the request under way; return how many events were acknowledged."""
        self._ending.set()
        self.join(120)
        assert not self.is_alive()
        return self.requests * EVENTS_PER_REQUEST


class Faults:
    """What goes wrong, and how it is mended; each returns when all is up again."""

    def __init__(
        self, cluster: Cluster, brokers: Brokers, postgres: EmbeddedPostgres, seed: str
    ) -> None:
        self._cluster = cluster
        self._brokers = brokers
        self._postgres = postgres
        self._random = random.Random(seed)
        self._next: list[Callable[[], None]] = []

    def strike(self) -> str:
        """The next fault: each of the list once, in random order, and again."""
        if not self._next:
            self._next = [
                *(lambda index=index: self._kill_broker(index) for index in range(3)),
                self._pause_broker,
                *(lambda name=name: self._kill_worker(name) for name in WORKERS),
                self._pause_sink,
                self._rebalance,
                self._kill_clickhouse,
                self._pause_clickhouse,
                self._kill_postgres,
            ]
            self._random.shuffle(self._next)
        fault = self._next.pop()
        fault()
        return fault.__name__

    def _kill_broker(self, index: int) -> None:
        self._brokers.kill(index)
        self._wait(0.5, 2)
        self._brokers.restart(index)
        self._brokers.wait_until_ready()

    def _pause_broker(self) -> None:
        index = self._random.randrange(3)
        self._brokers.pause(index)
        self._wait(3, 5)  # longer than the others wait for it
        self._brokers.resume(index)
        self._brokers.wait_until_ready()

    def _kill_worker(self, name: str) -> None:
        self._cluster.kill(name)
        self._wait(0, 1)
        self._cluster.worker(name.partition("-")[0], name)

    def _pause_sink(self) -> None:
        self._cluster.pause("sink-1")  # a zombie: it wakes up when others have taken over
        self._wait(LEASE_SECONDS + 2.5, LEASE_SECONDS + 3.5)
        self._cluster.resume("sink-1")

    def _rebalance(self) -> None:
        self._cluster.worker("sink", "sink-3")
        self._wait(3, 4)
        self._cluster.kill("sink-3")  # its partitions go to the others

    def _kill_clickhouse(self) -> None:
        self._cluster.kill("clickhouse")
        self._wait(0.5, 2)
        self._cluster.start_clickhouse()

    def _pause_clickhouse(self) -> None:
        self._cluster.pause("clickhouse")
        self._wait(LEASE_SECONDS / 3 + 0.5, LEASE_SECONDS)  # beyond the time limit of requests
        self._cluster.resume("clickhouse")

    def _kill_postgres(self) -> None:
        os.kill(self._postgres.pid, signal.SIGKILL)
        self._wait(0.5, 1)
        deadline = time.monotonic() + 60
        while True:
            try:
                return self._postgres.ensure_running()
            except StoreUnavailable:  # its processes are still ending
                assert time.monotonic() < deadline

    def _wait(self, least: float, most: float) -> None:
        time.sleep(self._random.uniform(least, most))


WORKERS = ("sink-1", "sink-2", "vault-1", "charger-1")


def test_whatever_fails_every_event_counts_once(
    cluster: Cluster, kafka_cluster: Brokers, own_postgres: EmbeddedPostgres
) -> None:
    """INV-05, INV-09, INV-10: a list of faults, one after the other, under load."""
    client = cluster.api()
    for name in WORKERS:
        cluster.worker(name.partition("-")[0], name)
    cluster.worker("keeper")
    faults = Faults(
        cluster, kafka_cluster, own_postgres, os.environ.get("TALLYSTICK_KILL_SEED", "7")
    )
    load = Load(client)
    load.start()
    for _ in range(ROUNDS):
        load.wait_for_more(5)
        faults.strike()
    load.wait_for_more(5)
    total = load.end()
    cluster.settle(client, seconds=240)
    assert_exact(client, total)
    assert_quotas(client, total)


def assert_quotas(client: httpx.Client, total: int) -> None:
    """The vault counted the same, by itself."""
    deadline = time.monotonic() + 60
    while True:
        report = client.post("/v1/reconciliations/quotas", json={}).json()
        if report["is_settled"] or time.monotonic() > deadline:
            break
        time.sleep(0.2)
    assert report["agrees"] and report["is_settled"], report
    assert Decimal(report["vault_usd"]) == total * Decimal("0.00035")
