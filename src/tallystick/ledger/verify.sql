-- name: INV-01
-- Operations whose transfer has not two sides, one of them the account.
SELECT operation_id::text AS example FROM ledger.operation
WHERE CASE WHEN moved = 0 THEN source <> '' OR target <> ''
    ELSE moved < 0 OR source = target OR account_id NOT IN (source, target) END;

-- name: INV-02
-- Balances that are not the fold of their operations, accounts that are not as last set, and
-- operations whose running balance is not that of the one before plus what they moved.
SELECT account_id AS example
FROM ledger.balance b LEFT JOIN (
    SELECT account_id, max(sequence) AS sequence, count(*) AS operations,
        sum(moved) FILTER (WHERE target = account_id AND source = '@revenue') AS refunded,
        sum(moved) FILTER (WHERE target = '@expired') AS expired,
        sum(moved) FILTER (WHERE target = account_id) AS credited,
        sum(moved) FILTER (WHERE source = account_id) AS debited,
        sum(held) AS held, sum(leased) AS leased, sum(overage) AS overage,
        sum(overage_held) AS overage_held
    FROM ledger.operation GROUP BY account_id) f USING (account_id)
WHERE b.credited <> coalesce(f.credited, 0) OR b.debited <> coalesce(f.debited, 0)
    OR b.held <> coalesce(f.held, 0) OR b.leased <> coalesce(f.leased, 0)
    OR b.overage <> coalesce(f.overage, 0) OR b.overage_held <> coalesce(f.overage_held, 0)
    OR b.refunded <> coalesce(f.refunded, 0) OR b.expired <> coalesce(f.expired, 0)
    OR b.sequence <> coalesce(f.sequence, 0) OR b.sequence <> coalesce(f.operations, 0)
UNION ALL
SELECT 'account ' || account_id
FROM ledger.account a FULL JOIN ledger.balance b USING (account_id)
LEFT JOIN LATERAL (SELECT details FROM ledger.operation o
    WHERE o.account_id = a.account_id AND o.kind = 'settings'
    ORDER BY o.sequence DESC LIMIT 1) o
    ON true
WHERE o.details IS DISTINCT FROM format('{"tenant_id":%s,"asset":%s,"created_at":%s,'
    '"capture_policy":%s,"unknown_policy":%s,"overage_limit_units":%s}', to_json(a.tenant_id),
    to_json(a.asset), a.created_at, to_json(b.capture_policy), to_json(b.unknown_policy),
    coalesce(b.overage_limit_units::text, 'null'))
UNION ALL
SELECT 'operation ' || account_id || '/' || sequence FROM (
    SELECT account_id, sequence, balance_after, available,
        sum(CASE WHEN target = account_id THEN moved ELSE -moved END) OVER w AS balance,
        sum(held + leased) OVER w AS held
    FROM ledger.operation WINDOW w AS (PARTITION BY account_id ORDER BY sequence)) o
WHERE balance_after <> balance OR available <> balance - held;

-- name: INV-03
-- Balances below their limit, windows over their capacity, and windows that are not the fold of
-- their operations and of usage that no operation authorized, without what has rolled off.
SELECT account_id AS example FROM ledger.balance
WHERE credited - debited - held - leased < -overage_limit_units
UNION ALL
SELECT 'limit ' || l.limit_id FROM ledger.limit_window l LEFT JOIN (
    SELECT m.limit_id, sum(m.used) AS used, sum(m.held) AS held FROM ledger.operation o,
        unnest(o.limit_ids, o.limit_used, o.limit_held) AS m(limit_id, used, held)
    GROUP BY m.limit_id) f USING (limit_id)
LEFT JOIN (SELECT limit_id, sum(units) AS units FROM ledger.limit_usage GROUP BY limit_id) u
    USING (limit_id)
LEFT JOIN (SELECT limit_id, sum(used) AS used FROM ledger.limit_slice GROUP BY limit_id) s
    USING (limit_id)
WHERE l.used + l.rolled <> coalesce(f.used, 0) + coalesce(u.units, 0)
    OR l.held <> coalesce(f.held, 0)
    OR (l.slice_micros IS NOT NULL AND l.used <> coalesce(s.used, 0))
    OR l.overrun <> greatest(l.used + l.held - l.capacity, 0);

-- name: INV-05
-- Runs whose operations do not sum to what their charge says.
SELECT coalesce(r.tenant_id || '/' || r.run_id, f.tenant_id || '/' || f.run_id) AS example
FROM ledger.run_charge r FULL JOIN (
    SELECT tenant_id, run_id, min(account_id) AS account_id, max(account_id) AS last_account_id,
        bool_or(moved > 0 OR shortfall > 0) AS has_moved,
        coalesce(sum(moved) FILTER (WHERE kind = 'refund' AND key_hash IS NOT NULL), 0)
            AS refunded,
        sum(CASE WHEN source = account_id THEN moved ELSE -moved END) AS net,
        sum(CASE WHEN code = 'shortfall_forgiven' THEN -units ELSE shortfall END) AS shortfall
    FROM ledger.operation WHERE run_id <> '' AND outcome = 'posted'
    GROUP BY tenant_id, run_id) f USING (tenant_id, run_id)
WHERE r.charged - r.refunded <> coalesce(f.net, 0) OR r.shortfall <> coalesce(f.shortfall, 0)
    OR r.refunded <> coalesce(f.refunded, 0) OR (r.run_id IS NULL AND f.has_moved)
    OR (f.has_moved AND r.account_id NOT IN (f.account_id, f.last_account_id))
