"""Calls to upstreams: keys are added here, addresses come from the settings alone.

Redirects are not followed: a key never goes where the settings did not send it. Nothing of a
request or an answer is logged. The connections are the gateway's own, by measurement
(`benchmarks/http_clients.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping

from yarl import URL

from tallystick.gateway.connections import Incoming, Origin, Unreached, request_head
from tallystick.gateway.model import UpstreamFailed
from tallystick.gateway.settings import Upstream

ANSWER_BYTES_MAX = 128 * 1024 * 1024
"""A whole answer: pictures and embeddings have tens of MiB."""


class Answer:
    """An upstream's answer, its body yet to be read."""

    def __init__(self, incoming: Incoming) -> None:
        self._incoming = incoming
        self.status = incoming.status
        self.headers: Mapping[str, str] = incoming.headers
        """Names in lower case."""
        self.partial_bytes = 0
        """What had come of a body that broke off."""

    async def read(self) -> bytes:
        """The whole body; raises UpstreamFailed when it breaks off or is too large."""
        pieces = []
        async for piece in self.pieces():
            pieces.append(piece)
            self.partial_bytes += len(piece)
            if self.partial_bytes > ANSWER_BYTES_MAX:
                self.close()
                raise UpstreamFailed(
                    "the answer is too large", code="upstream_too_large", is_sent=True
                )
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body as it comes; raises UpstreamFailed when it breaks off."""
        take = self._incoming.take
        try:
            while piece := await take():
                yield piece
        except OSError as error:
            raise _failure(error, is_sent=True) from error

    def close(self) -> None:
        """Stop reading; the upstream sees its reader go away unless all was read."""
        self._incoming.close()


class Outbound:
    """Connections to upstreams; made within the event loop that uses them."""

    def __init__(self) -> None:
        self._origins: dict[str, Origin] = {}
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
        origin = self._origins.get(upstream.name) or self._open(upstream)
        url = self._url(upstream, path, model)
        said = {"Host": url.host_port_subcomponent or "", **headers, **_key_headers(upstream)}
        if body:
            said["Content-Length"] = str(len(body))
        try:
            head = request_head(method, url.raw_path_qs, said)
            return Answer(await origin.send(head, body))
        except (Unreached, ValueError) as error:
            raise _failure(error, is_sent=False) from error
        except OSError as error:
            raise _failure(error, is_sent=True) from error

    async def close(self) -> None:
        """Close every connection."""
        for origin in self._origins.values():
            origin.close()
        self._origins.clear()
        await asyncio.sleep(0)

    def _open(self, upstream: Upstream) -> Origin:
        url = URL(upstream.base_url)
        origin = self._origins[upstream.name] = Origin(
            url.raw_host or "",
            url.port or 0,
            is_secure=url.scheme == "https",
            connections_max=upstream.connections_max,
            connect_seconds=upstream.connect_seconds,
            silence_seconds=upstream.first_byte_seconds,
        )
        return origin

    def _url(self, upstream: Upstream, path: str, model: str) -> URL:
        if not (upstream.kind == "azure_openai" and upstream.api_version):
            model = ""
        url = self._urls.get((upstream.name, path + model))
        if url is None:
            url = URL(upstream.base_url + path)
            if model:
                base = URL(upstream.base_url) / "openai" / "deployments" / model
                url = base.joinpath(*path.strip("/").split("/"))
                url = url.with_query({"api-version": upstream.api_version})
            if len(self._urls) < 1000:  # model names are the caller's
                self._urls[upstream.name, path + model] = url
        return url


def _key_headers(upstream: Upstream) -> dict[str, str]:
    if not upstream.api_key:
        return {}
    if upstream.kind == "anthropic":
        return {"x-api-key": upstream.api_key}
    if upstream.kind == "azure_openai":
        return {"api-key": upstream.api_key}
    return {"Authorization": f"Bearer {upstream.api_key}"}


def _failure(error: Exception, *, is_sent: bool) -> UpstreamFailed:
    """What the caller is told: what happened, not where."""
    if isinstance(error, TimeoutError) or isinstance(error.__cause__, TimeoutError):
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
