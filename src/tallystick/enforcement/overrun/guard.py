"""The guard: what is in force is enforced before work is made, on every process.

A thread polls one row (the revision) every `POLL_SECONDS` and reads the active mitigations anew
when it moved, so a step or its undo is in force everywhere within `STALE_SECONDS_MAX` while
PostgreSQL answers. When it does not, what was last read stays in force, and ends at its expiry.
`check` touches memory only. A throttle is a token bucket per process and mitigation: with n
processes up to n times its rate passes.
"""

from __future__ import annotations

import logging
import threading

from psycopg_pool import ConnectionPool

from tallystick.clock import MINUTE, SECOND, Clock
from tallystick.enforcement.authorization import Ask, OtherModel
from tallystick.enforcement.overrun.ladder import Active
from tallystick.enforcement.overrun.model import Mitigation, Step
from tallystick.enforcement.overrun.store import OverrunStore
from tallystick.errors import Blocked, TallystickError, TooManyRequests
from tallystick.plumbing.postgres import transaction

POLL_SECONDS = 0.25
"""A quarter of what is promised: a slow poll and a slow read still fit."""

STALE_SECONDS_MAX = 0.5
_log = logging.getLogger(__name__)


class MitigationGuard:
    """Asked by the Authorizer before each hold; safe to use from many threads."""

    def __init__(self, pool: ConnectionPool, clock: Clock) -> None:
        self._pool = pool
        self._clock = clock
        self._store = OverrunStore()
        self._revision = -1
        self._active = Active(())
        self._buckets: dict[str, _Bucket] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Read what is in force, then keep up with it."""
        self.refresh()
        self._thread = threading.Thread(target=self._follow, name="mitigations", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop keeping up."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def refresh(self) -> bool:
        """Read what is in force if it changed; tell whether it did."""
        with transaction(self._pool) as connection:
            revision = self._store.revision(connection)
            if revision == self._revision:
                return False
            in_force = self._store.active(connection, self._clock.now())
        self._active = Active(in_force)
        kept = {one.mitigation_id for one in in_force}
        self._buckets = {name: one for name, one in self._buckets.items() if name in kept}
        self._revision = revision
        return True

    async def check(self, ask: Ask) -> None:
        """Raise Blocked or TooManyRequests when a step in force forbids this work."""
        now = self._clock.now()
        for mitigation in self._matching(ask, now):
            decided_by = f"mitigation:{mitigation.mitigation_id}"
            if mitigation.step in (Step.KILL, Step.BLOCK):
                raise Blocked(_sentence(mitigation), decided_by=decided_by)
            if mitigation.step == Step.DOWNGRADE and _is_other_model(ask, mitigation):
                raise Blocked(
                    f"{_sentence(mitigation)}; call {mitigation.downgrade_to} instead",
                    decided_by=decided_by,
                    code="downgrade_required",
                )
            if mitigation.step == Step.THROTTLE:
                self._throttle(mitigation, decided_by, now)

    @property
    def has_any(self) -> bool:
        """Whether any step is in force at all."""
        return self._active.has_any

    def check_running(self, ask: Ask) -> None:
        """Raise Blocked when a kill switch ends work under way too."""
        for mitigation in self._matching(ask, self._clock.now()):
            if mitigation.step == Step.KILL:
                decided_by = f"mitigation:{mitigation.mitigation_id}"
                raise Blocked(_sentence(mitigation), decided_by=decided_by)

    def advise(self, ask: Ask) -> OtherModel | None:
        """The model to call instead of the one asked for; None: as asked."""
        for mitigation in self._matching(ask, self._clock.now()):
            if mitigation.step == Step.DOWNGRADE and _is_other_model(ask, mitigation):
                return OtherModel(mitigation.downgrade_to, f"mitigation:{mitigation.mitigation_id}")
        return None

    def _matching(self, ask: Ask, now: int) -> list[Mitigation]:
        tenant_id = ask.tenant_id or ask.attribution.get("tenant", "") or ask.account_id
        return self._active.matching(tenant_id, ask.attribution, now)

    def _throttle(self, mitigation: Mitigation, decided_by: str, now: int) -> None:
        bucket = self._buckets.setdefault(mitigation.mitigation_id, _Bucket(mitigation, now))
        wait = bucket.take(now)
        if wait:
            raise TooManyRequests(
                _sentence(mitigation),
                decided_by=decided_by,
                retry_after_seconds=-(-wait // SECOND),
            )

    def _follow(self) -> None:
        while not self._stop.wait(POLL_SECONDS):
            try:
                self.refresh()
            except TallystickError as error:  # what was read stays in force
                _log.warning("mitigations could not be read: %s", error.message)
            except Exception:
                _log.exception("mitigations could not be read")


class _Bucket:
    """A token bucket in whole micros: one ask costs the time in which it is earned back."""

    def __init__(self, mitigation: Mitigation, now: int) -> None:
        self._cost = MINUTE // max(mitigation.per_minute, 1)
        self._burst = max(self._cost, SECOND)
        self._earned = self._burst
        self._at = now
        self._lock = threading.Lock()

    def take(self, now: int) -> int:
        """Take one; return 0, or the micros until there is one."""
        with self._lock:
            self._earned = min(self._burst, self._earned + max(now - self._at, 0))
            self._at = now
            if self._earned < self._cost:
                return self._cost - self._earned
            self._earned -= self._cost
            return 0


def _is_other_model(ask: Ask, mitigation: Mitigation) -> bool:
    model = ask.attribution.get("model", "")
    return model not in ("", mitigation.downgrade_to)


def _sentence(mitigation: Mitigation) -> str:
    scope = ", ".join(f"{name}={value}" for name, value in sorted(mitigation.scope.items()))
    return f"{mitigation.step} for {scope or 'all work'}: {mitigation.reason}"
