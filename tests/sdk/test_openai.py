"""The official openai client, metered: what the provider billed is what is charged."""

from __future__ import annotations

import asyncio
import gc
import uuid
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import httpx
import pytest
from openai import APIError, APIStatusError, AsyncOpenAI, AuthenticationError, OpenAI

from tallystick.errors import InvalidInput
from tallystick.sdk import LimitReached, Tallystick, instrument
from tests.sdk.provider import CACHED, INPUT, OUTPUT, PIECES, REASONING, Provider
from tests.sdk.serving import story_of, url_of, usage_of
from tests.server import Server

COST = Decimal("0.00212")
"""600 new input at 2.50, 400 cached at 1.25, 12 output at 10.00 USD a million tokens."""


@pytest.fixture
def openai(provider: Provider, client: Tallystick) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{provider.url}/v1", api_key="none", max_retries=2) as made:
        yield instrument(made, tallystick=client)


def ask(openai: Any, text: str = "hello", **options: Any) -> Any:
    messages = [{"role": "user", "content": text}]
    return openai.chat.completions.create(model="gpt-4o", messages=messages, **options)


def counts(call: dict[str, Any]) -> tuple[int, int, int]:
    return call["tokens_input"], call.get("tokens_output", 0), call.get("tokens_cache_read", 0)


def test_a_call_is_charged_what_the_provider_reported(
    server: Server, client: Tallystick, openai: OpenAI
) -> None:
    with client.run(workflow="w", feature="chat") as r:
        answer = ask(openai)
    assert answer.choices[0].message.content == "".join(PIECES)
    call = usage_of(server, client, r.run_id)
    assert counts(call) == (INPUT, OUTPUT, CACHED)
    assert r.cost_usd == COST
    assert Decimal(call["cost_usd"]) == COST
    assert story_of(server, r.run_id)["charge"]["charged"] == "0.2544"


def test_a_stream_is_charged_alike_and_its_usage_stays_hidden(
    server: Server, client: Tallystick, openai: OpenAI
) -> None:
    with client.run() as r:
        chunks = list(ask(openai, stream=True))
    assert all(chunk.choices for chunk in chunks)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "".join(PIECES)
    assert counts(usage_of(server, client, r.run_id)) == (INPUT, OUTPUT, CACHED)
    assert r.cost_usd == COST


def test_usage_is_shown_to_a_caller_who_asked(client: Tallystick, openai: OpenAI) -> None:
    with client.run():
        chunks = list(ask(openai, stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].usage.completion_tokens == OUTPUT


@pytest.mark.parametrize("way", ["close", "with", "collect"])
def test_a_stream_that_is_left_pays_what_came(
    server: Server, client: Tallystick, openai: OpenAI, way: str
) -> None:
    with client.run() as r:
        stream = ask(openai, "long", stream=True)
        if way == "with":
            with stream:
                next(iter(stream))
        else:
            next(iter(stream))
            if way == "close":
                stream.close()
    del stream
    gc.collect()
    call = usage_of(server, client, r.run_id)
    assert call["usage_quality"] == "estimated"
    assert call["tokens_output"] >= 1
    assert call["tokens_input"] > 0


def test_a_broken_stream_is_settled_as_failed(
    server: Server, client: Tallystick, openai: OpenAI
) -> None:
    with client.run() as r, pytest.raises((APIError, httpx.HTTPError)):
        list(ask(openai, "cut", stream=True))
    call = usage_of(server, client, r.run_id)
    assert call["error_code"] in ("RemoteProtocolError", "ReadError")
    assert call["tokens_output"] <= 5
    assert call["usage_quality"] == "estimated"


def test_missing_usage_is_estimated(server: Server, client: Tallystick, openai: OpenAI) -> None:
    with client.run() as r:
        list(ask(openai, "no usage", stream=True))
    assert usage_of(server, client, r.run_id)["usage_quality"] == "estimated"


def test_raw_and_streamed_responses_and_helpers_work(
    server: Server, client: Tallystick, openai: OpenAI
) -> None:
    body: Any = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}
    with client.run() as r:
        raw = openai.chat.completions.with_raw_response.create(**body)
        assert raw.headers["x-request-id"] == "req-1"
        assert raw.parse().usage.completion_tokens == OUTPUT
    assert counts(usage_of(server, client, r.run_id)) == (INPUT, OUTPUT, CACHED)
    with client.run() as r, openai.chat.completions.with_streaming_response.create(**body) as kept:
        assert b"Tally" in kept.read()
    assert counts(usage_of(server, client, r.run_id)) == (INPUT, OUTPUT, CACHED)
    with client.run() as r, openai.chat.completions.stream(**body) as events:
        assert events.get_final_completion().choices[0].message.content == "".join(PIECES)
    assert counts(usage_of(server, client, r.run_id)) == (INPUT, OUTPUT, CACHED)


