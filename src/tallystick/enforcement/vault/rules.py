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
    Cells,
    Integers,
)
from tallystick.events.promotion import read_attributes
from tallystick.events.redaction import is_hidden
from tallystick.rating.groups import Coded, code

MONEY_PART = 10**9
USAGE_MAX = 10**18
"""More than any limit: beyond it the figure no longer matters, and the ledger's stays whole."""

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

ATTRIBUTES: Mapping[str, str] = {"key_id": "tallystick_key", "org": "tallystick_org"}
"""Columns of a scope that are no field of an event -> the attribute that says them."""

_CALLS = ("token_usage", "cost")
_TOOL_CALL = "tool_call_finished"


def scope_codes(columns: Mapping[str, Any], count: int) -> list[Coded]:
    """The columns of SCOPE_COLUMNS as codes; those of ATTRIBUTES are read from `attrs`.

    A tenant is an organization of its own, where an event does not name another.
    """
    found = {name: code(columns[name], count) for name in SCOPE_COLUMNS if name not in ATTRIBUTES}
    attributes = code(columns["attrs"], count)
    for name, attribute in ATTRIBUTES.items():
        said = [_attribute(text, attribute) for text in attributes.values]
        default = found["tenant_id"] if name == "org" else code([""], count)
        found[name] = _said_or(attributes.codes, said, default) if any(said) else default
    return [found[name] for name in SCOPE_COLUMNS]


def _said_or(codes: Integers, said: Sequence[str], default: Coded) -> Coded:
    """What each event says, or else the default of its row."""
    defaults = [default.values[place] for place in default.codes.tolist()]
    values = [said[place] or other for place, other in zip(codes.tolist(), defaults, strict=True)]
    return code(values, len(values))


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
    cells, sums = sum_by(cell_of_row, summed(columns, rated, signs))
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


def summed(
    columns: Mapping[str, Any], rated: Mapping[str, Any], signs: Integers
) -> dict[str, Integers]:
    """What each event adds: columns of SUMMED."""
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


def sum_by(keys: Integers, values: Mapping[str, Integers]) -> tuple[Integers, dict[str, Integers]]:
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


def units_of(asset: str, sums: Mapping[str, Integers]) -> list[int]:
    """How much of an asset each cell used, of its sums (SUMMED)."""
    if asset in ("tokens", "requests"):
        whole = sums["requests"] if asset == "requests" else _tokens(sums)
        counts: list[int] = whole.tolist()
        return counts
    name = "usd" if asset == "USD" else "credit"
    parts = zip(sums[f"{name}_whole"].tolist(), sums[f"{name}_rest"].tolist(), strict=True)
    return [whole * MONEY_PART + rest for whole, rest in parts]


def _tokens(sums: Mapping[str, Integers]) -> Integers:
    return sums["tokens_input"] + sums["tokens_output"]


def source_key(tenant_id: str, run_id: str) -> str:
    """The name under which a run's usage is counted; usage without a run has one together.

    >>> source_key("acme", "r1")
    'run:acme/r1'
    """
    return f"run:{tenant_id}/{run_id}"


def usage_target(spent: int, captured: int) -> int:
    """What events used beyond what holds captured, within what a ledger can count.

    >>> usage_target(10, 4), usage_target(3, 4), usage_target(-2, 0)
    (6, 0, 0)
    """
    return min(max(0, spent - captured), USAGE_MAX)
