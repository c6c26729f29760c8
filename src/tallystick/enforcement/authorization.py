"""Authorization: one decision over the credit account and every limit that matches.

Whoever is about to make work (a hold over HTTP, the gateway, a lease) asks here. What is
declined is an outcome that says which limit decided; what a mitigation forbids is `Blocked`.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from tallystick.ledger import (
    CaptureRequest,
    ExtendRequest,
    HoldRequest,
    LimitPart,
    Outcome,
    ReleaseRequest,
)
from tallystick.ledger.committer import Committer


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """Work that is about to begin, with what it may cost at most."""

    account_id: str
    credit_units: int
    """CREDIT/6."""
    tenant_id: str = ""
    """The tenant of who asks; "" (the operator) may name any account."""
    usd_units: int = 0
    """USD/9."""
    tokens: int = 0
    run_id: str = ""
    attribution: Mapping[str, str] = {}
    """Dimension -> value: org, team, product, feature, project, user, key, model, provider,
    workflow, environment."""
    ttl_seconds: int = 300
    has_started: bool = False
    details: str = ""
    """JSON text that is kept with the operation."""
    limits: tuple[LimitPart, ...] = ()
    """Parts of limits that the asker names itself, besides all that match."""
    idempotency_key: str


class Actual(msgspec.Struct, frozen=True, kw_only=True):
    """What the work cost in the end, in every asset; None: as much as was held."""

    credit_units: int
    usd_units: int | None = None
    tokens: int | None = None
    limits: tuple[LimitPart, ...] = ()
    """The actual amounts of limits that the asker named itself."""


class Authorizer:
    """Decides before work is made, and settles after it."""

    def __init__(self, committer: Committer) -> None:
        self._committer = committer

    async def hold(self, ask: Ask) -> Outcome:
        """Set aside all that the work may cost, or decline; a decline is an outcome too."""
        return await self._committer.apply(
            HoldRequest(
                account_id=ask.account_id,
                units=ask.credit_units,
                ttl_seconds=ask.ttl_seconds,
                run_id=ask.run_id,
                has_started=ask.has_started,
                limits=ask.limits,
                details=ask.details,
                idempotency_key=ask.idempotency_key,
            )
        )

    async def extend(
        self, hold_id: str, more: Actual, *, ttl_seconds: int = 0, idempotency_key: str
    ) -> Outcome:
        """Set more aside for work under way, or decline."""
        return await self._committer.apply(
            ExtendRequest(
                hold_id=hold_id,
                ttl_seconds=ttl_seconds,
                units=more.credit_units,
                limits=more.limits,
                idempotency_key=idempotency_key,
            )
        )

    async def capture(
        self, hold_id: str, actual: Actual, *, reason: str = "", idempotency_key: str
    ) -> Outcome:
        """Charge what the work cost and free the rest."""
        return await self._committer.apply(
            CaptureRequest(
                hold_id=hold_id,
                units=actual.credit_units,
                limits=actual.limits,
                reason=reason,
                idempotency_key=idempotency_key,
            )
        )

    async def release(self, hold_id: str, *, reason: str = "", idempotency_key: str) -> Outcome:
        """End a hold without a charge: the work was not done."""
        return await self._committer.apply(
            ReleaseRequest(hold_id=hold_id, reason=reason, idempotency_key=idempotency_key)
        )
