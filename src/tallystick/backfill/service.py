"""Asking for backfills: make, show, pause, resume, revert."""

from __future__ import annotations

from typing import Any

import msgspec
from psycopg_pool import ConnectionPool

from tallystick.backfill.model import (
    EVENTS_PER_SECOND,
    EVENTS_PER_SECOND_MAX,
    Backfill,
    BackfillRequest,
    Status,
)
from tallystick.backfill.store import BackfillStore
from tallystick.bounds import ID_LENGTH_MAX, REASON_LENGTH_MAX
from tallystick.catalog import Catalog
from tallystick.clock import Clock, format_time
from tallystick.errors import Conflict, InvalidInput
from tallystick.ids import IdSource
from tallystick.plumbing.log.horizons import load_horizons
from tallystick.plumbing.postgres import transaction
from tallystick.units import CREDIT, USD, format_amount

_CHOICES_MAX = 1_000
"""Tenants or models that one backfill names: beyond that, name none and take all."""

_TOP_RUNS = 10
_ENDED = (Status.DONE, Status.FAILED, Status.PAUSED)
_ASKED = BackfillRequest.__struct_fields__


class Backfills:
    """What people ask of backfills; the work is done by a follower."""

    def __init__(self, pool: ConnectionPool, catalog: Catalog, clock: Clock, ids: IdSource) -> None:
        self._pool = pool
        self._store = BackfillStore(pool)
        self._catalog = catalog
        self._clock = clock
        self._ids = ids

    def create(self, request: BackfillRequest, by: str) -> dict[str, Any]:
        """Plan a backfill; the same key and content again is the same backfill.

        Raises InvalidInput (facts that have expired, too), NotFound (the version), Conflict (the
        key).
        """
        _check(request)
        if request.rate_card_version:
            self._catalog.make_rater(request.rate_card_version)
        with transaction(self._pool) as connection:
            if self._store.find_key(connection, request.idempotency_key) is None:
                _require_kept(connection, request, "ask from then on")
            made = self._store.insert(
                connection, self._ids.next_id(), request, self._clock.now(), by
            )
        return _receipt(made, request)

    def revert(self, backfill_id: str, reason: str, key: str, by: str) -> dict[str, Any]:
        """Plan the backfill that inverts the rows of another; it may be reverted itself.

        Raises NotFound; Conflict when the other one runs, was a dry run, or is reverted.
        """
        with transaction(self._pool) as connection:
            other = self._store.lock(connection, backfill_id)
            request = BackfillRequest(
                from_at=other.from_at,
                to_at=other.to_at,
                reason=reason,
                idempotency_key=key,
                events_per_second_max=other.events_per_second_max,
                reverts=backfill_id,
            )
            _check(request)
            known = self._store.find_key(connection, key)
            if known is None:
                self._require_revertible(connection, other)
                _require_kept(connection, request, "make a backfill from then on instead")
            now = self._clock.now()
            made = self._store.insert(connection, self._ids.next_id(), request, now, by)
        return _receipt(made, request)

    def _require_revertible(self, connection: Any, other: Backfill) -> None:
        if other.is_dry_run:
            raise Conflict("a dry run changed nothing", code="was_dry_run")
        if other.status == Status.REVERTED or self._store.has_revert(connection, other.backfill_id):
            raise Conflict("it is reverted, or is being reverted", code="already_reverted")
        if other.status not in _ENDED:
            raise Conflict("it is still running; pause it first", code="backfill_running")

    def pause(self, backfill_id: str) -> dict[str, Any]:
        """Stop before the next piece; Conflict when it has ended."""
        return self._move(backfill_id, (Status.PLANNED, Status.RUNNING), Status.PAUSED)

    def resume(self, backfill_id: str) -> dict[str, Any]:
        """Go on where it was paused or failed; Conflict when it has ended or is reverted."""
        return self._move(backfill_id, (Status.PAUSED, Status.FAILED), Status.RUNNING)

    def _move(
        self, backfill_id: str, allowed: tuple[Status, ...], status: Status
    ) -> dict[str, Any]:
        with transaction(self._pool) as connection:
            found = self._store.lock(connection, backfill_id)
            if found.status != status:
                if found.status not in allowed or self._store.has_revert(connection, backfill_id):
                    raise Conflict(f"it is {found.status}", code="wrong_status")
                if status == Status.RUNNING and not found.ends:
                    status = Status.PLANNED
                self._store.move(connection, backfill_id, status, self._clock.now())
        return {"backfill_id": backfill_id, "status": str(status)}

    def list(self, limit: int) -> dict[str, Any]:
        """The newest backfills, without their reports."""
        if not 0 < limit <= 500:
            raise InvalidInput("limit is from 1 to 500", code="bad_limit", field="limit")
        return {"backfills": [_present(one) for one in self._store.newest(limit)]}

    def get(self, backfill_id: str) -> dict[str, Any]:
        """One backfill with its report before and after; NotFound."""
        found = self._store.load(backfill_id)
        lines = self._store.load_lines(backfill_id)
        runs = self._store.load_runs(backfill_id, _TOP_RUNS)
        return {**_present(found), "report": _report(lines, runs)}


