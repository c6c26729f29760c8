"""A small provider on loopback that speaks OpenAI and Anthropic by script.

It counts what it billed (`billed`: input and output tokens of every finished or broken-off
answer), so that a test can lay its truth beside what Tallystick charged. The last user text
is the script: "status 500", "stall", "cut", "long", "no usage", anything else is answered.
"""

from __future__ import annotations

import gzip
import json
import socket
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

INPUT, OUTPUT, CACHED, REASONING = 1000, 12, 400, 4
PIECES = ["Tally", " sticks", " were", " split"]


def chat_usage() -> dict[str, Any]:
    return {
        "prompt_tokens": INPUT,
        "completion_tokens": OUTPUT,
        "total_tokens": INPUT + OUTPUT,
        "prompt_tokens_details": {"cached_tokens": CACHED},
        "completion_tokens_details": {"reasoning_tokens": REASONING},
    }


def response_usage() -> dict[str, Any]:
    return {
        "input_tokens": INPUT,
        "output_tokens": OUTPUT,
        "total_tokens": INPUT + OUTPUT,
        "input_tokens_details": {"cached_tokens": CACHED, "cache_write_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": REASONING},
    }


MESSAGE_START_USAGE = {
    "input_tokens": 500,
    "cache_read_input_tokens": CACHED,
    "cache_creation_input_tokens": 100,
    "cache_creation": {"ephemeral_5m_input_tokens": 60, "ephemeral_1h_input_tokens": 40},
    "output_tokens": 1,
}


def _event(name: str, content: Any) -> bytes:
    text = content if isinstance(content, str) else json.dumps(content)
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {text}\n\n".encode()


