-- Statements that write by set are completed by plumbing/arrays.py: {names} are the columns,
-- {values} and {rows} their values, each column as one array or, when it is the same for all
-- rows, once.

-- name: insert_account
-- Make an account. Index: primary key.
INSERT INTO ledger.account (account_id, tenant_id, created_at)
VALUES (%(account_id)s, %(tenant_id)s, %(now)s)
ON CONFLICT (account_id) DO NOTHING;

-- name: insert_balance
-- Make its balance row. Index: primary key.
INSERT INTO ledger.balance (account_id, overage_limit_units, capture_policy, unknown_policy)
VALUES (%(account_id)s, %(overage_limit_units)s, %(capture_policy)s, %(unknown_policy)s)
ON CONFLICT (account_id) DO NOTHING;

-- name: update_settings
-- Change an account's limit and policies; refused by INV-03 when the balance is below the limit
-- already. Locks: the balance row.
UPDATE ledger.balance SET overage_limit_units = %(overage_limit_units)s,
    capture_policy = %(capture_policy)s, unknown_policy = %(unknown_policy)s
WHERE account_id = %(account_id)s;

-- name: load_accounts
-- Accounts by id. Index: primary key.
SELECT a.account_id, a.tenant_id, b.overage_limit_units, b.capture_policy, b.unknown_policy
FROM ledger.account a JOIN ledger.balance b USING (account_id)
WHERE a.account_id = ANY(%(account_ids)s);

-- name: load_default_accounts
-- For each tenant the account named like it, or else its earliest: one row of each is read, however
-- many accounts it has. Index: primary key, account_of_tenant.
SELECT tenant_id, account_id FROM (
    SELECT n.tenant_id, coalesce((SELECT a.account_id FROM ledger.account a
        WHERE a.account_id = n.tenant_id AND a.tenant_id = n.tenant_id), (SELECT a.account_id
        FROM ledger.account a WHERE a.tenant_id = n.tenant_id
        ORDER BY a.created_at, a.account_id LIMIT 1)) AS account_id
    FROM unnest(%(tenant_ids)s::text[]) AS n(tenant_id)) AS found
WHERE account_id IS NOT NULL;

-- name: list_tenant_accounts
-- All accounts of a tenant, or of everybody. Index: account_of_tenant.
SELECT a.account_id, a.tenant_id, b.overage_limit_units, b.capture_policy, b.unknown_policy
FROM ledger.account a JOIN ledger.balance b USING (account_id)
WHERE %(tenant_id)s::text = '' OR a.tenant_id = %(tenant_id)s
ORDER BY a.tenant_id, a.account_id LIMIT 10000;

-- name: lock_accounts
-- Lock accounts in id order, so that two transactions never wait for each other in a ring.
-- Locks: the balance rows. Index: primary keys.
SELECT b.account_id, a.tenant_id, b.capture_policy, b.unknown_policy, b.sequence, b.credited,
    b.debited, b.refunded, b.expired, b.held, b.leased, b.overage, b.overage_held,
    b.overage_limit_units, a.asset, a.created_at
FROM ledger.balance b JOIN ledger.account a USING (account_id)
WHERE b.account_id = ANY(%(account_ids)s)
ORDER BY b.account_id FOR UPDATE OF b;

-- name: lock_accounts_of
-- The same, also for accounts that only a hold, lease, charge or run names.
-- Locks: the balance rows. Index: primary keys, unique id of the operation.
WITH wanted AS MATERIALIZED (
    SELECT unnest(%(account_ids)s::text[]) AS account_id
    UNION SELECT o.account_id FROM ledger.operation o
        WHERE o.operation_id = ANY(%(operation_ids)s::uuid[])
    UNION SELECT r.account_id FROM ledger.run_charge r
        JOIN unnest(%(tenant_ids)s::text[], %(run_ids)s::text[]) AS n(tenant_id, run_id)
        USING (tenant_id, run_id))
SELECT b.account_id, a.tenant_id, b.capture_policy, b.unknown_policy, b.sequence, b.credited,
    b.debited, b.refunded, b.expired, b.held, b.leased, b.overage, b.overage_held,
    b.overage_limit_units, a.asset, a.created_at
FROM ledger.balance b JOIN ledger.account a USING (account_id)
WHERE b.account_id = ANY(ARRAY(SELECT account_id FROM wanted))
ORDER BY b.account_id FOR UPDATE OF b;

