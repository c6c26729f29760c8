-- name: close_windows
-- Close windows up to a goal; from the first with a source that is not counted yet, or waits for a
-- hold to end, none. Locks: its row. Index: vault_watch_ended, vault_run_due.
INSERT INTO log.follower AS f (follower, partition, position, progressed_at)
SELECT %(follower)s, 0, least(%(goal)s::bigint, min(w.ends_at) - 1), %(now)s::bigint
FROM enforcement.vault_watch w
WHERE w.ends_at <= %(goal)s
    AND w.limit_id IN (SELECT limit_id FROM enforcement.vault_run WHERE is_due)
ON CONFLICT (follower, partition) DO UPDATE
SET position = greatest(f.position, excluded.position), progressed_at = excluded.progressed_at;

-- name: load_ended
-- Windows that are closed and not forgotten yet, the oldest first. Index: vault_watch_ended.
SELECT limit_id FROM enforcement.vault_watch
WHERE ends_at <= (SELECT position FROM log.follower WHERE follower = %(follower)s)
ORDER BY ends_at, limit_id LIMIT %(windows)s;

-- name: read_in_order
-- Until the transaction ends. Else a piece of a window may be found by reading all of it.
SELECT set_config('enable_bitmapscan', 'off', true), set_config('enable_sort', 'off', true);

-- name: forget_runs
-- Forget the next rows of a window. What was deleted is not read again: its index entries stay until
-- vacuum comes. Locks: the rows. Index: primary key.
WITH piece AS MATERIALIZED (
    SELECT ctid AS place, source_key FROM enforcement.vault_run
    WHERE limit_id = %(limit_id)s AND source_key > %(after)s
    ORDER BY source_key LIMIT %(rows)s
), forgotten AS (
    DELETE FROM enforcement.vault_run WHERE ctid = ANY(ARRAY(SELECT place FROM piece))
)
SELECT count(*), coalesce(max(source_key), '') FROM piece;

-- name: forget_windows
-- Of these nothing is left. Locks: their rows. Index: primary key.
DELETE FROM enforcement.vault_watch WHERE limit_id = ANY(%(limit_ids)s);
