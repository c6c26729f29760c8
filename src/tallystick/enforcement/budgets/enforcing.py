"""Enforcing: what a process that authorizes keeps of budgets in memory.

Its copy of the active budgets, whose accounts are, which windows exist, and for budgets that
throttle or downgrade what their windows had counted a moment ago. Belongs to one event loop;
the store is asked in threads, so that nothing else waits for it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence

from tallystick.clock import Clock
from tallystick.enforcement.budgets.matching import (
    CHECK_SECONDS,
    EDIT_SECONDS_MAX,
    ActiveBudgets,
    WindowPart,
    fill_attribution,
)
from tallystick.enforcement.budgets.model import Budget, WindowView
from tallystick.enforcement.budgets.rules import crossed, throttle_seconds
from tallystick.enforcement.budgets.service import Budgets
from tallystick.errors import InvalidInput, NotFound

_REMEMBERED_MAX = 200_000
_VIEW_SECONDS = 0.5


class Enforcing:
    """Budgets for one event loop."""

    def __init__(
        self, budgets: Budgets, clock: Clock, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._budgets = budgets
        self._clock = clock
        self._monotonic = monotonic
        self._active = ActiveBudgets()
        self._checked_at = -EDIT_SECONDS_MAX
        self._check: asyncio.Task[None] | None = None
        self._tenants: dict[str, str] = {}
        self._sought: dict[str, asyncio.Future[str]] = {}
        """Accounts whose tenant the next look-up finds."""
        self._lookup: asyncio.Task[None] | None = None
        self._made: set[str] = set()
        self._views: dict[str, tuple[float, WindowView]] = {}

    async def match(
        self,
        account_id: str,
        tenant_id: str,
        attribution: Mapping[str, str],
        at: int | None = None,
    ) -> list[WindowPart]:
        """The windows that work falls under (now), all made; none for an unknown account."""
        await self._fresh()
        owner = await self.tenant_of(account_id)
        if not owner:
            return []
        if tenant_id not in ("", owner):
            raise NotFound("there is no such account; create it with PUT", code="unknown_account")
        moment = self._clock.now() if at is None else at
        parts = self._active.match(owner, attribution, moment)
        missing = [part for part in parts if part.limit_id not in self._made]
        if missing:
            if any("\0" in value for part in missing for _, value in part.each):
                raise InvalidInput("attribution may not hold NUL", field="attribution")
            await asyncio.to_thread(self._budgets.open_windows, missing)
            if len(self._made) > _REMEMBERED_MAX:
                self._made.clear()
            self._made.update(part.limit_id for part in missing)
        return parts

    async def may_match(self, account_id: str, attribution: Mapping[str, str]) -> list[Budget]:
        """Hard budgets that work of an account with this attribution could fall under."""
        await self._fresh()
        owner = await self.tenant_of(account_id)
        index = self._active.index(owner)
        filled = fill_attribution(owner, attribution)
        return [one for one in index.may_match(filled) if one.terms.kind == "hard"]

    async def thresholds(
        self, parts: Sequence[WindowPart], units: Mapping[str, int]
    ) -> list[tuple[WindowPart, bool, int]]:
        """Of budgets that downgrade or throttle: (window, whether to downgrade, seconds to wait).

        Decided on figures of the last half second: the amount itself is guarded by the ledger.
        """
        watched = [part for part in parts if _is_watched(part)]
        if not watched:
            return []
        views = await self._view(watched)
        found = []
        for part in watched:
            view, terms = views.get(part.limit_id), part.budget.terms
            if view is None:  # its window is gone from the store: the ledger itself decides
                continue
            counted = view.used + view.held
            actions = {one.action for one in crossed(terms, view.carried, counted)}
            wait = throttle_seconds(
                terms, part.window, view.carried, counted, units[part.asset], self._clock.now()
            )
            found.append((part, "downgrade" in actions, wait))
        return found

    async def _view(self, parts: Sequence[WindowPart]) -> dict[str, WindowView]:
        now = self._monotonic()
        if len(self._views) > _REMEMBERED_MAX:
            self._views.clear()
        stale = [
            part.limit_id
            for part in parts
            if self._views.get(part.limit_id, (-_VIEW_SECONDS, None))[0] + _VIEW_SECONDS <= now
        ]
        if stale:
            loaded = await asyncio.to_thread(self._budgets.load_windows, stale)
            for limit_id in stale:
                self._views.pop(limit_id, None)
            self._views.update((limit_id, (now, view)) for limit_id, view in loaded.items())
        kept = {part.limit_id: self._views.get(part.limit_id) for part in parts}
        return {limit_id: one[1] for limit_id, one in kept.items() if one is not None}

    async def _fresh(self) -> None:
        """See to it that the copy is not older than EDIT_SECONDS_MAX."""
        age = self._monotonic() - self._checked_at
        if age < CHECK_SECONDS:
            return
        if self._check is None or self._check.done():
            self._check = asyncio.create_task(self._refresh())
            self._check.add_done_callback(lambda task: task.cancelled() or task.exception())
        if age >= EDIT_SECONDS_MAX:
            await asyncio.shield(self._check)

    async def _refresh(self) -> None:
        began_at = self._monotonic()
        await asyncio.to_thread(self._budgets.refresh, self._active)
        self._checked_at = began_at

    async def tenant_of(self, account_id: str) -> str:
        """Whose an account is; "" when there is none."""
        found = self._tenants.get(account_id)
        if found is None and ("\0" in account_id or not account_id):
            return ""
        if found is not None:
            return found
        sought = self._sought.get(account_id)
        if sought is None:
            sought = self._sought[account_id] = asyncio.get_running_loop().create_future()
            if self._lookup is None or self._lookup.done():
                self._lookup = asyncio.create_task(self._look_up())
        return await asyncio.shield(sought)

    async def _look_up(self) -> None:
        """Learn whose accounts are: those that are sought meanwhile together, in one statement."""
        while self._sought:
            sought, self._sought = self._sought, {}
            try:
                found = await asyncio.to_thread(self._budgets.load_tenants, list(sought))
            except Exception as error:
                for answer in sought.values():
                    answer.set_exception(error)
                continue
            if len(self._tenants) > _REMEMBERED_MAX:
                self._tenants.clear()
            self._tenants.update(found)  # an account's tenant never changes
            for account_id, answer in sought.items():
                answer.set_result(found.get(account_id, ""))

    def forget(self) -> None:
        """Read budgets again before the next decision; an edit in this process calls it."""
        self._checked_at = -EDIT_SECONDS_MAX


def _is_watched(part: WindowPart) -> bool:
    terms = part.budget.terms
    return not terms.is_shadow and any(
        one.action in ("downgrade", "throttle") for one in terms.thresholds
    )