-- name: load_lots
-- Lots that are not spent, of locked accounts. Index: lot_unspent.
SELECT lot_id::text, account_id, source, priority, expires_at, created_at, granted, consumed,
    held, expired
FROM ledger.lot WHERE account_id = ANY(%(account_ids)s::text[]) AND NOT is_spent;

-- name: load_lots_of
-- The same for accounts that only a hold, lease, charge or run names. Index: lot_unspent.
WITH wanted AS MATERIALIZED (
    SELECT unnest(%(account_ids)s::text[]) AS account_id
    UNION SELECT o.account_id FROM ledger.operation o
        WHERE o.operation_id = ANY(%(operation_ids)s::uuid[])
    UNION SELECT r.account_id FROM ledger.run_charge r
        JOIN unnest(%(tenant_ids)s::text[], %(run_ids)s::text[]) AS n(tenant_id, run_id)
        USING (tenant_id, run_id))
SELECT lot_id::text, account_id, source, priority, expires_at, created_at, granted, consumed,
    held, expired
FROM ledger.lot
WHERE account_id = ANY(ARRAY(SELECT account_id FROM wanted)) AND NOT is_spent;

-- name: load_lots_by_id
-- Lots by id, of locked accounts. Index: primary key.
SELECT lot_id::text, account_id, source, priority, expires_at, created_at, granted, consumed,
    held, expired
FROM ledger.lot WHERE lot_id = ANY(%(lot_ids)s::uuid[]);

-- name: load_known
-- What keys were answered before. Index: inv_04_one_outcome_per_key.
SELECT account_id, sequence, operation_id::text, tenant_id, kind, units, available,
    balance_after, posted_at, outcome, code, decided_by, source, target, moved, shortfall, held,
    leased, overage, overage_held, lot_ids::text[], lot_consumed, lot_held, limit_ids,
    limit_used, limit_held, hold_id::text, epoch, due_at, run_id, refers_to::text, reason,
    details, key_hash::text, digest::text
FROM ledger.operation WHERE key_hash = ANY(%(key_hashes)s::uuid[]);

-- name: load_holds
-- Open holds and leases by id, of locked accounts. Index: primary key.
SELECT hold_id::text, account_id, tenant_id, kind, status, run_id, held, drawn, lot_ids::text[],
    lot_units, overage, limit_ids, limit_units, has_started, epoch, due_at
FROM ledger.hold WHERE hold_id = ANY(%(operation_ids)s::uuid[]);

-- name: load_run_accounts
-- The account that first held or was charged for a run, of the tenant of each account named.
-- Each is looked up alone: as a join, a plan made of old statistics read every run of the tenant.
-- Index: primary keys, operation_of_run.
SELECT a.tenant_id, n.run_id, coalesce((SELECT r.account_id FROM ledger.run_charge r
    WHERE r.tenant_id = a.tenant_id AND r.run_id = n.run_id), (SELECT o.account_id
    FROM ledger.operation o WHERE o.tenant_id = a.tenant_id AND o.run_id = n.run_id
        AND o.run_id <> '' ORDER BY o.posted_at LIMIT 1))
FROM unnest(%(account_ids)s::text[], %(run_ids)s::text[]) AS n(account_id, run_id)
JOIN ledger.account a USING (account_id);

-- name: load_first_accounts
-- The account that first held for each run. Index: operation_of_run.
SELECT n.tenant_id, n.run_id, (SELECT o.account_id FROM ledger.operation o
    WHERE o.tenant_id = n.tenant_id AND o.run_id = n.run_id AND o.run_id <> ''
    ORDER BY o.posted_at LIMIT 1)
FROM unnest(%(tenant_ids)s::text[], %(run_ids)s::text[]) AS n(tenant_id, run_id);

-- name: load_run_holds
-- Open holds of runs, oldest first. Index: hold_of_run.
SELECT h.hold_id::text, h.account_id, h.tenant_id, h.kind, h.status, h.run_id, h.held, h.drawn,
    h.lot_ids::text[], h.lot_units, h.overage, h.limit_ids, h.limit_units, h.has_started,
    h.epoch, h.due_at
FROM unnest(%(tenant_ids)s::text[], %(run_ids)s::text[]) AS n(tenant_id, run_id)
JOIN ledger.hold h USING (tenant_id, run_id)
WHERE h.run_id <> '' ORDER BY h.hold_id;

