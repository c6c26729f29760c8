"""Tallystick goes away and comes back; the application is killed: totals are exact."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from openai import OpenAI

from tallystick.sdk import Tallystick, Unreachable, instrument
from tallystick.sdk.context import Place
from tallystick.sdk.metering.bodies import read_request
from tallystick.sdk.metering.call import Call, Ending
from tallystick.usage import Usage
from tests.sdk.provider import INPUT, OUTPUT, Provider
from tests.sdk.serving import key_of, story_of
from tests.sdk.test_openai import ask
from tests.server import Server

_APPLICATION = """
import sys
from tallystick.sdk import Tallystick
url, key, spool = sys.argv[1:]
client = Tallystick(url, key, tenant_id="acme", spool=spool, timeout_seconds=1)
index = 0
with client.run(run_id="killed", workflow="victim"):
    while True:
        name = f"killed-{index}"
        client.usage(provider="openai", model="gpt-4o", tokens_input=1, event_id=name)
        print(index, flush=True)
        index += 1
"""


class FixedServer(Server):
    """A server that comes back under the address which it had."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def kill_all(self) -> None:
        psutil.wait_procs(self.kill(), timeout=30)


@pytest.fixture(scope="module")
def weak(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FixedServer]:
    running = FixedServer(tmp_path_factory.mktemp("weak") / "data")
    running.start()
    running.client.put("/v1/accounts/acme", json={"tenant_id": "acme"}).raise_for_status()
    grant = {"account_id": "acme", "amount": "1000", "idempotency_key": "g"}
    running.client.post("/v1/grants", json=grant).raise_for_status()
    yield running
    running.stop()


def test_an_outage_and_a_killed_application_lose_and_double_nothing(
    weak: FixedServer, provider: Provider, tmp_path: Path
) -> None:
    key = key_of(weak)
    settings: dict[str, Any] = {"account_id": "acme", "tenant_id": "acme"}
    settings |= {"spool": tmp_path, "timeout_seconds": 5}
    victim = subprocess.Popen(
        [sys.executable, "-c", _APPLICATION, weak.url, key, str(tmp_path)], stdout=subprocess.PIPE
    )
    assert victim.stdout is not None
    for _ in range(300):
        victim.stdout.readline()
    with (
        OpenAI(base_url=f"{provider.url}/v1", api_key="none") as made,
        Tallystick(weak.url, key, **settings) as client,
        client.run(run_id="outage"),
    ):
        openai = instrument(made, tallystick=client)
        ask(openai)
        stream = ask(openai, stream=True)  # authorized before the outage, settled in it
        weak.kill_all()
        list(stream)
        for _ in range(3):
            ask(openai)  # neither authorized nor settled: charged later
        for _ in range(300):
            victim.stdout.readline()
        victim.send_signal(signal.SIGKILL)
        told = victim.communicate()[0].split(b"\n")
        last = max([int(one) for one in told[:-1]], default=599)
        assert client.counters()["pending_records"] >= 4
        weak.start()
        assert client.flush(30)
    deadline = time.monotonic() + 30
    with Tallystick(weak.url, key, **settings) as heir:  # adopts what the dead left
        while list(tmp_path.glob("[!.]*/*.seg")) and time.monotonic() < deadline:
            heir.flush(1)
            if heir.counters()["adopted"] and heir.flush(10):
                break
            time.sleep(0.05)
    story = story_of(weak, "outage")
    calls = [one for one in story["timeline"] if one["event_type"] == "token_usage"]
    assert [one["tokens_input"] for one in calls] == [INPUT] * 5
    assert sum(one["tokens_output"] for one in calls) == OUTPUT * 5
    assert story["charge"]["charged"] == "1.272", "five calls at 0.2544 credits, each once"
    (row,) = weak.get("/v1/stats", tenant_id="acme", workflow="victim")["rows"]
    killed_calls = row["calls"]
    assert killed_calls in (last + 1, last + 2), "one may be taken and not yet told"
    assert weak.get("/v1/accounts/acme/balance")["held"] == "0"


def test_refuse_makes_no_call_without_leave(provider: Provider) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        client = Tallystick(url, "none", on_unreachable="refuse")
        seen = len(provider.seen)
        with OpenAI(base_url=f"{provider.url}/v1", api_key="none") as made:
            openai = instrument(made, tallystick=client)
            with pytest.raises(Unreachable):
                ask(openai)
        assert len(provider.seen) == seen
        client.close(0)


def test_what_is_charged_later_falls_under_the_same_budgets() -> None:
    """The model that was asked for, whatever the provider calls it, and the organization."""
    with Tallystick("http://127.0.0.1:9", "none") as client:
        settings = client.settings
    request = read_request("POST", "/v1/chat/completions", b'{"model":"gpt-4o","messages":[]}')
    assert request is not None
    place = Place(attribution={"org": "north", "team": "search"})
    call = Call(request, place, settings, provider="openai", call_id="c", began_at=0)
    call.go_on_unmetered()
    ending = Ending(Usage(tokens_input=1), served_model="gpt-4o-2024-08-06")
    event = call.settle(ending).content
    assert (event["model"], event["served_model"]) == ("gpt-4o", "gpt-4o-2024-08-06")
    assert (event["team"], event["attrs"]) == ("search", {"tallystick_org": "north"})
