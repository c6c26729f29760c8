"""Marks of work as events: nesting, attempts, decorators, generators, tasks, threads, forks."""

from __future__ import annotations

import asyncio
import functools
import gc
import os
import pickle
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry import trace

from tallystick.errors import InvalidInput
from tallystick.sdk import (
    CarryingExecutor,
    LimitReached,
    SpoolFull,
    Tallystick,
    Unreachable,
    attempt,
    carry,
    propagated_headers,
    run,
    set_default_client,
    tool,
    usage,
)
from tallystick.sdk.asgi import TallystickMiddleware
from tallystick.sdk.context import here
from tallystick.sdk.metering.bodies import read_request
from tallystick.sdk.metering.meter import begin
from tests.sdk.recording import NOWHERE, recording, shapes


def test_nested_runs_name_their_parent_and_root() -> None:
    with (
        recording(attribution={"team": "red"}) as (client, events),
        client.run(run_id="a", feature="chat"),
        run(run_id="b"),
        run(run_id="c"),
    ):
        pass
    assert shapes(events) == [
        ("run_started", "a"),
        ("run_started", "b"),
        ("run_started", "c"),
        ("run_completed", "c"),
        ("run_completed", "b"),
        ("run_completed", "a"),
    ]
    inner = events[2]
    assert (inner["parent_run_id"], inner["root_run_id"]) == ("b", "a")
    assert (inner["team"], inner["feature"]) == ("red", "chat"), "children inherit attribution"
    assert "parent_run_id" not in events[0]
    assert len({event["event_id"] for event in events}) == 6


def test_attempts_are_numbered_under_a_retrying_loop() -> None:
    def retrying(function: Callable[[], str]) -> str:
        for _ in range(3):
            try:
                return function()
            except ConnectionError:
                continue
        raise AssertionError

    failures = iter([True, True, False])

    @attempt
    def fetch() -> str:
        if next(failures):
            raise ConnectionError("text that nobody should see")
        usage(provider="openai", model="gpt-4o", tokens_input=1)
        return "done"

    with recording() as (client, events), client.run(run_id="r"):
        assert retrying(fetch) == "done"
    numbers = [event["attempt"] for event in events if event["event_type"] == "attempt_started"]
    assert numbers == [1, 2, 3]
    errors = [event.get("error_code") for event in events if "finished" in event["event_type"]]
    assert errors == ["ConnectionError", "ConnectionError", None]
    (used,) = [event for event in events if event["event_type"] == "token_usage"]
    assert used["attempt"] == 3
    assert "nobody should see" not in repr(events)


def test_decorators_of_every_kind_of_function() -> None:
    @tool
    def plain(value: int) -> int:
        return value + 1

    @tool("named")
    async def coroutine(value: int) -> int:
        await asyncio.sleep(0)
        return value + 1

    @run
    def generator() -> Iterator[str]:
        place = here.get().run
        received = yield place.run_id if place else ""
        yield str(received)

    @run(workflow="flow")
    async def stream() -> AsyncIterator[int]:
        yield 1
        yield 2

    async def asynchronous() -> None:
        assert await coroutine(1) == 2
        assert [one async for one in stream()] == [1, 2]

    with recording() as (client, events):
        set_default_client(client)
        try:
            assert plain(1) == 2
            going: Any = generator()
            name = next(going)
            assert here.get().run is None, "between two items the caller's place is as it was"
            assert going.send("x") == "x"
            going.close()
            asyncio.run(asynchronous())
        finally:
            set_default_client(None)
    assert [event.get("tool") for event in events[:2]] == ["plain", "plain"]
    assert shapes(events)[2:4] == [("run_started", name), ("run_completed", name)]
    assert events[2]["workflow"] == "generator"
    assert events[-1]["workflow"] == "flow"
    assert plain.__name__ == "plain"


def test_what_has_no_name_is_called_by_its_class() -> None:
    class Search:
        def __call__(self) -> str:
            return "found"

    with recording() as (client, events):
        assert client.tool(Search())() == "found"
        assert client.run(functools.partial(int, "7"))() == 7
    assert [event.get("tool") or event.get("workflow") for event in events[::2]] == [
        "Search",
        "partial",
    ]


@pytest.mark.parametrize("budget", ["2.50", 0.1, 3, Decimal("0.000000001"), "0"])
def test_a_budget_is_an_amount_however_it_is_written(budget: Any) -> None:
    with recording() as (client, _), client.run(budget=budget) as found:
        assert found.frame.budget_usd == Decimal(str(budget))


@pytest.mark.parametrize("budget", ["much", "-1", float("nan"), "0.0000000001", True])
def test_a_budget_that_is_no_amount_is_refused_at_once(budget: Any) -> None:
    with pytest.raises(InvalidInput, match="amount of USD"):
        run(budget=budget)