-- name: load_hold_run_charges
-- Charges of the runs that open holds are for. Index: primary keys.
SELECT h.tenant_id, h.run_id, r.account_id, r.target, r.charged, r.shortfall, r.refunded,
    r.captured, r.has_facts, r.is_stale, r.revision, r.updated_at
FROM ledger.hold h JOIN ledger.run_charge r USING (tenant_id, run_id)
WHERE h.hold_id = ANY(%(operation_ids)s::uuid[]) AND h.run_id <> '';

-- name: lock_limits_named
-- Limits by id, locked in id order after the balances. Locks: the limit rows.
-- Index: primary key.
SELECT limit_id, asset, capacity, used, held, overrun, kind, let_through, rolled, slice_micros,
    slices, rolls_at
FROM ledger.limit_window WHERE limit_id = ANY(%(limit_ids)s::text[])
ORDER BY limit_id FOR UPDATE;

-- name: lock_limits
-- Limits that requests name, or the holds that they name, open or ended; locked in id order
-- after the balances. Locks: the limit rows. Index: primary key, unique id of the operation.
WITH wanted AS MATERIALIZED (
    SELECT unnest(%(limit_ids)s::text[]) AS limit_id
    UNION SELECT unnest(o.limit_ids) FROM ledger.operation o
        WHERE o.operation_id = ANY(%(operation_ids)s::uuid[]))
SELECT limit_id, asset, capacity, used, held, overrun, kind, let_through, rolled, slice_micros,
    slices, rolls_at
FROM ledger.limit_window
WHERE limit_id = ANY(ARRAY(SELECT limit_id FROM wanted))
ORDER BY limit_id FOR UPDATE;

-- name: load_balance
-- Read an account without a lock, with its newest lots. Index: primary keys, lot_of_account.
SELECT b.account_id, a.tenant_id, b.capture_policy, b.unknown_policy, b.sequence, b.credited,
    b.debited, b.refunded, b.expired, b.held, b.leased, b.overage, b.overage_held,
    b.overage_limit_units, a.asset, a.created_at, l.lot_id::text, l.account_id, l.source, l.priority, l.expires_at,
    l.created_at, l.granted, l.consumed, l.held, l.expired
FROM ledger.balance b JOIN ledger.account a USING (account_id)
LEFT JOIN LATERAL (
    (SELECT * FROM ledger.lot WHERE account_id = b.account_id AND NOT is_spent)
    UNION
    (SELECT * FROM ledger.lot WHERE account_id = b.account_id
        ORDER BY created_at DESC LIMIT %(lots_max)s)) l ON true
WHERE b.account_id = %(account_id)s
ORDER BY l.created_at DESC, l.lot_id;

-- name: load_sequences
-- How far accounts are: a number that grows with every change. Index: primary key.
SELECT account_id, sequence FROM ledger.balance WHERE account_id = ANY(%(account_ids)s::text[]);

-- name: insert_lots
-- Append lots by set.
INSERT INTO ledger.lot ({names}) SELECT {values} FROM {rows};

-- name: update_lots
-- Write lots back by set. Locks: rows of accounts that are locked already.
UPDATE ledger.lot AS l SET consumed = n.consumed, held = n.held, expired = n.expired,
    is_spent = n.consumed + n.expired = l.granted
FROM (SELECT {values} FROM {rows}) AS n({names}) WHERE l.lot_id = n.lot_id;

-- name: update_balances
-- Write balances back by set. Locks: held already.
UPDATE ledger.balance AS b
SET sequence = n.sequence, credited = n.credited, debited = n.debited, refunded = n.refunded,
    expired = n.expired, held = n.held, leased = n.leased, overage = n.overage,
    overage_held = n.overage_held
FROM (SELECT {values} FROM {rows}) AS n({names}) WHERE b.account_id = n.account_id;

-- name: insert_holds
-- Append open holds by set.
INSERT INTO ledger.hold ({names}) SELECT {values} FROM {rows};

-- name: update_holds
-- Write open holds back by set. Locks: rows of accounts that are locked already.
UPDATE ledger.hold AS h SET status = n.status, held = n.held, drawn = n.drawn,
    lot_ids = n.lot_ids, lot_units = n.lot_units, overage = n.overage,
    limit_units = n.limit_units, has_started = n.has_started, epoch = n.epoch,
    due_at = n.due_at
FROM (SELECT {values} FROM {rows}) AS n({names}) WHERE h.hold_id = n.hold_id;

