"""Columns of the log as they are stored: all values of a column in one piece of memory.

A list of values costs an object for each of them whenever it is read, by every follower. Packed,
a column is one text, or one array of numbers, which becomes a column of Arrow without a look at
its values. What cannot be packed exactly (mixed kinds, a text that holds the separator) stays a
list, so `unpack(pack(column)) == column` always.

    TEXT      values joined by NUL, UTF-8        INTEGERS  64 bits each, little-endian
    FLOATS    64 bits each; NaN stands for None  BYTES     values of one length, joined
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tallystick.plumbing.log.columns import Columns, expand


class Packed(NamedTuple):
    """All values of a column: of which kind, and their bytes."""

    kind: int
    content: bytes


Column = list[Any] | Packed
"""Values, or one value for all, or all of them packed."""

TEXT, INTEGERS, FLOATS, BYTES = 1, 2, 3, 4
_SEPARATOR = "\0"


def pack(values: list[Any]) -> Column:
    """Pack a column of two values or more; return it as it is where that is not exact.

    >>> pack(["a", "bc"]).content, pack([1, "a"]), pack(["a"])
    (b'a\\x00bc', [1, 'a'], ['a'])
    """
    return values if len(values) < 2 else _pack(values)


def _pack(values: list[Any]) -> Column:
    if isinstance(values[0], str):
        return _pack_text(values)
    kinds = set(map(type, values))
    if kinds == {int}:
        return _pack_integers(values)
    if kinds <= {float, type(None)}:
        return _pack_floats(values)
    if kinds == {bytes} and len(set(map(len, values))) == 1 and values[0]:
        return Packed(BYTES, b"".join(values))
    return values


def _pack_text(values: list[Any]) -> Column:
    try:
        text = _SEPARATOR.join(values)
    except TypeError:
        return values
    if text.count(_SEPARATOR) != len(values) - 1:
        return values
    return Packed(TEXT, text.encode())


def _pack_integers(values: list[int]) -> Column:
    try:
        return Packed(INTEGERS, np.array(values, "<i8").tobytes())
    except OverflowError:
        return values


def _pack_floats(values: list[float | None]) -> Column:
    numbers = np.array(values, "<f8")
    if np.isnan(numbers).sum() != values.count(None):  # a NaN that was sent is not None
        return values
    return Packed(FLOATS, numbers.tobytes())


def unpack(column: Column, count: int) -> list[Any]:
    """Return a column as a list: `count` values, or one for all.

    >>> unpack(pack([1.5, None]), 2), unpack(["a"], 2)
    ([1.5, None], ['a'])
    """
    if isinstance(column, list):
        return column
    if column.kind == TEXT:
        return column.content.decode().split(_SEPARATOR)
    if column.kind == INTEGERS:
        integers: list[Any] = np.frombuffer(column.content, "<i8").tolist()
        return integers
    if column.kind == FLOATS:
        numbers = np.frombuffer(column.content, "<f8").tolist()
        return [None if number != number else number for number in numbers]
    width = len(column.content) // count
    return [column.content[at : at + width] for at in range(0, len(column.content), width)]


def integers_of(column: Column) -> npt.NDArray[np.int64]:
    """A column of integers, or its one value for all, as an array."""
    if isinstance(column, Packed):
        return np.frombuffer(column.content, "<i8")
    return np.asarray(column, np.int64)


def unpack_all(columns: Sequence[Column], count: int) -> Columns:
    """Return every column as a list."""
    return [unpack(column, count) for column in columns]


def join(parts: Sequence[tuple[int, Sequence[Column]]]) -> list[Column]:
    """Put batches after each other, (count, columns) each; packed columns stay packed.

    A field that the writer of a batch did not know is None there; the reader knows the default.
    """
    if len(parts) == 1:
        return list(parts[0][1])
    width = max(len(columns) for _, columns in parts)
    counts = [count for count, _ in parts]
    return [
        _join_one(
            [columns[place] if place < len(columns) else [None] for _, columns in parts], counts
        )
        for place in range(width)
    ]


def _join_one(values: Sequence[Column], counts: Sequence[int]) -> Column:
    first = values[0]
    if isinstance(first, list) and len(first) == 1 and all(one == first for one in values):
        return first
    pairs = list(zip(values, counts, strict=True))
    packed = [one if isinstance(one, Packed) else _pack(expand(one, count)) for one, count in pairs]
    joined = _join_packed(packed, counts)
    if joined is not None:
        return joined
    return list(chain.from_iterable(expand(unpack(one, count), count) for one, count in pairs))


def _join_packed(columns: Sequence[Column], counts: Sequence[int]) -> Packed | None:
    """Join packed columns of one kind; None when they are not."""
    pieces = [one.content for one in columns if isinstance(one, Packed)]
    kinds = {
        (one.kind, len(one.content) // count if one.kind == BYTES else 0)
        for one, count in zip(columns, counts, strict=True)
        if isinstance(one, Packed)
    }
    if len(pieces) < len(columns) or len(kinds) > 1:
        return None
    (kind, _) = kinds.pop()
    return Packed(kind, (_SEPARATOR.encode() if kind == TEXT else b"").join(pieces))