class Provider:
    """One provider; `seen` holds the bodies that it was sent."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.answered = 0
        self.extra_headers: dict[str, str] = {}
        self.encoding = ""
        """What answers are said to be encoded by; gzip when the caller takes it."""
        routes = [
            Route("/v1/chat/completions", self.chat, methods=["POST"]),
            Route("/v1/responses", self.responses, methods=["POST"]),
            Route("/v1/embeddings", self.embeddings, methods=["POST"]),
            Route("/v1/messages", self.messages, methods=["POST"]),
        ]
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        config = uvicorn.Config(Starlette(routes=routes), log_level="error", lifespan="off")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def start(self) -> Provider:
        self._thread.start()
        deadline = time.monotonic() + 20
        while not self._server.started and time.monotonic() < deadline:
            time.sleep(0.01)
        return self

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(20)
        self._socket.close()

    def cut(self) -> None:
        """Break every connection."""
        for connection in list(self._server.server_state.connections):
            connection.transport.abort()

    async def _read(self, request: Request) -> tuple[dict[str, Any], str]:
        body = await request.json()
        self.seen.append(body)
        self.headers.append(dict(request.headers))
        said = body.get("messages") or body.get("input")
        script = said[-1]["content"] if isinstance(said, list) else said
        return body, script if isinstance(script, str) else ""

    def _failure(self, script: str) -> Response | None:
        if script.startswith("status "):
            return JSONResponse({"error": {"message": "scripted"}}, int(script.split()[1]))
        if script.startswith("once ") and self.headers[-1].get("x-stainless-retry-count") == "0":
            return JSONResponse({"error": {"message": "scripted"}}, int(script.split()[1]))
        return None

    def _answer(self, content: dict[str, Any]) -> Response:
        self.answered += 1
        answer = JSONResponse(content, headers={"x-request-id": "req-1", **self.extra_headers})
        if encoding := self._encoding():
            answer.headers["content-encoding"] = encoding
            answer.body = gzip.compress(bytes(answer.body))
            answer.headers["content-length"] = str(len(answer.body))
        return answer

    def _encoding(self) -> str:
        return self.encoding or ("gzip" if "gzip" in self.headers[-1]["accept-encoding"] else "")

    def _events(self, events: list[tuple[str, Any]], script: str) -> Response:
        self.answered += 1
        pieces = [_event(name, content) for name, content in events]
        if encoding := self._encoding():
            headers = {"content-encoding": encoding, "content-type": "text/event-stream"}
            return Response(gzip.compress(b"".join(pieces)), headers=headers)

        async def flow() -> AsyncIterator[bytes]:
            for index, piece in enumerate(pieces):
                if script == "cut" and index == 3:
                    self.cut()
                yield piece

        return StreamingResponse(flow(), media_type="text/event-stream")

    async def chat(self, request: Request) -> Response:
        body, script = await self._read(request)
        if failed := self._failure(script):
            return failed
        head = {"id": "chatcmpl-1", "created": 1, "model": "gpt-4o-2024-08-06"}
        if not body.get("stream"):
            message = {"role": "assistant", "content": "".join(PIECES)}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            full = {**head, "object": "chat.completion", "choices": [choice]}
            return self._answer({**full, "usage": chat_usage()})
        chunk = {**head, "object": "chat.completion.chunk"}
        events: list[tuple[str, Any]] = [
            ("", {**chunk, "choices": [{"index": 0, "delta": {"content": piece}}]})
            for piece in PIECES * (500 if script == "long" else 1)
        ]
        stop = {"index": 0, "delta": {}, "finish_reason": "stop"}
        events.append(("", {**chunk, "choices": [stop]}))
        if body.get("stream_options", {}).get("include_usage") and script != "no usage":
            events.append(("", {**chunk, "choices": [], "usage": chat_usage()}))
        return self._events([*events, ("", "[DONE]")], script)

    async def responses(self, request: Request) -> Response:
        body, script = await self._read(request)
        if failed := self._failure(script):
            return failed
        full = {
            "id": "resp_1",
            "object": "response",
            "created_at": 1,
            "model": "gpt-4o-2024-08-06",
            "output": [],
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
        }
        if not body.get("stream"):
            return self._answer({**full, "status": "completed", "usage": response_usage()})
        events: list[tuple[str, Any]] = [
            ("response.created", {"type": "response.created", "response": full})
        ]
        kind = "response.output_text.delta"
        events += [(kind, {"type": kind, "delta": piece}) for piece in PIECES]
        done = {"type": "response.completed", "response": {**full, "usage": response_usage()}}
        return self._events([*events, ("response.completed", done)], script)

    async def embeddings(self, request: Request) -> Response:
        await self._read(request)
        item = {"object": "embedding", "index": 0, "embedding": [0.5]}
        usage = {"prompt_tokens": 8, "total_tokens": 8}
        full = {"object": "list", "data": [item], "model": "text-embedding-3-small"}
        return self._answer({**full, "usage": usage})

    async def messages(self, request: Request) -> Response:
        body, script = await self._read(request)
        if failed := self._failure(script):
            return failed
        head: dict[str, Any] = {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "content": [],
        }
        head |= {"model": "claude-haiku-4-5", "stop_reason": None, "stop_sequence": None}
        if not body.get("stream"):
            text = {"type": "text", "text": "".join(PIECES)}
            usage = {**MESSAGE_START_USAGE, "output_tokens": OUTPUT}
            return self._answer(
                {**head, "content": [text], "stop_reason": "end_turn", "usage": usage}
            )
        start = {"type": "message_start", "message": {**head, "usage": MESSAGE_START_USAGE}}
        block = {"type": "content_block_start", "index": 0}
        block["content_block"] = {"type": "text", "text": ""}
        events: list[tuple[str, Any]] = [("message_start", start), ("content_block_start", block)]
        for piece in PIECES:
            delta = {"type": "text_delta", "text": piece}
            content = {"type": "content_block_delta", "index": 0, "delta": delta}
            events.append(("content_block_delta", content))
        end = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}}
        end["usage"] = {"output_tokens": OUTPUT}
        events.append(("content_block_stop", {"type": "content_block_stop", "index": 0}))
        events.append(("message_delta", end))
        events.append(("message_stop", {"type": "message_stop"}))
        return self._events(events, script)
