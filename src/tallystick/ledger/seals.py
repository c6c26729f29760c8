"""Seals: history in chained blocks, so that one changed bit is found and named.

A block takes the operations of a range of transactions, all of which have ended: their names,
their hashes, the Merkle root over both. Its hash covers the block before. An operation's hash
covers every column, the running balance too, so each one is a checkpoint of its account.

Sealing reads committed history only: it takes no lock that a request waits for. It cannot
skip a late commit: a block ends before the oldest transaction that is still open, and the
next one begins there.

Merkle tree as in RFC 6962, section 2.1: a leaf is prefixed by 0x00, a node by 0x01.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec
from psycopg_pool import ConnectionPool

from tallystick.clock import Clock
from tallystick.invariant import check
from tallystick.ledger.model import Violation
from tallystick.ledger.store import Connection
from tallystick.plumbing.postgres import transaction
from tallystick.plumbing.sql import load_statements

_COLUMNS = (
    "account_id", "sequence", "operation_id", "tenant_id", "kind", "outcome", "code",
    "decided_by", "units", "source", "target", "moved", "shortfall", "held", "leased", "overage",
    "overage_held", "lot_ids", "lot_consumed", "lot_held", "limit_ids", "limit_used",
    "limit_held", "available", "balance_after", "hold_id", "epoch", "due_at", "run_id",
    "refers_to", "reason", "details", "key_hash", "digest", "posted_at", "transaction",
)  # fmt: skip
"""What an operation's hash covers; a column that is added later joins a new kind of leaf."""

_LEAF = "sha256(convert_to(ROW(" + ", ".join(f"o.{one}" for one in _COLUMNS) + ")::text, 'UTF8'))"
_OPERATIONS = (
    f"SELECT o.account_id || '/' || o.sequence AS name, {_LEAF} AS leaf, o.transaction "
    "FROM ledger.operation o"
)
_STATEMENTS = load_statements("tallystick.ledger", "seals.sql")
_GENESIS = b"\0" * 32
_HASH_BYTES = 32
OPERATIONS_PER_BLOCK_MAX = 2_000
"""Small, so that sealing never takes a core from the request path for long."""


class Block(msgspec.Struct, frozen=True):
    """A sealed block: its number, its hash (hex) and how many operations it holds."""

    block_number: int
    hash: str
    operations: int


def merkle_root(leaves: Sequence[bytes]) -> bytes:
    """The root over leaves in order; of none it is the hash of nothing.

    >>> merkle_root([b"a"]) == hashlib.sha256(b"\\0a").digest()
    True
    """
    if not leaves:
        return hashlib.sha256(b"").digest()
    level = [hashlib.sha256(b"\0" + leaf).digest() for leaf in leaves]
    while len(level) > 1:
        pairs = [
            hashlib.sha256(b"\1" + level[index] + level[index + 1]).digest()
            for index in range(0, len(level) - 1, 2)
        ]
        level = pairs + level[len(pairs) * 2 :]
    return level[0]


