"""From bodies to asks: what work is for and what it may cost, as the authorizer takes it.

Attribution is what the caller says under what its key says: that a caller cannot change.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import msgspec
from starlette.requests import Request

from tallystick.api.requests import credits_of
from tallystick.bounds import ATTRIBUTION_MAX, ID_LENGTH_MAX, TOKENS_MAX
from tallystick.enforcement.attribution import attributed
from tallystick.enforcement.authorization import Actual, Ask
from tallystick.errors import InvalidInput
from tallystick.units import USD, parse_amount


class Cost(Protocol):
    """A body that says what work costs."""

    amount: str
    cost_usd: str | None
    tokens: int | None


class Work(Cost, Protocol):
    """A body that says what work is for, too."""

    account_id: str
    run_id: str
    attribution: dict[str, str]


def attribution_of(request: Request, said: Mapping[str, str]) -> dict[str, str]:
    """What the caller says, under what its key says: that a caller cannot change."""
    if len(said) > ATTRIBUTION_MAX or any(
        max(len(name), len(value)) > ID_LENGTH_MAX or "\0" in name + value
        for name, value in said.items()
    ):
        raise InvalidInput(
            f"attribution may have {ATTRIBUTION_MAX} names of {ID_LENGTH_MAX} characters",
            field="attribution",
        )
    return attributed(said, request.state.principal)


def work_ask(
    request: Request,
    body: Work,
    key: str,
    *,
    ttl_seconds: int = 300,
    has_started: bool = False,
) -> Ask:
    """The ask of a body that says what work is for and what it may cost."""
    details: dict[str, Any] = {}
    attribution = attribution_of(request, body.attribution)
    if attribution:
        details["attribution"] = attribution
    actual = actual_of(body)
    if actual.usd_units is not None:
        details["cost_usd_units"] = actual.usd_units
    if actual.tokens is not None:
        details["tokens"] = actual.tokens
    return Ask(
        account_id=body.account_id,
        credit_units=actual.credit_units,
        tenant_id=request.state.principal.tenant_id,
        usd_units=actual.usd_units or 0,
        tokens=actual.tokens or 0,
        run_id=body.run_id,
        attribution=attribution,
        ttl_seconds=ttl_seconds,
        has_started=has_started,
        details=msgspec.json.encode(details).decode() if details else "",
        idempotency_key=key,
    )


def actual_of(body: Cost) -> Actual:
    """What a body says that work costs, in every asset."""
    if body.tokens is not None and not 0 <= body.tokens <= TOKENS_MAX:
        raise InvalidInput(f"tokens must be from 0 to {TOKENS_MAX}", field="tokens")
    usd = None if body.cost_usd is None else parse_amount(body.cost_usd, USD, field="cost_usd")
    if usd is not None and usd < 0:
        raise InvalidInput("cost_usd must be at least 0", field="cost_usd")
    return Actual(credit_units=credits_of(body.amount), usd_units=usd, tokens=body.tokens)
