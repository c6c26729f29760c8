"""What is kept of a broken message, how it is repaired, and when a follower stops."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from tallystick.clock import HOUR, format_time
from tallystick.errors import TooManyBroken
from tallystick.events.adapters import ParsedBody, parse_body
from tallystick.events.broken import Origin, broken_message, read_details, read_draft, repair
from tallystick.events.model import Event
from tallystick.events.poison import BrokenShare
from tallystick.events.redaction import Redactor, is_hidden
from tallystick.events.rules import Refused, make_event
from tallystick.events.schemas import build_schemas

NOW = 1_790_000_000_000_000
REDACTOR = Redactor(b"key")
GOOD: dict[str, Any] = {
    "event_id": "e1",
    "event_type": "token_usage",
    "event_time": format_time(NOW),
    "tenant_id": "acme",
    "run_id": "run-1",
    "model": "gpt-4o",
    "tokens_input": 10,
    "latency_ms": 12.5,
}
FLAT: dict[str, Any] = {
    "key": "k1",
    "timestamp": NOW // 1000,
    "tenantId": "acme",
    "modelId": "gpt-4o",
    "amount": 0.000000123,
    "tokensIn": 5,
}


def parse(body: bytes, redactor: Redactor = REDACTOR, origin: Origin | None = None) -> ParsedBody:
    return parse_body(
        body,
        content_type="application/json",
        content_encoding="",
        headers={},
        received_at=NOW,
        redactor=redactor,
        origin=origin,
    )


def break_(message: Any, **more: Any) -> Event:
    (broken,) = parse(json.dumps(message).encode(), **more).broken
    return broken


def mend(broken: Event, redactor: Redactor = REDACTOR, now: int = NOW, **changes: Any) -> Event:
    return repair(
        read_draft(broken.attrs),
        changes,
        tenant_id=broken.tenant_id,
        received_at=now,
        redactor=redactor,
    )


def test_it_says_which_field_is_wrong_and_where_it_was_read() -> None:
    broken = break_({**GOOD, "tokens_input": -1}, origin=Origin("ml-agents", 3, 77))
    message = broken_message(broken)
    assert (message["code"], message["field"]) == ("negative_number", "tokens_input")
    assert message["reason"] == "tokens_input may not be negative"
    assert message["origin"] == {"topic": "ml-agents", "partition": 3, "offset": 77}
    assert message["draft"] == {**GOOD, "tokens_input": -1}
    assert message["broken_id"] == f"broken:{message['digest']}"
    schema = build_schemas()["broken_message.schema.json"]
    Draft202012Validator(schema).validate(json.loads(json.dumps(message)))


@pytest.mark.parametrize(
    ("bad", "changes"),
    [
        ({"tokens_input": -1}, {"tokens_input": 10}),
        ({"event_time": "2026-01-31T12:00:00"}, {"event_time": GOOD["event_time"]}),
        ({"event_id": ""}, {"event_id": "e1"}),
        ({"attempt": 0}, {"attempt": None}),
        ({"cost_currency": "usd"}, {"cost_currency": None}),
        ({"usage_scope": "both"}, {"usage_scope": "leaf"}),
        ({"attrs": "text"}, {"attrs": None}),
        ({"run_id": "x" * 200}, {"run_id": "run-1"}),
        ({"tokens_reasoning": 5}, {"tokens_reasoning": 0}),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_repaired_message_is_the_event_that_was_meant(
    bad: dict[str, Any], changes: dict[str, Any]
) -> None:
    """Also its digest: the producer's own corrected retry is then a duplicate."""
    meant = make_event({**GOOD, **changes}, received_at=NOW, redactor=REDACTOR)
    assert mend(break_({**GOOD, **bad}), **changes) == meant


def test_attributes_survive_a_repair_as_they_were_redacted() -> None:
    extra = {"attrs": {"region": "eu-1", "note": "free text", "share": 0.1}, "mood": "good", "n": 7}
    meant = make_event(
        {**GOOD, **extra, "attrs": {**extra["attrs"], "share": Decimal("0.1")}},  # type: ignore[dict-item]
        received_at=NOW,
        redactor=REDACTOR,
    )
    assert mend(break_({**GOOD, **extra, "attempt": 0}), attempt=1) == meant
    replaced = mend(break_({**GOOD, **extra, "attempt": 0}), attempt=1, attrs={"region": "us-2"})
    assert json.loads(replaced.attrs) == {"region": "us-2"}


def test_flat_records_and_cloud_events_are_drafted_by_an_events_names() -> None:
    broken = break_({**FLAT, "tokensIn": -5})
    assert read_details(broken.attrs).field == "tokens_input"
    event = mend(broken, tokens_input=5)
    assert event == parse(json.dumps(FLAT).encode()).events[0]
    assert event.cost_amount == "0.000000123"
    envelope = {"specversion": "1.0", "id": "ce", "type": "token_usage", "time": format_time(NOW)}
    inner = {"tenant_id": "acme", "tokens_input": -1}
    broken = break_({**envelope, "data": inner})
    assert broken.tenant_id == "acme"
    assert mend(broken, tokens_input=1).event_id == "ce"
    lost = break_({**envelope, "data": "text"})
    assert read_details(lost.attrs).draft == {
        "event_id": "ce",
        "event_type": "token_usage",
        "event_time": format_time(NOW),
    }
    assert mend(lost, tenant_id="acme").tenant_id == "acme"


def test_time_heals_what_came_from_the_future() -> None:
    broken = break_({**GOOD, "event_time": format_time(NOW + 5 * HOUR)})
    with pytest.raises(Refused, match="ahead of our clock"):
        mend(broken)
    assert mend(broken, now=NOW + 5 * HOUR).occurred_at == NOW + 5 * HOUR