-- name: delete_holds
-- Take ended holds out of the open ones; their story is in the operations. Index: primary key.
DELETE FROM ledger.hold WHERE hold_id = ANY(%(hold_ids)s::uuid[]);

-- name: update_limits
-- Write limits back by set. Locks: held already.
UPDATE ledger.limit_window AS l SET used = n.used, held = n.held, overrun = n.overrun,
    let_through = n.let_through, rolled = n.rolled, rolls_at = n.rolls_at
FROM (SELECT {values} FROM {rows}) AS n({names}) WHERE l.limit_id = n.limit_id;

-- name: upsert_limit
-- Make a limit or change its capacity; use beyond a lower one is recorded as overrun.
-- Locks: the limit's row.
INSERT INTO ledger.limit_window AS l (limit_id, asset, capacity, kind, slice_micros, slices)
VALUES (%(limit_id)s, %(asset)s, %(capacity)s, %(kind)s, %(slice_micros)s, %(slices)s)
ON CONFLICT (limit_id) DO UPDATE SET capacity = excluded.capacity, kind = excluded.kind,
    overrun = greatest(l.used + l.held - excluded.capacity, 0)
WHERE l.asset = excluded.asset AND l.slice_micros IS NOT DISTINCT FROM excluded.slice_micros
RETURNING limit_id, asset, capacity, used, held, overrun, kind, let_through;

-- name: load_limits
-- Limits by id. Index: primary key.
SELECT limit_id, asset, capacity, used, held, overrun, kind, let_through
FROM ledger.limit_window WHERE limit_id = ANY(%(limit_ids)s::text[]);

-- name: load_rolling_limits
-- Rolling limits of which a slice has left the window. Index: limit_rolling.
SELECT limit_id FROM ledger.limit_window WHERE rolls_at <= %(now)s
ORDER BY rolls_at LIMIT %(limits_max)s;

-- name: load_slices
-- What was used of rolling limits, slice by slice. Index: primary key.
SELECT limit_id, slice_at, used FROM ledger.limit_slice
WHERE limit_id = ANY(%(limit_ids)s::text[]) ORDER BY limit_id, slice_at;

-- name: delete_slices
-- Forget slices, those that stay are written again. Locks: of the limits, held already.
DELETE FROM ledger.limit_slice WHERE limit_id = ANY(%(limit_ids)s::text[]);

-- name: add_slices
-- Add what was used to slices. Locks: of the limits, held already. Index: primary key.
INSERT INTO ledger.limit_slice AS s ({names}) SELECT {values} FROM {rows}
ON CONFLICT (limit_id, slice_at) DO UPDATE SET used = s.used + excluded.used;

-- name: load_usage
-- What each source has posted to limits. Index: primary key.
SELECT limit_id, source_key, units FROM ledger.limit_usage
WHERE limit_id = ANY(%(limit_ids)s::text[]) AND source_key = ANY(%(source_keys)s::text[]);

-- name: upsert_usage
-- Write what each source has posted. Locks: of the limits, held already. Index: primary key.
INSERT INTO ledger.limit_usage AS u ({names}) SELECT {values} FROM {rows}
ON CONFLICT (limit_id, source_key) DO UPDATE SET units = excluded.units;

-- name: insert_operations
-- Append history by set.
INSERT INTO ledger.operation ({names}) SELECT {values} FROM {rows};

-- name: load_run_charges
-- Charges of runs. Index: primary key.
SELECT r.tenant_id, r.run_id, r.account_id, r.target, r.charged, r.shortfall, r.refunded,
    r.captured, r.has_facts, r.is_stale, r.revision, r.updated_at
FROM unnest(%(tenant_ids)s::text[], %(run_ids)s::text[]) AS n(tenant_id, run_id)
JOIN ledger.run_charge r USING (tenant_id, run_id);

