"""Authorization: one decision over the credit account and every limit that matches.

Whoever is about to make work (a hold over HTTP, the gateway, a lease) asks here. What is
declined is an outcome that says which limit decided; what a mitigation forbids is `Blocked`,
and what must wait is `TooManyRequests`. Budgets decide inside the ledger's hold, so they
cannot be raced; guards and throttles come before it and touch nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec

from tallystick.bounds import LIMITS_PER_HOLD_MAX
from tallystick.enforcement.budgets.enforcing import Enforcing
from tallystick.enforcement.budgets.matching import WindowPart
from tallystick.enforcement.budgets.rules import budget_id_of
from tallystick.errors import Blocked, Conflict, TallystickError, TooManyRequests
from tallystick.ledger import (
    CaptureRequest,
    ChargeRequest,
    ExtendRequest,
    HoldRequest,
    LeaseRequest,
    LimitPart,
    Outcome,
    ReleaseRequest,
)
from tallystick.ledger import Request as LedgerRequest
from tallystick.ledger.committer import Committer
from tallystick.ledger.group import Answer
from tallystick.units import CREDIT, USD

_CREDIT, _USD = str(CREDIT), str(USD)


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """Work that is about to begin, with what it may cost at most."""

    account_id: str
    credit_units: int
    """CREDIT/6."""
    tenant_id: str
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
    at: int | None = None
    """The moment whose windows it falls under; None: now."""


class Actual(msgspec.Struct, frozen=True, kw_only=True):
    """What the work cost in the end, in every asset; None: as much as was held."""

    credit_units: int
    usd_units: int | None = None
    tokens: int | None = None
    requests: int | None = None
    limits: tuple[LimitPart, ...] = ()
    """The actual amounts of limits that the asker named itself."""


class Advice(msgspec.Struct, frozen=True):
    """What thresholds say of work before it is asked for."""

    downgrade: bool = False
    """A cheaper model should do it."""
    throttle_seconds: int = 0
    """It should wait so long."""
    decided_by: str = ""
    """mitigation:<id> or budget:<id>, the first that says so; of a downgrade before a wait."""
    model: str = ""
    """The model to call, where a mitigation names it."""


class OtherModel(NamedTuple):
    """A mitigation's word: call this model instead."""

    model: str
    decided_by: str
    """mitigation:<id>."""


class Mitigations(Protocol):
    """What is in force against overruns; asked in memory, also of work under way."""

    @property
    def has_any(self) -> bool:
        """Whether anything is in force at all."""
        ...

    def advise(self, ask: Ask) -> OtherModel | None:
        """The model to call instead of the one asked for; None: as asked."""
        ...

    def check_running(self, ask: Ask) -> None:
        """Raise Blocked when work under way must end."""
        ...


class Guard(Protocol):
    """Something that may forbid work before it is decided: a mitigation, a rate limit."""

    async def check(self, ask: Ask) -> None:
        """Raise Blocked or TooManyRequests; return for work that may go on."""
        ...


