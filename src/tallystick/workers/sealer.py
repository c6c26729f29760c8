"""The sealer: puts committed history into chained blocks, off the request path."""

from __future__ import annotations

from tallystick.ledger.seals import OPERATIONS_PER_BLOCK_MAX, Seals


class Sealer:
    """Seals one block a step while there is a backlog."""

    name = "sealer"

    def __init__(self, seals: Seals) -> None:
        self._seals = seals

    def recover(self) -> None:
        """Nothing is only in memory."""

    def step(self) -> bool:
        """Seal a block; False when there was nothing, or nothing more, to seal."""
        block = self._seals.seal()
        return block is not None and block.operations >= OPERATIONS_PER_BLOCK_MAX
