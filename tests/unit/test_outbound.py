"""What the gateway asks of upstreams: addresses that no caller's text can change."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg_pool import ConnectionPool

from tallystick.access import Principal
from tallystick.clock import SystemClock
from tallystick.gateway.keys import KeyRing, ProviderKeys
from tallystick.gateway.model import UpstreamFailed
from tallystick.gateway.models import find_models
from tallystick.gateway.outbound import Outbound
from tallystick.gateway.settings import GatewaySettings, Upstream
from tallystick.gateway.upstreams.bedrock import ConverseChat
from tallystick.gateway.upstreams.gemini import GeminiChat

_NAMES = st.text(st.sampled_from("ab./\\%2eEF?#:@ é"), min_size=1, max_size=12)


def asked_at(steps: list[tuple[Upstream, str, str]]) -> list[str]:
    """Send each (upstream, path, model) to one server; the raw paths that it was asked at."""
    seen: list[str] = []

    async def note(request: web.BaseRequest) -> web.StreamResponse:
        seen.append(request.raw_path)
        return web.Response(body=b"{}")

    async def send(outbound: Outbound, url: str) -> None:
        for upstream, path, model in steps:
            placed = Upstream(
                upstream.kind, name=upstream.kind, base_url=url, api_version=upstream.api_version
            )
            answer = await outbound.send(placed, path, b"{}", {}, model=model)
            await answer.read()

    asyncio.run(with_server(note, send))
    return seen


async def with_server(
    answer: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
    step: Callable[[Outbound, str], Awaitable[None]],
) -> None:
    """Run a step against a server of this loop."""
    runner = web.ServerRunner(web.Server(answer), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    outbound = Outbound()
    try:
        await step(outbound, f"http://127.0.0.1:{runner.addresses[0][1]}")
    finally:
        await outbound.close()
        await runner.cleanup()


AZURE = Upstream("azure_openai", api_version="2024-10-21")
GEMINI = Upstream("gemini")
BEDROCK = Upstream("bedrock")


@given(st.lists(_NAMES.filter(lambda name: bool(name.strip("."))), min_size=1, max_size=20))
@settings(max_examples=10, deadline=None)
def test_a_model_is_one_segment_of_an_address_whatever_its_name(names: list[str]) -> None:
    steps = []
    for name in names:
        steps.append((AZURE, "/chat/completions", name))
        steps.append((GEMINI, GeminiChat().path(name, is_stream=False), ""))
        steps.append((BEDROCK, ConverseChat().path(name, is_stream=False), ""))
    for place, path in enumerate(asked_at(steps)):
        segments = path.partition("?")[0].split("/")
        if place % 3 == 0:
            assert segments[1:3] == ["openai", "deployments"] and len(segments) == 6
            assert segments[4:] == ["chat", "completions"]
            assert path.endswith("?api-version=2024-10-21")
        elif place % 3 == 1:
            assert segments[1] == "models" and len(segments) == 3
        else:
            assert segments[1] == "model" and segments[3:] == ["converse"]
        assert not {"", ".", ".."} & set(segments[1:])


def test_another_deployment_cannot_be_reached_by_a_name() -> None:
    (path,) = asked_at([(AZURE, "/chat/completions", "o4-mini/../gpt-4o")])
    assert path.startswith("/openai/deployments/o4-mini%2F..%2Fgpt-4o/chat/completions?")


@pytest.mark.parametrize("name", [".", ".."])
def test_a_name_of_dots_is_refused_before_anything_is_sent(name: str) -> None:
    with pytest.raises(UpstreamFailed) as refused:
        asked_at([(AZURE, "/chat/completions", name)])
    assert refused.value.http_status == 400 and not refused.value.is_sent


def test_an_upstream_that_lists_nothing_sensible_hides_no_other() -> None:
    """One hangs, one leaves ids out: the list has what the others say."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if request.path.startswith("/slow"):
            await asyncio.sleep(60)
        entries: list[dict[str, str]] = [{"id": "gpt-4o"}, {"object": "model"}]
        return web.json_response({"data": entries})

    async def listed(outbound: Outbound, url: str) -> None:
        slow = Upstream("openai", name="slow", base_url=f"{url}/slow", connect_seconds=0.1)
        good = Upstream("openai", name="good", base_url=url)
        keys = KeyRing(ProviderKeys(ConnectionPool("", open=False), "secret", SystemClock()))
        who = Principal("k", frozenset(), frozenset())
        settings = GatewaySettings(upstreams={"slow": slow, "good": good})
        async with asyncio.timeout(20):
            found = await find_models(settings, outbound, keys, who)
        assert list(found) == ["gpt-4o"]

    asyncio.run(with_server(answer, listed))


def test_a_call_does_not_wait_for_a_connection_for_ever() -> None:
    """One connection, and a stream on it that is not read: the next call is told so."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"data: 1\n\n")
        await asyncio.sleep(60)
        return response

    async def send(outbound: Outbound, url: str) -> None:
        narrow = Upstream(
            "openai", name="narrow", base_url=url, connections_max=1, connect_seconds=0.1
        )
        held = await outbound.send(narrow, "/chat/completions", b"{}", {})
        with pytest.raises(UpstreamFailed) as refused:
            async with asyncio.timeout(20):
                await outbound.send(narrow, "/chat/completions", b"{}", {})
        assert (refused.value.code, refused.value.http_status) == ("upstream_busy", 503)
        assert not refused.value.is_sent
        held.close()

    asyncio.run(with_server(answer, send))
