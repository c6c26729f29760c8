"""Seals: history in chained blocks, so that one changed bit is found and named.

A block takes the operations of transactions that have ended. Each entry of it is a range of
one account's operations: their hashes, the Merkle root over them, and the balance that they
lead to. The block's root is over its entries, and its hash covers the block before.

Sealing reads committed history only: it takes no lock that a request waits for. It cannot
skip a late commit: an account's operations are numbered without gaps under the account's
lock, and a block begins where the account's last one ended.

Merkle tree as in RFC 6962, section 2.1: a leaf is prefixed by 0x00, a node by 0x01.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

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
_SQL = {
    name: text.replace("{leaf}", _LEAF).encode()
    for name, text in load_statements("tallystick.ledger", "seals.sql").items()
}
_GENESIS = b"\0" * 32
_HASH_BYTES = 32
OPERATIONS_PER_BLOCK_MAX = 2_000
"""Small, so that sealing never takes a core from the request path for long."""


class Block(msgspec.Struct, frozen=True):
    """A sealed block: its number, its hash (hex) and how many operations it holds."""

    block_number: int
    hash: str
    operations: int


class _Entry(msgspec.Struct):
    account_id: str
    first_sequence: int
    last_sequence: int
    root: bytes
    leaves: bytes
    balance_after: int
    available: int

    def digest(self) -> bytes:
        """The entry as a leaf of the block's tree."""
        text = (
            f"{self.account_id}\x1f{self.first_sequence}\x1f{self.last_sequence}\x1f"
            f"{self.balance_after}\x1f{self.available}\x1f"
        )
        return hashlib.sha256(text.encode() + self.root).digest()


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


def _block_hash(number: int, previous: bytes, root: bytes, horizon: int, sealed_at: int) -> bytes:
    return hashlib.sha256(f"{number}|{horizon}|{sealed_at}|".encode() + previous + root).digest()


