"""AWS on the wire: signatures (SigV4) and event-stream frames, both by botocore.

botocore is loaded when a Bedrock upstream is used (extra `bedrock`). A Bedrock API key
needs no signature; without one, requests are signed with the credentials that AWS's own
chain finds (environment, profile, role of the machine or pod), which renews them itself.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple

from tallystick.gateway.model import UpstreamFailed

if TYPE_CHECKING:
    from collections.abc import Iterator

_SERVICE = "bedrock"


class Frame(NamedTuple):
    """One message of an event stream."""

    kind: str
    """The event's type, or the exception's."""
    is_failure: bool
    payload: bytes


class FrameSplitter:
    """Cuts frames out of a byte stream that may be split anywhere."""

    def __init__(self) -> None:
        from botocore.eventstream import EventStreamBuffer

        self._buffer = EventStreamBuffer()

    def feed(self, piece: bytes) -> Iterator[Frame]:
        """Yield the frames that end within this piece; UpstreamFailed for a broken one."""
        from botocore.eventstream import ParserError

        self._buffer.add_data(piece)
        try:
            for message in self._buffer:
                headers = message.headers
                kind = headers.get(":event-type")
                failed = headers.get(":exception-type") or headers.get(":error-code")
                yield Frame(str(failed or kind or ""), failed is not None, message.payload)
        except (ParserError, ValueError) as error:
            raise UpstreamFailed(
                "the upstream's stream is corrupt", code="upstream_corrupt", is_sent=True
            ) from error


class Signer:
    """Signs requests with the credentials of AWS's own chain, found once and kept fresh."""

    def __init__(self) -> None:
        self._credentials: Any = None

    async def sign(self, url: str, body: bytes, region: str) -> dict[str, str]:
        """Headers that sign a POST of this body; raises UpstreamFailed without credentials."""
        return await asyncio.to_thread(self._sign, url, body, region)

    def _sign(self, url: str, body: bytes, region: str) -> dict[str, str]:
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest

        request = AWSRequest("POST", url, {"Content-Type": "application/json"}, body)
        SigV4Auth(self._found(), _SERVICE, region).add_auth(request)
        return dict(request.headers.items())

    def _found(self) -> Any:
        """Credentials as they are now; looking them up and renewing them waits."""
        import botocore.session
        from botocore.exceptions import BotoCoreError

        try:
            if self._credentials is None:
                self._credentials = botocore.session.Session().get_credentials()
            if self._credentials is not None:
                return self._credentials.get_frozen_credentials()
        except BotoCoreError as error:
            raise _no_credentials() from error
        raise _no_credentials()


def _no_credentials() -> UpstreamFailed:
    return UpstreamFailed(
        "the server has no AWS credentials for this upstream",
        code="upstream_key_missing",
        is_sent=False,
    )
