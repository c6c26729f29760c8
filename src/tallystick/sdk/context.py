"""Where the work stands: the run, the attempt and the client that records it.

A context variable holds one `Place`. Tasks of asyncio inherit it by themselves; a thread
does not, so work that is handed to one is wrapped: `pool.submit(carry(work), ...)`, or the
whole pool is (`CarryingExecutor`). What is in a place is fixed but for the counters of a
run, which are shared by all that work under it and guarded by a lock.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextvars import ContextVar, copy_context
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec, TypeVar

from tallystick.header_text import header_text

if TYPE_CHECKING:
    from tallystick.sdk.recorder import Recorder

P = ParamSpec("P")
T = TypeVar("T")


class RunFrame:
    """One run under way: who it is, and what its calls have cost so far."""

    def __init__(
        self,
        run_id: str,
        parent: RunFrame | None = None,
        *,
        parent_run_id: str = "",
        root_run_id: str = "",
        budget_usd: Decimal | None = None,
    ) -> None:
        self.run_id = run_id
        self.parent = parent
        self.parent_run_id = parent.run_id if parent else parent_run_id
        self.root_run_id: str = (parent.root_run_id if parent else root_run_id) or run_id
        self.budget_usd = budget_usd
        self.spent_usd = Decimal(0)
        self.held_usd = Decimal(0)
        self.attempts = 0
        self.is_declared = budget_usd is None or parent is not None
        """Whether the server knows the budget; it keeps those of root runs."""
        self._lock: threading.Lock = parent._lock if parent else threading.Lock()

    def next_attempt(self) -> int:
        """Number the next attempt, from 1."""
        with self._lock:
            self.attempts += 1
            return self.attempts

    def chain(self) -> list[RunFrame]:
        """This run and all above it, in this process."""
        above = [] if self.parent is None else self.parent.chain()
        return [self, *above]

    def try_hold(self, cost_usd: Decimal) -> RunFrame | None:
        """Set `cost_usd` aside in every budget above, or in none; return who has no room."""
        frames = self.chain()
        with self._lock:
            for frame in frames:
                taken = frame.spent_usd + frame.held_usd
                has_room = taken + cost_usd <= (frame.budget_usd or 0) if cost_usd else True
                if frame.budget_usd is not None and not (has_room and taken < frame.budget_usd):
                    return frame
            for frame in frames:
                frame.held_usd += cost_usd
        return None

    def settle(self, held_usd: Decimal, cost_usd: Decimal) -> None:
        """Count what a call cost and free what was set aside for it."""
        frames = self.chain()
        with self._lock:
            for frame in frames:
                frame.held_usd -= held_usd
                frame.spent_usd += cost_usd


class Place(NamedTuple):
    """Where the work stands now."""

    recorder: Recorder | None = None
    run: RunFrame | None = None
    attempt: int = 1
    attribution: Mapping[str, str] = {}
    traceparent: str = ""


NOWHERE = Place()
here: ContextVar[Place] = ContextVar("tallystick_place", default=NOWHERE)


def carry(work: Callable[P, T]) -> Callable[P, T]:
    """Bind `work` to the place where this is called, for use in another thread."""
    context = copy_context()

    def carried(*arguments: P.args, **options: P.kwargs) -> T:
        return context.copy().run(work, *arguments, **options)

    return carried


def propagated_headers() -> dict[str, str]:
    """Headers that let the service which is called next work under this run; ASCII alone."""
    place = here.get()
    headers = {"traceparent": place.traceparent} if place.traceparent else {}
    if place.run is not None:
        headers["X-Tallystick-Run"] = place.run.run_id
        headers["X-Tallystick-Root-Run"] = place.run.root_run_id
        headers["X-Tallystick-Attempt"] = str(place.attempt)
        if place.run.parent_run_id:
            headers["X-Tallystick-Parent-Run"] = place.run.parent_run_id
    for name, value in place.attribution.items():
        headers[f"X-Tallystick-{name.replace('_', '-').title()}"] = value
    return {name: header_text(value) for name, value in headers.items()}


def error_code_of(error: BaseException | None) -> str:
    """The name of an exception's class, never its text: that may be content."""
    return "" if error is None else type(error).__name__[:128]


def plain_text(value: Any) -> str:
    """What may stand in a dimension: printable text of at most 128 characters."""
    text = str(value)[:128]
    return text if text.isprintable() else "".join(one for one in text if one.isprintable())
