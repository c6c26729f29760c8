"""The one server that every attack goes to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.alerts.receivers import free_port
from tests.security.mail_server import TalkativeMailServer, talkative_mail_server
from tests.security.scene import MAIL_PASSWORD, Scene, gateway_settings
from tests.server import Server
from tests.upstream.running import Upstream


@pytest.fixture(scope="package")
def mail_port() -> int:
    return free_port()


@pytest.fixture
def mail_server(mail_port: int) -> Iterator[TalkativeMailServer]:
    with talkative_mail_server(mail_port) as server:
        yield server


@pytest.fixture(scope="package")
def scene(tmp_path_factory: pytest.TempPathFactory, mail_port: int) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("security")
    upstream = Upstream()
    config = folder / "gateway.toml"
    config.write_text(gateway_settings(upstream))
    server = Server(folder / "data")
    try:
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("TALLYSTICK_GATEWAY_CONFIG", str(config))
            mail_url = f"smtp://alerts:{MAIL_PASSWORD}@127.0.0.1:{mail_port}"
            environment.setenv("TALLYSTICK_SMTP_URL", mail_url)
            server.start()
        made = Scene(server, upstream, folder)
        made.wait_until_expired()
        yield made
        made.close()
        assert server.stop() == 0
    finally:
        upstream.stop()
