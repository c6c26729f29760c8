"""Expiry beside others: corrections under way, and events that land behind the ends noted."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tallystick.clock import DAY, HOUR
from tallystick.enforcement.overrun.causes import Causes
from tallystick.enforcement.overrun.model import Kind, Overrun, Severity
from tallystick.plumbing.clickhouse import ClickHouse
from tallystick.plumbing.embedded.postgres import EmbeddedPostgres
from tallystick.plumbing.log.horizons import never_closed
from tallystick.plumbing.postgres import transaction
from tallystick.workers.engine import wipe_derived
from tests.conftest import make_database
from tests.expiry import ExpiryWorld, expiring, month, tool_call

UNITS = 50_000
MAY, JUNE, JULY = month(2026, 5), month(2026, 6), month(2026, 7)
NOW = month(2026, 9) + 10 * DAY
"""Ninety days before it is in June."""


@pytest.fixture
def expiry(
    postgres: EmbeddedPostgres, clickhouse: ClickHouse, tmp_path: Path
) -> Iterator[ExpiryWorld]:
    url = make_database(
        postgres, f"races_{tmp_path.parent.name[-8:]}_{tmp_path.name[-20:]}".lower()
    )
    with expiring(url, clickhouse, tmp_path, NOW) as made:
        yield made


@pytest.mark.parametrize("is_correction_first", [True, False])
def test_a_correction_and_the_ends_wait_for_each_other(
    expiry: ExpiryWorld, is_correction_first: bool
) -> None:
    """Else one of before the horizon could be appended behind the end that was noted."""
    expiry.horizons.append(JUNE, NOW)
    seen: list[int] = []

    def correct() -> None:
        with transaction(expiry.world.pool) as connection:
            seen.append(expiry.horizons.corrected_from(connection))

    if is_correction_first:
        with transaction(expiry.world.pool) as connection:
            assert expiry.horizons.corrected_from(connection) == 0
            other = threading.Thread(target=expiry.horizons.store_ends, args=(JUNE, dict))
            other.start()
            other.join(0.5)
            assert other.is_alive()
    else:
        other = threading.Thread(target=correct)

        def heads() -> dict[int, int]:
            other.start()
            other.join(0.5)
            assert other.is_alive()
            return {}

        expiry.horizons.store_ends(JUNE, heads)
    other.join(10)
    assert not other.is_alive()
    correct()
    assert set(seen) == {JUNE}


def test_what_lands_behind_the_ends_is_set_aside_and_later_months_follow(
    expiry: ExpiryWorld,
) -> None:
    """A door that hung has an old event in its hands for longer than the stages take."""
    world, tenant = expiry.world, "hung"
    sent = [tool_call(tenant, "old", MAY + DAY, "r"), tool_call(tenant, "new", JULY + DAY, "r")]
    assert world.send(sent).accepted == 2
    assert expiry.expire() == JUNE
    closed_before, world.door.closed_before = world.door.closed_before, never_closed
    assert world.send([tool_call(tenant, "hung", MAY + 2 * DAY, "r")]).accepted == 1
    world.door.closed_before = closed_before
    world.settle()
    rows = expiry.store.query_rows(
        "SELECT kind FROM tallystick.deliveries WHERE tenant_id = {tenant:String}",
        {"tenant": tenant},
    )
    assert [row["kind"] for row in rows] == ["expired"]
    assert expiry.charged(tenant) == expiry.lines(tenant) == {"r": 2 * UNITS}
    assert world.verifier.violations() == []
    expiry.clock.micros += 30 * DAY
    assert expiry.expire() == JULY
    wipe_derived(world.positions, world.facts)
    world.restart_followers()
    world.settle()
    assert expiry.charged(tenant) == expiry.lines(tenant) == {"r": 2 * UNITS}
    assert expiry.count("event_id = 'hung'") == 0
    assert world.verifier.violations() == []


def test_an_overrun_of_expired_time_is_shown_without_its_causes(expiry: ExpiryWorld) -> None:
    at = MAY + DAY
    overrun = Overrun(
        overrun_id="o",
        tenant_id="t",
        kind=Kind.BURN_RATE,
        dimension="tenant",
        value="t",
        severity=Severity.CRITICAL,
        detector="burn 5m",
        since=at,
        seen_at=at,
        last_at=at + HOUR,
        observed_units=2,
        expected_units=1,
        excess_units=1,
        detail="",
    )
    causes = Causes(expiry.store)
    assert causes.of_overrun(overrun) is not None
    expiry.expire()
    assert causes.of_overrun(overrun) is None


def test_the_view_of_kept_facts_has_the_columns_of_facts(clickhouse: ClickHouse) -> None:
    """A view keeps those of its making: a migration that adds one must make it anew."""
    columns: dict[str, list[str]] = {"facts": [], "kept_facts": []}
    for row in clickhouse.query_rows(
        "SELECT table, name FROM system.columns WHERE database = 'tallystick' "
        "AND table IN ('facts', 'kept_facts') ORDER BY position"
    ):
        columns[row["table"]].append(row["name"])
    assert columns["kept_facts"] == columns["facts"] != []
