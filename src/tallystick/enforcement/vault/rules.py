"""Pure rules of the vault: fold events into cells, and say how far a budget is spent.

Folding works on columns: a column becomes codes, codes become one number a row, and rows of
one number are summed. Money is summed in two parts, so that no step can leave 64 bits whatever
was sent: units = whole * MONEY_PART + rest. What counts follows analytics exactly: cost is of
every event; tokens and requests are of model calls that are no aggregate; errors are of model
and tool calls.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

import numpy as np

from tallystick.enforcement.vault.model import (
    BUCKET,
    SCOPE_COLUMNS,
    Assignment,
    Cells,
    Integers,
)
from tallystick.events.promotion import read_attributes
from tallystick.events.redaction import is_hidden
from tallystick.rating.groups import Coded, code

MONEY_PART = 10**9
SUMMED = (
    "usd_whole",
    "usd_rest",
    "credit_whole",
    "credit_rest",
    "tokens_input",
    "tokens_output",
    "requests",
    "errors",
    "events",
)
"""What a cell sums."""

ATTRIBUTES: Mapping[str, str] = {"key_id": "key", "org": "org"}
"""Columns of a scope that are no field of an event -> the attribute that says them."""

_CALLS = ("token_usage", "cost")
_TOOL_CALL = "tool_call_finished"


def scope_codes(columns: Mapping[str, Any], count: int) -> list[Coded]:
    """The columns of SCOPE_COLUMNS as codes; those of ATTRIBUTES are read from `attrs`."""
    attributes = code(columns["attrs"], count)
    return [
        _from_attributes(attributes, ATTRIBUTES[name])
        if name in ATTRIBUTES and name not in columns
        else code(columns[name], count)
        for name in SCOPE_COLUMNS
    ]


def _from_attributes(attributes: Coded, name: str) -> Coded:
    """What each event says of one attribute; a hidden value counts as not given."""
    said = [_attribute(text, name) for text in attributes.values]
    if not any(said):
        return code([""], len(attributes.codes))
    merged = code(said, len(said))
    return Coded(merged.codes[attributes.codes], merged.values)


def _attribute(text: str, name: str) -> str:
    if f'"{name}"' not in text:
        return ""
    value = read_attributes(text).get(name)
    return value if isinstance(value, str) and not is_hidden(value) else ""


def fold(columns: Mapping[str, Any], rated: Mapping[str, Any], signs: Integers) -> Cells:
    """Sum events by scope and bucket; `signs` is 1, -1 (taken back) or 0 (does not count).

    `columns` are of event fields: lists, one value for all, integers as arrays, or codes.
    """
    count = len(signs)
    keys = scope_codes(columns, count)
    first, scope_of = distinct_rows(keys, count)
    moments, bucket_of = np.unique(
        integers(columns["occurred_at"], count) // BUCKET, return_inverse=True
    )
    cell_of_row = scope_of * len(moments) + bucket_of
    cells, sums = _sum_by(cell_of_row, _summed(columns, rated, signs))
    counts = np.any([values != 0 for values in sums.values()], axis=0)
    places, used = np.unique(cells[counts] // len(moments), return_inverse=True)
    return Cells(
        scopes=[tuple(key.value(first[place]) for key in keys) for place in places],
        places=used,
        buckets=moments[cells[counts] % len(moments)] * BUCKET,
        sums={name: values[counts] for name, values in sums.items()},
    )


def distinct_rows(keys: Sequence[Coded], count: int) -> tuple[Integers, Integers]:
    """Which rows agree in every key: the first row of each kind, and the kind of each row."""
    combined: Integers = np.zeros(count, np.int64)
    size = 1
    for key in keys:
        if len(key.values) == 1:
            continue
        if size * len(key.values) >= 2**62:
            distinct, combined = np.unique(combined, return_inverse=True)
            size = len(distinct)
        combined = combined * len(key.values) + key.codes
        size *= len(key.values)
    _, first, kinds = np.unique(combined, return_index=True, return_inverse=True)
    return first, kinds


def integers(column: Any, count: int) -> Integers:
    """A column of integers, or of one for all, as an array."""
    values: Integers = np.asarray(column, np.int64)
    return np.broadcast_to(values, count) if len(values) == 1 else values


def _summed(
    columns: Mapping[str, Any], rated: Mapping[str, Any], signs: Integers
) -> dict[str, Integers]:
    count = len(signs)
    kinds = code(columns["event_type"], count)
    is_call = _which(kinds, _CALLS) & ~_which(code(columns["usage_scope"], count), ("aggregate",))
    is_tool_call = _which(kinds, (_TOOL_CALL,))
    has_error = ~_which(code(columns["error_code"], count), ("",))
    usd, credit = (integers(rated[name], count) for name in ("cost_units", "credit_units"))
    calls = signs * is_call
    return {
        "usd_whole": signs * (usd // MONEY_PART),
        "usd_rest": signs * (usd % MONEY_PART),
        "credit_whole": signs * (credit // MONEY_PART),
        "credit_rest": signs * (credit % MONEY_PART),
        "tokens_input": calls * integers(columns["tokens_input"], count),
        "tokens_output": calls * integers(columns["tokens_output"], count),
        "requests": calls,
        "errors": signs * ((is_call | is_tool_call) & has_error),
        "events": signs,
    }


def _which(coded: Coded, wanted: Sequence[str]) -> Any:
    """Of each row: whether its value is among those wanted."""
    return np.array([value in wanted for value in coded.values])[coded.codes]


def _sum_by(keys: Integers, values: Mapping[str, Integers]) -> tuple[Integers, dict[str, Integers]]:
    """Sum columns of rows with the same key, exactly."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    sums = {name: np.add.reduceat(column[order], starts) for name, column in values.items()}
    return ordered[starts], sums


