"""What a piece of a backfill changes: pure decisions on what events count as now."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from tallystick.analytics.corrections import CONTENT_FIELDS, Content, Current, Signed
from tallystick.backfill.model import ReportLine, ReportRun
from tallystick.rating import RATED_COLUMNS, Rater

Change = tuple[Content, Content]
"""What an event counted as, and what it is to count as; the same when nothing changes."""

_PLACES = {name: place for place, name in enumerate(CONTENT_FIELDS)}
_RATED_PLACES = [_PLACES[name] for name in RATED_COLUMNS]
_NANO = Decimal(10**9)


def rate_again(current: Sequence[Current], rater: Rater, known_at: int) -> list[Change]:
    """What each content would be by the prices known at `known_at`, `times` for each.

    A content that already is so comes back unchanged: deciding again changes nothing.
    """
    if not current:
        return []
    contents = [one.content for one in current]
    columns = dict(zip(CONTENT_FIELDS, map(list, zip(*contents, strict=True)), strict=True))
    stated = list(map(_stated_cost, contents))
    columns |= {
        "received_at": [known_at],
        "cost_amount": [amount for amount, _ in stated],
        "cost_currency": [currency for _, currency in stated],
    }
    rated = rater.rate_columns(columns, len(contents))
    targets = zip(*(map(_plain, rated[name]) for name in RATED_COLUMNS), strict=True)
    return [
        (one.content, _with_rating(one.content, target))
        for one, target in zip(current, targets, strict=True)
        for _ in range(one.times)
    ]


def _stated_cost(content: Content) -> tuple[str, str]:
    """The cost that a sender stated, as the fact keeps it: in USD/9."""
    if content[_PLACES["event_type"]] != "cost" or content[_PLACES["cost_quality"]] != "exact":
        return "", ""
    return str(Decimal(content[_PLACES["cost_units"]]) / _NANO), "USD"


def _with_rating(content: Content, target: tuple[Any, ...]) -> Content:
    is_stated = content[_PLACES["event_type"]] == "cost"
    version = target[RATED_COLUMNS.index("credit_version")]
    if is_stated and content[_PLACES["credit_version"]] == version:
        return content  # its amount had more digits than the fact keeps; rated once, as it came
    changed = list(content)
    for place, value in zip(_RATED_PLACES, target, strict=True):
        changed[place] = value
    return tuple(changed)


def _plain(value: Any) -> Any:
    return value if isinstance(value, str) else int(value)


def rows_of(changes: Sequence[Change], correction_id: str) -> list[Signed]:
    """A pair of rows for each change that is one: the old row away, the new one in."""
    return [
        Signed(sign, correction_id, content)
        for old, new in changes
        if old != new
        for sign, content in ((-1, old), (1, new))
    ]


def inverses(rows: Sequence[Signed], current: Sequence[Current]) -> tuple[list[Change], int]:
    """Changes that undo pairs of rows, and how many events were corrected otherwise since.

    Those are left as they are: what stands in their place is not this backfill's to undo.
    """
    standing = Counter({one.content: one.times for one in current})
    changes: list[Change] = []
    skipped = 0
    for old, new in zip(rows[::2], rows[1::2], strict=True):
        if standing[new.content] > 0:
            standing[new.content] -= 1
            changes.append((new.content, old.content))
        else:
            skipped += 1
    return changes, skipped


def report_lines(changes: Sequence[Change]) -> list[ReportLine]:
    """Sums before and after, by tenant and model."""
    sums: dict[tuple[str, str], list[int]] = {}
    for old, new in changes:
        key = (old[_PLACES["tenant_id"]], old[_PLACES["model"]])
        found = sums.setdefault(key, [0] * 6)
        added = (1, old != new, _cost(old), _cost(new), _credit(old), _credit(new))
        sums[key] = [sum(pair) for pair in zip(found, added, strict=True)]
    return [ReportLine(*key, *found) for key, found in sorted(sums.items())]


def report_runs(changes: Sequence[Change]) -> list[ReportRun]:
    """How much each run changes, for runs with a change."""
    sums: dict[tuple[str, str], list[int]] = {}
    for old, new in changes:
        if old == new:
            continue
        key = (old[_PLACES["tenant_id"]], old[_PLACES["charge_key"]])
        found = sums.setdefault(key, [0] * 3)
        added = (1, _cost(new) - _cost(old), _credit(new) - _credit(old))
        sums[key] = [sum(pair) for pair in zip(found, added, strict=True)]
    return [ReportRun(*key, *found) for key, found in sorted(sums.items())]


def _cost(content: Content) -> int:
    units: int = content[_PLACES["cost_units"]]
    return units


def _credit(content: Content) -> int:
    units: int = content[_PLACES["credit_units"]]
    return units
