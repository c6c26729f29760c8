"""The vault beside Kafka: judges by itself, killed, its folder lost, and exact all the same."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tallystick.clock import DAY, SystemClock, format_time
from tallystick.plumbing.log.kafka import KafkaWriter
from tests.distributed import Cluster
from tests.integration.test_distributed import read_all
from tests.kafka_brokers import Brokers

pytestmark = pytest.mark.slow


@pytest.fixture
def cluster(tmp_path: Path, postgres_url: str, kafka_broker: Brokers) -> Iterator[Cluster]:
    made = Cluster(
        tmp_path,
        postgres_url,
        kafka_broker.bootstrap,
        f"vault-{os.getpid()}",
        TALLYSTICK_KAFKA_PARTITIONS="2",
        TALLYSTICK_KAFKA_BROKEN_BY="vault",
    )
    yield made
    made.stop()


def wait_for(client: httpx.Client, cluster: Cluster, requests: int) -> dict[str, Any]:
    deadline = time.monotonic() + 90
    while True:
        past = {"from": "2020-01-01T00:00:00Z"}
        answer = client.get("/v1/quotas", params={"tenant_id": "acme", **past}).json()
        if answer["spent"]["requests"] == requests:
            spent: dict[str, Any] = answer["spent"]
            return spent
        assert time.monotonic() < deadline, f"{answer}\n{cluster.logs()}"
        time.sleep(0.2)


def test_a_vault_that_lost_its_folder_judges_as_before(cluster: Cluster) -> None:
    """Without a sink; then a sink comes, and both agree to the nano-dollar."""
    client, now = cluster.api(), SystemClock().now()
    events = [
        {
            "event_id": f"e-{number}",
            "event_type": "token_usage",
            "event_time": format_time(now - (20 * DAY if number % 10 == 0 else 0)),
            "tenant_id": "acme",
            "run_id": f"run-{number % 7}",
            "user_id": f"u-{number % 3}",
            "provider": "openai",
            "model": "gpt-4o",
            "tokens_input": number,
        }
        for number in range(200)
    ]
    cluster.worker("vault")
    writer = KafkaWriter(cluster.kafka)
    writer.append(cluster.kafka.topic, [(b"x", b'{"event_id": "half')])
    writer.close()
    assert client.post("/v1/events", json=events + events[:20]).status_code == 200
    wait_for(client, cluster, 200)
    cluster.kill("vault")
    again = [*events[:30], {**events[0], "event_id": "new"}]
    assert client.post("/v1/events", json=again).status_code == 200
    cluster.worker("vault", "another")  # a folder of its own: its indexes are made anew
    wait_for(client, cluster, 201)
    (told,) = read_all(cluster.kafka.broken_topic, cluster.kafka)  # where no sink has run
    assert json.loads(told.value)["code"] == "invalid_json"
    for role in ("sink", "keeper", "charger"):
        cluster.worker(role)
    cluster.settle(client)
    report = client.post("/v1/reconciliations/quotas", json={}).json()
    assert report["agrees"] and report["is_settled"], report
    assert report["vault_usd"] == report["analytics_usd"] != "0"
