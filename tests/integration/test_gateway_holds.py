"""What becomes of a gateway's holds when a stream is long, or is never passed on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any, TypeVar
from urllib.parse import unquote

import msgspec
import pytest
from starlette.requests import Request

from tallystick.access import Principal
from tallystick.clock import SystemClock
from tallystick.enforcement.authorization import Ask, Authorizer, OtherModel
from tallystick.enforcement.calls import CallPermit, Calls, CallSettings
from tallystick.enforcement.rates import UNLIMITED, Decision
from tallystick.errors import Blocked, SlowDown, StoreUnavailable
from tallystick.gateway import Gateway, GatewaySettings, make_gateway
from tallystick.gateway.keys import KeyRing, ProviderKeys
from tallystick.gateway.routing import FAILURES_MAX, REST
from tallystick.gateway.settings import Upstream as UpstreamSettings
from tallystick.gateway.settings import check_settings
from tallystick.ids import Uuid7Source
from tallystick.ledger import GrantRequest
from tallystick.ledger.committer import LANES, Committer
from tallystick.plumbing.clickhouse import ClickHouse
from tallystick.plumbing.postgres import BY_INDEX, make_async_pool, transaction
from tests.upstream.running import Upstream
from tests.world import World

T = TypeVar("T")
ACME = Principal("key:k1", frozenset(), frozenset({"*"}), tenant_id="acme", key_id="k1")
CHAT = ("POST", "/openai/v1/chat/completions")
COUNT = ("POST", "/openai/v1/responses/input_tokens")


class OpenDoor:
    """Lets everybody in; `is_full` cannot record what was answered."""

    is_full = False
    tokens = 0
    """Taken of rate limits, and not given back."""

    async def admit(self, request: Request) -> Principal:
        return ACME

    async def take_tokens(self, request: Request, tokens: int) -> Decision:
        self.tokens += tokens
        return UNLIMITED

    async def correct_tokens(self, principal: Principal, tokens: int) -> None:
        self.tokens += tokens

    def headers(self, request: Request) -> dict[str, str]:
        return {}

    def note(self, request: Request, route: str, status: int, code: str, started: float) -> None:
        if self.is_full:
            raise SlowDown("nothing can be recorded")


class SwitchedOff:
    """A kill switch over everything."""

    has_any = True

    def advise(self, ask: Ask) -> OtherModel | None:
        return None

    def check_running(self, ask: Ask) -> None:
        pass

    async def check(self, ask: Ask) -> None:
        raise Blocked("all is switched off", decided_by="mitigation:1")


class SwitchedLater(SwitchedOff):
    """A kill switch that lets calls begin, and ends what is under way."""

    async def check(self, ask: Ask) -> None:
        pass

    def check_running(self, ask: Ask) -> None:
        raise Blocked("all is switched off", decided_by="mitigation:1")


class OnceAway(Calls):
    """Its store is away when a hold is to be topped up first."""

    was_away = False

    async def top_up(
        self, permit: CallPermit, *, tokens_output: int, ttl_seconds: int = 300
    ) -> CallPermit:
        if not self.was_away:
            self.was_away = True
            raise StoreUnavailable("PostgreSQL cannot be reached")
        return await super().top_up(permit, tokens_output=tokens_output, ttl_seconds=ttl_seconds)


class Reader:
    """A client; it takes so many pieces of an answer and then reads no more, or goes away."""

    def __init__(self, pieces_max: int, *, goes: bool = False) -> None:
        self.messages: list[Any] = []
        self._pieces_max = pieces_max
        self._goes = goes
        self._gone = asyncio.Event()

    async def take(self, message: Any) -> None:
        if len(self.messages) > self._pieces_max:
            if self._goes:
                self._gone.set()
                return
            await asyncio.Event().wait()
        self.messages.append(message)

    async def wait(self) -> Any:
        await self._gone.wait()
        return {"type": "http.disconnect"}


class LaterClock:
    """The time, moved on by hand; what it moves are the breakers' rests."""

    moved = 0

    def now(self) -> int:
        return SystemClock().now() + self.moved


