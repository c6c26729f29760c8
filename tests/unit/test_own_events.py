"""An event of our own says what the same event says that came as JSON, or takes that way."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallystick.clock import from_datetime
from tallystick.events.adapters import parse_body
from tallystick.events.own import own_event
from tallystick.events.redaction import Redactor

NOW = datetime(2026, 5, 1, 12, 0, 0, 250_001, tzinfo=UTC)
RECEIVED_AT = from_datetime(NOW)
EVENT = {
    "event_id": "call:1:2",
    "event_type": "token_usage",
    "event_time": NOW,
    "tenant_id": "acme",
    "run_id": "r1",
    "provider": "openai",
    "model": "gpt-4o",
    "is_batch": False,
    "service_tier": "",
    "tokens_input": 10,
    "tokens_output": 5,
    "latency_ms": 12,
    "usage_quality": "exact",
    "user_id": "u-1",
    "error_code": "",
    "attrs": {"outcome": "completed", "cost_center": "cc-1", "anything": "a text"},
}
TEXTS = st.sampled_from(
    [
        "",
        "a",
        "a b",
        'quote"',
        "back\\slash",
        "über",
        "\x7f",
        "\n",
        "tallystick:x",
        "x" * 129,
        "a@b.c",
    ]
) | st.text(max_size=8)


def parsed(message: dict[str, Any], redactor: Redactor) -> Any:
    return parse_body(
        msgspec.json.encode([message]),
        content_type="application/json",
        content_encoding="",
        headers={},
        received_at=RECEIVED_AT,
        redactor=redactor,
    )


@pytest.mark.parametrize("hash_user_ids", [False, True])
def test_a_usual_event_is_the_same_by_both_ways(hash_user_ids: bool) -> None:
    redactor = Redactor(b"k" * 32, hash_user_ids=hash_user_ids)
    ours = own_event(EVENT, RECEIVED_AT, redactor)
    assert ours is not None
    assert ours == parsed(EVENT, redactor).batch


def test_what_is_not_given_is_not_in_the_digest() -> None:
    redactor = Redactor(b"k" * 32)
    tool = {**EVENT, "event_type": "tool_call_finished", "tool": "search"}
    del tool["usage_quality"], tool["attrs"]
    ours = own_event(tool, RECEIVED_AT, redactor)
    assert ours is not None
    assert ours == parsed(tool, redactor).batch


@given(
    changes=st.fixed_dictionaries(
        {},
        optional={
            "run_id": TEXTS,
            "model": TEXTS,
            "team": TEXTS,
            "user_id": TEXTS,
            "error_code": TEXTS,
            "usage_quality": st.sampled_from(["exact", "estimated", "guessed", ""]),
            "tokens_cache_read": st.sampled_from([-1, 0, 10, 11]),
            "tokens_input": st.sampled_from([0, 10, 10**12]),
            "tokens_reasoning": st.sampled_from([0, 6]),
            "latency_ms": st.sampled_from([0, 0.5, -1.0, 10**12]),
            "event_time": st.sampled_from([NOW - timedelta(days=900), NOW + timedelta(days=9)]),
            "event_type": st.sampled_from(["cost", "tool_call_finished", "data.import.error"]),
            "attrs": st.dictionaries(TEXTS, TEXTS, max_size=3),
            "prompt": st.just("what came astray"),
        },
    )
)
@settings(max_examples=150, deadline=None)
def test_what_the_short_way_takes_the_parser_reads_the_same(changes: dict[str, Any]) -> None:
    redactor = Redactor(b"k" * 32)
    message = {**EVENT, **changes}
    ours = own_event(message, RECEIVED_AT, redactor)
    if ours is not None:
        found = parsed(message, redactor)
        assert not found.rejections
        assert ours == found.batch