-- name: confirm_run_charges
-- Mark charges that are what facts say already, and tell which: no account is locked, nothing is
-- posted. A row that somebody moves at this moment is left to convergence, so nobody waits; what
-- moves it afterwards sees the mark or is told by upsert_run_charges. Locks: the rows.
-- Index: primary key, hold_of_run.
WITH same AS MATERIALIZED (
    SELECT r.tenant_id, r.run_id, r.shortfall, r.has_facts, r.is_stale
    FROM unnest(%(tenant_ids)s::text[], %(run_ids)s::text[], %(targets)s::bigint[])
        AS n(tenant_id, run_id, target)
    JOIN ledger.run_charge r USING (tenant_id, run_id)
    WHERE r.target = n.target AND r.charged + r.shortfall = n.target AND NOT EXISTS (
        SELECT FROM ledger.hold h WHERE h.tenant_id = n.tenant_id AND h.run_id = n.run_id
            AND h.run_id <> '' AND h.status = 'unknown')
    FOR NO KEY UPDATE OF r SKIP LOCKED
), marked AS (
    UPDATE ledger.run_charge r SET has_facts = true, is_stale = false FROM same s
    WHERE r.tenant_id = s.tenant_id AND r.run_id = s.run_id AND (s.is_stale OR NOT s.has_facts)
)
SELECT tenant_id, run_id, shortfall, has_facts FROM same;

-- name: upsert_run_charges
-- Write the charges of runs by set; a run that another account was charged for meanwhile is
-- left out, and the count of rows says so. Facts that were confirmed since the row was read stay
-- known, and are asked again. Locks: rows of accounts that are locked already.
INSERT INTO ledger.run_charge AS r ({names}) SELECT {values} FROM {rows}
ON CONFLICT (tenant_id, run_id) DO UPDATE SET target = excluded.target,
    charged = excluded.charged, shortfall = excluded.shortfall, refunded = excluded.refunded,
    captured = excluded.captured, has_facts = r.has_facts OR excluded.has_facts,
    is_stale = excluded.is_stale OR (r.has_facts AND NOT excluded.has_facts),
    revision = excluded.revision,
    updated_at = excluded.updated_at
WHERE r.account_id = excluded.account_id;

-- name: load_run_spends
-- What runs took from lots and gave back, oldest first. Index: operation_of_run.
SELECT o.tenant_id, o.run_id, o.lot_ids::text[], o.lot_consumed, o.overage
FROM unnest(%(tenant_ids)s::text[], %(run_ids)s::text[]) AS n(tenant_id, run_id)
JOIN ledger.operation o USING (tenant_id, run_id)
WHERE o.outcome = 'posted' AND o.run_id <> '' AND o.moved > 0
ORDER BY o.account_id, o.sequence;

-- name: load_charges
-- Charges and what they and their refunds moved, the charge first. Index: unique id, refers_to.
SELECT n.id::text, o.account_id, o.tenant_id, o.run_id, o.moved, o.lot_ids::text[],
    o.lot_consumed, o.overage
FROM unnest(%(charge_ids)s::uuid[]) AS n(id) JOIN ledger.operation o ON o.operation_id = n.id
WHERE o.outcome = 'posted' AND o.moved > 0 AND o.source = o.account_id
    AND o.target = '@revenue'
UNION ALL
SELECT * FROM (
    SELECT n.id::text, o.account_id, o.tenant_id, o.run_id, o.moved, o.lot_ids::text[],
        o.lot_consumed, o.overage
    FROM unnest(%(charge_ids)s::uuid[]) AS n(id) JOIN ledger.operation o ON o.refers_to = n.id
    WHERE o.outcome = 'posted' AND o.moved > 0 AND o.target = o.account_id
    ORDER BY o.account_id, o.sequence) refunds;

-- name: load_resolutions
-- How holds began and ended: what was held of limits, extensions too, is what the end gave back.
-- Index: unique id, inv_07 and one_late_settle.
SELECT h.operation_id::text, h.account_id, h.kind, coalesce(e.kind, ''), coalesce(e.operation_id::text, ''),
    coalesce(e.moved, 0), coalesce(e.units, 0), h.run_id, s.hold_id IS NOT NULL,
    coalesce(e.limit_ids, '{}'), coalesce(e.limit_held, '{}'), coalesce(e.limit_used, '{}')
FROM ledger.operation h
LEFT JOIN ledger.operation e ON e.hold_id = h.operation_id AND e.outcome = 'posted'
    AND e.kind IN ('capture', 'release', 'hold_expiry', 'resolve', 'return')
LEFT JOIN ledger.operation s ON s.hold_id = h.operation_id AND s.outcome = 'posted'
    AND s.kind = 'settle'
WHERE h.operation_id = ANY(%(operation_ids)s::uuid[]) AND h.outcome = 'posted'
    AND h.hold_id = h.operation_id;

