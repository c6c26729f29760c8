"""What becomes of a gateway's holds when a stream is long, or is never passed on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar

import msgspec
import pytest
from starlette.requests import Request

from tallystick.access import Principal
from tallystick.enforcement.authorization import Ask, Authorizer, OtherModel
from tallystick.enforcement.calls import Calls
from tallystick.enforcement.rates import UNLIMITED, Decision
from tallystick.errors import Blocked, SlowDown
from tallystick.gateway import Gateway, GatewaySettings, make_gateway
from tallystick.gateway.keys import KeyRing, ProviderKeys
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


class Scene:
    """A gateway in this process, over a world and the scripted upstream."""

    def __init__(self, world: World, url: str, clickhouse: ClickHouse, upstream: Upstream) -> None:
        self.world = world
        self.url = url
        self.clickhouse = clickhouse
        self.upstream = upstream
        self.door = OpenDoor()

    def run(
        self,
        step: Callable[[Gateway], Awaitable[T]],
        *,
        hold_seconds: int = 900,
        switch: SwitchedOff | None = None,
    ) -> T:
        upstream = UpstreamSettings(
            "openai", base_url=self.upstream.url + "/v1", api_key="sk", concurrency_max=1
        )
        settings = GatewaySettings(upstreams={"openai": upstream}, hold_seconds=hold_seconds)

        async def inside() -> T:
            world = self.world
            pool = make_async_pool(self.url, connections=LANES + 1, settings=BY_INDEX)
            committer = Committer(world.ledger, pool)
            await committer.open()
            guards = [switch] if switch else []
            calls = Calls(
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
                world.clock,
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
    text = msgspec.json.encode({"model": "gpt-4o", **body})
    gone = asyncio.Event()
    messages = [{"type": "http.request", "body": text, "more_body": False}]
    sent: list[Any] = []

    async def receive() -> Any:
        if messages:
            return messages.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    async def take(message: Any) -> None:
        sent.append(message)

    scope: dict[str, Any] = {"type": "http", "method": name[0], "path": name[1], "state": {}}
    scope["headers"] = list(headers)
    response = await gateway.endpoints[name](Request(scope, receive))
    await response(scope, receive, take)
    return sent[0]["status"], b"".join(one.get("body", b"") for one in sent)


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
