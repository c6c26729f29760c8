"""Delivery: looks at what is due, and tries what is to be sent, several at a time.

Threads only send; what is decided and recorded is the caller's thread's. A try is bounded in
time, so a batch is too.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from tallystick.clock import Clock
from tallystick.enforcement.alerts.model import Result, Target
from tallystick.enforcement.alerts.outbox import Due, Outbox, Tried
from tallystick.enforcement.alerts.sending import Sender
from tallystick.plumbing.sealing import SealBroken, Sealing

AT_ONCE = 16
_log = logging.getLogger(__name__)


class Delivery:
    """Sends what the outbox has; `chance` gives numbers in [0, 1) for the jitter of pauses."""

    def __init__(
        self,
        outbox: Outbox,
        sender: Sender,
        sealing: Sealing,
        clock: Clock,
        chance: Callable[[], float],
    ) -> None:
        self._outbox = outbox
        self._sender = sender
        self._sealing = sealing
        self._clock = clock
        self._chance = chance
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="alerts")

    def step(self) -> bool:
        """Announce and send one batch; False when nothing was due."""
        looked = self._outbox.announce()
        batch = self._outbox.load_due(AT_ONCE)
        for tried in self._threads.map(self._try, batch):
            self._outbox.record(tried, self._chance())
        return bool(looked or batch)

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown()

    def _try(self, due: Due) -> Tried:
        started_at, ticks = self._clock.now(), time.perf_counter()
        result = self._send(due, started_at)
        return Tried(due, started_at, int((time.perf_counter() - ticks) * 1000), result)

    def _send(self, due: Due, now: int) -> Result:
        if not due.is_enabled:
            return Result(0, "the channel was switched off or deleted", is_final=True)
        try:
            target = open_target(self._sealing, due)
        except SealBroken as error:
            return Result(0, error.message, is_final=True)
        try:
            return self._sender.send(target, due.message, due.delivery_id, now)
        except Exception as error:  # one message must not stop those of others
            _log.exception("delivery %s failed", due.delivery_id)
            return Result(0, f"it could not be sent ({type(error).__name__})")


def open_target(sealing: Sealing, due: Due) -> Target:
    """Where a delivery goes, with the secrets that sign it; SealBroken."""
    sealed = [one for one in (due.secret, due.secret_before) if one is not None]
    opened = (sealing.open(one, f"secret:{due.channel_id}").decode() for one in sealed)
    address = sealing.open(due.target, f"target:{due.channel_id}").decode()
    return Target(due.kind, address, tuple(opened))
