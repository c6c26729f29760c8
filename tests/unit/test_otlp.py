"""OTLP: what real instrumentations exported, and every rule by hand.

The recorded bodies are compared with what the scripted provider said (`CALLS`), not with
what the product makes of them. Where an instrumentation leaves a figure out or miscounts,
the test says so by name.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tallystick.errors import BodyUnreadable, UnsupportedForm
from tallystick.events import otlp_names as names
from tallystick.events.adapters import ParsedBody
from tallystick.events.model import Event
from tallystick.events.otlp import OtlpParser
from tallystick.events.otlp_rules import kind_of, provider_of
from tallystick.events.redaction import Redactor
from tests.fixtures.otlp.upstream import CALLS, CANARY
from tests.otlp_requests import (
    PROTOBUF,
    attributes_of,
    call_of,
    recorded,
    request_of,
    span_of,
    together,
    value_of,
)

NOW = 1_830_000_000_000_000  # after every recording
OPENAI = ["chat-cached", "chat-tools", "chat-stream", "chat-error", "response", "embedding"]
ANTHROPIC = ["message-cached", "message-tools", "message-stream", "message-error"]
Figures = tuple[int, int, int, int, int, int]


def parse(
    body: bytes,
    signal: str = "traces",
    content_type: str = "application/json",
    headers: dict[str, str] | None = None,
) -> tuple[ParsedBody, OtlpParser]:
    parser = OtlpParser(signal)
    parsed = parser(
        body,
        content_type=content_type,
        content_encoding="",
        headers=headers or {},
        received_at=NOW,
        redactor=Redactor(b"k" * 32),
    )
    return parsed, parser


def parse_recorded(name: str) -> tuple[ParsedBody, OtlpParser]:
    content_type = PROTOBUF if name.endswith(".pb") else "application/json"
    signal = name.split(".")[1]
    return parse(recorded(name), signal, content_type, {"x-tallystick-tenant": "acme"})


def only(body: bytes) -> Event:
    parsed, _ = parse(body)
    assert not parsed.rejections, parsed.rejections
    (event,) = parsed.events
    return event


def figures(event: Event) -> Figures:
    return (
        event.tokens_input,
        event.tokens_output,
        event.tokens_cache_read,
        event.tokens_cache_write_5m,
        event.tokens_cache_write_1h,
        event.tokens_reasoning,
    )


def truth(name: str, **changes: int) -> Figures:
    """What was used in the contract's meaning, from what the provider said."""
    call = CALLS[name]
    read, short, long = (
        call.get(field, 0) for field in ("cache_read", "cache_write_5m", "cache_write_1h")
    )
    cached = read + short + long if name.startswith("message") else 0
    told = {
        "input": call.get("input", 0) + cached,
        "output": call.get("output", 0),
        "read": read,
        "short": short,
        "long": long,
        "reasoning": call.get("reasoning", 0),
        **changes,
    }
    return tuple(told.values())


WITHOUT_CACHE = {"read": 0, "reasoning": 0}
ONE_WRITE = {"short": 500, "long": 0}
RECORDED: dict[str, dict[str, Figures]] = {
    "genai_openai": {name: truth(name) for name in OPENAI},
    "openllmetry_openai": {name: truth(name) for name in OPENAI},
    "openinference_openai": {name: truth(name) for name in OPENAI},
    # the older instrumentation reports neither cache nor reasoning, and not /responses
    "openai_v2": {name: truth(name, **WITHOUT_CACHE) for name in OPENAI if name != "response"},
    "openai_v2_latest": {
        name: truth(name, **WITHOUT_CACHE) for name in OPENAI if name != "response"
    },
    # only the SDK's own spans say how long what was written to the cache will live
    "anthropic_sdk": {name: truth(name) for name in ANTHROPIC},
    "genai_anthropic": {name: truth(name) for name in ANTHROPIC}
    | {"message-cached": truth("message-cached", **ONE_WRITE)},
    "openinference_anthropic": {name: truth(name) for name in ANTHROPIC}
    | {"message-cached": truth("message-cached", **ONE_WRITE)},
    # adds the one output token of a stream's first event to the total of its last
    "openllmetry_anthropic": {name: truth(name) for name in ANTHROPIC}
    | {
        "message-cached": truth("message-cached", **ONE_WRITE),
        "message-stream": truth("message-stream", output=34),
    },
    "double_openai": {name: truth(name) for name in OPENAI},
    "double_anthropic": {name: truth(name) for name in ANTHROPIC},
}