def _require_kept(connection: Any, request: BackfillRequest, remedy: str) -> None:
    horizon_at = max((one.horizon_at for one in load_horizons(connection)), default=0)
    if request.from_at < horizon_at:
        raise InvalidInput(
            f"facts of before {format_time(horizon_at)} have expired or are about to, and what was "
            f"charged for them is final: {remedy}",
            code="facts_expired",
            field="from",
        )


def _check(request: BackfillRequest) -> None:
    reason, key = request.reason, request.idempotency_key
    if not reason.strip() or len(reason) > REASON_LENGTH_MAX or not reason.isprintable():
        raise InvalidInput(
            f"reason must be a sentence of at most {REASON_LENGTH_MAX} characters",
            code="bad_reason",
            field="reason",
        )
    if not key or len(key) > ID_LENGTH_MAX or not key.isprintable():
        raise InvalidInput(
            f"idempotency_key must be 1 to {ID_LENGTH_MAX} printable characters",
            field="idempotency_key",
        )
    if request.from_at >= request.to_at:
        raise InvalidInput("from must be before to", code="empty_range", field="from")
    if not 0 < request.events_per_second_max <= EVENTS_PER_SECOND_MAX:
        raise InvalidInput(
            f"events_per_second_max is from 1 to {EVENTS_PER_SECOND_MAX} "
            f"(without it {EVENTS_PER_SECOND})",
            field="events_per_second_max",
        )
    for field in ("tenant_ids", "models"):
        names = getattr(request, field)
        if len(names) > _CHOICES_MAX or any(
            not name or len(name) > ID_LENGTH_MAX or not name.isprintable() for name in names
        ):
            raise InvalidInput(
                f"{field} names at most {_CHOICES_MAX} of 1 to {ID_LENGTH_MAX} characters",
                field=field,
            )
    if not 0 <= request.rate_card_version < 2**31:
        raise InvalidInput("rate_card_version is a version's id", field="rate_card_version")


def _receipt(made: Backfill, request: BackfillRequest) -> dict[str, Any]:
    if any(getattr(made, name) != getattr(request, name) for name in _ASKED):
        raise Conflict("this key was used for another backfill; choose a new one")
    return {"backfill_id": made.backfill_id, "status": made.status}


def _present(one: Backfill) -> dict[str, Any]:
    fields = msgspec.structs.asdict(one)
    for name in ("ends", "cursor", "idempotency_key"):
        fields.pop(name)
    times = {name: format_time(fields.pop(name)) for name in ("created_at", "changed_at")}
    progress = {name: fields.pop(name) for name in ("expected", "examined", "corrected", "skipped")}
    return {
        "backfill_id": fields.pop("backfill_id"),
        "status": fields.pop("status"),
        "from": format_time(fields.pop("from_at")),
        "to": format_time(fields.pop("to_at")),
        "dry_run": fields.pop("is_dry_run"),
        "rate_card_version": fields.pop("rate_card_version") or None,
        "reverts": fields.pop("reverts") or None,
        "failure": fields.pop("failure") or None,
        "progress": {**progress, "pieces": fields.pop("pieces"), "cursor": one.cursor or None},
        **fields,
        **times,
    }


def _report(lines: list[dict[str, Any]], runs: list[dict[str, Any]]) -> dict[str, Any]:
    names = ("cost_units_before", "cost_units_after", "credit_units_before", "credit_units_after")
    total: dict[str, int] = {
        name: sum(int(line[name]) for line in lines) for name in ("events", "corrected", *names)
    }
    return {
        "total": _amounts(total),
        "by_tenant_and_model": [
            {"tenant_id": line["tenant_id"], "model": line["model"], **_amounts(line)}
            for line in lines
        ],
        "affected_runs": runs[0]["runs"] if runs else 0,
        "top_differences": [
            {
                "tenant_id": run["tenant_id"],
                "charge_key": run["charge_key"],
                "corrected": run["corrected"],
                "cost_usd": format_amount(int(run["cost_units"]), USD),
                "credits": format_amount(int(run["credit_units"]), CREDIT),
            }
            for run in runs
        ],
    }


def _amounts(sums: dict[str, Any]) -> dict[str, Any]:
    def pair(name: str, asset: Any) -> dict[str, str]:
        before, after = int(sums[f"{name}_before"]), int(sums[f"{name}_after"])
        return {
            "before": format_amount(before, asset),
            "after": format_amount(after, asset),
            "difference": format_amount(after - before, asset),
        }

    return {
        "events": int(sums["events"]),
        "corrected": int(sums["corrected"]),
        "cost_usd": pair("cost_units", USD),
        "credits": pair("credit_units", CREDIT),
    }
