-- name: next_edit
-- Move the count of edits on; edits wait here for each other. Locks: the one row.
UPDATE enforcement.budget_edits SET edits = edits + 1 RETURNING edits;

-- name: load_edits
-- How many edits there were. It has one row.
SELECT edits FROM enforcement.budget_edits;

-- name: load_changed
-- Budgets that were edited after an edit, deleted ones too. Index: budget_by_edit.
SELECT tenant_id, budget_id, revision, status, content::text, created_at, changed_at, changed_by
FROM enforcement.budget WHERE edit > %(edits)s ORDER BY edit;

-- name: load_budget
-- One budget. Index: primary key.
SELECT tenant_id, budget_id, revision, status, content::text, created_at, changed_at, changed_by
FROM enforcement.budget WHERE tenant_id = %(tenant_id)s AND budget_id = %(budget_id)s;

-- name: lock_budget
-- One budget to be edited. Locks: its row. Index: primary key.
SELECT tenant_id, budget_id, revision, status, content::text, created_at, changed_at, changed_by
FROM enforcement.budget WHERE tenant_id = %(tenant_id)s AND budget_id = %(budget_id)s FOR UPDATE;

-- name: share_budgets
-- Budgets whose windows are made: nobody edits them meanwhile. Locks: their rows, shared.
-- Index: primary key.
SELECT b.tenant_id, b.budget_id, revision, status, content::text, created_at, changed_at,
    changed_by
FROM enforcement.budget b
JOIN unnest(%(tenant_ids)s::text[], %(budget_ids)s::text[]) AS n(tenant_id, budget_id)
    USING (tenant_id, budget_id)
ORDER BY b.tenant_id, b.budget_id FOR SHARE OF b;

-- name: list_budgets
-- Budgets of a tenant, or of all, in order of id, after one. Index: primary key.
SELECT tenant_id, budget_id, revision, status, content::text, created_at, changed_at, changed_by
FROM enforcement.budget
WHERE (%(tenant_id)s::text = '' OR tenant_id = %(tenant_id)s) AND status <> 'deleted'
    AND (tenant_id, budget_id) > (%(after_tenant)s, %(after_budget)s)
ORDER BY tenant_id, budget_id LIMIT %(limit)s;

-- name: list_revisions
-- What was set when, newest first. Index: primary key.
SELECT tenant_id, budget_id, revision, status, content::text, 0::bigint AS created_at, changed_at,
    changed_by
FROM enforcement.budget_revision
WHERE tenant_id = %(tenant_id)s AND budget_id = %(budget_id)s
ORDER BY revision DESC LIMIT 1000;

-- name: write_budget
-- Make a budget or change it. Locks: its row.
INSERT INTO enforcement.budget (tenant_id, budget_id, revision, status, content, edit,
    created_at, changed_at, changed_by)
VALUES (%(tenant_id)s, %(budget_id)s, %(revision)s, %(status)s, %(content)s::jsonb, %(edit)s,
    %(now)s, %(now)s, %(changed_by)s)
ON CONFLICT (tenant_id, budget_id) DO UPDATE SET revision = excluded.revision,
    status = excluded.status, content = excluded.content, edit = excluded.edit,
    changed_at = excluded.changed_at, changed_by = excluded.changed_by
RETURNING tenant_id, budget_id, revision, status, content::text, created_at, changed_at,
    changed_by;

-- name: append_revision
-- Keep what was set.
INSERT INTO enforcement.budget_revision (tenant_id, budget_id, revision, status, content,
    changed_at, changed_by)
VALUES (%(tenant_id)s, %(budget_id)s, %(revision)s, %(status)s, %(content)s::jsonb, %(now)s,
    %(changed_by)s);

-- name: insert_windows
-- Make windows that nobody has made yet. Index: primary key.
INSERT INTO enforcement.budget_window (limit_id, tenant_id, budget_id, each, start_at, end_at,
    carried)
SELECT * FROM unnest(%(limit_ids)s::text[], %(tenant_ids)s::text[], %(budget_ids)s::text[],
    %(each)s::jsonb[], %(start_at)s::bigint[], %(end_at)s::bigint[], %(carried)s::bigint[])
ON CONFLICT (limit_id) DO NOTHING;

-- name: insert_limits
-- Make their limits in the ledger. Index: primary key.
INSERT INTO ledger.limit_window (limit_id, asset, capacity, kind, slice_micros, slices)
SELECT * FROM unnest(%(limit_ids)s::text[], %(assets)s::text[], %(capacities)s::bigint[],
    %(kinds)s::text[], %(slice_micros)s::bigint[], %(slices)s::integer[])
ON CONFLICT (limit_id) DO NOTHING;

-- name: load_counted
-- What is used and held of limits. Index: primary key.
SELECT limit_id, used + held FROM ledger.limit_window WHERE limit_id = ANY(%(limit_ids)s::text[]);

-- name: lock_windows
-- Windows of a budget under way, and their limits in id order. Locks: the limit rows.
-- Index: window_of_budget, primary key.
SELECT w.limit_id, w.tenant_id, w.budget_id, w.each::text, w.start_at, w.end_at, w.carried,
    l.capacity, l.used, l.held, l.overrun, l.let_through
FROM enforcement.budget_window w JOIN ledger.limit_window l USING (limit_id)
WHERE w.tenant_id = %(tenant_id)s AND w.budget_id = %(budget_id)s
    AND coalesce(w.end_at, 9223372036854775807) > %(now)s
ORDER BY l.limit_id FOR UPDATE OF l;

