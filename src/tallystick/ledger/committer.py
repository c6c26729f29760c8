"""The committer: requests that arrive while a group is in flight form the next group.

Two lanes, each one thread with one transaction at a time. Single requests go first come,
first served; a large batch is cut into chunks that only the second lane takes, by turns with
single requests, so that a job of 50,000 rows on one account does not make others wait. A
group leaves out requests for accounts that the other lane is moving: they would only wait
for its lock, and everybody in the group with them.

The queue is bounded; a full one pushes back before anything is stored.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import NamedTuple

from tallystick.errors import SlowDown, StoreUnavailable, TallystickError
from tallystick.ledger.group import Answer
from tallystick.ledger.intake import Prepared, prepare
from tallystick.ledger.model import Outcome, Request
from tallystick.ledger.service import Ledger

ITEMS_WAITING_MAX = 200_000
"""Requests accepted into memory but not decided yet."""

_GROUP_ITEMS_MAX = 250
_CHUNK_ITEMS = 500
_SCAN_MAX = 5_000
_log = logging.getLogger(__name__)
Settle = Callable[[list[Answer]], None]


class _Work(NamedTuple):
    """A single request, a chunk of a batch, or a batch that is applied as a whole."""

    items: Sequence[Prepared]
    is_whole: bool
    loop: asyncio.AbstractEventLoop | None
    settle: Settle


class Committer:
    """Coalesces requests of any number of callers into groups."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._singles: deque[_Work] = deque()
        self._jobs: deque[_Work] = deque()
        self._waiting = 0
        self._busy: list[frozenset[str]] = [frozenset(), frozenset()]
        self._had_job = False
        self._changed = threading.Condition()
        self._is_closing = False
        self._threads = [
            threading.Thread(target=self._run, args=(lane,), name=f"ledger-{lane}", daemon=True)
            for lane in range(2)
        ]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Decide what waits, then stop."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()

    def submit(self, request: Request) -> Future[Outcome]:
        """Queue a request; its future gets the outcome once it is durable, or the failure."""
        answer: Future[Outcome] = Future()

        def settle(answers: list[Answer]) -> None:
            (found,) = answers
            if isinstance(found, TallystickError):
                answer.set_exception(found)
            else:
                answer.set_result(found)

        self._queue(_Work([prepare(request)], False, None, settle))
        return answer

    async def apply(self, request: Request) -> Outcome:
        """Apply one request; raises what it failed with, SlowDown when the queue is full."""
        (answer,) = await self._await_all([prepare(request)], is_whole=False)
        if isinstance(answer, TallystickError):
            raise answer
        return answer

    async def apply_batch(
        self, requests: Sequence[Request | TallystickError], *, all_or_nothing: bool
    ) -> list[Answer]:
        """Apply many requests, each on its own or as a whole; one answer each, in order.

        A request that was refused already comes as its failure and stays it.
        """
        prepared: list[Prepared] = []
        failures: dict[int, TallystickError] = {}
        for index, request in enumerate(requests):
            try:
                if isinstance(request, TallystickError):
                    raise request
                prepared.append(prepare(request))
            except TallystickError as error:
                failures[index] = error
        if failures and all_or_nothing:
            return self._ledger.refuse_whole(len(requests), failures)
        if all_or_nothing:
            return await self._await_all(prepared, is_whole=True)
        chunks = [
            prepared[start : start + _CHUNK_ITEMS]
            for start in range(0, len(prepared), _CHUNK_ITEMS)
        ]
        parts = await asyncio.gather(*(self._await_all(one, is_whole=False) for one in chunks))
        answers = (answer for part in parts for answer in part)
        return [failures.get(index) or next(answers) for index in range(len(requests))]

    async def _await_all(self, items: Sequence[Prepared], *, is_whole: bool) -> list[Answer]:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[list[Answer]] = loop.create_future()

        def settle(answers: list[Answer]) -> None:
            if not answer.done():
                answer.set_result(answers)

        self._queue(_Work(items, is_whole, loop, settle))
        # the group goes on even if this request is cancelled: its outcome is then recorded
        return await asyncio.shield(answer)

    def _queue(self, work: _Work) -> None:
        with self._changed:
            if self._is_closing:
                raise SlowDown("the server is stopping; send the request again")
            if self._waiting + len(work.items) > ITEMS_WAITING_MAX:
                raise SlowDown("too many requests are waiting; send it again later")
            self._waiting += len(work.items)
            is_single = len(work.items) == 1 and not work.is_whole
            (self._singles if is_single else self._jobs).append(work)
            self._changed.notify()

    def _run(self, lane: int) -> None:
        while True:
            group = self._next_group(lane)
            if not group:
                return
            answers = self._decide(group)
            with self._changed:
                self._busy[lane] = frozenset()
                self._waiting -= sum(len(work.items) for work in group)
                if self._singles or self._jobs:
                    self._changed.notify_all()
            _settle_all(group, answers)

    def _next_group(self, lane: int) -> list[_Work]:
        with self._changed:
            while True:
                group = self._take(lane)
                if group:
                    accounts = (item.account_id for work in group for item in work.items)
                    self._busy[lane] = frozenset(accounts)
                    return group
                if self._is_closing and not self._singles and not self._jobs:
                    self._changed.notify_all()
                    return []
                self._changed.wait()

    def _take(self, lane: int) -> list[_Work]:
        if lane == 1 and self._jobs and not (self._had_job and self._singles):
            self._had_job = True
            return [self._jobs.popleft()]
        self._had_job = False if lane == 1 else self._had_job
        group = self._take_singles(self._busy[1 - lane])
        if not group and lane == 1 and self._jobs:
            self._had_job = True
            return [self._jobs.popleft()]
        return group

    def _take_singles(self, busy: frozenset[str]) -> list[_Work]:
        group: list[_Work] = []
        left_out: list[_Work] = []
        while self._singles and len(group) < _GROUP_ITEMS_MAX and len(left_out) < _SCAN_MAX:
            work = self._singles.popleft()
            account_id = work.items[0].account_id
            (left_out if account_id and account_id in busy else group).append(work)
        self._singles.extendleft(reversed(left_out))
        return group

    def _decide(self, group: list[_Work]) -> list[list[Answer]]:
        try:
            return self._decide_together(group)
        except TallystickError as error:
            if error.retryable or len(group) == 1:
                return [[error] * len(work.items) for work in group]
        except Exception as error:  # the lane must live on, the callers must know
            _log.exception("a group of the ledger failed")
            if len(group) == 1:
                failure = StoreUnavailable(f"not applied: {type(error).__name__}")
                return [[failure] * len(group[0].items)]
        # one of them spoils the group: decide each alone
        return [self._decide([work])[0] for work in group]

    def _decide_together(self, group: list[_Work]) -> list[list[Answer]]:
        items = [item for work in group for item in work.items]
        is_whole = group[0].is_whole
        answers = iter(self._ledger.apply_group(items, all_or_nothing=is_whole))
        return [[next(answers) for _ in work.items] for work in group]


def _settle_all(group: list[_Work], answers: list[list[Answer]]) -> None:
    """Wake every caller: one call into each event loop for the whole group."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[Settle, list[Answer]]]] = {}
    for work, found in zip(group, answers, strict=True):
        if work.loop is None:
            work.settle(found)
        else:
            by_loop.setdefault(work.loop, []).append((work.settle, found))
    for loop, settlements in by_loop.items():
        loop.call_soon_threadsafe(_settle_each, settlements)


def _settle_each(settlements: list[tuple[Settle, list[Answer]]]) -> None:
    for settle, answers in settlements:
        settle(answers)