@pytest.mark.parametrize("capture", RECORDED)
def test_a_recording_says_what_the_provider_said(capture: str) -> None:
    parsed, _ = parse_recorded(f"{capture}.traces.pb")
    assert not parsed.rejections
    leaves = [event for event in parsed.events if event.usage_scope == "leaf"]
    expected = RECORDED[capture]
    assert Counter(map(figures, leaves)) == Counter(expected.values())
    for event in leaves:
        assert event.event_type == "token_usage"
        assert event.usage_quality == "exact"
        assert event.run_id and event.latency_ms and event.source == "recorder"
        assert event.environment == "test"
        if event.request_id:
            (name,) = (name for name in expected if CALLS[name].get("id") == event.request_id)
            assert event.event_id == f"otlp:{event.request_id}"
            assert figures(event) == expected[name]
            assert event.model == CALLS[name]["model"]
    providers = {"anthropic" if "anthropic" in capture else "openai"}
    assert {event.provider for event in leaves} == providers
    failed = [event for event in leaves if event.error_code]
    assert len(failed) == 1 and not any(figures(failed[0]))
    embeddings = [event for event in leaves if event.operation == "embeddings"]
    assert len(embeddings) == ("embedding" in expected)


def test_repeats_are_kept_as_aggregates() -> None:
    parsed, parser = parse_recorded("double_openai.traces.pb")
    assert parser.repeated == 12
    aggregates = [event for event in parsed.events if event.usage_scope == "aggregate"]
    assert len(aggregates) == 12 and len(parsed.events) == 18
    assert len({event.event_id for event in parsed.events}) == 18


def test_an_agent_run_counts_its_calls_once() -> None:
    parsed, _ = parse_recorded("agent.traces.pb")
    by_type: dict[str, list[Event]] = {}
    for event in parsed.events:
        by_type.setdefault(event.event_type, []).append(event)
    scopes = Counter(event.usage_scope for event in by_type["token_usage"])
    assert scopes == {"leaf": 2, "aggregate": 1}
    leaves = [event for event in by_type["token_usage"] if event.usage_scope == "leaf"]
    assert {figures(event) for event in leaves} == {truth("chat-tools"), truth("chat-cached")}
    (tool,) = by_type["tool_call_finished"]
    assert (tool.tool, tool.tool_call_id) == ("get_weather", "call_Rec1")
    assert len(by_type["run_started"]) == len(by_type["run_completed"]) == 1
    assert by_type["run_completed"][0].agent == "weather-agent"
    assert len({event.run_id for event in parsed.events}) == 1


@pytest.mark.parametrize(
    "name", ["genai_openai.traces", "genai_openai.logs", "double_anthropic.traces", "agent.traces"]
)
def test_json_and_protobuf_give_the_same_events(name: str) -> None:
    binary, _ = parse_recorded(f"{name}.pb")
    text, _ = parse_recorded(f"{name}.json")
    assert binary.events and binary.events == text.events
    assert not binary.rejections and not text.rejections


@pytest.mark.parametrize("capture", ["genai_openai", "genai_anthropic", "openai_v2_latest"])
def test_a_log_event_names_the_same_call_as_its_span(capture: str) -> None:
    spans, _ = parse_recorded(f"{capture}.traces.pb")
    logs, parser = parse_recorded(f"{capture}.logs.pb")
    known = {event.event_id: figures(event) for event in spans.events}
    assert len(logs.events) >= 3
    for event in logs.events:
        assert figures(event) == known[event.event_id]
    assert parser.ignored == 1, "the failed call is its span's to tell"


def test_content_log_events_are_passed_over() -> None:
    parsed, parser = parse_recorded("openai_v2.logs.pb")
    assert not parsed.events and not parsed.rejections and parser.ignored == 11


def test_recorded_content_never_survives() -> None:
    for capture in RECORDED:
        for signal in ("traces", "logs"):
            try:
                body = recorded(f"{capture}.{signal}.pb")
            except FileNotFoundError:
                continue
            parsed, _ = parse_recorded(f"{capture}.{signal}.pb")
            stored = msgspec.msgpack.encode([parsed.events, parsed.broken])
            assert CANARY.encode() not in stored
            assert signal == "logs" or CANARY.encode() in body, "the recording is dirty"


