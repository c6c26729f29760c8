"""The delivery lane of alerts: says what is due, to whom, until it is taken.

It runs in the keeper role, in one process at a time. Two that overlap for a moment send a
message twice under one id, never under two.
"""

from __future__ import annotations

from tallystick.enforcement.alerts.delivery import Delivery


class AlertNotifier:
    """Announces and sends in batches."""

    name = "alerts"

    def __init__(self, delivery: Delivery) -> None:
        self._delivery = delivery

    def recover(self) -> None:
        """Nothing is only in memory."""

    def step(self) -> bool:
        """Say and send what is due; False when nothing is."""
        return self._delivery.step()
