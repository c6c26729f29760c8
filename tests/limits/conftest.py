"""One server with a gateway, and the scripted upstream behind it, for all tests of limits."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import count

import pytest

from tests.limits.scene import SETTINGS, Scene, Tenant
from tests.server import Server
from tests.upstream.running import Upstream

_serial = count()


@pytest.fixture(scope="session")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("limits")
    upstream = Upstream()
    config = folder / "gateway.toml"
    config.write_text(SETTINGS.format(url=upstream.url))
    server = Server(folder / "data")
    before = os.environ.get("TALLYSTICK_GATEWAY_CONFIG")
    os.environ["TALLYSTICK_GATEWAY_CONFIG"] = str(config)
    try:
        yield Scene(server.start(), upstream)
    finally:
        if before is None:
            del os.environ["TALLYSTICK_GATEWAY_CONFIG"]
        server.stop()
        upstream.stop()


@pytest.fixture
def tenant(scene: Scene) -> Tenant:
    """A tenant of its own, with credit and a key."""
    return Tenant(scene, f"joined-{next(_serial)}")
