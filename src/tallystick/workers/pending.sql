-- name: mark_touched
-- Remember runs whose usage changed; one that was refused may be tried again.
-- Locks: the rows it touches. Index: primary key.
INSERT INTO charger.pending_run (tenant_id, charge_key, has_ended, touched_at)
SELECT * FROM unnest(%(tenants)s::text[], %(keys)s::text[], %(ended)s::boolean[]) AS t,
    (SELECT %(now)s::bigint) AS touched(at)
ON CONFLICT (tenant_id, charge_key) DO UPDATE
SET has_ended = charger.pending_run.has_ended OR excluded.has_ended,
    touched_at = excluded.touched_at, refused_at = 0, refusal = '';

-- name: load_due
-- Runs that ended or have been quiet for long enough, oldest first, and those refused long ago. The
-- oldest of each shard, ended or quiet, are looked up alone: so the index has them in order, and who
-- waits behind them is not read. Index: pending_run_due.
SELECT due.tenant_id, due.charge_key, due.touched_at
FROM unnest(%(shards)s::smallint[]) AS own(shard)
CROSS JOIN (VALUES (true, 9223372036854775807), (false, %(quiet_since)s::bigint))
    AS state(has_ended, touched_before)
CROSS JOIN LATERAL (
    SELECT p.tenant_id, p.charge_key, p.touched_at FROM charger.pending_run p
    WHERE p.shard = own.shard AND p.has_ended = state.has_ended
        AND p.touched_at < state.touched_before AND p.refused_at <= %(refused_until)s
    ORDER BY p.touched_at LIMIT %(runs_max)s) AS due
ORDER BY due.touched_at
LIMIT %(runs_max)s;

-- name: load_waiting
-- Runs that wait to be charged and were not refused. Reads the whole (small) table.
SELECT tenant_id, charge_key FROM charger.pending_run WHERE refused_at = 0 LIMIT %(runs_max)s;

-- name: forget_charged
-- Take runs off the list unless they were touched again meanwhile. Index: primary key.
DELETE FROM charger.pending_run AS p
USING unnest(%(tenants)s::text[], %(keys)s::text[], %(touched)s::bigint[]) AS done(t, k, at)
WHERE p.tenant_id = done.t AND p.charge_key = done.k AND p.touched_at = done.at;

-- name: refuse_runs
-- Set runs aside, unless they were touched again meanwhile. Index: primary key.
UPDATE charger.pending_run AS p SET refused_at = %(now)s, refusal = done.why
FROM unnest(%(tenants)s::text[], %(keys)s::text[], %(touched)s::bigint[], %(reasons)s::text[])
    AS done(t, k, at, why)
WHERE p.tenant_id = done.t AND p.charge_key = done.k AND p.touched_at = done.at;
