"""Holds on real PostgreSQL: earmarks, captures by policy, expiry, unknown, late settles."""

from __future__ import annotations

import subprocess
import sys
from itertools import count

import pytest

from tallystick.clock import HOUR, SECOND, FixedClock
from tallystick.errors import Conflict, NotFound
from tallystick.ledger import (
    CaptureRequest,
    ChargeRequest,
    ExtendRequest,
    GrantRequest,
    HoldRequest,
    Ledger,
    LimitPart,
    Outcome,
    RefundRequest,
    ReleaseRequest,
    Request,
    RunTarget,
    StartRequest,
)

_serial = count()


def opened(ledger: Ledger, *lots: int, limit: int | None = 0, policy: str = "cap") -> str:
    name = f"h{next(_serial)}"
    ledger.put_account(
        name, tenant_id=f"tenant-{name}", overage_limit_units=limit, capture_policy=policy
    )
    for number, units in enumerate(lots):
        ledger.apply(GrantRequest(name, units, priority=number, idempotency_key=f"g{number}"))
    return name


def hold(ledger: Ledger, account: str, units: int, **more: object) -> Outcome:
    key = f"h{next(_serial)}"
    return ledger.apply(HoldRequest(account, units, idempotency_key=key, **more))  # type: ignore[arg-type]


def capture(ledger: Ledger, held: Outcome, units: int) -> Outcome:
    request = CaptureRequest(held.hold_id, units, idempotency_key=f"c{next(_serial)}")
    outcome = ledger.apply(request)
    assert ledger.apply(request) == outcome
    return outcome


def shown(ledger: Ledger, account: str) -> tuple[int, int, int]:
    balance = ledger.balance(account)
    return balance.available, balance.held, balance.captured


def test_a_hold_over_two_lots_captured_in_part_while_one_expires(
    ledger: Ledger, clock: FixedClock
) -> None:
    """The worked example of docs/ledger.md: 10 promo (expires), 10 top-up; hold 15, capture 12.

    The promo lot expires under the hold and still pays all it promised; 3 of the top-up are
    free again; a refund of 4 goes back to the newest spend first.
    """
    account = opened(ledger)
    promo = GrantRequest(
        account, 10, "promo", 1, clock.micros + 60 * SECOND, idempotency_key="promo"
    )
    ledger.apply(promo)
    ledger.apply(GrantRequest(account, 10, idempotency_key="topup"))
    held = hold(ledger, account, 15, ttl_seconds=300)
    assert [units for _, units in held.lots] == [10, 5]
    assert shown(ledger, account) == (5, 15, 0)
    clock.micros += 61 * SECOND
    captured = capture(ledger, held, 12)
    assert (captured.moved, captured.shortfall) == (12, 0)
    assert shown(ledger, account) == (8, 0, 12)
    ledger.apply(RefundRequest(charge_id=captured.operation_id, units=4, idempotency_key="r"))
    buckets = {one.source: one for one in ledger.balance(account).buckets}
    assert (buckets["topup"].available, buckets["promo"].expired) == (10, 2)
    assert shown(ledger, account) == (10, 0, 12)


def test_what_is_released_to_an_expired_lot_expires(ledger: Ledger, clock: FixedClock) -> None:
    account = opened(ledger)
    ledger.apply(
        GrantRequest(account, 10, expires_at=clock.micros + 9 * SECOND, idempotency_key="g")
    )
    held = hold(ledger, account, 10)
    clock.micros += 10 * SECOND
    ledger.apply(ReleaseRequest(held.hold_id, idempotency_key="r"))
    assert ledger.balance(account).available == 0
    assert ledger.apply(ChargeRequest(account, 1, idempotency_key="c")).status == "declined"


@pytest.mark.parametrize(
    ("policy", "limit", "captured", "shortfall"),
    [("cap", 0, 10, 5), ("overage", 0, 12, 3), ("overage", 2, 14, 1), ("overage", None, 15, 0)],
)
def test_a_capture_above_its_hold(
    ledger: Ledger, policy: str, limit: int | None, captured: int, shortfall: int
) -> None:
    """12 credits, hold 10, the work cost 15."""
    account = opened(ledger, 12, limit=limit, policy=policy)
    outcome = capture(ledger, hold(ledger, account, 10), 15)
    assert (outcome.moved, outcome.shortfall) == (captured, shortfall)


def test_a_capture_above_its_hold_can_be_rejected(ledger: Ledger) -> None:
    account = opened(ledger, 12, policy="reject")
    held = hold(ledger, account, 10)
    refused = capture(ledger, held, 11)
    assert (refused.status, refused.code) == ("declined", "capture_above_hold")
    assert shown(ledger, account) == (2, 10, 0)
    assert capture(ledger, held, 0).moved == 0
    assert shown(ledger, account) == (12, 0, 0)


