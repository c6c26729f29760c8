"""The archiver beside Kafka: its own judge, killed, taken over, and exact all the same."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tallystick.archive import Archive, verify_archive
from tallystick.clock import SystemClock, format_time
from tallystick.plumbing.log import CORRECTIONS, Verdict
from tallystick.plumbing.objects import open_objects
from tests.distributed import Cluster
from tests.kafka_brokers import Brokers


@pytest.fixture
def cluster(tmp_path: Path, postgres_url: str, kafka_broker: Brokers) -> Iterator[Cluster]:
    made = Cluster(
        tmp_path,
        postgres_url,
        kafka_broker.bootstrap,
        f"archived-{os.getpid()}",
        TALLYSTICK_KAFKA_PARTITIONS="2",
        TALLYSTICK_ARCHIVE_URL=str(tmp_path / "archive"),
        TALLYSTICK_ARCHIVE_FLUSH_SECONDS="1",
    )
    yield made
    made.stop()


def verdict_counts(archive: Archive) -> dict[int, int]:
    """How many deliveries the archive holds, by verdict."""
    found: dict[int, int] = {}
    for partition in archive.partitions():
        for link in archive.links(partition) if partition != CORRECTIONS else ():
            for one in link.manifest.objects:
                table = pq.read_table(pa.BufferReader(archive.objects.get(one.name)))
                for verdict in table.column("verdict").to_pylist():
                    found[verdict] = found.get(verdict, 0) + 1
    return found


def wait_for(archive: Archive, wanted: dict[int, int], cluster: Cluster) -> None:
    deadline = time.monotonic() + 60
    while verdict_counts(archive) != wanted:
        assert time.monotonic() < deadline, f"{verdict_counts(archive)}\n{cluster.logs()}"
        time.sleep(0.2)


def test_an_archiver_that_lost_its_folder_judges_as_before(
    cluster: Cluster, tmp_path: Path
) -> None:
    client, now = cluster.api(), SystemClock().now()
    events = [
        {
            "event_id": f"e-{number}",
            "event_type": "token_usage",
            "event_time": format_time(now),
            "tenant_id": "acme",
            "run_id": f"run-{number % 7}",
            "tokens_input": number,
        }
        for number in range(200)
    ]
    archive = Archive(open_objects(str(tmp_path / "archive")))
    cluster.worker("archiver")
    assert client.post("/v1/events", json=events).status_code == 200
    wait_for(archive, {Verdict.ORIGINAL: 200}, cluster)
    cluster.kill("archiver")
    again = [*events[:30], {**events[0], "event_id": "new"}]
    assert client.post("/v1/events", json=again).status_code == 200
    cluster.worker("archiver", "another")  # its index is made anew of the archive, not of facts
    wait_for(archive, {Verdict.ORIGINAL: 201, Verdict.DUPLICATE: 30}, cluster)
    assert verify_archive(archive).violations == []
