"""The money path as the gateway sees it: authorize, top up, settle, cancel."""

from __future__ import annotations

from typing import Protocol

from tallystick.enforcement.authorization import Advice
from tallystick.enforcement.calls import CallAsk, CallPermit, CallReceipt, CallRefused, Usage

__all__ = ["Advice", "CallAsk", "CallPermit", "CallReceipt", "CallRefused", "Calls", "Usage"]


class Calls(Protocol):
    """Decides about one call's money; `enforcement.calls.Calls` does."""

    async def authorize(self, ask: CallAsk) -> CallPermit:
        """Hold what the call may cost at most, or raise CallRefused."""
        ...

    async def top_up(self, permit: CallPermit, *, tokens_output: int) -> CallPermit:
        """Hold enough for so many output tokens in all, or raise CallRefused."""
        ...

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
        """Charge what was used; not `is_waiting`, it returns once the charge is certain."""
        ...

    async def finish_captures(self) -> bool:
        """Free what calls that have ended here still hold; False when none does."""
        ...

    async def advise(self, ask: CallAsk, *, has_cheaper: bool = True) -> Advice:
        """What budgets and mitigations say of a call before it is asked for."""
        ...

    async def check(self, ask: CallAsk) -> None:
        """Raise CallRefused for a free call that a kill switch or a mitigation forbids."""
        ...

    async def keep(self, permit: CallPermit, *, ttl_seconds: int) -> None:
        """Give a call under way more time; raises Conflict when its hold has ended."""
        ...

    def check_running(self, permit: CallPermit) -> None:
        """Raise Blocked when a call under way must end; called often."""
        ...

    async def cancel(self, permit: CallPermit, *, reason: str) -> None:
        """End a hold whose call was not made, or not billed."""
        ...
