-- name: count_pending
-- How many runs wait to be charged, and how many were refused. Reads the whole (small) table.
SELECT count(*) FILTER (WHERE refused_at = 0), count(*) FILTER (WHERE refused_at != 0)
FROM charger.pending_run;

-- name: load_refused
-- Some runs that could not be charged, the last refused first. Reads the whole (small) table.
SELECT tenant_id, charge_key, refusal, refused_at FROM charger.pending_run
WHERE refused_at != 0 ORDER BY refused_at DESC, tenant_id, charge_key LIMIT 10;
