"""An event that came by two log partitions counts twice, until it is reversed as facts are."""

from __future__ import annotations

import psycopg

from tallystick.plumbing.log import PostgresLog, PostgresSource
from tallystick.plumbing.log.model import decode_payload
from tallystick.workers.sink import Sink
from tests.backfills import BackfillWorld
from tests.vault_world import follow, follower_of, rebuilt, require_agreement, spent
from tests.world import World


def test_a_reversed_double_moves_the_vault(world: World, postgres_url: str) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(b"INSERT INTO log.head (partition) VALUES (1)")
    other = PostgresLog(world.pool, 1)
    source = PostgresSource([world.log, other, world.corrections], world.positions, "sink")
    world.sink = Sink(source, world.positions, world.facts, world.catalog, world.pool, world.clock)
    call = {"event_id": "call", "event_type": "token_usage", "model": "gpt-4o", "tenant_id": "t"}
    more = {"provider": "openai", "tokens_input": 1000, "event_time": world.at(-60), "run_id": "r"}
    world.send([{**call, **more}])
    batch = world.log.read(world.log.head() - 1, batches_max=1)[0]
    columns, verdicts = decode_payload(batch.payload)
    other.append(batch.event_count, columns, batch.received_at, lambda _: verdicts)
    follower = follower_of(world, logs=[world.log, other])
    follow(follower)
    world.settle()
    assert spent(world, "t")["requests"] == 2
    require_agreement(world)
    doubles = BackfillWorld(world)
    doubles.worker._doubles_at = 0
    doubles.work()
    follow(follower)
    assert spent(world, "t")["requests"] == 1
    require_agreement(world)
    assert rebuilt(world, logs=[world.log, other], events_per_step=1).count(b"\n") == 1
