"""A metered call that is cancelled at any of its waits leaves no hold and no free answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import openai
import pytest

from tallystick.sdk import AsyncTallystick
from tests.cancelling import cancelled_at
from tests.sdk.provider import Provider
from tests.sdk.serving import key_of, url_of
from tests.server import Server

Step = Callable[[openai.AsyncOpenAI, str], Coroutine[Any, Any, None]]


async def whole(client: openai.AsyncOpenAI, text: str) -> None:
    await client.chat.completions.create(
        model="gpt-4o", max_tokens=50, messages=[{"role": "user", "content": text}]
    )


async def streamed(client: openai.AsyncOpenAI, text: str) -> None:
    answer = await client.chat.completions.create(
        model="gpt-4o",
        max_tokens=50,
        stream=True,
        messages=[{"role": "user", "content": text}],
    )
    async with answer:
        async for _ in answer:
            pass


@pytest.mark.parametrize("step", [whole, streamed])
def test_a_call_that_is_cancelled_anywhere_is_ended(
    server: Server, provider: Provider, tmp_path: Path, step: Step
) -> None:
    name = step.__name__
    account = f"cancelled-{name}"
    body = {"tenant_id": account}
    server.client.put(f"/v1/accounts/{account}", json=body).raise_for_status()
    grant = {"account_id": account, "amount": "1000", "idempotency_key": account}
    server.client.post("/v1/grants", json=grant).raise_for_status()

    async def every_wait() -> int:
        async with AsyncTallystick(
            url_of(server),
            key_of(server),
            account_id=account,
            tenant_id=account,
            spool=tmp_path / "spool",
        ) as tallystick:
            at = -1
            is_cancelled = True
            while is_cancelled:
                at += 1
                async with openai.AsyncOpenAI(
                    base_url=f"{provider.url}/v1", api_key="k", max_retries=0
                ) as client:
                    tallystick.instrument(client)
                    async with tallystick.run(run_id=f"{name}-{at}"):
                        is_cancelled = await cancelled_at(step(client, f"{name} {at}"), at)
            assert await tallystick.aflush(20)
            counters = tallystick.counters()
            assert counters["refused"] == counters["lost"] == 0
            return at

    last = asyncio.run(every_wait())
    assert last > 5
    _wait_until_free(server, account)
    server.wait_until_settled()
    reached = {at for at in range(last + 1) if _was_asked(provider, f"{name} {at}")}
    counted = [_usages(server, account, f"{name}-{at}") for at in range(last + 1)]
    assert set(counted) <= {0, 1}
    assert reached <= {at for at, count in enumerate(counted) if count}
    assert counted[0] == 0 and last in reached


def _was_asked(provider: Provider, text: str) -> bool:
    return any(body["messages"][-1]["content"] == text for body in provider.seen)


def _usages(server: Server, tenant: str, run_id: str) -> int:
    story: dict[str, Any] = server.get(f"/v1/runs/{run_id}", tenant_id=tenant)
    return sum(1 for one in story["timeline"] if one["event_type"] == "token_usage")


def _wait_until_free(server: Server, account: str) -> None:
    deadline = time.monotonic() + 30
    while (held := server.get(f"/v1/accounts/{account}/balance")["held"]) != "0":
        assert time.monotonic() < deadline, f"{held} is still held"
        time.sleep(0.05)
