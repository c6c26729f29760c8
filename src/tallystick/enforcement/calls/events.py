"""Events of calls on their way to the door: those of one moment are read together.

Reading four events costs little more than reading one, and they share an append.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tallystick.errors import Conflict, InvalidInput
from tallystick.events.adapters import Rejection
from tallystick.events.door import Door

_GROUP_EVENTS_MAX = 500
"""Events that are read together; a body that is too large fails all that is in it."""


class _Waiting(NamedTuple):
    """One call's events."""

    events: Sequence[bytes]
    done: asyncio.Future[list[Rejection]]


class EventWriter:
    """Makes events durable; belongs to one event loop."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._waiting: list[_Waiting] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def write(self, events: Sequence[bytes]) -> None:
        """Return once a call's events are durable; a repeat is a success.

        Raises Conflict when the call's id stands for other usage already, InvalidInput when
        an event cannot be one, and what the door raises.
        """
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._begin)
        waiting = _Waiting(events, loop.create_future())
        self._waiting.append(waiting)
        # the append goes on even if this caller is cancelled: its event is then durable
        for rejection in await waiting.done:
            if rejection.code == "event_id_conflict":
                raise Conflict(
                    "the call was settled before with other usage", code="call_settled_otherwise"
                )
            raise InvalidInput(rejection.reason, code=rejection.code)

    def _begin(self) -> None:
        waiting, self._waiting = self._waiting, []
        for group in _grouped(waiting):
            task = asyncio.ensure_future(self._append(group))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _append(self, group: list[_Waiting]) -> None:
        body = b"[" + b",".join([event for one in group for event in one.events]) + b"]"
        try:
            receipt = await self._door.accept(
                body, content_type="application/json", content_encoding="", headers={}
            )
        except Exception as error:
            for one in group:
                if not one.done.done():
                    one.done.set_exception(error)
            return
        start = 0
        for one in group:
            end = start + len(one.events)
            if not one.done.done():
                one.done.set_result(
                    [found for found in receipt.rejected if start <= found.index < end]
                )
            start = end


def _grouped(waiting: Sequence[_Waiting]) -> Iterator[list[_Waiting]]:
    """Calls that are read together; one with many events is its neighbours' trouble no more."""
    group: list[_Waiting] = []
    count = 0
    for one in waiting:
        if group and count + len(one.events) > _GROUP_EVENTS_MAX:
            yield group
            group, count = [], 0
        group.append(one)
        count += len(one.events)
    if group:
        yield group