def remaining_units(assigned: int, spent: int, held: int) -> int:
    """What is left of a budget; negative when usage that nobody asked for went beyond.

    >>> remaining_units(100, 30, 20)
    50
    """
    return assigned - spent - held


def percent_used(assigned: int, spent: int) -> str:
    """Spent of assigned in percent, two decimals; "" when nothing was assigned.

    >>> percent_used(3, 1), percent_used(0, 1)
    ('33.33', '')
    """
    if not assigned:
        return ""
    share = Decimal(spent) * 100 / Decimal(assigned)
    return str(share.quantize(Decimal("0.01"), ROUND_HALF_EVEN))


def is_crossed(at: str, assigned: int, spent: int) -> bool:
    """Whether a share of a budget is spent.

    >>> is_crossed("0.8", 10, 8), is_crossed("0.8", 10, 7)
    (True, False)
    """
    return Decimal(spent) >= Decimal(at) * assigned


def covers(assignment: Assignment, tenant_id: str, scope: Mapping[str, str], at: int) -> bool:
    """Whether usage of this scope at this moment counts against an assignment."""
    return (
        assignment.tenant_id == tenant_id
        and assignment.from_at <= at < assignment.to_at
        and all(scope.get(name, "") == value for name, value in assignment.scope.items())
    )


def asset_units(
    asset: str, columns: Mapping[str, Any], rated: Mapping[str, Any], signs: Integers
) -> Integers:
    """How much of an asset each event used, signed."""
    sums = _summed(columns, rated, signs)
    if asset == "tokens":
        return sums["tokens_input"] + sums["tokens_output"]
    if asset == "requests":
        return sums["requests"]
    name = "cost_units" if asset == "USD" else "credit_units"
    return signs * integers(rated[name], len(signs))


def source_key(tenant_id: str, run_id: str) -> str:
    """The name under which a run's usage is counted; usage without a run has one together.

    >>> source_key("acme", "r1")
    'run:acme/r1'
    """
    return f"run:{tenant_id}/{run_id}"


def usage_target(spent: int, captured: int) -> int:
    """What events used beyond what holds captured.

    Below zero only where nothing was captured: a correction took back what a baseline counted.

    >>> usage_target(10, 4), usage_target(3, 4), usage_target(-2, 0)
    (6, 0, -2)
    """
    return max(0, spent - captured) if captured else spent
