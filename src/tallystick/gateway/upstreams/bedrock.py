"""AWS Bedrock: OpenAI chat by Converse, Anthropic messages by InvokeModel.

Converse has one shape for all models; its inputTokens leave cached ones out. Claude's own
body passes through InvokeModel as it is, without `model` and `stream`, which the path says,
with the version that Bedrock asks for. Streams are frames of AWS's own (`aws.py`).
Source: docs.aws.amazon.com/bedrock/latest/APIReference (Converse, ConverseStream, InvokeModel,
InvokeModelWithResponseStream), as in botocore's model bedrock-runtime 2023-09-30;
anthropic-python 2.12 lib/bedrock.
"""

from __future__ import annotations

import base64
from typing import Any

import msgspec

from tallystick.gateway.model import Asked
from tallystick.gateway.upstreams.aws import Frame, FrameSplitter
from tallystick.gateway.upstreams.chat_answer import (
    Choice,
    ChunkWriter,
    Counts,
    tool_call,
    write_answer,
)
from tallystick.gateway.upstreams.chat_request import read_chat
from tallystick.gateway.upstreams.converse import write_request
from tallystick.gateway.upstreams.translation import quoted

_CARRIED = frozenset(
    ("tools", "tool_choice", "response_format", "stop", "temperature", "top_p", "max_tokens",
     "max_completion_tokens")
)  # fmt: skip
_FINISHES = {
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "guardrail_intervened": "content_filter",
    "content_filtered": "content_filter",
}
_VERSION = "bedrock-2023-05-31"


class _Usage(msgspec.Struct, rename="camel"):
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_input_tokens: int = 0
    cache_write_input_tokens: int = 0


class _ToolUse(msgspec.Struct, rename="camel"):
    tool_use_id: str = ""
    name: str = ""
    input: Any = None


class _ReasoningText(msgspec.Struct):
    text: str = ""


class _Reasoning(msgspec.Struct, rename="camel"):
    reasoning_text: _ReasoningText | None = None
    text: str = ""


class _Block(msgspec.Struct, rename="camel"):
    """A block of an answer, or what a stream adds to one."""

    text: str = ""
    tool_use: _ToolUse | None = None
    reasoning_content: _Reasoning | None = None


class _Message(msgspec.Struct):
    content: list[_Block] = []


class _Output(msgspec.Struct):
    message: _Message


class _Answer(msgspec.Struct, rename="camel"):
    output: _Output
    stop_reason: str = "end_turn"
    usage: _Usage | None = None


class _Event(msgspec.Struct, rename="camel"):
    content_block_index: int = 0
    start: _Block | None = None
    delta: _Block | None = None
    stop_reason: str | None = None
    usage: _Usage | None = None


class _Chunk(msgspec.Struct):
    bytes: str = ""


class _Typed(msgspec.Struct):
    type: str = ""


class _Failed(msgspec.Struct):
    message: str = ""


_encode = msgspec.json.Encoder().encode


def _error_message(body: bytes) -> str:
    try:
        return msgspec.json.decode(body, type=_Failed).message
    except msgspec.DecodeError:
        return ""


def counts_of(usage: _Usage | None) -> Counts | None:
    """Converse's counts as OpenAI's."""
    if usage is None:
        return None
    read, written = usage.cache_read_input_tokens, usage.cache_write_input_tokens
    total = usage.input_tokens + read + written
    return Counts(total, usage.output_tokens, cached=read, written=written)


class ConverseChat:
    """Chat completions by Converse."""

    speaks = "openai"

    def path(self, model: str, *, is_stream: bool) -> str:
        """The model's operation; raises Unsupported."""
        return f"/model/{quoted(model)}/" + ("converse-stream" if is_stream else "converse")

    def body(self, asked: Asked, model: str, beta: str) -> bytes:
        """The request; raises Unsupported."""
        return _encode(write_request(read_chat(asked.fields, _CARRIED)))

    def answer(self, body: bytes, model: str, created: int) -> bytes:
        """A whole answer."""
        read = msgspec.json.decode(body, type=_Answer)
        blocks = read.output.message.content
        calls = [
            tool_call(one.tool_use_id, one.name, _encode(one.input or {}).decode())
            for block in blocks
            if (one := block.tool_use) is not None
        ]
        text = "".join(block.text for block in blocks) or None
        reasoning = "".join(_reasoning(block) for block in blocks)
        finish = _FINISHES.get(read.stop_reason, "stop")
        choice = Choice(0, text, reasoning, calls, finish)
        return write_answer("chatcmpl-0", model, created, [choice], counts_of(read.usage))

    def error_message(self, body: bytes) -> str:
        """What an error says."""
        return _error_message(body)

    def stream(self, model: str, created: int) -> ConverseStream:
        """A translator for one stream."""
        return ConverseStream(model, created)


