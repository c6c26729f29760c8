"""What metering reads from requests and answers: tables, and streams cut at any byte."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallystick.gateway.usage import openai_chat
from tallystick.sdk.metering.answers import Reading, Usage, anthropic_usage, openai_usage
from tallystick.sdk.metering.bodies import Dialect, bound_tokens, read_request
from tallystick.sdk.metering.server_sent import EventFilter


def chat_request(**changes: Any) -> Any:
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hello"}], **changes}
    return read_request("POST", "/v1/chat/completions", json.dumps(body).encode())


@pytest.mark.parametrize(
    ("method", "path", "dialect"),
    [
        ("POST", "/v1/chat/completions", Dialect.CHAT),
        ("POST", "/openai/deployments/x/chat/completions", Dialect.CHAT),
        ("POST", "/v1/responses", Dialect.RESPONSES),
        ("POST", "/v1/embeddings", Dialect.EMBEDDINGS),
        ("POST", "/v1/messages", Dialect.MESSAGES),
        ("GET", "/v1/responses", None),
        ("POST", "/v1/messages/count_tokens", None),
        ("POST", "/v1/messages/batches", None),
        ("POST", "/v1/files", None),
    ],
)
def test_only_what_costs_is_metered(method: str, path: str, dialect: Dialect | None) -> None:
    found = read_request(method, path, b'{"model":"m","messages":[]}')
    assert (found.dialect if found else None) == dialect


def test_usage_is_asked_for_only_when_the_caller_did_not() -> None:
    quiet = chat_request(stream=True, seed=7)
    assert quiet.hides_usage
    assert json.loads(quiet.body)["stream_options"] == {"include_usage": True}
    assert json.loads(quiet.body)["seed"] == 7
    asking = chat_request(stream=True, stream_options={"include_usage": True})
    assert not asking.hides_usage
    assert not chat_request().hides_usage


def test_the_output_ceiling_counts_every_choice() -> None:
    assert chat_request(max_completion_tokens=50, n=3).tokens_output_max == 150
    assert chat_request(max_completion_tokens=50, max_tokens=70).tokens_output_max == 70
    assert chat_request(max_completion_tokens=-1).tokens_output_max is None
    assert chat_request().tokens_output_max is None
    assert [chat_request(n=n).answers for n in (3, -2, None, True)] == [3, 1, 1, 1]


@pytest.mark.parametrize(
    ("said", "served"),
    [("priority", "priority"), ("default", ""), ("auto", None), (None, None), (7, None)],
)
def test_the_tier_that_served_goes_with_the_usage(said: Any, served: str | None) -> None:
    asked = chat_request(service_tier="flex")
    whole, stream = Reading(asked), Reading(asked)
    usage = {"prompt_tokens": 3, "completion_tokens": 2}
    answer = {"model": "m", "choices": [], "usage": usage, "service_tier": said}
    whole.take_answer(json.dumps(answer).encode())
    stream.take_event(answer)
    for reading in (whole, stream):
        assert reading.usage == Usage(tokens_input=3, tokens_output=2, service_tier=served)


def test_a_picture_is_not_text() -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 30_000}}
    assert 1600 <= bound_tokens([picture]) < 2000
    assert bound_tokens("é" * 30) == 20
    assert bound_tokens([1, 2, 3]) == 3


def test_openai_usage_with_cached_and_reasoning() -> None:
    reported = {
        "prompt_tokens": 100,
        "completion_tokens": 9,
        "prompt_tokens_details": {"cached_tokens": 40, "cache_write_tokens": 20},
        "completion_tokens_details": {"reasoning_tokens": 5},
    }
    assert openai_usage(reported) == Usage(
        tokens_input=100,
        tokens_output=9,
        tokens_cache_read=40,
        tokens_cache_write_5m=20,
        tokens_reasoning=5,
    )
    assert openai_usage({}) == Usage()
    assert openai_usage({"prompt_tokens": None, "completion_tokens": "x"}) == Usage()


@pytest.mark.parametrize(
    "reported",
    [
        {"completion_tokens_details": {"reasoning_tokens": 50}, "total_tokens": 160},
        {"completion_tokens_details": {"reasoning_tokens": 5}, "total_tokens": 110},
        {"prompt_cache_hit_tokens": 80, "prompt_cache_miss_tokens": 20},
        {"cached_tokens": 80},
        {"prompt_tokens": 100.0, "completion_tokens": 10.0},
    ],
)
def test_servers_that_count_otherwise_are_read_as_the_gateway_does(
    reported: dict[str, Any],
) -> None:
    reported = {"prompt_tokens": 100, "completion_tokens": 10, **reported}
    here = openai_usage(reported)
    there = openai_chat.usage_of(msgspec.convert(reported, openai_chat.ChatUsage, strict=False))
    for name in ("tokens_input", "tokens_output", "tokens_cache_read", "tokens_reasoning"):
        assert getattr(here, name) == getattr(there, name), name


def test_sound_is_told_apart() -> None:
    usage = openai_usage(
        {
            "prompt_tokens": 50,
            "completion_tokens": 40,
            "prompt_tokens_details": {"audio_tokens": 30},
            "completion_tokens_details": {"audio_tokens": 25},
        }
    )
    assert (usage.tokens_input_audio, usage.tokens_output_audio) == (30, 25)
    body = b'{"model":"gpt-audio","messages":[],"modalities":["text","audio"]}'
    asked = read_request("POST", "/v1/chat/completions", body)
    assert asked is not None and asked.has_audio


def test_anthropic_usage_includes_what_was_cached() -> None:
    reported = {"input_tokens": 5, "cache_read_input_tokens": 10, "cache_creation_input_tokens": 7}
    found = anthropic_usage({**reported, "output_tokens": 3})
    assert (found.tokens_input, found.tokens_cache_write_5m) == (22, 7)
    hour = {**reported, "cache_creation": {"ephemeral_1h_input_tokens": 7}}
    assert anthropic_usage(hour).tokens_cache_write_1h == 7
    assert anthropic_usage(hour).tokens_cache_write_5m == 0


def _stream(border: str) -> tuple[bytes, bytes]:
    head = {"id": "c", "model": "m"}
    seen = [
        {**head, "choices": [{"index": 0, "delta": {"content": "naïve"}}]},
        {**head, "choices": [{"index": 0, "delta": {"content": "ok"}, "finish_reason": "stop"}]},
    ]
    hidden = {**head, "choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": 2}}
    *shown, unseen = [f"data: {json.dumps(one)}{border}".encode() for one in [*seen, hidden]]
    done = f"data: [DONE]{border}".encode()
    return b"".join([*shown, unseen, done]), b"".join([*shown, done])


@given(
    cuts=st.lists(st.integers(0, 500), max_size=12), border=st.sampled_from(["\n\n", "\r\n\r\n"])
)
@settings(max_examples=60, deadline=None)
def test_a_stream_cut_anywhere_is_read_alike(cuts: list[int], border: str) -> None:
    sent, shown = _stream(border)
    places = sorted({0, len(sent), *(min(cut, len(sent)) for cut in cuts)})
    for hides in (True, False):
        reading = Reading(chat_request(stream=True))
        events = EventFilter(reading, hides_usage=hides)
        passed = b"".join(events.feed(sent[start:end]) for start, end in pairwise(places))
        passed += events.end()
        assert passed == (shown if hides else sent)
        assert reading.usage == Usage(tokens_input=10, tokens_output=2)


def test_a_stream_without_usage_is_estimated() -> None:
    reading = Reading(chat_request(stream=True))
    events = EventFilter(reading, hides_usage=True)
    sent, _ = _stream("\n\n")
    events.feed(sent[: sent.index(b'"finish_reason"')])
    found = reading.usage
    assert found.quality == "estimated"
    assert found.tokens_output == 2
    assert found.tokens_input == chat_request(stream=True).tokens_input


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": 0, "completion_tokens": 0}])
def test_an_answer_that_tells_no_usage_is_estimated_and_not_free(usage: Any) -> None:
    message = {"role": "assistant", "content": "tally " * 40}
    answer = {"model": "gpt-4o", "choices": [{"index": 0, "message": message}], "usage": usage}
    reading = Reading(chat_request(stream=False))
    reading.take_answer(json.dumps(answer).encode())
    assert reading.usage.quality == "estimated"
    assert reading.usage.tokens_output >= 40
    assert reading.usage.tokens_input > 0
