"""What an upstream can do to us: every fault ends its hold, and is told in the right words."""

from __future__ import annotations

import anthropic
import httpx
import openai
import pytest

from tests.gateway.place import Place, ask

MODEL = "gpt-4o"


def chat(place: Place, mark: str, **more: object) -> httpx.Response:
    return httpx.post(
        place.url + "/openai/v1/chat/completions",
        json={"model": MODEL, "messages": ask(mark), **more},
        headers={"Authorization": f"Bearer {place.key}", **place.headers()},
        timeout=30,
    )


def test_429_is_passed_on_with_its_wait_and_rests_that_model_alone(place: Place) -> None:
    """More of them than failures that open a breaker: other models are not refused."""
    for _ in range(6):
        answer = chat(place, "#rate_limit#", model="gpt-4o-mini")
        assert answer.status_code == 429 and answer.headers["retry-after"] == "1"
    assert chat(place, "#normal#").status_code == 200
    assert place.has_no_hold()


def test_a_failure_is_tried_again_within_the_budget(place: Place) -> None:
    assert chat(place, "#overloaded times=1 key=once#").status_code == 200
    assert chat(place, "#overloaded times=9 key=nine#").status_code == 500
    assert chat(place, "#refused#").status_code == 400
    assert place.has_no_hold()


def test_the_sdk_tries_again_and_pays_once(place: Place) -> None:
    raw = place.openai(retries=3).chat.completions.with_raw_response.create(
        model=MODEL,
        messages=ask("#rate_limit times=2 key=sdk in=50 out=5#"),
        extra_headers={"X-Tallystick-Run": "run-sdk-retry"},
    )
    assert raw.parse().usage is not None
    assert place.usage("run-sdk-retry") == (50, 5, 0, "exact")


def test_an_upstream_that_is_away_is_502(place: Place) -> None:
    answer = chat(place, "#normal#", model="lost")
    assert answer.status_code == 502
    assert answer.json()["error"]["code"] == "upstream_unreachable"
    assert place.has_no_hold()


def test_a_token_count_says_nothing_of_our_key_either(place: Place) -> None:
    answer = httpx.post(
        place.url + "/openai/v1/responses/input_tokens",
        json={"model": "keyless", "input": "x"},
        headers={"Authorization": f"Bearer {place.key}", **place.headers()},
        timeout=30,
    )
    assert answer.status_code == 502
    assert answer.json()["error"]["code"] == "upstream_key_refused"


def test_a_stall_is_504_and_a_cut_is_502(place: Place) -> None:
    answer = chat(place, "#stall seconds=20#")
    assert answer.status_code == 504 and answer.json()["error"]["code"] == "upstream_timeout"
    answer = chat(place, "#cut#")
    assert answer.status_code == 502 and answer.json()["error"]["code"] == "upstream_cut"
    assert place.has_no_hold()


def test_what_says_no_usage_is_estimated(place: Place) -> None:
    answer = chat(place, "#no_usage out=40#")
    usage = place.usage(answer.headers["x-tallystick-run"])
    assert usage[3] == "estimated" and usage[1] >= 40
    corrupt = chat(place, "#corrupt out=40#")
    assert corrupt.status_code == 200
    assert place.usage(corrupt.headers["x-tallystick-run"])[3] == "estimated"
    stream = chat(place, "#no_usage out=40#", stream=True)
    usage = place.usage(stream.headers["x-tallystick-run"])
    assert usage[3] == "estimated" and 40 <= usage[1] <= 80


def test_a_stream_that_breaks_after_its_last_event_is_whole(place: Place) -> None:
    answer = chat(place, "#unclosed in=30 out=4#", stream=True)
    assert answer.text.endswith("data: [DONE]\n\n")
    assert place.usage(answer.headers["x-tallystick-run"]) == (30, 4, 0, "exact")
    client = place.anthropic()
    events = list(
        client.messages.create(
            model="claude-haiku-4-5",
            max_tokens=100,
            messages=ask("#unclosed in=30 out=4#"),
            stream=True,
        )
    )
    assert events[-1].type == "message_stop"
    assert place.has_no_hold()


