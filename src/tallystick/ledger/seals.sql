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
-- Where to cut a backlog: the transaction of the n-th operation. Index: operation_by_transaction,
-- and the like of others.
SELECT transaction FROM ({sealed}) AS s
WHERE transaction >= %(first_transaction)s AND transaction < %(horizon)s
ORDER BY transaction OFFSET %(operations_max)s LIMIT 1;

-- name: load_leaves
-- What a range of transactions wrote as it is now, each row with its hash.
-- Index: operation_by_transaction, and the like of others.
SELECT name, leaf FROM ({sealed}) AS s
WHERE transaction >= %(first_transaction)s AND transaction < %(horizon)s
ORDER BY name COLLATE "C";

-- name: insert_block
-- Append a block.
INSERT INTO ledger.block (block_number, previous, root, hash, first_transaction, horizon,
    sealed_at, operations, names, leaves)
VALUES (%(block_number)s, %(previous)s, %(root)s, %(hash)s, %(first_transaction)s, %(horizon)s,
    %(sealed_at)s, %(operations)s, %(names)s, %(leaves)s);

-- name: load_blocks
-- The chain, without its leaves. Reads the whole table.
SELECT block_number, previous, root, hash, first_transaction, horizon, sealed_at, operations
FROM ledger.block ORDER BY block_number;

-- name: load_block_leaves
-- Names and leaves of a block. Index: primary key.
SELECT names, leaves FROM ledger.block WHERE block_number = %(block_number)s;

-- name: count_unsealed
-- What is not sealed yet. Index: operation_by_transaction, and the like of others.
SELECT count(*) FROM ({sealed}) AS s WHERE transaction >= coalesce(
    (SELECT horizon FROM ledger.block ORDER BY block_number DESC LIMIT 1), 0);
