"""kill -9 under load: what the upstream billed for settled calls is what was charged."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.acceptance.byte_search import ByteSearch
from tests.gateway.conftest import SETTINGS
from tests.gateway.place import Place, ask
from tests.server import Server
from tests.upstream.running import Upstream

CANARY = "canary-7f3a91-of-the-prompt"
WORKERS = 6
PRICE = {"input": 2_500, "cached": 1_250, "output": 10_000}
"""gpt-4o, nano-dollars a token."""


@pytest.fixture
def own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    upstream = Upstream()
    config = tmp_path / "gateway.toml"
    config.write_text(SETTINGS.format(url=upstream.url))
    monkeypatch.setenv("TALLYSTICK_GATEWAY_CONFIG", str(config))
    server = Server(tmp_path / "data")
    made = Place(server.start(), upstream, tmp_path)
    yield made
    made.close()
    server.stop()
    upstream.stop()


def drive(place: Place, number: int, stop: threading.Event) -> None:
    """Calls of all kinds until told to stop; failures are what a killed server gives."""
    count = 0
    headers = {"Authorization": f"Bearer {place.key}", **place.headers()}
    with httpx.Client(base_url=place.url, headers=headers, timeout=10) as client:
        while not stop.is_set():
            count += 1
            mark = f"#normal in={100 + count} out={5 + number} cached={count % 50}# {CANARY}"
            body = {"model": "gpt-4o", "messages": ask(mark), "stream": count % 3 == 0}
            try:
                client.post("/openai/v1/chat/completions", json=body)
            except httpx.HTTPError:
                return


def cost_of(billed: dict[str, Any]) -> int:
    fresh = billed["tokens_input"] - billed["tokens_cached"]
    return int(
        fresh * PRICE["input"]
        + billed["tokens_cached"] * PRICE["cached"]
        + billed["tokens_output"] * PRICE["output"]
    )


def test_no_call_is_charged_twice_or_finished_free(own_place: Place) -> None:
    place = own_place
    for _ in range(2):
        stop = threading.Event()
        threads = [
            threading.Thread(target=drive, args=(place, number, stop)) for number in range(WORKERS)
        ]
        for thread in threads:
            thread.start()
        time.sleep(2.0)
        place.server.kill()
        stop.set()
        for thread in threads:
            thread.join()
        place.server.start()
        place.url = str(place.server.client.base_url).rstrip("/")
    place.server.wait_until_settled()
    check_books(place)
    place.server.stop()
    check_no_content(place.folder)
    place.server.start()


def check_books(place: Place) -> None:
    """Both books, call by call and in all; what has no event has a hold."""
    truth = {one["request_id"]: one for one in place.upstream.truth() if one["status"] == 200}
    runs = all_runs(place)
    billed_nanos = charged_nanos = unsettled = 0
    for request_id, billed in truth.items():
        run = runs.get(request_id)
        if run is None:
            unsettled += 1
            continue
        assert run["calls"] == 1
        billed_nanos += cost_of(billed)
        charged_nanos += nanos(run["cost_usd"])
    assert billed_nanos == charged_nanos
    assert len(truth) > 20
    assert set(runs) <= set(truth), "a charge without a call"
    held = place.server.get("/v1/accounts/acme/balance")["held"]
    assert unsettled <= 2 * WORKERS and bool(unsettled) <= bool(float(held))


def nanos(text: str) -> int:
    whole, _, part = text.partition(".")
    return int(whole) * 10**9 + int(part.ljust(9, "0"))


def all_runs(place: Place) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    cursor: str | None = ""
    while cursor is not None:
        query = {"tenant_id": "acme", "limit": 500, **({"cursor": cursor} if cursor else {})}
        page = place.server.get("/v1/runs", **query)
        found.update({run["run_id"]: run for run in page["runs"]})
        cursor = page["next_cursor"]
    return found


def check_no_content(folder: Path) -> None:
    """Not a byte of prompt or answer in any file, logs included."""
    search = ByteSearch([CANARY.encode(), b"tally tally tally", b"sk-upstream-secret"])
    for path in (folder / "data").rglob("*"):
        if path.is_file() and not os.path.islink(path):
            assert not list(search.find(path.read_bytes())), path
