"""What metering reads from requests and answers: tables, and streams cut at any byte."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallystick.sdk.metering.answers import Reading
from tallystick.sdk.metering.bodies import Dialect, bound_tokens, read_request
from tallystick.usage import Usage


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


def test_fast_mode_is_asked_for_as_the_tier_that_it_is() -> None:
    body = {"model": "claude-opus-5", "max_tokens": 5, "messages": [], "service_tier": "auto"}
    asked = [{**body, "speed": speed} for speed in ("fast", "standard", None)]
    found = [read_request("POST", "/v1/messages", json.dumps(one).encode()) for one in asked]
    assert [one.service_tier for one in found if one] == ["fast", "", ""]


def test_a_picture_is_not_text() -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 30_000}}
    assert 1600 <= bound_tokens([picture]) < 2000
    assert bound_tokens("é" * 30) == 20
    assert bound_tokens([1, 2, 3]) == 3


def test_sound_is_told_apart() -> None:
    body = b'{"model":"gpt-audio","messages":[],"modalities":["text","audio"]}'
    asked = read_request("POST", "/v1/chat/completions", body)
    assert asked is not None and asked.has_audio


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
        reading = Reading(chat_request(stream=True, stream_options={"include_usage": not hides}))
        passed = b"".join(reading.feed(sent[start:end]) for start, end in pairwise(places))
        passed += reading.end()
        assert reading.is_whole
        assert passed == (shown if hides else sent)
        assert reading.usage == Usage(tokens_input=10, tokens_output=2)


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": 0, "completion_tokens": 0}])
def test_an_answer_that_tells_no_usage_is_estimated_and_not_free(usage: Any) -> None:
    message = {"role": "assistant", "content": "tally " * 40}
    answer = {"model": "gpt-4o", "choices": [{"index": 0, "message": message}], "usage": usage}
    reading = Reading(chat_request(stream=False))
    reading.take_answer(json.dumps(answer).encode())
    assert reading.usage.quality == "estimated"
    assert reading.usage.tokens_output >= 40
    assert reading.usage.tokens_input > 0


_DEEP = b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"


@pytest.mark.parametrize(
    "body", [b"", b"{", _DEEP, b'{"usage":{"prompt_tokens":1.5}}', b'{"model":"\xff"}']
)
def test_what_cannot_be_read_pays_the_output_that_was_set_aside(body: bytes) -> None:
    """And nothing is raised in the application, which may read it all the same."""
    whole = Reading(chat_request(max_tokens=60_000))
    whole.take_answer(body)
    assert (whole.usage.tokens_output, whole.usage.quality) == (60_000, "estimated")
    stream = Reading(chat_request(stream=True))
    event = b"data: " + body + b"\n\n"
    assert stream.feed(event) + stream.end() == event


def test_a_name_that_is_no_text_hides_nothing() -> None:
    event = b'data: {"choices":[{"finish_reason":"stop"}],"usage":{"prompt_tokens":1},"\xff":1}\n\n'
    reading = Reading(chat_request(stream=True))
    assert reading.feed(event) == event
    assert reading.usage.tokens_input == 1


def test_an_error_in_a_stream_is_told_by_its_name() -> None:
    for error, code in (({"type": "overloaded_error"}, "overloaded_error"),
                        ({"code": 502, "message": "away"}, "502"),
                        ("Sorry, what you asked", "upstream_error_event")):  # fmt: skip
        reading = Reading(chat_request(stream=True))
        event = {"error": error, "usage": {"prompt_tokens": 1}}
        assert b'"error"' in reading.feed(b"data: " + json.dumps(event).encode() + b"\n\n")
        assert (reading.seen.error_code, reading.is_whole) == (code, True)
