"""Events as columns: one list a field, or a single value where all are the same.

Most fields of a batch are not given, or are the same for all of its events. As columns they
cost nothing to encode, decode, compress and turn into Arrow; as rows they cost their full
number each time. A column of one value stands for as many as the batch has events.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat
from typing import Any

Columns = list[list[Any]]
"""One list a field: `count` values, or one value for all of them."""


def shorten(column: Sequence[Any]) -> list[Any]:
    """Return the column, or its one value when all are the same.

    >>> shorten(["a", "a"]), shorten(["a", "b"])
    (['a'], ['a', 'b'])
    """
    first = column[0]
    # most columns that vary end differently: no need to count
    is_same = first == column[-1] and column.count(first) == len(column)
    return [first] if is_same else list(column)


def columns_of_rows(rows: Sequence[Sequence[Any]]) -> Columns:
    """Transpose rows of one length; there must be at least one."""
    if len(rows) == 1:
        return [[value] for value in rows[0]]
    return [shorten(column) for column in zip(*rows, strict=True)]


def expand(column: list[Any], count: int) -> list[Any]:
    """Return all `count` values of a column."""
    return column if len(column) == count else column * count


def rows_of_columns(columns: Columns, count: int) -> list[list[Any]]:
    """Transpose back."""
    whole = (column if len(column) == count else repeat(column[0], count) for column in columns)
    return [list(row) for row in zip(*whole, strict=True)]


def concat(parts: Sequence[tuple[int, Columns]]) -> Columns:
    """Put batches of the same fields after each other: (count, columns) each.

    >>> concat([(2, [["a"], [1, 2]]), (1, [["a"], [3]])])
    [['a'], [1, 2, 3]]
    """
    if len(parts) == 1:
        return parts[0][1]
    if all(count == 1 for count, _ in parts):
        return columns_of_rows([[column[0] for column in columns] for _, columns in parts])
    fields = zip(*(columns for _, columns in parts), strict=True)
    return [_join(values, [count for count, _ in parts]) for values in fields]


def _join(values: Sequence[list[Any]], counts: Sequence[int]) -> list[Any]:
    first = values[0]
    if len(first) == 1 and all(len(one) == 1 and one[0] == first[0] for one in values):
        return first
    joined: list[Any] = []
    for one, count in zip(values, counts, strict=True):
        joined += expand(one, count)
    return joined


def concat_filled(parts: Sequence[tuple[int, Columns]]) -> Columns:
    """Put batches after each other that may be of older writers, with fewer fields.

    A field that a writer did not know is None in its batch; the reader knows the default.
    """
    width = max(len(columns) for _, columns in parts)
    filled = [
        (count, columns if len(columns) == width else columns + [[None]] * (width - len(columns)))
        for count, columns in parts
    ]
    return concat(filled)


def complete(columns: Sequence[Any], defaults: Sequence[Any]) -> list[Any]:
    """Fill in the fields that an older writer did not know, with their defaults.

    Older and newer writers take over from each other, so a gap is seen at one of the ends.
    Packed columns have no gaps.
    """
    completed = []
    for place, default in enumerate(defaults):
        column = columns[place] if place < len(columns) else [None]
        is_listed = isinstance(column, list)
        if default is not None and is_listed and (column[0] is None or column[-1] is None):
            column = [default if value is None else value for value in column]
        completed.append(column)
    return completed
