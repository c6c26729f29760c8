"""Usage of Anthropic messages: split over message_start and message_delta in a stream.

Anthropic's input_tokens leave out what was read from and written to the cache; a stream's
message_delta has cumulative counts, which replace those of message_start where given and not 0:
some servers end with an input of 0.
Source: anthropic-python 2.12 types/usage.py, message_delta_usage.py, cache_creation.py,
beta/beta_usage.py ("a compaction entry's tokens are not included in the top-level fields").
"""

from __future__ import annotations

from typing import Any

import msgspec

from tallystick.usage.model import Seen, Usage
from tallystick.usage.reading import MARK, UNREADABLE, error_said, tier_said

FAST = "fast"
"""What requests and answers call the mode of speed that costs more."""


class _CacheCreation(msgspec.Struct):
    ephemeral_5m_input_tokens: int | None = None
    ephemeral_1h_input_tokens: int | None = None


class _ServerTools(msgspec.Struct):
    web_search_requests: int | None = None
    web_fetch_requests: int | None = None


class _OutputDetails(msgspec.Struct):
    thinking_tokens: int | None = None


class _Counts(msgspec.Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation: _CacheCreation | None = None


class _Iteration(_Counts):
    type: str | None = None


class _Usage(_Counts):
    iterations: list[_Iteration] | None = None
    server_tool_use: _ServerTools | None = None
    output_tokens_details: _OutputDetails | None = None
    service_tier: Any = None
    speed: Any = None


class _Message(msgspec.Struct):
    id: str | int | None = None
    model: str | None = None
    usage: _Usage | None = None


class _Delta(msgspec.Struct):
    text: str | None = None
    partial_json: str | None = None
    thinking: str | None = None


class _Event(msgspec.Struct):
    type: str = ""
    index: int = 0
    message: _Message | None = None
    delta: _Delta | None = None
    usage: _Usage | None = None
    error: Any = None


_read_message = msgspec.json.Decoder(_Message, strict=False).decode
"""Not strict: a count of 12.0 or "12" is 12, as some servers write it."""
_read_event = msgspec.json.Decoder(_Event, strict=False).decode
_encode = msgspec.json.Encoder().encode


def usage_of(usage: _Usage) -> Usage:
    """Turn `usage` into ours; what it took to compact the context stands beside the sums."""
    parts = [usage, *(one for one in usage.iterations or () if one.type == "compaction")]
    read = sum(part.cache_read_input_tokens or 0 for part in parts)
    short, long = map(sum, zip(*map(_written, parts), strict=True))
    return Usage(
        tokens_input=sum(part.input_tokens or 0 for part in parts) + read + short + long,
        tokens_output=sum(part.output_tokens or 0 for part in parts),
        tokens_cache_read=read,
        tokens_cache_write_5m=short,
        tokens_cache_write_1h=long,
        tokens_reasoning=(usage.output_tokens_details or _OutputDetails()).thinking_tokens or 0,
        tools=_tools(usage),
    )


def _written(part: _Counts) -> tuple[int, int]:
    """Tokens written to the cache, for five minutes and for an hour."""
    split = part.cache_creation or _CacheCreation()
    long = split.ephemeral_1h_input_tokens or 0
    short = split.ephemeral_5m_input_tokens or 0
    written = part.cache_creation_input_tokens or 0
    return max(short, written - long), long  # older answers have no split: five minutes


def _tier(usage: _Usage) -> str | None:
    """The tier that served; fast mode is one, with prices of its own."""
    return FAST if usage.speed == FAST else tier_said(usage.service_tier)


def _tools(usage: _Usage) -> dict[str, int]:
    count = usage.server_tool_use.web_search_requests if usage.server_tool_use else None
    return {"web_search": count} if count else {}


def read_answer(body: bytes) -> Seen:
    """Read a whole answer; what cannot be read has no usage."""
    seen = Seen()
    try:
        message = _read_message(body.removeprefix(MARK))
    except UNREADABLE:
        seen.error_code = "answer_unreadable"
        return seen
    seen.served_model, seen.answer_id = message.model or "", message.id or ""
    if message.usage is not None:
        seen.usage = usage_of(message.usage)
        seen.service_tier = _tier(message.usage)
    return seen


class MessagesReader:
    """Reads a stream of message events."""

    def __init__(self) -> None:
        self.seen = Seen()
        self.text_bytes = 0
        self.pieces = 0
        self.is_ended = False
        self._usage = _Usage()
        self._block: int | None = None
        """The index of the content block that is open."""

    def read(self, event: bytes, text: bytes) -> bytes:
        """Take one event (and its data); return what the client is sent of it."""
        try:
            read = _read_event(text)
        except UNREADABLE:
            return event
        if read.type == "content_block_delta":
            self._count(read.delta)
        elif read.type == "content_block_start":
            self._block = read.index
        elif read.type == "content_block_stop":
            self._block = None
        elif read.type == "message_start" and read.message is not None:
            self._begin(read.message)
        elif read.type == "message_delta" and read.usage is not None:
            self._take(read.usage)
        elif read.type == "message_stop":
            self.is_ended = True
        elif read.type == "error":
            self.seen.error_code = error_said(read.error)
            self.is_ended = True
        return event

    def _begin(self, message: _Message) -> None:
        self.seen.served_model, self.seen.answer_id = message.model or "", message.id or ""
        self._usage = message.usage or self._usage
        self.seen.began = usage_of(self._usage) if message.usage else None
        self.seen.service_tier = _tier(self._usage)

    def _count(self, delta: _Delta | None) -> None:
        if delta is None:
            return
        text = delta.text or delta.partial_json or delta.thinking or ""
        if text:
            self.text_bytes += len(text.encode("utf-8", "surrogatepass"))
            self.pieces += 1

    def _take(self, usage: _Usage) -> None:
        for name in _Usage.__struct_fields__:
            if value := getattr(usage, name):
                setattr(self._usage, name, value)
        self.seen.usage = usage_of(self._usage)
        self.seen.service_tier = _tier(self._usage)

    def ending(self, code: str, message: str, tokens_output: int) -> bytes:
        """Close the open block; message_delta with stop_reason "max_tokens"; message_stop."""
        events = b""
        if self._block is not None:
            events += _event("content_block_stop", index=self._block)
        events += _event(
            "message_delta",
            delta={"stop_reason": "max_tokens", "stop_sequence": None},
            usage={"output_tokens": tokens_output},
            tallystick={"code": code, "message": message},
        )
        self.is_ended = True
        return events + _event("message_stop")

    def failure(self, code: str, message: str) -> bytes:
        """An error event; the SDK raises APIStatusError."""
        return _event("error", error={"type": "api_error", "message": f"{message} ({code})"})


def _event(kind: str, **more: Any) -> bytes:
    text = _encode({"type": kind, **more})
    return b"event: " + kind.encode() + b"\ndata: " + text + b"\n\n"
