-- name: put_run_budget
-- Make a run's budget or change its amount; it keeps its asset. Locks: the row.
INSERT INTO calls.run_budget AS r (tenant_id, run_id, limit_id, asset, amount, changed_at)
VALUES (%(tenant_id)s, %(run_id)s, %(limit_id)s, %(asset)s, %(amount)s, %(now)s)
ON CONFLICT (tenant_id, run_id) DO UPDATE
SET amount = excluded.amount, changed_at = excluded.changed_at
WHERE r.asset = excluded.asset
RETURNING limit_id;

-- name: load_run_budgets
-- A page of the budgets of runs that were made or changed since a time, after the last of the
-- page before, oldest first. Index: run_budget_changed.
SELECT tenant_id, run_id, limit_id, asset, changed_at FROM calls.run_budget
WHERE changed_at >= %(since)s
    AND (changed_at, tenant_id, run_id) > (%(since)s, %(after_tenant)s::text, %(after_run)s::text)
ORDER BY changed_at, tenant_id, run_id LIMIT %(rows_max)s;

-- name: load_newest_run_budgets
-- The budgets of runs that were made or changed last. Index: run_budget_changed.
SELECT tenant_id, run_id, limit_id, asset, changed_at FROM calls.run_budget
ORDER BY changed_at DESC LIMIT %(rows_max)s;

-- name: load_run_budget
-- One run's budget and what is left of it. Index: primary keys.
SELECT r.tenant_id, r.run_id, r.limit_id, r.asset, r.amount AS amount_units,
    greatest(l.capacity - l.used - l.held, 0) AS remaining_units
FROM calls.run_budget r JOIN ledger.limit_window l USING (limit_id)
WHERE r.tenant_id = %(tenant_id)s AND r.run_id = %(run_id)s;

-- name: load_open_calls
-- A page of open holds; those of calls have their details. Index: primary key of ledger.hold.
SELECT h.hold_id::text, h.account_id, h.tenant_id, h.run_id, h.status, h.held + h.drawn,
    h.limit_ids, h.limit_units, h.due_at,
    CASE WHEN o.details LIKE '{"call":%%' AND h.has_started THEN o.details ELSE '' END
FROM (SELECT * FROM ledger.hold
    WHERE hold_id > %(after)s::uuid AND hold_id < %(before)s::uuid
    ORDER BY hold_id LIMIT %(holds_max)s) h
JOIN ledger.operation o ON o.operation_id = h.hold_id
ORDER BY h.hold_id;

-- name: list_open_calls
-- Open calls of a tenant ("" for all), oldest first. Index: primary key of ledger.hold.
SELECT h.hold_id::text, h.account_id, h.tenant_id, h.run_id, h.status, h.held + h.drawn,
    h.limit_ids, h.limit_units, h.due_at, o.details
FROM ledger.hold h JOIN ledger.operation o ON o.operation_id = h.hold_id
WHERE o.details LIKE '{"call":%%' AND h.has_started
    AND (%(tenant_id)s::text = '' OR h.tenant_id = %(tenant_id)s)
    AND (%(status)s::text = '' OR h.status = %(status)s)
ORDER BY h.hold_id LIMIT %(holds_max)s;

-- name: load_details
-- What is kept with holds of calls, open or ended. Index: unique id of the operation.
SELECT operation_id::text, details FROM ledger.operation
WHERE operation_id = ANY(%(hold_ids)s::uuid[]) AND details LIKE '{"call":%%';

-- name: load_limit_assets
-- What limits count. Index: primary key.
SELECT limit_id, asset FROM ledger.limit_window WHERE limit_id = ANY(%(limit_ids)s::text[]);

-- name: load_resolved_calls
-- Calls whose holds were settled without them and that nobody judged yet, oldest first.
-- Index: operation_resolved, unique id, primary keys.
SELECT e.hold_id::text, o.account_id, o.tenant_id, o.run_id, b.unknown_policy, o.details
FROM ledger.operation e
JOIN ledger.operation o ON o.operation_id = e.hold_id
JOIN ledger.balance b ON b.account_id = o.account_id
LEFT JOIN calls.judged j ON j.hold_id = e.hold_id
WHERE e.kind = 'resolve' AND e.posted_at > %(since)s AND j.hold_id IS NULL
    AND o.due_at < %(due_before)s AND o.details LIKE '{"call":%%'
ORDER BY e.posted_at LIMIT %(calls_max)s;

-- name: insert_judged
-- Remember what was said of calls that nobody settled. Index: primary key.
INSERT INTO calls.judged (hold_id, tenant_id, run_id, verdict, event_id, judged_at)
VALUES (%(hold_id)s::uuid, %(tenant_id)s, %(run_id)s, %(verdict)s, %(event_id)s, %(now)s)
ON CONFLICT (hold_id) DO NOTHING;

-- name: load_hold_ratio
-- What calls held and were captured for, by model, over the newest operations of each account.
-- Index: primary key of ledger.operation, inv_07_one_resolution_per_hold.
SELECT d.provider, d.model, count(*), sum(o.units)::bigint, sum(e.units)::bigint,
    count(*) FILTER (WHERE e.units > o.units), count(*) FILTER (WHERE e.shortfall > 0)
FROM ledger.account a
JOIN ledger.balance b USING (account_id)
JOIN ledger.operation o ON o.account_id = a.account_id
    AND o.sequence > b.sequence - %(operations_max)s
JOIN ledger.operation e ON e.hold_id = o.operation_id AND e.kind = 'capture'
    AND e.outcome = 'posted'
CROSS JOIN LATERAL (SELECT (o.details::jsonb #>> '{call,said,provider}') AS provider,
    (o.details::jsonb #>> '{call,said,model}') AS model) d
WHERE (%(tenant_id)s::text = '' OR a.tenant_id = %(tenant_id)s)
    AND o.kind = 'hold' AND o.outcome = 'posted' AND o.details LIKE '{"call":%%'
GROUP BY 1, 2 ORDER BY 4 DESC LIMIT 1000;
