"""`run`, `attempt` and `tool`: context managers and decorators over the rules of `work`.

    with run(workflow="support") as r:            @run(workflow="support")
        with attempt():                           def answer(question): ...
            with tool("search"):
                ...                               @tool
                                                  async def search(query): ...

Each works with `with` and `async with`, and decorates functions, coroutines, generators and
asynchronous generators. A generator stands at its own place only while it runs: between two
items the caller's place is as it was. What is raised is recorded by its class and goes on.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import time
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from contextvars import Token
from decimal import Decimal, InvalidOperation
from types import TracebackType
from typing import Any, Self, TypeVar, cast, overload

from tallystick.errors import InvalidInput
from tallystick.sdk.client import stand
from tallystick.sdk.context import Place, RunFrame, here, plain_text
from tallystick.sdk.errors import SpoolFull
from tallystick.sdk.recorder import Recorder, clean_attribution
from tallystick.sdk.telemetry import mark_span
from tallystick.sdk.work import Kind, Span
from tallystick.units import USD, parse_amount

F = TypeVar("F", bound=Callable[..., Any])


class _Work:
    """One piece of work, or the description of one when it decorates a function."""

    kind: Kind

    def __init__(self, recorder: Recorder | None) -> None:
        self._recorder = recorder
        self._span: Span | None = None
        self._token: Token[Place] | None = None
        self._started_at = 0.0

    def _again(self, function: Callable[..., Any]) -> Self:
        """A fresh one for one call of a decorated function."""
        raise NotImplementedError

    def _enter_place(self, outer: Place, recorder: Recorder) -> tuple[Place, Mapping[str, Any]]:
        """Where the work stands, and the fields of its events."""
        raise NotImplementedError

    def open(self) -> Place:
        """Record the beginning; return the place to stand at."""
        recorder, outer = stand(self._recorder)
        self._recorder = recorder
        place, fields = self._enter_place(outer, recorder)
        span = Span(self.kind, place, fields)
        recorder.record(span.start(recorder.ids.next_id(), recorder.clock.now()))
        self._span = span
        self._started_at = time.perf_counter()
        return place

    def finish(self, error: BaseException | None = None) -> None:
        """Record the end."""
        recorder, span = self._recorder, self._span
        if recorder is None or span is None:
            return
        self._span = None
        latency = round((time.perf_counter() - self._started_at) * 1000, 3)
        event = span.finish(recorder.ids.next_id(), recorder.clock.now(), latency, error)
        try:
            recorder.record(event)
        except SpoolFull:  # counted; what the application raised goes first
            if error is None:
                raise

    def __enter__(self) -> Self:
        self._token = here.set(self.open())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._token is not None:
            # a generator may end in another context than it began in (a thread pool, the loop's
            # own closing): there this place stands nowhere
            with contextlib.suppress(ValueError):
                here.reset(self._token)
            self._token = None
        self.finish(error)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.__exit__(kind, error, trace)

    def __call__(self, function: F) -> F:
        """Decorate a function: each call is work of its own."""
        if inspect.isasyncgenfunction(function):
            wrapped: Any = _around_async_generator(self, function)
        elif inspect.isgeneratorfunction(function):
            wrapped = _around_generator(self, function)
        elif inspect.iscoroutinefunction(function):
            wrapped = _around_coroutine(self, function)
        else:
            wrapped = _around_function(self, function)
        return cast(F, functools.wraps(function)(wrapped))


def _name_of(function: Callable[..., Any]) -> str:
    """What a function is called; of an object that can be called, its class."""
    return getattr(function, "__name__", type(function).__name__)


def _around_function(work: _Work, function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any, **options: Any) -> Any:
        with work._again(function):
            return function(*arguments, **options)

    return call


def _around_coroutine(work: _Work, function: Callable[..., Any]) -> Callable[..., Any]:
    async def call(*arguments: Any, **options: Any) -> Any:
        with work._again(function):
            return await function(*arguments, **options)

    return call


def _around_generator(work: _Work, function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any, **options: Any) -> Generator[Any, Any, Any]:
        one = work._again(function)
        place = one.open()
        inner = function(*arguments, **options)
        step: Callable[[], Any] = functools.partial(next, inner)
        try:
            while True:
                try:
                    item = _stand_at(place, step)
                except StopIteration as end:
                    one.finish()
                    return end.value
                try:
                    step = functools.partial(inner.send, (yield item))
                except GeneratorExit:
                    _stand_at(place, inner.close)
                    raise
                except BaseException as thrown:
                    step = functools.partial(inner.throw, thrown)
        except GeneratorExit:
            one.finish()  # the caller had enough: no failure
            raise
        except BaseException as error:
            one.finish(error)
            raise

    return call


def _stand_at(place: Place, step: Callable[[], Any]) -> Any:
    token = here.set(place)
    try:
        return step()
    finally:
        here.reset(token)


def _around_async_generator(work: _Work, function: Callable[..., Any]) -> Callable[..., Any]:
    async def call(*arguments: Any, **options: Any) -> AsyncGenerator[Any, Any]:
        one = work._again(function)
        place = one.open()
        inner = function(*arguments, **options)
        step: Callable[[], Any] = inner.__anext__
        try:
            while True:
                try:
                    item = await _stand_there(place, step)
                except StopAsyncIteration:
                    one.finish()
                    return
                try:
                    step = functools.partial(inner.asend, (yield item))
                except GeneratorExit:
                    await _stand_there(place, inner.aclose)
                    raise
                except BaseException as thrown:
                    step = functools.partial(inner.athrow, thrown)
        except GeneratorExit:
            one.finish()
            raise
        except BaseException as error:
            one.finish(error)
            raise

    return call


async def _stand_there(place: Place, step: Callable[[], Any]) -> Any:
    token = here.set(place)
    try:
        return await step()
    finally:
        here.reset(token)


class Run(_Work):
    """One piece of user-visible work."""

    kind = "run"

    def __init__(
        self,
        recorder: Recorder | None,
        *,
        workflow: str,
        run_id: str,
        budget_usd: Decimal | None,
        attribution: Mapping[str, str],
        parent_run_id: str = "",
        root_run_id: str = "",
        traceparent: str = "",
    ) -> None:
        super().__init__(recorder)
        self._given = {
            "workflow": workflow,
            "run_id": run_id,
            "budget_usd": budget_usd,
            "attribution": attribution,
            "parent_run_id": parent_run_id,
            "root_run_id": root_run_id,
            "traceparent": traceparent,
        }
        self.frame = RunFrame(run_id)

    def _again(self, function: Callable[..., Any]) -> Self:
        given = {**self._given, "workflow": self._given["workflow"] or _name_of(function)}
        return type(self)(self._recorder, **given)  # type: ignore[arg-type]

    def _enter_place(self, outer: Place, recorder: Recorder) -> tuple[Place, Mapping[str, Any]]:
        given: Any = self._given
        self.frame = RunFrame(
            given["run_id"] or recorder.ids.next_id(),
            outer.run,
            parent_run_id=given["parent_run_id"],
            root_run_id=given["root_run_id"] or given["parent_run_id"],
            budget_usd=given["budget_usd"],
        )
        attribution = {**recorder.settings.attribution, **outer.attribution}
        attribution |= given["attribution"]
        if given["workflow"]:
            attribution["workflow"] = given["workflow"]
        mark_span({"tallystick.run_id": self.frame.run_id})
        place = Place(
            recorder,
            self.frame,
            attribution=attribution,
            traceparent=given["traceparent"] or outer.traceparent,
        )
        return place, {}

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self.frame.run_id

    @property
    def cost_usd(self) -> Decimal:
        """What the settled calls of this run and its children cost, as the server said."""
        return self.frame.spent_usd


class Attempt(_Work):
    """One try at a run, numbered from 1."""

    kind = "attempt"
    number = 0

    def _again(self, function: Callable[..., Any]) -> Self:
        return type(self)(self._recorder)

    def _enter_place(self, outer: Place, recorder: Recorder) -> tuple[Place, Mapping[str, Any]]:
        self.number = outer.run.next_attempt() if outer.run else 1
        return outer._replace(attempt=self.number), {}


class Tool(_Work):
    """One call of a tool."""

    kind = "tool"

    def __init__(self, recorder: Recorder | None, name: str) -> None:
        super().__init__(recorder)
        self.name = plain_text(name)
        self.tool_call_id = ""

    def _again(self, function: Callable[..., Any]) -> Self:
        return type(self)(self._recorder, self.name or _name_of(function))

    def _enter_place(self, outer: Place, recorder: Recorder) -> tuple[Place, Mapping[str, Any]]:
        self.tool_call_id = recorder.ids.next_id()
        return outer, {"tool": self.name, "tool_call_id": self.tool_call_id}


@overload
def run(work: F, /) -> F: ...


@overload
def run(
    *,
    workflow: str = "",
    run_id: str | None = None,
    feature: str = "",
    user: str = "",
    team: str = "",
    product: str = "",
    budget: str | float | Decimal | None = None,
    attribution: Mapping[str, Any] | None = None,
    parent_run_id: str = "",
    root_run_id: str = "",
    traceparent: str = "",
    client: Recorder | None = None,
) -> Run: ...


def run(
    work: F | None = None,
    /,
    *,
    workflow: str = "",
    run_id: str | None = None,
    feature: str = "",
    user: str = "",
    team: str = "",
    product: str = "",
    budget: str | float | Decimal | None = None,
    attribution: Mapping[str, Any] | None = None,
    parent_run_id: str = "",
    root_run_id: str = "",
    traceparent: str = "",
    client: Recorder | None = None,
) -> Run | F:
    """Mark one run; `budget` in USD binds the metered calls of it and its children here."""
    named = {"feature": feature, "user": user, "team": team, "product": product}
    made = Run(
        client,
        workflow=plain_text(workflow),
        run_id=plain_text(run_id or ""),
        budget_usd=None if budget is None else _amount_of(budget),
        attribution=clean_attribution(
            {**(attribution or {}), **{k: v for k, v in named.items() if v}}
        ),
        parent_run_id=plain_text(parent_run_id),
        root_run_id=plain_text(root_run_id),
        traceparent=traceparent,
    )
    return made if work is None else made(work)


def _amount_of(budget: str | float | Decimal) -> Decimal:
    """Read a budget; a float counts as it is written.

    >>> _amount_of(0.1), _amount_of("2.50")
    (Decimal('0.1'), Decimal('2.50'))
    """
    with contextlib.suppress(InvalidOperation, InvalidInput):
        amount = Decimal(str(budget))
        if parse_amount(f"{amount:f}", USD) >= 0:
            return amount
    raise InvalidInput(
        'budget is an amount of USD with at most 9 decimals, such as "2.50"',
        code="bad_budget",
        field="budget",
    )


@overload
def attempt(work: F, /) -> F: ...


@overload
def attempt(*, client: Recorder | None = None) -> Attempt: ...


def attempt(work: F | None = None, /, *, client: Recorder | None = None) -> Attempt | F:
    """Mark one try at the run; under a retrying decorator each try gets the next number."""
    made = Attempt(client)
    return made if work is None else made(work)


@overload
def tool(work: F, /) -> F: ...


@overload
def tool(work: str = "", /, *, client: Recorder | None = None) -> Tool: ...


def tool(work: F | str = "", /, *, client: Recorder | None = None) -> Tool | F:
    """Mark one tool call, by name or on a function that is one."""
    if isinstance(work, str):
        return Tool(client, work)
    return Tool(client, "")(work)