CONTENT_NAMES = (
    "gen_ai.input.messages",
    "gen_ai.tool.call.arguments",
    "llm.input_messages.0.message.content",
    "traceloop.entity.input",
    "input.value",
    "gen_ai.response.finish_reasons",
    "gen_ai.conversation.id",
    f"{CANARY}.key",
)


def test_content_never_survives_wherever_it_stands() -> None:
    dirty = [f"{CANARY} says", CANARY, {"inner": CANARY}, [CANARY]]
    spans = []
    for number, content in enumerate(dirty):
        # a provider's id is an identifier: it is kept when it looks like one
        identifier = {"gen_ai.response.id": f"{content} {number}"}
        attributes = call_of() | identifier | dict.fromkeys(CONTENT_NAMES, content)
        inside = attributes_of({"a": content})
        where: dict[str, Any] = {"events": [{"name": CANARY, "attributes": inside}]}
        where |= {"links": [{"attributes": inside}]}
        where |= {"status": {"code": 2, "message": CANARY}, "name": CANARY, "traceState": CANARY}
        spans.append(span_of(attributes, spanId=f"{number + 1:016x}", **where))
    tool = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": f"{CANARY} tool"}
    spans.append(span_of(tool, spanId="00000000000000ff"))
    spans.append({**span_of({}), "traceId": CANARY, "attributes": CANARY})
    parsed, _ = parse(request_of(*spans))
    assert len(parsed.events) == 5 and len(parsed.rejections) == 1
    stored = msgspec.msgpack.encode([parsed.events, parsed.broken, parsed.rejections])
    assert CANARY.encode() not in stored


def test_log_bodies_never_survive() -> None:
    record = {
        "timeUnixNano": "1790000002000000000",
        "body": value_of({"text": CANARY}),
        "severityText": CANARY,
        "attributes": attributes_of({**call_of(), "gen_ai.output.messages": CANARY}),
    }
    about = {"attributes": attributes_of({"tallystick.tenant_id": "acme"})}
    body = {"resourceLogs": [{"resource": about, "scopeLogs": [{"logRecords": [record]}]}]}
    parsed, _ = parse(json.dumps(body).encode(), "logs")
    (event,) = parsed.events
    assert figures(event)[:2] == (100, 10) and event.run_id == ""
    assert event.event_id.startswith("otlp:record:")
    assert CANARY.encode() not in msgspec.msgpack.encode(event)


@pytest.mark.parametrize(
    ("attributes", "kind"),
    [
        ({"gen_ai.operation.name": "chat"}, "call"),
        ({"gen_ai.operation.name": "text_completion"}, "call"),
        ({"gen_ai.operation.name": "generate_content"}, "call"),
        ({"gen_ai.operation.name": "embeddings"}, "call"),
        ({"gen_ai.operation.name": "invoke_agent"}, "agent"),
        ({"gen_ai.operation.name": "invoke_workflow"}, "agent"),
        ({"gen_ai.operation.name": "create_agent"}, ""),
        ({"gen_ai.operation.name": "execute_tool"}, "tool"),
        ({"openinference.span.kind": "LLM"}, "call"),
        ({"openinference.span.kind": "EMBEDDING"}, "call"),
        ({"openinference.span.kind": "TOOL"}, "tool"),
        ({"openinference.span.kind": "AGENT"}, "agent"),
        ({"openinference.span.kind": "CHAIN"}, "agent"),
        ({"openinference.span.kind": "RETRIEVER"}, ""),
        ({"openinference.span.kind": "GUARDRAIL", "llm.token_count.prompt": 5}, "step"),
        ({"traceloop.span.kind": "workflow"}, "agent"),
        ({"traceloop.span.kind": "task"}, "step"),
        ({"traceloop.span.kind": "tool"}, "tool"),
        ({"llm.request.type": "chat"}, "call"),
        ({"gen_ai.system": "openai", "gen_ai.request.model": "m"}, ""),
        ({"gen_ai.request.model": "m", "gen_ai.usage.prompt_tokens": 1}, "call"),
        ({"http.request.method": "POST"}, ""),
    ],
)
def test_what_a_span_is(attributes: dict[str, Any], kind: str) -> None:
    assert kind_of(attributes) == kind


