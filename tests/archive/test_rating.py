"""Archived events are rated like those of the log, one by one, to the last unit."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import msgspec
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from tallystick.archive.columns import columns_of, table_of
from tallystick.events.batch import batch_of
from tallystick.events.model import EVENT_FIELDS, Event
from tallystick.plumbing.log import Chunk
from tallystick.rating import CostCard, CreditCard, RateCardVersion, Rater
from tallystick.rating.rater import RATED_COLUMNS, UNRATED
from tallystick.workers.intake import columns_to_rate

SEEDED = files("tallystick.catalog").joinpath("seed_cost_card.json").read_bytes()

OWN = msgspec.convert(
    {
        "providers": [
            {
                "id": "openai",
                "models": [
                    {
                        "id": "tiered",
                        "match": {"equals": "tiered"},
                        "prices": [
                            {
                                "rates": {
                                    "input": [[1000, "7.77"], [0, "3.33"]],
                                    "output": "0.000000000001",
                                    "request": "1.5",
                                }
                            }
                        ],
                    },
                    {
                        "id": "night",
                        "match": {"equals": "night"},
                        "prices": [
                            {"rates": {"input": "2", "output": "4"}},
                            {"rates": {"input": "1"}, "daily": ["00:00:00", "08:00:00"]},
                        ],
                    },
                    {
                        "id": "varied",
                        "match": {"equals": "varied"},
                        "prices": [{"rates": {"input": "2"}}],
                        "variants": [{"rates": {"input": "9"}, "when": {"processing": "batch"}}],
                    },
                    {"id": "dear", "match": {"equals": "dear"}, "prices": [
                        {"rates": {"input": "999999.123456789", "output": "1"}}]},
                    {"id": "free", "match": {"equals": "free"}, "prices": [{"rates": {}}]},
                ],
            }
        ]
    },
    CostCard,
)  # fmt: skip
CREDIT = msgspec.convert(
    {
        "token_markup": "1.37",
        "face_value_usd": "0.009",
        "models": {"gpt-4o": {"input": "0.123456", "output": "7"}},
        "tool_credits": {"search": "0.5"},
        "runtime_credits_per_second": "0.013",
        "failed_tool_calls": "free",
    },
    CreditCard,
)


def version(number: int, kind: str, tenant: str, at: int, known: int, card: Any) -> RateCardVersion:
    content = card if isinstance(card, bytes) else msgspec.json.encode(card)
    return RateCardVersion(number, kind, tenant, at, known, content)


RATER = Rater(
    [
        version(1, "cost", "", 0, 0, SEEDED),
        version(2, "credit", "", 0, 0, CreditCard()),
        version(3, "cost", "own", 50, 500, OWN),
        version(4, "cost", "own", 70, 900, SEEDED),
        version(5, "credit", "own", 10, 10, CREDIT),
        version(6, "cost", "", 80, 400, OWN),
        version(7, "credit", "", 60, 900, CREDIT),
    ]
)
tokens = st.one_of(st.integers(0, 3000), st.integers(0, 10**9))
events = st.builds(
    Event,
    event_id=st.just("e"),
    event_type=st.sampled_from(
        ["token_usage"] * 5
        + ["tool_call_finished", "attempt_finished", "cost", "run_started", "strange"]
    ),
    occurred_at=st.integers(0, 100),
    received_at=st.integers(0, 1000),
    tenant_id=st.sampled_from(["own", "other", ""]),
    provider=st.sampled_from(["openai", "", "anthropic", "OpenAI "]),
    model=st.sampled_from(
        ["gpt-4o", "claude-sonnet-4-5", "tiered", "night", "varied", "dear", "free", "none", ""]
    ),
    service_tier=st.sampled_from(["", "priority"]),
    is_batch=st.booleans(),
    usage_scope=st.sampled_from(["leaf", "leaf", "aggregate"]),
    usage_quality=st.sampled_from(["exact", "estimated"]),
    tokens_input=tokens,
    tokens_output=tokens,
    tokens_cache_read=tokens,
    tokens_cache_write_5m=st.sampled_from([0, 7]),
    tokens_cache_write_1h=st.sampled_from([0, 5]),
    tokens_reasoning=st.sampled_from([0, 3]),
    latency_ms=st.one_of(st.none(), st.floats(0, 10**7)),
    tool=st.sampled_from(["", "search", "x"]),
    error_code=st.sampled_from(["", "timeout"]),
    cost_amount=st.sampled_from(["", "1.25", "0.0000000005"]),
    cost_currency=st.sampled_from(["USD", "EUR", ""]),
    content_digest=st.binary(min_size=16, max_size=16),
)


def chunk_of(made: list[Event]) -> Chunk:
    count = len(made)
    return Chunk(0, 0, range(count), batch_of(made).columns, bytes(count), count)


@settings(max_examples=150, deadline=None)
@given(st.lists(events, min_size=1, max_size=40), st.booleans())
def test_columns_are_rated_like_rows(made: list[Event], is_encoded: bool) -> None:
    chunk = chunk_of(made)
    table = table_of(chunk)
    if is_encoded:
        table = pa.table(
            {
                name: table[name].dictionary_encode()
                if table[name].type == pa.string()
                else table[name]
                for name in table.column_names
            }
        )
    rated = RATER.rate_columns(columns_to_rate(table), len(made))
    whole = {name: [getattr(event, name) for event in made] for name in EVENT_FIELDS}
    for index, event in enumerate(made):
        is_rated = event.event_type not in ("run_started", "strange")
        wanted = RATER.rate_one(event.event_type, index, whole) if is_rated else UNRATED
        assert tuple(rated[name][index] for name in RATED_COLUMNS) == tuple(wanted)


@settings(max_examples=50, deadline=None)
@given(st.lists(events, min_size=1, max_size=20))
def test_columns_become_a_table_and_columns_again(made: list[Event]) -> None:
    chunk = chunk_of(made)
    assert columns_of(table_of(chunk), 0) == chunk.columns


def test_columns_of_an_older_version_are_completed() -> None:
    event = Event(event_id="e", event_type="x", occurred_at=1, received_at=2, tenant_id="t")
    chunk = chunk_of([event])
    short = chunk._replace(columns=chunk.columns[:30])
    assert columns_of(table_of(short), 0) == chunk.columns
