"""Calls to upstreams: keys are added here, addresses come from the settings alone.

Redirects are not followed: a key never goes where the settings did not send it. Nothing of a
request or an answer is logged. aiohttp was chosen by measurement
(`benchmarks/http_clients.py`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from urllib.parse import quote

import aiohttp
from yarl import URL

from tallystick.gateway.model import UpstreamFailed
from tallystick.gateway.settings import Upstream

ANSWER_BYTES_MAX = 128 * 1024 * 1024
"""A whole answer: pictures and embeddings have tens of MiB."""

_KEEPALIVE_SECONDS = 60.0
_PLAINLY = {"Accept-Encoding": "identity"}
"""Answers are read as they pass; what is compressed all the same is passed on plain."""


class Answer:
    """An upstream's answer, its body yet to be read."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.status = response.status
        self.headers = response.headers
        self.partial_bytes = 0
        """What had come of a body that broke off."""

    async def read(self) -> bytes:
        """The whole body; raises UpstreamFailed when it breaks off or is too large."""
        try:
            pieces = []
            async for piece in self._response.content.iter_any():
                pieces.append(piece)
                self.partial_bytes += len(piece)
                if self.partial_bytes > ANSWER_BYTES_MAX:
                    raise UpstreamFailed(
                        "the answer is too large", code="upstream_too_large", is_sent=True
                    )
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _failure(error, is_sent=True) from error
        finally:
            self._response.release()

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body as it comes; raises UpstreamFailed when it breaks off."""
        try:
            async for piece in self._response.content.iter_any():
                yield piece
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _failure(error, is_sent=True) from error

    def close(self) -> None:
        """Stop reading; the upstream sees its reader go away unless all was read."""
        self._response.close()


class Outbound:
    """Connections to upstreams; made within the event loop that uses them."""

    def __init__(self) -> None:
        self._sessions: dict[str, aiohttp.ClientSession] = {}
        self._urls: dict[tuple[str, str], URL] = {}

    async def send(
        self,
        upstream: Upstream,
        path: str,
        body: bytes,
        headers: Mapping[str, str],
        *,
        model: str = "",
        method: str = "POST",
    ) -> Answer:
        """Send a request; return once the answer's head is there; raises UpstreamFailed."""
        session = self._sessions.get(upstream.name) or self._open(upstream)
        started = time.perf_counter()
        try:
            response = await session.request(
                method,
                self._url(upstream, path, model),
                data=body or None,
                headers={**_PLAINLY, **headers, **_key_headers(upstream)},
                allow_redirects=False,
            )
        except aiohttp.ClientConnectorError as error:
            raise _failure(error, is_sent=False) from error
        except aiohttp.ConnectionTimeoutError as error:
            if time.perf_counter() - started >= _wait_seconds(upstream):
                raise _no_connection() from error
            raise _failure(error, is_sent=False) from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _failure(error, is_sent=True) from error
        return Answer(response)

    async def close(self) -> None:
        """Close every connection."""
        for session in self._sessions.values():
            await session.close()
        self._sessions.clear()
        await asyncio.sleep(0)

    def _open(self, upstream: Upstream) -> aiohttp.ClientSession:
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=upstream.connections_max, keepalive_timeout=_KEEPALIVE_SECONDS
            ),
            timeout=aiohttp.ClientTimeout(
                total=None,
                connect=_wait_seconds(upstream),
                sock_connect=upstream.connect_seconds,
                sock_read=upstream.first_byte_seconds,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("User-Agent", "Accept"),
            trust_env=False,
        )
        self._sessions[upstream.name] = session
        return session

    def _url(self, upstream: Upstream, path: str, model: str) -> URL:
        if not (upstream.kind == "azure_openai" and upstream.api_version):
            model = ""
        url = self._urls.get((upstream.name, path + model))
        if url is None:
            url = _deployment(upstream, path, model) if model else URL(upstream.base_url + path)
            if len(self._urls) < 1000:  # model names are the caller's
                self._urls[upstream.name, path + model] = url
        return url


def _deployment(upstream: Upstream, path: str, model: str) -> URL:
    """Azure's address of a model; the caller names one segment of it, and no more than that."""
    if not model.strip("."):
        raise UpstreamFailed(
            "model must be a name", code="unsupported_field", status=400, is_sent=False
        )
    base = f"{URL(upstream.base_url)}/openai/deployments/{quote(model, safe='')}"
    return URL(f"{base}{path}?api-version={quote(upstream.api_version)}", encoded=True)


def _key_headers(upstream: Upstream) -> dict[str, str]:
    if not upstream.api_key:
        return {}
    if upstream.kind == "anthropic":
        return {"x-api-key": upstream.api_key}
    if upstream.kind == "azure_openai":
        return {"api-key": upstream.api_key}
    return {"Authorization": f"Bearer {upstream.api_key}"}


def _wait_seconds(upstream: Upstream) -> float:
    """How long a call may wait for a free connection, and for a new one to be made, in all.

    Making one alone has half of it: what took the whole time has waited for a free one.
    """
    return 2 * upstream.connect_seconds


def _no_connection() -> UpstreamFailed:
    return UpstreamFailed(
        "every connection to the upstream is in use",
        code="upstream_busy",
        status=503,
        is_sent=False,
    )


def _failure(error: Exception, *, is_sent: bool) -> UpstreamFailed:
    """What the caller is told: what happened, not where."""
    if isinstance(error, TimeoutError):
        return UpstreamFailed(
            "the upstream did not answer in time",
            code="upstream_timeout",
            status=504,
            is_sent=is_sent,
        )
    if is_sent:
        return UpstreamFailed("the upstream's answer broke off", code="upstream_cut", is_sent=True)
    return UpstreamFailed(
        "the upstream cannot be reached", code="upstream_unreachable", is_sent=False
    )
