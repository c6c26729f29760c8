-- name: count_pending
-- How many runs wait to be charged. Reads the whole (small) table.
SELECT count(*) FROM charger.pending_run;
