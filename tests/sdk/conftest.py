"""One real server for the tests of the SDK that need one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tallystick.sdk import Tallystick
from tests.sdk.provider import Provider
from tests.sdk.serving import key_of, url_of
from tests.server import Server


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("sdk") / "data").start()
    running.client.put("/v1/accounts/acme", json={"tenant_id": "acme"}).raise_for_status()
    grant = {"account_id": "acme", "amount": "1000", "idempotency_key": "g"}
    running.client.post("/v1/grants", json=grant).raise_for_status()
    yield running
    running.stop()


@pytest.fixture
def client(server: Server, tmp_path: Path) -> Iterator[Tallystick]:
    with Tallystick(
        url_of(server),
        key_of(server),
        account_id="acme",
        tenant_id="acme",
        spool=tmp_path / "spool",
    ) as made:
        yield made


@pytest.fixture(scope="package")
def provider() -> Iterator[Provider]:
    running = Provider().start()
    yield running
    running.stop()