def test_hashed_user_ids_stay_comparable_through_a_repair() -> None:
    redactor = Redactor(b"key", hash_user_ids=True)
    meant = make_event({**GOOD, "user_id": "mia"}, received_at=NOW, redactor=redactor)
    broken = break_({**GOOD, "user_id": "mia", "attempt": 0}, redactor=redactor)
    assert mend(broken, redactor, attempt=None).user_id == meant.user_id


REFUSED = [
    ({"attempt": 0}, {}, "out_of_range"),
    ({"attempt": 0}, {"attempt": "x"}, "wrong_type"),
    ({"attempt": 0}, {"colour": "red"}, "unknown_field"),
    ({"attempt": 0, "run_id": "two words"}, {"attempt": 1}, "hidden_field"),
    ({"attempt": 0}, {"attempt": 1, "tenant_id": "other"}, "tenant_is_known"),
    ({"tokens_input": "many words"}, {}, "hidden_field"),
]


@pytest.mark.parametrize(("bad", "changes", "code"), REFUSED)
def test_a_fix_that_mends_nothing_is_refused(
    bad: dict[str, Any], changes: dict[str, Any], code: str
) -> None:
    with pytest.raises(Refused) as refused:
        mend(break_({**GOOD, **bad}), **changes)
    assert refused.value.code == code


@pytest.mark.parametrize("body", [b'{"a": nope}', b"42", b'"text"', b'{"a":"\xff"}'])
def test_what_is_no_object_has_no_draft(body: bytes) -> None:
    (broken,) = parse(b"[" + body + b"]").broken
    assert read_details(broken.attrs).draft is None
    with pytest.raises(Refused, match="dismiss it"):
        mend(broken)


def test_a_fact_without_details_can_still_be_shown() -> None:
    assert read_details("").draft is None
    assert read_draft("") is None


CANARY = "My card is 4111 1111 1111 1111, I am Mia Li"
SECRETS: list[Any] = [
    CANARY,
    "mia.li3818@example.com",
    4_111_111_111_111_111,
    4111111111111111.5,
    "4111111111111111",
    {"role": "user", "content": CANARY},
    [CANARY],
    "Mia\u0000Li",
    "x" * 129 + "Mia Li",
]


@pytest.mark.parametrize("secret", SECRETS, ids=str)
def test_no_content_is_kept_in_a_draft(secret: Any) -> None:
    """INV-14, for messages that nobody understood: every field, known or not, and no key."""
    names = ["event_time", "tokens_input", "latency_ms", "is_batch", "cost_amount", "attempt"]
    if secret != "4111111111111111":  # as an id it looks like an id, in events too
        names += ["run_id", "user_id", "model", "error_code", "usage_scope", "tool", "source"]
    broken = break_(
        {
            **GOOD,
            **dict.fromkeys(names, secret),
            **dict.fromkeys(["prompt", "messages", "note"], secret),
            "attrs": {CANARY: secret, "region": secret, "nested": {"a": [secret]}},
            "event_id": None,
        }
    )
    for piece in ("4111", "Mia", "card", "example.com", "xxxxx"):
        if piece == "4111" and secret == "4111111111111111":
            kept = json.loads(broken.attrs)["draft"]["attrs"]
            assert kept.pop("region") == secret, "an allowed attribute that looks like a token"
            assert piece not in json.dumps(kept)
        else:
            assert piece not in broken.attrs, broken.attrs


@pytest.mark.parametrize("depth", [20, 400, *range(930, 1001)])
def test_a_message_nested_to_the_limit_is_set_aside_too(depth: int) -> None:
    deep = b'{"a":' * depth + b'"Mia Li"' + b"}" * depth
    for body in (b'{"attempt":0,"run_id":%b}', b'[{"attempt":0,"run_id":%b}]'):
        (broken,) = parse(body % deep).broken
        assert "Mia" not in broken.attrs


words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
values = st.recursive(
    words
    | st.integers()
    | st.booleans()
    | st.none()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(words, inner, max_size=2),
    max_leaves=4,
)


@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from([*GOOD, *FLAT, "attrs", "is_batch", "cost_amount"]) | words, values
    )
)
def test_any_object_is_an_event_or_a_draft_that_is_redacted(message: dict[str, Any]) -> None:
    parsed = parse(json.dumps(message, allow_nan=False).encode())
    assert len(parsed.events) + len(parsed.broken) == 1
    for broken in parsed.broken:
        draft = read_details(broken.attrs).draft
        assert draft is not None
        for value in draft.values():
            is_word = isinstance(value, str) and (is_hidden(value) or " " not in value)
            assert value is None or isinstance(value, bool | int | float | dict) or is_word


def test_a_follower_stops_when_most_of_the_window_is_broken() -> None:
    share = BrokenShare("ml-agents/3", window=1000, percent_max=50)
    for _ in range(9):
        share.note(100, 100)  # before the window is full nothing stops
    with pytest.raises(TooManyBroken, match="1000 of the last 1000 messages of ml-agents/3"):
        share.note(100, 100)


def test_stray_broken_messages_stop_nothing_and_old_ones_are_forgotten() -> None:
    share = BrokenShare(window=1000, percent_max=50)
    for _ in range(200):
        share.note(100, 50)
    assert (share.total, share.broken) == (1000, 500)
    for _ in range(10):
        share.note(100, 0)
    assert (share.total, share.broken) == (1000, 0)
    share.note(0, 0)
    with pytest.raises(TooManyBroken):
        share.note(5000, 2501)


def test_the_window_holds_at_least_its_size() -> None:
    share = BrokenShare(window=10, percent_max=50)
    for total in (7, 7, 7, 1, 1, 1):
        share.note(total, 0)
        assert share.total >= min(10, total)
    assert share.total == 10