def test_a_hold_is_resolved_once(ledger: Ledger) -> None:
    """INV-07, with a stable code for each second try."""
    account = opened(ledger, 100)
    first, second = hold(ledger, account, 10), hold(ledger, account, 10)
    capture(ledger, first, 5)
    ledger.apply(ReleaseRequest(second.hold_id, idempotency_key="r"))
    for held, code in ((first, "hold_captured"), (second, "hold_released")):
        for request in (
            CaptureRequest(held.hold_id, 1, idempotency_key="again"),
            ReleaseRequest(held.hold_id, idempotency_key="again-2"),
            ExtendRequest(held.hold_id, 10, idempotency_key="again-3"),
        ):
            with pytest.raises(Conflict) as caught:
                ledger.apply(request)
            assert caught.value.code == code
    with pytest.raises(NotFound) as missing:
        ledger.apply(CaptureRequest("0" * 32, 1, idempotency_key="k"))
    assert missing.value.code == "unknown_hold"
    assert shown(ledger, account) == (95, 0, 5)


def test_a_hold_that_never_started_frees_itself_and_a_late_settle_is_recorded(
    ledger: Ledger, clock: FixedClock
) -> None:
    account = opened(ledger, 10)
    held = hold(ledger, account, 10, ttl_seconds=5)
    clock.micros += 5 * SECOND
    assert ledger.settle_due() == 1
    assert shown(ledger, account) == (10, 0, 0)
    late = capture(ledger, held, 12)
    assert (late.kind, late.moved, late.shortfall) == ("settle", 10, 2)
    with pytest.raises(Conflict, match="captured"):
        ledger.apply(CaptureRequest(held.hold_id, 1, idempotency_key="twice"))


@pytest.mark.parametrize(("actual", "available"), [(4, 6), (10, 0)])
def test_a_started_hold_never_frees_itself(
    ledger: Ledger, clock: FixedClock, actual: int, available: int
) -> None:
    """INV-08: unknown, then policy takes it all, then the late word corrects it."""
    account = opened(ledger, 10)
    held = hold(ledger, account, 10, ttl_seconds=5)
    ledger.apply(StartRequest(held.hold_id, idempotency_key="s"))
    clock.micros += 6 * SECOND
    ledger.settle_due()
    assert ledger.load_hold(held.hold_id).status == "unknown"
    assert shown(ledger, account) == (0, 10, 0)
    assert [gauge[:3] for gauge in ledger.load_hold_gauges() if gauge[1] == "unknown"]
    clock.micros += 2 * HOUR
    ledger.settle_due()
    assert shown(ledger, account)[:2] == (0, 0)
    capture(ledger, held, actual)
    assert ledger.balance(account).available == available


def test_an_unknown_hold_is_settled_by_the_facts(ledger: Ledger, clock: FixedClock) -> None:
    """The provider charged, we crashed: the run's usage arrives and pays from the hold."""
    account = opened(ledger, 10)
    held = hold(ledger, account, 10, ttl_seconds=5, run_id="run", has_started=True)
    clock.micros += 6 * SECOND
    ledger.settle_due()
    ledger.converge_run_charges([RunTarget(f"tenant-{account}", "run", 7)])
    assert shown(ledger, account) == (3, 0, 7)
    with pytest.raises(Conflict):
        ledger.apply(ReleaseRequest(held.hold_id, idempotency_key="r"))


def test_usage_that_comes_before_the_capture_is_not_charged_twice(ledger: Ledger) -> None:
    """INV-05: all credit is held; facts say 7, then the capture says 8, then facts say 8."""
    account = opened(ledger, 10)
    tenant = f"tenant-{account}"
    held = hold(ledger, account, 10, run_id="run", has_started=True)
    ledger.converge_run_charges([RunTarget(tenant, "run", 7)])
    assert shown(ledger, account) == (0, 3, 7)
    capture(ledger, held, 8)
    assert shown(ledger, account) == (2, 0, 8)
    assert ledger.load_stale_runs() == [(tenant, "run")]
    ledger.converge_run_charges([RunTarget(tenant, "run", 7)])
    assert shown(ledger, account)[0] == 3
    assert ledger.load_stale_runs() == []


def test_extend_gives_time_and_credit(ledger: Ledger, clock: FixedClock) -> None:
    account = opened(ledger, 6, 6)
    held = hold(ledger, account, 5, ttl_seconds=10)
    more = ledger.apply(ExtendRequest(held.hold_id, 60, 5, idempotency_key="e"))
    assert shown(ledger, account) == (2, 10, 0)
    assert more.due_at == clock.micros + 60 * SECOND
    declined = ledger.apply(ExtendRequest(held.hold_id, 0, 3, idempotency_key="e2"))
    assert (declined.status, declined.retry) == ("declined", "wait")
    clock.micros += 61 * SECOND
    with pytest.raises(Conflict, match="run out"):
        ledger.apply(ExtendRequest(held.hold_id, 60, idempotency_key="e3"))
    assert capture(ledger, held, 10).moved == 10


def test_a_cost_known_only_after_the_fact_is_never_declined(ledger: Ledger) -> None:
    account = opened(ledger, 10)
    request = ChargeRequest(account, 15, is_after_the_fact=True, idempotency_key="c")
    outcome = ledger.apply(request)
    assert (outcome.status, outcome.moved, outcome.shortfall) == ("posted", 10, 5)
    assert ledger.apply(request) == outcome