-- name: update_capacities
-- Change capacities; what is counted beyond a lower one is overrun. Locks: held already.
UPDATE ledger.limit_window l SET capacity = n.capacity, kind = n.kind,
    overrun = greatest(l.used + l.held - n.capacity, 0)
FROM unnest(%(limit_ids)s::text[], %(capacities)s::bigint[], %(kinds)s::text[])
    AS n(limit_id, capacity, kind)
WHERE l.limit_id = n.limit_id AND (l.capacity <> n.capacity OR l.kind <> n.kind);

-- name: update_carried
-- Change what is carried over. Index: primary key.
UPDATE enforcement.budget_window w SET carried = n.carried
FROM unnest(%(limit_ids)s::text[], %(carried)s::bigint[]) AS n(limit_id, carried)
WHERE w.limit_id = n.limit_id AND w.carried <> n.carried;

-- name: list_windows
-- Windows of a budget, newest first, and of one time those used most. Index: window_of_budget, from
-- its end on, so that windows of long ago are not read.
SELECT w.limit_id, w.tenant_id, w.budget_id, w.each::text, w.start_at, w.end_at, w.carried,
    l.capacity, l.used, l.held, l.overrun, l.let_through
FROM enforcement.budget_window w JOIN ledger.limit_window l USING (limit_id)
WHERE w.tenant_id = %(tenant_id)s AND w.budget_id = %(budget_id)s
ORDER BY coalesce(w.end_at, 9223372036854775807) DESC, l.used + l.held DESC, w.limit_id
LIMIT %(limit)s;

-- name: load_windows
-- Windows by id. Index: primary keys.
SELECT w.limit_id, w.tenant_id, w.budget_id, w.each::text, w.start_at, w.end_at, w.carried,
    l.capacity, l.used, l.held, l.overrun, l.let_through
FROM enforcement.budget_window w JOIN ledger.limit_window l USING (limit_id)
WHERE w.limit_id = ANY(%(limit_ids)s::text[]);

-- name: load_each
-- The values for which budgets of each value have a window under way. Index: window_under_way.
SELECT w.tenant_id, w.budget_id, w.each::text FROM enforcement.budget_window w
WHERE w.each <> '{}' AND coalesce(w.end_at, 9223372036854775807) > %(now)s;

-- name: load_carrying
-- Active budgets that carry over. Reads all budgets.
SELECT tenant_id, budget_id, revision, status, content::text, created_at, changed_at, changed_by
FROM enforcement.budget WHERE status = 'active' AND content->>'carry_over_max' <> '0';

-- name: load_crossed
-- Thresholds that are reached and not told yet, in windows under way: it reads all of those.
-- Index: window_under_way, primary keys; apart, or the order of what is asked for chooses another.
WITH w AS MATERIALIZED (
    SELECT limit_id, tenant_id, budget_id, carried FROM enforcement.budget_window
    WHERE coalesce(end_at, 9223372036854775807) > %(now)s)
SELECT w.limit_id, t.at, (array_agg(t.action ORDER BY array_position(
        ARRAY['block', 'downgrade', 'throttle', 'alert'], t.action)))[1] AS action,
    (b.content->>'amount')::bigint + w.carried AS total
FROM w JOIN enforcement.budget b USING (tenant_id, budget_id)
JOIN ledger.limit_window l USING (limit_id)
CROSS JOIN LATERAL jsonb_to_recordset(b.content->'thresholds') AS t(at numeric, action text)
LEFT JOIN enforcement.budget_crossing c ON c.limit_id = w.limit_id AND c.at = t.at
WHERE b.status = 'active' AND l.used + l.held > 0
    AND l.used + l.held >= floor(t.at * ((b.content->>'amount')::bigint + w.carried))
    AND (c.limit_id IS NULL OR c.cleared_at IS NOT NULL)
GROUP BY w.limit_id, t.at, b.content, w.carried ORDER BY w.limit_id, t.at LIMIT %(limit)s;

-- name: upsert_crossing
-- Remember that a threshold was crossed. Index: primary key.
INSERT INTO enforcement.budget_crossing (limit_id, at, total, crossed_at)
VALUES (%(limit_id)s, %(at)s, %(total)s, %(now)s)
ON CONFLICT (limit_id, at) DO UPDATE SET total = excluded.total,
    crossed_at = excluded.crossed_at, cleared_at = NULL;

-- name: clear_crossings
-- Take crossings back: the window is over, the budget ended, the threshold is gone, or an edit
-- or the passing of time (rolling) left less than it. What holds give back does not: the next
-- hold would only raise it again. Index: crossing_uncleared.
UPDATE enforcement.budget_crossing c SET cleared_at = %(now)s
FROM enforcement.budget_window w
JOIN enforcement.budget b USING (tenant_id, budget_id)
JOIN ledger.limit_window l USING (limit_id)
WHERE c.cleared_at IS NULL AND w.limit_id = c.limit_id AND (
    b.status <> 'active' OR w.end_at <= %(now)s
    OR NOT EXISTS (SELECT FROM jsonb_to_recordset(b.content->'thresholds') AS t(at numeric)
        WHERE t.at = c.at)
    OR ((w.end_at IS NULL OR (b.content->>'amount')::bigint + w.carried <> c.total)
        AND l.used + l.held < floor(c.at * ((b.content->>'amount')::bigint + w.carried))))
RETURNING c.limit_id, c.at;

-- name: load_account_tenants
-- Whose accounts are. Index: primary key.
SELECT account_id, tenant_id FROM ledger.account WHERE account_id = ANY(%(account_ids)s::text[]);
