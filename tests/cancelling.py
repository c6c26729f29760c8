"""Cancels a coroutine while it waits for the n-th time, as `task.cancel()` would just then."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Coroutine, Generator
from functools import partial
from itertools import count
from typing import Any, TypeVar

T = TypeVar("T")


@types.coroutine
def cancelling(work: Coroutine[Any, Any, T], at: int) -> Generator[Any, Any, T]:
    """Run `work`; at its wait number `at` (from 0) the task that runs it is cancelled."""
    step = partial(work.send, None)
    for number in count():
        try:
            waited = step()
        except StopIteration as end:
            result: T = end.value
            return result
        if number == at:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
        try:
            step = partial(work.send, (yield waited))
        except BaseException as error:
            step = partial(work.throw, error)
    raise AssertionError("it waits for ever")


async def cancelled_at(work: Coroutine[Any, Any, T], at: int) -> bool:
    """Run `work` in a task of its own, cancelled at its wait number `at`; False: it was over."""
    task = asyncio.ensure_future(_named(cancelling(work, at)))
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()
    return task.cancelled()


async def _named(work: Any) -> Any:
    return await work