-- name: load_hold
-- A hold as shown, open or ended. Index: unique id, primary key, inv_07.
SELECT o.hold_id::text, o.account_id, o.kind, coalesce(h.status, e.kind, 'unknown') AS status,
    o.run_id, coalesce(h.held, 0) AS held, coalesce(h.drawn, e.moved, 0) AS drawn,
    coalesce(h.has_started, false) AS has_started, h.due_at, coalesce(h.epoch, 0) AS epoch
FROM ledger.operation o LEFT JOIN ledger.hold h ON h.hold_id = o.operation_id
LEFT JOIN ledger.operation e ON e.hold_id = o.operation_id AND e.outcome = 'posted'
    AND e.kind IN ('capture', 'release', 'hold_expiry', 'resolve', 'return')
WHERE o.operation_id = %(hold_id)s::uuid AND o.hold_id = o.operation_id AND o.outcome = 'posted'
    AND %(tenant_id)s IN ('', o.tenant_id);

-- name: load_hold_story
-- Who a hold is for, what it was made with, and what it holds now; an ended one holds nothing.
-- Index: unique id, primary key.
SELECT o.account_id, o.tenant_id, o.run_id, o.details, o.units, o.available, o.due_at,
    h.held + h.drawn AS total, h.due_at AS due_now
FROM ledger.operation o LEFT JOIN ledger.hold h ON h.hold_id = o.operation_id
WHERE o.operation_id = %(hold_id)s::uuid AND o.hold_id = o.operation_id AND o.outcome = 'posted';

-- name: load_due_holds
-- Holds and leases whose time is over, oldest first. Index: hold_due.
SELECT hold_id::text FROM ledger.hold WHERE due_at <= %(now)s ORDER BY due_at
LIMIT %(holds_max)s;

-- name: load_due_lots
-- Accounts with credit that is over its time. Index: lot_expiring.
SELECT DISTINCT account_id FROM ledger.lot
WHERE NOT is_spent AND expires_at IS NOT NULL AND expires_at <= %(now)s
    AND granted > consumed + held + expired
LIMIT %(accounts_max)s;

-- name: load_hold_gauges
-- Open holds by status, and how long the most overdue one waits for its end. Reads them all.
SELECT kind, status, count(*), sum(held)::bigint,
    greatest(max(%(now)s::bigint - due_at), 0)
FROM ledger.hold GROUP BY kind, status;

-- name: load_stale_runs
-- Runs that were captured for after facts had charged them. Index: run_charge_stale.
SELECT tenant_id, run_id FROM ledger.run_charge
WHERE is_stale AND updated_at <= %(changed_until)s
ORDER BY updated_at LIMIT %(runs_max)s;

-- name: load_entries
-- Entries of an account, newest first. Index: primary key.
-- A charge that found no credit at all moved nothing: it is shown with 0 and its shortfall.
SELECT sequence, operation_id::text AS operation_id, kind,
    CASE WHEN target = account_id THEN moved ELSE -moved END AS units,
    CASE WHEN target = account_id THEN source ELSE target END AS counterpart,
    run_id, reason, shortfall, balance_after, posted_at
FROM ledger.operation
WHERE account_id = %(account_id)s AND sequence < %(before)s AND outcome = 'posted'
    AND (moved > 0 OR shortfall > 0)
ORDER BY sequence DESC LIMIT %(limit)s;

-- name: load_run_operations
-- The ledger's part of a run's story. Index: operation_of_run.
SELECT sequence, operation_id::text AS operation_id, account_id, kind, outcome, units,
    shortfall, reason, posted_at
FROM ledger.operation
WHERE tenant_id = %(tenant_id)s AND run_id = %(run_id)s AND run_id <> ''
ORDER BY posted_at, account_id, sequence LIMIT 1000;

-- name: load_refusal
-- A declined operation; of an extension, with what its hold was for. Index: unique id.
SELECT o.operation_id::text AS operation_id, o.account_id, o.tenant_id, o.kind, o.code,
    o.decided_by, o.units, o.run_id, coalesce(h.details, o.details) AS details, o.posted_at
FROM ledger.operation o
LEFT JOIN ledger.operation h ON o.kind = 'extend' AND h.operation_id = o.hold_id
WHERE o.operation_id = %(operation_id)s::uuid AND o.outcome = 'declined';

-- name: load_run_targets
-- What each run should have been charged by its facts. Reads the whole table.
SELECT tenant_id, run_id, target FROM ledger.run_charge WHERE has_facts AND NOT is_stale;
