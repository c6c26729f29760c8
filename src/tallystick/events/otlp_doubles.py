"""Which spans of a request speak for a call, when several instrumentations saw it. Pure.

An application often has two instrumentations on (a framework's and the provider SDK's, or
the SDK's own): one call, several spans. What is known of a call decides:

1. The provider's response id. Spans with the same id are one call, in any request and any
   trace: the id becomes the event id, so a second span is never counted. Within a request
   the span that states the most figures is kept.
2. Nesting, for spans without an id. Call spans that descend from one call span (with no
   agent or tool between) are one group. When the group has ids, only those calls count,
   and the id-less innermost spans (failures) of a library that gives ids. When it has
   none, the innermost spans of one library count.

Nesting is seen within one request only; docs/otlp.md says how to keep a trace together.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

_DEPTH_MAX = 64
"""Ancestors looked at: a request must not cost the square of its spans."""


class Seen(NamedTuple):
    """What the rule needs of one span."""

    kind: str
    """call, tool, agent, step or "" (not understood)."""
    trace_id: str
    span_id: str
    parent_id: str
    library: str
    identity: str
    """Its tenant and what the provider calls it (response id, tool call id), or empty."""
    stated: int
    """How many figures it states."""


def speakers(spans: Sequence[Seen], kind: str) -> set[int]:
    """Return the places of the spans of `kind` that count; the others repeat them."""
    places = {(span.trace_id, span.span_id): at for at, span in enumerate(spans) if span.span_id}
    groups: dict[int, list[int]] = {}
    ancestors: dict[int, list[int]] = {}
    for at, span in enumerate(spans):
        if span.kind == kind:
            ancestors[at] = _ancestors(spans, places, at)
            groups.setdefault((ancestors[at] or [at])[-1], []).append(at)
    outer = {at for found in ancestors.values() for at in found}
    kept: set[int] = set()
    for group in groups.values():
        kept |= _speakers_of_group(spans, group, outer)
    return _best_of_each_identity(spans, kept)


def _ancestors(spans: Sequence[Seen], places: dict[tuple[str, str], int], start: int) -> list[int]:
    """Ancestors of the same kind, nearest first, up to an agent or tool."""
    found: list[int] = []
    passed = {start}
    at = start
    for _ in range(_DEPTH_MAX):
        parent = places.get((spans[at].trace_id, spans[at].parent_id))
        if parent is None or parent in passed:
            return found
        passed.add(parent)
        if spans[parent].kind == spans[start].kind:
            found.append(parent)
        elif spans[parent].kind:
            return found
        at = parent
    return found


def _speakers_of_group(spans: Sequence[Seen], group: Sequence[int], outer: set[int]) -> set[int]:
    if len(group) == 1:
        return set(group)
    named = {at for at in group if spans[at].identity}
    nameless = [at for at in group if at not in outer and at not in named]
    if named:
        libraries = {spans[at].library for at in _best_of_each_identity(spans, named)}
        return named | {at for at in nameless if spans[at].library in libraries}
    by_library: dict[str, list[int]] = {}
    for at in nameless:
        by_library.setdefault(spans[at].library, []).append(at)
    # the library that saw the most calls, then stated the most; its name settles a tie
    chosen = min(
        by_library,
        key=lambda library: (
            -len(by_library[library]),
            -sum(spans[at].stated for at in by_library[library]),
            library,
        ),
        default="",
    )
    return set(by_library.get(chosen, ()))


def _best_of_each_identity(spans: Sequence[Seen], places: Iterable[int]) -> set[int]:
    best: dict[object, int] = {}
    for at in sorted(places):
        span = spans[at]
        known = best.setdefault(span.identity or at, at)
        if (-span.stated, span.span_id) < (-spans[known].stated, spans[known].span_id):
            best[span.identity] = at
    return set(best.values())
