-- name: lock_sealing
-- One sealer at a time; the request path never takes this lock.
SELECT pg_advisory_xact_lock(7215002);

-- name: load_horizon
-- Every transaction before it has ended, so what it wrote is visible and final.
SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint;

-- name: load_tip
-- The last block. Index: primary key.
SELECT block_number, hash, horizon FROM ledger.block ORDER BY block_number DESC LIMIT 1;

-- name: load_cut
-- Where to cut a backlog: the transaction of the n-th operation. Index: operation_by_transaction.
SELECT transaction FROM ledger.operation
WHERE transaction >= %(from_horizon)s AND transaction < %(horizon)s
ORDER BY transaction OFFSET %(operations_max)s LIMIT 1;

-- name: load_unsealed
-- Operations to seal: of each account that ended transactions touched, all that are not sealed
-- yet up to its last one there. An account's operations are dense and become visible in order
-- of their sequence, so none below that one can come later.
-- Index: operation_by_transaction, primary keys.
WITH touched AS (
    SELECT account_id, max(sequence) AS last_sequence FROM ledger.operation
    WHERE transaction >= %(from_horizon)s AND transaction < %(horizon)s GROUP BY account_id),
bounds AS (
    SELECT t.account_id, t.last_sequence, coalesce((SELECT e.last_sequence
        FROM ledger.block_entry e WHERE e.account_id = t.account_id
        ORDER BY e.first_sequence DESC LIMIT 1), 0) AS sealed
    FROM touched t)
SELECT o.account_id, b.sealed, o.sequence, {leaf}, o.balance_after, o.available
FROM bounds b JOIN ledger.operation o
    ON o.account_id = b.account_id AND o.sequence > b.sealed AND o.sequence <= b.last_sequence
ORDER BY o.account_id, o.sequence;

-- name: insert_block
-- Append a block.
INSERT INTO ledger.block (block_number, previous, root, hash, horizon, sealed_at)
VALUES (%(block_number)s, %(previous)s, %(root)s, %(hash)s, %(horizon)s, %(sealed_at)s);

-- name: insert_entries
-- Append a block's entries by set.
INSERT INTO ledger.block_entry (block_number, account_id, first_sequence, last_sequence, root,
    leaves, balance_after, available)
SELECT %(block_number)s, * FROM unnest(%(account_ids)s::text[], %(first)s::bigint[],
    %(last)s::bigint[], %(roots)s::bytea[], %(leaves)s::bytea[], %(balances)s::bigint[],
    %(available)s::bigint[]);

-- name: load_blocks
-- The chain. Reads the whole table.
SELECT block_number, previous, root, hash, horizon, sealed_at FROM ledger.block
ORDER BY block_number;

-- name: load_block_entries
-- Entries of a block, in the order in which they were sealed. Index: block_entry_of_block.
SELECT account_id, first_sequence, last_sequence, root, leaves, balance_after, available
FROM ledger.block_entry WHERE block_number = %(block_number)s ORDER BY account_id COLLATE "C";

-- name: load_sealed_leaves
-- The operations of a block as they are now, hashed again. Index: primary key.
SELECT e.account_id, e.first_sequence, o.sequence, {leaf}, o.balance_after, o.available
FROM ledger.block_entry e LEFT JOIN ledger.operation o
    ON o.account_id = e.account_id AND o.sequence BETWEEN e.first_sequence AND e.last_sequence
WHERE e.block_number = %(block_number)s ORDER BY e.account_id COLLATE "C", o.sequence;

-- name: load_gaps
-- Accounts whose sealed ranges do not follow each other.
SELECT account_id || '/' || first_sequence FROM (
    SELECT account_id, first_sequence, coalesce(lag(last_sequence) OVER (
        PARTITION BY account_id ORDER BY first_sequence), 0) AS before FROM ledger.block_entry) e
WHERE first_sequence <> before + 1;

-- name: count_unsealed
-- Operations that are not sealed yet.
SELECT (SELECT coalesce(sum(sequence), 0) FROM ledger.balance)::bigint
    - (SELECT coalesce(sum(last_sequence - first_sequence + 1), 0) FROM ledger.block_entry)::bigint;
