"""List, fix and dismiss broken messages.

A fix claims the event id that the message is to become, sends the repaired event through the
door like any other, and records how it ended. A crash in between leaves the claim: the same
fix again finds a duplicate and finishes, another one is refused. So a broken message becomes
at most one event, and fixing it twice counts once.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
from psycopg_pool import ConnectionPool

from tallystick.bounds import BROKEN_FIXES_MAX, REASON_LENGTH_MAX
from tallystick.broken.facts import PAGE_MAX, BrokenFact, BrokenFacts, BrokenFilter
from tallystick.broken.store import BrokenStore, Ending, Key
from tallystick.clock import Clock, format_time
from tallystick.errors import Conflict, InvalidInput, Unrepairable
from tallystick.events.broken import read_draft, repair
from tallystick.events.door import Door
from tallystick.events.model import Event
from tallystick.events.rules import Refused
from tallystick.plumbing.clickhouse import ClickHouse
from tallystick.plumbing.log import Verdict

_SAMPLES = 5
_OUTCOMES = {
    int(Verdict.ORIGINAL): "accepted",
    int(Verdict.DUPLICATE): "duplicate",
    int(Verdict.CONFLICT): "conflict",
}
_OPEN = {"status": "open", "event_id": "", "reason": "", "changed_at": None, "changed_by": None}
"""The state of a message that nobody touched."""

_SHOWN_OF_EVENT = ("content_digest", "received_at", "reject_code")

__all__ = ["BrokenFilter", "BrokenMessages"]


class _Repaired(NamedTuple):
    """A broken message and the event that it becomes."""

    fact: BrokenFact
    event: Event


class BrokenMessages:
    """Everything that can be done about broken messages."""

    def __init__(
        self, pool: ConnectionPool, clickhouse: ClickHouse, door: Door, clock: Clock
    ) -> None:
        self._store = BrokenStore(pool)
        self._facts = BrokenFacts(clickhouse)
        self._door = door
        self._clock = clock

    def page(
        self,
        wanted: BrokenFilter,
        *,
        status: str = "",
        cursor: str | None = None,
        limit: int = 50,
    ) -> dict[str, Any]:
        """Return {"broken_messages": [...], "next_cursor": text or None}, newest first.

        `status` (open, fixed, dismissed) is applied to each page after it was read: a page
        may then hold fewer than `limit`, and the cursor still leads on.
        """
        if status not in ("", "open", "fixed", "dismissed"):
            raise InvalidInput("status must be open, fixed or dismissed", field="status")
        limit = min(max(limit, 1), PAGE_MAX)
        found: list[dict[str, Any]] = []
        for _ in range(BROKEN_FIXES_MAX // PAGE_MAX):
            facts, cursor = self._facts.query_page(wanted, cursor, limit - len(found))
            found += [shown for shown in self._present(facts) if status in ("", shown["status"])]
            if cursor is None or len(found) >= limit:
                break
        return {"broken_messages": found, "next_cursor": cursor}

    def get(self, broken_id: str, tenant_id: str = "") -> dict[str, Any]:
        """One message with everything that was done about it; NotFound, also for another tenant."""
        fact = self._facts.query_one(broken_id, tenant_id)
        actions = self._store.load_actions(fact.key)
        for action in actions:
            action["acted_at"] = format_time(action["acted_at"])
        return {**self._present([fact])[0], "actions": actions}

    def _present(self, facts: Sequence[BrokenFact]) -> list[dict[str, Any]]:
        states = self._store.load_states([fact.key[1] for fact in facts])
        repeats = self._facts.query_repeats([fact.key for fact in facts])
        return [
            {
                **fact.present(),
                "times_seen": 1 + repeats.get(fact.key, 0),
                **_present_state(states.get(fact.key)),
            }
            for fact in facts
        ]

    async def fix(
        self, broken_id: str, changes: Mapping[str, Any], by: str, *, tenant_id: str = ""
    ) -> dict[str, Any]:
        """Make an event of one message and store it.

        Raises Unrepairable when it would still be refused (nothing is changed), Conflict
        when it was fixed as another event or its event id was used with other content.
        """
        fact = await asyncio.to_thread(self._facts.query_one, broken_id, tenant_id)
        try:
            repaired = self._repair(fact, changes)
        except Refused as refused:
            raise Unrepairable(
                refused.reason, code=refused.code, field=refused.field or None
            ) from refused
        endings = await self._send([repaired], sorted(changes), by)
        if not endings:
            raise Conflict(
                "this message was fixed as an event of another event_id", code="already_fixed"
            )
        if endings[0].outcome == "conflict":
            raise Conflict(
                "the event_id was used before with other content; set another event_id, or "
                "dismiss the message if that event is right",
                code="event_id_conflict",
            )
        return {
            "broken_id": broken_id,
            "tenant_id": fact.key[0],
            "status": "fixed",
            "outcome": endings[0].outcome,
            "event_id": endings[0].event_id,
        }

    async def fix_many(
        self,
        wanted: BrokenFilter,
        changes: Mapping[str, Any],
        by: str,
        *,
        is_dry_run: bool,
        cursor: str | None = None,
    ) -> dict[str, Any]:
        """Fix the open messages that `wanted` names, all with the same changes.

        Looks at BROKEN_FIXES_MAX messages; `next_cursor` says where to go on. A dry run
        counts and shows samples, and changes nothing.
        """
        if "event_id" in changes:
            raise InvalidInput(
                "event_id cannot be the same for many; fix them one by one",
                code="not_for_many",
                field="event_id",
            )
        tally = _Tally()
        for _ in range(BROKEN_FIXES_MAX // PAGE_MAX):
            facts, cursor = await asyncio.to_thread(
                self._facts.query_page, wanted, cursor, PAGE_MAX
            )
            repaired = await asyncio.to_thread(self._repair_open, facts, changes, tally)
            if not is_dry_run:
                tally.count(await self._send(repaired, sorted(changes), by))
            if cursor is None:
                break
        return {"dry_run": is_dry_run, **tally.report(), "next_cursor": cursor}

    def _repair_open(
        self, facts: Sequence[BrokenFact], changes: Mapping[str, Any], tally: _Tally
    ) -> list[_Repaired]:
        states = self._store.load_states([fact.key[1] for fact in facts])
        repaired: list[_Repaired] = []
        for fact in facts:
            if _present_state(states.get(fact.key))["status"] != "open":
                continue
            tally.examined += 1
            try:
                repaired.append(self._repair(fact, changes))
            except Refused as refused:
                tally.refuse(fact, refused)
        tally.show(repaired)
        return repaired

    def _repair(self, fact: BrokenFact, changes: Mapping[str, Any]) -> _Repaired:
        now = self._clock.now()
        event = repair(
            read_draft(fact.attrs),
            changes,
            tenant_id=fact.key[0],
            received_at=now,
            redactor=self._door.redactor,
            closed_before=self._door.closed_before(now),
        )
        return _Repaired(fact, event)

    async def _send(
        self, repaired: Sequence[_Repaired], fields: Sequence[str], by: str
    ) -> list[Ending]:
        """Claim, append, record; messages that were fixed as other events are left out."""
        if not repaired:
            return []
        now = self._clock.now()
        wanted: dict[Key, str] = {one.fact.key: one.event.event_id for one in repaired}
        claimed = await asyncio.to_thread(self._store.claim, wanted, now, by)
        ours = [one for one in repaired if one.fact.key in claimed]
        if not ours:
            return []
        verdicts = await self._door.append([one.event for one in ours])
        endings = [
            Ending(one.fact.key, one.event.event_id, _OUTCOMES[verdict])
            for one, verdict in zip(ours, verdicts, strict=True)
        ]
        await asyncio.to_thread(self._store.settle, endings, fields, now, by)
        return endings

    def dismiss(
        self, broken_id: str, reason: str, by: str, *, tenant_id: str = ""
    ) -> dict[str, Any]:
        """Say that a message needs no fix; Conflict when it is fixed or being fixed."""
        if not reason.strip() or len(reason) > REASON_LENGTH_MAX or not reason.isprintable():
            raise InvalidInput(
                f"reason must be a sentence of at most {REASON_LENGTH_MAX} characters",
                code="bad_reason",
                field="reason",
            )
        fact = self._facts.query_one(broken_id, tenant_id)
        if not self._store.dismiss(fact.key, reason.strip(), self._clock.now(), by):
            raise Conflict("this message is fixed, or its fix was begun", code="already_fixed")
        return {"broken_id": broken_id, "tenant_id": fact.key[0], "status": "dismissed"}


class _Tally:
    """What a fix of many found and did."""

    def __init__(self) -> None:
        self.examined = 0
        self._repairable = 0
        self._outcomes: Counter[str] = Counter()
        self._refusals: dict[tuple[str, str], dict[str, Any]] = {}
        self._samples: list[dict[str, Any]] = []

    def refuse(self, fact: BrokenFact, refused: Refused) -> None:
        """Count a message that would still be broken."""
        entry = self._refusals.setdefault(
            (refused.code, refused.field),
            {
                "code": refused.code,
                "field": refused.field or None,
                "reason": refused.reason,
                "example": fact.key[1],
                "count": 0,
            },
        )
        entry["count"] += 1

    def show(self, repaired: Sequence[_Repaired]) -> None:
        """Count what can be repaired, and keep some to be shown."""
        self._repairable += len(repaired)
        for one in repaired[: _SAMPLES - len(self._samples)]:
            self._samples.append({"broken_id": one.fact.key[1], "event": _present_event(one.event)})

    def count(self, endings: Sequence[Ending]) -> None:
        """Count how fixes ended."""
        self._outcomes.update(ending.outcome for ending in endings)

    def report(self) -> dict[str, Any]:
        """The figures, as the API answers them."""
        return {
            "examined": self.examined,
            "repairable": self._repairable,
            "fixed": self._outcomes["accepted"] + self._outcomes["duplicate"],
            "duplicates": self._outcomes["duplicate"],
            "conflicts": self._outcomes["conflict"],
            "still_broken": sorted(self._refusals.values(), key=lambda entry: -entry["count"]),
            "samples": self._samples,
        }


def _present_state(state: Mapping[str, Any] | None) -> dict[str, Any]:
    """A claim without an end is shown as open: the same fix again will finish it."""
    shown = {name: (state or _OPEN)[name] for name in _OPEN}
    shown["dismissed_because"] = shown.pop("reason")
    if shown["status"] == "claimed":
        shown["status"] = "open"
    if state:
        shown["changed_at"] = format_time(state["changed_at"])
    return shown


def _present_event(event: Event) -> dict[str, Any]:
    """The fields that an event was given, without what the server adds."""
    values = msgspec.structs.asdict(event)
    occurred_at = format_time(values.pop("occurred_at"))
    given = {name: value for name, value in values.items() if value and name not in _SHOWN_OF_EVENT}
    return {**given, "event_time": occurred_at}
