"""One call from its request to its receipt: authorize, send, settle, for each attempt.

Every attempt has its own hold. An attempt that the upstream refused (4xx, 5xx) is not
billed by providers and settles at zero; one that was sent and brought no whole answer is
settled by estimate, because its provider may bill it. Whatever happens to the request, its
attempt is ended: a hold that a crash leaves behind is ended by the ledger's resolver.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Coroutine, Mapping
from functools import partial
from typing import Any, NamedTuple, TypeVar

import msgspec
from starlette.responses import Response

from tallystick.access import Principal
from tallystick.clock import SECOND
from tallystick.errors import TallystickError, TooManyRequests
from tallystick.gateway import routing
from tallystick.gateway.attribution import CallPlace
from tallystick.gateway.door import TokenRate
from tallystick.gateway.headers import answer_headers, call_headers
from tallystick.gateway.health import Health
from tallystick.gateway.heartbeat import Heartbeat
from tallystick.gateway.insisting import insist, insist_on_room
from tallystick.gateway.keys import KeyRing
from tallystick.gateway.model import Asked, ModelOff, ModelUnknown, UpstreamBusy, UpstreamFailed
from tallystick.gateway.money import CallAsk, CallPermit, CallReceipt, CallRefused, Calls, Usage
from tallystick.gateway.outbound import Answer, Outbound
from tallystick.gateway.routing import Choice
from tallystick.gateway.settings import GatewaySettings
from tallystick.gateway.streams import StreamAnswer
from tallystick.gateway.surfaces import Surface
from tallystick.gateway.upstreams import able, send_translated, translation_of
from tallystick.gateway.upstreams.translation import Unsupported
from tallystick.header_text import header_text
from tallystick.ids import IdSource
from tallystick.usage import believed, estimated_usage
from tallystick.usage.reading import estimate_output

T = TypeVar("T")
_OURS = frozenset({"unsupported_field", "upstream_key_unreadable", "upstream_busy"})
"""Failures before anything was sent, that say nothing of the upstream."""
_KEY_REFUSED = frozenset({401, 403})
"""Our key, not the app's: what the upstream says of it is not passed on."""
_DOWNGRADE_CODES = frozenset({"budget_exceeded", "downgrade_required"})


class Call(NamedTuple):
    """One request of an app."""

    surface: Surface
    asked: Asked
    principal: Principal
    place: CallPlace
    headers: Mapping[str, str]
    """Those of the app's headers that are passed on."""
    request_id: str
    rate: TokenRate
    downgraded_by: str = ""
    """What made a cheaper model answer: budget:<id> or mitigation:<id>."""


class Attempt(NamedTuple):
    """One hold and what it is for."""

    call: Call
    choice: Choice
    permit: CallPermit
    started: float


