"""HTTP to Tallystick: one post, one answer; the same reading for both shells.

`HttpTransport` blocks; `AsyncHttpTransport` keeps one connection pool for each event loop,
because connections belong to the loop that opened them. httpx is imported with the first
request: an application that only marks runs does not pay for it at start.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from tallystick.errors import TallystickError
from tallystick.sdk.errors import LimitReached, Unreachable

if TYPE_CHECKING:
    import asyncio

    import httpx

_SERVER_IS_AWAY = frozenset({408, 425, 500, 502, 503, 504})


class Answer(NamedTuple):
    """What the server said."""

    status: int
    content: dict[str, Any]
    retry_after_seconds: float = 0.0


def read_answer(status: int, headers: Mapping[str, str], body: bytes) -> Answer:
    """Read an answer; Unreachable when it says that the server cannot answer now."""
    wait = headers.get("retry-after", "")
    seconds = min(int(wait), 3600) if wait.isascii() and wait.isdigit() else 0
    if status in _SERVER_IS_AWAY:
        raise Unreachable(
            "the server cannot answer now", may_have_arrived=True, retry_after_seconds=seconds
        )
    try:
        content = msgspec.json.decode(body)
    except msgspec.DecodeError:
        content = {}
    return Answer(status, content if isinstance(content, dict) else {}, seconds)


def check_answer(answer: Answer) -> dict[str, Any]:
    """Return the content of a success; LimitReached or TallystickError for a refusal."""
    if answer.status < 300:
        return answer.content
    detail = str(answer.content.get("detail", f"the server answered {answer.status}"))
    code = str(answer.content.get("code", "http_error"))
    if answer.status in (402, 429):
        raise LimitReached(
            detail,
            code=code,
            decided_by=str(answer.content.get("decided_by") or ""),
            retry=str(answer.content.get("retry") or _retry_of(answer)),
            available=str(answer.content.get("available") or ""),
            retry_after_seconds=answer.retry_after_seconds,
            operation_id=str(answer.content.get("operation_id") or ""),
        )
    raise TallystickError(detail, code=code)


def _retry_of(answer: Answer) -> str:
    return "wait" if answer.status == 429 else "never"


def _client_options(url: str, key: str, timeout_seconds: float) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    # trust_env False: a proxy meant for the provider must not see the key of Tallystick
    return {"base_url": url, "headers": headers, "timeout": timeout_seconds, "trust_env": False}


def _unreachable(error: Exception) -> Unreachable:
    import httpx

    was_not_sent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
    return Unreachable("the server cannot be reached", may_have_arrived=not was_not_sent)


_opening = threading.Lock()
"""Held while a client is made, and by a fork: OpenSSL has locks of its own, and one that a thread
holds in the moment of a fork is held in the child for ever, which then waits for it for ever."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_opening.acquire,
        after_in_parent=_opening.release,
        after_in_child=_opening.release,
    )


class HttpTransport:
    """Posts and waits; safe to use from many threads."""

    def __init__(self, url: str, key: str, timeout_seconds: float) -> None:
        self._options = _client_options(url, key, timeout_seconds)
        self._lock = threading.Lock()
        self._client: httpx.Client | None = None

    def post(self, path: str, body: bytes) -> Answer:
        """Post JSON; Unreachable when there is no answer."""
        client = self._client or self._open()
        import httpx

        try:
            found = client.post(path, content=body)
        except httpx.HTTPError as error:
            raise _unreachable(error) from None
        return read_answer(found.status_code, found.headers, found.content)

    def _open(self) -> httpx.Client:
        import httpx

        with self._lock, _opening:
            if self._client is None:
                self._client = httpx.Client(**self._options)
            return self._client

    def close(self) -> None:
        """Close the connections."""
        with self._lock:
            if self._client is not None:
                self._client.close()
                self._client = None


class AsyncHttpTransport:
    """Posts from coroutines; one pool of connections for each event loop."""

    def __init__(self, url: str, key: str, timeout_seconds: float) -> None:
        self._options = _client_options(url, key, timeout_seconds)
        self._clients: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, httpx.AsyncClient] = (
            weakref.WeakKeyDictionary()
        )

    async def post(self, path: str, body: bytes) -> Answer:
        """Post JSON; Unreachable when there is no answer."""
        import asyncio

        import httpx

        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is None:
            with _opening:
                client = self._clients[loop] = httpx.AsyncClient(**self._options)
        try:
            found = await client.post(path, content=body)
        except httpx.HTTPError as error:
            raise _unreachable(error) from None
        return read_answer(found.status_code, found.headers, found.content)

    async def close(self) -> None:
        """Close the connections of this event loop."""
        import asyncio

        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.aclose()
