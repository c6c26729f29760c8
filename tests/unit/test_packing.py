"""Columns are packed and unpacked without a loss, whatever they hold, and joined as lists are."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tallystick.plumbing.log.columns import concat, expand
from tallystick.plumbing.log.model import decode_packed, decode_payload, encode_payload
from tallystick.plumbing.log.packing import Packed, join, pack, unpack, unpack_all

texts = st.text(st.characters(codec="utf-8"), max_size=6)
numbers = st.integers(-(2**63), 2**63 - 1)
floats = st.floats(allow_nan=False)
kinds: list[st.SearchStrategy[Any]] = [
    texts,
    numbers,
    st.one_of(st.none(), floats),
    st.binary(min_size=16, max_size=16),
    st.one_of(texts, st.none()),
    st.one_of(numbers, st.booleans(), floats),
    st.integers(0, 2**64 - 1),
    st.binary(max_size=3),
]
columns = st.one_of([st.lists(kind, min_size=1, max_size=8) for kind in kinds])


def _exactly(values: list[Any]) -> list[tuple[type, Any]]:
    return [(type(value), value) for value in values]


@settings(max_examples=300, deadline=None)
@given(columns)
def test_what_is_packed_is_unpacked(values: list[Any]) -> None:
    assert _exactly(unpack(pack(values), len(values))) == _exactly(values)
    stored, verdicts = decode_payload(encode_payload([values], bytes(len(values))))
    assert (_exactly(stored[0]), verdicts) == (_exactly(values), bytes(len(values)))


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(kinds), st.data())
def test_joined_columns_are_those_of_the_batches(
    kind: st.SearchStrategy[Any], data: st.DataObject
) -> None:
    parts = []
    for _ in range(data.draw(st.integers(1, 4))):
        values = data.draw(st.lists(kind, min_size=1, max_size=5))
        is_same = data.draw(st.booleans())
        parts.append((len(values), [values[:1] if is_same else values]))
    count = sum(size for size, _ in parts)
    packed = [
        (size, decode_packed(encode_payload(listed, bytes(size)))[0]) for size, listed in parts
    ]
    (joined,) = unpack_all(join(packed), count)
    (wanted,) = concat(parts)
    assert _exactly(expand(joined, count)) == _exactly(expand(wanted, count))


def test_usual_columns_are_packed() -> None:
    for values in (["a", ""], [1, -2], [None, 1.5], [b"a" * 16, b"b" * 16]):
        assert isinstance(pack(list(values)), Packed)


def test_what_cannot_be_told_apart_is_not_packed() -> None:
    for values in (["a\0", "b"], [True, 2], [math.nan, None], [1, 1.0], [2**64, 1]):
        assert pack(list(values)) == values or values[0] != values[0]
        assert not isinstance(pack(list(values)), Packed)


def test_a_field_that_an_older_writer_did_not_know_is_none() -> None:
    older, newer = (2, [["a"]]), (2, [pack(["b", "c"]), pack([1, 2])])
    assert unpack_all(join([older, newer]), 4) == [["a", "a", "b", "c"], [None, None, 1, 2]]
