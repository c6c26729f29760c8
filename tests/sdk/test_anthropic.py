"""The official anthropic client, metered: cached input, streams, helpers, refusals."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from anthropic import Anthropic, APIStatusError, AsyncAnthropic

from tallystick.sdk import Tallystick, instrument
from tests.sdk.provider import CACHED, INPUT, OUTPUT, PIECES, Provider
from tests.sdk.serving import usage_of
from tests.server import Server

BODY: dict[str, Any] = {
    "model": "claude-haiku-4-5",
    "max_tokens": 50,
    "messages": [{"role": "user", "content": "hello"}],
}


@pytest.fixture
def anthropic(provider: Provider, client: Tallystick) -> Iterator[Anthropic]:
    with Anthropic(base_url=provider.url, api_key="none") as made:
        yield instrument(made, tallystick=client)


def check(server: Server, client: Tallystick, run_id: str) -> None:
    call = usage_of(server, client, run_id)
    assert (call["tokens_input"], call["tokens_output"]) == (INPUT, OUTPUT)
    assert call["tokens_cache_read"] == CACHED
    assert (call["tokens_cache_write_5m"], call["tokens_cache_write_1h"]) == (60, 40)
    assert call["provider"] == "anthropic"


def test_messages_whole_and_streamed(
    server: Server, client: Tallystick, anthropic: Anthropic
) -> None:
    runs = []
    with client.run() as r:
        answer = anthropic.messages.create(**BODY)
    runs.append(r.run_id)
    assert answer.usage.output_tokens == OUTPUT
    with client.run() as r:
        events = list(anthropic.messages.create(**BODY, stream=True))
    runs.append(r.run_id)
    assert events[-1].type == "message_stop"
    with client.run() as r, anthropic.messages.stream(**BODY) as stream:
        assert "".join(stream.text_stream) == "".join(PIECES)
    runs.append(r.run_id)
    with client.run() as r:
        raw = anthropic.messages.with_raw_response.create(**BODY)
        assert raw.parse().usage.output_tokens == OUTPUT
    for run_id in [*runs, r.run_id]:
        check(server, client, run_id)


def test_a_stream_that_is_left_has_the_input_that_was_told(
    server: Server, client: Tallystick, anthropic: Anthropic
) -> None:
    with client.run() as r, anthropic.messages.stream(**BODY) as stream:
        next(iter(stream))
    call = usage_of(server, client, r.run_id)
    assert call["tokens_input"] == INPUT
    assert call["tokens_cache_read"] == CACHED


def test_a_provider_that_refuses_costs_nothing(
    server: Server, client: Tallystick, anthropic: Anthropic
) -> None:
    body = {**BODY, "messages": [{"role": "user", "content": "status 400"}]}
    with client.run(), pytest.raises(APIStatusError):
        anthropic.messages.create(**body)
    assert server.get("/v1/accounts/acme/balance")["held"] == "0"


def test_async_messages(server: Server, client: Tallystick, provider: Provider) -> None:
    async def work() -> list[str]:
        async with AsyncAnthropic(base_url=provider.url, api_key="none") as made:
            anthropic = instrument(made, tallystick=client)
            async with client.run() as first:
                await anthropic.messages.create(**BODY)
            async with client.run() as second, anthropic.messages.stream(**BODY) as stream:
                assert "".join([one async for one in stream.text_stream]) == "".join(PIECES)
            await client.async_transport.close()
            return [first.run_id, second.run_id]

    for run_id in asyncio.run(work()):
        check(server, client, run_id)