def test_the_older_names_are_understood() -> None:
    event = only(
        request_of(
            span_of(
                {
                    "gen_ai.system": "OpenAI",
                    "llm.request.type": "completion",
                    "gen_ai.request.model": "gpt-4o",
                    "gen_ai.usage.prompt_tokens": 100,
                    "gen_ai.usage.completion_tokens": 40,
                    "gen_ai.usage.cache_read_input_tokens": 30,
                    "gen_ai.usage.cache_creation_input_tokens": 20,
                    "gen_ai.usage.reasoning_tokens": 7,
                    "llm.usage.total_tokens": 140,
                    "traceloop.workflow.name": "joke_workflow",
                    "traceloop.association.properties.team": "growth",
                }
            )
        )
    )
    assert figures(event) == (100, 40, 30, 20, 0, 7)
    assert (event.provider, event.model, event.operation) == ("openai", "gpt-4o", "text_completion")
    assert (event.workflow, event.team) == ("joke_workflow", "growth")
    assert event.latency_ms == 2000.0 and event.occurred_at == 1_790_000_002_000_000


@pytest.mark.parametrize(
    ("given", "mark", "tokens_input"),
    [
        ({"input": 40, "read": 2000, "write": 500, "output": 5}, None, 2540),
        ({"input": 3000, "read": 1000, "output": 77, "total": 4077}, None, 4000),
        ({"input": 4000, "read": 1000, "output": 77, "total": 4077}, None, 4000),
        ({"input": 3000, "read": 1000, "output": 77}, None, 3000),
        ({"input": 3000, "read": 1000, "output": 77}, "excluded", 4000),
        ({"input": 3000, "read": 1000, "output": 77, "total": 4077}, "included", 3000),
        ({"input": 100, "output": 10, "total": 110}, None, 100),
        ({"output": 10, "total": 110}, None, 100),
        ({"output": 10, "read": 64}, None, 64),
    ],
)
def test_whether_the_input_includes_the_cache(
    given: dict[str, int], mark: str | None, tokens_input: int
) -> None:
    rows = {
        "input": "gen_ai.usage.input_tokens",
        "output": "gen_ai.usage.output_tokens",
        "read": "gen_ai.usage.cache_read.input_tokens",
        "write": "gen_ai.usage.cache_write.input_tokens",
        "total": "gen_ai.usage.total_tokens",
    }
    attributes: dict[str, Any] = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "claude"}
    attributes |= {rows[name]: count for name, count in given.items()}
    resource = {"tallystick.tenant_id": "acme"} | (
        {"tallystick.cache_tokens": mark} if mark else {}
    )
    event = only(request_of(span_of(attributes), resource=resource))
    assert event.tokens_input == tokens_input
    assert event.usage_quality == ("exact" if "input" in given else "estimated")


def test_who_pays_and_where_it_belongs() -> None:
    attributes = call_of(tallystick__team="search", user__id="u-7", gen_ai__agent__name="Tutor")
    resource = {
        "tallystick.tenant_id": "acme",
        "tallystick.team": "never: the span decides",
        "tallystick.product": "shop",
        "service.name": "backend",
        "deployment.environment": "production",
    }
    event = only(request_of(span_of(attributes), resource=resource))
    assert (event.tenant_id, event.team, event.product) == ("acme", "search", "shop")
    assert (event.user_id, event.agent, event.source) == ("u-7", "Tutor", "backend")
    assert event.environment == "production"
    assert event.run_id == "0af7651916cd43dd8448eb211c80319c", "the trace is the run"
    named = only(request_of(span_of(call_of(tallystick__run_id="r-9", tallystick__attempt=2))))
    assert (named.run_id, named.attempt) == ("r-9", 2)