def test_who_leaves_after_the_last_event_has_lost_nothing(place: Place) -> None:
    client = place.openai()
    stream = client.chat.completions.create(
        model=MODEL,
        messages=ask("#lingering seconds=20 in=30 out=4#"),
        stream=True,
        extra_headers={"X-Tallystick-Run": "left-at-the-end"},
    )
    assert len(list(stream)) == 6  # the SDK goes at [DONE]; its upstream stays
    event = place.event("left-at-the-end")
    assert (event["usage_quality"], event.get("error_code")) == ("exact", None)
    assert place.has_no_hold()


def test_a_stream_that_breaks_off_says_so(place: Place) -> None:
    with pytest.raises(openai.APIError, match="broke off"):
        list(
            place.openai().chat.completions.create(
                model=MODEL, messages=ask("#cut out=40#"), stream=True
            )
        )
    with pytest.raises(openai.APIError, match="in time"):
        list(
            place.openai().chat.completions.create(
                model=MODEL, messages=ask("#stall seconds=20 out=40#"), stream=True
            )
        )
    with pytest.raises(anthropic.APIStatusError, match="broke off"):
        list(
            place.anthropic().messages.create(
                model="claude-haiku-4-5",
                max_tokens=100,
                messages=ask("#cut out=40#"),
                stream=True,
            )
        )
    assert place.has_no_hold()


@pytest.mark.parametrize("is_stream", [False, True])
def test_an_answer_that_is_no_stream_or_compressed_is_read_all_the_same(
    place: Place, is_stream: bool
) -> None:
    for mark in ("unstreamed", "zipped"):
        answer = chat(place, f"#{mark} in=300 out=40#", stream=is_stream)
        assert answer.status_code == 200 and b"tally" in answer.content
        assert place.usage(answer.headers["x-tallystick-run"]) == (300, 40, 0, "exact"), mark
    assert place.has_no_hold()


def test_a_corrupt_event_passes_and_the_rest_is_counted(place: Place) -> None:
    answer = chat(place, "#corrupt in=30 out=40#", stream=True)
    assert b'{"broken' in answer.content and answer.content.endswith(b"[DONE]\n\n")
    assert place.usage(answer.headers["x-tallystick-run"]) == (30, 40, 0, "exact")


def test_a_report_that_contradicts_itself_is_made_whole_and_charged(place: Place) -> None:
    """More cached than there was input: the finished call is charged, and its hold ends."""
    message = place.anthropic().messages.with_raw_response.create(
        model="claude-haiku-4-5",
        max_tokens=100,
        messages=ask("#normal in=100 out=5 cached=400#"),
    )
    usage = place.usage(message.headers["x-tallystick-run"])
    assert usage == (400, 5, 400, "estimated")
    response = place.openai().responses.with_raw_response.create(
        model=MODEL, input="#normal in=100 out=5 cached=400#"
    )
    assert place.usage(response.headers["x-tallystick-run"]) == (400, 5, 400, "estimated")
    assert place.has_no_hold()


def test_a_report_of_nothing_is_no_report(place: Place) -> None:
    answer = chat(place, "#normal in=0 out=0#")
    usage = place.usage(answer.headers["x-tallystick-run"])
    assert usage[3] == "estimated" and usage[0] > 0


def test_a_stream_that_breaks_off_keeps_what_it_said_of_its_cache(place: Place) -> None:
    answer = httpx.post(
        place.url + "/anthropic/v1/messages",
        json={
            "model": "claude-haiku-4-5",
            "max_tokens": 100,
            "stream": True,
            "messages": ask("#cut in=5000 out=40 cached=4000#"),
        },
        headers={"x-api-key": place.key, **place.headers()},
        timeout=30,
    )
    tokens_input, tokens_output, cached, quality = place.usage(answer.headers["x-tallystick-run"])
    assert (tokens_input, cached, quality) == (5000, 4000, "estimated")
    assert 1 <= tokens_output < 40
