"""What the door accepts and refuses, as tables."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import zstandard

from tallystick.bounds import BODY_BYTES_MAX
from tallystick.clock import DAY, HOUR, format_time
from tallystick.errors import BodyTooLarge, BodyUnreadable, UnsupportedForm
from tallystick.events.adapters import ParsedBody, parse_body
from tallystick.events.broken import read_draft, repair
from tallystick.events.model import Event
from tallystick.events.redaction import Redactor
from tallystick.events.rules import Refused
from tallystick.plumbing.log.columns import rows_of_columns

NOW = 1_790_000_000_000_000
GOOD = {
    "event_id": "e1",
    "event_type": "token_usage",
    "event_time": format_time(NOW),
    "tenant_id": "acme",
    "model": "gpt-4o",
    "tokens_input": 10,
}


def parse(
    body: bytes, content_type: str = "application/json", encoding: str = "", **headers: str
) -> ParsedBody:
    return parse_body(
        body,
        content_type=content_type,
        content_encoding=encoding,
        headers={name.replace("_", "-"): value for name, value in headers.items()},
        received_at=NOW,
        redactor=Redactor(b"key"),
    )


def events_of(parsed: ParsedBody) -> list[Event]:
    return msgspec.convert(rows_of_columns(parsed.batch.columns, parsed.batch.size), list[Event])


def one(**changes: Any) -> ParsedBody:
    return parse(json.dumps({**GOOD, **changes}).encode())


BAD: list[tuple[dict[str, Any], str]] = [
    ({"event_id": None}, "empty_id"),
    ({"event_id": ""}, "empty_id"),
    ({"event_id": 7}, "wrong_type"),
    ({"event_id": "x" * 129}, "id_too_long"),
    ({"tenant_id": "a\u0000b"}, "control_character"),
    ({"event_time": "2026-01-31T12:00:00"}, "naive_time"),
    ({"event_time": "yesterday"}, "bad_time"),
    ({"event_time": "2026-02-31T12:00:00Z"}, "bad_time"),
    ({"event_time": "0001-01-01T00:00:00Z"}, "bad_time"),
    ({"event_time": 1234}, "wrong_type"),
    ({"event_time": format_time(NOW + 2 * HOUR)}, "time_in_future"),
    ({"tokens_input": -1}, "negative_number"),
    ({"tokens_input": "many"}, "wrong_type"),
    ({"tokens_input": 1.5}, "wrong_type"),
    ({"tokens_input": True}, "wrong_type"),
    ({"tokens_input": 10**10}, "number_too_large"),
    ({"latency_ms": 1e300}, "number_too_large"),
    ({"latency_ms": 10**400}, "number_too_large"),
    ({"latency_ms": -(10**400)}, "negative_number"),
    ({"event_type": "cost", "cost_amount": "9" * 29}, "number_too_large"),
    ({"tokens_cache_read": 11}, "inconsistent_tokens"),
    ({"tokens_reasoning": 1}, "inconsistent_tokens"),
    ({"latency_ms": -1}, "negative_number"),
    ({"attempt": 0}, "out_of_range"),
    ({"usage_scope": "both"}, "bad_choice"),
    ({"run_id": "tallystick:x"}, "reserved_id"),
    ({"event_type": "data.import.error"}, "reserved_id"),
    ({"event_type": "cost"}, "missing_field"),
    ({"event_type": "cost", "cost_amount": "-1"}, "negative_number"),
    ({"event_type": "cost", "cost_amount": "1e5x"}, "bad_amount"),
    ({"event_type": "cost", "cost_amount": "1", "cost_currency": "usd"}, "bad_currency"),
    ({"attrs": "text"}, "wrong_type"),
    ({"is_batch": "yes"}, "wrong_type"),
]


@pytest.mark.parametrize(("changes", "code"), BAD, ids=lambda value: str(value)[:40])
def test_a_bad_event_has_a_code_and_its_neighbours_survive(
    changes: dict[str, Any], code: str
) -> None:
    body = json.dumps([{**GOOD, "event_id": "a"}, {**GOOD, **changes}, {**GOOD, "event_id": "b"}])
    parsed = parse(body.encode())
    assert [event.event_id for event in events_of(parsed)] == ["a", "b"]
    assert parsed.indexes == [0, 2]
    (rejection,) = parsed.rejections
    assert (rejection.index, rejection.code) == (1, code)
    assert rejection.reason
    assert parsed.broken[0].reject_code == code


@pytest.mark.parametrize("extra", [{}, {"attrs": {"note": "a\u0007b"}}], ids=["plain", "long way"])
def test_what_happened_before_facts_are_kept_is_refused(extra: dict[str, Any]) -> None:
    times = {"old": NOW - DAY - 1, "young": NOW - DAY}
    body = [
        {**GOOD, **extra, "event_id": name, "event_time": format_time(at)}
        for name, at in times.items()
    ]
    parsed = parse_body(
        json.dumps(body).encode(),
        content_type="application/json",
        content_encoding="",
        headers={},
        received_at=NOW,
        redactor=Redactor(b"key"),
        closed_before=NOW - DAY,
    )
    assert [event.event_id for event in events_of(parsed)] == ["young"]
    assert [(one.event_id, one.code) for one in parsed.rejections] == [("old", "time_expired")]
    assert (parsed.broken[0].occurred_at, parsed.broken[0].reject_code) == (NOW, "time_expired")
    with pytest.raises(Refused, match="have expired"):
        repair(
            read_draft(parsed.broken[0].attrs),
            {},
            tenant_id="acme",
            received_at=NOW,
            redactor=Redactor(b"key"),
            closed_before=NOW - DAY,
        )


@pytest.mark.parametrize("number", [10**400, -(10**400)], ids=["large", "negative"])
@pytest.mark.parametrize("place", ["attrs", "unknown"])
def test_a_number_that_no_float_can_take_is_hashed(place: str, number: int) -> None:
    (kept,) = events_of(one(**{place: {"amount": number}}))
    (value,) = json.loads(kept.attrs).values()
    assert value.startswith("hmac:")


@pytest.mark.parametrize("number", ["0." + "1" * 2_000, "1e-" + "9" * 25, "-0." + "4" * 30])
def test_a_fraction_of_many_digits_is_hashed(number: str) -> None:
    text = json.dumps({**GOOD, "attrs": {"ratio": 0.125}})
    (kept,) = events_of(parse(text.encode()))
    assert json.loads(kept.attrs) == {"ratio": 0.125}
    parsed = parse(text.replace("0.125", number).encode())
    assert all("hmac:" in event.attrs for event in events_of(parsed))
    assert all(len(event.attrs) < 100 for event in events_of(parsed))


RAW_BAD = [
    (b'{"event_id":"x","latency_ms":1e' + b"9" * 25 + b"}", "number_too_large"),
    (b'{"event_id": nope}', "invalid_json"),
    (b'{"event_id":"x","latency_ms":NaN}', "not_finite"),
    (b'{"event_id":"x","latency_ms":Infinity}', "not_finite"),
    (b'{"event_id":"\xff\xfe"}', "invalid_utf8"),
    (b'{"event_id":"\\ud800"}', "invalid_utf8"),
    (b"[" * 100_000 + b"]" * 100_000, "nesting_too_deep"),
    (b'{"attrs":{"a":' + b'{"a":' * 30 + b"1" + b"}" * 31 + b"}", "missing_field"),
    (b"42", "not_an_object"),
    (b"null", "not_an_object"),
    (b'"text with ] and , inside"', "not_an_object"),
    (b"", "invalid_json"),
]


@pytest.mark.parametrize(("raw", "code"), RAW_BAD, ids=[code for _, code in RAW_BAD])
def test_an_undecodable_element_harms_no_other(raw: bytes, code: str) -> None:
    first = json.dumps({**GOOD, "event_id": "a", "feature": 'say "[,]{" \\'}).encode()
    last = json.dumps({**GOOD, "event_id": "b"}).encode()
    parsed = parse(b" [" + first + b"," + raw + b"," + last + b"] ")
    assert [event.event_id for event in events_of(parsed)] == ["a", "b"]
    assert [(bad.index, bad.code) for bad in parsed.rejections] == [(1, code)]


def test_ndjson_lines_are_independent() -> None:
    line = json.dumps(GOOD).encode()
    parsed = parse(line + b"\n{broken\n\n" + line, "application/x-ndjson")
    assert len(events_of(parsed)) == 2
    assert [bad.code for bad in parsed.rejections] == ["invalid_json"]


def test_nesting_inside_one_event_is_bounded() -> None:
    deep: Any = 1
    for _ in range(30):
        deep = {"a": deep}
    assert one(attrs={"x": deep}).rejections[0].code == "nesting_too_deep"


@pytest.mark.parametrize("body", [b"", b"hello", b'[{"a":1}', b"[1]]", b"[{]}"])
def test_a_body_without_messages_is_refused_as_a_whole(body: bytes) -> None:
    with pytest.raises(BodyUnreadable):
        parse(body)


def test_compression_is_undone_within_bounds() -> None:
    plain = json.dumps([GOOD]).encode()
    assert len(events_of(parse(gzip.compress(plain), encoding="gzip"))) == 1
    assert len(events_of(parse(zstandard.ZstdCompressor().compress(plain), encoding="zstd"))) == 1
    bomb = gzip.compress(b" " * (BODY_BYTES_MAX * 20))
    with pytest.raises(BodyTooLarge):
        parse(bomb, encoding="gzip")
    with pytest.raises(BodyTooLarge):
        parse(zstandard.ZstdCompressor().compress(b" " * (BODY_BYTES_MAX * 20)), encoding="zstd")
    for encoding in ("gzip", "zstd"):
        with pytest.raises(BodyUnreadable):
            parse(b"not compressed", encoding=encoding)
    with pytest.raises(BodyUnreadable):
        parse(gzip.compress(plain)[:-12], encoding="gzip")
    with pytest.raises(UnsupportedForm):
        parse(plain, encoding="br")
    with pytest.raises(UnsupportedForm):
        parse(plain, content_type="text/xml")
    with pytest.raises(BodyTooLarge):
        parse(b"[" + b" " * (10 * 1024 * 1024) + b"]")


@pytest.mark.parametrize(
    ("encoding", "pack"), [("gzip", gzip.compress), ("zstd", zstandard.compress)]
)
def test_a_packed_body_is_taken_whole_or_not_at_all(
    encoding: str, pack: Callable[[bytes], bytes]
) -> None:
    """INV-10: members after the first, and what a cut took, are not lost in silence."""
    lines = [json.dumps({**GOOD, "event_id": f"e{number}"}) for number in range(5000)]
    first, second = ("\n".join(half).encode() for half in (lines[:2500], lines[2500:]))
    body = pack(first + b"\n") + pack(b"") + pack(second)
    assert parse(body, "application/x-ndjson", encoding=encoding).batch.size == 5000
    cuts = [body[:-1], body[: len(body) - len(pack(second)) // 2], body + b"more", b""]
    for cut in cuts:
        with pytest.raises(BodyUnreadable):
            parse(cut, "application/x-ndjson", encoding=encoding)


def test_cloud_events_in_all_forms() -> None:
    inner = {name: GOOD[name] for name in ("tenant_id", "model", "tokens_input")}
    envelope = {
        "specversion": "1.0",
        "id": "ce1",
        "type": "token_usage",
        "time": GOOD["event_time"],
        "source": "gateway",
        "data": inner,
    }
    structured = parse(json.dumps(envelope).encode(), "application/cloudevents+json")
    batch = parse(json.dumps([envelope]).encode(), "application/cloudevents-batch+json")
    binary = parse(
        json.dumps(inner).encode(),
        ce_specversion="1.0",
        ce_id="ce1",
        ce_type="token_usage",
        ce_time=str(GOOD["event_time"]),
        ce_source="gateway",
    )
    for parsed in (structured, batch, binary):
        (event,) = events_of(parsed)
        assert (event.event_id, event.event_type, event.source) == ("ce1", "token_usage", "gateway")
    assert events_of(structured) == events_of(batch) == events_of(binary)


def test_the_flat_cost_record_is_accepted_as_it_is() -> None:
    record = (
        b'{"key":"k1","timestamp":1789999000000,"tenantId":"acme","userId":"u","projectId":"p",'
        b'"modelId":"m","operation":"chat","currency":"USD","amount":0.000000123,"tokensIn":5,'
        b'"tokensOut":6,"version":1}'
    )
    (event,) = events_of(parse(record))
    assert (event.event_id, event.event_type, event.cost_amount) == ("k1", "cost", "0.000000123")
    assert (event.tokens_input, event.tokens_output, event.user_id) == (5, 6, "u")


def test_aliases_unknown_types_and_late_times_are_accepted() -> None:
    (event,) = events_of(one(event_type="custom", tokens_input=None, prompt_tokens=3))
    assert (event.event_type, event.tokens_input) == ("custom", 0 if not event.tokens_input else 3)
    assert len(events_of(one(event_time=format_time(NOW - 400 * DAY)))) == 1
    finer = one(event_time="2026-09-21T16:13:20.123456789+02:00")
    assert events_of(finer)[0].occurred_at % 1000 == 457


def test_content_is_never_kept() -> None:
    """INV-14: allow-list, fail closed."""
    secret = "My card is 4111 1111 1111 1111, I am Mia Li"
    (event,) = events_of(
        one(
            source=secret,
            model=secret,
            tool="mia@example.com",
            event_type="Mia Li called",
            prompt=secret,
            messages=[{"role": "user", "content": secret}],
            error_code=secret,
            attrs={"region": "eu-1", secret: 1, "phone": 4_915_112_345_678, "n": 5, "note": secret},
        )
    )
    stored = msgspec.msgpack.encode(event)
    for piece in ("4111", "Mia", "card", "4915112345678", "example.com"):
        assert piece.encode() not in stored
    attrs = json.loads(event.attrs)
    assert attrs["region"] == "eu-1"
    assert attrs["n"] == 5
    assert attrs["prompt"].startswith("hmac:")


def test_equal_content_has_one_digest_and_other_content_another() -> None:
    assert events_of(one())[0].content_digest == events_of(one())[0].content_digest
    assert events_of(one())[0].content_digest != events_of(one(tokens_input=11))[0].content_digest
    later = format_time(NOW - 1)
    assert events_of(one())[0].content_digest != events_of(one(event_time=later))[0].content_digest