def test_all_limits_or_none(ledger: Ledger) -> None:
    """One hold over credit, money and tokens; the answer names the limit that decided."""
    account = opened(ledger, 100)
    usd, tokens = f"usd:{account}", f"tokens:{account}"
    ledger.put_limit(usd, asset="USD/9", capacity=50)
    ledger.put_limit(tokens, asset="tokens", capacity=1000)

    def tried(units: int, dollars: int, count: int) -> Outcome:
        limits = (LimitPart(usd, dollars), LimitPart(tokens, count))
        return hold(ledger, account, units, limits=limits)

    assert tried(101, 1, 1).decided_by == f"account:{account}"
    assert tried(10, 51, 1).decided_by == f"limit:{usd}"
    refused = tried(10, 50, 1001)
    assert (refused.code, refused.decided_by) == ("budget_exceeded", f"limit:{tokens}")
    assert shown(ledger, account) == (100, 0, 0)
    held = tried(10, 30, 400)
    assert tried(10, 30, 400).retry == "wait"
    ledger.apply(CaptureRequest(held.hold_id, 9, (LimitPart(usd, 60),), idempotency_key="over"))
    found = {one.limit_id: one for one in ledger.load_limits([usd, tokens])}
    assert (found[usd].used, found[usd].overrun, found[tokens].used) == (60, 10, 400)
    assert tried(1, 1, 1).decided_by == f"limit:{usd}"


def same_group(ledger: Ledger, *requests: Request) -> list[object]:
    return list(ledger.apply_batch(requests))


def test_one_bad_item_never_changes_its_neighbours(ledger: Ledger) -> None:
    account = opened(ledger, 10)
    answers = same_group(
        ledger,
        HoldRequest(account, 4, idempotency_key="a"),
        HoldRequest(account, 0, idempotency_key="b"),
        HoldRequest("nobody", 1, idempotency_key="c"),
        HoldRequest(account, 7, idempotency_key="d"),
        HoldRequest(account, 4, idempotency_key="a"),
        HoldRequest(account, 5, idempotency_key="a"),
        HoldRequest(account, 6, idempotency_key="e"),
        HoldRequest(account, 1, idempotency_key="x" * 129),
        CaptureRequest("not-an-id", 1, idempotency_key="f"),
    )
    codes = [getattr(one, "code", None) for one in answers]
    assert codes == [
        "",
        "amount_not_positive",
        "unknown_account",
        "credit_exhausted",
        "",
        "idempotency_conflict",
        "",
        "key_too_long",
        "unknown_hold",
    ]
    assert answers[0] == answers[4]
    assert shown(ledger, account) == (0, 10, 0)


def test_a_batch_as_a_whole_is_applied_or_remembered_as_declined(ledger: Ledger) -> None:
    account = opened(ledger, 10)
    items = [HoldRequest(account, 6, idempotency_key=f"w{number}") for number in range(2)]
    first = ledger.apply_batch(items, all_or_nothing=True)
    assert [one.code for one in first] == ["batch_declined", "credit_exhausted"]
    assert shown(ledger, account) == (10, 0, 0)
    ledger.apply(GrantRequest(account, 100, idempotency_key="more"))
    assert ledger.apply_batch(items, all_or_nothing=True) == first
    fresh = [HoldRequest(account, 6, idempotency_key=f"v{number}") for number in range(2)]
    broken = ledger.apply_batch(
        [*fresh, HoldRequest("nobody", 1, idempotency_key="v")], all_or_nothing=True
    )
    assert [one.code for one in broken] == [
        "batch_not_applied",
        "batch_not_applied",
        "unknown_account",
    ]
    again = ledger.apply_batch(fresh, all_or_nothing=True)
    assert [one.status for one in again if isinstance(one, Outcome)] == ["posted", "posted"]


_WORKER = """
import sys
from tallystick.clock import SystemClock
from tallystick.ids import Uuid7Source
from tallystick.ledger import HoldRequest, Ledger
from tallystick.plumbing.postgres import open_pool
url, account, number = sys.argv[1:]
pool = open_pool(url, connections_max=1)
ledger = Ledger(pool, SystemClock(), Uuid7Source(SystemClock()))
posted = 0
for start in range(0, 600, 50):
    group = [
        HoldRequest(account, 1, idempotency_key=f"p{number}-{n}") for n in range(start, start + 50)
    ]
    posted += sum(one.status == "posted" for one in ledger.apply_batch(group))
sys.stdout.write(str(posted))
pool.close()
"""


def test_one_account_from_many_processes(ledger: Ledger, postgres_url: str) -> None:
    """INV-03: 8 processes ask for 4,800 of 1,000 units in groups; exactly 1,000 are held."""
    account = opened(ledger, 1000)
    command = [sys.executable, "-c", _WORKER, postgres_url, account]
    workers = [
        subprocess.Popen([*command, str(number)], stdout=subprocess.PIPE) for number in range(8)
    ]
    posted = [int(worker.communicate()[0]) for worker in workers]
    assert sum(posted) == 1000
    assert shown(ledger, account) == (0, 1000, 0)
