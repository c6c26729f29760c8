"""Scripts: what the upstream is asked to do by the mark in a request's text.

normal      answers as a provider does
rate_limit  429 with Retry-After; `times=2` only the first two requests of that `key`
overloaded  500 (OpenAI) or 529 (Anthropic); `times`, `key` as above
refused     400, as for a wrong parameter
stall       nothing for `seconds`, then the answer; a stream stalls after its first piece
cut         the connection closes in the middle of the answer
corrupt     the answer is no JSON; one event of a stream is no JSON
no_usage    the answer says nothing of usage
slow        a stream at `rate` tokens a second
unstreamed  the whole answer, also when a stream is asked for
unclosed    a stream whose connection breaks after its last event
lingering   a stream that stays open for `seconds` after its last event
zipped      the answer is compressed, asked for or not
"""

from __future__ import annotations

import re

import msgspec

_MARK = re.compile(rb"#(normal|rate_limit|overloaded|refused|stall|cut|corrupt|no_usage|slow"
                   rb"|unstreamed|unclosed|lingering|zipped)"
                   rb"((?: [a-z_]+=[\w.\-]+)*)#")  # fmt: skip


class Script(msgspec.Struct):
    """One script with its figures."""

    name: str = "normal"
    tokens_input: int = 0
    tokens_output: int = 20
    tokens_cached: int = 0
    tokens_written: int = 0
    tokens_reasoning: int = 0
    tokens_heard: int = 0
    """Of the input, sound."""
    tokens_spoken: int = 0
    seconds: float = 5.0
    rate: float = 20.0
    times: int = 0
    key: str = ""
    tier: str = "default"
    """The service tier that it says it served."""
    answer: str = "text"
    """text, tool or json."""
    is_thinking: bool = False
    is_reasoning: bool = False
    usage_form: str = "own_chunk"
    """own_chunk (choices empty), last_chunk (with choices) or every_chunk."""
    piece_bytes: int = 0
    """Cut what a stream sends into pieces of so many bytes; 0 sends whole events."""


_NAMES = {
    "in": "tokens_input",
    "out": "tokens_output",
    "cached": "tokens_cached",
    "written": "tokens_written",
    "reasoning": "tokens_reasoning",
    "heard": "tokens_heard",
    "spoken": "tokens_spoken",
    "usage": "usage_form",
    "piece": "piece_bytes",
}


def script_of(body: bytes) -> Script:
    """Read the mark of a request body.

    >>> script_of(b'... #normal in=7 out=3# ...').tokens_input
    7
    """
    match = _MARK.search(body)
    if match is None:
        return Script(
            tokens_input=8 + len(body) // 16,
            answer="tool" if b'"tools"' in body else "text",
            is_thinking=b'"thinking"' in body,
            is_reasoning=b'"reasoning' in body,
            tokens_reasoning=7 if b'"reasoning' in body else 0,
        )
    figures = {"tokens_input": str(8 + len(body) // 16)}
    for pair in match[2].decode().split():
        name, _, value = pair.partition("=")
        figures[_NAMES.get(name, name)] = value
    return msgspec.convert({"name": match[1].decode(), **figures}, Script, strict=False)
