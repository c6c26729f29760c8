"""Mitigations on a real PostgreSQL: in force everywhere in a second, undone, expired, audited."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator

import psycopg
import pytest
from psycopg_pool import ConnectionPool

from tallystick.clock import SECOND, FixedClock, SystemClock
from tallystick.enforcement.authorization import Ask
from tallystick.enforcement.overrun import MitigationGuard, Mitigations
from tallystick.enforcement.overrun.model import Rung, Step
from tallystick.errors import Blocked, Conflict, InvalidInput, NotFound, TooManyRequests
from tallystick.ids import Uuid7Source
from tallystick.plumbing.postgres import open_pool

BLOCK = Rung(step=Step.BLOCK, ttl_seconds=600)


@pytest.fixture(scope="module")
def pool(postgres_url: str) -> Iterator[ConnectionPool]:
    opened = open_pool(postgres_url, connections_max=4)
    yield opened
    opened.close()


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(SystemClock().now())


@pytest.fixture
def mitigations(pool: ConnectionPool, clock: FixedClock) -> Mitigations:
    return Mitigations(pool, clock, Uuid7Source(clock))


@pytest.fixture
def guard(pool: ConnectionPool, clock: FixedClock) -> MitigationGuard:
    return MitigationGuard(pool, clock)


def ask(tenant: str = "acme", **attribution: str) -> Ask:
    return Ask(
        account_id=tenant,
        tenant_id=tenant,
        credit_units=1,
        attribution=attribution,
        idempotency_key="k",
    )


def check(guard: MitigationGuard, asked: Ask) -> None:
    guard.refresh()
    asyncio.run(guard.check(asked))


def test_a_block_stops_its_scope_and_nothing_else(
    mitigations: Mitigations, guard: MitigationGuard
) -> None:
    scope = {"key": "k1", "feature": "import"}
    made = mitigations.apply("acme", scope, BLOCK, "a loop", "admin")
    with pytest.raises(Blocked) as refused:
        check(guard, ask(key="k1", feature="import", user="u1"))
    assert refused.value.decided_by == f"mitigation:{made.mitigation_id}"
    check(guard, ask(key="k1", feature="chat"))
    check(guard, ask(key="k2", feature="import"))
    check(guard, ask("globex", key="k1", feature="import"))
    mitigations.undo("acme", made.mitigation_id, "mended", "admin")
    check(guard, ask(key="k1", feature="import"))


def test_a_kill_switch_ends_work_under_way_too(
    mitigations: Mitigations, guard: MitigationGuard
) -> None:
    blocked = mitigations.apply("t-kill", {}, BLOCK, "stop", "admin")
    guard.refresh()
    guard.check_running(ask("t-kill"))
    killed = mitigations.apply("t-kill", {}, Rung(step=Step.KILL), "stop all", "admin")
    guard.refresh()
    with pytest.raises(Blocked, match="stop all"):
        guard.check_running(ask("t-kill"))
    for one in (blocked, killed):
        mitigations.undo("t-kill", one.mitigation_id, "over", "admin")


def test_a_step_ends_by_itself_and_says_so(
    mitigations: Mitigations, guard: MitigationGuard, clock: FixedClock
) -> None:
    made = mitigations.apply("t-ttl", {"user": "u"}, BLOCK, "a loop", "admin")
    with pytest.raises(Blocked):
        check(guard, ask("t-ttl", user="u"))
    clock.micros += 600 * SECOND
    check(guard, ask("t-ttl", user="u"))
    assert mitigations.expire() >= 1
    assert mitigations.expire() == 0
    found, events = mitigations.get("t-ttl", made.mitigation_id)
    assert found.ended_at == found.expires_at
    assert [event.kind for event in events] == ["applied", "expired"]


def test_a_throttle_lets_a_few_pass(
    mitigations: Mitigations, guard: MitigationGuard, clock: FixedClock
) -> None:
    rung = Rung(step=Step.THROTTLE, per_minute=120)
    mitigations.apply("t-slow", {"key": "k"}, rung, "slow down", "admin")
    passed = 0
    for _ in range(600):
        clock.micros += SECOND // 10
        try:
            check(guard, ask("t-slow", key="k"))
            passed += 1
        except TooManyRequests:
            continue
    assert 118 <= passed <= 123


def test_a_downgrade_names_the_model_to_call(
    mitigations: Mitigations, guard: MitigationGuard
) -> None:
    rung = Rung(step=Step.DOWNGRADE, downgrade_to="gpt-4o-mini")
    mitigations.apply("t-down", {"feature": "chat"}, rung, "too dear", "admin")
    dear = ask("t-down", feature="chat", model="gpt-4o")
    with pytest.raises(Blocked, match="gpt-4o-mini"):
        check(guard, dear)
    advice = guard.advise(dear)
    assert advice is not None and advice.model == "gpt-4o-mini"
    check(guard, ask("t-down", feature="chat", model="gpt-4o-mini"))
    assert guard.advise(ask("t-down", feature="chat", model="gpt-4o-mini")) is None


def test_the_same_key_makes_one_mitigation(mitigations: Mitigations) -> None:
    first = mitigations.apply("t-key", {"key": "k"}, BLOCK, "why", "admin", idempotency_key="1")
    again = mitigations.apply("t-key", {"key": "k"}, BLOCK, "why", "admin", idempotency_key="1")
    assert again == first
    with pytest.raises(Conflict):
        mitigations.apply("t-key", {"key": "x"}, BLOCK, "why", "admin", idempotency_key="1")


@pytest.mark.parametrize(
    ("scope", "rung", "reason"),
    [
        ({"colour": "red"}, BLOCK, "why"),
        ({"key": ""}, BLOCK, "why"),
        ({"key": "k"}, BLOCK, " "),
        ({"key": "k"}, Rung(step=Step.ALERT), "why"),
        ({"key": "k"}, Rung(step=Step.DOWNGRADE), "why"),
        ({"key": "k"}, Rung(step=Step.BLOCK, ttl_seconds=10**8), "why"),
    ],
)
def test_what_makes_no_sense_is_refused(
    mitigations: Mitigations, scope: dict[str, str], rung: Rung, reason: str
) -> None:
    with pytest.raises(InvalidInput):
        mitigations.apply("acme", scope, rung, reason, "admin")


def test_another_tenant_sees_and_undoes_nothing(mitigations: Mitigations) -> None:
    made = mitigations.apply("t-own", {"key": "k"}, BLOCK, "why", "admin")
    with pytest.raises(NotFound):
        mitigations.undo("t-other", made.mitigation_id, "mine?", "eve")
    with pytest.raises(NotFound):
        mitigations.get("t-other", made.mitigation_id)
    assert mitigations.newest("t-other", is_active=False, limit=10) == []


def test_the_audit_trail_cannot_be_changed(pool: ConnectionPool, mitigations: Mitigations) -> None:
    mitigations.apply("t-audit", {"key": "k"}, BLOCK, "why", "admin")
    for statement in (
        b"UPDATE enforcement.mitigation_event SET reason = 'other'",
        b"DELETE FROM enforcement.mitigation_event",
    ):
        with pytest.raises(psycopg.Error), pool.connection() as connection:
            connection.execute(statement)


def test_a_check_takes_microseconds(mitigations: Mitigations, guard: MitigationGuard) -> None:
    for number in range(200):
        mitigations.apply("t-many", {"key": f"k{number}"}, BLOCK, "why", "admin")
    guard.refresh()
    asked = ask("t-many", key="free", user="u", feature="f", model="m", team="t")

    async def many() -> float:
        started = time.perf_counter()
        for _ in range(2_000):
            await guard.check(asked)
        return (time.perf_counter() - started) / 2_000

    assert asyncio.run(many()) < 100e-6  # about 4 microseconds; a busy machine has room


def test_a_step_and_its_undo_reach_every_process_within_a_second(
    postgres_url: str, pool: ConnectionPool
) -> None:
    clock = SystemClock()
    mitigations = Mitigations(pool, clock, Uuid7Source(clock))
    command = [sys.executable, "-m", "tests.guard_process", postgres_url, "k-everywhere"]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        for process in processes:
            assert _line(process) == ["ready"]
        made = mitigations.apply("acme", {"key": "k-everywhere"}, BLOCK, "a loop", "admin")
        _expect(processes, "blocked", time.monotonic_ns())
        mitigations.undo("acme", made.mitigation_id, "mended", "admin")
        _expect(processes, "free", time.monotonic_ns())
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def _expect(processes: list[subprocess.Popen[str]], word: str, since_ns: int) -> None:
    for process in processes:
        said, moment = _line(process)
        assert said == word
        assert int(moment) - since_ns < 10**9


def _line(process: subprocess.Popen[str]) -> list[str]:
    assert process.stdout is not None
    return process.stdout.readline().split()
