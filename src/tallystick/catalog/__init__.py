"""Catalog: dated configuration that prices depend on.

Owns rate cards and their versions. Never prices anything itself. Keeps every version for
ever (append-only). Time: `effective_at` says from when a version rates events,
`recorded_at` when it was entered.
"""

from tallystick.catalog.service import Catalog

__all__ = ["Catalog"]
