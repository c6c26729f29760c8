"""A ledger on a real database at a clock that stands; what it keeps is verified after each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tallystick.clock import FixedClock
from tallystick.ids import Uuid7Source
from tallystick.ledger import Ledger
from tallystick.plumbing.postgres import open_pool

NOW = 1_790_000_000_000_000


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(NOW)


@pytest.fixture
def ledger(postgres_url: str, clock: FixedClock) -> Iterator[Ledger]:
    pool = open_pool(postgres_url, connections_max=6)
    made = Ledger(pool, clock, Uuid7Source(clock))
    yield made
    assert made.verify() == []
    pool.close()
