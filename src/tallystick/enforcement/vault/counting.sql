-- name: load_watched
-- From where limits count run by run. Index: primary key.
SELECT limit_id, positions FROM enforcement.vault_watch WHERE limit_id = ANY(%(limit_ids)s);

-- name: watch
-- A limit is seen for the first time.
INSERT INTO enforcement.vault_watch (limit_id, positions, ends_at, watched_at)
VALUES (%(limit_id)s, %(positions)s::jsonb, %(ends_at)s, %(now)s)
ON CONFLICT (limit_id) DO NOTHING;

-- name: add_runs
-- What sources used of limits. Locks: their rows, in the order of the key. Index: primary key.
INSERT INTO enforcement.vault_run AS r (limit_id, source_key, tenant_id, run_id, spent_units, is_due)
SELECT n.limit_id, n.source_key, n.tenant_id, n.run_id, n.units, true
FROM unnest(%(limit_ids)s::text[], %(source_keys)s::text[], %(tenant_ids)s::text[],
    %(run_ids)s::text[], %(units)s::numeric[]) AS n(limit_id, source_key, tenant_id, run_id, units)
ORDER BY n.limit_id, n.source_key
ON CONFLICT (limit_id, source_key) DO UPDATE
SET spent_units = r.spent_units + excluded.spent_units, is_due = true;

-- name: load_due
-- Sources to count, but runs with an open hold on the limit, with what the ledger captured for
-- them. A run below zero was counted in the baseline before a correction took it back: it
-- lessens the baseline. Locks: their rows. Index: vault_run_due, hold_of_run, operation_of_run.
SELECT r.limit_id, r.source_key, r.spent_units + CASE WHEN r.source_key = 'baseline' THEN coalesce((
    SELECT sum(o.spent_units) FROM enforcement.vault_run o
    WHERE o.limit_id = r.limit_id AND o.source_key <> 'baseline' AND o.spent_units < 0
), 0) ELSE 0 END, coalesce((
    SELECT sum(m.used) FROM ledger.operation o, unnest(o.limit_ids, o.limit_used) AS m(id, used)
    WHERE o.tenant_id = r.tenant_id AND o.run_id = r.run_id AND o.run_id <> ''
        AND o.outcome = 'posted' AND o.limit_ids @> ARRAY[r.limit_id] AND m.id = r.limit_id
), 0)::numeric AS captured
FROM enforcement.vault_run r
WHERE r.is_due AND NOT EXISTS (
    SELECT FROM ledger.hold h WHERE h.tenant_id = r.tenant_id AND h.run_id = r.run_id
        AND h.run_id <> '' AND h.limit_ids @> ARRAY[r.limit_id])
ORDER BY r.limit_id, r.source_key
LIMIT %(limit)s
FOR UPDATE OF r;

-- name: mark_counted
-- These are counted. Index: primary key.
UPDATE enforcement.vault_run r SET is_due = false
FROM unnest(%(limit_ids)s::text[], %(source_keys)s::text[]) AS n(limit_id, source_key)
WHERE r.limit_id = n.limit_id AND r.source_key = n.source_key;

-- name: mark_moved
-- Runs on whose limits the ledger moved since: due again. Only transactions that are over for
-- good are taken in. Index: operation_by_transaction, primary key.
WITH horizon AS (
    SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS ends
), moved AS (
    UPDATE enforcement.vault_run r SET is_due = true
    FROM ledger.operation o, unnest(o.limit_ids) AS m(limit_id), horizon
    WHERE o.transaction >= %(since)s AND o.transaction < horizon.ends AND o.run_id <> ''
        AND r.limit_id = m.limit_id
        AND r.source_key = 'run:' || o.tenant_id || '/' || o.run_id
)
INSERT INTO log.follower AS f (follower, partition, position, progressed_at)
SELECT %(follower)s, 0, horizon.ends, %(now)s FROM horizon
ON CONFLICT (follower, partition)
DO UPDATE SET position = excluded.position, progressed_at = excluded.progressed_at;