@pytest.mark.parametrize(
    "error",
    [
        LimitReached("x", code="budget_exceeded", decided_by="budget:b", operation_id="o"),
        Unreachable("x", may_have_arrived=False),
        SpoolFull("x"),
    ],
)
def test_what_is_raised_passes_between_processes(error: Exception) -> None:
    """A pool of workers that gets an exception it cannot read waits for ever, or breaks."""
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), vars(again)) == (type(error), vars(error))


def test_a_generator_that_fails_is_a_failed_run() -> None:
    @run
    def broken() -> Iterator[int]:
        yield 1
        raise KeyError("secret")

    with recording() as (client, events):
        set_default_client(client)
        with pytest.raises(KeyError):
            list(broken())
        set_default_client(None)
    assert [event["event_type"] for event in events] == ["run_started", "run_failed"]
    assert events[1]["error_code"] == "KeyError"


def test_a_generator_ends_its_run_in_whatever_context_it_is_run() -> None:
    def items() -> Iterator[int]:
        with run(run_id="a"):
            yield 1

    async def more() -> AsyncIterator[int]:
        async with run(run_id="b"):
            yield 1

    async def begin_and_leave() -> None:
        left = more()
        assert await anext(left) == 1
        del left  # the loop closes it, in a task of its own
        gc.collect()
        await asyncio.sleep(0)

    with recording() as (client, events):
        set_default_client(client)
        try:
            made = items()
            one = copy_context().run(next, made)  # as servers do in a pool of threads
            assert (one, copy_context().run(list, made)) == (1, [])
            asyncio.run(begin_and_leave())
        finally:
            set_default_client(None)
        assert here.get().run is None
    assert [kind for kind, _ in shapes(events)] == [
        "run_started",
        "run_completed",
        "run_started",
        "run_failed",  # cut short
    ]


def test_tasks_and_threads_stand_where_they_were_begun() -> None:
    @tool
    def work() -> None:
        pass

    async def tasks() -> None:
        async with run(run_id="tasks"):
            await asyncio.gather(*(asyncio.to_thread(work) for _ in range(2)))

    with recording() as (client, events):
        with client.run(run_id="threads"):
            with ThreadPoolExecutor(2) as pool:
                pool.submit(carry(work)).result()
            with CarryingExecutor(2) as pool:
                pool.submit(work).result()
        set_default_client(client)
        asyncio.run(tasks())
        set_default_client(None)
    tools = [event["run_id"] for event in events if event["event_type"].startswith("tool")]
    assert tools == ["threads"] * 4 + ["tasks"] * 4


def fill(client: Tallystick) -> None:
    for _ in range(10):
        client.usage(provider="p", model="m")


def test_what_the_application_raised_is_not_hidden_by_a_full_spool() -> None:
    def fail(client: Tallystick) -> None:
        with client.run():
            raise KeyError("ours")

    with recording(spool_bytes_max=300) as (client, _):
        with pytest.raises(KeyError):
            fail(client)
        assert client.counters()["not_taken"] == 1


def test_a_full_spool_is_said_to_the_caller_and_counted() -> None:
    with recording(spool_bytes_max=300) as (client, _):
        with pytest.raises(SpoolFull):
            fill(client)
        assert client.counters()["not_taken"] == 1


def test_a_blocking_client_waits_then_says_so() -> None:
    client = Tallystick(
        NOWHERE, "none", spool_bytes_max=300, on_full="block", block_seconds=0.2, exit_seconds=0
    )
    with pytest.raises(SpoolFull):
        fill(client)
    client.close(0)
    assert client.counters()["lost"] == client.counters()["recorded"]


def test_without_settings_there_is_no_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TALLYSTICK_URL", raising=False)
    with pytest.raises(InvalidInput, match="TALLYSTICK_URL"), run():
        pass


@pytest.mark.parametrize("url", ["localhost:8787", "//localhost:8787", "http://", ""])
def test_an_address_that_is_none_is_refused_at_once(url: str) -> None:
    with pytest.raises(InvalidInput, match="where Tallystick answers"):
        Tallystick(url, "none")


def test_a_forked_child_has_a_spool_of_its_own(tmp_path: Path) -> None:
    client = Tallystick(NOWHERE, "none", spool=tmp_path)
    client.usage(provider="p", model="m", event_id="parent")
    child = os.fork()
    if child == 0:
        status = 1
        try:
            client.usage(provider="p", model="m", event_id="child")
            status = 0 if client.counters()["pending_records"] == 1 else 2
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    client.usage(provider="p", model="m", event_id="parent-2")
    assert client.counters()["pending_records"] == 2
    segments = {path.parent.name: path.read_bytes() for path in tmp_path.glob("*/*.seg")}
    assert len(segments) == 2
    assert sum(text.count(b'"child"') for text in segments.values()) == 1
    client.close(0)


