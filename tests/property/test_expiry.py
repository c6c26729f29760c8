"""Whatever comes, whenever facts expire: each run is charged what plain arithmetic says."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tallystick.clock import DAY
from tallystick.plumbing.clickhouse import ClickHouse
from tallystick.plumbing.embedded.postgres import EmbeddedPostgres
from tallystick.workers.engine import wipe_derived
from tests.conftest import make_database
from tests.expiry import ExpiryWorld, expiring, month, tool_call

_serial = count()
_UNITS = 50_000
_START = month(2026, 3)

_events = st.lists(
    st.tuples(
        st.integers(0, 2),  # the run
        st.integers(1, 3),  # its attempt
        st.integers(0, 200),  # how many days ago
    ),
    max_size=6,
)
_rounds = st.lists(
    st.tuples(_events, st.sampled_from(["", "expire", "expire", "rebuild", "crash"])),
    min_size=1,
    max_size=6,
)


class Oracle:
    """What is charged, event by event: the last attempt of a run, decided for ever by expiry."""

    def __init__(self) -> None:
        self.events: list[tuple[str, int, int]] = []
        self.final: dict[str, int] = {}
        self.kept_from = 0

    def last(self, run: str) -> int:
        return max(attempt for one, attempt, _ in self.events if one == run)

    def charged(self, start: int, end: int) -> dict[str, int]:
        found: dict[str, int] = {}
        for run, attempt, at in self.events:
            if start <= at < end and attempt == self.last(run):
                found[run] = found.get(run, 0) + _UNITS
        return found

    def expire(self, kept_from: int) -> None:
        for run, units in self.charged(self.kept_from, kept_from).items():
            self.final[run] = self.final.get(run, 0) + units
        self.kept_from = kept_from

    def targets(self) -> dict[str, int]:
        since = self.charged(self.kept_from, 2**62)
        runs = self.final.keys() | since.keys()
        return {run: self.final.get(run, 0) + since.get(run, 0) for run in runs}


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(rounds=_rounds)
def test_every_run_is_charged_what_arithmetic_says(
    postgres: EmbeddedPostgres,
    clickhouse: ClickHouse,
    rounds: list[tuple[list[tuple[int, int, int]], str]],
) -> None:
    url = make_database(postgres, f"expiry_{next(_serial)}")
    with (
        TemporaryDirectory() as folder,
        expiring(url, clickhouse, Path(folder), _START) as expiry,
    ):
        oracle = Oracle()
        for number, (events, what) in enumerate(rounds):
            expiry.clock.micros += 25 * DAY
            _send(expiry, oracle, number, events)
            _do(expiry, oracle, what)
            assert expiry.charged("t") == oracle.targets(), (number, what)
            assert expiry.lines("t") == expiry.charged("t")
            assert expiry.world.verifier.violations() == []


def _send(
    expiry: ExpiryWorld, oracle: Oracle, number: int, events: list[tuple[int, int, int]]
) -> None:
    now = expiry.clock.now()
    closed = expiry.world.door.closed_before(now)
    messages: list[dict[str, Any]] = []
    for place, (run, attempt, days) in enumerate(events):
        at = now - days * DAY
        messages.append(tool_call("t", f"e{number}.{place}", at, f"r{run}", attempt))
        if at >= closed:
            oracle.events.append((f"r{run}", attempt, at))
    if messages:
        refused = sum(now - days * DAY < closed for _, _, days in events)
        assert len(expiry.world.send(messages).rejected) == refused
    expiry.world.settle()


def _do(expiry: ExpiryWorld, oracle: Oracle, what: str) -> None:
    if what == "expire":
        oracle.expire(expiry.expire())
    elif what == "rebuild":
        wipe_derived(expiry.world.positions, expiry.world.facts)
    if what in ("rebuild", "crash"):
        expiry.world.restart_followers()
        expiry.world.settle()
