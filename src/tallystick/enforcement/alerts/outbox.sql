-- name: lock_due_alerts
-- Alerts that delivery is to look at, with their mutes; who is being written to now is for the
-- next look. Locks: those rows. Index: alert_due, primary key of mutes.
SELECT a.*, coalesce(m.muted_until, 0) AS muted_until
FROM enforcement.alert a
LEFT JOIN enforcement.alert_mute m USING (tenant_id, signal_id)
WHERE a.due_at <= %(now)s
ORDER BY a.due_at, a.alert_id LIMIT %(limit)s FOR UPDATE OF a SKIP LOCKED;

-- name: load_tenant_routes
-- Routes of a tenant in order. Index: alert_route_of.
SELECT severities, kinds, scope, steps FROM enforcement.alert_route
WHERE tenant_id = %(tenant_id)s ORDER BY position, route_id;

-- name: load_tenant_channels
-- Channels of a tenant that may be told. Index: alert_channel_of.
SELECT channel_id FROM enforcement.alert_channel
WHERE tenant_id = %(tenant_id)s AND deleted_at IS NULL AND is_enabled ORDER BY channel_id;

-- name: load_told_channels
-- Channels that were told of an alert. Index: unique key of the outbox.
SELECT DISTINCT channel_id FROM enforcement.alert_delivery WHERE alert_id = %(alert_id)s
ORDER BY channel_id;

-- name: enqueue
-- One announcement for one channel, at most once. Index: unique key of the outbox.
INSERT INTO enforcement.alert_delivery (delivery_id, tenant_id, alert_id, announcement, channel_id,
    step, reason, message, due_at, created_at)
VALUES (%(delivery_id)s, %(tenant_id)s, %(alert_id)s, %(announcement)s, %(channel_id)s, %(step)s,
    %(reason)s, %(message)s, %(now)s, %(now)s)
ON CONFLICT (alert_id, announcement, channel_id) DO NOTHING;

-- name: note_look
-- What delivery decided about an alert. What gets worse is no longer acknowledged.
-- Locks: its row. Index: primary key.
UPDATE enforcement.alert SET
    due_at = %(due_at)s, noticed_at = coalesce(noticed_at, %(now)s), step = %(step)s,
    announced_severity = CASE WHEN %(reason)s = '' THEN announced_severity ELSE severity END,
    announcements = announcements + (%(reason)s <> '')::int,
    acknowledged_at = CASE WHEN %(reason)s = 'worse' THEN NULL ELSE acknowledged_at END,
    acknowledged_by = CASE WHEN %(reason)s = 'worse' THEN '' ELSE acknowledged_by END
WHERE alert_id = %(alert_id)s;

-- name: load_due_deliveries
-- What is to be sent now: of one alert to one channel in order, and few of a channel at a time,
-- so that a slow receiver does not hold up the others. Index: alert_delivery_due,
-- alert_delivery_pending.
SELECT due.delivery_id, due.tenant_id, due.channel_id, due.message, due.attempts,
    c.kind, c.target, c.secret, c.secret_before, c.secret_before_until,
    c.is_enabled AND c.deleted_at IS NULL AS is_enabled
FROM (
    SELECT d.*, row_number() OVER (PARTITION BY d.channel_id ORDER BY d.sequence) AS turn
    FROM (
        SELECT * FROM enforcement.alert_delivery o
        WHERE o.status = 'pending' AND o.due_at <= %(now)s AND NOT EXISTS (
            SELECT 1 FROM enforcement.alert_delivery e
            WHERE e.status = 'pending' AND e.alert_id = o.alert_id
                AND e.channel_id = o.channel_id AND e.sequence < o.sequence)
        ORDER BY o.due_at LIMIT 1000
    ) d
) due JOIN enforcement.alert_channel c USING (channel_id)
WHERE due.turn <= %(per_channel)s ORDER BY due.turn, due.sequence LIMIT %(limit)s;

-- name: record_attempt
-- One try; a try that two processes made is written once. Index: primary key.
INSERT INTO enforcement.alert_attempt (delivery_id, attempt, started_at, latency_ms, outcome,
    answer, error)
VALUES (%(delivery_id)s, %(attempt)s, %(started_at)s, %(latency_ms)s, %(outcome)s, %(answer)s,
    %(error)s)
ON CONFLICT DO NOTHING;

-- name: note_attempt
-- What came of a try. Locks: its row. Index: primary key.
UPDATE enforcement.alert_delivery SET status = %(status)s, attempts = %(attempt)s, due_at = %(due_at)s
WHERE delivery_id = %(delivery_id)s AND status = 'pending';

-- name: disable_channel
-- The receiver said that it is gone. Locks: its row. Index: primary key.
UPDATE enforcement.alert_channel SET is_enabled = false, disabled_because = %(reason)s
WHERE channel_id = %(channel_id)s;