async def _serve(middleware: TallystickMiddleware, headers: dict[str, str]) -> None:
    async def nothing(*_: Any) -> Any:
        return {"type": "http.request"}

    pairs = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await middleware({"type": "http", "path": "/", "headers": pairs}, nothing, nothing)


def test_names_beyond_ascii_travel_by_headers() -> None:
    """HTTP clients refuse to send them as they are."""
    seen: list[dict[str, str]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(propagated_headers())

    with recording() as (client, events):
        with client.run(user="Zoë", attribution={"feature": "50% 値引き"}):
            headers = dict(httpx.Headers(propagated_headers()))
        trusting = TallystickMiddleware(app, client=client, trusts=lambda _: True)
        asyncio.run(_serve(trusting, headers))
        asyncio.run(_serve(trusting, {"X-Tallystick-User": "Zoë"}))
    assert [event["user_id"] for event in events] == ["Zoë"] * 6
    assert events[2]["feature"] == "50% 値引き"
    assert seen[0]["X-Tallystick-User"] == headers["x-tallystick-user"] == "Zo%C3%AB"


def test_requests_are_runs_of_their_callers() -> None:
    seen: list[dict[str, str]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(propagated_headers())
        status = 503 if scope["path"] == "/" and len(seen) == 3 else 200
        await send({"type": "http.response.start", "status": status})

    headers = {
        "X-Tallystick-Run": "caller",
        "X-Tallystick-Root-Run": "top",
        "X-Tallystick-Team": "intruders",
        "traceparent": "00-ab-cd-01",
    }
    with recording() as (client, events):
        wary = TallystickMiddleware(app, client=client, attribution=lambda _: {"feature": "api"})
        open_hearted = TallystickMiddleware(app, client=client, trusts=lambda _: True)
        joining = TallystickMiddleware(app, client=client, trusts=lambda _: True, emits_runs=False)
        for middleware in (wary, open_hearted, wary, joining):
            asyncio.run(_serve(middleware, headers))
    first = events[0]
    assert (first["parent_run_id"], first["root_run_id"]) == ("caller", first["run_id"])
    assert (first.get("team"), first["feature"]) == (None, "api")
    assert (events[2]["parent_run_id"], events[2]["root_run_id"]) == ("caller", "top")
    assert events[2]["team"] == "intruders"
    assert [event["event_type"] for event in events] == [
        *["run_started", "run_completed"] * 2,
        "run_started",
        "run_failed",
    ]
    assert seen[0]["traceparent"] == "00-ab-cd-01"
    assert seen[0]["X-Tallystick-Parent-Run"] == "caller"
    assert seen[3]["X-Tallystick-Run"] == "caller"


@pytest.mark.parametrize("emits_runs", [True, False])
def test_a_stranger_names_neither_run_nor_root_nor_attempt(emits_runs: bool) -> None:
    asked: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        found = read_request("POST", "/v1/embeddings", b'{"model":"m","input":"hi"}')
        assert found is not None
        asked.append(begin(found, "openai", None).call.ask().content)
        await send({"type": "http.response.start", "status": 200})

    with recording() as (client, events):
        middleware = TallystickMiddleware(app, client=client, emits_runs=emits_runs)
        for attempt_number in ("1", "2"):
            headers = {"X-Tallystick-Run": "victim", "X-Tallystick-Parent-Run": "above"}
            headers |= {"X-Tallystick-Attempt": attempt_number}
            asyncio.run(_serve(middleware, headers))
            asyncio.run(_serve(middleware, headers | {"X-Tallystick-Root-Run": "victims-root"}))
    runs = [ask["run_id"] for ask in asked]
    assert len({*runs, "victim"}) == 5, "each request is a run of its own, and is charged"
    assert [ask["root_run_id"] for ask in asked] == runs, "and draws on no budget but its own"
    assert {ask["parent_run_id"] for ask in asked} == {"victim"}
    assert {ask["attempt"] for ask in asked} == {1}
    assert {event["root_run_id"] for event in events} == set(runs)


class RecordingSpan(trace.NonRecordingSpan):
    """A span that keeps its attributes."""

    def __init__(self) -> None:
        super().__init__(trace.INVALID_SPAN_CONTEXT)
        self.attributes: dict[str, Any] = {}

    def is_recording(self) -> bool:
        return True

    def set_attribute(self, key: str, value: Any) -> None:
        self.attributes[key] = value


def test_the_current_span_knows_the_run() -> None:
    span = RecordingSpan()
    with recording() as (client, _), trace.use_span(span), client.run(run_id="traced"):
        pass
    assert span.attributes == {"tallystick.run_id": "traced"}