class ConverseStream:
    """Turns frames of ConverseStream into chat completion chunks."""

    def __init__(self, model: str, created: int) -> None:
        self._splitter = FrameSplitter()
        self._writer = ChunkWriter(model, created)
        self._tools: dict[int, int] = {}
        """Content block -> place among the tool calls."""
        self._counts: Counts | None = None
        self._is_whole = False

    def feed(self, piece: bytes) -> bytes:
        """Take what came; return chunks."""
        return b"".join([self._frame(frame) for frame in self._splitter.feed(piece)])

    def _frame(self, frame: Frame) -> bytes:
        if frame.is_failure:
            return self._writer.error(_error_message(frame.payload), frame.kind)
        try:
            event = msgspec.json.decode(frame.payload, type=_Event)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return b"data: " + frame.payload + b"\n\n"
        if frame.kind == "messageStop":
            self._is_whole = True
            finish = _FINISHES.get(event.stop_reason or "", "stop")
            return self._writer.chunk(Choice(0, None, "", [], finish))
        if frame.kind == "metadata":
            self._counts = counts_of(event.usage)
            return b""
        block = event.start or event.delta or _Block()
        calls = self._calls(event, is_start=event.start is not None)
        return self._writer.chunk(Choice(0, block.text or None, _reasoning(block), calls, None))

    def _calls(self, event: _Event, *, is_start: bool) -> list[dict[str, Any]]:
        block = event.start or event.delta
        if block is None or block.tool_use is None:
            return []
        index = self._tools.setdefault(event.content_block_index, len(self._tools))
        if is_start:
            call = tool_call(block.tool_use.tool_use_id, block.tool_use.name, "")
            return [{"index": index, **call}]
        return [{"index": index, "function": {"arguments": block.tool_use.input or ""}}]

    def end(self) -> bytes:
        """Usage and [DONE], once the message has ended."""
        return self._writer.last(self._counts) if self._is_whole else b""


def _reasoning(block: _Block) -> str:
    content = block.reasoning_content
    if content is None:
        return ""
    return content.reasoning_text.text if content.reasoning_text else content.text


class InvokeMessages:
    """Anthropic messages by InvokeModel."""

    speaks = "anthropic"

    def path(self, model: str, *, is_stream: bool) -> str:
        """The model's operation; raises Unsupported."""
        operation = "invoke-with-response-stream" if is_stream else "invoke"
        return f"/model/{quoted(model)}/{operation}"

    def body(self, asked: Asked, model: str, beta: str) -> bytes:
        """The request as it is; betas, which Anthropic takes as a header, go with it."""
        fields: dict[str, Any] = {
            name: raw for name, raw in asked.fields.items() if name not in ("model", "stream")
        }
        fields.setdefault("anthropic_version", _VERSION)
        if beta:
            fields.setdefault("anthropic_beta", [one.strip() for one in beta.split(",")])
        return _encode(fields)

    def answer(self, body: bytes, model: str, created: int) -> bytes:
        """A whole answer: it is Anthropic's own."""
        return body

    def error_message(self, body: bytes) -> str:
        """What an error says."""
        return _error_message(body)

    def stream(self, model: str, created: int) -> InvokeStream:
        """A translator for one stream."""
        return InvokeStream()


class InvokeStream:
    """Takes Anthropic's events out of their frames."""

    def __init__(self) -> None:
        self._splitter = FrameSplitter()

    def feed(self, piece: bytes) -> bytes:
        """Take what came; return events."""
        return b"".join([self._frame(frame) for frame in self._splitter.feed(piece)])

    def _frame(self, frame: Frame) -> bytes:
        if frame.is_failure:
            text = f"{_error_message(frame.payload)} ({frame.kind})"
            error = {"type": "error", "error": {"type": "api_error", "message": text}}
            return b"event: error\ndata: " + _encode(error) + b"\n\n"
        try:
            event = base64.b64decode(msgspec.json.decode(frame.payload, type=_Chunk).bytes)
            kind = msgspec.json.decode(event, type=_Typed).type
        except (msgspec.DecodeError, UnicodeDecodeError, ValueError):
            return b"data: " + frame.payload + b"\n\n"
        return b"event: " + kind.encode() + b"\ndata: " + event + b"\n\n"

    def end(self) -> bytes:
        """Nothing: message_stop was the end."""
        return b""
