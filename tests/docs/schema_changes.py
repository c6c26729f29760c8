"""What a schema may not do after its release: break a producer or a reader.

`breaking_changes` compares two sets of schemas and names every change that is not purely
additive. It knows the vocabulary that `tallystick.events.schemas` uses; a keyword that it
does not know may not change at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

_WORDS = {"$schema", "$comment", "title", "description", "examples", "default"}
_LOWER = {"minimum", "minLength"}
_UPPER = {"maximum", "maxLength"}


def breaking_changes(released: dict[str, Any], current: dict[str, Any]) -> list[str]:
    """Name what current schemas (by file name) take away from the released ones."""
    found: list[str] = []
    for name, schema in released.items():
        if name not in current:
            found.append(f"{name}: the schema is gone")
        else:
            found += _compare(schema, current[name], name)
    return found


def reordered_fields(released: Sequence[str], current: Sequence[str]) -> list[str]:
    """Name the fields of the event's array that are no longer where they were."""
    return [
        f"event field {place} was {field} and is {(*current, *released)[place]}"
        for place, field in enumerate(released)
        if list(current[place : place + 1]) != [field]
    ]


def _compare(old: Any, new: Any, path: str) -> Iterator[str]:
    if not isinstance(old, dict) or not isinstance(new, dict):
        if old != new:
            yield f"{path}: was {old!r} and is {new!r}"
        return
    for keyword in sorted({*old, *new} - _WORDS):
        compare = _KEYWORDS.get(keyword, _compare_other)
        yield from compare(old.get(keyword), new.get(keyword), f"{path}/{keyword}")


def _compare_properties(old: Any, new: Any, path: str) -> Iterator[str]:
    for name, schema in (old or {}).items():
        if name not in (new or {}):
            yield f"{path}/{name}: the field is gone"
        else:
            yield from _compare(schema, new[name], f"{path}/{name}")


def _compare_required(old: Any, new: Any, path: str) -> Iterator[str]:
    for name in sorted({*(new or ())} - {*(old or ())}):
        yield f"{path}: {name} is newly required"


def _compare_type(old: Any, new: Any, path: str) -> Iterator[str]:
    if new is None:
        return
    if old is None:
        yield f"{path}: any type was allowed, now only {new!r}"
        return
    lost = _types(old) - _types(new)
    if lost:
        yield f"{path}: {', '.join(sorted(lost))} is no longer allowed"


def _types(given: Any) -> set[str]:
    types = {given} if isinstance(given, str) else set(given)
    return types | ({"integer"} if "number" in types else set())


def _compare_enum(old: Any, new: Any, path: str) -> Iterator[str]:
    if new is None:
        return
    if old is None:
        yield f"{path}: any value was allowed, now only {new!r}"
        return
    for value in old:
        if value not in new:
            yield f"{path}: {value!r} is no longer allowed"


def _compare_lower(old: Any, new: Any, path: str) -> Iterator[str]:
    if new is not None and (old is None or new > old):
        yield f"{path}: was {old} and is {new}"


def _compare_upper(old: Any, new: Any, path: str) -> Iterator[str]:
    if new is not None and (old is None or new < old):
        yield f"{path}: was {old} and is {new}"


def _compare_list(old: Any, new: Any, path: str) -> Iterator[str]:
    """Alternatives and cases keep their places; others may follow, in `allOf` only cases."""
    old, new = old or [], new or []
    for place, schema in enumerate(old):
        if place >= len(new):
            yield f"{path}/{place}: is gone"
        else:
            yield from _compare(schema, new[place], f"{path}/{place}")
    if path.endswith("allOf"):
        for place, schema in enumerate(new[len(old) :], len(old)):
            if "if" not in schema:
                yield f"{path}/{place}: a new condition on every message"


def _compare_other(old: Any, new: Any, path: str) -> Iterator[str]:
    """Patterns, formats, constants, references and what is not known: they stay."""
    if old != new:
        yield f"{path}: was {old!r} and is {new!r}"


def _compare_schema(old: Any, new: Any, path: str) -> Iterator[str]:
    yield from _compare({} if old is None else old, {} if new is None else new, path)


_KEYWORDS = {
    "properties": _compare_properties,
    "required": _compare_required,
    "type": _compare_type,
    "enum": _compare_enum,
    **dict.fromkeys(_LOWER, _compare_lower),
    **dict.fromkeys(_UPPER, _compare_upper),
    "allOf": _compare_list,
    "anyOf": _compare_list,
    "then": _compare_schema,
    "else": _compare_schema,
}
