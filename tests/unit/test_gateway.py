"""The gateway's pure parts: usage, event splitting, routing, settings, estimates."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallystick.access import Principal
from tallystick.clock import SECOND, FixedClock
from tallystick.enforcement.calls.usage_event import check_usage, events_of
from tallystick.errors import InvalidInput
from tallystick.events.adapters import parse_body
from tallystick.events.redaction import Redactor
from tallystick.gateway import routing
from tallystick.gateway.attribution import place_of
from tallystick.gateway.estimate import IMAGE_TOKENS_MAX, bound_input
from tallystick.gateway.headers import answer_headers, passed_on
from tallystick.gateway.health import Health
from tallystick.gateway.money import Usage
from tallystick.gateway.routing import CLOSED, BreakerState, Choice, RetryBudget, plan_choices
from tallystick.gateway.settings import (
    GatewaySettings,
    ModelRoute,
    Target,
    Upstream,
    check_settings,
    load_gateway_settings,
)
from tallystick.gateway.surfaces import SURFACES
from tallystick.gateway.surfaces.openai_chat import CHAT
from tallystick.gateway.surfaces.openai_embeddings import EMBEDDINGS
from tallystick.header_text import header_text
from tallystick.usage import anthropic, believed, openai_chat, openai_responses
from tallystick.usage.server_sent import EventSplitter, event_text

FIXTURES = Path(__file__).parents[1] / "fixtures" / "usage" / "answers.json"
READERS: dict[str, Any] = {
    "openai_chat": openai_chat,
    "openai_responses": openai_responses,
    "anthropic": anthropic,
}
OPENAI = Upstream("openai", name="a", base_url="http://a/v1")
OTHER = Upstream("openai_compatible", name="b", base_url="http://b/v1", models=("llama-*",))
CLAUDE = Upstream("anthropic", name="c", base_url="http://c/v1")


@pytest.mark.parametrize(
    "case", json.loads(FIXTURES.read_text("utf-8")), ids=lambda case: str(case["name"])
)
def test_usage_of_each_provider(case: dict[str, Any]) -> None:
    seen = READERS[case["reader"]].read_answer(msgspec.json.encode(case["answer"]))
    assert seen.usage == Usage(**case["expected"])
    assert seen.served_model == case["answer"]["model"]


@given(
    st.lists(
        st.tuples(
            st.sampled_from([b"data: 1", b": x", b"event: a\ndata: 2", b"data: a\ndata: b"]),
            st.sampled_from([b"\n\n", b"\r\n\r\n", b"\n\r\n", b"\r\n\n", b"\r\r\n"]),
        )
    ),
    st.sampled_from([b"\n", b"\r\n"]),
    st.sampled_from([b"", b"\xef\xbb\xbf"]),
    st.lists(st.integers(0, 60), max_size=12),
)
@settings(max_examples=150, deadline=None)
def test_events_are_the_same_wherever_the_stream_is_cut(
    ended: list[tuple[bytes, bytes]], line: bytes, mark: bytes, cuts: list[int]
) -> None:
    events = [event.replace(b"\n", line) for event, _ in ended]
    whole = b"".join(event + end for event, (_, end) in zip(events, ended, strict=True))
    whole = mark + whole if whole else b""
    places = [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
    splitter = EventSplitter()
    found = [one for start, end in pairwise(places) for one in splitter.feed(whole[start:end])]
    assert b"".join(found) == whole and not splitter.rest
    texts = {
        b"data: 1": b"1",
        b": x": b"",
        b"event: a\ndata: 2": b"2",
        b"data: a\ndata: b": b"a\nb",
    }
    assert [event_text(one) for one in found] == [texts[event] for event, _ in ended]


def test_lines_may_end_with_cr_alone() -> None:
    splitter = EventSplitter()
    (event,) = splitter.feed(b"event: a\rdata: 1\rdata: 2\r\r:")
    assert event_text(event) == b"1\n2"


_COUNT = st.integers(-10, 3 * 10**9) | st.integers(0, 50)


@given(
    st.tuples(_COUNT, _COUNT, _COUNT, _COUNT, _COUNT, _COUNT),
    st.dictionaries(st.sampled_from(["web_search", "x"]), st.integers(-5, 10**6)),
)
def test_whatever_a_provider_reports_can_be_settled(
    counts: tuple[int, int, int, int, int, int], tools: dict[str, int]
) -> None:
    names = ("input", "output", "cache_read", "cache_write_5m", "cache_write_1h", "reasoning")
    reported = Usage(
        **{f"tokens_{name}": count for name, count in zip(names, counts, strict=True)},  # type: ignore[arg-type]
        tools=tools,
    )
    estimate = Usage(tokens_input=7, tokens_output=3, quality="estimated")
    usage = believed(reported, estimate)
    check_usage(usage)
    assert usage.tokens_input or usage.tokens_output


def test_a_breaker_opens_rests_and_lets_one_look() -> None:
    state = CLOSED
    for now in range(1, 5):
        state = routing.after_failure(state, now)
        assert routing.may_try(state, now)
    state = routing.after_failure(state, 5)
    assert not routing.may_try(state, 6)
    later = 5 + routing.REST
    assert routing.may_try(state, later)
    state = routing.after_trial(state, later)
    assert not routing.may_try(state, later + 1)
    assert routing.after_trial(BreakerState(2), 9) == BreakerState(2)


def test_a_call_that_was_not_sent_leaves_the_trial_to_another() -> None:
    """An upstream is back; who cannot pay asks all the time, and another asks once."""
    clock = FixedClock(10**15)
    health = Health(clock, 0.2, lambda: 0.0)
    choice = Choice(OPENAI, "gpt-4o")
    for _ in range(routing.FAILURES_MAX):
        assert health.take(choice, "acme")
        health.failed(OPENAI)
        health.give_back(OPENAI)
    assert not health.take(choice, "broke")
    health.give_back(OPENAI, is_sent=False)  # of a call from before: it ends no rest
    assert not health.take(choice, "broke")
    clock.micros += routing.REST
    for _ in range(3):
        assert health.take(choice, "broke")
        health.give_back(OPENAI, is_sent=False)
    assert health.take(choice, "acme")
    assert not health.take(choice, "broke")
    health.succeeded(OPENAI)
    assert health.take(choice, "broke")


def test_the_next_choice_is_the_one_after_that_which_failed() -> None:
    """Also when one before it is out of order: the third target has its turn."""
    health = Health(FixedClock(10**15), 0.2, lambda: 0.0)
    choices = [Choice(Upstream("openai", name=name), "m") for name in ("shut", "failing", "good")]
    assert health.take_next(choices, None, "acme") == 0
    for _ in range(routing.FAILURES_MAX):
        health.failed(choices[0].upstream)
    assert health.take_next(choices, None, "acme") == 1
    assert health.take_next(choices, 1, "acme") == 2
    assert health.take_next(choices, 2, "acme") == 1, "around, and past what is shut"
    assert health.take_next(choices[:1], None, "acme") is None


def test_a_clock_that_stepped_back_shuts_nothing_for_as_long() -> None:
    clock = FixedClock(10**15)
    health = Health(clock, 0.2, lambda: 0.0)
    big, small = (Choice(OPENAI, name) for name in ("big", "small"))
    health.limited(big, "acme", "60")
    for _ in range(routing.FAILURES_MAX):
        health.failed(OPENAI)
    assert not health.take(small, "acme")
    clock.micros -= 3600 * SECOND
    assert health.take(small, "acme"), "one may look"
    health.succeeded(OPENAI)
    assert health.take(big, "acme")
    assert health.rest_seconds([big], "acme") == 0


def test_a_rate_limit_rests_one_target_of_one_tenant_and_no_breaker() -> None:
    clock = FixedClock(0)
    health = Health(clock, 0.2, lambda: 0.0)
    upstream = Upstream("openai", name="a")
    big, small = Choice(upstream, "big"), Choice(upstream, "small")
    health.failed(upstream)
    for _ in range(routing.FAILURES_MAX):
        health.limited(big, "acme", "7")
    assert not health.take(big, "acme")
    assert health.take(small, "acme")
    assert health.take(big, "other")
    assert health.rest_seconds([small, big], "acme") == 7
    assert health.rest_seconds([small], "acme") == 0
    clock.micros = 7 * SECOND
    assert health.rest_seconds([big], "acme") == 0
    assert health.take(big, "acme")


def test_retries_draw_on_what_first_attempts_earned() -> None:
    budget: RetryBudget | None = RetryBudget()
    count = 0
    while budget is not None and (budget := budget.after_retry()) is not None:
        count += 1
    assert count == routing.RETRIES_SAVED_MAX
    empty = RetryBudget(0.0)
    assert empty.after_first(0.5).after_retry() is None
    assert empty.after_first(0.5).after_first(0.5).after_retry() is not None


@given(st.floats(0, 0.999999), st.lists(st.integers(0, 9), min_size=1, max_size=5))
def test_every_target_is_tried_once_and_weights_decide_the_first(
    random: float, weights: list[int]
) -> None:
    targets = [Target("a", str(index), weight) for index, weight in enumerate(weights)]
    order = routing.order_by_weight(targets, random)
    assert sorted(order, key=lambda one: one.model) == targets
    assert order[0].weight or not any(weights)


def test_where_a_model_goes() -> None:
    route = ModelRoute(
        targets=(Target("a", "gpt-4o"), Target("c", "claude")), fallbacks=(Target("b", "llama-3"),)
    )
    set_up = GatewaySettings(
        upstreams={"b": OTHER, "a": OPENAI, "c": CLAUDE},
        routes={"best": route, "gone": ModelRoute(targets=(Target("a"),), is_off=True)},
    )

    def names(speaks: str, model: str) -> list[str]:
        choices, _ = plan_choices(set_up, speaks, model, 0.0)
        return [f"{choice.upstream.name}/{choice.model}" for choice in choices]

    assert names("openai", "llama-3") == ["b/llama-3"]
    assert names("openai", "gpt-4o") == ["a/gpt-4o"]
    assert names("anthropic", "claude-x") == ["c/claude-x"]
    assert names("openai", "best") == ["a/gpt-4o", "b/llama-3"]
    assert names("anthropic", "best") == ["c/claude"]
    assert names("openai", "gone") == []


def test_settings_are_checked(tmp_path: Path) -> None:
    assert not load_gateway_settings("", {}).upstreams
    made = load_gateway_settings("", {"OPENAI_API_KEY": "sk-1", "ANTHROPIC_API_KEY": "sk-2"})
    assert made.upstreams["openai"].base_url == "https://api.openai.com/v1"
    for wrong in (
        GatewaySettings(upstreams={"x": Upstream("openai", base_url="file:///etc/passwd")}),
        GatewaySettings(upstreams={"x": Upstream("openai", api_key="env:NOT_SET")}),
        GatewaySettings(routes={"r": ModelRoute(targets=(Target("none"),))}),
        GatewaySettings(upstreams={"x": Upstream("openai_compatible")}),
    ):
        with pytest.raises(InvalidInput):
            check_settings(wrong, {})


def test_a_body_changes_only_where_it_must() -> None:
    body = (
        b'{"model":"fast","messages":[ {"role": "user","content":"\\u00e9"} ],"stream":true,'
        b'"seed":1.50,"stream_options":{"x":1},"model":"slow"}'
    )
    asked = CHAT.read(body)
    assert asked.model == "slow" and not asked.wants_usage
    sent = CHAT.body_for(asked, "gpt-4o", OPENAI)
    assert b'[ {"role": "user","content":"\\u00e9"} ]' in sent and b"1.50" in sent
    assert sent.count(b'"model"') == 1 and b'"model":"gpt-4o"' in sent
    assert json.loads(sent)["stream_options"] == {"x": 1, "include_usage": True}


@pytest.mark.parametrize("surface", SURFACES, ids=lambda one: one.name)
@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b'{"model":1}', b'{"model":""}', b"[" * 5000, b"\xff"]
)
def test_what_cannot_be_read_is_refused(surface: Any, body: bytes) -> None:
    with pytest.raises(InvalidInput):
        surface.read(body)


@pytest.mark.parametrize(
    ("surface", "name", "least"),
    [
        ("openai_chat", "max_tokens", 1),
        ("openai_chat", "max_completion_tokens", 1),
        ("openai_responses", "max_output_tokens", 1),
        ("anthropic_messages", "max_tokens", 0),
    ],
)
def test_a_maximum_below_the_least_is_refused_by_name(surface: str, name: str, least: int) -> None:
    (read,) = [one.read for one in SURFACES if one.name == surface]
    for asked in (least - 1, -(10**6)):
        other = {"max_tokens": 60_000} if name != "max_tokens" else {}
        with pytest.raises(InvalidInput) as refused:
            read(msgspec.json.encode({"model": "m", **other, name: asked}))
        assert refused.value.field == name
    assert read(msgspec.json.encode({"model": "m", name: least})).tokens_output_max == least
    assert read(msgspec.json.encode({"model": "m", name: None})).tokens_output_max is None


def test_of_two_maxima_the_larger_is_held_for() -> None:
    for maxima in ((10, 60_000), (60_000, 10)):
        names = ("max_completion_tokens", "max_tokens")
        body = {"model": "m", "n": 2, **dict(zip(names, maxima, strict=True))}
        assert CHAT.read(msgspec.json.encode(body)).tokens_output_max == 120_000


@pytest.mark.parametrize(
    ("said", "answers"), [({}, 1), ({"n": None}, 1), ({"n": 128}, 128), ({"n": 2, "best_of": 9}, 9)]
)
def test_every_answer_that_is_asked_for_counts(said: dict[str, Any], answers: int) -> None:
    asked = CHAT.read(msgspec.json.encode({"model": "m", **said}))
    assert (asked.answers, asked.tokens_output_max) == (answers, None)
    asked = CHAT.read(msgspec.json.encode({"model": "m", "max_tokens": 10, **said}))
    assert asked.tokens_output_max == 10 * answers


@pytest.mark.parametrize(
    ("said", "tier"),
    [("priority", "priority"), ("standard", "standard"), (None, None), (7, None), ("\0", None)],
)
def test_anthropic_says_in_its_usage_what_served(said: Any, tier: str | None) -> None:
    usage = {"input_tokens": 5, "output_tokens": 7, "service_tier": said}
    whole = anthropic.read_answer(msgspec.json.encode({"model": "m", "usage": usage}))
    reader = anthropic.MessagesReader()
    for event in (
        {"type": "message_start", "message": {"model": "m", "usage": usage}},
        {"type": "message_delta", "usage": {"output_tokens": 7}},
    ):
        reader.read(b"", msgspec.json.encode(event))
    for seen in (whole, reader.seen):
        assert seen.service_tier == tier
        assert seen.usage is not None and seen.usage.tokens_output == 7


def escaped(text: str, names: tuple[str, ...]) -> bytes:
    """JSON whose names are spelled as escapes."""
    for name in names:
        spelled = "".join(f"\\u{ord(letter):04x}" for letter in name)
        text = text.replace(f'"{name}', f'"{spelled}')
    return text.replace("/", "\\/").encode()


def test_a_spelling_hides_no_name() -> None:
    text = '{"model":"m","messages":[{"content":[%s]}]}'
    cached = escaped(text % '{"type":"text","cache_control":{}}', ("cache_control",))
    sound = escaped(text % '{"type":"input_audio"}', ("type", "input_audio"))
    file = escaped(text % '{"file":{"file_data":"data:audio/wav;base64,AA"}}', ("file_data",))
    picture = escaped(text % '{"image_url":{"url":"http://a/b"}}', ("image_url",))
    (messages,) = [one for one in SURFACES if one.name == "anthropic_messages"]
    assert b"cache_control" not in cached and b"input_audio" not in sound
    assert messages.read(cached).has_cache_write
    assert CHAT.read(sound).has_audio and CHAT.read(file).has_audio
    assert CHAT.read(picture).tokens_input > IMAGE_TOKENS_MAX
    plain = CHAT.read(escaped(text % '{"text":"a/b, cd\\u00e9"}', ("text",)))
    assert not plain.has_audio and plain.tokens_input < 100


@pytest.mark.parametrize("write", [float, str, "{}.0".format])
def test_a_whole_number_counts_however_it_is_written(write: Any) -> None:
    chat = {"prompt_tokens": write(1000), "completion_tokens": write(20)}
    others = {"input_tokens": write(1000), "output_tokens": write(20)}
    wanted = Usage(tokens_input=1000, tokens_output=20)
    for name, usage in (("openai_chat", chat), ("openai_responses", others), ("anthropic", others)):
        body = msgspec.json.encode({"model": "m", "usage": usage})
        assert READERS[name].read_answer(body).usage == wanted
        assert READERS[name].read_answer(b"\xef\xbb\xbf" + body).usage == wanted  # its clients do
    reader = openai_chat.ChatReader(is_usage_hidden=True)
    assert reader.read(b"x", msgspec.json.encode({"choices": [], "usage": chat})) == b""
    assert reader.seen.usage == wanted
    broken = {"prompt_tokens": 10.5, "completion_tokens": 1}
    assert openai_chat.read_answer(msgspec.json.encode({"usage": broken})).usage is None


def test_text_in_a_list_of_parts_counts() -> None:
    reader = openai_chat.ChatReader(is_usage_hidden=False)
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}
    for content in ([{"type": "text", "text": "hello"}], [thought], "plain"):
        reader.read(b"", msgspec.json.encode({"choices": [{"delta": {"content": content}}]}))
    assert (reader.text_bytes, reader.pieces) == (12, 3)


def test_a_zero_at_the_end_takes_nothing_back() -> None:
    reader = anthropic.MessagesReader()
    first = {"input_tokens": 900, "output_tokens": 1, "cache_read_input_tokens": 50}
    last = {"input_tokens": 0, "output_tokens": 7, "cache_read_input_tokens": 0}
    for event in (
        {"type": "message_start", "message": {"model": "m", "usage": first}},
        {"type": "message_delta", "usage": last},
    ):
        reader.read(b"", msgspec.json.encode(event))
    assert reader.seen.usage == Usage(tokens_input=950, tokens_output=7, tokens_cache_read=50)
    chat = openai_chat.ChatReader(is_usage_hidden=False)
    for counts in ((900, 7), (0, 0)):
        usage = dict(zip(("prompt_tokens", "completion_tokens"), counts, strict=True))
        chat.read(b"", msgspec.json.encode({"choices": [], "usage": usage}))
    assert chat.seen.usage == Usage(tokens_input=900, tokens_output=7)


def test_pictures_count_by_size_not_by_bytes() -> None:
    picture = json.dumps(
        {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 900_000}}
    )
    assert IMAGE_TOKENS_MAX <= bound_input(picture.encode()) < 3 * IMAGE_TOKENS_MAX
    assert bound_input(b"a word " * 600) == 1400


def test_a_key_says_more_than_a_header_and_a_header_more_than_a_body() -> None:
    who = Principal("k", frozenset(), frozenset(), tenant_id="t", attribution={"team": "key"})
    headers = [(b"x-tallystick-team", b"header"), (b"x-tallystick-feature", b"header"),
               (b"x-tallystick-account", b"other"), (b"x-tallystick-run", b"r")]  # fmt: skip
    place = place_of(who, headers, {"feature": "body", "product": "body", "junk": "x"})
    assert place.attribution == {"team": "key", "feature": "header", "product": "body"}
    assert (place.run_id, place.account_id, place.attempt) == ("r", "", 1)
    with pytest.raises(InvalidInput):
        place_of(who, [(b"x-tallystick-run", b"x" * 200)], {})
    with pytest.raises(InvalidInput):
        place_of(who, [(b"x-tallystick-attempt", b"0")], {})


def test_a_body_made_for_the_provider_is_not_refused_for_its_marks() -> None:
    who = Principal("k", frozenset(), frozenset(), tenant_id="t")
    place = place_of(who, [], {"user": "می\u200cشود\n", "team": "\x00"})
    assert place.attribution == {"user": "میشود"}


@pytest.mark.parametrize("said", [b"Zo\xc3\xab", b"Zo%C3%AB"])
def test_a_name_beyond_ascii_is_read_as_it_is_or_encoded(said: bytes) -> None:
    who = Principal("k", frozenset(), frozenset(), tenant_id="t")
    place = place_of(who, [(b"x-tallystick-user", said), (b"x-tallystick-team", b"a%20b")], {})
    assert place.attribution == {"user": "Zoë", "team": "a%20b"}


def test_betas_that_are_named_line_by_line_are_all_passed_on() -> None:
    lines = [(b"anthropic-beta", b"one"), (b"x-api-key", b"sk"), (b"anthropic-beta", b"two")]
    found = passed_on(lines, "anthropic")
    assert found["anthropic-beta"] == "one,two" and "x-api-key" not in found


def test_an_upstreams_word_on_trying_again_is_passed_on() -> None:
    said = {"retry-after": "7", "x-should-retry": "false", "set-cookie": "a=b"}
    assert answer_headers(said) == {"retry-after": "7", "x-should-retry": "false"}


@pytest.mark.parametrize("more", [{}, {"latency_ms": 5, "attrs": {"outcome": "completed"}}])
def test_a_call_s_event_is_what_the_door_would_make_of_it(more: dict[str, Any]) -> None:
    """Its digest too: "exact" is said though it is the default."""
    messages = [
        {
            "event_id": "call:1",
            "event_type": "token_usage",
            "event_time": "2026-01-31T12:00:00Z",
            "tenant_id": "acme",
            "usage_quality": "exact",
            "tokens_input": 7,
            **more,
        }
    ]
    now, redactor = 2 * 10**15, Redactor(b"k" * 32)
    parsed = parse_body(
        msgspec.json.encode(messages),
        content_type="application/json",
        content_encoding="",
        headers={},
        received_at=now,
        redactor=redactor,
    )
    assert events_of(messages, now, redactor) == parsed.events
    with pytest.raises(InvalidInput):
        events_of([{**messages[0], "tenant_id": ""}], now, redactor)


@pytest.mark.parametrize("said", ["r\u20ac", "запуск-7", "\udcff", "a\r\nb: c", "100%"])
def test_what_an_answer_says_of_its_call_can_always_be_sent(said: str) -> None:
    sent = header_text(said)
    assert sent.isascii() and sent.isprintable()
    assert answer_headers({"x-request-id": said}) == {"x-request-id": sent}


@pytest.mark.parametrize("name", ["openai_chat", "openai_responses", "anthropic"])
def test_an_answer_that_nests_too_deeply_has_no_usage(name: str) -> None:
    deep = b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    assert READERS[name].read_answer(deep).error_code == "answer_unreadable"


def test_a_response_that_is_null_can_be_ended() -> None:
    reader = openai_responses.ResponsesReader()
    text = b'{"type":"response.created","response":null}'
    reader.read(b"data: " + text + b"\n\n", text)
    assert b'"status":"incomplete"' in reader.ending("budget_exceeded", "no more", 1)


def test_an_embedding_of_token_numbers_is_bounded_by_their_count() -> None:
    numbers = msgspec.json.encode({"model": "m", "input": [7] * 900})
    assert EMBEDDINGS.read(numbers).tokens_input >= 900
