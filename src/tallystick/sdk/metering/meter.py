"""The shells of a metered call: authorize before it, settle after it, waiting or awaiting.

The rules are `call.Call`'s; here are the network, the spool and what to do when Tallystick
cannot be reached. What is owed for a call that has happened is sent at once, so that its
cost is known; when that fails it goes to the spool, under the same key.
"""

from __future__ import annotations

import logging
import time

import msgspec

from tallystick.errors import InvalidInput
from tallystick.sdk.client import stand
from tallystick.sdk.context import Place
from tallystick.sdk.errors import LimitReached, SpoolFull, Unreachable
from tallystick.sdk.metering.answers import Reading
from tallystick.sdk.metering.bodies import ModelRequest
from tallystick.sdk.metering.call import Call, Ending, Owed, budget_declared, undeclared_budget
from tallystick.sdk.recorder import Recorder
from tallystick.sdk.spool.records import EVENTS_PATH
from tallystick.sdk.telemetry import mark_span
from tallystick.sdk.transport import Answer, check_answer

_log = logging.getLogger("tallystick.sdk")


class MeteredCall:
    """One call under way, with what was read of its answer."""

    def __init__(self, recorder: Recorder, call: Call) -> None:
        self.recorder = recorder
        self.call = call
        self.reading = Reading(call.request)
        self.provider_request_id = ""
        self._started_at = time.perf_counter()

    # Before the call.

    def authorize(self) -> None:
        """Ask the server; LimitReached, or Unreachable by policy, when it may not be made."""
        self._check_before()
        ask = self.call.ask()
        try:
            declare_budget(self.recorder, self.call.place)
            answer = self.recorder.transport.post(ask.path, _body(ask))
        except Unreachable as away:
            self._go_on_or_raise(away)
            return
        try:
            self._take_authorization(answer)
        except LimitReached:
            if self.call.is_open:  # the server allowed it, a run's budget does not
                self.cancel()
            raise

    async def authorize_async(self) -> None:
        """Ask the server; LimitReached, or Unreachable by policy, when it may not be made."""
        self._check_before()
        ask = self.call.ask()
        try:
            await declare_budget_async(self.recorder, self.call.place)
            answer = await self.recorder.async_transport.post(ask.path, _body(ask))
        except Unreachable as away:
            self._go_on_or_raise(away)
            return
        except BaseException:  # the task was cancelled while it waited
            self._owe(self.call.undo())
            raise
        try:
            self._take_authorization(answer)
        except LimitReached:
            if self.call.is_open:
                await self.cancel_async()
            raise

    def _check_before(self) -> None:
        if self.call.request.is_background:
            raise InvalidInput(
                "background responses cannot be limited or charged here: they end after their "
                "request; leave background out, or use a client that is not instrumented and "
                "report the usage",
                code="background_not_supported",
                field="background",
            )
        self.recorder.sender.start()
        if not self.recorder.has_room:
            raise SpoolFull("too much waits for the server; the call was not made")
        self.call.check_budget()

    def _take_authorization(self, answer: Answer) -> None:
        content = check_answer(answer)
        bound = content.get("tokens_output_max")
        if isinstance(bound, int):
            self.reading.tokens_output_bound = bound
        self.call.authorize(content)

    def _go_on_or_raise(self, away: Unreachable) -> None:
        if away.may_have_arrived:
            self._owe(self.call.undo())
        if self.recorder.settings.on_unreachable == "refuse":
            raise away
        _log.warning("Tallystick cannot be reached; a call goes on and is charged later")
        self.call.go_on_unmetered()

    # After the call.

    def settle(self, outcome: str, error_code: str = "") -> None:
        """Say what it used; once, and never raising for want of a network."""
        if not self.call.is_open:
            return
        owed = self.call.settle(self._ending(outcome, error_code))
        if owed.path == EVENTS_PATH:
            self._owe_cost_unknown(owed)
            return
        try:
            answer = self.recorder.transport.post(owed.path, _body(owed))
        except Unreachable:
            self._owe_cost_unknown(owed)
            return
        self._take_settlement(owed, answer)

    async def settle_async(self, outcome: str, error_code: str = "") -> None:
        """Say what it used; once, and never raising for want of a network."""
        if not self.call.is_open:
            return
        owed = self.call.settle(self._ending(outcome, error_code))
        if owed.path == EVENTS_PATH:
            self._owe_cost_unknown(owed)
            return
        try:
            answer = await self.recorder.async_transport.post(owed.path, _body(owed))
        except Unreachable:
            self._owe_cost_unknown(owed)
            return
        except BaseException:
            self._owe_cost_unknown(owed)
            raise
        self._take_settlement(owed, answer)

    def settle_by_spool(self, outcome: str, error_code: str = "") -> None:
        """Say what it used without a wait: the caller is being cancelled or interrupted."""
        if self.call.is_open:
            self._owe_cost_unknown(self.call.settle(self._ending(outcome, error_code)))

    def settle_from_collector(self) -> None:
        """The last resort: nobody closed the stream, and this is its finalizer."""
        if self.call.is_open:
            owed = self.call.settle(self._ending("cancelled", "abandoned"))
            self.recorder.owe_late(owed.path, owed.content)

    def cancel(self) -> None:
        """It was not made, or the provider refused it: nothing was used."""
        owed = self.call.cancel() if self.call.is_open else None
        if owed is None:
            return
        try:
            answer = self.recorder.transport.post(owed.path, _body(owed))
        except Unreachable:
            self._owe(owed)
            return
        if answer.status >= 300:
            self._owe(owed)

    async def cancel_async(self) -> None:
        """It was not made, or the provider refused it: nothing was used."""
        owed = self.call.cancel() if self.call.is_open else None
        if owed is None:
            return
        try:
            answer = await self.recorder.async_transport.post(owed.path, _body(owed))
        except Unreachable:
            self._owe(owed)
            return
        except BaseException:
            self._owe(owed)
            raise
        if answer.status >= 300:
            self._owe(owed)

    def _ending(self, outcome: str, error_code: str) -> Ending:
        reading = self.reading
        if reading.seen.error_code and outcome == "completed":
            outcome, error_code = "failed", reading.seen.error_code
        return Ending(
            usage=reading.usage,
            outcome=outcome,
            error_code=error_code,
            latency_ms=round((time.perf_counter() - self._started_at) * 1000, 3),
            provider_request_id=self.provider_request_id or reading.answer_id,
            served_model=reading.served_model,
        )

    def _take_settlement(self, owed: Owed, answer: Answer) -> None:
        if answer.status >= 300:
            self._owe_cost_unknown(owed)  # the sender decides whether it is refused for ever
            return
        cost_usd = self.call.cost(answer.content)
        self._mark(f"{cost_usd:f}")

    def _owe_cost_unknown(self, owed: Owed) -> None:
        self.call.cost_unknown()
        self._owe(owed)
        self._mark("")

    def _owe(self, owed: Owed) -> None:
        """Hand over to the spool; the answer is the caller's even if the spool is broken."""
        try:
            self.recorder.owe(owed.path, owed.content)
        except SpoolFull as full:
            _log.error("a settlement could not be kept: %s", full)

    def _mark(self, cost_usd: str) -> None:
        usage, place = self.reading.usage, self.call.place
        mark_span(
            {
                "gen_ai.provider.name": self.call.provider,
                "gen_ai.request.model": self.call.request.model,
                "gen_ai.response.model": self.reading.served_model,
                "gen_ai.usage.input_tokens": usage.tokens_input,
                "gen_ai.usage.output_tokens": usage.tokens_output,
                "tallystick.run_id": place.run.run_id if place.run else "",
                "tallystick.attempt": place.attempt,
                "tallystick.cost_usd": cost_usd,
                "tallystick.call_id": self.call.call_id,
            }
        )


def _body(owed: Owed) -> bytes:
    return msgspec.json.encode(owed.content)


def declare_budget(recorder: Recorder, place: Place) -> None:
    """Tell the server the budget of the root run before its first call; raises as it answers."""
    if budget := undeclared_budget(place.run, recorder.settings.tenant_id):
        check_answer(recorder.transport.post(budget.path, _body(budget)))
        budget_declared(place.run)


async def declare_budget_async(recorder: Recorder, place: Place) -> None:
    """The same, awaiting."""
    if budget := undeclared_budget(place.run, recorder.settings.tenant_id):
        check_answer(await recorder.async_transport.post(budget.path, _body(budget)))
        budget_declared(place.run)


def begin(request: ModelRequest, provider: str, recorder: Recorder | None) -> MeteredCall:
    """A call that is about to be made where the work stands now."""
    found, place = stand(recorder)
    call = Call(
        request,
        place,
        found.settings,
        provider=provider,
        call_id=found.ids.next_id(),
        began_at=found.clock.now(),
    )
    return MeteredCall(found, call)