class Seals:
    """Seals history and checks what was sealed."""

    def __init__(self, pool: ConnectionPool, clock: Clock, also: Sequence[str] = ()) -> None:
        """`also` are queries (name, leaf, transaction) of other history that blocks cover."""
        self._pool = pool
        self._clock = clock
        sealed = " UNION ALL ".join([_OPERATIONS, *also])
        self._sql = {
            name: text.replace("{sealed}", sealed).encode() for name, text in _STATEMENTS.items()
        }

    def seal(self) -> Block | None:
        """Seal one block of what has been committed; None when there is nothing."""
        with transaction(self._pool) as connection:
            connection.execute(self._sql["lock_sealing"])
            tip = connection.execute(self._sql["load_tip"]).fetchone() or (0, _GENESIS, 0)
            first, horizon = self._choose_range(connection, tip[2])
            content = {"first_transaction": first, "horizon": horizon}
            rows = connection.execute(self._sql["load_leaves"], content, binary=True).fetchall()
            if not rows:
                return None
            leaves = [bytes(row[1]) for row in rows]
            header = _Header(
                tip[0] + 1,
                bytes(tip[1]),
                _root([row[0] for row in rows], leaves),
                first,
                horizon,
                self._clock.now(),
                len(rows),
            )
            block = {
                **header._asdict(),
                "hash": header.digest(),
                "names": "\n".join(row[0] for row in rows),
                "leaves": b"".join(leaves),
            }
            connection.execute(self._sql["insert_block"], block)
        return Block(header.block_number, header.digest().hex(), len(rows))

    def seal_all(self) -> int:
        """Seal everything that has been committed; how many blocks that took."""
        blocks = 0
        while self.seal() is not None:
            blocks += 1
        return blocks

    def count_unsealed(self) -> int:
        """Operations that wait to be sealed."""
        with transaction(self._pool) as connection:
            row = connection.execute(self._sql["count_unsealed"]).fetchone()
        return int(row[0]) if row else 0

    def head(self) -> str:
        """The hash of the last block: keep it elsewhere to prove that no one rewrote the chain."""
        with transaction(self._pool) as connection:
            tip = connection.execute(self._sql["load_tip"]).fetchone()
        return bytes(tip[1]).hex() if tip else ""

    def verify(self, expected_head: str = "") -> list[Violation]:
        """Hash everything that is sealed again; name what differs, the first first.

        `expected_head` is a block's hash that was kept elsewhere: it must be in the chain.
        """
        found: list[str] = []
        hashes = {""}
        with transaction(self._pool) as connection:
            connection.execute(b"SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            previous, end = _GENESIS, 0
            for number, row in enumerate(
                connection.execute(self._sql["load_blocks"]).fetchall(), 1
            ):
                header = _Header(row[0], bytes(row[1]), bytes(row[2]), *row[4:])
                found += self._check_block(connection, header)
                if header.block_number != number:
                    found.append(f"block {number} is missing")
                if header.previous != previous or header.first_transaction != end:
                    found.append(f"block {header.block_number} does not follow the one before")
                if header.digest() != bytes(row[3]):
                    found.append(f"block {header.block_number} has another hash than its content")
                previous, end = bytes(row[3]), header.horizon
                hashes.add(previous.hex())
        if expected_head not in hashes:
            found.append(f"the chain does not hold the expected block {expected_head}")
        return [Violation("SEAL", len(found), found[:10])] if found else []

    def _choose_range(self, connection: Connection, first: int) -> tuple[int, int]:
        """The next range of transactions to seal: [first, horizon), not too many operations."""
        row = connection.execute(self._sql["load_horizon"]).fetchone()
        horizon = int(row[0]) if row else first
        check(
            horizon >= first,
            "SEAL",
            "the database counts its transactions from before the last block: it was restored into "
            "a new cluster; let that count on from the old one (docs/ledger.md)",
        )
        arguments = {
            "first_transaction": first,
            "horizon": horizon,
            "operations_max": OPERATIONS_PER_BLOCK_MAX,
        }
        cut = connection.execute(self._sql["load_cut"], arguments).fetchone()
        return first, horizon if cut is None else max(int(cut[0]), first + 1)

    def _check_block(self, connection: Connection, header: _Header) -> Iterable[str]:
        """What differs in one block: its own content, then each operation."""
        number = {"block_number": header.block_number}
        stored = connection.execute(self._sql["load_block_leaves"], number, binary=True).fetchone()
        names, joined = (stored[0].split("\n"), bytes(stored[1])) if stored else ([], b"")
        leaves = [
            joined[start : start + _HASH_BYTES] for start in range(0, len(joined), _HASH_BYTES)
        ]
        if len(names) != len(leaves) or _root(names, leaves) != header.root:
            yield f"block {header.block_number} has another root than its leaves"
            return
        content = {"first_transaction": header.first_transaction, "horizon": header.horizon}
        rows = connection.execute(self._sql["load_leaves"], content, binary=True).fetchall()
        now = {row[0]: bytes(row[1]) for row in rows}
        for name, leaf in zip(names, leaves, strict=True):
            if now.pop(name, None) != leaf:
                yield f"operation {name} was changed or is missing"
        for name in now:
            yield f"operation {name} was added to block {header.block_number}"


class _Header(NamedTuple):
    """What a block's hash covers."""

    block_number: int
    previous: bytes
    root: bytes
    first_transaction: int
    horizon: int
    sealed_at: int
    operations: int

    def digest(self) -> bytes:
        """The block's hash."""
        numbers = (
            f"{self.block_number}|{self.first_transaction}|{self.horizon}|{self.sealed_at}|"
            f"{self.operations}|"
        )
        return hashlib.sha256(numbers.encode() + self.previous + self.root).digest()


def _root(names: Sequence[str], leaves: Sequence[bytes]) -> bytes:
    return merkle_root(
        [name.encode() + b"=" + leaf for name, leaf in zip(names, leaves, strict=True)]
    )