class Authorizer:
    """Decides before work is made, and settles after it."""

    def __init__(
        self,
        committer: Committer,
        enforcing: Enforcing | None = None,
        guards: Sequence[Guard] = (),
        mitigations: Mitigations | None = None,
    ) -> None:
        """Without `enforcing` no budget limits anything."""
        self._committer = committer
        self._enforcing = enforcing
        self.guards = list(guards)
        self._mitigations = mitigations

    async def hold(self, ask: Ask) -> Outcome:
        """Set aside all that the work may cost, or decline; a decline is an outcome too."""
        held = await self.prepare_hold(ask)
        return told(await self._committer.apply(held, tenant_id=ask.tenant_id))

    async def prepare_hold(self, ask: Ask) -> HoldRequest:
        """The hold with a part of every matching budget; raises what guards raise."""
        return HoldRequest(
            account_id=ask.account_id,
            units=ask.credit_units,
            ttl_seconds=ask.ttl_seconds,
            run_id=ask.run_id,
            has_started=ask.has_started,
            limits=(*await self._parts(ask), *ask.limits),
            details=ask.details,
            idempotency_key=ask.idempotency_key,
        )

    async def charge(
        self, ask: Ask, *, reason: str = "", is_after_the_fact: bool = False
    ) -> Outcome:
        """Hold and capture in one; what has happened already is counted, never declined."""
        parts = await self._parts(ask, is_after_the_fact=is_after_the_fact)
        request = ChargeRequest(
            account_id=ask.account_id,
            units=ask.credit_units,
            run_id=ask.run_id,
            reason=reason,
            is_after_the_fact=is_after_the_fact,
            limits=(*parts, *ask.limits),
            details=ask.details,
            idempotency_key=ask.idempotency_key,
        )
        return told(await self._committer.apply(request, tenant_id=ask.tenant_id))

    async def lease(
        self, request: LeaseRequest, attribution: Mapping[str, str], *, tenant_id: str
    ) -> Outcome:
        """Lend credit, unless a hard budget could limit the work: nobody would ask it then."""
        if self._enforcing is not None:
            found = await self._enforcing.may_match(request.account_id, attribution)
            if found:
                raise Conflict(
                    f"budget {found[0].budget_id} limits such work call by call; take holds",
                    code="lease_under_budget",
                )
        return told(await self._committer.apply(request, tenant_id=tenant_id))

    async def extend(
        self,
        hold_id: str,
        more: Actual,
        *,
        ttl_seconds: int = 0,
        idempotency_key: str,
        tenant_id: str,
    ) -> Outcome:
        """Set more aside for work under way, or decline."""
        return told(
            await self._committer.apply(
                ExtendRequest(
                    hold_id=hold_id,
                    ttl_seconds=ttl_seconds,
                    units=more.credit_units,
                    limits=more.limits,
                    actuals=actuals_of(more),
                    idempotency_key=idempotency_key,
                ),
                tenant_id=tenant_id,
            )
        )

    async def cover(
        self, hold_id: str, credit_units: int, *, idempotency_key: str, tenant_id: str
    ) -> Outcome:
        """Set aside credit for what work has cost already; its limits count that at the capture."""
        covered = cover_request(hold_id, credit_units, idempotency_key)
        return await self._committer.apply(covered, tenant_id=tenant_id)

    async def capture(
        self,
        hold_id: str,
        actual: Actual,
        *,
        reason: str = "",
        idempotency_key: str,
        tenant_id: str,
    ) -> Outcome:
        """Charge what the work cost and free the rest."""
        request = capture_request(hold_id, actual, reason=reason, idempotency_key=idempotency_key)
        return await self._committer.apply(request, tenant_id=tenant_id)

    async def release(
        self, hold_id: str, *, reason: str = "", idempotency_key: str, tenant_id: str
    ) -> Outcome:
        """End a hold without a charge: the work was not done."""
        return await self._committer.apply(
            ReleaseRequest(hold_id=hold_id, reason=reason, idempotency_key=idempotency_key),
            tenant_id=tenant_id,
        )

    async def apply_batch(
        self,
        items: Sequence[Ask | LedgerRequest | TallystickError],
        *,
        all_or_nothing: bool,
        tenant_id: str,
    ) -> list[Answer]:
        """Many asks or requests, each on its own or as a whole; failures stay in their place."""
        prepared: list[LedgerRequest | TallystickError] = []
        for item in items:
            try:
                prepared.append(await self.prepare_hold(item) if isinstance(item, Ask) else item)
            except TallystickError as error:
                prepared.append(error)
        answers = await self._committer.apply_batch(
            prepared, all_or_nothing=all_or_nothing, tenant_id=tenant_id
        )
        return [told(one) if isinstance(one, Outcome) else one for one in answers]

    async def advice(self, ask: Ask) -> Advice:
        """What mitigations and thresholds say of work; figures are at most half a second old."""
        other = self._mitigations.advise(await self._owned(ask)) if self._mitigations else None
        if other is not None:
            return Advice(True, decided_by=other.decided_by, model=other.model)
        if self._enforcing is None:
            return Advice()
        parts = await self._enforcing.match(ask.account_id, ask.tenant_id, ask.attribution)
        found = await self._enforcing.thresholds(parts, _units_of(ask))
        cheaper = [part for part, is_downgrade, _ in found if is_downgrade]
        slower = [part for part, _, wait in found if wait]
        return Advice(
            bool(cheaper),
            max((wait for _, _, wait in found), default=0),
            next((f"budget:{part.budget.budget_id}" for part in (*cheaper, *slower)), ""),
        )

    async def check(self, ask: Ask) -> None:
        """Raise Blocked or TooManyRequests for work that guards forbid; nothing is held."""
        owned = await self._owned(ask)
        for guard in self.guards:
            await guard.check(owned)

    @property
    def has_mitigations(self) -> bool:
        """Whether any mitigation is in force, of whatever scope."""
        return self._mitigations is not None and self._mitigations.has_any

    def check_running(self, ask: Ask) -> None:
        """Raise Blocked when a kill switch ends work under way too; looks at memory only."""
        if self._mitigations is not None:
            self._mitigations.check_running(ask)

    async def _parts(self, ask: Ask, *, is_after_the_fact: bool = False) -> tuple[LimitPart, ...]:
        """The windows that the work falls under; raises what guards and throttles raise.

        What was answered before is answered again by the ledger, whatever forbids it by now.
        """
        parts: Sequence[WindowPart] = ()
        try:
            if not is_after_the_fact:
                await self.check(ask)
            if self._enforcing is not None:
                parts = await self._enforcing.match(
                    ask.account_id, ask.tenant_id, ask.attribution, ask.at
                )
            if parts and not is_after_the_fact:
                await self._throttle(parts, _units_of(ask))
        except (Blocked, TooManyRequests):
            if not await self._was_answered(ask):
                raise
        if len(parts) + len(ask.limits) > LIMITS_PER_HOLD_MAX:
            raise Conflict(
                f"this falls under {len(parts)} budgets, and one decision is made over at most "
                f"{LIMITS_PER_HOLD_MAX} limits; delete or narrow some budgets",
                code="too_many_budgets",
            )
        units = _units_of(ask)
        return tuple([LimitPart(part.limit_id, units[part.asset]) for part in parts])

    async def _owned(self, ask: Ask) -> Ask:
        """With the tenant of its account: what stops a tenant stops an operator's work for it."""
        if ask.tenant_id or self._enforcing is None or not self.guards:
            return ask
        tenant_id = await self._enforcing.tenant_of(ask.account_id)
        return msgspec.structs.replace(ask, tenant_id=tenant_id)

    async def _was_answered(self, ask: Ask) -> bool:
        """Whether the key of this work has an outcome; asked only when it would be refused."""
        known = HoldRequest(account_id=ask.account_id, units=1, idempotency_key=ask.idempotency_key)
        return await self._committer.was_answered(known)

    async def _throttle(self, parts: Sequence[WindowPart], units: Mapping[str, int]) -> None:
        assert self._enforcing is not None
        for part, _, seconds in await self._enforcing.thresholds(parts, units):
            if seconds:
                raise TooManyRequests(
                    "the rest of the budget is given out evenly until its window ends",
                    decided_by=f"budget:{part.budget.budget_id}",
                    retry_after_seconds=seconds,
                )


