"""The published schemas say what the door does: arbitrary messages, judged by both.

What the schema refuses the door refuses. What the schema allows the door accepts, but for
the rules that JSON Schema cannot express, and those refusals carry a listed code.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from referencing import Registry, Resource

from tallystick.bounds import AMOUNT_MAX, ID_LENGTH_MAX, LATENCY_MS_MAX, TOKENS_MAX
from tallystick.clock import DAY, format_time
from tallystick.events.adapters import ParsedBody, parse_body
from tallystick.events.fields import (
    COMMON,
    FIELDS,
    FLAT_COST,
    FLAT_COST_REQUIRED,
    PARTICULAR_BY_TYPE,
    REQUIRED,
    Form,
)
from tallystick.events.model import EventType
from tallystick.events.redaction import Redactor
from tallystick.events.schemas import NOT_EXPRESSED, build_schemas

NOW = 1_790_000_000_000_000
SCHEMAS = build_schemas()
_REGISTRY: Registry[Any] = Registry().with_resources(
    (name, Resource.from_contents(schema)) for name, schema in SCHEMAS.items()
)
_REDACTOR = Redactor(b"key")


def validator_of(name: str) -> Draft202012Validator:
    return Draft202012Validator(SCHEMAS[f"{name}.schema.json"], registry=_REGISTRY)


EVENT = validator_of("event")

texts = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=20)
names = texts.filter(lambda text: text and not text.startswith("tallystick:"))
times = st.integers(0, NOW).map(format_time)
amounts = st.one_of(
    st.integers(0, AMOUNT_MAX),
    st.decimals(0, AMOUNT_MAX, places=9).map(lambda number: format(number, "f")),
    st.floats(0.001, AMOUNT_MAX),
)
VALID: dict[Form, st.SearchStrategy[Any]] = {
    Form.IDENTITY: names,
    Form.RUN: st.none() | st.just("") | names,
    Form.TEXT: st.none() | texts | st.just("x" * ID_LENGTH_MAX),
    Form.TIME: times,
    Form.COUNT: st.none() | st.integers(0, TOKENS_MAX),
    Form.POSITIVE: st.none() | st.integers(1, 2**31 - 1) | st.integers(1, 10**9 - 1).map(str),
    Form.FLAG: st.none() | st.booleans(),
    Form.LATENCY: st.none() | st.integers(0, LATENCY_MS_MAX) | st.floats(0, LATENCY_MS_MAX),
    Form.AMOUNT: amounts,
    Form.CURRENCY: st.none() | st.text("ABCXYZ", min_size=3, max_size=3),
    Form.SCOPE: st.sampled_from(["leaf", "aggregate", "", None]),
    Form.QUALITY: st.sampled_from(["exact", "estimated", "", None]),
    Form.ATTRIBUTES: st.none() | st.dictionaries(st.text(max_size=9), st.integers() | st.text()),
}
anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([0, -1, 1, 2**31, TOKENS_MAX + 1, 10**14, 1e300, 0.5, 10.0, -0.0])
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
    | st.sampled_from(["", "tallystick:x", "1", "0", "007", "1\n", "USD", "usd", "1e5", "-1"])
    | st.sampled_from(["a\nb", "a\n", "data.import.error", "1000000.1", "1000000.00", "00.5"])
    | st.sampled_from(["2026-01-31T12:00:00", "2026-02-30T12:00:00Z", "2026-01-31 12:00:00z\n"])
    | st.just("x" * (ID_LENGTH_MAX + 1)),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=3,
)


def messages_of(event_type: str) -> st.SearchStrategy[dict[str, Any]]:
    """Messages of a type that its schema allows."""
    fields = [*COMMON, *(FIELDS[name] for name in PARTICULAR_BY_TYPE[event_type])]
    required = {*REQUIRED, *(["cost_amount"] if event_type == EventType.COST else [])}
    values = {field.name: VALID[field.form] for field in fields}
    values["event_type"] = st.just(event_type)
    return st.fixed_dictionaries(
        {name: values[name] for name in sorted(required)},
        optional={
            **{name: value for name, value in values.items() if name not in required},
            "brand_new": anything,
        },
    )


flat_records = st.fixed_dictionaries(
    {name: VALID[FIELDS[FLAT_COST[name]].form] for name in FLAT_COST_REQUIRED},
    optional={
        name: VALID[FIELDS[field].form]
        for name, field in FLAT_COST.items()
        if name not in FLAT_COST_REQUIRED
    },
)
event_types = st.sampled_from([str(event_type) for event_type in PARTICULAR_BY_TYPE])
valid_messages = event_types.flatmap(messages_of) | flat_records


def judge(message: dict[str, Any]) -> ParsedBody:
    return parse_body(
        json.dumps(message).encode(),
        content_type="application/json",
        content_encoding="",
        headers={},
        received_at=NOW + DAY,
        redactor=_REDACTOR,
    )


@settings(max_examples=150, deadline=None)
@given(valid_messages)
def test_what_is_valid_is_accepted(message: dict[str, Any]) -> None:
    EVENT.validate(message)
    validator_of(message.get("event_type", "cost_record")).validate(message)
    codes = [rejection.code for rejection in judge(message).rejections]
    assert codes in ([], ["inconsistent_tokens"])


@settings(max_examples=400, deadline=None)
@given(message=valid_messages, plan=st.data())
def test_the_schema_and_the_door_judge_alike(message: dict[str, Any], plan: st.DataObject) -> None:
    name = plan.draw(st.sampled_from(sorted({*message, *FIELDS, *FLAT_COST, "run_id"})))
    if plan.draw(st.integers(0, 5)):
        message[name] = plan.draw(anything)
    else:
        message.pop(name, None)
    rejections = judge(message).rejections
    if not EVENT.is_valid(message):
        assert rejections or "key" in message, "ALSO_ACCEPTED is about flat records alone"
    elif rejections:
        assert rejections[0].code in NOT_EXPRESSED, rejections[0]


BROKEN: list[tuple[dict[str, Any], str]] = [
    ({"event_id": ""}, "empty_id"),
    ({"event_id": None}, "empty_id"),
    ({"tenant_id": "a\u0000"}, "control_character"),
    ({"run_id": "tallystick:x"}, "reserved_id"),
    ({"event_type": "data.import.error"}, "reserved_id"),
    ({"event_time": "2026-01-31T12:00:00"}, "naive_time"),
    ({"event_time": 5}, "wrong_type"),
    ({"model": "x" * 129}, "id_too_long"),
    ({"tokens_input": -1}, "negative_number"),
    ({"tokens_input": TOKENS_MAX + 1}, "number_too_large"),
    ({"tokens_output": "many"}, "wrong_type"),
    ({"attempt": 0}, "out_of_range"),
    ({"attempt": "0"}, "out_of_range"),
    ({"is_batch": 1}, "wrong_type"),
    ({"latency_ms": -0.1}, "negative_number"),
    ({"usage_scope": "both"}, "bad_choice"),
    ({"cost_amount": "1000000.01"}, "number_too_large"),
    ({"cost_amount": "1e5"}, "bad_amount"),
    ({"cost_currency": "usd"}, "bad_currency"),
    ({"attrs": []}, "wrong_type"),
    ({"event_type": "cost"}, "missing_field"),
    ({"specversion": "1.0", "data": 5}, "not_an_object"),
]


@pytest.mark.parametrize(("change", "code"), BROKEN, ids=lambda value: str(value)[:40])
def test_what_breaks_the_schema_is_refused(change: dict[str, Any], code: str) -> None:
    good = {
        "event_id": "e",
        "event_type": "token_usage",
        "event_time": format_time(NOW),
        "tenant_id": "acme",
    }
    assert EVENT.is_valid(good)
    assert not EVENT.is_valid({**good, **change})
    assert [found.code for found in judge({**good, **change}).rejections] == [code]


def test_a_newer_version_is_kept_and_what_it_adds_goes_to_attrs_redacted() -> None:
    message = {
        "event_id": "e",
        "event_type": "token_usage",
        "event_time": format_time(NOW),
        "tenant_id": "acme",
        "schema_version": 7,
        "carbon_grams": 3,
        "mood": "the customer wrote: call me",
    }
    EVENT.validate(message)
    (event,) = judge(message).events
    assert event.schema_version == 7
    assert json.loads(event.attrs)["carbon_grams"] == 3
    assert "customer" not in event.attrs