def test_the_tenant_is_the_spans_then_the_resources_then_the_headers() -> None:
    header = {"x-tallystick-tenant": "by-header"}
    own = span_of(call_of(tallystick__tenant_id="own"))
    for body, tenant in (
        (request_of(own, resource={"tallystick.tenant_id": "by-resource"}), "own"),
        (request_of(span_of(call_of())), "acme"),
        (request_of(span_of(call_of()), resource={}), "by-header"),
    ):
        parsed, _ = parse(body, headers=header)
        assert [event.tenant_id for event in parsed.events] == [tenant]
    parsed, _ = parse(request_of(span_of(call_of()), span_of({"http.method": "GET"}), resource={}))
    assert not parsed.events
    ((rejection,), (broken,)) = parsed.rejections, parsed.broken
    assert rejection.code == "missing_field" and "X-Tallystick-Tenant" in rejection.reason
    assert (broken.event_type, broken.tenant_id) == ("data.import.error", "unknown")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"traceId": "xyz"}, "bad_id"),
        ({"spanId": "b7ad6b71"}, "bad_id"),
        ({"endTimeUnixNano": 0}, "bad_time"),
        ({"endTimeUnixNano": "soon"}, "wrong_type"),
        ({"endTimeUnixNano": str(2**64)}, "number_too_large"),
        ({"endTimeUnixNano": str((NOW + 7_200_000_000) * 1000)}, "time_in_future"),
        ({"attributes": {}}, "bad_record"),
        ({"attributes": attributes_of(call_of(gen_ai__usage__input_tokens=-1))}, "negative_number"),
        ({"attributes": attributes_of(call_of(gen_ai__usage__input_tokens="x"))}, "wrong_type"),
        ({"attributes": attributes_of(call_of(tallystick__run_id="r" * 129))}, "id_too_long"),
        (
            {"attributes": attributes_of(call_of() | {"gen_ai.usage.reasoning.output_tokens": 11})},
            "inconsistent_tokens",
        ),
    ],
)
def test_a_bad_span_harms_no_neighbour(changes: dict[str, Any], code: str) -> None:
    before = span_of(call_of(), spanId="00000000000000aa")
    after = span_of(call_of(), spanId="00000000000000bb")
    parsed, _ = parse(request_of(before, span_of(call_of()) | changes, after))
    assert parsed.indexes == [0, 2]
    assert [(each.index, each.code) for each in parsed.rejections] == [(1, code)]
    assert [event.reject_code for event in parsed.broken] == [code]


def test_a_bad_span_in_protobuf_harms_no_neighbour() -> None:
    body = recorded("genai_openai.traces.pb")
    assert body.count(b"chatcmpl-Rec1") == 1
    broken = body.replace(b"chatcmpl-Rec1", b"\xff\xfe\xfd\xfc" + b"cmpl-Rec1")  # no UTF-8
    parsed, _ = parse(broken, content_type=PROTOBUF, headers={"x-tallystick-tenant": "acme"})
    assert len(parsed.events) == 5
    assert [each.code for each in parsed.rejections] == ["bad_record"]


def test_a_body_that_is_no_request_is_refused_as_a_whole() -> None:
    for body, content_type in (
        (b"\xff\xff\xff", PROTOBUF),
        (b"{", "application/json"),
        (b'{"resourceSpans": 3}', "application/json"),
        (b"[" * 100_000, "application/json"),
    ):
        with pytest.raises(BodyUnreadable):
            parse(body, content_type=content_type)
    with pytest.raises(UnsupportedForm):
        parse(b"", content_type="text/plain")
    assert parse(b"{}")[0].events == [] and parse(b"", content_type=PROTOBUF)[0].events == []


def test_ids_and_numbers_of_otlp_json() -> None:
    numbers = span_of(
        {}, traceId="0AF7651916CD43DD8448EB211C80319C", startTimeUnixNano=1_790_000_000_000_000_000
    )
    numbers["attributes"] = [
        {"key": "gen_ai.operation.name", "value": {"stringValue": "chat"}},
        {"key": "gen_ai.usage.input_tokens", "value": {"intValue": 7}},
        {"key": "gen_ai.usage.output_tokens", "value": {"doubleValue": 3.0}},
        {"key": "empty"},
    ]
    event = only(request_of(numbers | {"kind": 3, "unknown": {"field": 1}}))
    assert figures(event)[:2] == (7, 3)
    assert event.event_id == "otlp:0af7651916cd43dd8448eb211c80319c:b7ad6b7169203331"


