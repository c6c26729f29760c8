"""A mail server that accepts no login and, as bad servers do, repeats the password it was given."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword


class TalkativeMailServer:
    """What came to it; nothing that it keeps is stored by the server under attack."""

    def __init__(self) -> None:
        self.passwords: list[bytes] = []

    def refuse(self, server: Any, session: Any, envelope: Any, way: str, said: Any) -> AuthResult:
        """Answer every login with its password."""
        assert isinstance(said, LoginPassword)
        self.passwords.append(said.password)
        message = f"535 5.7.8 {said.password.decode()} is not the password"
        return AuthResult(success=False, handled=False, message=message)


@contextmanager
def talkative_mail_server(port: int) -> Iterator[TalkativeMailServer]:
    """Serve on a port of loopback while the body runs."""
    server = TalkativeMailServer()
    controller = Controller(
        server,
        hostname="127.0.0.1",
        port=port,
        authenticator=server.refuse,
        auth_require_tls=False,
    )
    controller.start()
    try:
        yield server
    finally:
        controller.stop()
