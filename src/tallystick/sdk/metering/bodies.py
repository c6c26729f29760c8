"""A provider's request as metering sees it: which dialect, which model, how much at most. Pure.

Input tokens are bounded from the text's size, not counted: a tokenizer costs megabytes and
milliseconds, and the charge is made from the provider's own count anyway. Three bytes of
UTF-8 a token is above what common tokenizers need for prose, code and Chinese; text of
random digits may need more, and then the settlement exceeds the hold, by the account's
policy. What is base64 is counted as an image or file, not as text.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Any, NamedTuple

import msgspec

from tallystick.bounds import ID_LENGTH_MAX, TOKENS_MAX
from tallystick.usage.anthropic import FAST

_BYTES_PER_TOKEN = 3
_TOKENS_PER_IMAGE = 1600
_TOKENS_PER_ITEM = 4
_ENCODED_BYTES_MIN = 512
"""Base64 shorter than this is taken for text: it makes no difference."""


class Dialect(StrEnum):
    """How an endpoint reports usage."""

    CHAT = "chat"
    RESPONSES = "responses"
    EMBEDDINGS = "embeddings"
    MESSAGES = "messages"


_DIALECT_OF_PATH = {
    "/chat/completions": Dialect.CHAT,
    "/responses": Dialect.RESPONSES,
    "/embeddings": Dialect.EMBEDDINGS,
    "/v1/messages": Dialect.MESSAGES,
}

_ANSWERS_MAX = 1_000
_STANDARD_TIERS = ("auto", "default", "standard", "standard_only")
_CEILINGS = ("max_completion_tokens", "max_tokens", "max_output_tokens")


_HAS_AUDIO = re.compile(rb'"type"\s*:\s*"input_audio"')


class ModelRequest(NamedTuple):
    """One request to a provider."""

    dialect: Dialect
    model: str
    tokens_input: int
    tokens_output_max: int | None
    """That of all answers together."""
    answers: int
    is_stream: bool
    is_background: bool
    """It is answered at once and worked on later: its usage is told to no request of ours."""
    has_cache_write: bool
    has_audio: bool
    """Sound goes in, or is asked for."""
    service_tier: str
    hides_usage: bool
    """Usage must be asked for, and hidden from a caller who did not ask."""
    body: bytes
    """What is sent: as given, or with usage asked for."""


def read_request(method: str, path: str, body: bytes) -> ModelRequest | None:
    """Read a request; None when it is not one that costs."""
    dialect = next((one for end, one in _DIALECT_OF_PATH.items() if path.endswith(end)), None)
    if method != "POST" or dialect is None:
        return None
    try:
        content = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return None
    if not isinstance(content, dict) or not isinstance(content.get("model"), str):
        return None
    is_stream = content.get("stream") is True
    must_ask = dialect is Dialect.CHAT and is_stream and not _asks_for_usage(content)
    return ModelRequest(
        dialect=dialect,
        model=content["model"][:ID_LENGTH_MAX],
        tokens_input=min(bound_tokens(content), TOKENS_MAX),
        tokens_output_max=_output_max(dialect, content),
        answers=_answers(content),
        is_stream=is_stream,
        is_background=dialect is Dialect.RESPONSES and content.get("background") is True,
        has_cache_write=b'"cache_control"' in body,
        has_audio=_has_audio(content, body),
        service_tier=FAST if content.get("speed") == FAST else tier_of(content.get("service_tier")),
        hides_usage=must_ask,
        body=_with_usage(content) if must_ask else body,
    )


def _asks_for_usage(content: dict[str, Any]) -> bool:
    options = content.get("stream_options")
    return isinstance(options, dict) and options.get("include_usage") is True


def _has_audio(content: dict[str, Any], body: bytes) -> bool:
    modalities = content.get("modalities")
    asked = isinstance(modalities, list) and "audio" in modalities
    return asked or (b"input_audio" in body and _HAS_AUDIO.search(body) is not None)


def _with_usage(content: dict[str, Any]) -> bytes:
    options = content.get("stream_options")
    asked = {**(options if isinstance(options, dict) else {}), "include_usage": True}
    return msgspec.json.encode({**content, "stream_options": asked})


def _output_max(dialect: Dialect, content: dict[str, Any]) -> int | None:
    if dialect is Dialect.EMBEDDINGS:
        return 0
    named = [found for name in _CEILINGS if isinstance(found := content.get(name), int)]
    ceiling = max(named, default=0)
    return min(ceiling * _answers(content), TOKENS_MAX) if ceiling > 0 else None


def _answers(content: dict[str, Any]) -> int:
    named = (content.get(name) for name in ("n", "best_of"))
    most = max((one for one in named if isinstance(one, int)), default=1)
    return min(max(most, 1), _ANSWERS_MAX)


def tier_of(value: Any) -> str:
    """The tier that a request asks for or an answer names; "" is the standard one.

    >>> tier_of("flex"), tier_of("default"), tier_of(None)
    ('flex', '', '')
    """
    is_named = isinstance(value, str) and value.isprintable() and value not in _STANDARD_TIERS
    return value[:ID_LENGTH_MAX] if is_named else ""


def bound_tokens(value: Any) -> int:
    """Bound the input tokens of a decoded body.

    >>> bound_tokens({"messages": [{"role": "user", "content": "four words stand here"}]})
    16
    """
    if isinstance(value, str):
        return _text_tokens(value)
    if isinstance(value, dict):
        return sum(_member_tokens(name, one) for name, one in value.items())
    if isinstance(value, list):
        if value and isinstance(value[0], int):  # text that is tokens already
            return len(value)
        return sum(bound_tokens(one) + _TOKENS_PER_ITEM for one in value)
    return 1


def _member_tokens(name: str, value: Any) -> int:
    if name in _NOT_INPUT:
        return 0
    if name in ("data", "file_data", "b64_json") and isinstance(value, str):
        return _encoded_tokens(value)
    return 1 + bound_tokens(value)


_NOT_INPUT = frozenset(
    ("model", "stream", "stream_options", "metadata", "user", "temperature", "top_p", *_CEILINGS)
)


def _text_tokens(text: str) -> int:
    if text.startswith("data:"):
        return _encoded_tokens(text)
    size = len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
    return -(-size // _BYTES_PER_TOKEN)


def _encoded_tokens(text: str) -> int:
    if len(text) < _ENCODED_BYTES_MIN:
        return -(-len(text) // _BYTES_PER_TOKEN)
    # an image costs by its area, at most this; a document by its pages, about 50 KB each
    return max(_TOKENS_PER_IMAGE, len(text) // 32)