def test_a_null_in_otlp_json_is_a_field_that_is_not_given() -> None:
    """So says protobuf's JSON, and encoders of languages with nil lists write them."""
    nulls = dict.fromkeys(("parentSpanId", "startTimeUnixNano", "events", "links", "status"))
    span = span_of(call_of()) | nulls
    span["attributes"] += [{"key": "a", "value": None}, {"key": "b", "value": {"arrayValue": None}}]
    span["attributes"] += [{"key": "c", "value": {"arrayValue": {"values": None}}}]
    body = json.loads(request_of(span))
    body["resourceSpans"][0] |= {"schemaUrl": None}
    body["resourceSpans"][0]["scopeSpans"] += [{"scope": {"name": None}, "spans": None}]
    body["resourceSpans"] += [{"resource": {"attributes": None}, "scopeSpans": None}]
    event = only(json.dumps(body).encode())
    assert (figures(event)[:2], event.latency_ms, event.error_code) == ((100, 10), None, "")
    assert parse(b'{"resourceSpans": null}')[0].events == []


def test_a_short_provider_id_is_unique_within_its_trace_only() -> None:
    response = call_of() | {"gen_ai.response.id": "chatcmpl-123"}
    event = only(request_of(span_of(response)))
    assert event.event_id == "otlp:0af7651916cd43dd8448eb211c80319c:chatcmpl-123"


def test_an_unstated_usage_is_an_estimate_and_claims_no_identity() -> None:
    attributes = {"gen_ai.operation.name": "chat", "gen_ai.response.id": "chatcmpl-" + "A" * 29}
    event = only(request_of(span_of(attributes)))
    assert event.usage_quality == "estimated" and not any(figures(event))
    assert event.event_id.endswith("b7ad6b7169203331")


def failing(name: str, parent: str = "", **more: Any) -> dict[str, Any]:
    attributes = {"gen_ai.operation.name": "chat", "error.type": "timeout", **more}
    return span_of(attributes, spanId=name, parentSpanId=parent)


A, B, C, D = ("00000000000000a1", "00000000000000b2", "00000000000000c3", "00000000000000d4")


def spoken(*requests: bytes) -> set[str]:
    parsed, _ = parse(together(*requests))
    assert not parsed.rejections
    return {
        event.event_id.rpartition(":")[2]
        for event in parsed.events
        if event.usage_scope == "leaf" and event.event_type == "token_usage"
    }


def test_failures_seen_by_three_libraries_are_one() -> None:
    assert spoken(
        request_of(failing(A), library="framework"),
        request_of(failing(B, A), library="sdk.one"),
        request_of(failing(C, A), library="sdk.two"),
    ) == {B}


def test_two_tries_inside_a_framework_call_are_two() -> None:
    assert spoken(
        request_of(failing(A), library="framework"),
        request_of(failing(B, A), failing(C, A), library="sdk.one"),
    ) == {B, C}
    answered = span_of(call_of() | {"gen_ai.response.id": "x" * 24}, spanId=C, parentSpanId=A)
    assert spoken(
        request_of(failing(A), library="framework"),
        request_of(failing(B, A), answered, library="sdk.one"),
    ) == {B, "x" * 24}


def test_calls_of_other_ids_both_count_though_nested() -> None:
    outer = span_of(call_of() | {"gen_ai.response.id": "y" * 24}, spanId=A)
    inner = span_of(call_of() | {"gen_ai.response.id": "z" * 24}, spanId=B, parentSpanId=A)
    assert spoken(request_of(outer), request_of(inner, library="other")) == {"y" * 24, "z" * 24}


def test_a_call_inside_a_tool_of_a_call_is_another_call() -> None:
    tool = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "ask"}
    spans = [
        span_of(call_of(), spanId=A),
        span_of({"http.method": "POST"}, spanId=B, parentSpanId=A),
        span_of(tool, spanId=C, parentSpanId=B),
        span_of(call_of(), spanId=D, parentSpanId=C),
    ]
    assert spoken(request_of(*spans)) == {A, D}
    del spans[2]
    spans[2]["parentSpanId"] = B
    assert spoken(request_of(*spans)) == {D}, "an HTTP span between changes nothing"


