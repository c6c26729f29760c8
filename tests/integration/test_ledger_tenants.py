"""What another tenant has does not exist: the same answer as for what nobody ever made."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import pytest

from tallystick.clock import SystemClock
from tallystick.errors import TallystickError
from tallystick.ids import Uuid7Source
from tallystick.ledger import (
    CaptureRequest,
    ChargeRequest,
    ExtendRequest,
    GrantRequest,
    HoldRequest,
    LeaseRequest,
    Ledger,
    Outcome,
    RefundRequest,
    ReleaseRequest,
    ReportRequest,
    Request,
    ReturnRequest,
    StartRequest,
)
from tallystick.plumbing.postgres import open_pool


@pytest.fixture(scope="module")
def ledger(postgres_url: str) -> Iterator[Ledger]:
    pool = open_pool(postgres_url, connections_max=2)
    clock = SystemClock()
    made = Ledger(pool, clock, Uuid7Source(clock))
    for tenant_id in ("acme", "globex"):
        made.put_account(tenant_id, tenant_id=tenant_id)
        made.apply(GrantRequest(idempotency_key="g", account_id=tenant_id, units=10**9))
    yield made
    pool.close()


def _failure(ledger: Ledger, request: Request, tenant_id: str) -> tuple[str, str]:
    with pytest.raises(TallystickError) as refused:
        ledger.apply(request, tenant_id=tenant_id)
    return refused.value.code, refused.value.message


def _made(ledger: Ledger) -> dict[str, Outcome]:
    """What acme has: an open hold, one that ended, an open lease, one that ended, a charge."""
    key = str(uuid4())
    hold = HoldRequest(idempotency_key=key, account_id="acme", units=5, run_id=key)
    ended = HoldRequest(idempotency_key=key + "e", account_id="acme", units=5)
    lease = LeaseRequest(idempotency_key=key + "l", account_id="acme", units=5)
    given_back = LeaseRequest(idempotency_key=key + "r", account_id="acme", units=5)
    charge = ChargeRequest(idempotency_key=key + "c", account_id="acme", units=5)
    asked = {"hold": hold, "ended": ended, "lease": lease, "back": given_back, "charge": charge}
    found = {name: ledger.apply(one, tenant_id="acme") for name, one in asked.items()}
    ledger.apply(
        CaptureRequest(idempotency_key="x", hold_id=found["ended"].hold_id, units=5),
        tenant_id="acme",
    )
    ledger.apply(
        ReturnRequest(idempotency_key="x", lease_id=found["back"].hold_id, used_units=1, epoch=1),
        tenant_id="acme",
    )
    return found


def _requests(hold: str, lease: str, charge: str, run: str, account: str) -> list[Request]:
    key = "k-" + str(uuid4())
    return [
        HoldRequest(idempotency_key=key, account_id=account, units=1),
        LeaseRequest(idempotency_key=key + "l", account_id=account, units=1),
        GrantRequest(idempotency_key=key + "g", account_id=account, units=1),
        ChargeRequest(idempotency_key=key + "c", account_id=account, units=1),
        CaptureRequest(idempotency_key=key, hold_id=hold, units=1),
        ReleaseRequest(idempotency_key=key, hold_id=hold),
        StartRequest(idempotency_key=key, hold_id=hold),
        ExtendRequest(idempotency_key=key, hold_id=hold, units=1),
        ReportRequest(idempotency_key=key, lease_id=lease, used_units=1, epoch=1),
        ReturnRequest(idempotency_key=key, lease_id=lease, used_units=1, epoch=1),
        RefundRequest(idempotency_key=key, charge_id=charge, units=1),
        RefundRequest(idempotency_key=key, tenant_id="acme", run_id=run, units=1),
    ]


def test_another_tenants_things_answer_like_things_that_never_were(ledger: Ledger) -> None:
    made = _made(ledger)
    before = ledger.balance("acme")
    ids = [str(uuid4()) for _ in range(3)]
    nothing = _requests(ids[0], ids[1], ids[2], "no-run", "no-account")
    for is_ended in (False, True):
        foreign = _requests(
            made["ended" if is_ended else "hold"].hold_id,
            made["back" if is_ended else "lease"].hold_id,
            made["charge"].operation_id,
            "no-run",
            "acme",
        )
        for there, nowhere in zip(foreign, nothing, strict=True):
            answer = _failure(ledger, there, "globex")
            assert answer == _failure(ledger, nowhere, "globex"), there
            assert answer[0].startswith("unknown_"), there
    assert ledger.balance("acme") == before


def test_a_known_key_of_another_tenant_is_not_replayed(ledger: Ledger) -> None:
    request = HoldRequest(idempotency_key=str(uuid4()), account_id="acme", units=1)
    outcome = ledger.apply(request, tenant_id="acme")
    capture = CaptureRequest(idempotency_key="end", hold_id=outcome.hold_id, units=1)
    ledger.apply(capture, tenant_id="acme")
    assert _failure(ledger, request, "globex")[0] == "unknown_account"
    assert _failure(ledger, capture, "globex")[0] == "unknown_hold"
    # the tenant is no part of the digest: the operator's repetition is the same request
    assert ledger.apply(request) == outcome
    assert ledger.apply(request, tenant_id="acme") == outcome


def test_a_batch_with_another_tenants_hold_is_not_applied_as_a_whole(ledger: Ledger) -> None:
    made = _made(ledger)
    own = HoldRequest(idempotency_key=str(uuid4()), account_id="globex", units=1)
    foreign = ReleaseRequest(idempotency_key="r", hold_id=made["hold"].hold_id)
    before = ledger.balance("globex")
    answers = ledger.apply_batch([own, foreign], all_or_nothing=True, tenant_id="globex")
    assert [getattr(one, "code", "") for one in answers] == ["batch_not_applied", "unknown_hold"]
    assert ledger.balance("globex") == before


def test_reading_another_tenants_account_and_hold(ledger: Ledger) -> None:
    made = _made(ledger)
    assert ledger.balance("acme", tenant_id="acme").account_id == "acme"
    assert ledger.load_hold(made["hold"].hold_id, tenant_id="acme").account_id == "acme"
    assert ledger.entries("acme", tenant_id="acme")[0]
    for read in (
        lambda: ledger.balance("acme", tenant_id="globex"),
        lambda: ledger.entries("acme", tenant_id="globex"),
        lambda: ledger.load_hold(made["hold"].hold_id, tenant_id="globex"),
    ):
        with pytest.raises(TallystickError) as refused:
            read()
        assert refused.value.code in ("unknown_account", "unknown_hold")
