"""OpenAI's SDK through the gateway: answers, streams, and what they cost."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import anthropic
import httpx
import openai
import pytest

from tallystick.sdk import Tallystick, instrument
from tests.gateway.place import Place, ask

TOOL: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
RESPONSES_TOOL: Any = {"type": "function", "strict": False, **TOOL["function"]}
SCHEMA: Any = {
    "type": "json_schema",
    "json_schema": {"name": "weather", "schema": {"type": "object"}},
}


def test_sound_is_held_for_and_charged_at_its_own_prices(place: Place) -> None:
    """gpt-audio: text 2.50 and 10, sound 32 and 64 dollars a million."""
    sound: Any = {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}
    text = {"type": "text", "text": "#normal in=1000 out=500 heard=600 spoken=450#"}
    messages: Any = [{"role": "user", "content": [text, sound]}]
    client = place.openai()
    raw = client.chat.completions.with_raw_response.create(model="gpt-audio", messages=messages)
    # 400 x 2.5 + 600 x 32 + 50 x 10 + 450 x 64 micro-dollars
    assert raw.headers["x-tallystick-cost-usd"] == "0.0495"
    run = place.run(raw.headers["x-tallystick-run"])
    assert run["cost_usd"].rstrip("0") == "0.0495"
    assert place.has_no_hold()
    with pytest.raises(openai.APIStatusError) as refused:
        client.chat.completions.create(model="gpt-4o", messages=messages)
    assert refused.value.status_code == 402 and refused.value.code == "unpriced_model"


def test_a_chat_answer_says_what_it_cost(place: Place) -> None:
    raw = place.openai().chat.completions.with_raw_response.create(
        model="gpt-4o", messages=ask("#normal in=1200 out=250 cached=1024#"), max_tokens=300
    )
    answer = raw.parse()
    assert answer.usage is not None and answer.usage.completion_tokens == 250
    # 176 x 2.50 + 1024 x 1.25 + 250 x 10 dollars a million
    assert raw.headers["x-tallystick-cost-usd"] == "0.00422"
    assert Decimal(raw.headers["x-tallystick-credits"]) == Decimal("0.5064")
    assert Decimal(raw.headers["x-tallystick-remaining"]) > 0
    assert raw.headers["x-tallystick-model"] == "gpt-4o"
    assert place.billed(raw.headers["x-tallystick-request"])["tokens_output"] == 250
    assert place.has_no_hold()


def test_tools_and_schemas_pass_through(place: Place) -> None:
    client = place.openai()
    answer = client.chat.completions.create(
        model="gpt-4o", messages=ask("#normal answer=tool#"), tools=[TOOL]
    )
    calls = answer.choices[0].message.tool_calls
    assert calls and calls[0].type == "function" and calls[0].function.name == "get_weather"
    answer = client.chat.completions.create(
        model="gpt-4o", messages=ask("#normal answer=json#"), response_format=SCHEMA
    )
    assert answer.choices[0].message.content == '{"city":"Oslo","degrees":7}'


@pytest.mark.parametrize("form", ["own_chunk", "last_chunk", "every_chunk"])
@pytest.mark.parametrize("piece", [0, 1, 7])
@pytest.mark.parametrize("asks", [True, False])
def test_a_stream_is_charged_by_its_usage_and_hides_what_nobody_asked_for(
    place: Place, form: str, piece: int, asks: bool
) -> None:
    mark = f"#normal in=100 out=30 cached=64 usage={form} piece={piece}#"
    raw = place.openai().chat.completions.with_raw_response.create(
        model="gpt-4o",
        messages=ask(mark),
        stream=True,
        **({"stream_options": {"include_usage": True}} if asks else {}),  # type: ignore[call-overload]
    )
    chunks = list(raw.parse())
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == "tally " * 30
    assert any(chunk.usage for chunk in chunks) is asks
    assert asks or all("usage" not in chunk.model_fields_set for chunk in chunks)
    usage = place.usage(raw.headers["x-tallystick-run"])
    assert usage == (100, 30, 64, "exact")
    assert place.has_no_hold()


def test_responses_whole_and_streamed(place: Place) -> None:
    client = place.openai()
    raw = client.responses.with_raw_response.create(
        model="gpt-4o", input="#normal in=90 out=12 cached=10 reasoning=4#"
    )
    assert raw.parse().output_text == "tally " * 12
    assert place.usage(raw.headers["x-tallystick-run"]) == (90, 12, 10, "exact")
    streamed = client.responses.with_raw_response.create(
        model="gpt-4o", input="#normal in=91 out=13 piece=5#", stream=True
    )
    events = list(streamed.parse())
    assert events[-1].type == "response.completed"
    assert place.usage(streamed.headers["x-tallystick-run"]) == (91, 13, 0, "exact")
    tool = client.responses.create(
        model="gpt-4o", input="#normal answer=tool#", tools=[RESPONSES_TOOL]
    )
    assert tool.output[0].type == "function_call"
    counted = client.responses.input_tokens.count(model="gpt-4o", input="#normal in=55#")
    assert counted.input_tokens == 55
    with pytest.raises(openai.BadRequestError, match="background"):
        client.responses.create(model="gpt-4o", input="x", background=True)


def test_embeddings_and_models(place: Place) -> None:
    client = place.openai()
    raw = client.embeddings.with_raw_response.create(
        model="text-embedding-3-small", input=["#normal in=1000#", "b"], encoding_format="float"
    )
    assert len(raw.parse().data) == 2
    assert raw.headers["x-tallystick-cost-usd"] == "0.00002"
    names = {model.id for model in client.models.list()}
    assert {"fast", "gpt-4o"} <= names
    assert [client.models.retrieve(name).id for name in ("fast", "gpt-4o")] == ["fast", "gpt-4o"]
    with pytest.raises(openai.NotFoundError, match="there is no model a/b here"):
        client.models.retrieve("a/b")


def test_what_is_not_here_is_said_in_the_providers_words(place: Place) -> None:
    with pytest.raises(openai.NotFoundError, match="does not answer POST /openai/v1/images/gen"):
        place.openai().images.generate(model="gpt-image-1", prompt="a tally stick")
    with pytest.raises(openai.NotFoundError, match="does not answer GET /openai/v1/responses/"):
        place.openai().responses.retrieve("resp_1")
    with pytest.raises(anthropic.NotFoundError, match="does not answer GET /anthropic/v1/models"):
        place.anthropic().models.list()


def test_a_route_falls_back_and_names_the_served_model(place: Place) -> None:
    raw = place.openai().chat.completions.with_raw_response.create(
        model="fast", messages=ask("#normal#")
    )
    assert raw.headers["x-tallystick-model"] == "gpt-4o-mini"
    assert raw.parse().model == "gpt-4o-mini"
    azure = place.openai().chat.completions.create(model="on-azure", messages=ask("#normal#"))
    assert azure.model == "gpt-4o"
    assert place.has_no_hold()


def test_no_money_is_402_and_no_price_too(place: Place) -> None:
    poor = place.account("poor")
    with pytest.raises(openai.APIStatusError) as caught:
        place.openai(poor, retries=2).chat.completions.create(
            model="gpt-4o", messages=ask("#normal#")
        )
    assert caught.value.status_code == 402
    assert caught.value.code == "credit_exhausted"
    body: Any = caught.value.body
    why = place.server.get(f"/v1/refusals/{body['operation_id']}")
    assert (why["decided_by"], why["limits"][0]["room"]) == ("account:poor", "0")
    with pytest.raises(openai.APIStatusError) as caught:
        place.openai().chat.completions.create(model="gpt-unpriced-1", messages=ask("x"))
    assert (caught.value.status_code, caught.value.code) == (402, "unpriced_model")
    with pytest.raises(openai.NotFoundError):
        place.openai().chat.completions.create(model="no-such", messages=ask("x"))
    bad = openai.OpenAI(base_url=place.url + "/openai/v1", api_key="wrong", max_retries=0)
    with pytest.raises(openai.AuthenticationError):
        bad.chat.completions.create(model="gpt-4o", messages=ask("x"))


def test_a_run_of_the_sdk_draws_its_budget_through_the_gateway(place: Place) -> None:
    with Tallystick(place.url, place.key, tenant_id="acme") as sdk:
        client = instrument(place.openai(), tallystick=sdk)

        def spend() -> None:
            for _ in range(20):
                with sdk.run():
                    client.chat.completions.create(
                        model="gpt-4o", max_tokens=20, messages=ask("#normal in=20#")
                    )

        with sdk.run(budget="0.001") as root, pytest.raises(openai.APIStatusError) as caught:
            spend()
    assert (caught.value.status_code, caught.value.code) == (402, "budget_exceeded")
    budget = place.server.get(f"/v1/run-budgets/{root.run_id}", tenant_id="acme")
    assert Decimal(0) <= Decimal(budget["remaining"]) < Decimal("0.001")
    assert place.has_no_hold()


def test_unknown_fields_and_attribution(place: Place) -> None:
    raw = place.openai().chat.completions.with_raw_response.create(
        model="gpt-4o",
        messages=ask("#normal#"),
        metadata={"feature": "search", "team": "from-body"},
        extra_body={"a_field_of_tomorrow": {"x": [1, 2.50]}},
        extra_headers={"X-Tallystick-Run": "run-7", "X-Tallystick-Team": "blue"},
    )
    assert raw.headers["x-tallystick-run"] == "run-7"
    event = place.event("run-7")
    assert (event["team"], event["feature"]) == ("blue", "search")


def test_a_stream_ends_cleanly_where_the_money_ends(place: Place) -> None:
    # 0.06 credits hold 40 output tokens of gpt-4o, not 400
    short = place.account("short", "0.2")
    raw = place.openai(short).chat.completions.with_raw_response.create(
        model="gpt-4o",
        messages=ask("#slow rate=500 in=20 out=2000#"),
        max_completion_tokens=100,
        stream=True,
    )
    chunks = list(raw.parse())
    last = chunks[-1]
    assert last.choices[0].finish_reason == "length"
    assert last.model_extra is not None
    assert last.model_extra["tallystick"]["code"] == "credit_exhausted"
    assert place.has_no_hold(short)
    usage = place.usage(raw.headers["x-tallystick-run"])
    billed = place.billed(raw.headers["x-tallystick-request"])
    assert usage[3] == "estimated" and 100 <= usage[1] <= billed["tokens_output"] + 1


def test_a_client_that_goes_away_pays_what_was_generated(place: Place) -> None:
    with place.openai().chat.completions.with_streaming_response.create(
        model="gpt-4o", messages=ask("#slow rate=200 in=20 out=100#"), stream=True
    ) as response:
        run = response.headers["x-tallystick-run"]
        next(response.iter_bytes())
    assert place.usage(run) == (20, 100, 0, "exact")
    with place.openai().chat.completions.with_streaming_response.create(
        model="gpt-4o", messages=ask("#slow rate=10 in=20 out=1000#"), stream=True
    ) as response:
        run, request = (
            response.headers["x-tallystick-run"],
            response.headers["x-tallystick-request"],
        )
        next(response.iter_bytes())
    usage = place.usage(run)
    assert usage[3] == "estimated"
    assert abs(usage[1] - place.billed(request)["tokens_output"]) <= 2
    assert place.has_no_hold()


def test_a_body_that_is_no_json_is_400(place: Place) -> None:
    answer = httpx.post(
        place.url + "/openai/v1/chat/completions",
        content=b"{",
        headers={"Authorization": f"Bearer {place.key}"},
    )
    assert answer.status_code == 400 and answer.json()["error"]["code"] == "bad_body"
