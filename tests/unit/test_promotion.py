"""Older rows are completed one way for ever, and adding a field moves no digest."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tallystick.clock import format_time
from tallystick.events.model import EVENT_FIELDS, Event, Plain, digest_of
from tallystick.events.promotion import (
    DEFAULTS,
    Promotion,
    fill_columns,
)
from tallystick.events.redaction import Redactor
from tallystick.events.rules import make_event
from tallystick.plumbing.log.columns import complete

NOW = 1_790_000_000_000_000
FIELDS = (*EVENT_FIELDS, "region", "carbon_grams")
FILLED = (*DEFAULTS, "", 0)
PROMOTIONS = (Promotion("region", "region", 2, str), Promotion("carbon_grams", "carbon.g", 2, int))


def row_of(attrs: dict[str, Any], **more: Any) -> list[Any]:
    """An event as version 1 put it into the log."""
    message = {
        "event_id": "e",
        "event_type": "token_usage",
        "event_time": format_time(NOW),
        "tenant_id": "acme",
        **more,
        "attrs": attrs,
    }
    event = make_event(message, received_at=NOW, redactor=Redactor(b"key"))
    return [getattr(event, name) for name in EVENT_FIELDS]


def complete_row(row: list[Any], promotions: Any = PROMOTIONS) -> list[Any]:
    columns = fill_columns([[value] for value in row], 1, promotions, fields=FIELDS)
    return [column[0] for column in complete(columns, FILLED)]


def completed(row: list[Any]) -> dict[str, Any]:
    assert complete_row(row) == complete_row(list(row)), "the same row is completed the same way"
    return dict(zip(FIELDS, complete_row(row), strict=True))


def test_a_promoted_field_is_filled_from_attrs_of_older_rows() -> None:
    event = completed(row_of({"region": "eu-1", "carbon.g": 12}))
    assert (event["region"], event["carbon_grams"]) == ("eu-1", 12)
    assert json.loads(event["attrs"]) == {"region": "eu-1", "carbon.g": 12}, "a fact never changes"


@pytest.mark.parametrize(
    "attrs",
    [{}, {"region": None, "carbon.g": None}, {"region": "two words", "carbon.g": "heavy"}],
    ids=["absent", "null", "hidden by redaction"],
)
def test_what_was_not_kept_is_not_invented(attrs: dict[str, Any]) -> None:
    event = completed(row_of(attrs))
    assert (event["region"], event["carbon_grams"]) == ("", 0)


def test_a_value_that_cannot_be_read_leaves_the_default() -> None:
    def refuse(_: Any) -> Any:
        raise ValueError

    row = complete_row(row_of({"region": "eu-1"}), [Promotion("region", "region", 2, refuse)])
    assert row[FIELDS.index("region")] == ""


def test_a_row_of_today_is_left_alone() -> None:
    """There the field was canonical already: attrs say nothing about it."""
    row = [*row_of({"region": "eu-1"}), "us-2", 5]
    assert complete_row(row)[-2:] == ["us-2", 5]


def test_a_row_between_two_versions_is_promoted_only_where_it_is_short() -> None:
    row = [*row_of({"region": "eu-1", "carbon.g": 9}), "us-2"]
    assert complete_row(row)[-2:] == ["us-2", 9]


def test_without_promotions_older_rows_get_defaults() -> None:
    columns = complete([["e"], ["token_usage"], [NOW], [NOW], ["acme"]], DEFAULTS)
    event = Event(event_id="e", event_type="token_usage", occurred_at=NOW, received_at=NOW,
                  tenant_id="acme")  # fmt: skip
    assert columns == [[getattr(event, name)] for name in EVENT_FIELDS]


def test_a_new_field_moves_no_digest_until_it_is_given() -> None:
    class Newer(Plain, kw_only=True, omit_defaults=True, gc=False):
        region: str = ""

    given: dict[str, Any] = {
        "event_id": "e",
        "event_type": "x",
        "event_time": NOW,
        "tenant_id": "acme",
    }
    assert digest_of(Newer(**given)) == digest_of(Plain(**given))
    assert digest_of(Newer(**given, region="eu-1")) != digest_of(Plain(**given))


def test_columns_are_filled_as_rows_are() -> None:
    rows = [row_of(attrs) for attrs in ({"region": "eu-1"}, {}, {"region": "us-2", "carbon.g": 4})]
    columns = [list(column) for column in zip(*rows, strict=True)]
    shared = [column[:1] if len(set(map(str, column))) == 1 else column for column in columns]
    for given in (columns, shared):
        filled = fill_columns(given, 3, PROMOTIONS, fields=FIELDS)
        assert filled[-2:] == [["eu-1", None, "us-2"], [None, None, 4]]
        assert filled[:-2] == given
    known = fill_columns([*shared, ["ap-3", None, None], [None]], 3, PROMOTIONS, fields=FIELDS)
    assert known[-2:] == [["ap-3", None, "us-2"], [None, None, 4]]
    assert fill_columns(shared, 3) == shared, "nothing is promoted yet"