def test_the_order_in_a_request_changes_nothing() -> None:
    resources = json.loads(recorded("double_anthropic.traces.json"))["resourceSpans"]
    scopes = resources[0]["scopeSpans"]
    header = {"x-tallystick-tenant": "acme"}
    forward, _ = parse(json.dumps({"resourceSpans": resources}).encode(), headers=header)
    scopes.reverse()
    for scope in scopes:
        scope["spans"].reverse()
    backward, _ = parse(json.dumps({"resourceSpans": resources}).encode(), headers=header)
    key = msgspec.msgpack.encode
    assert sorted(map(key, forward.events)) == sorted(map(key, backward.events))


def test_spans_that_are_their_own_ancestors_do_no_harm() -> None:
    ring = [span_of(call_of(), spanId=A, parentSpanId=B)]
    ring += [span_of(call_of(), spanId=B, parentSpanId=A)]
    assert spoken(request_of(*ring)) == {A, B}


def test_a_tool_call_seen_twice_is_one() -> None:
    tool = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "search"}
    named = tool | {"gen_ai.tool.call.id": "call_1"}
    parsed, parser = parse(
        request_of(
            span_of(named, spanId=A),
            span_of(named, spanId=B, parentSpanId=A),
            span_of(tool, spanId=C),
        )
    )
    assert [event.event_type for event in parsed.events] == ["tool_call_finished"] * 2
    assert parser.repeated == 1


def run_types(attributes: dict[str, Any], **changes: Any) -> list[str]:
    parsed, _ = parse(request_of(span_of(attributes, **changes)))
    assert not parsed.rejections
    return [event.event_type for event in parsed.events]


def test_which_span_is_the_run() -> None:
    agent = {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "a"}
    assert run_types(agent) == ["run_started", "run_completed"]
    assert run_types(agent, status={"code": 2}) == ["run_started", "run_failed"]
    assert run_types(agent, parentSpanId=A) == []
    assert run_types(agent | {"tallystick.run_id": "r"}) == [], "the run may outlive this trace"
    marked = agent | {"tallystick.run_id": "r", "tallystick.is_run": True}
    assert run_types(marked, parentSpanId=A) == ["run_started", "run_completed"]
    assert run_types({"traceloop.span.kind": "task"}) == []
    assert run_types({"openinference.span.kind": "CHAIN"}) == ["run_started", "run_completed"]


def test_an_agents_sum_is_never_a_leaf() -> None:
    agent = call_of(gen_ai__operation__name="invoke_agent")
    event = only(request_of(span_of(agent, parentSpanId=A)))
    assert (event.event_type, event.usage_scope) == ("token_usage", "aggregate")


def test_providers_are_named_as_the_rate_cards_do() -> None:
    given = ["openai", "OpenAI", "gcp.gen_ai", "aws.bedrock", "azure.ai.openai", "Langchain", None]
    assert list(map(provider_of, given)) == [
        "openai", "openai", "google", "aws", "azure", "", ""
    ]  # fmt: skip


def test_an_exception_event_names_the_failure() -> None:
    exception = {"name": "exception", "attributes": attributes_of({"exception.type": "E.Timeout"})}
    span = span_of(
        {"openinference.span.kind": "LLM"}, status={"code": 2}, events=[{"name": "x"}, exception]
    )
    assert only(request_of(span)).error_code == "E.Timeout"
    assert only(request_of({**span, "events": []})).error_code == "error"


def test_names_that_are_too_long_or_broken_are_cut_not_refused() -> None:
    event = only(request_of(span_of(call_of(gen_ai__agent__name="a\nb" + "c" * 300))))
    assert event.agent.startswith("a bc") and len(event.agent) == 128


def test_the_document_names_every_attribute_that_is_understood() -> None:
    text = (Path(__file__).parents[2] / "docs" / "otlp.md").read_text("utf-8")
    tables = [value for name, value in vars(names).items() if name.isupper()]
    rows = [row for table in tables if isinstance(table, tuple) for row in table]
    rows += [value for value in tables if isinstance(value, str)]
    for field, attribution in names.ATTRIBUTION.items():
        assert f"`{field}`" in text
        rows += attribution[1:-1]
    rows += [*names.CALL_OPERATIONS, *names.KIND_OF_OPERATION, *names.KIND_OF_TRACELOOP]
    for name in rows:
        assert f"`{name}`" in text or f"`{name} = true`" in text or f"`{name}=" in text, name
