"""Recovery: what a process that died left behind of its calls is finished, once.

A call whose event is durable but whose hold is open is captured for what the facts say of
it. A call of which nothing was ever heard is settled by its hold's end: an hour after it ran
out, the account's policy says whether it counts as what was asked for (an estimated event)
or as nothing. Every step can be repeated: keys and event ids follow from the hold.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from tallystick.access import OPERATOR
from tallystick.clock import DAY, HOUR, MINUTE, SECOND, Clock
from tallystick.enforcement.authorization import cover_request
from tallystick.enforcement.calls.details import CallDetails, permit_of, read_details
from tallystick.enforcement.calls.facts import CallFact, CallFacts
from tallystick.enforcement.calls.model import CallPermit, Usage
from tallystick.enforcement.calls.store import CallStore, OpenCall, ResolvedCall
from tallystick.enforcement.calls.usage_event import event_id_of, messages_of
from tallystick.errors import Conflict, TallystickError
from tallystick.events.redaction import Redactor
from tallystick.ledger import CaptureRequest, Ledger, LimitPart
from tallystick.units import USD

SETTLE_KEY = "call:settle"
"""The key of a call's capture, whoever makes it: there is one a hold."""

COVER_KEY = "call:cover"
"""The key of what is held for a call that cost more than its hold, before its capture."""

_YOUNG_MICROS = 10 * SECOND
"""A call this young is settled by its own process, or soon will be."""

_HEARD_WITHIN = HOUR
"""How long after its hold ran out a call may still be settled before policy speaks."""

_LOOK_BACK = 7 * DAY
_OVERLAP = 10 * MINUTE
"""What is looked at again: clocks of processes differ, and transactions end out of order."""

_PAGE = 500
_FIRST_ID = "00000000-0000-0000-0000-000000000000"
_ESTIMATED = "settlement_unknown"
"""The error code of a call that policy settled."""

Append = Callable[[bytes], None]
"""Makes a body of events durable, each once."""
_log = logging.getLogger(__name__)


class Finished(NamedTuple):
    """What a round of recovery did."""

    captured: int
    judged: int


