"""How many tokens a span says were used, brought to one meaning. Pure.

The canonical `tokens_input` includes cached tokens. The conventions say the same, and the
recorded instrumentations do it, but some emitters pass Anthropic's own count on, which
leaves the cache out. The rule, in this order (`tallystick.cache_tokens` set to `included`
or `excluded` on the span or its resource decides before it):

1. cached tokens are more than the input: the input leaves them out, add them;
2. a total is stated and equals input + cached + output: it leaves them out, add them;
3. else the input includes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from tallystick.events import otlp_names as names
from tallystick.events.rules import Refused


class Usage(NamedTuple):
    """Token counts in the contract's meaning; `stated` counts the figures that were given."""

    tokens_input: int
    tokens_output: int
    tokens_cache_read: int
    tokens_cache_write_5m: int
    tokens_cache_write_1h: int
    tokens_reasoning: int
    is_exact: bool
    stated: int


def read_usage(attributes: Mapping[str, Any], cache_mark: Any) -> Usage:
    """Read the usage of a span; raise Refused when a count is no count.

    A span that states no input is inexact: its input is what its total or cache implies.
    """
    given = {
        name: _count(attributes, rows)
        for name, rows in (
            ("input", names.INPUT),
            ("output", names.OUTPUT),
            ("read", names.CACHE_READ),
            ("write", names.CACHE_WRITE),
            ("write_1h", names.CACHE_WRITE_1H),
            ("reasoning", names.REASONING),
        )
    }
    total = _count(attributes, names.TOTAL)
    output, read = given["output"] or 0, given["read"] or 0
    long_lived = given["write_1h"] or 0
    write = max(given["write"] or 0, long_lived)
    stated_input = given["input"]
    if stated_input is None:
        whole = max(read + write, (total or 0) - output)
    else:
        whole = _with_cache(stated_input, output, read + write, total, cache_mark)
    return Usage(
        whole,
        output,
        read,
        write - long_lived,
        long_lived,
        given["reasoning"] or 0,
        stated_input is not None,
        sum(count is not None for count in given.values()),
    )


def _with_cache(stated: int, output: int, cached: int, total: int | None, mark: Any) -> int:
    if mark == "included":
        return stated
    is_left_out = cached > stated or (cached > 0 and total == stated + cached + output)
    return stated + cached if mark == "excluded" or is_left_out else stated


def _count(attributes: Mapping[str, Any], rows: tuple[str, ...]) -> int | None:
    for name in rows:
        value = attributes.get(name)
        if value is None:
            continue
        if type(value) is float and value.is_integer():
            return int(value)
        if type(value) is str and value.isascii() and value.isdigit() and len(value) < 19:
            return int(value)
        if type(value) is not int:
            raise Refused("wrong_type", f"{name} must be a whole number")
        if value < 0:
            raise Refused("negative_number", f"{name} may not be negative")
        return value
    return None
