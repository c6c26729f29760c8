-- name: insert_account
-- Make an account. Index: primary key.
INSERT INTO ledger.account (account_id, tenant_id, capture_policy, created_at)
VALUES (%(account_id)s, %(tenant_id)s, %(capture_policy)s, %(now)s)
ON CONFLICT (account_id) DO NOTHING;

-- name: insert_balance
-- Make its balance row. Index: primary key.
INSERT INTO ledger.balance (account_id, overage_limit_units)
VALUES (%(account_id)s, %(overage_limit_units)s)
ON CONFLICT (account_id) DO NOTHING;

-- name: update_policy
-- Change how captures above a hold are treated. Locks: the account's row.
UPDATE ledger.account SET capture_policy = %(capture_policy)s WHERE account_id = %(account_id)s;

-- name: update_limit
-- Change the overage limit; refused by INV-03 when the balance is below it already.
-- Locks: the balance row.
UPDATE ledger.balance SET overage_limit_units = %(overage_limit_units)s
WHERE account_id = %(account_id)s;

-- name: load_accounts
-- Accounts by id. Index: primary key.
SELECT a.account_id, a.tenant_id, b.overage_limit_units, a.capture_policy
FROM ledger.account a JOIN ledger.balance b USING (account_id)
WHERE a.account_id = ANY(%(account_ids)s);

-- name: load_default_accounts
-- For each tenant the account named like it, or else its earliest. Index: account_of_tenant.
SELECT DISTINCT ON (tenant_id) tenant_id, account_id
FROM ledger.account WHERE tenant_id = ANY(%(tenant_ids)s)
ORDER BY tenant_id, (account_id = tenant_id) DESC, created_at, account_id;

-- name: list_tenant_accounts
-- All accounts of a tenant, or of everybody. Index: account_of_tenant.
SELECT a.account_id, a.tenant_id, b.overage_limit_units, a.capture_policy
FROM ledger.account a JOIN ledger.balance b USING (account_id)
WHERE %(tenant_id)s::text = '' OR a.tenant_id = %(tenant_id)s
ORDER BY a.tenant_id, a.account_id LIMIT 10000;

-- name: lock_balances
-- Lock accounts in id order, so that two transactions never wait for each other in a ring.
SELECT account_id, credited, debited, held, leased, overage, overage_limit_units
FROM ledger.balance WHERE account_id = ANY(%(account_ids)s)
ORDER BY account_id FOR UPDATE;

-- name: load_balances
-- Read a balance without a lock. Index: primary key.
SELECT account_id, credited, debited, held, leased, overage, overage_limit_units
FROM ledger.balance WHERE account_id = ANY(%(account_ids)s);

-- name: load_open_lots
-- Lots with credit left, of locked accounts. Index: lot_with_credit.
SELECT lot_id, account_id, source, priority, expires_at, created_at, granted, consumed, held,
    expired
FROM ledger.lot
WHERE account_id = ANY(%(account_ids)s) AND granted > consumed + held + expired;

-- name: load_lots
-- Lots by id, of locked accounts. Index: primary key.
SELECT lot_id, account_id, source, priority, expires_at, created_at, granted, consumed, held,
    expired
FROM ledger.lot WHERE lot_id = ANY(%(lot_ids)s);

-- name: load_all_lots
-- Every lot of an account, newest first. Index: lot_of_account.
SELECT lot_id, account_id, source, priority, expires_at, created_at, granted, consumed, held,
    expired
FROM ledger.lot WHERE account_id = %(account_id)s ORDER BY created_at DESC, lot_id;

-- name: insert_lot
-- Append a lot.
INSERT INTO ledger.lot (lot_id, account_id, source, priority, expires_at, created_at, granted,
    consumed)
VALUES (%(lot_id)s, %(account_id)s, %(source)s, %(priority)s, %(expires_at)s, %(created_at)s,
    %(granted)s, %(consumed)s);

-- name: update_lots
-- Write lots back by set. Locks: rows of accounts that are locked already.
UPDATE ledger.lot AS l SET consumed = n.consumed, held = n.held, expired = n.expired
FROM unnest(%(lot_ids)s::uuid[], %(consumed)s::bigint[], %(held)s::bigint[],
    %(expired)s::bigint[]) AS n(lot_id, consumed, held, expired)
WHERE l.lot_id = n.lot_id;

-- name: update_balances
-- Write balances back by set. Locks: held already.
UPDATE ledger.balance AS b
SET credited = n.credited, debited = n.debited, overage = n.overage
FROM unnest(%(account_ids)s::text[], %(credited)s::bigint[], %(debited)s::bigint[],
    %(overage)s::bigint[]) AS n(account_id, credited, debited, overage)
