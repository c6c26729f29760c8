"""The delivery lane as a process of its own, to be killed."""

from __future__ import annotations

import random
import sys

from tallystick.clock import SystemClock
from tallystick.enforcement.alerts.channels import channel_sealing
from tallystick.enforcement.alerts.delivery import Delivery
from tallystick.enforcement.alerts.outbox import Outbox
from tallystick.enforcement.alerts.sending import Sender
from tallystick.ids import Uuid7Source
from tallystick.plumbing.embedded.child import take_stop_signals
from tallystick.plumbing.outbound import OutboundPolicy
from tallystick.plumbing.postgres import open_pool
from tallystick.workers.alerts import AlertNotifier
from tallystick.workers.loop import FollowerLoop
from tests.alerts.scene import KEY


def main() -> None:
    clock = SystemClock()
    pool = open_pool(sys.argv[1], connections_max=2)
    outbox = Outbox(pool, clock, Uuid7Source(clock))
    sender = Sender(OutboundPolicy(allow_private=True), None, "")
    notifier = AlertNotifier(Delivery(outbox, sender, channel_sealing(KEY), clock, random.random))
    loop = FollowerLoop(notifier, idle_seconds=0.05)
    wait_for_stop = take_stop_signals()
    loop.start()
    wait_for_stop()
    loop.stop()
    pool.close()


if __name__ == "__main__":
    main()