UNION ALL
SELECT 'refunds of ' || o.refers_to FROM ledger.operation o
JOIN ledger.operation c ON c.operation_id = o.refers_to
WHERE o.target = o.account_id AND c.run_id = '' GROUP BY o.refers_to, c.moved
HAVING sum(o.moved) > c.moved;

-- name: INV-06
-- Lots that gave more than they were granted, or are not the fold of their operations.
SELECT lot_id::text AS example
FROM ledger.lot l LEFT JOIN (
    SELECT m.lot_id, sum(m.consumed) AS consumed, sum(m.held) AS held,
        sum(CASE WHEN o.kind = 'lot_expiry' THEN o.moved ELSE 0 END) AS expired
    FROM ledger.operation o, unnest(o.lot_ids, o.lot_consumed, o.lot_held)
        AS m(lot_id, consumed, held)
    GROUP BY m.lot_id) f USING (lot_id)
WHERE l.consumed + l.held + l.expired > l.granted OR least(l.consumed, l.held, l.expired) < 0
    OR l.consumed <> coalesce(f.consumed, 0) OR l.held <> coalesce(f.held, 0)
    OR l.expired <> coalesce(f.expired, 0)
UNION ALL
SELECT l.lot_id::text FROM ledger.lot l LEFT JOIN ledger.operation o
    ON o.account_id = l.account_id AND o.posted_at = l.created_at AND o.details = format(
        '{"lot":{"lot_id":"%s","source":"%s","priority":%s,"expires_at":%s,"granted":%s}}',
        l.lot_id, l.source, l.priority, coalesce(l.expires_at::text, 'null'), l.granted)
WHERE o.account_id IS NULL;

-- name: INV-07
-- Holds whose captures and releases are not what was held, or that are open and ended.
SELECT coalesce(f.hold_id, h.hold_id)::text AS example
FROM (SELECT hold_id, sum(held + leased) AS held,
        count(*) FILTER (WHERE outcome = 'posted' AND kind IN
            ('capture', 'release', 'hold_expiry', 'resolve', 'return')) AS ends
    FROM ledger.operation WHERE hold_id IS NOT NULL AND outcome = 'posted' GROUP BY hold_id) f
FULL JOIN ledger.hold h USING (hold_id)
WHERE coalesce(h.held, 0) <> coalesce(f.held, 0) OR coalesce(f.ends, 0) > 1
    OR (h.hold_id IS NULL) <> (coalesce(f.ends, 0) = 1)
    OR h.held <> h.overage + (SELECT coalesce(sum(units), 0) FROM unnest(h.lot_units) AS u(units))
UNION ALL
SELECT h.hold_id::text FROM ledger.hold h JOIN ledger.operation o ON o.operation_id = h.hold_id
LEFT JOIN LATERAL (
    SELECT max(p.epoch) AS epoch,
        (array_agg(p.due_at ORDER BY p.sequence DESC) FILTER (WHERE p.due_at IS NOT NULL))[1]
            AS due_at,
        sum(p.moved) AS moved, sum(p.overage_held) AS overage,
        coalesce(sum(p.units) FILTER (WHERE p.kind = 'report'), 0) AS reported,
        bool_or(p.kind = 'unknown') AS is_unknown,
        bool_or(p.kind IN ('start', 'lease') OR p.code = 'started') AS has_started
    FROM ledger.operation p WHERE p.hold_id = h.hold_id AND p.account_id = h.account_id
        AND p.outcome = 'posted') f ON true
WHERE (h.account_id, h.tenant_id, h.kind, h.run_id)
        <> (o.account_id, o.tenant_id, o.kind, o.run_id)
    OR h.epoch <> f.epoch OR h.due_at <> f.due_at OR h.overage <> f.overage
    OR h.drawn <> CASE WHEN h.kind = 'hold' THEN f.moved ELSE f.reported END
    OR f.has_started <> h.has_started OR (h.status = 'unknown') <> f.is_unknown
    OR EXISTS (SELECT FROM unnest(h.limit_ids, h.limit_units) AS u(limit_id, units)
        FULL JOIN (SELECT m.limit_id, sum(m.held) AS held FROM ledger.operation p,
            unnest(p.limit_ids, p.limit_held) AS m(limit_id, held)
            WHERE p.account_id = h.account_id AND p.hold_id = h.hold_id GROUP BY m.limit_id) m
            USING (limit_id) WHERE u.units IS DISTINCT FROM m.held)
    OR EXISTS (SELECT FROM unnest(h.lot_ids, h.lot_units) AS u(lot_id, units)
        WHERE u.units <> (SELECT coalesce(sum(m.held), 0) FROM ledger.operation p,
            unnest(p.lot_ids, p.lot_held) AS m(lot_id, held)
            WHERE p.account_id = h.account_id AND p.hold_id = h.hold_id
                AND m.lot_id = u.lot_id));

-- name: INV-08
-- Started holds that freed themselves: an expiry although a start was recorded.
SELECT hold_id::text AS example FROM ledger.operation e
WHERE e.kind = 'hold_expiry' AND EXISTS (SELECT FROM ledger.operation s
    WHERE s.hold_id = e.hold_id AND s.account_id = e.account_id
        AND (s.kind IN ('start', 'unknown') OR s.code = 'started'));

-- name: INV-15
-- Accounts whose lots do not add up to their balance.
SELECT b.account_id AS example
FROM ledger.balance b LEFT JOIN (
    SELECT account_id, sum(granted - consumed - held - expired) AS free, sum(held) AS held
    FROM ledger.lot GROUP BY account_id) l USING (account_id)
WHERE b.credited - b.debited - b.held - b.leased
        <> coalesce(l.free, 0) - b.overage - b.overage_held
    OR b.held + b.leased <> coalesce(l.held, 0) + b.overage_held;
