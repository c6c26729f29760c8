"""Authorize a call, top its hold up, settle it.

The event comes first and then the capture (ADR 0010): once the event is durable the call is
charged exactly once whatever dies, because a run's charge converges to its facts. What is
durable before is a started hold, which never frees itself.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from typing import Any

import msgspec
from psycopg_pool import ConnectionPool

from tallystick.access import Principal
from tallystick.catalog import Catalog
from tallystick.clock import Clock
from tallystick.enforcement.authorization import (
    Actual,
    Advice,
    Ask,
    Authorizer,
    capture_request,
)
from tallystick.enforcement.calls.amounts import actual_of, limit_parts, unpaid_ask
from tallystick.enforcement.calls.answers import (
    blocked,
    projection_of,
    receipt_of,
    refusal_of,
    too_many,
)
from tallystick.enforcement.calls.budgets import RunBudgets
from tallystick.enforcement.calls.captures import LaterCaptures, Settled
from tallystick.enforcement.calls.details import (
    CallDetails,
    Said,
    account_of,
    attribution_of,
    likely_account_of,
    permit_of,
    read_details,
    said_of,
    write_details,
)
from tallystick.enforcement.calls.endings import Endings, check_ending
from tallystick.enforcement.calls.estimate import Estimate
from tallystick.enforcement.calls.facts import CallFacts
from tallystick.enforcement.calls.insights import CallInsights
from tallystick.enforcement.calls.model import (
    CallAsk,
    CallPermit,
    CallReceipt,
    CallRefused,
    Usage,
)
from tallystick.enforcement.calls.prices import CallPrices, CallSettings
from tallystick.enforcement.calls.recovery import COVER_KEY, SETTLE_KEY
from tallystick.enforcement.calls.store import CallStore, OpenCall
from tallystick.enforcement.calls.usage_event import (
    check_usage,
    event_id_of,
    events_of,
    messages_of,
)
from tallystick.errors import (
    Blocked,
    Conflict,
    NotFound,
    TallystickError,
    TooManyRequests,
)
from tallystick.events.door import Door
from tallystick.ledger import CaptureRequest, ExtendRequest, HoldRequest, Ledger, Outcome
from tallystick.plumbing.clickhouse import ClickHouse
from tallystick.plumbing.log import Positions, Verdict
from tallystick.rating import Rated, Rater

_ACCOUNTS_KEPT = 50_000
_CANCEL_KEY = "call:cancel"


class Calls:
    """The money path of model calls; belongs to one event loop."""

    def __init__(
        self,
        authorizer: Authorizer,
        ledger: Ledger,
        door: Door,
        catalog: Catalog,
        clock: Clock,
        pool: ConnectionPool,
        clickhouse: ClickHouse,
        settings: CallSettings | None = None,
    ) -> None:
        self._authorizer = authorizer
        self._ledger = ledger
        self._redactor = door.redactor
        self._door = door
        self._clock = clock
        self._store = CallStore(pool)
        self.run_budgets = RunBudgets(self._store, ledger, clock)
        facts = CallFacts(clickhouse, partial(Positions(pool).load, "sink"))
        self.prices = CallPrices(
            catalog, facts, clock, settings or CallSettings(), self.run_budgets.refresh
        )
        self.insights = CallInsights(facts, self._store, self.prices.rater)
        self.endings = Endings(self._store)
        self._later = LaterCaptures(self._capture_all)
        self._tenants: OrderedDict[str, str] = OrderedDict()

    async def close(self) -> None:
        """Make captures that wait; call before the committer is closed."""
        await self._later.close()

    # Authorize

    async def authorize(self, ask: CallAsk) -> CallPermit:
        """Hold the most that the call may cost over credit and all limits, or CallRefused.

        The work counts as begun: the hold never frees itself, so settle it or cancel it.
        """
        account_id = account_of(ask)
        said = said_of(ask, account_id, await self._tenant_of(account_id, ask.principal))
        rater = await self.prices.rater()
        try:
            self._check_model(ask)
            details, estimate = await self._plan(ask, said, rater)
        except CallRefused as refused:  # since then a price or the key may have changed
            outcome, details = await self._answered(ask, said, refused)
        else:
            outcome, details = await self._hold(ask, details, estimate)
        if outcome.status == "declined":
            raise refusal_of(outcome, details)
        return permit_of(
            details,
            ask.principal,
            hold_id=outcome.hold_id,
            credit_units=outcome.units,
            available_units=outcome.available,
            expires_at=outcome.due_at or 0,
        )

    async def _plan(self, ask: CallAsk, said: Said, rater: Rater) -> tuple[CallDetails, Estimate]:
        """What to hold for a call, or CallRefused when its model has no price."""
        now = self._clock.now()
        tokens_output = self.prices.output_bound(said)
        estimate = self.prices.estimate(rater, said, now, tokens_output)
        budget = await self.run_budgets.find(said.tenant_id, said.root_run_id)
        details = CallDetails(
            said=said,
            at=now,
            credit_units=estimate.credit_units,
            usd_units=estimate.usd_units,
            tokens_output=tokens_output,
            limit_id=budget.limit_id if budget else "",
            limit_asset=budget.asset if budget else "",
        )
        return details, estimate

    async def advise(self, ask: CallAsk, *, has_cheaper: bool = True) -> Advice:
        """What budgets and mitigations say of a call before it is asked for.

        Who has nothing cheaper is told of mitigations alone: budgets decide at the hold.
        """
        if not has_cheaper and not self._authorizer.has_mitigations:
            return Advice()
        account_id = account_of(ask)
        said = said_of(ask, account_id, await self._tenant_of(account_id, ask.principal))
        return await self._authorizer.advice(
            unpaid_ask(said, ask.principal.tenant_id, ask.idempotency_key)
        )

    async def check(self, ask: CallAsk) -> None:
        """Raise CallRefused for a free call that a kill switch or a mitigation forbids."""
        if not self._authorizer.has_mitigations:
            return
        principal = ask.principal
        account_id = likely_account_of(ask)
        tenant_id = await self._tenant_of(account_id, principal) if account_id else ""
        said = said_of(ask, account_id, tenant_id)
        try:
            await self._authorizer.check(unpaid_ask(said, principal.tenant_id, ask.idempotency_key))
        except Blocked as error:
            raise blocked(error) from error
        except TooManyRequests as error:
            raise too_many(error) from error

    def check_running(self, permit: CallPermit) -> None:
        """Raise Blocked when a kill switch ends this call too; looks at memory only."""
        if not self._authorizer.has_mitigations:
            return
        said = said_of(permit.ask, permit.account_id, permit.tenant_id)
        self._authorizer.check_running(unpaid_ask(said, permit.tenant_id, ""))

    @staticmethod
    def _check_model(ask: CallAsk) -> None:
        models = ask.principal.models
        if models and ask.model not in models:
            raise CallRefused(
                f"the key may not call {ask.model}",
                code="model_not_allowed",
                decided_by=f"key:{ask.principal.key_id or ask.principal.subject}",
            )

    async def _hold(
        self, ask: CallAsk, details: CallDetails, estimate: Estimate
    ) -> tuple[Outcome, CallDetails]:
        """Hold; a key that was used before answers what it answered then."""
        said = details.said
        try:
            outcome = await self._authorizer.hold(
                Ask(
                    account_id=said.account_id,
                    credit_units=estimate.credit_units,
                    tenant_id=ask.principal.tenant_id,
                    usd_units=estimate.usd_units,
                    tokens=estimate.tokens,
                    run_id=said.run_id,
                    attribution=attribution_of(said),
                    ttl_seconds=said.ttl_seconds,
                    has_started=True,
                    details=write_details(details),
                    limits=limit_parts(
                        (details.limit_id, details.limit_asset),
                        estimate.credit_units,
                        estimate.usd_units,
                    ),
                    idempotency_key=ask.idempotency_key,
                    at=details.at,  # its event has this time: both count in one window
                )
            )
        except Conflict as conflict:
            if conflict.code != "idempotency_conflict":
                raise
            return await self._answered(ask, said, conflict)
        except Blocked as error:
            raise blocked(error) from error
        except TooManyRequests as error:
            raise too_many(error) from error
        return outcome, details

    async def _answered(
        self, ask: CallAsk, said: Said, refusal: TallystickError
    ) -> tuple[Outcome, CallDetails]:
        """The same ask again: its estimate may differ by now, its answer may not.

        Raises the refusal when this was never asked.
        """
        request = HoldRequest(
            account_id=said.account_id, units=1, idempotency_key=ask.idempotency_key
        )
        found = await asyncio.to_thread(self._ledger.load_answer, request)
        before = read_details(found[1]) if found else None
        if found is None or before is None or before.said != said:
            raise refusal
        return found[0], before

    async def permit(self, hold_id: str, principal: Principal) -> CallPermit:
        """The permit of a hold again, from the ledger; NotFound, Forbidden unless it is theirs."""
        story = await asyncio.to_thread(self._ledger.load_hold_story, hold_id)
        details = read_details(story.details) if story else None
        if story is None or details is None or principal.tenant_id not in ("", story.tenant_id):
            raise NotFound("there is no such authorization", code="unknown_authorization")
        check_ending(details.said, principal)
        permit = permit_of(
            details,
            principal,
            hold_id=hold_id,
            credit_units=story.units if story.total is None else story.total,
            available_units=story.available,
            expires_at=story.due_now or story.due_at,
        )
        if permit.credit_units <= details.credit_units:
            return permit
        rater = await self.prices.rater()
        try:
            covered = self.prices.covered(rater, details.said, details.at, permit.credit_units)
        except CallRefused:  # its price was taken back since: it can be settled all the same
            return permit
        return _topped_up(permit, *covered)

    # Top up, settle, cancel

    async def top_up(
        self, permit: CallPermit, *, tokens_output: int, ttl_seconds: int = 300
    ) -> CallPermit:
        """Hold credit for an answer of so many output tokens in all, or CallRefused.

        Asking again for as many answers the same.
        """
        if tokens_output <= permit.tokens_output:
            return permit
        rater = await self.prices.rater()
        said = said_of(permit.ask, permit.account_id, permit.tenant_id)
        estimate = self.prices.estimate(rater, said, permit.occurred_at, tokens_output)
        more_credit = max(estimate.credit_units - permit.credit_units, 0)
        more_usd = max(estimate.usd_units - permit.usd_units, 0)
        more = Actual(
            credit_units=more_credit,
            usd_units=more_usd,
            tokens=max(estimate.tokens - permit.tokens, 0),
            limits=limit_parts(permit.limit, more_credit, more_usd, least=0),
        )
        outcome = await self._extend(permit, more, f"call:top-up:{tokens_output}", ttl_seconds)
        if outcome.status == "declined":
            raise refusal_of(outcome, None)
        return msgspec.structs.replace(
            _topped_up(permit, tokens_output, estimate),
            credit_units=permit.credit_units + more_credit,
            available_units=outcome.available,
            expires_at=outcome.due_at or permit.expires_at,
        )

    async def keep(self, permit: CallPermit, *, ttl_seconds: int) -> None:
        """Give a call under way more time; raises Conflict when its hold has ended."""
        await self._authorizer.extend(
            permit.hold_id,
            Actual(credit_units=0),
            ttl_seconds=ttl_seconds,
            idempotency_key=f"call:keep:{self._clock.now()}",
            tenant_id=permit.tenant_id,
        )

    async def _extend(
        self, permit: CallPermit, more: Actual, key: str, ttl_seconds: int
    ) -> Outcome:
        """Extend a hold; for a key that was used before, what it was answered then."""
        try:
            return await self._authorizer.extend(
                permit.hold_id,
                more,
                ttl_seconds=ttl_seconds,
                idempotency_key=key,
                tenant_id=permit.tenant_id,
            )
        except Conflict as conflict:
            if conflict.code != "idempotency_conflict":
                raise
            request = ExtendRequest(hold_id=permit.hold_id, ttl_seconds=1, idempotency_key=key)
            found = await asyncio.to_thread(self._ledger.load_answer, request)
            if found is None:
                raise
            return found[0]

    async def settle(
        self,
        permit: CallPermit,
        usage: Usage,
        *,
        outcome: str = "completed",
        error_code: str = "",
        latency_ms: float | None = None,
        provider_request_id: str = "",
        served_model: str = "",
        is_waiting: bool = True,
    ) -> CallReceipt:
        """Make the call's event durable, charge what it cost and free the rest of its hold.

        Repeating it with the same usage answers the same; with other usage it is a Conflict.
        Without `is_waiting` it returns once the event is durable: the charge is certain then,
        what the receipt says of the account is a projection, and captures share commits.
        """
        check_usage(usage)
        rater = await self.prices.rater()
        rated = self.prices.price(rater, permit, usage)
        event_id = event_id_of(permit.hold_id, permit.tenant_id, self._redactor)
        messages = messages_of(
            permit,
            usage,
            event_id=event_id,
            outcome=outcome,
            error_code=error_code,
            latency_ms=latency_ms,
            provider_request_id=provider_request_id,
            served_model=served_model,
        )
        await self._append(messages)
        if not error_code:
            self.prices.saw(permit, usage)
        if is_waiting or self._later.is_full:
            captured = await self._capture(Settled(permit, usage, rated))
            return receipt_of(permit, event_id, rated, captured)
        self._later.put(Settled(permit, usage, rated))
        return projection_of(permit, event_id, rated)

    async def finish_captures(self) -> bool:
        """Free what calls that have ended here still hold; False when none does."""
        return await self._later.finish()

    async def _append(self, messages: Sequence[dict[str, Any]]) -> None:
        """Return once a call's events are durable; a repeat is a success.

        Raises Conflict when the call's id stands for other usage already, InvalidInput when
        an event cannot be one, and what the door raises.
        """
        events = events_of(messages, self._clock.now(), self._redactor)
        if Verdict.CONFLICT in await self._door.append(events):
            raise Conflict(
                "the call was settled before with other usage", code="call_settled_otherwise"
            )

    async def _capture_all(self, settled: Sequence[Settled]) -> list[object]:
        """Capture for many calls: one batch, and each that cost more than its hold by itself."""
        within = [one for one in settled if one.rated.credit_units <= one.permit.credit_units]
        requests = [
            capture_request(
                one.permit.hold_id, actual_of(one), reason="call", idempotency_key=SETTLE_KEY
            )
            for one in within
        ]
        answers = await self._authorizer.apply_batch(requests, all_or_nothing=False, tenant_id="")
        beyond = [one for one in settled if one.rated.credit_units > one.permit.credit_units]
        more = await asyncio.gather(*map(self._capture, beyond), return_exceptions=True)
        return [*answers, *more]

    async def _capture(self, settled: Settled) -> Outcome | None:
        """Capture what the call is worth; None when its hold has ended otherwise."""
        permit, _, rated = settled
        if rated.credit_units > permit.credit_units:
            await self._cover(permit, rated)
        actual = actual_of(settled)
        try:
            outcome = await self._authorizer.capture(
                permit.hold_id,
                actual,
                reason="call",
                idempotency_key=SETTLE_KEY,
                tenant_id=permit.tenant_id,
            )
            if outcome.status == "declined":  # the account refuses what is above the hold
                held = msgspec.structs.replace(actual, credit_units=permit.credit_units)
                outcome = await self._authorizer.capture(
                    permit.hold_id,
                    held,
                    reason="call",
                    idempotency_key=f"{SETTLE_KEY}:held",
                    tenant_id=permit.tenant_id,
                )
        except Conflict as conflict:
            if conflict.code != "idempotency_conflict":
                return None  # the run's charge converges to the event all the same
            request = CaptureRequest(hold_id=permit.hold_id, units=0, idempotency_key=SETTLE_KEY)
            found = await asyncio.to_thread(self._ledger.load_answer, request)
            return found[0] if found else None
        return outcome

    async def _cover(self, permit: CallPermit, rated: Rated) -> None:
        """Hold what a call cost beyond its hold, if there is credit: else it is a shortfall."""
        more = rated.credit_units - permit.credit_units
        try:
            await self._authorizer.cover(
                permit.hold_id, more, idempotency_key=COVER_KEY, tenant_id=permit.tenant_id
            )
        except (Conflict, CallRefused, Blocked, TooManyRequests):
            return  # ended, run out, or forbidden: the work is done all the same

    async def cancel(self, permit: CallPermit, *, reason: str) -> None:
        """Free the hold: the call never reached its provider, or cost nothing."""
        await self._authorizer.release(
            permit.hold_id,
            reason=reason,
            idempotency_key=_CANCEL_KEY,
            tenant_id=permit.tenant_id,
        )

    def list_open(self, tenant_id: str, status: str, calls_max: int) -> list[OpenCall]:
        """Calls under way ("held"), and those that nobody settled in time ("unknown")."""
        return self._store.list_open_calls(tenant_id, status, calls_max)

    # What is known

    async def _tenant_of(self, account_id: str, principal: Principal) -> str:
        """The tenant of an account, which never changes; NotFound for another tenant's."""
        tenant_id = self._tenants.get(account_id)
        if tenant_id is None:
            account = await asyncio.to_thread(self._ledger.load_account, account_id)
            tenant_id = self._tenants[account_id] = account.tenant_id
            if len(self._tenants) > _ACCOUNTS_KEPT:
                self._tenants.popitem(last=False)
        if principal.tenant_id not in ("", tenant_id):
            raise NotFound("there is no such account; create it with PUT", code="unknown_account")
        return tenant_id


def _topped_up(permit: CallPermit, tokens_output: int, estimate: Estimate) -> CallPermit:
    """The permit of a hold that was extended for so many output tokens."""
    return msgspec.structs.replace(
        permit,
        usd_units=max(permit.usd_units, estimate.usd_units),
        tokens=max(permit.tokens, estimate.tokens),
        tokens_output=max(permit.tokens_output, tokens_output),
    )
