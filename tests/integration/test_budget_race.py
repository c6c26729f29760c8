"""The race: a cap of $0.10, 200 parallel calls from 4 processes, some of them killed.

Every process has a committer and an authorizer of its own on one PostgreSQL. What is used and
held is sampled all the while by another connection, and afterwards folded from the ledger's
history operation by operation: neither may ever pass the cap.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest
from psycopg_pool import ConnectionPool

from tallystick.clock import DAY
from tallystick.enforcement.budgets import Budget, Budgets, BudgetTerms
from tallystick.ids import Uuid7Source
from tallystick.ledger import GrantRequest, Ledger
from tallystick.plumbing.postgres import open_pool
from tests.budget_racer import Config, SteppedClock

CENT = 10_000_000
CAP = 10 * CENT
PROCESSES, CALLS = 4, 50
_serial = count()
_HISTORY = b"""
SELECT m.limit_id, o.kind, m.used, m.held, o.posted_at
FROM ledger.operation o, unnest(o.limit_ids, o.limit_used, o.limit_held)
    AS m(limit_id, used, held)
WHERE o.tenant_id = %s AND o.outcome = 'posted' ORDER BY o.posted_at, o.transaction, o.sequence
"""
_SAMPLE = b"""
SELECT limit_id, used, held, overrun, capacity FROM ledger.limit_window
WHERE limit_id LIKE %s
"""


class Scene:
    """A tenant with a budget, an account for each process, and the processes."""

    def __init__(self, url: str, pool: ConnectionPool, folder: Path) -> None:
        self.url, self.pool, self.folder = url, pool, folder
        self.tenant = f"race-{next(_serial)}"
        (folder / "offset").write_text("0")
        self.clock = SteppedClock(folder / "offset")
        self.ledger = Ledger(pool, self.clock, Uuid7Source(self.clock))
        self.budgets = Budgets(pool, self.clock)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.samples = self.peak = 0
        self.set_cap(CAP)
        for number in range(PROCESSES):
            account = f"{self.tenant}-{number}"
            self.ledger.put_account(account, tenant_id=self.tenant)
            self.ledger.apply(GrantRequest(account, 1_000_000, idempotency_key="g"))

    def set_cap(self, amount: int) -> Budget:
        terms = BudgetTerms(asset="USD", amount=amount, window="day", scope={"team": "race"})
        return self.budgets.put(self.tenant, "cap", terms, changed_by="test")

    def start(self, name: str, number: int, hold: int, cost: int, **more: Any) -> None:
        account = f"{self.tenant}-{number}"
        config = Config(
            self.url, str(self.folder), name, account, more.pop("calls", CALLS), hold, cost, **more
        )
        path = self.folder / f"{name}.json"
        path.write_bytes(msgspec.json.encode(config))
        self.processes[name] = subprocess.Popen(
            [sys.executable, "-m", "tests.budget_racer", str(path)]
        )

    def start_all(self, hold: int, cost: int, *, first: tuple[int, ...] = (), **more: Any) -> None:
        """Start the race; the `first` have holds open before the others may ask."""
        for number in range(PROCESSES):
            go = "go-first" if number in first else "go"
            self.start(f"p{number}", number, hold, cost, go=go, **more)
        self.wait(lambda: all((self.folder / f"ready-{name}").exists() for name in self.processes))
        if first:
            (self.folder / "go-first").touch()
            self.wait(lambda: self.has_open(*first))
        (self.folder / "go").touch()

    def wait(self, until: Callable[[], bool], *, seconds: float = 60) -> None:
        """Sample until something is so."""
        deadline = time.monotonic() + seconds
        with psycopg.connect(self.url, autocommit=True) as connection:
            while time.monotonic() < deadline:
                self.sample(connection)
                if until():
                    return
                time.sleep(0.001)
        raise AssertionError("it took too long")

    def sample(self, connection: psycopg.Connection[Any]) -> None:
        name = f"budget:{self.tenant}/%"
        for limit_id, used, held, overrun, capacity in connection.execute(_SAMPLE, (name,)):
            assert used + held - overrun <= capacity, limit_id
            self.peak = max(self.peak, used + held)
            self.samples += 1

    def captures(self) -> int:
        with self.pool.connection() as connection:
            row = connection.execute(
                b"SELECT count(*) FROM ledger.operation WHERE tenant_id = %s AND kind = 'capture'",
                (self.tenant,),
            ).fetchone()
        assert row is not None
        return int(row[0])

    def has_open(self, *numbers: int) -> bool:
        """Whether one of these processes has holds open."""
        accounts = [f"{self.tenant}-{number}" for number in numbers]
        with self.pool.connection() as connection:
            sql = b"SELECT 1 FROM ledger.hold WHERE account_id = ANY(%s)"
            return bool(connection.execute(sql, (accounts,)).fetchall())

    def kill(self, *names: str) -> None:
        for name in names:
            self.processes[name].kill()
            self.processes.pop(name).wait()

    def ended(self) -> bool:
        return all(process.poll() is not None for process in self.processes.values())

    def recover(self) -> int:
        """Let the holds of the killed run out; how many there were."""
        self.step(10_000_000)
        ended = 0
        while found := self.ledger.settle_due():
            ended += found
        return ended

    def step(self, micros: int) -> None:
        path = self.folder / "offset"
        (self.folder / "next").write_text(str(int(path.read_text()) + micros))
        (self.folder / "next").rename(path)

    def finish(self) -> dict[str, tuple[int, int]]:
        """Calls of a cent at a time until nothing fits: what every window counts then."""
        self.start("last", 0, CENT, CENT, calls=3 * PROCESSES)
        self.wait(self.ended)
        assert all(process.returncode == 0 for process in self.processes.values())
        with self.pool.connection() as connection:
            rows = connection.execute(_SAMPLE, (f"budget:{self.tenant}/%",)).fetchall()
        return {row[0]: (row[1], row[2]) for row in rows}

    def history(self) -> list[tuple[str, str, int, int]]:
        """(limit, kind, used + held after, posted at) of every operation."""
        totals: dict[str, int] = {}
        found = []
        with self.pool.connection() as connection:
            rows = connection.execute(_HISTORY, (self.tenant,)).fetchall()
        for limit_id, kind, used, held, posted_at in rows:
            totals[limit_id] = totals.get(limit_id, 0) + used + held
            found.append((limit_id, kind, totals[limit_id], posted_at))
        return found

    def report(self, what: str, **figures: Any) -> None:
        shown = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in figures.items())
        sys.stdout.write(
            f"\nbudget race ({what}): {PROCESSES * CALLS} calls, {PROCESSES} processes, "
            f"{self.samples} samples, peak {self.peak / CAP:.2f} of the cap, {shown}\n"
        )


@pytest.fixture
def scene(postgres_url: str, tmp_path: Path) -> Iterator[Scene]:
    pool = open_pool(postgres_url, connections_max=3)
    made = Scene(postgres_url, pool, tmp_path)
    yield made
    for name in list(made.processes):
        made.kill(name)
    pool.close()


def test_a_killed_race_never_passes_the_cap_and_uses_all_of_it(scene: Scene) -> None:
    scene.start_all(2 * CENT, CENT, first=(1, 3), think_ms_max=1000, ttl_seconds=8)
    scene.wait(lambda: scene.captures() >= 2 and scene.has_open(1, 3))
    scene.kill("p1", "p3")
    scene.wait(scene.ended)
    orphans = scene.recover()
    (window,) = scene.finish().items()
    assert window[1] == (CAP, 0)
    assert orphans >= 1, "the killed had nothing open: the test has shown nothing"
    assert scene.captures() == 10
    assert scene.peak <= CAP
    assert max(total for _, _, total, _ in scene.history()) <= CAP
    assert scene.ledger.verify() == []
    scene.report("killed", orphaned_holds=orphans, calls_charged=scene.captures(), spent="$0.10")


def test_more_than_the_estimate_is_overrun_and_stops_the_next(scene: Scene) -> None:
    scene.start_all(2 * CENT, 3 * CENT)
    scene.wait(scene.ended)
    history = scene.history()
    held = [total for _, kind, total, _ in history if kind == "hold"]
    assert max(held) <= CAP, "a hold was taken beyond the cap"
    ((_, (used, open_)),) = scene.finish().items()
    # each capture may be a cent above its hold; five holds of two cents fit at once
    assert CAP - CENT < used <= CAP + 5 * CENT and open_ == 0
    assert scene.ledger.verify() == []
    scene.report("actual above estimate", spent=f"${used / 1e9:.2f}", calls=scene.captures())


def test_each_window_has_its_own_cap_across_the_border(scene: Scene) -> None:
    scene.start_all(2 * CENT, CENT, ttl_seconds=3 * 24 * 3600)
    scene.wait(lambda: scene.captures() >= 3)
    scene.step(DAY)
    scene.wait(scene.ended)
    windows = scene.finish()
    assert len(windows) == 2
    first, second = (windows[limit_id] for limit_id in sorted(windows))
    assert first[0] <= CAP and first[1] == 0
    assert second == (CAP, 0)
    assert max(total for _, _, total, _ in scene.history()) <= CAP
    assert scene.ledger.verify() == []
    scene.report("window border", first=f"${first[0] / 1e9:.2f}", second="$0.10")


def test_an_edit_meanwhile_limits_every_later_hold(scene: Scene) -> None:
    scene.start_all(2 * CENT, CENT)
    caps = [(0, CAP)]
    for amount, captures in ((4 * CENT, 1), (9 * CENT, 4), (6 * CENT, 5), (CAP, 6)):
        scene.wait(lambda least=captures: scene.captures() >= least or scene.ended())  # type: ignore[misc]
        scene.set_cap(amount)
        caps.append((scene.clock.now(), amount))
    scene.wait(scene.ended)
    ((_, window),) = scene.finish().items()
    assert window == (CAP, 0)
    changes = [at for at, _ in caps[1:]]
    for _, kind, total, posted_at in scene.history():
        since = [amount for at, amount in caps if at < posted_at]
        is_near = any(abs(at - posted_at) < 50_000 for at in changes)
        if kind == "hold" and not is_near:
            assert total <= since[-1], "a hold was taken beyond the cap of its time"
    assert scene.ledger.verify() == []
    scene.report("edited", edits=4, calls=scene.captures(), spent="$0.10")
