"""What was sent under a tenure that is over lands no more, also when the owner is the same.

A network that stands still delivers a request late; here the test keeps it back and delivers it.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping

import pytest

from tallystick.analytics.store import FactStore
from tallystick.errors import LeaseLost, StoreUnavailable
from tallystick.plumbing.clickhouse import ClickHouse
from tallystick.plumbing.leases import Leases
from tallystick.plumbing.postgres import open_pool
from tallystick.workers.fenced import Fenced
from tallystick.workers.loop import FollowerLoop

LANE = "lane/fence-test"


class OneRow:
    """A follower that writes a row a step, and remembers its request as it was sent."""

    name = "one-row"

    def __init__(self, store: ClickHouse, leases: Leases) -> None:
        self._store = store
        self._leases = leases
        self._facts = FactStore(store, leases.epochs)
        self.sent: list[str] = []

    def step(self) -> bool:
        self._leases.take([LANE])
        condition = self._facts._may_write()
        self.sent.append(
            "INSERT INTO tallystick.deliveries (tenant_id, event_id) "
            f"SELECT 'fence', 'row-{len(self.sent)}' WHERE {condition}"
        )
        self._store.command(self.sent[-1])
        return True

    def recover(self) -> None:
        """Nothing is only in memory."""


def landed(store: ClickHouse) -> list[str]:
    rows = store.query_rows(
        "SELECT event_id FROM tallystick.deliveries WHERE tenant_id = 'fence' ORDER BY event_id"
    )
    return [str(row["event_id"]) for row in rows]


def test_a_request_from_before_a_failure_lands_no_more(
    postgres_url: str, clickhouse: ClickHouse
) -> None:
    pool, facts = open_pool(postgres_url, connections_max=2), FactStore(clickhouse)
    told: list[Mapping[str, int]] = []

    def announce(epochs: Mapping[str, int]) -> None:
        told.append(dict(epochs))
        facts.announce(epochs)

    leases = Leases(pool, "the same owner", seconds=30, announce=announce)
    follower = OneRow(clickhouse, leases)
    fenced = Fenced(follower, leases)
    fenced.step()
    fenced.step()
    assert landed(clickhouse) == ["row-0", "row-1"]
    clickhouse.command(follower.sent[0])
    assert landed(clickhouse) == ["row-0", "row-0", "row-1"], "within a tenure nothing stops it"
    fenced.recover()
    fenced.step()
    clickhouse.command(follower.sent[1])  # it was on its way all the time
    assert landed(clickhouse) == ["row-0", "row-0", "row-1", "row-2"]
    assert told == [{LANE: 1}, {LANE: 2}]
    leases.release_all()
    pool.close()


def test_a_lease_that_is_over_stays_in_the_fence(postgres_url: str, clickhouse: ClickHouse) -> None:
    """One of two leases ran out while the owner hung, and another took it over: nothing lands."""
    pool, facts = open_pool(postgres_url, connections_max=2), FactStore(clickhouse)
    now = [0.0]
    names = ["sink/fence-0", "sink/fence-1"]
    slow, quick = (
        Leases(pool, owner, seconds=30, announce=facts.announce, tick=lambda: now[0])
        for owner in ("slow", "quick")
    )
    slow.take(names[:1])
    now[0] = 9.0
    slow.take(names[1:])
    now[0] = 31.0
    with pool.connection() as connection:
        connection.execute(
            b"UPDATE log.lease SET expires_at = clock_timestamp() - interval '1 s' WHERE name = %s",
            names[:1],
        )
    quick.take(names[:1])
    before = len(landed(clickhouse))
    with pytest.raises(LeaseLost):
        FactStore(clickhouse, slow.epochs)._write(
            lambda may_write: clickhouse.command(
                "INSERT INTO tallystick.deliveries (tenant_id, event_id) "
                f"SELECT 'fence', 'too-late' WHERE {may_write}"
            )
        )
    assert len(landed(clickhouse)) == before
    for one in (slow, quick):
        one.release_all()
    pool.close()


class AwayTwice:
    """A follower whose stores are away when it steps, and still when it recovers."""

    name = "away-twice"

    def __init__(self) -> None:
        self.told: list[str] = []
        self.done = threading.Event()

    def step(self) -> bool:
        self.told.append("step")
        if self.told.count("step") == 1:
            raise StoreUnavailable("away")
        self.done.set()
        return False

    def recover(self) -> None:
        self.told.append("recover")
        if self.told.count("recover") == 1:
            raise StoreUnavailable("still away")


def test_a_store_that_is_away_during_recovery_ends_no_follower() -> None:
    follower = AwayTwice()
    loop = FollowerLoop(follower, idle_seconds=0.01)
    loop.start()
    assert follower.done.wait(30)
    loop.stop()
    assert follower.told[:4] == ["step", "recover", "recover", "step"]
