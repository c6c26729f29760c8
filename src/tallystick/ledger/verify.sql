-- name: INV-01
-- Operations whose legs move nothing, the wrong way, or an account to itself.
SELECT operation_id::text AS example FROM ledger.operation o
WHERE EXISTS (SELECT FROM unnest(o.leg_sources, o.leg_targets, o.leg_units) AS l(s, t, u)
    WHERE l.u <= 0 OR l.s = l.t OR (l.s <> o.account_id AND l.t <> o.account_id));

-- name: INV-02
-- Balances that are not the fold of their entries.
SELECT b.account_id AS example
FROM ledger.balance b LEFT JOIN (
    SELECT o.account_id,
        sum(l.u) FILTER (WHERE l.t = o.account_id) AS credited,
        sum(l.u) FILTER (WHERE l.s = o.account_id) AS debited
    FROM ledger.operation o, unnest(o.leg_sources, o.leg_targets, o.leg_units) AS l(s, t, u)
    GROUP BY o.account_id) f USING (account_id)
WHERE b.credited <> coalesce(f.credited, 0) OR b.debited <> coalesce(f.debited, 0);

-- name: INV-03
-- Balances below their limit.
SELECT account_id AS example FROM ledger.balance
WHERE credited - debited - held - leased < -overage_limit_units;

-- name: INV-05
-- Runs whose operations do not sum to what their charge says.
SELECT r.tenant_id || '/' || r.run_id AS example
FROM ledger.run_charge r LEFT JOIN (
    SELECT o.tenant_id, o.run_id,
        sum(CASE WHEN l.s = o.account_id THEN l.u ELSE -l.u END) AS net
    FROM ledger.operation o, unnest(o.leg_sources, o.leg_targets, o.leg_units) AS l(s, t, u)
    WHERE o.run_id <> '' GROUP BY o.tenant_id, o.run_id) f USING (tenant_id, run_id)
WHERE r.charged - r.refunded <> coalesce(f.net, 0);

-- name: INV-06
-- Lots that gave more than they were granted.
SELECT lot_id::text AS example FROM ledger.lot
WHERE consumed + held + expired > granted OR least(consumed, held, expired) < 0;

-- name: INV-15
-- Accounts whose lots do not add up to their balance.
SELECT b.account_id AS example
FROM ledger.balance b LEFT JOIN (
    SELECT account_id, sum(granted - consumed - held - expired) AS free, sum(held) AS held
    FROM ledger.lot GROUP BY account_id) l USING (account_id)
WHERE b.credited - b.debited - b.held <> coalesce(l.free, 0) - b.overage;
