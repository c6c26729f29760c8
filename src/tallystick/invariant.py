"""Always-on checks of what must hold (docs/invariants.md lists the ids)."""

from __future__ import annotations

from tallystick.errors import InvariantBroken


def check(holds: bool, invariant_id: str, message: str) -> None:
    """Raise InvariantBroken unless `holds`; `invariant_id` is like "INV-01".

    >>> check(1 + 1 == 2, "INV-01", "entries of operation 7 sum to zero")
    """
    if not holds:
        raise InvariantBroken(f"{invariant_id}: {message}")
