"""The committer: requests that arrive while a group is in flight form the next group.

It lives in the event loop that took the requests, so a decision crosses no thread: with
threads, each answer of PostgreSQL waited for the interpreter behind HTTP work, ten times a
group. Single requests go first come, first served; a second lane joins when many wait. A large
batch is cut into small chunks that a lane of its own applies one by one, so that a job of
50,000 rows on one account does not make others wait. A group leaves out requests for accounts
that another lane is moving: they would only wait for its lock, and everybody in the group with
them.

The queue is bounded; a full one pushes back before anything is stored.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import psycopg
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from tallystick.errors import Raced, SlowDown, StoreUnavailable, TallystickError
from tallystick.ledger.group import Answer
from tallystick.ledger.intake import Prepared, prepare
from tallystick.ledger.model import Outcome, Request
from tallystick.ledger.service import Ledger
from tallystick.ledger.store import drive_async

ITEMS_WAITING_MAX = 200_000
"""Requests accepted into memory but not decided yet."""

LANES = 2
"""Lanes of single requests."""

_CROWDED = 16
"""Waiting requests from which the second lane works too: while PostgreSQL writes one group the
other is decided. With fewer it would only make groups smaller, and a group has a fixed cost."""

_GROUP_ITEMS_MAX = 100
_CHUNK_ITEMS = 100
"""Items of a batch in one transaction while single requests come in."""

_CHUNK_ITEMS_ALONE = 500
"""And when none came since the last one: larger groups cost less an item."""

_log = logging.getLogger(__name__)


class _Single(NamedTuple):
    """A request that waits for its group."""

    item: Prepared
    answer: asyncio.Future[Answer]


class _Job:
    """A batch: applied chunk by chunk, or as a whole."""

    def __init__(self, items: Sequence[Prepared], is_whole: bool) -> None:
        self.items = items
        self.is_whole = is_whole
        self.answers: list[Answer] = []
        self.done: asyncio.Future[list[Answer]] = asyncio.get_running_loop().create_future()


class Committer:
    """Coalesces requests of any number of callers into groups; belongs to one event loop."""

    def __init__(self, ledger: Ledger, pool: AsyncConnectionPool) -> None:
        """`pool` is not open yet; its connections look rows up by index (`BY_INDEX`)."""
        self._ledger = ledger
        self._pool = pool
        self._singles: deque[_Single] = deque()
        self._put_off: dict[str, deque[_Single]] = {}
        """Requests by account that another lane is moving."""
        self._jobs: deque[_Job] = deque()
        self._waiting = 0
        self._arrivals = 0
        self._arrivals_seen = 0
        self._busy: list[frozenset[str]] = [frozenset()] * (LANES + 1)
        self._arrived = [asyncio.Event() for _ in range(LANES)]
        self._job_arrived = asyncio.Event()
        self._is_closing = False
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """Connect and begin; call in the event loop."""
        await self._pool.open()
        self._tasks = [asyncio.create_task(self._run_lane(lane)) for lane in range(LANES)]
        self._tasks.append(asyncio.create_task(self._run_jobs()))

    async def close(self) -> None:
        """Decide what waits, then stop."""
        self._is_closing = True
        for arrived in self._arrived:
            arrived.set()
        self._job_arrived.set()
        await asyncio.gather(*self._tasks)
        await self._pool.close()

    async def apply(self, request: Request, *, tenant_id: str = "") -> Outcome:
        """Apply one request; raises what it failed with, SlowDown when the queue is full.

        With a tenant, what belongs to another one is answered as if it did not exist.
        """
        item = prepare(request, tenant_id)
        self._count_in(1)
        single = _Single(item, asyncio.get_running_loop().create_future())
        self._singles.append(single)
        self._arrivals += 1
        self._wake()
        # the group goes on even if this caller is cancelled: its outcome is then recorded
        answer = await single.answer
        if isinstance(answer, TallystickError):
            raise answer
        return answer

    async def was_answered(self, request: Request) -> bool:
        """Whether a request's key has an outcome, whatever the request says otherwise."""
        return await asyncio.to_thread(self._ledger.load_answer, request) is not None

    async def apply_batch(
        self,
        requests: Sequence[Request | TallystickError],
        *,
        all_or_nothing: bool,
        tenant_id: str = "",
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
                prepared.append(prepare(request, tenant_id))
            except TallystickError as error:
                failures[index] = error
            if index % _CHUNK_ITEMS == 0:
                await asyncio.sleep(0)  # let single requests through
        if failures and all_or_nothing:
            return self._ledger.refuse_whole(len(requests), failures)
        self._count_in(len(prepared))
        job = _Job(prepared, all_or_nothing)
        self._jobs.append(job)
        self._job_arrived.set()
        answers = iter(await job.done)
        return [failures.get(index) or next(answers) for index in range(len(requests))]

    def _count_in(self, count: int) -> None:
        if self._is_closing:
            raise SlowDown("the server is stopping; send the request again")
        if self._waiting + count > ITEMS_WAITING_MAX:
            raise SlowDown("too many requests are waiting; send it again later")
        self._waiting += count

    async def _run_lane(self, lane: int) -> None:
        while True:
            is_needed = lane == 0 or len(self._singles) >= _CROWDED or self._is_closing
            group = self._take_singles(lane) if is_needed else []
            if group:
                await self._run_group(lane, group)
            elif self._is_closing and not self._put_off:
                return
            else:
                self._arrived[lane].clear()
                await self._arrived[lane].wait()

    async def _run_group(self, lane: int, group: Sequence[_Single]) -> None:
        self._busy[lane] = _accounts(single.item for single in group)
        answers = await self._decide([single.item for single in group])
        self._free(lane)
        self._waiting -= len(group)
        for single, answer in zip(group, answers, strict=True):
            if not single.answer.done():
                single.answer.set_result(answer)

    def _wake(self) -> None:
        self._arrived[0].set()
        if len(self._singles) >= _CROWDED:
            self._arrived[1].set()

    def _take_singles(self, lane: int) -> list[_Single]:
        busy = frozenset().union(*(self._busy[:lane] + self._busy[lane + 1 :]))
        group: list[_Single] = []
        while self._singles and len(group) < _GROUP_ITEMS_MAX:
            single = self._singles.popleft()
            account_id = single.item.account_id
            if account_id and (account_id in busy or account_id in self._put_off):
                self._put_off.setdefault(account_id, deque()).append(single)
            else:
                group.append(single)
        return group

    def _free(self, lane: int) -> None:
        """A lane has moved its accounts: requests that waited for one of them come first."""
        for account_id in self._busy[lane] & self._put_off.keys():
            self._singles.extendleft(reversed(self._put_off.pop(account_id)))
        self._busy[lane] = frozenset()
        if self._singles:
            self._wake()

    async def _run_jobs(self) -> None:
        while True:
            if self._jobs:
                await self._run_chunk(self._jobs[0])
                self._jobs.rotate(-1)  # other batches have their turns too
                await asyncio.sleep(0)  # and those who waited for its accounts
            elif self._is_closing:
                return
            else:
                self._job_arrived.clear()
                await self._job_arrived.wait()

    async def _run_chunk(self, job: _Job) -> None:
        size = _CHUNK_ITEMS if self._arrivals != self._arrivals_seen else _CHUNK_ITEMS_ALONE
        self._arrivals_seen = self._arrivals
        start = len(job.answers)
        chunk = job.items if job.is_whole else job.items[start : start + size]
        self._busy[LANES] = _accounts(chunk)
        if chunk:
            job.answers += await self._decide(chunk, is_whole=job.is_whole)
        self._free(LANES)
        self._waiting -= len(chunk)
        if len(job.answers) == len(job.items):
            self._jobs.popleft()
            if not job.done.done():
                job.done.set_result(job.answers)

    async def _decide(
        self, items: Sequence[Prepared], *, is_whole: bool = False, tries_left: int = 3
    ) -> list[Answer]:
        """Decide a group; when one of its items spoils it, each alone."""
        try:
            connection = await self._pool.getconn()
            try:
                plan = self._ledger.plan_group(items, all_or_nothing=is_whole)
                return await drive_async(connection, plan)
            finally:
                await self._pool.putconn(connection)
        except Exception as error:
            failure = _failure_of(error)
            is_raced = isinstance(failure, Raced) and tries_left > 0
            if is_raced and is_whole:
                return await self._decide(items, is_whole=True, tries_left=tries_left - 1)
            if not is_raced and (failure.retryable or is_whole or len(items) == 1):
                return [failure] * len(items)
        return [(await self._decide([item], tries_left=tries_left - 1))[0] for item in items]


def _accounts(items: Iterable[Prepared]) -> frozenset[str]:
    return frozenset(item.account_id for item in items)


def _failure_of(error: Exception) -> TallystickError:
    """What the callers are told; the lane lives on."""
    if isinstance(error, TallystickError):
        return error
    if isinstance(error, psycopg.OperationalError | PoolTimeout):
        return StoreUnavailable("PostgreSQL cannot be reached; send it again with the same key")
    _log.error("a group of the ledger failed", exc_info=error)
    return TallystickError("the request could not be applied")
