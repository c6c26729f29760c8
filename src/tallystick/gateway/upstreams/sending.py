"""Sends a translated request; its answer reads as if the upstream spoke the surface's protocol."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, cast

import msgspec
from yarl import URL

from tallystick.gateway.errors import refusal_body
from tallystick.gateway.model import Asked, UpstreamFailed
from tallystick.gateway.outbound import Answer, Outbound
from tallystick.gateway.settings import Upstream
from tallystick.gateway.upstreams.aws import Signer
from tallystick.gateway.upstreams.translation import Translation, Unsupported

_signer = Signer()
_NAMES = ("retry-after", "x-request-id")
_OTHER_NAMES = {"x-amzn-requestid": "x-request-id"}


class TranslatedAnswer(Answer):
    """An upstream's answer in the surface's words."""

    def __init__(
        self, answer: Answer, translation: Translation, model: str, created: int, *, is_stream: bool
    ) -> None:
        self._answer = answer
        self._translation = translation
        self._model = model
        self._created = created
        self.status = answer.status
        has_events = is_stream and answer.status < 300
        self.headers = cast(Any, _headers(answer.headers, has_events=has_events))

    @property
    def partial_bytes(self) -> int:  # type: ignore[override]
        """What had come of a body that broke off."""
        return self._answer.partial_bytes

    async def read(self) -> bytes:
        """The whole body, or the error; raises UpstreamFailed."""
        body = await self._answer.read()
        if self.status >= 400:
            message = self._translation.error_message(body) or "the upstream refused the request"
            failure = UpstreamFailed(
                message, code="upstream_refused", status=self.status, is_sent=True
            )
            return refusal_body(self._translation.speaks, failure)
        try:
            return self._translation.answer(body, self._model, self._created)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return body  # settled by estimate, as any answer that cannot be read

    async def pieces(self) -> AsyncIterator[bytes]:
        """The surface's events as they come; raises UpstreamFailed when it breaks off."""
        stream = self._translation.stream(self._model, self._created)
        async for piece in self._answer.pieces():
            yield stream.feed(piece)
        if last := stream.end():
            yield last

    def close(self) -> None:
        """Stop reading."""
        self._answer.close()


async def send_translated(
    outbound: Outbound,
    translation: Translation,
    asked: Asked,
    upstream: Upstream,
    model: str,
    headers: Mapping[str, str],
    created: int,
) -> TranslatedAnswer:
    """Send a request in the upstream's words; raises UpstreamFailed."""
    try:
        path = translation.path(model, is_stream=asked.is_stream)
        body = translation.body(asked, model, headers.get("anthropic-beta", ""))
    except Unsupported as error:
        raise UpstreamFailed(
            error.message, code=error.code, status=error.http_status, is_sent=False
        ) from error
    sent = {"Content-Type": "application/json"}
    if request_id := headers.get("X-Client-Request-Id"):
        sent["X-Client-Request-Id"] = request_id
    sent |= await _credentials(upstream, path, body)
    keyless = msgspec.structs.replace(upstream, api_key="")
    answer = await outbound.send(keyless, path, body, sent)
    return TranslatedAnswer(answer, translation, model, created, is_stream=asked.is_stream)


async def _credentials(upstream: Upstream, path: str, body: bytes) -> dict[str, str]:
    """What an upstream knows us by; raises UpstreamFailed without any."""
    if upstream.kind == "gemini":
        return {"x-goog-api-key": upstream.api_key} if upstream.api_key else {}
    if upstream.api_key:
        return {"Authorization": f"Bearer {upstream.api_key}"}
    url = str(URL(upstream.base_url + path))  # signed as it is sent
    return await _signer.sign(url, body, upstream.region)


def _headers(headers: Mapping[str, str], *, has_events: bool) -> dict[str, str]:
    found = {name: headers[name] for name in _NAMES if name in headers}
    for theirs, ours in _OTHER_NAMES.items():
        if theirs in headers:
            found[ours] = headers[theirs]
    found["content-type"] = "text/event-stream" if has_events else "application/json"
    return found
