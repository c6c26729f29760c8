"""The short ways (plain events, prices by column) agree with the long ones on everything."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from tallystick.catalog.seed import convert
from tallystick.events.adapters import parse_body
from tallystick.events.fields import FIELDS
from tallystick.events.model import Event, Plain
from tallystick.events.redaction import Redactor
from tallystick.events.rules import Refused, make_event
from tallystick.plumbing.log.columns import rows_of_columns
from tallystick.rating import CostCard, CreditCard, RateCardVersion, Rater
from tallystick.rating.cards import ModelPrices, PricePeriod, ProviderPrices
from tallystick.rating.rater import RATED_COLUMNS

NOW = 1_790_000_000_000_000
REDACTOR = Redactor(b"key")
HASHING = Redactor(b"key", hash_user_ids=True)
texts = st.sampled_from(
    ["", "acme", "x" * 128, "x" * 129, "two words", "mia@example.com", "Zürich", "tab\there"]
    + ["tallystick:x", "data.import.error", "cost", "leaf", "aggregate", "exact", "gpt-4o", "\x7f"]
)
numbers = st.sampled_from([0, 1, 7, 10**9, 10**9 + 1, -1, 2**31, 1.5, True, None, "1"])
times = st.sampled_from(
    ["2026-09-21T16:13:20Z", "2026-09-21t16:13:20.1234567+02:00", "2026-09-21T16:13:20+0200"]
    + ["2026-09-21T16:13:20", "yesterday", "2026-02-31T12:00:00Z", "2036-01-01T00:00:00Z", 5]
    + ["1969-01-01T00:00:00Z", "2026-09-21 16:13:20.999999999Z"]
)


def test_the_short_way_knows_every_field() -> None:
    """A field that is added to the one and not to the other would take the long way for ever."""
    aliases = {"prompt_tokens", "completion_tokens"}
    assert set(Plain.__struct_fields__) == set(FIELDS) - aliases


fields = {
    **dict.fromkeys(["event_id", "event_type", "tenant_id"], texts),
    **dict.fromkeys(["run_id", "source", "model", "tool", "error_code", "user_id"], texts),
    **dict.fromkeys(["usage_scope", "usage_quality", "cost_amount", "unknown"], texts),
    **dict.fromkeys(["tokens_input", "tokens_output", "tokens_reasoning", "attempt"], numbers),
    **dict.fromkeys(["tokens_cache_read", "latency_ms", "schema_version"], numbers),
    "is_batch": st.sampled_from([True, False, None, "yes"]),
    "event_time": times,
    "attrs": st.sampled_from([{}, {"region": "eu", "n": 0.1, "note": "some words"}, None, "x", 5]),
}
GOOD = {
    "event_id": "e",
    "event_type": "token_usage",
    "tenant_id": "acme",
    "event_time": "2026-09-21T16:13:20Z",
    "tokens_input": 100,
    "tokens_output": 10,
}
messages = st.builds(
    lambda some, missing: {n: v for n, v in {**GOOD, **some}.items() if n not in missing},
    st.fixed_dictionaries({}, optional=fields),
    st.one_of(st.just(set()), st.just(set()), st.sets(st.sampled_from(list(GOOD)), max_size=2)),
)


def _long_way(message: dict[str, Any], redactor: Redactor) -> Event | str:
    decoder = msgspec.json.Decoder(float_hook=__import__("decimal").Decimal)
    try:
        decoded = decoder.decode(json.dumps(message).encode())
        return make_event(decoded, received_at=NOW, redactor=redactor)
    except Refused as refused:
        return refused.code


@settings(max_examples=400, deadline=None)
@given(
    st.lists(messages, min_size=1, max_size=6),
    st.booleans(),
    st.sampled_from([REDACTOR, HASHING]),
)
def test_both_ways_in_make_the_same_of_every_event(
    several: list[dict[str, Any]], is_lines: bool, redactor: Redactor
) -> None:
    body = "\n".join(map(json.dumps, several)) if is_lines else json.dumps(several)
    parsed = parse_body(
        body.encode(),
        content_type="application/x-ndjson" if is_lines else "application/json",
        content_encoding="",
        headers={},
        received_at=NOW,
        redactor=redactor,
    )
    made = dict(
        zip(
            parsed.indexes,
            msgspec.convert(rows_of_columns(parsed.batch.columns, parsed.batch.size), list[Event])
            if parsed.batch.size
            else [],
            strict=True,
        )
    )
    refused = {one.index: one.code for one in parsed.rejections}
    assert [made.get(index, refused.get(index)) for index in range(len(several))] == [
        _long_way(message, redactor) for message in several
    ]


TIERED = CostCard(
    providers=[
        ProviderPrices(
            "p",
            [
                ModelPrices(
                    "flat", {"equals": "flat"}, [PricePeriod({"input": "2.5", "output": "10"})]
                ),
                ModelPrices(
                    "tiered",
                    {"equals": "tiered"},
                    [
                        PricePeriod(
                            {"input": [(0, "1.25"), (200_000, "2.5")], "output": "0.123456789"}
                        )
                    ],
                ),
                ModelPrices("dear", {"equals": "dear"}, [PricePeriod({"input": "999999"})]),
                ModelPrices(
                    "nightly",
                    {"equals": "nightly"},
                    [
                        PricePeriod({"input": "1", "request": "0.01"}),
                        PricePeriod({"input": "0.5"}, daily=("22:00:00", "06:00:00")),
                    ],
                ),
            ],
        )
    ]
)
VERSIONS = [
    RateCardVersion(1, "cost", "", 0, 5, msgspec.json.encode(TIERED)),
    RateCardVersion(2, "credit", "", 0, 5, msgspec.json.encode(CreditCard())),
    RateCardVersion(3, "cost", "", NOW, NOW + 50, msgspec.json.encode(convert())),
    RateCardVersion(
        4, "credit", "vip", NOW, 9, msgspec.json.encode(CreditCard(token_markup="1.7"))
    ),
    RateCardVersion(
        5, "credit", "odd", 0, 9, msgspec.json.encode(CreditCard(face_value_usd="0.03"))
    ),
]
RATER = Rater(VERSIONS)
amounts = st.one_of(st.integers(0, 5), st.integers(0, 10**6), st.just(10**9))
events = st.fixed_dictionaries(
    {
        "event_type": st.sampled_from(
            ["token_usage"] * 4 + ["tool_call_finished", "attempt_finished", "cost", "run_started"]
        ),
        "tenant_id": st.sampled_from(["a", "vip", "odd"]),
        "usage_scope": st.sampled_from(["leaf", "leaf", "aggregate"]),
        "usage_quality": st.sampled_from(["exact", "estimated"]),
        "provider": st.sampled_from(["p", "openai", ""]),
        "model": st.sampled_from(["flat", "tiered", "dear", "nightly", "gpt-4o", "unheard-of"]),
        "service_tier": st.just(""),
        "is_batch": st.booleans(),
        "tool": st.sampled_from(["", "search"]),
        "error_code": st.sampled_from(["", "timeout"]),
        "latency_ms": st.one_of(st.none(), st.floats(0, 10**6)),
        "cost_amount": st.sampled_from(["0.0025", "0"]),
        "cost_currency": st.sampled_from(["USD", "EUR"]),
        "occurred_at": st.sampled_from([NOW - 10, NOW, NOW + 10**10]),
        "received_at": st.sampled_from([NOW, NOW + 100]),
        "tokens_output": amounts,
        "tokens_cache_read": amounts,
        "tokens_cache_write_5m": st.integers(0, 3),
        "tokens_cache_write_1h": st.integers(0, 3),
        "fresh": amounts,
    }
)


@settings(max_examples=300, deadline=None)
@given(st.lists(events, min_size=1, max_size=12), st.integers(1, 3))
def test_prices_by_column_equal_prices_one_by_one(
    several: list[dict[str, Any]], times: int
) -> None:
    several = [dict(one) for one in several] * times
    for one in several:
        cached = ("tokens_cache_read", "tokens_cache_write_5m", "tokens_cache_write_1h")
        one["tokens_input"] = one.get("fresh", 0) + sum(one[name] for name in cached)
        one["tokens_reasoning"] = one["tokens_output"] // 2
    columns = {name: [one[name] for one in several] for name in several[0]}
    short = {
        name: values[:1] if all(value == values[0] for value in values) else values
        for name, values in columns.items()
    }
    rated = RATER.rate_columns(short, len(several))
    for index, one in enumerate(several):
        kind = one["event_type"]
        wanted = RATER.rate_one(kind, index, columns) if kind != "run_started" else None
        got = tuple(rated[name][index] for name in RATED_COLUMNS)
        assert got == (tuple(wanted) if wanted else (0, "none", 0, 0, 0)), one