class Calling:
    """Makes calls."""

    def __init__(
        self,
        calls: Calls,
        outbound: Outbound,
        settings: GatewaySettings,
        keys: KeyRing,
        health: Health,
        ids: IdSource,
    ) -> None:
        self.calls = calls
        self.settings = settings
        self._outbound = outbound
        self._keys = keys
        self._health = health
        self._ids = ids
        self._heartbeat = Heartbeat(calls, settings.hold_seconds)
        self._endings: set[asyncio.Task[Any]] = set()

    async def answer(self, call: Call) -> Response:
        """Make a call, trying other targets where one fails; raises TallystickError."""
        choices, retries = self.choices(call)
        call, choices = await self._steer(call, choices)
        self._health.began()
        tried = 0
        place: int | None = None
        failure: Response | UpstreamFailed = UpstreamFailed("", code="", is_sent=False)
        while True:
            place = self._health.take_next(choices, place, call.principal.tenant_id)
            if place is None:
                break
            choice = choices[place]
            if tried and not self._health.may_retry():
                self._health.give_back(choice.upstream, is_sent=False)
                break
            tried += 1
            attempt = await self._authorize(call, choice, tried)
            outcome = await self._attempt(attempt)
            if isinstance(outcome, Response) and outcome.status_code < 400:
                return outcome
            failure = outcome
            if tried > retries or not self._is_worth_another(outcome):
                break
            await asyncio.sleep(routing.delay_before(tried, self._health.random()) / SECOND)
        if not tried:
            raise self._unavailable(call, choices)
        if isinstance(failure, UpstreamFailed):
            raise failure
        return failure

    def choices(self, call: Call) -> tuple[list[Choice], int]:
        """Where this call may go; raises ModelUnknown or ModelOff."""
        model = call.asked.model
        allowed = call.principal.models
        if allowed and not routing.is_allowed(model, allowed):
            raise ModelOff(f"this key may not call {model}", code="model_not_allowed")
        if routing.is_allowed(model, self.settings.models_off):
            raise ModelOff(f"{model} is switched off")
        choices, retries = routing.plan_choices(
            self.settings, call.surface.speaks, model, self._health.random()
        )
        if not choices:
            raise ModelUnknown(f"no upstream answers {model} here")
        on = self._on(choices)
        if not on:
            raise ModelOff(f"{model} is switched off")
        return self._able(call, on), retries

    @staticmethod
    def _able(call: Call, choices: list[Choice]) -> list[Choice]:
        """The choices that can carry a call whole; raises Unsupported when none of several can."""
        beta = call.headers.get("anthropic-beta", "")
        return able(choices, call.surface.name, call.asked, beta)

    async def _steer(self, call: Call, choices: list[Choice]) -> tuple[Call, list[Choice]]:
        """Go down the route's ladder at once where a budget or a mitigation says so."""
        ladder = self._ladder(call)
        advice = await self.calls.advise(self._ask(call, choices[0], 1), has_cheaper=bool(ladder))
        if not advice.downgrade:
            return call, choices
        if advice.model:
            direct, _ = routing.plan_choices(self.settings, call.surface.speaks, advice.model, 0)
            named = (*ladder, *self._usable(call, direct))
            ladder = [one for one in named if one.model == advice.model]
        if not ladder:
            return call, choices
        return call._replace(downgraded_by=advice.decided_by), ladder

    def _ladder(self, call: Call) -> list[Choice]:
        """The cheaper targets of the call's route, in order."""
        route = self.settings.routes.get(call.asked.model)
        if route is None:
            return []
        ladder = routing.choices_of(
            self.settings.upstreams, call.surface.speaks, call.asked.model, route.downgrades
        )
        return self._usable(call, ladder)

    def _usable(self, call: Call, choices: list[Choice]) -> list[Choice]:
        """Those of cheaper choices that are on and can carry a call."""
        try:
            return self._able(call, self._on(choices))
        except Unsupported:
            return []

    def _on(self, choices: list[Choice]) -> list[Choice]:
        """Those whose models are not switched off."""
        off = self.settings.models_off
        return [one for one in choices if not routing.is_allowed(one.model, off)]

    def _unavailable(self, call: Call, choices: list[Choice]) -> TallystickError:
        wait = self._health.rest_seconds(choices, call.principal.tenant_id)
        if not wait:
            return UpstreamBusy("every upstream of this model is busy or out of order")
        return TooManyRequests(
            "the upstream's own rate limit for this model is used up",
            decided_by=f"upstream:{choices[0].upstream.name}",
            retry_after_seconds=wait,
        )

    def _is_worth_another(self, outcome: Response | UpstreamFailed) -> bool:
        if isinstance(outcome, UpstreamFailed):
            return outcome.code != "upstream_timeout"  # the next would take as long again
        return routing.is_retryable(outcome.status_code)

    async def _authorize(self, call: Call, choice: Choice, tried: int) -> Attempt:
        try:
            try:
                permit = await self._permit(self._ask(call, choice, tried))
            except CallRefused as refused:
                return await self._downgrade(call, choice, tried, refused)
        except BaseException:
            self._health.give_back(choice.upstream, is_sent=False)
            raise
        return Attempt(call, choice, permit, time.perf_counter())

    async def _downgrade(
        self, call: Call, choice: Choice, tried: int, refused: CallRefused
    ) -> Attempt:
        """Ask again for each cheaper target of the route's ladder; else raise the refusal."""
        if refused.code not in _DOWNGRADE_CODES:
            raise refused
        for step, cheaper in enumerate(self._ladder(call), 1):
            if not self._health.take(cheaper, call.principal.tenant_id):
                continue
            try:
                permit = await self._permit(self._ask(call, cheaper, tried, f"-down{step}"))
            except CallRefused:
                self._health.give_back(cheaper.upstream, is_sent=False)
                continue
            except BaseException:
                self._health.give_back(cheaper.upstream, is_sent=False)
                raise
            self._health.give_back(choice.upstream, is_sent=False)
            call = call._replace(downgraded_by=refused.decided_by)
            return Attempt(call, cheaper, permit, time.perf_counter())
        raise refused

    async def _permit(self, ask: CallAsk) -> CallPermit:
        return await insist_on_room(self.calls, ask, self._held)

    async def _held(self, ask: CallAsk) -> CallPermit:
        try:
            return await self.calls.authorize(ask)
        except asyncio.CancelledError:
            await self.ending(self._undo(ask))
            raise

    async def _undo(self, ask: CallAsk) -> None:
        """Give back what may have been held for who was cancelled: the same key, the same hold."""
        with contextlib.suppress(TallystickError):
            await self.calls.cancel(await self.calls.authorize(ask), reason="cancelled")

    def _ask(self, call: Call, choice: Choice, tried: int, suffix: str = "") -> CallAsk:
        asked, place = call.asked, call.place
        request_id = call.request_id if tried == 1 else f"{call.request_id}-{tried}"
        request_id += suffix
        return CallAsk(
            principal=_without_models(call.principal),
            provider=choice.upstream.provider,
            model=choice.model,
            tokens_input=asked.tokens_input,
            tokens_output_max=asked.tokens_output_max,
            answers=asked.answers,
            has_cache_write=asked.has_cache_write,
            has_audio=asked.has_audio,
            service_tier=asked.service_tier,
            tools=asked.tools,
            account_id=place.account_id,
            run_id=place.run_id,
            parent_run_id=place.parent_run_id,
            root_run_id=place.root_run_id,
            attempt=place.attempt,
            request_id=request_id,
            attribution=place.attribution,
            ttl_seconds=self.settings.hold_seconds,
            idempotency_key=request_id,
            is_gateway=True,
        )

    async def _attempt(self, attempt: Attempt) -> Response | UpstreamFailed:
        """Send one attempt and end its hold; a stream ends it later, by itself."""
        choice, call = attempt.choice, attempt.call
        is_handed_on, is_sent = False, True
        self._heartbeat.began(attempt.permit)
        try:
            answer = await self._send(attempt)
            if answer.status < 500:  # a refusal too says that it is in order
                self._health.succeeded(choice.upstream)
            if answer.status >= 400:
                return await self._refused(attempt, answer)
            if answer.status >= 300:
                answer.close()
                return await self._unanswered(
                    attempt, UpstreamFailed("a redirect", code="upstream_failed", is_sent=False)
                )
            if call.asked.is_stream and not _is_whole(answer):
                is_handed_on = True
                return StreamAnswer(self, attempt, answer)
            return await self._whole(attempt, answer)
        except UpstreamFailed as failure:
            is_sent = failure.code not in _OURS
            if is_sent:
                self._health.failed(choice.upstream)
            return await self._unanswered(attempt, failure)
        except asyncio.CancelledError:
            if self._heartbeat.beats(attempt.permit):  # else its hold is being ended already
                gone = UpstreamFailed("cancelled", code="cancelled", is_sent=True)
                await self.ending(self._unanswered(attempt, gone))
            raise
        finally:
            if not is_handed_on:
                self.give_back(attempt, is_sent=is_sent)

    def give_back(self, attempt: Attempt, *, is_sent: bool = True) -> None:
        """An attempt ended."""
        self._heartbeat.ended(attempt.permit)
        self._health.give_back(attempt.choice.upstream, is_sent=is_sent)

    async def _send(self, attempt: Attempt) -> Answer:
        call, (upstream, model) = attempt.call, attempt.choice
        upstream = self._keys.keyed(upstream, attempt.permit.tenant_id)
        headers = {**call.headers, "X-Client-Request-Id": attempt.permit.request_id}
        translation = translation_of(upstream, call.surface.name)
        if translation is not None:
            created = attempt.permit.occurred_at // SECOND
            return await send_translated(
                self._outbound, translation, call.asked, upstream, model, headers, created
            )
        return await self._outbound.send(
            upstream,
            call.surface.upstream_path,
            call.surface.body_for(call.asked, model, upstream),
            headers,
            model=model,
        )

    async def pass_on(self, call: Call) -> Response:
        """Send a call that is free (a token count) and give back its answer as it is."""
        choices, _ = self.choices(call)
        await self.calls.check(self._ask(call, choices[0], 1))
        upstream, model = choices[0]
        body = call.surface.body_for(call.asked, model, upstream)
        keyed = self._keys.keyed(upstream, call.principal.tenant_id)
        answer = await self._outbound.send(
            keyed, call.surface.upstream_path, body, call.headers, model=model
        )
        content = await answer.read()
        if answer.status in _KEY_REFUSED:
            raise _key_refused()
        return Response(content, answer.status, answer_headers(answer.headers))

    async def _whole(self, attempt: Attempt, answer: Answer) -> Response:
        call = attempt.call
        try:
            body = await answer.read()
        except UpstreamFailed as failure:
            tokens = estimate_output(answer.partial_bytes)
            usage = estimated_usage(call.asked.tokens_input, tokens)
            await self.ending(
                self.settle(attempt, usage, outcome="failed", error_code=failure.code)
            )
            raise _Settled(failure) from failure
        seen = call.surface.read_answer(body)
        estimate = estimated_usage(
            call.asked.tokens_input,
            0 if call.asked.tokens_output_max == 0 else estimate_output(len(body)),
        )
        usage = believed(seen.usage, estimate)
        receipt = await self.ending(
            self.settle(
                attempt,
                usage,
                error_code=seen.error_code,
                provider_request_id=_provider_id(answer),
                served_model=seen.served_model,
                service_tier=seen.service_tier,
            )
        )
        headers = answer_headers(answer.headers)
        headers.update(call_headers(attempt.permit, receipt, seen.served_model, call.downgraded_by))
        return Response(body, 200, headers)

    async def _refused(self, attempt: Attempt, answer: Answer) -> Response | UpstreamFailed:
        """The upstream said no: providers do not bill that; its answer is passed on."""
        try:
            body = await answer.read()
        except UpstreamFailed:  # it said no all the same
            body = b""
        if answer.status == 429:
            wait = answer.headers.get("retry-after") or ""
            self._health.limited(attempt.choice, attempt.call.principal.tenant_id, wait)
        elif answer.status >= 500:
            self._health.failed(attempt.choice.upstream)
        await self.ending(
            self.settle(
                attempt,
                Usage(),
                outcome="failed",
                error_code=f"http_{answer.status}",
                provider_request_id=_provider_id(answer),
            )
        )
        if answer.status in _KEY_REFUSED:
            return _key_refused()
        return Response(body, answer.status, answer_headers(answer.headers))

    async def _unanswered(self, attempt: Attempt, failure: UpstreamFailed) -> UpstreamFailed:
        if isinstance(failure, _Settled):
            return failure.failure
        if failure.is_sent:
            usage = estimated_usage(attempt.call.asked.tokens_input, 0)
            await self.ending(
                self.settle(attempt, usage, outcome="failed", error_code=failure.code)
            )
        else:
            self._heartbeat.ended(attempt.permit)
            await self.ending(self.calls.cancel(attempt.permit, reason=failure.code))
        return failure

    async def settle(
        self,
        attempt: Attempt,
        usage: Usage,
        *,
        outcome: str = "completed",
        error_code: str = "",
        provider_request_id: str = "",
        served_model: str = "",
        service_tier: str | None = None,
    ) -> CallReceipt:
        """Settle one attempt; while the log is away, try again: the work is done."""
        self._heartbeat.ended(attempt.permit)
        if service_tier is not None:
            usage = msgspec.structs.replace(usage, service_tier=service_tier)
        receipt = await insist(
            partial(
                self.calls.settle,
                attempt.permit,
                usage,
                outcome=outcome,
                error_code=error_code,
                latency_ms=int((time.perf_counter() - attempt.started) * 1000),
                provider_request_id=provider_request_id,
                served_model=served_model,
                is_waiting=False,  # the event is durable: the capture follows, also after a crash
            )
        )
        with contextlib.suppress(TallystickError):  # the charge is certain; a rate heals itself
            await attempt.call.rate.used(usage.tokens_input + usage.tokens_output)
        return receipt

    async def ending(self, work: Coroutine[Any, Any, T]) -> T:
        """Finish what ends a hold, also when the request that waits for it is cancelled."""
        task = asyncio.create_task(work)
        self._endings.add(task)
        task.add_done_callback(self._endings.discard)
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Wait for holds that are being ended."""
        await self._heartbeat.close()
        if self._endings:
            await asyncio.wait(self._endings, timeout=10)


class _Settled(UpstreamFailed):
    """A failure whose attempt has been settled."""

    def __init__(self, failure: UpstreamFailed) -> None:
        super().__init__(failure.message, code=failure.code, is_sent=True)
        self.failure = failure


def _without_models(principal: Principal) -> Principal:
    """Its models were checked by the name that was asked for; a route may lead to others."""
    return msgspec.structs.replace(principal, models=()) if principal.models else principal


def _key_refused() -> UpstreamFailed:
    return UpstreamFailed(
        "the upstream does not accept the key that is set for it",
        code="upstream_key_refused",
        is_sent=False,
    )


def _is_whole(answer: Answer) -> bool:
    """Whether an upstream answers in one piece, as some do that were asked for a stream."""
    return (answer.headers.get("content-type") or "").startswith("application/json")


def _provider_id(answer: Answer) -> str:
    headers = answer.headers
    return header_text(headers.get("x-request-id") or headers.get("request-id") or "")
