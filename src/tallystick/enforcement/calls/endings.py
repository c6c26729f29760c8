"""Who may end a call's hold: that of a call which the gateway makes is the gateway's to end.

Its caller knows the hold's id with the answer's first byte and may settle calls of its own: it
could end this one for nothing, or for less than it used, while the answer still comes. Who may
write the ledger itself (refund, grant) may also end a hold that is stuck.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from uuid import UUID

from tallystick.access import Principal
from tallystick.enforcement.calls.details import Said, read_details
from tallystick.enforcement.calls.store import CallStore
from tallystick.errors import Forbidden


def check_ending(said: Said, principal: Principal) -> None:
    """Raise Forbidden when this is a call of the gateway, and not theirs to end."""
    if said.is_gateway and not _may_end_any(principal):
        raise _forbidden()


class Endings:
    """Looks at holds by id, before they are changed past their call."""

    def __init__(self, store: CallStore) -> None:
        self._store = store

    async def check(self, hold_id: str, principal: Principal) -> None:
        """Raise Forbidden when the hold is of a gateway's call, and not theirs to end."""
        if await self.find_forbidden([hold_id], principal):
            raise _forbidden()

    async def find_forbidden(
        self, hold_ids: Iterable[str], principal: Principal
    ) -> dict[str, Forbidden]:
        """Those of the holds that are not theirs to end, as they were named; one read."""
        if _may_end_any(principal):
            return {}
        named = {name: hold_id for name in hold_ids if (hold_id := _id_of(name))}
        if not named:
            return {}
        found = await asyncio.to_thread(self._store.load_details, sorted(set(named.values())))
        kept = {
            hold_id
            for hold_id, text in found
            if (details := read_details(text)) is not None and details.said.is_gateway
        }
        return {name: _forbidden() for name, hold_id in named.items() if hold_id in kept}


def _may_end_any(principal: Principal) -> bool:
    return principal.may("ledger:write")


def _id_of(name: str) -> str:
    """The id as it is stored; "" for what cannot be one."""
    try:
        return str(UUID(name))
    except ValueError:
        return ""


def _forbidden() -> Forbidden:
    return Forbidden("the gateway makes this call and settles it by itself", code="call_of_gateway")
