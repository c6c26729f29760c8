"""Threads of their own for what asks ClickHouse: where it hangs, they do, and nobody else.

What blocks runs in the event loop's few threads (six on two cores). A ClickHouse that takes
connections and does not answer kept each of them for minutes: readiness and a chart took them
all, and holds and balances, which need PostgreSQL alone, waited behind. What finds no thread
free here waits in a queue. Readiness has one apart, so that heavy statistics do not delay it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import ParamSpec, TypeVar

_AT_ONCE = 4
_facts = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="facts")
_readiness = ThreadPoolExecutor(1, thread_name_prefix="readiness")

P = ParamSpec("P")
T = TypeVar("T")


async def ask_facts(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a call that asks ClickHouse, and return what it does."""
    return await _in(_facts, partial(call, *args, **kwargs))


async def ask_readiness(call: Callable[[], T]) -> T:
    """Run the check of readiness; one at a time."""
    return await _in(_readiness, call)


async def _in(threads: ThreadPoolExecutor, call: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(threads, copy_context().run, call)
