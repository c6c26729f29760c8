-- name: load_horizons
-- Every horizon, in order. Reads the whole (tiny) table.
SELECT horizon_at, closes_at, ends FROM log.horizon ORDER BY horizon_at;

-- name: append_horizon
-- Add a horizon, unless one that is as far is there. Index: primary key.
INSERT INTO log.horizon (horizon_at, closes_at)
SELECT %(horizon_at)s, %(closes_at)s
WHERE NOT EXISTS (SELECT FROM log.horizon WHERE horizon_at >= %(horizon_at)s);

-- name: lock_horizon
-- Let no correction be appended until its ends are stored. Locks: the row. Index: primary key.
SELECT ends FROM log.horizon WHERE horizon_at = %(horizon_at)s FOR UPDATE;

-- name: store_ends
-- Where the log ended when nothing of before a horizon came any more. Index: primary key.
UPDATE log.horizon SET ends = %(ends)s WHERE horizon_at = %(horizon_at)s AND ends IS NULL;

-- name: lock_horizons
-- The time before which corrections are closed; it stays so until this transaction ends.
-- Locks: all rows, shared. Reads the whole (tiny) table.
-- A WHERE would be looked at before the lock, and leave the row that is being closed unlocked.
SELECT max(horizon_at) FILTER (WHERE ends IS NOT NULL) FROM (
    SELECT horizon_at, ends FROM log.horizon ORDER BY horizon_at FOR SHARE) AS locked;