def capture_request(
    hold_id: str, actual: Actual, *, reason: str = "", idempotency_key: str
) -> CaptureRequest:
    """The capture that counts each limit of the hold by its asset."""
    return CaptureRequest(
        hold_id=hold_id,
        units=actual.credit_units,
        limits=actual.limits,
        reason=reason,
        actuals=actuals_of(actual),
        idempotency_key=idempotency_key,
    )


def told(outcome: Outcome) -> Outcome:
    """Name the budget that decided instead of its window in the ledger, which stays in limit_id."""
    limit_id = outcome.decided_by.removeprefix("limit:")
    budget_id = budget_id_of(limit_id)
    if not budget_id:
        return outcome
    changes: dict[str, Any] = {"decided_by": f"budget:{budget_id}", "limit_id": limit_id}
    return msgspec.structs.replace(outcome, **changes)


def _units_of(ask: Ask) -> dict[str, int]:
    return {_CREDIT: ask.credit_units, _USD: ask.usd_units, "tokens": ask.tokens, "requests": 1}


def cover_request(hold_id: str, credit_units: int, idempotency_key: str) -> ExtendRequest:
    """More credit for a hold whose work has cost it already."""
    return ExtendRequest(
        hold_id=hold_id,
        units=credit_units,
        actuals=((_CREDIT, 0),),
        idempotency_key=idempotency_key,
    )


def actuals_of(actual: Actual) -> tuple[tuple[str, int], ...]:
    """What is known beside credit, by the ledger's assets."""
    said = (
        (_USD, actual.usd_units),
        ("tokens", actual.tokens),
        ("requests", actual.requests),
    )
    return tuple([(asset, units) for asset, units in said if units is not None])
