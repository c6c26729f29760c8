-- name: load_balance_drift
-- Balances that are not the fold of their operations. Reads all operations.
SELECT b.account_id,
    jsonb_build_object('sequence', coalesce(f.sequence, 0), 'credited', coalesce(f.credited, 0),
        'debited', coalesce(f.debited, 0), 'refunded', coalesce(f.refunded, 0),
        'expired', coalesce(f.expired, 0), 'held', coalesce(f.held, 0),
        'leased', coalesce(f.leased, 0), 'overage', coalesce(f.overage, 0),
        'overage_held', coalesce(f.overage_held, 0)) AS expected,
    jsonb_build_object('sequence', b.sequence, 'credited', b.credited, 'debited', b.debited,
        'refunded', b.refunded, 'expired', b.expired, 'held', b.held, 'leased', b.leased,
        'overage', b.overage, 'overage_held', b.overage_held) AS found
FROM ledger.balance b LEFT JOIN (
    SELECT account_id, max(sequence) AS sequence,
        coalesce(sum(moved) FILTER (WHERE target = account_id), 0)::bigint AS credited,
        coalesce(sum(moved) FILTER (WHERE source = account_id), 0)::bigint AS debited,
        coalesce(sum(moved) FILTER (WHERE target = account_id AND source = '@revenue'), 0)::bigint
            AS refunded,
        coalesce(sum(moved) FILTER (WHERE target = '@expired'), 0)::bigint AS expired,
        sum(held)::bigint AS held, sum(leased)::bigint AS leased, sum(overage)::bigint AS overage,
        sum(overage_held)::bigint AS overage_held
    FROM ledger.operation WHERE %(account_id)s::text = '' OR account_id = %(account_id)s
    GROUP BY account_id) f USING (account_id)
WHERE (%(account_id)s::text = '' OR b.account_id = %(account_id)s)
    AND (b.sequence, b.credited, b.debited, b.refunded, b.expired, b.held, b.leased, b.overage,
        b.overage_held) IS DISTINCT FROM (coalesce(f.sequence, 0), coalesce(f.credited, 0),
        coalesce(f.debited, 0), coalesce(f.refunded, 0), coalesce(f.expired, 0),
        coalesce(f.held, 0), coalesce(f.leased, 0), coalesce(f.overage, 0),
        coalesce(f.overage_held, 0));

-- name: load_lot_drift
-- Lots that are not the fold of their operations. Reads all operations.
SELECT l.account_id, l.lot_id::text,
    jsonb_build_object('consumed', coalesce(f.consumed, 0), 'held', coalesce(f.held, 0),
        'expired', coalesce(f.expired, 0)) AS expected,
    jsonb_build_object('consumed', l.consumed, 'held', l.held, 'expired', l.expired) AS found
FROM ledger.lot l LEFT JOIN (
    SELECT m.lot_id, sum(m.consumed)::bigint AS consumed, sum(m.held)::bigint AS held,
        sum(CASE WHEN o.kind = 'lot_expiry' THEN o.moved ELSE 0 END)::bigint AS expired
    FROM ledger.operation o, unnest(o.lot_ids, o.lot_consumed, o.lot_held)
        AS m(lot_id, consumed, held)
    WHERE %(account_id)s::text = '' OR o.account_id = %(account_id)s
    GROUP BY m.lot_id) f USING (lot_id)
WHERE (%(account_id)s::text = '' OR l.account_id = %(account_id)s)
    AND (l.consumed, l.held, l.expired) IS DISTINCT FROM
        (coalesce(f.consumed, 0), coalesce(f.held, 0), coalesce(f.expired, 0));

-- name: load_hold_drift
-- Open holds whose rest is not what their operations leave.
SELECT coalesce(h.account_id, f.account_id), coalesce(h.hold_id, f.hold_id)::text,
    jsonb_build_object('held', coalesce(f.held, 0)) AS expected,
    jsonb_build_object('held', coalesce(h.held, 0)) AS found
FROM (SELECT hold_id, min(account_id) AS account_id, sum(held + leased)::bigint AS held
    FROM ledger.operation WHERE hold_id IS NOT NULL GROUP BY hold_id) f
FULL JOIN ledger.hold h USING (hold_id)
WHERE coalesce(h.held, 0) <> coalesce(f.held, 0);

-- name: load_run_drift
-- Run charges that are not what their operations moved.
SELECT r.account_id, r.tenant_id || '/' || r.run_id,
    jsonb_build_object('charged', coalesce(f.net, 0), 'shortfall', coalesce(f.shortfall, 0))
        AS expected,
    jsonb_build_object('charged', r.charged - r.refunded, 'shortfall', r.shortfall) AS found
FROM ledger.run_charge r LEFT JOIN (
    SELECT tenant_id, run_id,
        sum(CASE WHEN source = account_id THEN moved ELSE -moved END)::bigint AS net,
        sum(CASE WHEN code = 'shortfall_forgiven' THEN -units ELSE shortfall END)::bigint
            AS shortfall
    FROM ledger.operation WHERE run_id <> '' AND outcome = 'posted'
    GROUP BY tenant_id, run_id) f USING (tenant_id, run_id)
WHERE r.charged - r.refunded <> coalesce(f.net, 0) OR r.shortfall <> coalesce(f.shortfall, 0);

-- name: load_first_bad
-- The first operation of an account whose running balance is not that of the one before plus
-- what it moved. Index: primary key.
SELECT sequence FROM (
    SELECT sequence, balance_after, available,
        sum(CASE WHEN target = account_id THEN moved ELSE -moved END) OVER w AS balance,
        sum(held + leased) OVER w AS held
    FROM ledger.operation WHERE account_id = %(account_id)s
    WINDOW w AS (ORDER BY sequence)) o
WHERE balance_after <> balance OR available <> balance - held
ORDER BY sequence LIMIT 1;

-- name: load_last_sequence
-- The last operation of an account. Index: primary key.
SELECT coalesce(max(sequence), 0) FROM ledger.operation WHERE account_id = %(account_id)s;

-- name: repair_balance
-- Set a balance to the fold of its operations. Locks: held already.
UPDATE ledger.balance SET sequence = %(sequence)s, credited = %(credited)s,
    debited = %(debited)s, refunded = %(refunded)s, expired = %(expired)s, held = %(held)s,
    leased = %(leased)s, overage = %(overage)s, overage_held = %(overage_held)s
WHERE account_id = %(account_id)s;

-- name: repair_lot
-- Set a lot to the fold of its operations. Locks: of the account, held already.
UPDATE ledger.lot SET consumed = %(consumed)s, held = %(held)s, expired = %(expired)s,
    is_spent = (%(consumed)s::bigint + %(expired)s::bigint = granted)
WHERE lot_id = %(lot_id)s::uuid;
