"""Rows for PostgreSQL by set: a column travels as one array, or once when it is the same.

Arrays are made as text, ten times faster than by adapting each element. Each array costs the
server some microseconds to unfold, whatever its length, so a column with one value for all
rows is sent as that value. Text format of arrays: PostgreSQL documentation, "Array Input and
Output Syntax".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple


def int_array(values: Iterable[int]) -> str:
    """Write integers.

    >>> int_array([1, -3])
    '{1,-3}'
    """
    return "{" + ",".join(map(str, values)) + "}"


def _nullable_array(values: Iterable[Any]) -> str:
    return "{" + ",".join(["NULL" if value is None else str(value) for value in values]) + "}"


def _bool_array(values: Iterable[bool]) -> str:
    return "{" + ",".join(["t" if value else "f" for value in values]) + "}"


def id_array(values: Iterable[str]) -> str:
    """Write texts that need no quotes, such as UUIDs and the words of an enumeration.

    >>> id_array(["0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b"])
    '{0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b}'
    """
    return "{" + ",".join(values) + "}"


def text_array(values: Iterable[str]) -> str:
    """Write any texts.

    >>> text_array(["plain", "NULL", 'a "b"', ""])
    '{"plain","NULL","a \\\\"b\\\\"",""}'
    """
    texts = list(values)
    if not texts:
        return "{}"
    everything = "".join(texts)
    if '"' in everything or "\\" in everything:
        texts = [text.replace("\\", "\\\\").replace('"', '\\"') for text in texts]
    return '{"' + '","'.join(texts) + '"}'


class Column(NamedTuple):
    """A column of a set-based write: its name, its type, and how to read it from a row.

    For an array type `read` returns the array as text.
    """

    name: str
    kind: str
    read: Callable[[Any], Any]


class Parts(NamedTuple):
    """What completes a set-based statement: the columns, their values, where rows come from."""

    names: str
    values: str
    rows: str


def by_set(rows: Sequence[Any], columns: Sequence[Column]) -> tuple[dict[str, Any], Parts]:
    """Return the arguments of a set-based write and the parts that complete its statement."""
    if len(rows) == 1:
        return {name: read(rows[0]) for name, _, read in columns}, _parts(tuple(columns), ())
    arguments: dict[str, Any] = {}
    varying: list[str] = []
    for name, kind, read in columns:
        found = list(map(read, rows))
        if found.count(found[0]) == len(found):
            arguments[name] = found[0]
        else:
            arguments[name] = _FORMS[kind][0](found)
            varying.append(name)
    return arguments, _parts(tuple(columns), tuple(varying))


@lru_cache(maxsize=2000)
def _parts(columns: tuple[Column, ...], varying: tuple[str, ...]) -> Parts:
    """The text for columns of which these vary; a group has few forms, writing one takes long."""
    values: list[str] = []
    arrays: list[str] = []
    for name, kind, _ in columns:
        if name not in varying:
            values.append(f"%({name})s::{kind}")
            continue
        element = _FORMS[kind][1]
        values.append(f"n.{name}::{kind}" if element != kind else f"n.{name}")
        arrays.append(f"%({name})s::{element}[]")
    source = (
        f"unnest({', '.join(arrays)}) AS n({', '.join(varying)})" if arrays else "(SELECT) AS n"
    )
    return Parts(", ".join(one.name for one in columns), ", ".join(values), source)


_FORMS: dict[str, tuple[Callable[[Iterable[Any]], str], str]] = {
    "bigint": (_nullable_array, "bigint"),
    "integer": (int_array, "integer"),
    "smallint": (int_array, "smallint"),
    "boolean": (_bool_array, "boolean"),
    "text": (text_array, "text"),
    "uuid": (_nullable_array, "uuid"),
    "uuid[]": (text_array, "text"),
    "bigint[]": (text_array, "text"),
    "text[]": (text_array, "text"),
}