@pytest.fixture
def encoding(provider: Provider) -> Iterator[Provider]:
    """The provider, whose encoding a test may force."""
    yield provider
    provider.encoding = ""


def keep(openai: OpenAI, **options: Any) -> Any:
    body: Any = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}], **options}
    return openai.chat.completions.with_streaming_response.create(**body)


@pytest.mark.parametrize("forced", ["", "gzip"])
def test_a_streamed_response_is_read_also_compressed(
    server: Server, client: Tallystick, openai: OpenAI, encoding: Provider, forced: str
) -> None:
    encoding.encoding = forced
    with client.run() as r, keep(openai) as kept:
        assert kept.headers.get("content-encoding", "") == forced, "plain is asked for"
        assert b"Tally" in kept.read()
    assert counts(usage_of(server, client, r.run_id)) == (INPUT, OUTPUT, CACHED)
    with client.run() as r:
        assert len(list(ask(openai, stream=True))) > len(PIECES)
    assert counts(usage_of(server, client, r.run_id)) == (INPUT, OUTPUT, CACHED)


@pytest.mark.parametrize("way", ["unknown", "left"])
def test_an_answer_that_nobody_reads_pays_the_output_that_was_set_aside(
    server: Server, client: Tallystick, openai: OpenAI, encoding: Provider, way: str
) -> None:
    encoding.encoding = "unheard-of" if way == "unknown" else ""
    with client.run() as r, keep(openai, max_tokens=77) as kept:
        if way == "unknown":
            kept.read()
    call = usage_of(server, client, r.run_id)
    assert (call["tokens_output"], call["usage_quality"]) == (77, "estimated")


def test_responses_and_embeddings(server: Server, client: Tallystick, openai: OpenAI) -> None:
    with client.run() as r:
        openai.responses.create(model="gpt-4o", input="hello")
    call = usage_of(server, client, r.run_id)
    assert counts(call) == (INPUT, OUTPUT, CACHED)
    assert call["tokens_reasoning"] == REASONING
    with client.run() as r:
        events = list(openai.responses.create(model="gpt-4o", input="hello", stream=True))
    assert events[-1].type == "response.completed"
    assert counts(usage_of(server, client, r.run_id)) == (INPUT, OUTPUT, CACHED)
    with client.run() as r:
        openai.embeddings.create(model="text-embedding-3-small", input="hello")
    assert counts(usage_of(server, client, r.run_id)) == (8, 0, 0)


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_background_response_is_refused_because_its_usage_comes_later(
    client: Tallystick, provider: Provider, openai: OpenAI, is_stream: bool
) -> None:
    seen = len(provider.seen)
    with client.run(), pytest.raises(InvalidInput) as caught:
        openai.responses.create(model="gpt-4o", input="hi", background=True, stream=is_stream)
    assert caught.value.code == "background_not_supported"
    assert len(provider.seen) == seen, "the provider was never asked"


def test_a_retry_is_a_call_of_its_own_and_a_refused_one_costs_nothing(
    server: Server, client: Tallystick, openai: OpenAI
) -> None:
    with client.run() as r:
        ask(openai, "once 500")
    assert counts(usage_of(server, client, r.run_id)) == (INPUT, OUTPUT, CACHED)
    with client.run() as r, pytest.raises(APIStatusError):
        ask(openai, "status 400")
    assert client.flush(10)
    assert story_of(server, r.run_id)["counts"]["events"] == 2
    held = server.get("/v1/accounts/acme/balance")["held"]
    assert held == "0", "nothing stays set aside"


def test_no_credit_is_a_refusal_before_the_call(
    server: Server, client: Tallystick, provider: Provider
) -> None:
    name = f"poor-{uuid.uuid4()}"
    server.client.put(f"/v1/accounts/{name}", json={"tenant_id": "acme"}).raise_for_status()
    settings = client.settings
    with (
        Tallystick(settings.url, settings.key, account_id=name, tenant_id="acme") as poor,
        OpenAI(base_url=f"{provider.url}/v1", api_key="none") as made,
    ):
        openai = instrument(made, tallystick=poor)
        seen = len(provider.seen)
        for asking in (openai, openai.with_options(timeout=5)):
            with poor.run(), pytest.raises(LimitReached) as caught:
                ask(asking)
            assert caught.value.code == "credit_exhausted"
            assert caught.value.decided_by
            why = server.get(f"/v1/refusals/{caught.value.operation_id}")
            assert (why["decided_by"], why["code"]) == (f"account:{name}", "credit_exhausted")
        assert len(provider.seen) == seen, "the provider was never asked"