class Seals:
    """Seals history and checks what was sealed."""

    def __init__(self, pool: ConnectionPool, clock: Clock) -> None:
        self._pool = pool
        self._clock = clock

    def seal(self) -> Block | None:
        """Seal one block of what has been committed; None when there is nothing."""
        with transaction(self._pool) as connection:
            connection.execute(b"SET TRANSACTION ISOLATION LEVEL READ COMMITTED")
            connection.execute(_SQL["lock_sealing"])
            tip = connection.execute(_SQL["load_tip"]).fetchone() or (0, _GENESIS, 0)
            horizon, entries = _next_entries(connection, tip[2])
            if not entries:
                return None
            number, previous = tip[0] + 1, bytes(tip[1])
            root = merkle_root([entry.digest() for entry in entries])
            sealed_at = self._clock.now()
            digest = _block_hash(number, previous, root, horizon, sealed_at)
            block = {
                "block_number": number,
                "previous": previous,
                "root": root,
                "hash": digest,
                "horizon": horizon,
                "sealed_at": sealed_at,
            }
            connection.execute(_SQL["insert_block"], block)
            connection.execute(_SQL["insert_entries"], {**block, **_columns(entries)})
        operations = sum(len(entry.leaves) // _HASH_BYTES for entry in entries)
        return Block(number, digest.hex(), operations)

    def seal_all(self) -> int:
        """Seal everything that has been committed; how many blocks that took."""
        blocks = 0
        while self.seal() is not None:
            blocks += 1
        return blocks

    def count_unsealed(self) -> int:
        """Operations that wait to be sealed."""
        with transaction(self._pool) as connection:
            row = connection.execute(_SQL["count_unsealed"]).fetchone()
        return int(row[0]) if row else 0

    def head(self) -> str:
        """The hash of the last block: keep it elsewhere to prove that no one rewrote the chain."""
        with transaction(self._pool) as connection:
            tip = connection.execute(_SQL["load_tip"]).fetchone()
        return bytes(tip[1]).hex() if tip else ""

    def verify(self, expected_head: str = "") -> list[Violation]:
        """Hash everything that is sealed again; name what differs, the first first.

        `expected_head` is a block's hash that was kept elsewhere: it must be in the chain.
        """
        found: list[str] = []
        is_in_chain = not expected_head
        with transaction(self._pool) as connection:
            connection.execute(b"SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            previous = _GENESIS
            for number, row in enumerate(connection.execute(_SQL["load_blocks"]).fetchall(), 1):
                found += _check_block(connection, number, previous, row)
                previous = bytes(row[3])
                is_in_chain = is_in_chain or previous.hex() == expected_head
            gaps = connection.execute(_SQL["load_gaps"]).fetchall()
            if not is_in_chain:
                found.append(f"the chain does not hold the expected block {expected_head}")
            found += [f"block_entry {row[0]} does not follow the one before" for row in gaps]
        return [Violation("SEAL", len(found), found[:10])] if found else []


def _next_entries(connection: Connection, from_horizon: int) -> tuple[int, list[_Entry]]:
    """The next operations to seal, and the transaction up to which all are sealed then."""
    row = connection.execute(_SQL["load_horizon"]).fetchone()
    end = int(row[0]) if row else 0
    if end < from_horizon:
        from_horizon = 0  # a restored database counts its transactions from the beginning
    while from_horizon < end:
        arguments = {
            "from_horizon": from_horizon,
            "horizon": end,
            "operations_max": OPERATIONS_PER_BLOCK_MAX,
        }
        cut = connection.execute(_SQL["load_cut"], arguments).fetchone()
        horizon = end if cut is None else max(int(cut[0]), from_horizon + 1)
        entries = _unsealed(connection, from_horizon, horizon)
        if entries:
            return horizon, entries
        from_horizon = horizon
    return end, []


def _unsealed(connection: Connection, from_horizon: int, horizon: int) -> list[_Entry]:
    arguments = {"from_horizon": from_horizon, "horizon": horizon}
    rows = connection.execute(_SQL["load_unsealed"], arguments, binary=True).fetchall()
    entries = []
    for account_id, group in groupby(rows, key=lambda row: row[0]):
        operations = list(group)
        first = operations[0][1] + 1
        for sequence, row in enumerate(operations, first):
            check(
                row[2] == sequence,
                "INV-02",
                f"operation {sequence} of account {account_id} is missing",
            )
        entries.append(_entry(account_id, first, operations))
    entries.sort(key=lambda entry: entry.account_id.encode())
    return entries


def _entry(account_id: str, first: int, operations: Sequence[tuple[Any, ...]]) -> _Entry:
    leaves = [bytes(row[3]) for row in operations]
    last = operations[-1]
    return _Entry(
        account_id, first, last[2], merkle_root(leaves), b"".join(leaves), last[4], last[5]
    )


def _columns(entries: Sequence[_Entry]) -> dict[str, list[Any]]:
    return {
        "account_ids": [entry.account_id for entry in entries],
        "first": [entry.first_sequence for entry in entries],
        "last": [entry.last_sequence for entry in entries],
        "roots": [entry.root for entry in entries],
        "leaves": [entry.leaves for entry in entries],
        "balances": [entry.balance_after for entry in entries],
        "available": [entry.available for entry in entries],
    }


def _check_block(
    connection: Connection, number: int, previous: bytes, row: tuple[Any, ...]
) -> Iterable[str]:
    """What differs in one block, from the operations up."""
    arguments = {"block_number": row[0]}
    entries = [
        _Entry(*entry)
        for entry in connection.execute(
            _SQL["load_block_entries"], arguments, binary=True
        ).fetchall()
    ]
    leaves = connection.execute(_SQL["load_sealed_leaves"], arguments, binary=True).fetchall()
    now = {key: list(group) for key, group in groupby(leaves, key=lambda leaf: (leaf[0], leaf[1]))}
    for entry in entries:
        yield from _check_entry(entry, now.get((entry.account_id, entry.first_sequence), []))
    root = merkle_root([entry.digest() for entry in entries])
    if row[0] != number:
        yield f"block {number} is missing"
    if bytes(row[1]) != previous:
        yield f"block {row[0]} does not follow block {row[0] - 1}"
    if bytes(row[2]) != root:
        yield f"block {row[0]} has another root than its entries"
    if bytes(row[3]) != _block_hash(row[0], bytes(row[1]), bytes(row[2]), row[4], row[5]):
        yield f"block {row[0]} has another hash than its content"


def _check_entry(entry: _Entry, operations: list[tuple[Any, ...]]) -> Iterable[str]:
    sealed = [
        entry.leaves[start : start + _HASH_BYTES]
        for start in range(0, len(entry.leaves), _HASH_BYTES)
    ]
    if len(sealed) != entry.last_sequence - entry.first_sequence + 1 or merkle_root(
        sealed
    ) != bytes(entry.root):
        yield f"block_entry {entry.account_id}/{entry.first_sequence} was changed"
        return
    found = {row[2]: bytes(row[3]) for row in operations if row[2] is not None}
    for sequence, leaf in enumerate(sealed, entry.first_sequence):
        if found.get(sequence) != leaf:
            state = "was changed" if sequence in found else "is missing"
            yield f"operation {entry.account_id}/{sequence} {state}"
    if operations and operations[-1][4:6] != (entry.balance_after, entry.available):
        yield f"block_entry {entry.account_id}/{entry.first_sequence} has another balance"