class Scene:
    """A gateway in this process, over a world and the scripted upstream."""

    def __init__(self, world: World, url: str, clickhouse: ClickHouse, upstream: Upstream) -> None:
        self.world = world
        self.url = url
        self.clickhouse = clickhouse
        self.upstream = upstream
        self.door = OpenDoor()
        self.clock = LaterClock()

    def run(
        self,
        step: Callable[[Gateway], Awaitable[T]],
        *,
        hold_seconds: int = 900,
        switch: SwitchedOff | None = None,
        money: Callable[..., Calls] = Calls,
        **more: Any,
    ) -> T:
        upstream = UpstreamSettings(
            "openai", base_url=self.upstream.url + "/v1", api_key="sk", concurrency_max=1
        )
        settings = GatewaySettings(
            upstreams={"openai": upstream}, hold_seconds=hold_seconds, **more
        )

        async def inside() -> T:
            world = self.world
            pool = make_async_pool(self.url, connections=LANES + 1, settings=BY_INDEX)
            committer = Committer(world.ledger, pool)
            await committer.open()
            guards = [switch] if switch else []
            calls = money(
                Authorizer(committer, guards=guards, mitigations=switch),
                world.ledger,
                world.door,
                world.catalog,
                world.clock,
                world.pool,
                self.clickhouse,
            )
            gateway = make_gateway(
                calls,
                check_settings(settings, {}),
                KeyRing(ProviderKeys(world.pool, "secret", world.clock)),
                self.door,
                self.clock,
                Uuid7Source(world.clock),
            )
            try:
                return await step(gateway)
            finally:
                await gateway.close()
                await calls.close()
                await committer.close()

        return asyncio.run(inside())

    def operations(self, kind: str) -> int:
        sql = "SELECT count(*) FROM ledger.operation WHERE kind = %s AND account_id = 'acme'"
        with transaction(self.world.pool) as connection:
            (found,) = connection.execute(sql, (kind,)).fetchone() or (0,)
        return int(found)


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    made = Upstream()
    yield made
    made.stop()


@pytest.fixture
def scene(world: World, postgres_url: str, clickhouse: ClickHouse, upstream: Upstream) -> Scene:
    world.ledger.put_account("acme", tenant_id="acme")
    world.ledger.apply(GrantRequest(account_id="acme", units=10**9, idempotency_key="first"))
    return Scene(world, postgres_url, clickhouse, upstream)


async def send(
    gateway: Gateway, name: tuple[str, str], *headers: tuple[bytes, bytes], **body: Any
) -> tuple[int, bytes]:
    """One request to an endpoint; its status and body."""
    reader = Reader(10**6)
    await ask_of(gateway, name, reader, *headers, **body)
    sent = reader.messages
    return sent[0]["status"], b"".join(one.get("body", b"") for one in sent)


async def ask_of(
    gateway: Gateway,
    name: tuple[str, str],
    reader: Reader,
    *headers: tuple[bytes, bytes],
    **body: Any,
) -> dict[bytes, bytes]:
    """One request of a client to an endpoint; returns the headers of its answer."""
    text = msgspec.json.encode({"model": "gpt-4o", **body})
    messages = [{"type": "http.request", "body": text, "more_body": False}]

    async def receive() -> Any:
        return messages.pop() if messages else await reader.wait()

    scope: dict[str, Any] = {"type": "http", "method": name[0], "path": name[1], "state": {}}
    scope["headers"] = list(headers)
    response = await gateway.endpoints[name](Request(scope, receive))
    await response(scope, receive, reader.take)
    return dict(reader.messages[0]["headers"])


def chat(mark: str) -> dict[str, Any]:
    return {"stream": True, "messages": [{"role": "user", "content": mark}]}


def test_the_hold_of_a_long_stream_does_not_run_out_under_it(scene: Scene) -> None:
    before = scene.operations("extend")
    status, body = scene.run(
        lambda gateway: send(gateway, CHAT, **chat("#slow rate=20 out=40#")), hold_seconds=1
    )
    assert status == 200 and b"[DONE]" in body
    assert scene.operations("extend") > before  # two seconds on a hold of one
    assert scene.world.ledger.balance("acme").held == 0


def test_a_store_that_is_away_for_a_moment_does_not_end_a_stream(scene: Scene) -> None:
    status, body = scene.run(
        lambda gateway: send(gateway, CHAT, **chat("#slow rate=200 out=200#")),
        money=partial(OnceAway, settings=CallSettings(output_tokens_at_first=50)),
    )
    assert status == 200 and b"store_unavailable" not in body
    assert body.count(b"tally ") == 200
    assert scene.world.ledger.balance("acme").held == 0


def test_a_stream_that_cannot_be_recorded_leaves_no_hold_and_no_place(scene: Scene) -> None:
    async def step(gateway: Gateway) -> None:
        scene.door.is_full = True
        with pytest.raises(SlowDown):
            await send(gateway, CHAT, **chat("#slow rate=20 out=400#"))
        scene.door.is_full = False
        status, body = await send(gateway, CHAT, **chat("#normal out=3#"))  # one place, and free
        assert status == 200 and b"[DONE]" in body

    scene.run(step)
    assert scene.world.ledger.balance("acme").held == 0


