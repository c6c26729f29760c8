"""Anthropic's SDK through the gateway."""

from __future__ import annotations

from typing import Any

import anthropic
import pytest

from tests.gateway.place import Place, ask

MODEL = "claude-haiku-4-5"
TOOL: Any = {"name": "get_weather", "input_schema": {"type": "object"}}


def test_a_message_says_what_it_cost(place: Place) -> None:
    raw = place.anthropic().messages.with_raw_response.create(
        model=MODEL, max_tokens=300, messages=ask("#normal in=1000 out=100 cached=400 written=200#")
    )
    message = raw.parse()
    assert message.usage.output_tokens == 100 and message.usage.input_tokens == 400
    # 400 x 1 + 400 x 0.10 + 200 x 1.25 + 100 x 5 dollars a million
    assert raw.headers["x-tallystick-cost-usd"] == "0.00119"
    event = place.event(raw.headers["x-tallystick-run"])
    assert event["tokens_cache_write_5m"] == 200
    assert place.usage(raw.headers["x-tallystick-run"]) == (1000, 100, 400, "exact")
    assert place.has_no_hold()


@pytest.mark.parametrize("piece", [0, 3])
def test_a_stream_adds_up_from_its_first_and_last_event(place: Place, piece: int) -> None:
    raw = place.anthropic().messages.with_raw_response.create(
        model=MODEL,
        max_tokens=300,
        messages=ask(f"#normal in=500 out=40 cached=100 written=50 piece={piece}#"),
        stream=True,
        metadata={"user_id": "u-1"},
    )
    events = list(raw.parse())
    assert events[-1].type == "message_stop"
    run = raw.headers["x-tallystick-run"]
    assert place.usage(run) == (500, 40, 100, "exact")
    assert place.event(run)["user"] == "u-1"


def test_tools_and_token_counts(place: Place) -> None:
    message = place.anthropic().messages.create(
        model=MODEL, max_tokens=300, messages=ask("#normal answer=tool#"), tools=[TOOL]
    )
    assert message.content[0].type == "tool_use"
    counted = place.anthropic().messages.count_tokens(model=MODEL, messages=ask("#normal in=77#"))
    assert counted.input_tokens == 77


def test_errors_have_anthropics_shape(place: Place) -> None:
    poor = place.account("poor")
    with pytest.raises(anthropic.APIStatusError) as caught:
        place.anthropic(poor, retries=2).messages.create(
            model=MODEL, max_tokens=300, messages=ask("x")
        )
    assert caught.value.status_code == 402
    body: Any = caught.value.body
    assert body["error"]["type"] == "billing_error"
    assert body["error"]["code"] == "credit_exhausted"
    with pytest.raises(anthropic.APIStatusError) as caught:
        place.anthropic().messages.create(model=MODEL, max_tokens=300, messages=ask("#overloaded#"))
    assert caught.value.status_code == 529


def test_a_stream_ends_cleanly_where_the_money_ends(place: Place) -> None:
    short = place.account("short-anthropic", "0.1")
    raw = place.anthropic(short).messages.with_raw_response.create(
        model=MODEL, max_tokens=100, messages=ask("#slow rate=500 in=20 out=2000#"), stream=True
    )
    events = list(raw.parse())
    assert [event.type for event in events[-3:]] == [
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    delta: Any = events[-2]
    assert delta.delta.stop_reason == "max_tokens"
    assert delta.model_extra["tallystick"]["code"] == "credit_exhausted"
    assert place.has_no_hold(short)