def test_a_run_budget_binds_the_run_and_its_children(
    server: Server, client: Tallystick, openai: OpenAI
) -> None:
    def spend() -> None:
        for _ in range(20):
            with client.run(workflow="child"):
                ask(openai, "word " * 800, max_tokens=100)

    with client.run(budget="0.01") as root, pytest.raises(LimitReached) as caught:
        spend()
    assert Decimal(0) < root.cost_usd <= Decimal("0.01")
    assert "run" in caught.value.decided_by
    left = server.get(f"/v1/run-budgets/{root.run_id}", tenant_id="acme")["remaining"]
    assert Decimal(left) == Decimal("0.01") - root.cost_usd


def test_twice_instrumented_is_once(server: Server, client: Tallystick, openai: OpenAI) -> None:
    again = instrument(instrument(openai, tallystick=client), tallystick=client)
    assert again is openai
    with client.run() as r:
        ask(openai.with_options(max_retries=0).copy())
    usage_of(server, client, r.run_id)


def test_the_gateway_is_not_metered_twice(
    server: Server, client: Tallystick, provider: Provider
) -> None:
    with (
        OpenAI(base_url=f"{provider.url}/v1", api_key="none") as made,
        Tallystick(provider.url, "none", attribution={"team": "red"}) as gateway,
    ):
        with gateway.run(run_id="through-gateway"):
            ask(instrument(made, tallystick=gateway))
        headers = provider.headers[-1]
        assert headers["x-tallystick-run"] == "through-gateway"
        assert headers["x-tallystick-team"] == "red"
        gateway.sender.flush(0)
        provider_lost = gateway.counters()
        assert provider_lost["pending_records"] == 2, "the run alone"
        gateway.close(0)
    with OpenAI(base_url=f"{provider.url}/v1", api_key="none") as made:
        unknown_gateway = instrument(made, tallystick=client)
        provider.extra_headers = {"x-tallystick-hold": "h1"}
        try:
            with client.run() as r:
                ask(unknown_gateway)
        finally:
            provider.extra_headers = {}
    assert client.flush(10)
    assert story_of(server, r.run_id)["counts"]["events"] == 2


def test_clients_that_share_connections_are_metered_each_for_itself(
    server: Server, client: Tallystick, provider: Provider
) -> None:
    """One goes to the gateway, which meters by itself; the others are not free for that."""
    shared: Any = httpx.Client()
    with shared:
        through, direct, internal = (
            instrument(
                OpenAI(base_url=url, api_key="none", http_client=shared, max_retries=0),
                tallystick=client,
                provider=named,
            )
            for url, named in (
                (f"{url_of(server)}/openai/v1", ""),
                (f"{provider.url}/v1", ""),
                (f"{provider.url.replace('127.0.0.1', 'localhost')}/v1", "azure"),
            )
        )
        with client.run(), pytest.raises(AuthenticationError):
            ask(through)
        with client.run() as r:
            ask(direct)
        assert usage_of(server, client, r.run_id)["provider"] == "openai"
        with client.run() as r:
            ask(internal)
        assert usage_of(server, client, r.run_id)["provider"] == "azure"


def test_async_calls_streams_and_cancellation(
    server: Server, client: Tallystick, provider: Provider
) -> None:
    async def work() -> list[str]:
        async with AsyncOpenAI(base_url=f"{provider.url}/v1", api_key="none") as made:
            openai = instrument(made, tallystick=client)
            runs = []
            async with client.run() as r:
                await ask(openai)
            runs.append(r.run_id)
            async with client.run() as r:
                async for _ in await ask(openai, stream=True):
                    pass
            runs.append(r.run_id)

            async def leave() -> None:
                async for _ in await ask(openai, "long", stream=True):
                    await asyncio.sleep(60)

            async with client.run() as r:
                task = asyncio.create_task(leave())
                await asyncio.sleep(0.3)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            await client.async_transport.close()
            return [*runs, r.run_id]

    whole, streamed, left = asyncio.run(work())
    assert counts(usage_of(server, client, whole)) == (INPUT, OUTPUT, CACHED)
    assert counts(usage_of(server, client, streamed)) == (INPUT, OUTPUT, CACHED)
    assert usage_of(server, client, left)["usage_quality"] == "estimated"
