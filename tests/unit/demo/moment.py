"""The moment and the seed of the demo's tests."""

from __future__ import annotations

from datetime import UTC, datetime

from tallystick.clock import from_datetime

NOW = from_datetime(datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC))
SEED = 7