WHERE b.account_id = n.account_id;

-- name: copy_operations
-- Append operations.
COPY ledger.operation (operation_id, account_id, tenant_id, kind, outcome, units, shortfall,
    run_id, refers_to, reason, leg_sources, leg_targets, leg_units, lot_ids, lot_units,
    overage_units, balance_after, posted_at) FROM STDIN;

-- name: load_request_key
-- The original outcome of a key. Index: primary key.
SELECT digest, outcome FROM ledger.request_key
WHERE account_id = %(account_id)s AND idempotency_key = %(idempotency_key)s;

-- name: insert_request_key
-- Remember an outcome. Index: primary key.
INSERT INTO ledger.request_key (account_id, idempotency_key, digest, outcome)
VALUES (%(account_id)s, %(idempotency_key)s, %(digest)s, %(outcome)s);

-- name: load_run_charges
-- Charges of runs. Index: primary key.
SELECT r.tenant_id, r.run_id, r.account_id, r.target, r.charged, r.shortfall, r.refunded,
    r.revision, r.updated_at
FROM unnest(%(tenant_ids)s::text[], %(run_ids)s::text[]) AS n(tenant_id, run_id)
JOIN ledger.run_charge r USING (tenant_id, run_id);

-- name: upsert_run_charges
-- Write the charges of runs by set. Locks: rows of accounts that are locked already.
INSERT INTO ledger.run_charge AS r
    (tenant_id, run_id, account_id, target, charged, shortfall, refunded, revision, updated_at)
SELECT * FROM unnest(%(tenant_ids)s::text[], %(run_ids)s::text[], %(account_ids)s::text[],
    %(targets)s::bigint[], %(charged)s::bigint[], %(shortfalls)s::bigint[],
    %(refunded)s::bigint[], %(revisions)s::integer[], %(updated_at)s::bigint[])
ON CONFLICT (tenant_id, run_id) DO UPDATE SET target = excluded.target,
    charged = excluded.charged, shortfall = excluded.shortfall, refunded = excluded.refunded,
    revision = excluded.revision, updated_at = excluded.updated_at;

-- name: load_run_spends
-- What runs took from lots and gave back, oldest first. Index: operation_of_run.
SELECT o.tenant_id, o.run_id, o.lot_ids, o.lot_units, o.overage_units
FROM unnest(%(tenant_ids)s::text[], %(run_ids)s::text[]) AS n(tenant_id, run_id)
JOIN ledger.operation o USING (tenant_id, run_id)
WHERE o.outcome = 'posted' AND o.run_id <> ''
ORDER BY o.sequence;

-- name: load_charge
-- One charge and what it and its refunds moved, oldest first. Index: unique id, account.
SELECT operation_id, account_id, tenant_id, kind, units, run_id, lot_ids, lot_units,
    overage_units
FROM ledger.operation
WHERE outcome = 'posted' AND (operation_id = %(charge_id)s
    OR (account_id = %(account_id)s AND refers_to = %(charge_id)s AND kind = 'refund'))
ORDER BY sequence;

-- name: find_charge
-- Which account and run a charge belongs to. Index: unique id.
SELECT account_id, tenant_id, kind, outcome, run_id FROM ledger.operation
WHERE operation_id = %(charge_id)s;

-- name: load_entries
-- Entries of an account, newest first. Index: operation_of_account.
-- A charge that found no credit at all moved nothing: it is shown with 0 and its shortfall.
SELECT o.sequence, o.operation_id::text AS operation_id, o.kind,
    coalesce(CASE WHEN leg.target = o.account_id THEN leg.units ELSE -leg.units END, 0) AS units,
    coalesce(CASE WHEN leg.target = o.account_id THEN leg.source ELSE leg.target END, '')
        AS counterpart,
    o.run_id, o.reason, o.shortfall, o.balance_after, o.posted_at
FROM ledger.operation o LEFT JOIN LATERAL
    unnest(o.leg_sources, o.leg_targets, o.leg_units) AS leg(source, target, units) ON true
WHERE o.account_id = %(account_id)s AND o.sequence < %(before)s AND o.outcome = 'posted'
ORDER BY o.sequence DESC LIMIT %(limit)s;

-- name: load_run_operations
-- The ledger's part of a run's story. Index: operation_of_run.
SELECT sequence, operation_id::text AS operation_id, account_id, kind, outcome, units,
    shortfall, reason, posted_at
FROM ledger.operation
WHERE tenant_id = %(tenant_id)s AND run_id = %(run_id)s AND run_id <> ''
ORDER BY sequence LIMIT 1000;

-- name: load_run_targets
-- What each run should have been charged. Reads the whole table.
SELECT tenant_id, run_id, target FROM ledger.run_charge;
