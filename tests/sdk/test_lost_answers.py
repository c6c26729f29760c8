"""Answers of Tallystick that get lost: nothing is charged twice, nothing stays held."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import pytest
from openai import AsyncOpenAI, OpenAI

from tallystick.sdk import Tallystick, Unreachable, instrument
from tallystick.sdk.context import RunFrame
from tallystick.sdk.transport import Answer, AsyncHttpTransport, HttpTransport
from tests.sdk.provider import INPUT, Provider
from tests.sdk.serving import story_of, usage_of
from tests.sdk.test_openai import ask
from tests.server import Server


class Lossy(HttpTransport):
    """Posts for real; the first answer to a path that ends so is lost."""

    losing = ""

    def post(self, path: str, body: bytes) -> Answer:
        answer = super().post(path, body)
        if self.losing and path.endswith(self.losing):
            self.losing = ""
            raise Unreachable("lost", may_have_arrived=True)
        return answer


class AsyncLossy(AsyncHttpTransport):
    """The same for coroutines; `stalls` never returns, so that the caller can be cancelled."""

    stalls = ""

    async def post(self, path: str, body: bytes) -> Answer:
        answer = await super().post(path, body)
        if self.stalls and path.endswith(self.stalls):
            await asyncio.sleep(60)
        return answer


@pytest.mark.parametrize("path", ["/authorizations", "/settle"])
def test_a_lost_answer_is_one_charge(
    server: Server, client: Tallystick, provider: Provider, path: str
) -> None:
    settings = client.settings
    lossy = client.transport = Lossy(settings.url, settings.key, 5)
    with OpenAI(base_url=f"{provider.url}/v1", api_key="none") as made:
        openai = instrument(made, tallystick=client)
        with client.run() as r:
            lossy.losing = path
            ask(openai)
    assert usage_of(server, client, r.run_id)["tokens_input"] == INPUT
    assert client.counters()["refused"] == 0
    assert story_of(server, r.run_id)["charge"]["charged"] == "0.2544"
    assert server.get("/v1/accounts/acme/balance")["held"] == "0"


def test_a_lost_cancellation_frees_the_hold(
    server: Server, client: Tallystick, provider: Provider
) -> None:
    settings = client.settings
    lossy = client.transport = Lossy(settings.url, settings.key, 5)
    with OpenAI(base_url=f"{provider.url}/v1", api_key="none", max_retries=0) as made:
        openai = instrument(made, tallystick=client)
        lossy.losing = "/cancel"
        with pytest.raises(Exception, match="scripted"):
            ask(openai, "status 500")
    assert client.flush(10)
    assert client.counters()["refused"] == 0
    assert server.get("/v1/accounts/acme/balance")["held"] == "0"


@pytest.mark.parametrize("path", ["/authorizations", "/settle"])
def test_a_task_that_is_cancelled_while_it_waits_for_us(
    server: Server, client: Tallystick, provider: Provider, path: str
) -> None:
    async def work() -> str:
        settings = client.settings
        lossy = client.async_transport = AsyncLossy(settings.url, settings.key, 5)
        async with AsyncOpenAI(base_url=f"{provider.url}/v1", api_key="none") as made:
            openai = instrument(made, tallystick=client)
            lossy.stalls = path
            async with client.run() as r:
                task = asyncio.create_task(ask(openai))
                await asyncio.sleep(0.5)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            await lossy.close()
            return str(r.run_id)

    run_id = asyncio.run(work())
    assert client.flush(10)
    assert client.counters()["refused"] == 0
    calls = 0 if path == "/authorizations" else 1
    assert story_of(server, run_id)["counts"]["events"] == 2 + calls
    assert server.get("/v1/accounts/acme/balance")["held"] == "0"


def test_budgets_of_runs_in_this_process() -> None:
    root = RunFrame("root", budget_usd=Decimal(1))
    child = RunFrame("child", root, budget_usd=Decimal("0.6"))
    assert child.try_hold(Decimal("0.5")) is None
    assert child.try_hold(Decimal("0.2")) is child
    assert root.try_hold(Decimal("0.6")) is root
    child.settle(Decimal("0.5"), Decimal("0.1"))
    assert (root.spent_usd, root.held_usd) == (Decimal("0.1"), Decimal(0))
    assert root.try_hold(Decimal("0.9")) is None
    assert root.try_hold(Decimal(0)) is root, "nothing is left: no call, whatever it costs"