class CallRecovery:
    """Finishes calls that nobody finishes; any number may run at once."""

    def __init__(
        self,
        store: CallStore,
        facts: CallFacts,
        ledger: Ledger,
        append: Append,
        redactor: Redactor,
        clock: Clock,
        *,
        young_micros: int = _YOUNG_MICROS,
        heard_within: int = _HEARD_WITHIN,
    ) -> None:
        self._store = store
        self._facts = facts
        self._ledger = ledger
        self._append = append
        self._redactor = redactor
        self._clock = clock
        self._young_micros = young_micros
        self._heard_within = heard_within
        self._judged_until = 0

    def run(self) -> Finished:
        """Look at every open call that is not young, and at those that policy must settle."""
        return Finished(self._capture_heard(), self._judge_unheard())

    # Event without capture

    def _capture_heard(self) -> int:
        captured, after = 0, _FIRST_ID
        before = first_id_at(self._clock.now() - self._young_micros)
        while True:
            page = self._store.load_open_calls(after=after, before=before, holds_max=_PAGE)
            captured += self._capture_page([call for call in page if call.details])
            if len(page) < _PAGE:
                return captured
            after = page[-1].hold_id

    def _capture_page(self, calls: list[OpenCall]) -> int:
        facts = self._facts.query_calls([(call.tenant_id, call.run_id) for call in calls])
        heard = [
            (call, fact)
            for call in calls
            if (fact := facts.get((call.tenant_id, call.hold_id))) is not None
        ]
        limit_ids = sorted({limit_id for call, _ in heard for limit_id in call.limit_ids})
        assets = self._store.load_limit_assets(limit_ids)
        return sum(self._capture(call, fact, assets) for call, fact in heard)

    def _capture(self, call: OpenCall, fact: CallFact, assets: dict[str, str]) -> bool:
        request = CaptureRequest(
            hold_id=call.hold_id,
            units=fact.credit_units,
            limits=limits_used(call.limit_ids, assets, fact),
            reason="call",
            idempotency_key=SETTLE_KEY,
        )
        try:
            if fact.credit_units > call.units:
                self._cover(call, fact)
            outcome = self._ledger.apply(request)
        except Conflict:
            return False  # its own process was only slow
        except TallystickError as error:
            if error.retryable:
                raise
            _log.error("call %s cannot be captured: %s", call.hold_id, error.message)
            return False  # the others are finished all the same
        if outcome.status == "declined":  # the account refuses what is above the hold
            self._ledger.apply(
                CaptureRequest(
                    hold_id=call.hold_id,
                    units=call.units,
                    reason="call",
                    idempotency_key=f"{SETTLE_KEY}:held",
                )
            )
        return True

    def _cover(self, call: OpenCall, fact: CallFact) -> None:
        """Hold what it cost beyond its hold, as its own process would have: else a shortfall."""
        more = cover_request(call.hold_id, fact.credit_units - call.units, COVER_KEY)
        with contextlib.suppress(Conflict):  # its time is over, or it is covered already
            self._ledger.apply(more)

    # Neither

    def _judge_unheard(self) -> int:
        now = self._clock.now()
        since = max(now - _LOOK_BACK, self._judged_until)
        calls = self._store.load_resolved_calls(
            since=since, due_before=now - self._heard_within, calls_max=_PAGE
        )
        facts = self._facts.query_calls([(call.tenant_id, call.run_id) for call in calls])
        for call in calls:
            details = read_details(call.details)
            if details is not None:
                is_heard = (call.tenant_id, call.hold_id) in facts
                self._judge(call, details, is_heard=is_heard)
        if len(calls) < _PAGE:  # holds end after they are due: who ended so long ago was in it
            self._judged_until = now - max(self._heard_within, 0) - _OVERLAP
        return len(calls)

    def _judge(self, call: ResolvedCall, details: CallDetails, *, is_heard: bool) -> None:
        event_id = event_id_of(call.hold_id, call.tenant_id, self._redactor)
        verdict = "found" if is_heard else f"{call.unknown_policy}d"
        if verdict == "captured":
            self._append(estimated_event(_permit(call, details), event_id))
        self._store.insert_judged(call, verdict, event_id, self._clock.now())


def limits_used(
    limit_ids: list[str], assets: dict[str, str], fact: CallFact
) -> tuple[LimitPart, ...]:
    """What a call used of each limit of its hold that does not count credits."""
    used = {str(USD): fact.cost_units, "USD": fact.cost_units, "tokens": fact.tokens, "requests": 1}
    return tuple(
        LimitPart(limit_id, used[asset])
        for limit_id in limit_ids
        if (asset := assets.get(limit_id, "")) in used
    )


def estimated_event(permit: CallPermit, event_id: str) -> bytes:
    """The event of a call that was never heard of: as much as was asked for."""
    usage = Usage(
        tokens_input=permit.ask.tokens_input,
        tokens_output=permit.tokens_output,
        quality="estimated",
    )
    messages = messages_of(
        permit,
        usage,
        event_id=event_id,
        outcome="unknown",
        error_code=_ESTIMATED,
        latency_ms=None,
        provider_request_id="",
        served_model="",
    )
    return msgspec.json.encode(messages)


def _permit(call: ResolvedCall, details: CallDetails) -> CallPermit:
    return permit_of(
        details,
        OPERATOR,
        hold_id=call.hold_id,
        credit_units=details.credit_units,
        available_units=0,
        expires_at=0,
    )


def first_id_at(micros: int) -> str:
    """The smallest id (UUID version 7) that can be made at an instant.

    >>> first_id_at(0)
    '00000000-0000-7000-8000-000000000000'
    """
    digits = f"{max(micros, 0) // 1000:012x}"
    return f"{digits[:8]}-{digits[8:]}-7000-8000-000000000000"
