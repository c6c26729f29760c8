"""Which events of a batch can be rated together: groups of rows that agree in some columns.

A column becomes codes into its distinct values, codes of several columns one number a row, and
rows are sorted by that number; nothing is done event by event.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from tallystick.rating.vector import Integers

_SAFE = 2**62
_SHORT = 2**16


class Coded(NamedTuple):
    """A column as codes into its distinct values."""

    codes: Integers
    values: Sequence[Any]

    def value(self, row: int) -> Any:
        """The value of a row."""
        return self.values[self.codes[row]]


def code(column: Sequence[Any] | Integers | Coded, count: int) -> Coded:
    """Code a column of `count` values, or of one value for all; a coded one is left as it is."""
    if isinstance(column, Coded):
        return column
    if len(column) == 1:
        return Coded(np.broadcast_to(np.int64(0), count), [column[0]])
    values = list(dict.fromkeys(column))
    places = {value: place for place, value in enumerate(values)}
    return Coded(np.fromiter(map(places.__getitem__, column), np.int64, count), values)


def group_rows(keys: Sequence[Coded], count: int) -> Iterator[Integers]:
    """Yield the numbers of rows that agree in every key, group by group, ascending in each."""
    combined = np.zeros(count, np.int64)
    size = 1
    for key in keys:
        choices = len(key.values)
        if choices == 1:
            continue
        if size * choices >= _SAFE:
            distinct, combined = np.unique(combined, return_inverse=True)
            size = len(distinct)
        combined = combined * choices + key.codes
        size *= choices
    if size == 1:
        yield np.arange(count)
        return
    short = combined.astype(np.uint16) if size <= _SHORT else combined
    order = np.argsort(short, kind="stable")  # of 16 bits that is a radix sort
    starts = np.flatnonzero(np.diff(combined[order])) + 1
    yield from np.split(order, starts)
