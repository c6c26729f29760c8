"""What a call takes of its account and limits: before it is made, and in the end. Pure."""

from __future__ import annotations

from tallystick.enforcement.authorization import Actual, Ask
from tallystick.enforcement.calls.captures import Settled
from tallystick.enforcement.calls.details import Said, attribution_of
from tallystick.ledger import LimitPart
from tallystick.units import CREDIT


def unpaid_ask(said: Said, tenant_id: str, key: str) -> Ask:
    """What mitigations are asked of work that is not paid for, or paid for already."""
    return Ask(
        account_id=said.account_id,
        credit_units=0,
        tenant_id=tenant_id,
        attribution=attribution_of(said),
        idempotency_key=key,
    )


def actual_of(settled: Settled) -> Actual:
    """What a call used, in every asset."""
    permit, usage, rated = settled
    return Actual(
        credit_units=rated.credit_units,
        usd_units=rated.cost_units,
        tokens=usage.tokens_input + usage.tokens_output,
        requests=1,  # also when it cost nothing: its event counts as one
        limits=limit_parts(permit.limit, rated.credit_units, rated.cost_units, least=0),
    )


def limit_parts(
    limit: tuple[str, str], credit_units: int, usd_units: int, *, least: int = 1
) -> tuple[LimitPart, ...]:
    """What a call takes of its run's budget (limit id, asset)."""
    limit_id, asset = limit
    units = max(credit_units if asset == str(CREDIT) else usd_units, least)
    return (LimitPart(limit_id, units),) if limit_id else ()
