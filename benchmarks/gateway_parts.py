"""CPU of a call in the gateway's process by part, where a busy machine cannot hide it.

    python -m benchmarks.gateway_parts

Each part runs alone on one thread, without stores and sockets, in rounds of a few milliseconds;
the fastest twentieth of 300 rounds is shown, in microseconds of that thread. So it says what
the code costs, not what a call costs: system calls, waiting and cold caches come on top. What
the ledger costs is in `benchmarks.calls`, an upstream's connection in `benchmarks.http_clients`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import uvicorn
import uvloop
from starlette.requests import Request
from tests.unit.test_own_events import EVENT, RECEIVED_AT, parsed
from uvicorn.server import ServerState

from tallystick.access import OPERATOR, Principal
from tallystick.api.app import ShortWay
from tallystick.api.connections import BoundedProtocol
from tallystick.clock import SystemClock
from tallystick.enforcement.authorization import Advice
from tallystick.enforcement.calls import CallAsk, CallPermit, CallReceipt
from tallystick.enforcement.rates import UNLIMITED, Decision
from tallystick.events.own import own_event
from tallystick.events.redaction import Redactor
from tallystick.gateway import GatewaySettings, make_gateway
from tallystick.gateway.settings import Upstream, check_settings
from tallystick.ids import Uuid7Source

ROUNDS = 300
TOKENS = 400
_ANSWER = b"""{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"gpt-4o-2024-08-06",
"choices":[{"index":0,"message":{"role":"assistant","content":"Twenty words or so."},
"finish_reason":"stop"}],"usage":{"prompt_tokens":240,"completion_tokens":20,"total_tokens":260}}"""
_CHUNK = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"gpt-4o",'
    b'"choices":[{"index":0,"delta":{"content":" word"},"finish_reason":null}],"usage":null}\n\n'
)
_TEXT = "Please summarise the meeting notes that follow. " * 16


class Door:
    """Lets everybody in and records nothing."""

    async def admit(self, request: Request) -> Principal:
        return OPERATOR

    async def take_tokens(self, request: Request, tokens: int) -> Decision:
        return UNLIMITED

    async def correct_tokens(self, principal: Principal, tokens: int) -> None:
        pass

    def headers(self, request: Request) -> dict[str, str]:
        return {}

    def note(self, request: Request, route: str, status: int, code: str, started: float) -> None:
        pass


class Money:
    """Permits every call at once."""

    async def authorize(self, ask: CallAsk) -> CallPermit:
        return CallPermit(
            hold_id="0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b",
            account_id=ask.account_id,
            tenant_id="bench",
            run_id=ask.request_id,
            request_id=ask.request_id,
            provider=ask.provider,
            model=ask.model,
            credit_units=100_000,
            usd_units=100_000,
            tokens=10**6,
            tokens_output=10**6,
            available_units=10**9,
            expires_at=0,
            occurred_at=1,
            ask=ask,
        )

    async def settle(self, permit: CallPermit, *_: Any, **__: Any) -> CallReceipt:
        return CallReceipt(
            hold_id=permit.hold_id,
            event_id="e",
            cost_usd_units=123_456,
            cost_quality="exact",
            credit_units=12_345,
            charged_units=12_345,
            shortfall_units=0,
            available_units=10**9,
        )

    async def advise(self, ask: CallAsk, *, has_cheaper: bool = True) -> Advice:
        return Advice()

    def check_running(self, permit: CallPermit) -> None:
        pass


class Answer:
    """An upstream's answer that is there already, whole or in pieces."""

    status = 200
    partial_bytes = 0

    def __init__(self) -> None:
        self.headers = {"content-type": "application/json", "x-request-id": "req_1"}

    async def read(self) -> bytes:
        return _ANSWER

    async def pieces(self) -> AsyncIterator[bytes]:
        for _ in range(TOKENS):
            await asyncio.sleep(0)
            yield _CHUNK
        yield b"data: [DONE]\n\n"

    def close(self) -> None:
        pass


class Outbound:
    """Answers at once."""

    async def send(self, *_: Any, **__: Any) -> Answer:
        return Answer()


class Transport:
    """Where a connection writes to."""

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 1) if name in ("peername", "sockname") else default

    def write(self, text: bytes) -> None:
        pass

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        pass


async def fastest(step: Callable[[], Awaitable[None]], times: int) -> float:
    """Microseconds of this thread for one step."""
    found = []
    for _ in range(ROUNDS):
        begun = time.thread_time()
        for _ in range(times):
            await step()
        found.append((time.thread_time() - begun) / times * 1e6)
    return sorted(found)[ROUNDS // 20]


def serving(app: Any, body: str) -> Callable[[], Awaitable[None]]:
    """One request after the other over one connection."""
    config = uvicorn.Config(app, http=BoundedProtocol, access_log=False, lifespan="off")
    config.load()
    protocol = BoundedProtocol(config=config, server_state=ServerState(), app_state={})
    protocol.connection_made(Transport())
    request = (
        "POST /openai/v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer k\r\n"
        "X-Tallystick-Account: acct-1\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n{body}"
    ).encode()

    async def step() -> None:
        protocol.data_received(request)
        while not protocol.cycle.response_complete:
            await asyncio.sleep(0)

    return step


async def empty(scope: Any, receive: Any, send: Any) -> None:
    """An application that does nothing."""
    while (await receive()).get("more_body"):
        pass
    length = (b"content-length", b"%d" % len(_ANSWER))
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
    await send({"type": "http.response.body", "body": _ANSWER})


async def measure() -> dict[str, float]:
    """Every part."""
    clock = SystemClock()
    upstream = Upstream("openai", base_url="http://a/v1", api_key="sk")
    settings = check_settings(GatewaySettings(upstreams={"openai": upstream}), {})
    money: Any = Money()
    gateway = make_gateway(money, settings, Door(), clock, Uuid7Source(clock))
    gateway._calling._outbound = Outbound()  # type: ignore[assignment]
    app = ShortWay(empty, gateway.endpoints)  # type: ignore[arg-type]
    body = f'{{"model":"gpt-4o","max_tokens":100,"messages":[{{"role":"user","content":"{_TEXT}"}}]'
    redactor = Redactor(b"k" * 32)

    async def by_columns() -> None:
        assert own_event(EVENT, RECEIVED_AT, redactor)

    async def by_json() -> None:
        parsed(EVENT, redactor)

    server = await fastest(serving(empty, body + "}"), 20)
    whole = await fastest(serving(app, body + "}"), 20)
    stream = await fastest(serving(app, body + ',"stream":true}'), 1)
    await gateway.close()
    return {
        "server: read a request, write an answer": server,
        "gateway: all between server, money and upstream": whole - server,
        "gateway: a token of a stream": (stream - whole) / TOKENS,
        "event: to columns": await fastest(by_columns, 50),
        "event: the same by way of JSON": await fastest(by_json, 50),
    }


def main() -> None:
    print("| part | microseconds |\n| --- | --- |")
    for name, found in uvloop.run(measure()).items():
        print(f"| {name} | {found:.1f} |")


if __name__ == "__main__":
    main()
