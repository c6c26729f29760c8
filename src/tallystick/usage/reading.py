"""What all readers share: what can be believed of a report, and what is estimated without."""

from __future__ import annotations

import re
from typing import Any, Protocol

import msgspec

from tallystick.bounds import ID_LENGTH_MAX, TOKENS_MAX
from tallystick.usage.model import TOKEN_COUNTS, Seen, Usage

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What a decoder raises of an answer that is not JSON, is of another shape or nests too deeply."""

MARK = b"\xef\xbb\xbf"
"""A byte order mark, which some servers begin with: their clients read what follows."""


class StreamReader(Protocol):
    """Reads the events of one answer as they pass by."""

    seen: Seen
    text_bytes: int
    """Generated text so far: content, reasoning, tool arguments."""
    pieces: int
    """Events that carried some; each is a token at least."""
    is_ended: bool
    """The protocol's own last event was seen, or an error in its place."""

    def read(self, event: bytes, text: bytes) -> bytes:
        """Take one event (and its data); return what the client is sent of it (b"": nothing)."""
        ...

    def ending(self, code: str, message: str, tokens_output: int) -> bytes:
        """The events that end the answer here, in the protocol's own way."""
        ...

    def failure(self, code: str, message: str) -> bytes:
        """The event that says that the answer broke off."""
        ...


_BYTES_PER_TOKEN_MEAN = 4
_PIECE_BYTES_MAX = 7


def estimate_output(text_bytes: int, pieces: int = 0) -> int:
    """The tokens that generated text has about.

    Most streams bring a token in each piece, 4 to 5 bytes of English; where pieces are
    larger they hold several, and bytes tell more.

    >>> estimate_output(41, pieces=8), estimate_output(400, pieces=8)
    (8, 100)
    """
    if text_bytes <= pieces * _PIECE_BYTES_MAX:
        return pieces
    return -(-text_bytes // _BYTES_PER_TOKEN_MEAN)


def tokens_so_far(reader: StreamReader) -> int:
    """Output tokens generated so far, by estimate."""
    return estimate_output(reader.text_bytes, reader.pieces)


def tier_said(value: object) -> str | None:
    """The tier that an answer says it was served by; None when it names none.

    >>> tier_said("flex"), tier_said("auto"), tier_said(7)
    ('flex', None, None)
    """
    if not isinstance(value, str) or not 0 < len(value) <= ID_LENGTH_MAX:
        return None
    return value if value.isprintable() and value != "auto" else None


_ERROR_NAME = re.compile(r"[\w.:-]{1,64}")


def error_said(error: Any) -> str:
    """The name that an answer gives its error; no text of its own.

    >>> error_said({"code": None, "type": "overloaded_error"}), error_said("what was asked")
    ('overloaded_error', 'upstream_error_event')
    """
    named = (error.get("code") or error.get("type")) if isinstance(error, dict) else None
    name = str(named)
    return name if named and _ERROR_NAME.fullmatch(name) else "upstream_error_event"


_TOOL_USES_MAX = 1_000
"""Uses of a paid tool that are believed of one answer."""


def believed(reported: Usage | None, estimate: Usage) -> Usage:
    """What a provider reported where it can be true, made whole; else the estimate.

    An answer that says it used nothing, or less than nothing, did not say what it used: it is
    charged by estimate, never free; so is its input, when it says nothing of that (Gemini, at
    times). More cached than there was input is input all the same.
    """
    if reported is None:
        return estimate
    counts = [getattr(reported, name) for name in TOKEN_COUNTS]
    if not all(0 <= count <= TOKENS_MAX for count in counts) or not any(counts[:2]):
        return estimate
    tools = {name: min(uses, _TOOL_USES_MAX) for name, uses in reported.tools.items() if uses > 0}
    whole = msgspec.structs.replace(
        reported,
        tokens_reasoning=min(reported.tokens_reasoning, reported.tokens_output),
        tokens_input_audio=_part(reported.tokens_input_audio, reported.tokens_input),
        tokens_output_audio=_part(reported.tokens_output_audio, reported.tokens_output),
        tools=tools,
    )
    cached = sum(counts[2:5])
    if not whole.tokens_input and not cached:
        return msgspec.structs.replace(
            whole, tokens_input=estimate.tokens_input, quality="estimated"
        )
    if cached <= whole.tokens_input:
        return whole
    if cached > TOKENS_MAX:
        return estimate
    return msgspec.structs.replace(whole, tokens_input=cached, quality="estimated")


def _part(count: int, whole: int) -> int:
    return min(max(count, 0), whole)


def used(seen: Seen, tokens_input: int, tokens_output: int) -> Usage:
    """The provider's count; of what broke off, what it said first and the estimates."""
    estimate = estimated_usage(tokens_input, tokens_output)
    if seen.usage is not None or seen.began is None:
        return believed(seen.usage, estimate)
    output = max(seen.began.tokens_output, tokens_output)
    began = msgspec.structs.replace(seen.began, tokens_output=output, quality="estimated")
    return believed(began, estimate)


def estimated_usage(tokens_input: int, tokens_output: int) -> Usage:
    """Usage that nobody reported."""
    return Usage(tokens_input=tokens_input, tokens_output=tokens_output, quality="estimated")