def test_a_call_that_is_refused_for_its_headers_takes_nothing_of_a_rate(scene: Scene) -> None:
    async def step(gateway: Gateway) -> int:
        header = (b"x-tallystick-attempt", b"none")
        return (await send(gateway, CHAT, header, **chat("#normal#")))[0]

    assert scene.run(step) == 400
    assert scene.door.tokens == 0


def test_a_kill_switch_stops_calls_that_are_free_too(scene: Scene) -> None:
    asked = {"input": "how long is this?"}
    assert scene.run(lambda gateway: send(gateway, COUNT, **asked))[0] == 200
    count = len(scene.upstream.truth())
    status, body = scene.run(lambda gateway: send(gateway, COUNT, **asked), switch=SwitchedOff())
    assert status == 402 and b"mitigation:1" in body
    assert len(scene.upstream.truth()) == count


def stream_to(scene: Scene, reader: Reader, mark: str, **more: Any) -> None:
    """Stream to a client within a deadline; its hold ends."""

    async def step(gateway: Gateway) -> None:
        async with asyncio.timeout(30):  # or it waits for ever
            await ask_of(gateway, CHAT, reader, **chat(mark))

    scene.run(step, **more)
    assert scene.world.ledger.balance("acme").held == 0


def test_a_client_that_stops_reading_holds_nothing_and_is_charged_in_full(scene: Scene) -> None:
    reader = Reader(3)
    stream_to(scene, reader, "#slow rate=40 out=60#", client_seconds=0.5)
    assert scene.upstream.truth()[-1]["is_finished"]  # read on to its own count
    assert len(reader.messages) == 4


def test_a_kill_switch_ends_a_stream_that_its_client_does_not_read(scene: Scene) -> None:
    stream_to(scene, Reader(3), "#slow rate=40 out=400#", switch=SwitchedLater())
    assert not scene.upstream.truth()[-1]["is_finished"]


def test_a_kill_switch_ends_a_stream_whose_upstream_is_silent(scene: Scene) -> None:
    reader = Reader(10**6)
    stream_to(scene, reader, "#stall seconds=600 out=40#", switch=SwitchedLater())
    body = b"".join(one.get("body", b"") for one in reader.messages)
    assert b"blocked" in body and body.endswith(b"[DONE]\n\n")


def test_a_silent_upstream_is_not_waited_for_once_its_client_is_gone(scene: Scene) -> None:
    stream_to(scene, Reader(0, goes=True), "#stall seconds=600 out=40#", drain_seconds=0.5)


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_run_of_any_name_gets_its_answer(scene: Scene, *, is_stream: bool) -> None:
    """Once the work is done and charged, no header may lose it."""
    asked = {**chat("#normal out=3#"), "stream": is_stream}
    run = (b"x-tallystick-run", "запуск-7".encode())
    headers = scene.run(lambda gateway: ask_of(gateway, CHAT, Reader(10**6), run, **asked))
    assert unquote(headers[b"x-tallystick-run"].decode()) == "запуск-7"


def test_a_refusal_says_that_the_upstream_is_in_order(scene: Scene) -> None:
    """Four failures, a 400 and two failures are never five in a row."""

    async def step(gateway: Gateway) -> list[int]:
        marks = ("overloaded", "overloaded", "refused", "overloaded", "normal")
        return [(await send(gateway, CHAT, **chat(f"#{mark}#")))[0] for mark in marks]

    assert scene.run(step) == [500, 500, 400, 500, 200]


def test_who_cannot_pay_does_not_keep_an_upstream_at_rest(scene: Scene) -> None:
    """The trial of its breaker stays for a call that is sent."""
    upstream = UpstreamSettings("openai", name="openai")

    async def step(gateway: Gateway) -> list[int]:
        for _ in range(FAILURES_MAX):
            gateway.health.failed(upstream)
        first = await send(gateway, CHAT, **chat("#normal#"))
        scene.clock.moved += REST
        dear = {"model": "a-model-without-a-price", **chat("#normal#")}
        refused = [await send(gateway, CHAT, **dear) for _ in range(2)]
        last = await send(gateway, CHAT, **chat("#normal#"))
        return [status for status, _ in (first, *refused, last)]

    assert scene.run(step) == [503, 402, 402, 200]
