"""Intake: a request is checked, and its key and content are hashed, before it joins a group.

A request that cannot be valid whatever the state is refused here, so that it never costs
its neighbours anything.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

import msgspec

from tallystick.bounds import HOLD_SECONDS_MAX, ID_LENGTH_MAX, LIMITS_PER_HOLD_MAX
from tallystick.errors import InvalidInput, NotFound
from tallystick.ids import uuid_text
from tallystick.ledger.model import (
    CaptureRequest,
    ChargeRequest,
    DueRequest,
    ExtendRequest,
    GrantRequest,
    HoldRequest,
    LeaseRequest,
    LimitPart,
    RefundRequest,
    ReleaseRequest,
    ReportRequest,
    Request,
    ReturnRequest,
    StartRequest,
)

SOURCES = ("plan", "topup", "promo")
UNITS_MAX = 10**16
"""Ten billion credits in one request: sums of many stay within 64 bits."""

_REASON_LENGTH_MAX = 1000
_TIME_MAX = 2**62
_encoder = msgspec.msgpack.Encoder()


class Prepared(NamedTuple):
    """A checked request, the hash of its key within its scope, and of its content."""

    request: Request
    account_id: str
    """The account it names; "" when that is known only by a hold, lease or charge."""
    operation_id: str
    """The hold, lease or charge it names; "" when it names an account."""
    key_hash: str | None
    digest: str
    tenant_id: str = ""
    """Whose accounts it may move; "" is the operator, who may move any. No part of the digest:
    the same request is the same whoever sends it."""


def prepare(request: Request, tenant_id: str = "") -> Prepared:
    """Check a request; raises InvalidInput or NotFound naming the field and the mend.

    With a tenant, what belongs to another one is decided as if it did not exist.
    """
    account_id, operation_id = "", ""
    if isinstance(request, HoldRequest | ChargeRequest | GrantRequest | LeaseRequest):
        account_id = request.account_id
        scope = f"account {account_id}"
        if not account_id or "\0" in account_id:
            raise NotFound("there is no such account", code="unknown_account")
        check_units(request.units, "amount")
        _check_account_request(request)
    elif isinstance(request, RefundRequest):
        scope, operation_id = _check_refund(request)
    else:
        operation_id = scope = _check_hold_request(request)
    content = type(request).__name__.encode() + _encoder.encode(_content_of(request))
    key_hash = None
    if not isinstance(request, DueRequest):
        check_key(request.idempotency_key)
        key_hash = _hash(f"{len(scope)} {scope} {request.idempotency_key}".encode())
    return Prepared(request, account_id, operation_id, key_hash, _hash(content), tenant_id)


def _content_of(request: Request) -> Request:
    """What a key stands for: which limits work falls under follows from it, at its time."""
    if isinstance(request, HoldRequest | ChargeRequest) and request.limits:
        return msgspec.structs.replace(request, limits=())
    return request


def _hash(content: bytes) -> str:
    return uuid_text(hashlib.sha256(content).hexdigest())[:36]


def _check_account_request(
    request: HoldRequest | ChargeRequest | GrantRequest | LeaseRequest,
) -> None:
    if isinstance(request, GrantRequest):
        if request.source not in SOURCES:
            raise InvalidInput(f"source must be one of {', '.join(SOURCES)}", field="source")
        if not 0 <= request.priority < 2**15:
            raise InvalidInput("priority must be from 0 to 32767", field="priority")
        if request.expires_at is not None and request.expires_at >= _TIME_MAX:
            raise InvalidInput("expires_at is too far away", field="expires_at")
        return
    if isinstance(request, HoldRequest | LeaseRequest):
        check_ttl(request.ttl_seconds, least=1)
    if isinstance(request, HoldRequest | ChargeRequest) and request.run_id:
        check_id(request.run_id, "run_id")
    if isinstance(request, HoldRequest | ChargeRequest) and request.limits:
        _check_limits(request.limits)
    if isinstance(request, ChargeRequest):
        check_text(request.reason, "reason")
    if isinstance(request, LeaseRequest) and request.worker:
        check_id(request.worker, "worker")


def _check_refund(request: RefundRequest) -> tuple[str, str]:
    if request.units is not None:
        check_units(request.units, "amount")
    check_text(request.reason, "reason")
    if (request.charge_id is None) == (request.run_id is None):
        raise InvalidInput("give either charge_id or run_id", field="charge_id")
    if request.charge_id is None:
        if "\0" in request.tenant_id + (request.run_id or ""):
            raise NotFound("there is no such charge", code="unknown_charge")
        return f"run {len(request.tenant_id)} {request.tenant_id} {request.run_id}", ""
    charge_id = check_uuid(request.charge_id, "charge")
    return charge_id, charge_id


def _check_hold_request(request: Request) -> str:
    if isinstance(request, ReportRequest | ReturnRequest):
        check_units(request.used_units, "used", least=0)
        _check_epoch(request.epoch)
        return check_uuid(request.lease_id, "lease")
    if isinstance(request, CaptureRequest):
        check_units(request.units, "amount", least=0)
        check_text(request.reason, "reason")
        _check_limits(request.limits)
        _check_actuals(request.actuals)
    elif isinstance(request, ReleaseRequest):
        check_text(request.reason, "reason")
    elif isinstance(request, ExtendRequest):
        check_ttl(request.ttl_seconds, least=0)
        check_units(request.units, "amount", least=0)
        _check_limits(request.limits)
        _check_actuals(request.actuals)
        _check_epoch(request.epoch or 0)
        if not request.ttl_seconds and not request.units and not request.actuals:
            raise InvalidInput("extend needs ttl_seconds, amount or both", field="ttl_seconds")
    elif not isinstance(request, StartRequest | DueRequest):
        raise InvalidInput(f"{type(request).__name__} is not a request of the ledger")
    return check_uuid(request.hold_id, "hold")


def _check_actuals(actuals: Sequence[tuple[str, int]]) -> None:
    if len({asset for asset, _ in actuals}) != len(actuals):
        raise InvalidInput("an asset may be named once", field="actuals")
    for asset, units in actuals:
        check_units(units, asset, least=0)


def _check_limits(limits: Sequence[LimitPart]) -> None:
    if len(limits) > LIMITS_PER_HOLD_MAX:
        raise InvalidInput(f"a hold may name {LIMITS_PER_HOLD_MAX} limits", field="limits")
    if len({part.limit_id for part in limits}) != len(limits):
        raise InvalidInput("a limit may be named once", field="limits")
    for part in limits:
        check_units(part.units, "limits", least=0)
        if "\0" in part.limit_id:
            raise NotFound("there is no such limit", code="unknown_limit")


def _check_epoch(epoch: int) -> None:
    if not 0 <= epoch < 2**31:
        raise InvalidInput("epoch must be the one that the lease was given with", field="epoch")


def check_units(units: int, field: str, *, least: int = 1) -> None:
    """Refuse amounts that are not positive or beyond 64 bits."""
    if units < least:
        raise InvalidInput(
            f"{field} must be {'positive' if least else 'at least 0'}",
            code="amount_not_positive",
            field=field,
        )
    if units > UNITS_MAX:
        raise InvalidInput(f"{field} is too large", code="amount_too_large", field=field)


def check_ttl(seconds: int, *, least: int) -> None:
    """Refuse times to live out of bounds."""
    if not least <= seconds <= HOLD_SECONDS_MAX:
        raise InvalidInput(
            f"ttl_seconds must be from {least} to {HOLD_SECONDS_MAX}",
            code="bad_ttl",
            field="ttl_seconds",
        )


def check_uuid(text: str, noun: str) -> str:
    """Return the id as it is stored; what is not an id of ours cannot exist."""
    try:
        return str(UUID(text))
    except (ValueError, AttributeError, TypeError):
        raise NotFound(f"there is no such {noun}", code=f"unknown_{noun}") from None


def check_text(text: str, field: str) -> None:
    """Refuse free text that is too long or cannot be stored."""
    if len(text) > _REASON_LENGTH_MAX or "\0" in text:
        raise InvalidInput(
            f"{field} may have {_REASON_LENGTH_MAX} characters, none of them NUL", field=field
        )


def check_id(value: str, field: str) -> None:
    """Refuse ids that are empty, too long or hold control characters."""
    if not 0 < len(value) <= ID_LENGTH_MAX or not value.isprintable() or value[0] == "@":
        raise InvalidInput(
            f"{field} must have 1 to {ID_LENGTH_MAX} printable characters, the first not @",
            code="bad_id",
            field=field,
        )


def check_key(key: str) -> None:
    """Refuse keys that are missing or too long."""
    if not key:
        raise InvalidInput(
            "send an Idempotency-Key header or idempotency_key",
            code="key_missing",
            field="idempotency_key",
        )
    if len(key.encode("utf-8", "surrogatepass")) > ID_LENGTH_MAX or "\0" in key:
        raise InvalidInput(
            f"an idempotency key may have at most {ID_LENGTH_MAX} bytes",
            code="key_too_long",
            field="idempotency_key",
        )
