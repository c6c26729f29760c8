"""Rate cards in PostgreSQL: seed, add a version, list, and compile into a rater."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from typing import Any

import msgspec
import psycopg
from psycopg.rows import class_row, dict_row
from psycopg_pool import ConnectionPool

from tallystick.clock import Clock
from tallystick.errors import Conflict, InvalidInput, NotFound, StoreUnavailable
from tallystick.plumbing.postgres import for_every_tenant, transaction
from tallystick.plumbing.sql import load_statements
from tallystick.rating import CostCard, CreditCard, RateCardVersion, Rater, check_card

COST_CARD_ID = "provider-prices"
CREDIT_CARD_ID = "credits"
SEED_FILE = "seed_cost_card.json"
_SQL = {
    name: text.encode() for name, text in load_statements("tallystick.catalog", "store.sql").items()
}
_KINDS: dict[str, type[CostCard] | type[CreditCard]] = {"cost": CostCard, "credit": CreditCard}


class Catalog:
    """Reads and adds rate card versions."""

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool

    def seed_if_empty(self, now: int) -> None:
        """Record the shipped cards: a first seed rates all of the past, a newer one from now."""
        cost = files("tallystick.catalog").joinpath(SEED_FILE).read_bytes()
        credit = msgspec.json.encode(CreditCard())
        with transaction(self._pool) as connection:
            for card_id, kind, content in (
                (COST_CARD_ID, "cost", cost),
                (CREDIT_CARD_ID, "credit", credit),
            ):
                known = connection.execute(
                    _SQL["list_versions"], {"rate_card_id": card_id}
                ).fetchall()
                if any(row[4] == _digest(content) or row[3] != "shipped" for row in known):
                    continue
                effective_at = now if known else 0
                self._insert(connection, card_id, kind, "", content, effective_at, now, "shipped")

    def add_version(
        self,
        rate_card_id: str,
        *,
        kind: str,
        tenant_id: str = "",
        content: object,
        effective_at: int,
        source: str,
        clock: Clock,
    ) -> None:
        """Record a version; raise InvalidInput naming what is wrong in its content.

        It counts as known from the moment when it is stored: a rater that is refreshed later
        has it. Recording the same content from the same time again changes nothing. A card keeps
        its kind and tenant (Conflict).
        """
        if kind not in _KINDS:
            raise InvalidInput("kind must be cost or credit", field="kind")
        try:
            card = msgspec.convert(content, _KINDS[kind])
        except msgspec.ValidationError as error:
            raise InvalidInput(
                f"content: {error}", code="bad_rate_card", field="content"
            ) from error
        check_card(card)
        encoded = msgspec.json.encode(card)
        with transaction(self._pool) as connection:
            connection.execute(_SQL["lock_for_recording"])
            now = clock.now()
            self._insert(
                connection, rate_card_id, kind, tenant_id, encoded, effective_at, now, source
            )

    def _insert(
        self,
        connection: psycopg.Connection[Any],
        rate_card_id: str,
        kind: str,
        tenant_id: str,
        content: bytes,
        effective_at: int,
        now: int,
        source: str,
    ) -> None:
        card = {"rate_card_id": rate_card_id, "kind": kind, "tenant_id": tenant_id}
        try:
            connection.execute(_SQL["insert_card"], card)
        except psycopg.errors.UniqueViolation as error:
            raise Conflict(
                f"there is a {kind} card for this tenant already; add a version to it",
                code="rate_card_exists",
            ) from error
        found = connection.execute(_SQL["find_card"], card).fetchone()
        if found != (kind, tenant_id):
            raise Conflict(
                f"{rate_card_id} is a card of another kind or tenant", code="rate_card_exists"
            )
        connection.execute(
            _SQL["insert_version"],
            {
                "rate_card_id": rate_card_id,
                "effective_at": effective_at,
                "recorded_at": now,
                "source": source,
                "digest": _digest(content),
                "content": content,
            },
        )

    def list_cards(self, tenant_id: str = "") -> list[dict[str, Any]]:
        """Cards: id, kind, tenant, versions, the latest; for a tenant, its own and everybody's."""
        with transaction(self._pool) as connection:
            cursor = connection.cursor(row_factory=dict_row)
            return cursor.execute(_SQL["list_cards"], {"tenant_id": tenant_id}).fetchall()

    def list_versions(self, rate_card_id: str, tenant_id: str = "") -> list[dict[str, Any]]:
        """The versions of one card, newest first; NotFound when there is none for the tenant."""
        arguments = {"rate_card_id": rate_card_id}
        with transaction(self._pool) as connection:
            found = connection.execute(_SQL["find_card"], arguments).fetchone()
            if found is None or (tenant_id and found[1] not in ("", tenant_id)):
                raise NotFound("no such rate card", code="unknown_rate_card")
            cursor = connection.cursor(row_factory=dict_row)
            return cursor.execute(_SQL["list_versions"], arguments).fetchall()

    def refresh_rater(self, current: Rater | None) -> Rater:
        """Return `current` while it is up to date, else a new one.

        Every version that was recorded before this call is in it: one that is being stored
        at this moment is waited for. It prices for all tenants, whoever's request asked for it.
        """
        with for_every_tenant(), transaction(self._pool) as connection:
            connection.execute(_SQL["wait_for_recording"])
            row = connection.execute(_SQL["load_stamp"]).fetchone()
            if row is None or not row[0]:
                raise StoreUnavailable("no rate card was seeded yet")
            if current is not None and current.stamp == row[0]:
                return current
            cursor = connection.cursor(row_factory=class_row(RateCardVersion), binary=True)
            return Rater(cursor.execute(_SQL["load_versions"]).fetchall())

    def make_rater(self, version_id: int) -> Rater:
        """A rater for which one version always was the only one of its card; NotFound."""
        with transaction(self._pool) as connection:
            cursor = connection.cursor(row_factory=class_row(RateCardVersion), binary=True)
            versions = cursor.execute(_SQL["load_versions"]).fetchall()
        chosen = next((one for one in versions if one.version_id == version_id), None)
        if chosen is None:
            raise NotFound("no such rate card version", code="unknown_rate_card_version")
        always = msgspec.structs.replace(chosen, effective_at=0, recorded_at=0)
        card = (chosen.kind, chosen.tenant_id)
        others = [one for one in versions if (one.kind, one.tenant_id) != card]
        return Rater([*others, always])


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
