"""The Policy Vault on a test world: followers, counts, and a real table that counts usage."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import Any

from tallystick.catalog import Catalog
from tallystick.clock import DAY, HOUR
from tallystick.enforcement.alerts import Signal
from tallystick.enforcement.vault import Assignment, Quotas, VaultStore
from tallystick.enforcement.vault.model import Connection
from tallystick.plumbing.log import Positions, PostgresSource
from tallystick.plumbing.log.heads import PostgresHeads
from tallystick.plumbing.postgres import transaction
from tallystick.reconcile.quotas import QuotaReconciler
from tallystick.workers.memory import LogMemory
from tallystick.workers.vault import VaultFollower
from tests.world import World

_folders = count()


def follower_of(world: World, **more: Any) -> VaultFollower:
    """A follower that knows nothing, as after a crash."""
    logs = more.pop("logs", [world.log])
    source = PostgresSource([*logs, world.corrections], world.positions, "vault")
    memory = LogMemory(logs, world.folder / f"memory-{next(_folders)}")
    return VaultFollower(
        source,
        Positions(world.pool),
        VaultStore(world.pool),
        Catalog(world.pool),
        world.clock,
        **{"memory": memory, **more},
    )


def heads_of(world: World) -> Callable[[], Mapping[int, int]]:
    """What tells where the log ends."""
    return PostgresHeads([world.log, world.corrections]).heads


def follow(follower: VaultFollower) -> None:
    while follower.step():
        pass


def rebuilt(world: World, **more: Any) -> bytes:
    """What a replay of the whole log comes to."""
    store = VaultStore(world.pool)
    store.wipe()
    follow(follower_of(world, **more))
    return store.dump()


def reconciled(world: World) -> dict[str, Any]:
    """What the reconciler says over all time."""
    reconciler = QuotaReconciler(VaultStore(world.pool), world.facts._store, world.positions)
    return reconciler.report(0, world.clock.now() + DAY)


def require_agreement(world: World) -> None:
    """Vault and analytics stand at one place and agree to the nano-dollar."""
    report = reconciled(world)
    assert report["differences"] == []
    assert report["is_settled"] and report["compared"]
    assert report["vault_usd"] == report["analytics_usd"]


def spent(world: World, tenant: str, **scope: str) -> dict[str, Any]:
    now = world.clock.now()
    report = Quotas(VaultStore(world.pool), TestBudgets([])).report(
        tenant, scope, now, (now - 400 * DAY, now + HOUR)
    )
    found: dict[str, Any] = report["spent"]
    return found


class TestBudgets:
    """Assignments that a test gives."""

    __test__ = False

    def __init__(self, assignments: list[Assignment]) -> None:
        self.assignments = assignments

    def matching(self, tenant_id: str, scope: Mapping[str, str], at: int) -> list[Assignment]:
        return [one for one in self.assignments if _covers(one, tenant_id, scope, at)]

    def limited(self, connection: Connection) -> set[str]:
        return {one.tenant_id for one in self.assignments}

    def current(self, connection: Connection, at: int) -> list[Assignment]:
        return [one for one in self.assignments if one.from_at <= at < one.to_at]


def _covers(assignment: Assignment, tenant_id: str, scope: Mapping[str, str], at: int) -> bool:
    return (
        assignment.tenant_id == tenant_id
        and assignment.from_at <= at < assignment.to_at
        and all(scope.get(name, "") == value for name, value in assignment.scope.items())
    )


class UsageTable:
    """Counts usage in a real table: target minus what was posted, in the caller's transaction."""

    def __init__(self, world: World) -> None:
        self.world = world
        with transaction(world.pool) as connection:
            connection.execute(
                "RESET ROLE; CREATE TABLE IF NOT EXISTS enforcement.test_usage ("
                "limit_id text, source_key text, units bigint, PRIMARY KEY (limit_id, source_key));"
                "GRANT ALL ON enforcement.test_usage TO PUBLIC; SET ROLE tallystick_app"
            )

    def count_usage(self, connection: Connection, targets: Sequence[tuple[str, str, int]]) -> None:
        for limit_id, source_key, units in targets:
            connection.execute(
                "INSERT INTO enforcement.test_usage VALUES (%s, %s, %s) "
                "ON CONFLICT (limit_id, source_key) DO UPDATE SET units = excluded.units",
                (limit_id, source_key, units),
            )

    def used(self, limit_id: str) -> dict[str, int]:
        with transaction(self.world.pool) as connection:
            rows = connection.execute(
                "SELECT source_key, units FROM enforcement.test_usage WHERE limit_id = %s",
                (limit_id,),
            ).fetchall()
        return dict(rows)


class Bell:
    """Signals as they were told."""

    def __init__(self) -> None:
        self.raised: dict[str, Signal] = {}
        self.cleared: list[str] = []

    def raise_signal(self, connection: Connection, signal: Signal) -> None:
        self.raised[signal.signal_id] = signal

    def clear(self, connection: Connection, signal_id: str, at: int) -> None:
        self.cleared.append(signal_id)
        self.raised.pop(signal_id, None)
