"""A fix that was cut off, or raced: a broken message becomes at most one event."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest

from tallystick.broken import BrokenFilter, BrokenMessages
from tallystick.broken.store import BrokenStore
from tallystick.errors import Conflict, TallystickError
from tallystick.plumbing.clickhouse import ClickHouse
from tests.world import World

_tenants = count()


class Broken:
    """One broken message of a tenant of its own, and what can be done about it."""

    def __init__(self, world: World, clickhouse: ClickHouse) -> None:
        self.world = world
        self.tenant = f"claims{next(_tenants)}"
        self.messages = BrokenMessages(world.pool, clickhouse, world.door, world.clock)
        self.store = BrokenStore(world.pool)
        world.send(
            [
                {
                    "event_id": "e1",
                    "event_type": "token_usage",
                    "event_time": world.at(),
                    "tenant_id": self.tenant,
                    "tokens_input": 5,
                    "attempt": 0,
                }
            ]
        )
        world.settle()
        (message,) = self.page()
        self.id: str = message["broken_id"]

    def page(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.messages.page(BrokenFilter(self.tenant))[
            "broken_messages"
        ]
        return found

    async def fix(self, **changes: Any) -> str:
        try:
            answer = await self.messages.fix(self.id, {"attempt": 1, **changes}, "tester")
        except TallystickError as error:
            return error.code
        return str(answer["outcome"])

    def calls(self) -> int:
        self.world.settle()
        return int(self.world.totals(self.tenant)["calls"])


@pytest.fixture
def broken(world: World, clickhouse: ClickHouse) -> Iterator[Broken]:
    yield Broken(world, clickhouse)
    assert world.verifier.violations() == []


def test_a_fix_that_died_after_its_claim_is_finished_by_the_same_fix(broken: Broken) -> None:
    key = (broken.tenant, broken.id)
    assert broken.store.claim({key: "e1"}, 1, "someone who died") == {key}
    assert broken.page()[0]["status"] == "open"
    assert asyncio.run(broken.fix(event_id="e2")) == "already_fixed"
    with pytest.raises(Conflict):
        broken.messages.dismiss(broken.id, "no", "tester")
    assert asyncio.run(broken.fix()) == "accepted"
    assert (broken.page()[0]["status"], broken.calls()) == ("fixed", 1)


def test_a_fix_that_died_after_its_append_finds_a_duplicate(broken: Broken) -> None:
    key = (broken.tenant, broken.id)
    broken.store.claim({key: "e1"}, 1, "someone who died")
    fact = broken.messages._facts.query_one(broken.id)
    repaired = broken.messages._repair(fact, {"attempt": 1})
    asyncio.run(broken.world.door.append([repaired.event]))
    assert asyncio.run(broken.fix()) == "duplicate"
    assert (broken.page()[0]["status"], broken.calls()) == ("fixed", 1)


def test_fixes_that_race_make_one_event(broken: Broken) -> None:
    async def race() -> list[str]:
        fixes = [broken.fix(event_id=f"e{number % 3}") for number in range(12)]
        return list(await asyncio.gather(*fixes))

    outcomes = asyncio.run(race())
    assert outcomes.count("accepted") == 1
    assert outcomes.count("duplicate") == 3
    assert outcomes.count("already_fixed") == 8
    assert broken.calls() == 1


def test_history_of_actions_cannot_be_changed(broken: Broken) -> None:
    asyncio.run(broken.fix())
    with (
        pytest.raises(Exception, match=r"permission denied|append-only"),
        broken.world.pool.connection() as connection,
    ):
        connection.execute("DELETE FROM broken.action")
