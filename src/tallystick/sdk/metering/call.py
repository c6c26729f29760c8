"""One metered call as a state machine: what is asked, what is owed, each once. Pure.

    new -> authorized -> settled | cancelled
    new -> unmetered  -> settled (an event of its own) | cancelled (nothing)
    any -> disowned (a copy of it in the child of a fork)

It makes the requests; shells send them, at once or by the spool. The keys of a call are
fixed when it is made, so whatever is sent twice has its effect once.
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple

import msgspec

from tallystick.invariant import check
from tallystick.sdk.context import Place, RunFrame
from tallystick.sdk.errors import LimitReached
from tallystick.sdk.metering.bodies import ModelRequest, tier_of
from tallystick.sdk.recorder import Settings
from tallystick.sdk.spool.records import (
    AUTHORIZATIONS_PATH,
    EVENTS_PATH,
    RUN_BUDGETS_PATH,
    UNDO_PATH,
)
from tallystick.sdk.work import event_at
from tallystick.usage import Usage


class Owed(NamedTuple):
    """A request to the server."""

    path: str
    content: dict[str, Any]


class Ending(NamedTuple):
    """How a call ended."""

    usage: Usage
    outcome: str = "completed"
    error_code: str = ""
    latency_ms: float = 0.0
    provider_request_id: str = ""
    served_model: str = ""


class Call:
    """One call of a model, from before it is made until it is settled."""

    def __init__(
        self,
        request: ModelRequest,
        place: Place,
        settings: Settings,
        *,
        provider: str,
        call_id: str,
        began_at: int,
    ) -> None:
        self.request = request
        self.place = place
        self.provider = provider
        self.call_id = call_id
        self.state = "new"
        self.cost_usd_max = Decimal(0)
        self.began_at = began_at
        self._settings = settings
        self._authorization_id = ""

    @property
    def is_open(self) -> bool:
        """Whether something is still owed for it."""
        return self.state in ("authorized", "unmetered")

    def ask(self) -> Owed:
        """The request that authorizes it."""
        run = self.place.run
        attribution = dict(self.place.attribution)
        content: dict[str, Any] = {
            "account_id": self._settings.account_id,
            "provider": self.provider,
            "model": self.request.model,
            "tokens_input": self.request.tokens_input,
            "tokens_output_max": self.request.tokens_output_max,
            "answers": self.request.answers if self.request.answers > 1 else None,
            "has_cache_write": self.request.has_cache_write,
            "has_audio": self.request.has_audio,
            "service_tier": self.request.service_tier,
            "run_id": run.run_id if run else "",
            "parent_run_id": run.parent_run_id if run else "",
            "root_run_id": run.root_run_id if run else "",
            "attempt": self.place.attempt,
            "request_id": self.call_id,
            "attribution": attribution,
            "ttl_seconds": self._settings.ttl_seconds,
            "idempotency_key": f"call-{self.call_id}",
        }
        if self._settings.tenant_id:
            content["tenant_id"] = self._settings.tenant_id
        return Owed(
            AUTHORIZATIONS_PATH,
            {name: value for name, value in content.items() if value not in ("", None, False, {})},
        )

    def check_budget(self) -> None:
        """Raise LimitReached when a run above has no budget left."""
        self._hold(Decimal(0))

    def _hold(self, cost_usd: Decimal) -> None:
        if self.place.run is None:
            return
        full = self.place.run.try_hold(cost_usd)
        if full is not None:
            raise LimitReached(
                f"the budget of run {full.run_id} has no room for this call",
                code="run_budget_exceeded",
                decided_by=f"run:{full.run_id}",
                retry="wait" if full.held_usd else "never",
                available=str(max((full.budget_usd or 0) - full.spent_usd - full.held_usd, 0)),
            )

    def authorize(self, content: dict[str, Any]) -> None:
        """The server has set its cost aside; LimitReached when a run's budget has no room."""
        check(self.state == "new", "SDK-03", "a call is authorized once")
        self.state = "authorized"
        self._authorization_id = str(content.get("authorization_id") or content.get("hold_id"))
        cost_usd_max = amount_of(content.get("cost_usd_max"))
        self._hold(cost_usd_max)
        self.cost_usd_max = cost_usd_max

    def go_on_unmetered(self) -> None:
        """The server cannot be reached and the call is made all the same."""
        check(self.state == "new", "SDK-03", "a call is authorized once")
        self.state = "unmetered"

    def disown(self) -> None:
        """In the child of a fork: the parent ends it."""
        self.state = "disowned"

    def undo(self) -> Owed:
        """Cancels an authorization whose answer was lost."""
        return Owed(UNDO_PATH, self.ask().content)

    def settle(self, ending: Ending) -> Owed:
        """What is owed now that the call has ended."""
        check(self.is_open, "SDK-04", "a call is settled once")
        was_authorized = self.state == "authorized"
        self.state = "settled"
        return self._settlement(ending) if was_authorized else self._event(ending)

    def _settlement(self, ending: Ending) -> Owed:
        content = {
            "usage": msgspec.to_builtins(ending.usage),
            "outcome": ending.outcome,
            "error_code": ending.error_code,
            "latency_ms": ending.latency_ms,
            "provider_request_id": ending.provider_request_id,
            "served_model": ending.served_model,
            "idempotency_key": f"settle-{self.call_id}",
        }
        kept = {name: value for name, value in content.items() if value not in ("", None)}
        return Owed(f"{AUTHORIZATIONS_PATH}/{self._authorization_id}/settle", kept)

    def _event(self, ending: Ending) -> Owed:
        counts = {
            name: getattr(ending.usage, name)
            for name in Usage.__struct_fields__
            if name.startswith("tokens_")
        }
        served, served_model = ending.usage.service_tier, ending.served_model
        fields = {
            **counts,
            "provider": self.provider,
            "model": self.request.model,  # as a settled call's: budgets and prices go by it
            "served_model": served_model if served_model != self.request.model else "",
            "request_id": self.call_id,
            "service_tier": self.request.service_tier if served is None else tier_of(served),
            "usage_quality": ending.usage.quality,
            "latency_ms": ending.latency_ms,
            "error_code": ending.error_code,
            "tenant_id": self._settings.tenant_id,
            "source": self._settings.source,
        }
        event = event_at(self.place, "token_usage", self.call_id, self.began_at, fields)
        if "run_id" not in event:
            event["run_id"] = self.call_id
        return Owed(EVENTS_PATH, event)

    def cancel(self) -> Owed | None:
        """What is owed for a call that was not made, or that the provider refused."""
        check(self.is_open, "SDK-04", "a call is settled once")
        was_authorized = self.state == "authorized"
        self.state = "cancelled"
        self._free(Decimal(0))
        if not was_authorized:
            return None
        path = f"{AUTHORIZATIONS_PATH}/{self._authorization_id}/cancel"
        return Owed(path, {"idempotency_key": f"cancel-{self.call_id}"})

    def cost(self, content: dict[str, Any]) -> Decimal:
        """Read what it cost, USD, and count it against the runs above."""
        cost_usd = amount_of(content.get("cost_usd"))
        self._free(cost_usd)
        return cost_usd

    def cost_unknown(self) -> None:
        """Its cost is told later: the runs above count what it may have cost at most."""
        self._free(self.cost_usd_max)

    def _free(self, cost_usd: Decimal) -> None:
        held, self.cost_usd_max = self.cost_usd_max, Decimal(0)
        if self.place.run is not None:
            self.place.run.settle(held, cost_usd)


def undeclared_budget(run: RunFrame | None, tenant_id: str) -> Owed | None:
    """Tells the server the budget of the root run, so that other processes draw from it."""
    root = run.chain()[-1] if run else None
    if root is None or root.is_declared:
        return None
    content = {"run_id": root.run_id, "amount": f"{root.budget_usd:f}", "asset": "USD"}
    if tenant_id:
        content["tenant_id"] = tenant_id
    return Owed(RUN_BUDGETS_PATH, content)


def budget_declared(run: RunFrame | None) -> None:
    """The server has it."""
    if run is not None:
        run.chain()[-1].is_declared = True


def amount_of(value: Any) -> Decimal:
    """An amount of an answer; 0 when it is not told.

    >>> amount_of("0.25"), amount_of(None)
    (Decimal('0.25'), Decimal('0'))
    """
    try:
        return Decimal(value) if isinstance(value, str | int) else Decimal(0)
    except InvalidOperation:
        return Decimal(0)
