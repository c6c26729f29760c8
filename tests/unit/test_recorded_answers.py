"""Real answers of providers: usage is what they say, whole and in streams cut anywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallystick.gateway.upstreams.bedrock import ConverseChat, InvokeMessages
from tallystick.gateway.upstreams.gemini import GeminiChat
from tallystick.gateway.upstreams.translation import Translation
from tallystick.usage import (
    Seen,
    StreamedAnswer,
    StreamReader,
    anthropic,
    believed,
    estimated_usage,
    openai_chat,
    openai_responses,
)

_FOLDER = Path(__file__).parents[1] / "fixtures" / "recorded"
_INDEX: list[dict[str, Any]] = msgspec.json.decode((_FOLDER / "index.json").read_bytes())
_WHOLE = [one for one in _INDEX if not one["kind"].endswith("-stream")]
_STREAMS = [one for one in _INDEX if one["kind"].endswith("-stream")]
_TRANSLATIONS: dict[str, tuple[Translation, str]] = {
    "gemini": (GeminiChat(), "chat"),
    "converse": (ConverseChat(), "chat"),
    "invoke": (InvokeMessages(), "messages"),
}
_READ = {
    "chat": openai_chat.read_answer,
    "embeddings": openai_chat.read_answer,
    "responses": openai_responses.read_answer,
    "messages": anthropic.read_answer,
}
_COUNTS = (
    "tokens_input",
    "tokens_output",
    "tokens_cache_read",
    "tokens_cache_write_5m",
    "tokens_cache_write_1h",
    "tokens_reasoning",
)


def counts_of(seen: Seen) -> dict[str, int] | None:
    if seen.usage is None:
        return None
    return {name: count for name in _COUNTS if (count := getattr(seen.usage, name))}


def reader_of(kind: str) -> StreamReader:
    if kind == "responses":
        return openai_responses.ResponsesReader()
    if kind == "messages":
        return anthropic.MessagesReader()
    return openai_chat.ChatReader(is_usage_hidden=True)


@pytest.mark.parametrize("one", _WHOLE, ids=lambda one: str(one["file"]))
def test_a_whole_answer(one: dict[str, Any]) -> None:
    body = (_FOLDER / one["file"]).read_bytes()
    kind = one["kind"]
    if kind in _TRANSLATIONS:
        translation, kind = _TRANSLATIONS[kind]
        body = translation.answer(body, "asked-for", 1_790_000_000)
    seen = _READ[kind](body)
    assert counts_of(seen) == one.get("expected")
    assert not seen.error_code


def read_stream(one: dict[str, Any], sizes: list[int]) -> StreamReader:
    """Read a recorded stream in pieces of these sizes, in turn."""
    text = (_FOLDER / one["file"]).read_bytes()
    kind = one["kind"].removesuffix("-stream")
    translator = None
    if kind in _TRANSLATIONS:
        translation, kind = _TRANSLATIONS[kind]
        translator = translation.stream("asked-for", 1_790_000_000)
    stream = StreamedAnswer(reader_of(kind))
    start = turn = 0
    while start < len(text):
        piece = text[start : start + sizes[turn % len(sizes)]]
        start, turn = start + len(piece), turn + 1
        stream.feed(translator.feed(piece) if translator else piece)
    if translator:
        stream.feed(translator.end())
    stream.end()
    return stream.reader


@pytest.mark.parametrize("one", _STREAMS, ids=lambda one: str(one["file"]))
@settings(max_examples=12, deadline=None)
@given(sizes=st.lists(st.integers(1, 3000), min_size=1, max_size=4))
def test_a_stream_cut_anywhere(one: dict[str, Any], sizes: list[int]) -> None:
    reader = read_stream(one, sizes)
    assert counts_of(reader.seen) == one.get("expected")
    assert reader.is_ended and not reader.seen.error_code
    assert reader.text_bytes > 0


@pytest.mark.parametrize("one", _STREAMS, ids=lambda one: str(one["file"]))
def test_a_stream_byte_by_byte(one: dict[str, Any]) -> None:
    assert counts_of(read_stream(one, [1]).seen) == one.get("expected")


@pytest.mark.parametrize("one", _STREAMS, ids=lambda one: str(one["file"]))
def test_a_translation_does_not_depend_on_the_cuts(one: dict[str, Any]) -> None:
    kind = one["kind"].removesuffix("-stream")
    if kind not in _TRANSLATIONS:
        return
    text = (_FOLDER / one["file"]).read_bytes()

    def translated(size: int) -> bytes:
        stream = _TRANSLATIONS[kind][0].stream("asked-for", 1_790_000_000)
        pieces = [stream.feed(text[at : at + size]) for at in range(0, len(text), size)]
        return b"".join(pieces) + stream.end()

    assert translated(len(text)) == translated(1) == translated(97)


def test_an_answer_that_says_nothing_of_its_input_is_not_free_of_it() -> None:
    """Gemini leaves promptTokenCount out at times."""
    one = next(one for one in _INDEX if one["file"] == "gemini-stream-2.sse")
    usage = believed(read_stream(one, [64]).seen.usage, estimated_usage(321, 5))
    assert (usage.tokens_input, usage.tokens_output, usage.tokens_reasoning) == (321, 90, 67)
    assert usage.quality == "estimated"
