"""Broken messages as facts in ClickHouse: which there are, and how often each came."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from tallystick.analytics.stats import as_text, micros_of
from tallystick.broken.store import Key
from tallystick.errors import InvalidInput, NotFound
from tallystick.events.broken import present_broken
from tallystick.plumbing.clickhouse import ClickHouse
from tallystick.plumbing.sql import load_statements

_SQL = load_statements("tallystick.broken", "facts.sql")
PAGE_MAX = 500


class BrokenFilter(NamedTuple):
    """Which broken messages: "" and None do not restrict; times are micros, half-open."""

    tenant_id: str = ""
    code: str = ""
    from_at: int | None = None
    to_at: int | None = None


class BrokenFact(NamedTuple):
    """One broken message as its fact tells it."""

    key: Key
    received_at: int
    code: str
    attrs: str
    digest: str

    def present(self) -> dict[str, Any]:
        """The published form."""
        tenant_id, broken_id = self.key
        return present_broken(
            broken_id=broken_id,
            tenant_id=tenant_id,
            received_at=self.received_at,
            code=self.code,
            digest=self.digest,
            attrs=self.attrs,
        )


class BrokenFacts:
    """Reads broken messages."""

    def __init__(self, store: ClickHouse) -> None:
        self._store = store

    def query_page(
        self, wanted: BrokenFilter, cursor: str | None, limit: int
    ) -> tuple[list[BrokenFact], str | None]:
        """Messages, newest first, and the cursor of what follows (None: nothing does)."""
        conditions = ["1"]
        parameters: dict[str, Any] = {"limit": limit + 1}
        if wanted.tenant_id:
            conditions.append("tenant_id = {tenant:String}")
            parameters["tenant"] = wanted.tenant_id
        if wanted.code:
            conditions.append("reject_code = {code:String}")
            parameters["code"] = wanted.code
        for name, moment, sign in (("from", wanted.from_at, ">="), ("to", wanted.to_at, "<")):
            if moment is not None:
                # both are our clock's: the second prunes months
                bound = f"{sign} {{{name}_at:DateTime64(6)}}"
                conditions += [f"received_at {bound}", f"occurred_at {bound}"]
                parameters[f"{name}_at"] = as_text(moment)
        if cursor:
            at, broken_id, tenant = _read_cursor(cursor)
            conditions.append(
                "(received_at, broken_id, tenant_id) < "
                "({at:DateTime64(6)}, {after_id:String}, {after_tenant:String})"
            )
            parameters |= {"at": as_text(at), "after_id": broken_id, "after_tenant": tenant}
        sql = _SQL["query_broken"].format(conditions=" AND ".join(conditions))
        found = [_fact(row) for row in self._store.query_rows(sql, parameters)]
        page = found[:limit]
        return page, _write_cursor(page[-1]) if len(found) > limit else None

    def query_one(self, broken_id: str, tenant_id: str = "") -> BrokenFact:
        """One message of a tenant, or of any; NotFound when there is none of this id."""
        rows = self._store.query_rows(_SQL["query_one"], {"id": broken_id, "tenant": tenant_id})
        if not rows:
            raise NotFound("no broken message of this id is known", code="unknown_broken_message")
        return _fact(rows[0])

    def query_repeats(self, keys: Sequence[Key]) -> dict[Key, int]:
        """How often each message came again."""
        if not keys:
            return {}
        rows = self._store.query_rows(
            _SQL["query_repeats"],
            {"tenants": sorted({key[0] for key in keys}), "ids": [key[1] for key in keys]},
        )
        return {(row["tenant_id"], row["broken_id"]): int(row["repeats"]) for row in rows}


def _fact(row: dict[str, Any]) -> BrokenFact:
    return BrokenFact(
        (row["tenant_id"], row["broken_id"]),
        micros_of(row["received_at"]),
        row["reject_code"],
        row["attrs"],
        row["digest"],
    )


def _read_cursor(cursor: str) -> tuple[int, str, str]:
    try:
        raw = base64.urlsafe_b64decode(cursor.encode("ascii"))
        at, broken_id, tenant = msgspec.json.decode(raw, type=tuple[int, str, str])
        as_text(at)
    except (ValueError, OverflowError, binascii.Error, msgspec.DecodeError) as error:
        raise InvalidInput(
            "cursor is not one of ours", code="bad_cursor", field="cursor"
        ) from error
    return at, broken_id, tenant


def _write_cursor(fact: BrokenFact) -> str:
    tenant_id, broken_id = fact.key
    parts = (fact.received_at, broken_id, tenant_id)
    return base64.urlsafe_b64encode(msgspec.json.encode(parts)).decode("ascii")
