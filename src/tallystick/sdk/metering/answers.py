"""A provider's answer as metering sees it: the usage that it reports. Pure.

A `Reading` takes whole answers or the events of a stream, in any of the dialects, and keeps
counts alone, never text. When a stream ends before its usage was told, the output is
estimated from the size of what came, and the usage says so (`quality` "estimated").
"""

from __future__ import annotations

from typing import Any

import msgspec

from tallystick.sdk.metering.bodies import Dialect, ModelRequest, tier_of

_BYTES_PER_OUTPUT_TOKEN = 4


class Usage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a call used; input includes what was cached, output includes reasoning."""

    tokens_input: int = 0
    tokens_output: int = 0
    tokens_cache_read: int = 0
    tokens_cache_write_5m: int = 0
    tokens_cache_write_1h: int = 0
    tokens_reasoning: int = 0
    tokens_input_audio: int = 0
    """Part of the input."""
    tokens_output_audio: int = 0
    service_tier: str | None = None
    """The tier that served; None: the provider did not say."""
    quality: str = "exact"


def _count(content: Any, *path: str) -> int:
    for name in path:
        content = content.get(name) if isinstance(content, dict) else None
    if type(content) is float and content.is_integer():  # 12.0, as some servers write it
        content = int(content)
    return content if type(content) is int and content > 0 else 0


def openai_usage(reported: dict[str, Any]) -> Usage:
    """Read the `usage` of chat completions, responses or embeddings.

    Servers that speak the same differ, as the gateway's `usage.openai_chat` has it: xAI counts
    reasoning beside the completion, DeepSeek and Moonshot name cache hits their own way.
    """
    is_responses = "input_tokens" in reported
    before = "input_tokens" if is_responses else "prompt_tokens"
    after = "output_tokens" if is_responses else "completion_tokens"
    details = f"{before}_details"
    written = _count(reported, details, "cache_write_tokens")
    long_written = _count(reported, details, "cache_write_tokens_details", "ttl_12h_tokens")
    tokens_input, tokens_output = _count(reported, before), _count(reported, after)
    read = (
        _count(reported, details, "cached_tokens")
        or _count(reported, "prompt_cache_hit_tokens")
        or _count(reported, "cached_tokens")
    )
    read = min(read, tokens_input)
    written = min(written, tokens_input - read)
    reasoning = _count(reported, f"{after}_details", "reasoning_tokens")
    if reasoning and _count(reported, "total_tokens") == tokens_input + tokens_output + reasoning:
        tokens_output += reasoning
    return Usage(
        tokens_input=tokens_input,
        tokens_output=tokens_output,
        tokens_cache_read=read,
        tokens_cache_write_5m=max(written - long_written, 0),
        tokens_cache_write_1h=min(long_written, written),
        tokens_reasoning=min(reasoning, tokens_output),
        tokens_input_audio=min(_count(reported, details, "audio_tokens"), tokens_input),
        tokens_output_audio=min(
            _count(reported, f"{after}_details", "audio_tokens"), tokens_output
        ),
    )


def anthropic_usage(reported: dict[str, Any]) -> Usage:
    """Read the `usage` of messages, whose input leaves out what was cached."""
    read = _count(reported, "cache_read_input_tokens")
    hour = _count(reported, "cache_creation", "ephemeral_1h_input_tokens")
    written = _count(reported, "cache_creation_input_tokens")
    minutes = _count(reported, "cache_creation", "ephemeral_5m_input_tokens")
    minutes = max(minutes, written - hour)
    tokens_output = _count(reported, "output_tokens")
    reasoning = _count(reported, "output_tokens_details", "thinking_tokens")
    return Usage(
        tokens_input=_count(reported, "input_tokens") + read + minutes + hour,
        tokens_output=tokens_output,
        tokens_cache_read=read,
        tokens_cache_write_5m=minutes,
        tokens_cache_write_1h=hour,
        tokens_reasoning=min(reasoning, tokens_output),
    )


class Reading:
    """What was read of one answer so far."""

    def __init__(self, request: ModelRequest) -> None:
        self._request = request
        self._reported: dict[str, Any] = {}
        self._is_final = False
        self._pieces = 0
        self._bytes = 0
        self._is_unread = False
        self.tokens_output_bound = request.tokens_output_max or 0
        """The output that was set aside: what an answer is taken for that nobody can read."""
        self.served_model = ""
        self.answer_id = ""
        self.error_code = ""
        self._tier: str | None = None

    def take_answer(self, body: bytes) -> bool:
        """Read a whole answer; False when it is none."""
        try:
            content = msgspec.json.decode(body)
        except msgspec.DecodeError:
            return False
        if isinstance(content, dict):
            self._take_head(content)
            self._take_usage(content.get("usage"), is_final=True)
            if self.usage.quality == "estimated":
                for name in ("choices", "content", "output"):
                    self._take_piece(content.get(name))
        return True

    def take_unread(self) -> None:
        """The provider has made an answer that could not be read, or was not to its end."""
        self._is_unread = True

    def take_event(self, content: dict[str, Any]) -> bool:
        """Read one event of a stream; True when it says nothing but usage."""
        if self._request.dialect is Dialect.CHAT:
            return self._take_chunk(content)
        kind = str(content.get("type", ""))
        if self._request.dialect is Dialect.MESSAGES:
            self._take_messages_event(kind, content)
        else:
            self._take_responses_event(kind, content)
        return False

    def _take_head(self, content: dict[str, Any]) -> None:
        self.served_model = self.served_model or str(content.get("model") or "")[:128]
        self.answer_id = self.answer_id or str(content.get("id") or "")[:128]
        self._take_tier(content.get("service_tier"))

    def _take_tier(self, said: Any) -> None:
        if isinstance(said, str) and said != "auto":
            self._tier = tier_of(said)

    def _take_usage(self, reported: Any, *, is_final: bool) -> None:
        if isinstance(reported, dict):
            told = {name: value for name, value in reported.items() if value is not None}
            self._reported |= told
            self._take_tier(told.get("service_tier"))
            self._is_final = self._is_final or is_final

    def _take_chunk(self, content: dict[str, Any]) -> bool:
        self._take_head(content)
        self._take_usage(content.get("usage"), is_final=True)
        choices = content.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            self._take_piece(choice.get("delta") if isinstance(choice, dict) else None)
        return choices == [] and isinstance(content.get("usage"), dict)

    def _take_messages_event(self, kind: str, content: dict[str, Any]) -> None:
        if kind == "message_start" and isinstance(content.get("message"), dict):
            self._take_head(content["message"])
            self._take_usage(content["message"].get("usage"), is_final=False)
        elif kind == "message_delta":
            self._take_usage(content.get("usage"), is_final=True)
        elif kind == "content_block_delta":
            self._take_piece(content.get("delta"))
        elif kind == "error":
            self._take_error(content.get("error"))

    def _take_responses_event(self, kind: str, content: dict[str, Any]) -> None:
        if isinstance(content.get("response"), dict):
            self._take_head(content["response"])
            self._take_usage(content["response"].get("usage"), is_final=True)
            if kind == "response.failed":
                self._take_error(content["response"].get("error"))
        elif kind.endswith(".delta"):
            self._take_piece(content.get("delta"))
        elif kind == "error":
            self._take_error(content)

    def _take_error(self, error: Any) -> None:
        named = (error.get("code") or error.get("type")) if isinstance(error, dict) else None
        self.error_code = str(named or "provider_error")[:128]

    def _take_piece(self, piece: Any) -> None:
        size = _size_of(piece)
        if size:
            self._pieces += 1
            self._bytes += size

    @property
    def usage(self) -> Usage:
        """What was used: as the provider told, or estimated from what came."""
        is_messages = self._request.dialect is Dialect.MESSAGES
        told = anthropic_usage(self._reported) if is_messages else openai_usage(self._reported)
        if self._tier is not None:
            told = msgspec.structs.replace(told, service_tier=self._tier)
        if self._is_final and (told.tokens_input or told.tokens_output):
            return told  # a report of nothing is none: no answer is free
        output = max(self._pieces, -(-self._bytes // _BYTES_PER_OUTPUT_TOKEN))
        if self._is_unread:
            output = max(output, self.tokens_output_bound)
        return msgspec.structs.replace(
            told,
            tokens_input=told.tokens_input or self._request.tokens_input,
            tokens_output=max(told.tokens_output, output),
            quality="estimated",
        )

    @property
    def is_final(self) -> bool:
        """Whether the provider has told the usage of the whole answer."""
        return self._is_final


def _size_of(piece: Any) -> int:
    """Bytes of text in a piece of an answer, however it is nested."""
    if isinstance(piece, str):
        return len(piece) if piece.isascii() else len(piece.encode("utf-8", "replace"))
    if isinstance(piece, dict):
        return sum(_size_of(one) for name, one in piece.items() if name not in ("role", "type"))
    if isinstance(piece, list):
        return sum(_size_of(one) for one in piece)
    return 0
