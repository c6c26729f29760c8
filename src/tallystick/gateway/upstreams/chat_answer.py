"""OpenAI chat answers and chunks, written for upstreams that say it in other words.

Usage is always written, as OpenAI does when asked: within the answer, or in a last chunk
without choices; the surface hides it from a client that did not ask. In a stream, what an
upstream says of usage before its end goes with a chunk, so that an answer that breaks off is
charged by it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

_encode = msgspec.json.Encoder().encode


class Counts(NamedTuple):
    """Usage as OpenAI counts it: input with cached tokens, output with reasoning."""

    tokens_input: int
    tokens_output: int
    cached: int = 0
    written: int = 0
    reasoning: int = 0
    audio_input: int = 0
    audio_output: int = 0

    def as_usage(self) -> dict[str, Any]:
        """`usage` of a chat completion."""
        input_details = {"cached_tokens": self.cached, "audio_tokens": self.audio_input}
        if self.written:
            input_details["cache_write_tokens"] = self.written
        return {
            "prompt_tokens": self.tokens_input,
            "completion_tokens": self.tokens_output,
            "total_tokens": self.tokens_input + self.tokens_output,
            "prompt_tokens_details": input_details,
            "completion_tokens_details": {
                "reasoning_tokens": self.reasoning,
                "audio_tokens": self.audio_output,
            },
        }


class Choice(NamedTuple):
    """One answer of a model, or a piece of it."""

    number: int
    text: str | None
    reasoning: str
    tool_calls: list[dict[str, Any]]
    """As in a message; in a piece each has its `index`."""
    finish: str | None
    refusal: str | None = None

    def message(self) -> dict[str, Any]:
        """`message`, or `delta` of what there is."""
        calls = [{k: v for k, v in call.items() if k != "index"} for call in self.tool_calls]
        said = {"role": "assistant", "content": self.text, "refusal": self.refusal}
        return {**said, **self.delta(), **({"tool_calls": calls} if calls else {})}

    def delta(self) -> dict[str, Any]:
        """`delta`: what there is, and no more."""
        said = {
            "content": self.text,
            "refusal": self.refusal,
            "reasoning_content": self.reasoning,
            "tool_calls": self.tool_calls,
        }
        return {name: value for name, value in said.items() if value}


def tool_call(call_id: str, name: str, arguments: str) -> dict[str, Any]:
    """A call of a function."""
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def write_answer(
    answer_id: str, model: str, created: int, choices: list[Choice], counts: Counts | None
) -> bytes:
    """A chat completion."""
    answer = {
        "id": answer_id,
        "object": "chat.completion",
        "created": created,
        "model": model,
        "choices": [
            {
                "index": one.number,
                "message": one.message(),
                "logprobs": None,
                "finish_reason": one.finish or "stop",
            }
            for one in choices
        ],
    }
    if counts is not None:
        answer["usage"] = counts.as_usage()
    return _encode(answer)


class ChunkWriter:
    """Writes the chunks of one stream."""

    def __init__(self, model: str, created: int) -> None:
        self.answer_id = "chatcmpl-0"
        self.model = model
        self._created = created
        self._begun: set[int] = set()

    def chunk(self, choice: Choice, counts: Counts | None = None) -> bytes:
        """A piece of an answer; b"" when there is nothing in it."""
        delta = choice.delta()
        if choice.number not in self._begun:
            self._begun.add(choice.number)
            delta = {"role": "assistant", "content": "", **delta}
        if not delta and choice.finish is None:
            return b""
        one = {
            "index": choice.number,
            "delta": delta,
            "logprobs": None,
            "finish_reason": choice.finish,
        }
        return self._write([one], counts)

    def last(self, counts: Counts | None) -> bytes:
        """Usage in a chunk of its own, and the end."""
        usage = self._write([], counts) if counts is not None else b""
        return usage + b"data: [DONE]\n\n"

    def error(self, message: str, code: str) -> bytes:
        """An error event."""
        error = {"message": message, "type": "upstream_error", "param": None, "code": code}
        return b"data: " + _encode({"error": error}) + b"\n\n"

    def _write(self, choices: list[dict[str, Any]], counts: Counts | None) -> bytes:
        content: dict[str, Any] = {
            "id": self.answer_id,
            "object": "chat.completion.chunk",
            "created": self._created,
            "model": self.model,
            "choices": choices,
        }
        if counts is not None:
            content["usage"] = counts.as_usage()
        return b"data: " + _encode(content) + b"\n\n"
