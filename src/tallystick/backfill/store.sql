-- name: insert
-- Record what was asked for; a key that is known inserts nothing. Index: unique key.
INSERT INTO backfill.backfill (backfill_id, idempotency_key, kind, reverts, reason, from_at, to_at,
    tenant_ids, models, rate_card_version, is_dry_run, events_per_second_max, created_at,
    created_by, status, changed_at)
VALUES (%(backfill_id)s, %(idempotency_key)s, %(kind)s, %(reverts)s, %(reason)s, %(from_at)s,
    %(to_at)s, %(tenant_ids)s, %(models)s, %(rate_card_version)s, %(is_dry_run)s,
    %(events_per_second_max)s, %(created_at)s, %(created_by)s, 'planned', %(created_at)s)
ON CONFLICT (idempotency_key) DO NOTHING;

-- name: load_by_key
-- What was asked for under a key. Index: unique key.
SELECT * FROM backfill.backfill WHERE idempotency_key = %(idempotency_key)s;

-- name: load_one
-- One backfill. Index: primary key.
SELECT * FROM backfill.backfill WHERE backfill_id = %(backfill_id)s;

-- name: lock_one
-- One backfill, for a decision on its status. Locks: its row. Index: primary key.
SELECT * FROM backfill.backfill WHERE backfill_id = %(backfill_id)s FOR UPDATE;

-- name: load_open
-- The oldest backfill that is to be worked on. Index: backfill_open.
SELECT * FROM backfill.backfill WHERE status IN ('planned', 'running')
ORDER BY created_at, backfill_id LIMIT 1;

-- name: newest
-- The newest backfills. Reads the (small) table.
SELECT * FROM backfill.backfill ORDER BY created_at DESC, backfill_id DESC LIMIT %(limit)s;

-- name: count_reverts
-- Reverts of a backfill that stand. Index: one_revert_at_a_time.
SELECT count(*) FROM backfill.backfill
WHERE reverts = %(backfill_id)s AND reverts <> '' AND status NOT IN ('failed', 'reverted');

-- name: move_status
-- Move a backfill to another status. Locks: its row. Index: primary key.
UPDATE backfill.backfill SET status = %(status)s, changed_at = %(now)s, failure = %(failure)s
WHERE backfill_id = %(backfill_id)s;

-- name: begin
-- Say which facts are meant. Locks: its row. Index: primary key.
UPDATE backfill.backfill SET status = 'running', ends = %(ends)s, changed_at = %(now)s
WHERE backfill_id = %(backfill_id)s AND status = 'planned';

-- name: finish_piece
-- Move behind a piece, unless another worker did or it was paused. Locks: its row.
UPDATE backfill.backfill
SET pieces = pieces + 1, expected = coalesce(expected, %(expected)s), cursor = %(cursor)s, examined = examined + %(examined)s,
    corrected = corrected + %(corrected)s, skipped = skipped + %(skipped)s,
    status = CASE WHEN %(is_last)s THEN 'done' ELSE 'running' END, changed_at = %(now)s
WHERE backfill_id = %(backfill_id)s AND pieces = %(pieces)s AND status = 'running';

-- name: finish_revert
-- What was reverted is so; a revert that was reverted lets its backfill stand again.
-- Locks: both rows. Index: primary key.
WITH reverted AS (
    UPDATE backfill.backfill SET status = 'reverted', changed_at = %(now)s
    WHERE backfill_id = %(reverts)s RETURNING reverts
)
UPDATE backfill.backfill SET status = 'done', changed_at = %(now)s
WHERE backfill_id = (SELECT reverts FROM reverted WHERE reverts <> '');

-- name: append_line
-- What a piece found. Only appends.
INSERT INTO backfill.report_line (backfill_id, piece, tenant_id, model, events, corrected,
    cost_units_before, cost_units_after, credit_units_before, credit_units_after)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s);

-- name: append_run
-- By how much a piece corrected a run. Only appends.
INSERT INTO backfill.report_run (backfill_id, piece, tenant_id, charge_key, corrected,
    cost_units, credit_units)
VALUES (%s, %s, %s, %s, %s, %s, %s);

-- name: load_lines
-- The report by tenant and model, the greatest differences first. Index: primary key.
SELECT tenant_id, model, sum(events)::bigint AS events, sum(corrected)::bigint AS corrected,
    sum(cost_units_before)::text AS cost_units_before,
    sum(cost_units_after)::text AS cost_units_after,
    sum(credit_units_before)::text AS credit_units_before,
    sum(credit_units_after)::text AS credit_units_after
FROM backfill.report_line WHERE backfill_id = %(backfill_id)s
GROUP BY tenant_id, model
ORDER BY abs(sum(credit_units_after - credit_units_before)) DESC,
    abs(sum(cost_units_after - cost_units_before)) DESC, tenant_id, model;

-- name: load_runs
-- The runs that changed most, with how many changed in all. Index: primary key.
SELECT tenant_id, charge_key, sum(corrected)::bigint AS corrected,
    sum(cost_units)::text AS cost_units, sum(credit_units)::text AS credit_units,
    count(*) OVER () AS runs
FROM backfill.report_run WHERE backfill_id = %(backfill_id)s
GROUP BY tenant_id, charge_key
ORDER BY abs(sum(credit_units)) DESC, abs(sum(cost_units)) DESC, tenant_id, charge_key
LIMIT %(limit)s;
