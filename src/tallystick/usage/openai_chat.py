"""Usage of OpenAI chat completions and embeddings, and of servers that speak the same.

Some send usage with the last choice, some in every chunk, OpenAI in a last chunk without
choices. Source: openai-python 3.54 types/chat/chat_completion_chunk.py.
"""

from __future__ import annotations

from typing import Any

import msgspec

from tallystick.usage.model import Seen
from tallystick.usage.openai_usage import OpenAIUsage, usage_of
from tallystick.usage.reading import MARK, UNREADABLE, error_said, tier_said


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _ToolCall(msgspec.Struct):
    function: _Function | None = None


class _Delta(msgspec.Struct):
    content: str | list[Any] | None = None
    """A list of parts at some servers, each with its text."""
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[_ToolCall] | None = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    finish_reason: str | None = None


class _Chunk(msgspec.Struct):
    id: str | int | None = None
    model: str | None = None
    service_tier: Any = None
    choices: list[_Choice] | None = None
    usage: OpenAIUsage | None = None
    error: Any = None


class _Answer(msgspec.Struct):
    id: str | int | None = None
    model: str | None = None
    usage: OpenAIUsage | None = None
    service_tier: Any = None


_read_answer = msgspec.json.Decoder(_Answer, strict=False).decode
"""Not strict: a count of 12.0 or "12" is 12, as some servers write it."""
_read_chunk = msgspec.json.Decoder(_Chunk, strict=False).decode
_read_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode


def read_answer(body: bytes) -> Seen:
    """Read a whole answer; what cannot be read has no usage."""
    seen = Seen()
    try:
        answer = _read_answer(body.removeprefix(MARK))
    except UNREADABLE:
        seen.error_code = "answer_unreadable"
        return seen
    seen.served_model, seen.answer_id = answer.model or "", answer.id or ""
    seen.service_tier = tier_said(answer.service_tier)
    if answer.usage is not None:
        seen.usage = usage_of(answer.usage)
    return seen


class ChatReader:
    """Reads a stream of chat completion chunks."""

    def __init__(self, *, is_usage_hidden: bool) -> None:
        self.seen = Seen()
        self.text_bytes = 0
        self.pieces = 0
        self.is_ended = False
        self._is_usage_hidden = is_usage_hidden
        self._last: bytes = b"{}"

    def read(self, event: bytes, text: bytes) -> bytes:
        """Take one event (and its data); return what the client is sent of it."""
        if text == b"[DONE]":
            self.is_ended = True
            self.seen.usage = self.seen.usage or self.seen.began
            return event
        try:
            chunk = _read_chunk(text)
        except UNREADABLE:
            return event
        self._last = text
        self._count(chunk)
        if chunk.usage is not None:
            self._note(chunk, chunk.usage)
        if not self._is_usage_hidden:
            return event
        if chunk.usage is None:  # OpenAI sets null in each; quotes within text are escaped
            return event.replace(b',"usage":null', b"")
        if chunk.choices or chunk.error is not None:
            return _without_usage(event, text)
        return b""

    def _note(self, chunk: _Chunk, usage: OpenAIUsage) -> None:
        """Usage beside a choice that goes on is what was used so far, not in all.

        A report of nothing takes no report back: some servers end with one.
        """
        choices, told = chunk.choices or (), usage_of(usage)
        if choices and not any(choice.finish_reason for choice in choices):
            self.seen.began = told
        elif self.seen.usage is None or told.tokens_input or told.tokens_output:
            self.seen.usage = told

    def _count(self, chunk: _Chunk) -> None:
        if chunk.error is not None:
            self.seen.error_code = error_said(chunk.error)
            self.is_ended = True
        if chunk.model:
            self.seen.served_model = chunk.model
        if chunk.id:
            self.seen.answer_id = chunk.id
        if chunk.service_tier not in (None, self.seen.service_tier):
            self.seen.service_tier = tier_said(chunk.service_tier) or self.seen.service_tier
        for choice in chunk.choices or ():
            if choice.delta is not None:
                size = _text_bytes(choice.delta)
                self.text_bytes += size
                self.pieces += size > 0

    def ending(self, code: str, message: str, tokens_output: int) -> bytes:
        """A last chunk with finish_reason "length" that says why, and [DONE]."""
        fields = self._base()
        fields["choices"] = [{"index": 0, "delta": {}, "finish_reason": "length"}]
        fields["tallystick"] = {"code": code, "message": message}
        events = b"data: " + _encode(fields) + b"\n\n"
        self.is_ended = True
        return events + b"data: [DONE]\n\n"

    def _base(self) -> dict[str, Any]:
        try:
            fields: dict[str, Any] = msgspec.json.decode(self._last)
        except UNREADABLE:
            fields = {}
        names = ("id", "object", "created", "model", "system_fingerprint")
        return {name: fields[name] for name in names if name in fields}

    def failure(self, code: str, message: str) -> bytes:
        """An error event, as OpenAI sends it; the SDK raises APIError."""
        error = {"message": message, "type": "upstream_error", "param": None, "code": code}
        return b"data: " + _encode({"error": error}) + b"\n\n"


def _without_usage(event: bytes, text: bytes) -> bytes:
    try:
        fields = _read_fields(text)
    except UNREADABLE:  # a name that is no UTF-8
        return event
    del fields["usage"]
    return b"data: " + _encode(fields) + b"\n\n"


def _text_of(part: Any) -> str:
    """The text of one part of an answer, or of what it thought."""
    if isinstance(part, list):
        return "".join([_text_of(one) for one in part])
    if isinstance(part, dict):
        return "".join([_text_of(part[name]) for name in ("text", "thinking") if name in part])
    return part if isinstance(part, str) else ""


def _text_bytes(delta: _Delta) -> int:
    size = 0
    content = delta.content
    if isinstance(content, list):
        content = _text_of(content)
    for text in (content, delta.refusal, delta.reasoning_content, delta.reasoning):
        if text:
            size += len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
    for call in delta.tool_calls or ():
        if call.function is not None:
            size += len(call.function.name or "") + len(call.function.arguments or "")
    return size
