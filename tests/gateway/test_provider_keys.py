"""Provider keys that are kept sealed: told once, used by every process, never shown again."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Any

import httpx
import psycopg
import pytest
from psycopg_pool import ConnectionPool

from tallystick.clock import SystemClock
from tallystick.errors import InvalidInput, NotFound
from tallystick.gateway.keys import KeyRing, ProviderKeys
from tallystick.gateway.model import UpstreamFailed
from tallystick.gateway.settings import Upstream
from tallystick.plumbing.postgres import open_pool
from tests.gateway.place import Place, ask

KEY = "sk-kept-secret-of-everybody-1a2b"
OWN = "sk-kept-secret-of-acme-alone-3c4d"


@pytest.fixture
def pool(postgres_url: str) -> Any:
    opened = open_pool(postgres_url, connections_max=2)
    yield opened
    opened.close()


def test_a_tenants_own_key_comes_first_and_each_change_is_seen(pool: ConnectionPool) -> None:
    keys = ProviderKeys(pool, "secret", SystemClock())
    here, elsewhere = KeyRing(keys), KeyRing(ProviderKeys(pool, "secret", SystemClock()))
    upstream = Upstream("openai", name="openai", api_key="sk-of-the-settings")
    here.refresh()
    assert here.keyed(upstream, "acme").api_key == "sk-of-the-settings"
    keys.put("", "openai", KEY, "operator")
    keys.put("acme", "openai", OWN, "key_1")
    for ring in (here, elsewhere):
        ring.refresh()
        assert ring.keyed(upstream, "acme").api_key == OWN
        assert ring.keyed(upstream, "globex").api_key == KEY
    keys.put("acme", "openai", OWN + "-rotated", "key_1")
    elsewhere.refresh()
    assert elsewhere.keyed(upstream, "acme").api_key == OWN + "-rotated"
    keys.delete("acme", "openai")
    elsewhere.refresh()
    assert elsewhere.keyed(upstream, "acme").api_key == KEY
    with pytest.raises(NotFound):
        keys.delete("acme", "openai")


def test_who_has_the_database_alone_has_no_key(pool: ConnectionPool, postgres_url: str) -> None:
    keys = ProviderKeys(pool, "secret", SystemClock())
    keys.put("acme", "anthropic", OWN, "key_1")
    keys.put("globex", "anthropic", KEY, "key_2")
    with psycopg.connect(postgres_url) as connection:
        rows = connection.execute("SELECT * FROM gateway.provider_key").fetchall()
        assert not any(OWN.encode() in repr(row).encode() or OWN in repr(row) for row in rows)
        # moved to another tenant, a sealed key does not open
        connection.execute(
            "UPDATE gateway.provider_key SET sealed = (SELECT sealed FROM gateway.provider_key"
            " WHERE tenant_id = 'acme' AND upstream = 'anthropic') WHERE tenant_id = 'globex'"
        )
    ring = KeyRing(keys)
    ring.refresh()
    upstream = Upstream("anthropic", name="anthropic", api_key="sk-of-the-settings")
    assert ring.keyed(upstream, "acme").api_key == OWN
    with pytest.raises(UpstreamFailed, match="set it again"):
        ring.keyed(upstream, "globex")
    for bad in ("short", "has a space in it", "line\nbreak-injected", "ünïcode-key"):
        with pytest.raises(InvalidInput) as refused:
            keys.put("", "openai", bad, "operator")
        assert bad not in refused.value.message


def test_a_kept_key_is_used_within_seconds_and_never_answered(place: Place) -> None:
    client = place.server.client
    body = {"model": "keyless", "messages": ask("#normal in=9 out=3#")}
    headers = {"Authorization": f"Bearer {place.key}", **place.headers()}

    def call() -> httpx.Response:
        url = place.url + "/openai/v1/chat/completions"
        return httpx.post(url, json=body, headers=headers, timeout=30)

    assert call().json()["error"]["code"] == "upstream_key_refused"
    made = client.put("/v1/provider-keys/keyless", json={"key": KEY})
    assert made.status_code == 200 and made.json()["last_four"] == "1a2b"
    wait_for(lambda: call().status_code == 200)
    admin = {"name": "theirs", "tenant_id": "acme", "roles": ["admin"]}
    theirs = client.post("/v1/api-keys", json=admin).json()["key"]
    told = httpx.put(
        place.url + "/v1/provider-keys/keyless",
        json={"key": OWN},
        headers={"Authorization": f"Bearer {theirs}"},
        timeout=30,
    )
    assert told.json()["tenant_id"] == "acme"
    wait_for(lambda: upstream_saw(place) == f"Bearer {OWN}" or not call())
    listed = client.get("/v1/provider-keys")
    assert {one["tenant_id"] for one in listed.json()["provider_keys"]} == {"", "acme"}
    refused = client.put("/v1/provider-keys/keyless", json={"key": f"{KEY} with spaces"})
    assert refused.status_code == 400
    for answer in (made, told, listed, refused, client.get("/v1/audit")):
        assert KEY not in answer.text and OWN not in answer.text
    client.delete("/v1/provider-keys/keyless", params={"tenant_id": "acme"}).raise_for_status()
    client.delete("/v1/provider-keys/keyless").raise_for_status()
    wait_for(lambda: call().status_code == 502)
    routes = [one["route"] for one in client.get("/v1/audit").json()["records"]]
    assert "/v1/provider-keys/{upstream}" in routes


def test_the_command_line_reads_the_key_from_its_input(place: Place) -> None:
    def run(*arguments: str, text: str = "") -> str:
        command = [sys.executable, "-m", "tallystick.cli.main", "provider-key", *arguments]
        folder = ["--data", str(place.folder / "data")]
        done = subprocess.run(
            command + folder, input=text, capture_output=True, text=True, check=True, timeout=60
        )
        assert KEY not in done.stdout + done.stderr
        return done.stdout

    assert "1a2b" in run("set", "spare", text=KEY + "\n")
    assert "spare" in run("list")
    run("remove", "spare")
    assert "spare" not in run("list")


def upstream_saw(place: Place) -> str:
    """The key of the newest request."""
    return str(place.upstream.truth()[-1]["key"])


def wait_for(is_so: Any) -> None:
    deadline = time.monotonic() + 15
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.1)
