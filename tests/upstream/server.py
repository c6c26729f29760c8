"""The scripted upstream's server: raw asyncio and httptools, so that it is never the limit."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
from collections.abc import Iterator
from typing import Any

import httptools
import msgspec

from tests.upstream import answers, dialects
from tests.upstream.scripts import Script, script_of
from tests.upstream.truth import Billed, Truth

_PATHS = {
    "/v1/chat/completions": "chat",
    "/v1/responses": "responses",
    "/v1/embeddings": "embeddings",
    "/v1/messages": "messages",
    "/v1/messages/count_tokens": "count_tokens",
    "/v1/responses/input_tokens": "input_tokens",
}
_STATUS = {
    200: b"OK",
    400: b"Bad Request",
    401: b"Unauthorized",
    403: b"Forbidden",
    404: b"Not Found",
    429: b"Too Many Requests",
    500: b"Internal Server Error",
    503: b"Service Unavailable",
    529: b"Overloaded",
}


class _Asked(msgspec.Struct):
    """The part of a request that the upstream looks at."""

    model: str = ""
    stream: bool = False
    max_tokens: int | None = None
    stream_options: dict[str, Any] | None = None
    input: Any = None


_BUSY = {"messages": 529, "gemini": 503, "converse": 503, "invoke": 503}
_decode = msgspec.json.Decoder(_Asked).decode


class Connection(asyncio.Protocol):
    """One connection: requests are answered one after the other."""

    def __init__(self, truth: Truth) -> None:
        self._truth = truth
        self._parser = httptools.HttpRequestParser(self)
        self._transport: Any = None
        self._headers: dict[bytes, bytes] = {}
        self._path = b""
        self._body: list[bytes] = []
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        if self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        with contextlib.suppress(httptools.HttpParserUpgrade):
            self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._headers, self._body, self._path = {}, [], b""

    def on_url(self, url: bytes) -> None:
        self._path += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.lower()] = value

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        path = self._path.decode().partition("?")[0]
        if path.startswith("/openai/deployments/"):
            path = "/v1/" + path.split("/", 4)[4]
        if path == "/truth":
            self._answer(200, self._truth.encode())
        elif path == "/v1/models":
            model = {"id": "gpt-4o", "object": "model", "created": 1, "owned_by": "tests"}
            self._answer(200, msgspec.json.encode({"object": "list", "data": [model]}))
        elif (said := dialects.read_path(path)) is not None:
            body = b"".join(self._body)
            if self._may_ask(said.surface, path, body):
                self._start(said.surface, _Asked(said.model, said.is_stream), body)
            else:
                self._fail(said.surface, 403, "AccessDeniedException", "no key or signature")
        elif (surface := _PATHS.get(path, "")) == "":
            self._answer(404, b'{"error":{"message":"no such path","type":"not_found"}}')
        else:
            self._begin(surface, b"".join(self._body))

    def _begin(self, surface: str, body: bytes) -> None:
        try:
            asked = _decode(body)
        except msgspec.DecodeError:
            self._fail(surface, 400, "invalid_request_error", "the body is not JSON")
            return
        has_key = b"authorization" in self._headers or b"x-api-key" in self._headers
        if not (has_key or b"api-key" in self._headers):
            self._fail(surface, 401, "authentication_error", "no key")
            return
        if surface == "messages" and asked.max_tokens is None:
            self._fail(surface, 400, "invalid_request_error", "max_tokens: Field required")
            return
        self._start(surface, asked, body)

    def _may_ask(self, surface: str, path: str, body: bytes) -> bool:
        """Gemini takes a key, Bedrock a key of its own or a signature."""
        if surface == "gemini":
            return b"x-goog-api-key" in self._headers
        said = self._headers.get(b"authorization", b"")
        return said.startswith(b"Bearer ") or dialects.is_signed(path, self._headers, body)

    def _start(self, surface: str, asked: _Asked, body: bytes) -> None:
        script = script_of(body)
        request_id = self._headers.get(b"x-client-request-id", b"").decode()
        billed = Billed(len(self._truth.requests), request_id, surface, asked.model, 200)
        billed.key = self._headers.get(b"authorization", b"").decode()
        self._truth.requests.append(billed)
        if self._refuse(surface, script, billed):
            return
        if surface in ("count_tokens", "input_tokens"):
            kind = {"object": "response.input_tokens"} if surface == "input_tokens" else {}
            self._answer(200, msgspec.json.encode({"input_tokens": script.tokens_input, **kind}))
            return
        billed.tokens_input = script.tokens_input
        billed.tokens_cached, billed.tokens_written = script.tokens_cached, script.tokens_written
        if asked.stream and script.name != "unstreamed":
            self._task = asyncio.ensure_future(self._stream(surface, asked, script, billed))
        elif script.name == "stall":
            self._task = asyncio.ensure_future(self._late(surface, asked, script, billed))
        else:
            self._whole(surface, asked, script, billed)

    def _refuse(self, surface: str, script: Script, billed: Billed) -> bool:
        if script.name not in ("rate_limit", "overloaded", "refused"):
            return False
        if script.times and self._truth.seen(script.key) >= script.times:
            return False
        if script.name == "refused":
            billed.status = 400
            self._fail(surface, 400, "invalid_request_error", "temperature must be at most 2")
        elif script.name == "rate_limit":
            billed.status = 429
            self._fail(surface, 429, "rate_limit_error", "slow down", b"retry-after: 1\r\n")
        else:
            billed.status = _BUSY.get(surface, 500)
            self._fail(surface, billed.status, "overloaded_error", "try again")
        return True

    def _whole(self, surface: str, asked: _Asked, script: Script, billed: Billed) -> None:
        billed.is_finished = True
        billed.tokens_output, billed.tokens_reasoning = (
            script.tokens_output,
            script.tokens_reasoning,
        )
        if surface == "chat":
            body = answers.chat(script, asked.model, billed.number)
        elif surface == "responses":
            body = msgspec.json.encode(answers.response(script, asked.model, billed.number))
        elif surface == "embeddings":
            billed.tokens_output = 0
            count = len(asked.input) if isinstance(asked.input, list) else 1
            body = answers.embeddings(script, asked.model, count)
        elif surface == "gemini":
            body = dialects.gemini(script, asked.model, billed.number)
        elif surface == "converse":
            body = dialects.converse(script)
        elif surface == "invoke":
            body = dialects.invoke(script, asked.model, billed.number)
        else:
            body = msgspec.json.encode(answers.message(script, asked.model, billed.number))
        if script.name == "corrupt":
            body = body[: len(body) // 2] + b"\x00}"
        if script.name == "cut":
            self._transport.write(_head(200, len(body), b"") + body[: len(body) // 2])
            self._transport.close()
            return
        headers = b"x-request-id: req_%d\r\n" % billed.number
        if script.name == "zipped":
            body, headers = gzip.compress(body), headers + b"content-encoding: gzip\r\n"
        self._answer(200, body, headers)

    async def _late(self, surface: str, asked: _Asked, script: Script, billed: Billed) -> None:
        await asyncio.sleep(script.seconds)
        self._whole(surface, asked, script, billed)

    async def _stream(self, surface: str, asked: _Asked, script: Script, billed: Billed) -> None:
        self._transport.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
            b"x-request-id: req_%d\r\ntransfer-encoding: chunked\r\n"
            % billed.number
            + (b"content-encoding: gzip\r\n\r\n" if script.name == "zipped" else b"\r\n")
        )
        for count, event in enumerate(self._events(surface, asked, script, billed), 1):
            is_token = b"tally " in event and b".done" not in event and b"completed" not in event
            if script.name == "slow" and is_token:
                await asyncio.sleep(1 / script.rate)
            billed.tokens_output += is_token
            if script.name == "stall" and count == 3:
                await asyncio.sleep(script.seconds)
            if script.name == "corrupt" and count == 3:
                self._write(_framed(surface, b'data: {"broken'), script)
            if script.name == "cut" and count == 6:
                self._transport.close()
                return
            if script.piece_bytes:
                await asyncio.sleep(0)
            framed = _framed(surface, event)
            self._write(gzip.compress(framed) if script.name == "zipped" else framed, script)
        billed.tokens_output, billed.tokens_reasoning = (
            script.tokens_output,
            script.tokens_reasoning,
        )
        billed.is_finished = True
        if script.name == "unclosed":
            self._transport.close()
            return
        if script.name == "lingering":
            await asyncio.sleep(script.seconds)
        self._transport.write(b"0\r\n\r\n")
        self._task = None

    def _events(
        self, surface: str, asked: _Asked, script: Script, billed: Billed
    ) -> Iterator[bytes]:
        if surface == "chat":
            has_usage = bool((asked.stream_options or {}).get("include_usage"))
            return answers.chat_events(script, asked.model, billed.number, has_usage)
        if surface == "responses":
            return answers.response_events(script, asked.model, billed.number)
        if surface == "gemini":
            return dialects.gemini_events(script, asked.model, billed.number)
        if surface == "converse":
            return dialects.converse_events(script)
        if surface == "invoke":
            return dialects.invoke_events(script, asked.model, billed.number)
        return answers.message_events(script, asked.model, billed.number)

    def _write(self, text: bytes, script: Script) -> None:
        size = script.piece_bytes or len(text)
        for start in range(0, len(text), size):
            piece = text[start : start + size]
            self._transport.write(b"%x\r\n%s\r\n" % (len(piece), piece))

    def _fail(self, surface: str, status: int, kind: str, text: str, headers: bytes = b"") -> None:
        if surface in ("messages", "count_tokens"):
            content: dict[str, Any] = {"type": "error", "error": {"type": kind, "message": text}}
        elif surface == "gemini":
            content = {"error": {"code": status, "message": text, "status": kind}}
        elif surface in ("converse", "invoke"):
            content = {"message": text}
        else:
            content = {"error": {"message": text, "type": kind, "param": None, "code": kind}}
        self._answer(status, msgspec.json.encode(content), headers)

    def _answer(self, status: int, body: bytes, headers: bytes = b"") -> None:
        self._transport.write(_head(status, len(body), headers) + body)
        self._task = None


def _framed(surface: str, event: bytes) -> bytes:
    """An event with its end, or in its frame."""
    if surface in ("converse", "invoke"):
        return dialects.frame(surface, event)
    return event + b"\n\n"


def _head(status: int, length: int, headers: bytes) -> bytes:
    return b"HTTP/1.1 %d %s\r\ncontent-type: application/json\r\n%scontent-length: %d\r\n\r\n" % (
        status,
        _STATUS[status],
        headers,
        length,
    )


async def serve(port: int) -> asyncio.Server:
    """Listen on loopback; a port of 0 takes a free one."""
    truth = Truth()
    loop = asyncio.get_running_loop()
    return await loop.create_server(lambda: Connection(truth), "127.0.0.1", port, backlog=1024)
