"""The one server that every attack goes to."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.security.scene import Scene, gateway_settings
from tests.server import Server
from tests.upstream.running import Upstream


@pytest.fixture(scope="session")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("security")
    upstream = Upstream()
    config = folder / "gateway.toml"
    config.write_text(gateway_settings(upstream))
    before = os.environ.get("TALLYSTICK_GATEWAY_CONFIG")
    os.environ["TALLYSTICK_GATEWAY_CONFIG"] = str(config)
    server = Server(folder / "data")
    try:
        made = Scene(server.start(), upstream, folder)
        made.wait_until_expired()
        yield made
        made.close()
        assert server.stop() == 0
    finally:
        if before is None:
            del os.environ["TALLYSTICK_GATEWAY_CONFIG"]
        else:
            os.environ["TALLYSTICK_GATEWAY_CONFIG"] = before
        upstream.stop()
