-- name: page_alerts
-- Alerts of a tenant (or of all), newest first. Index: alert_newest.
SELECT a.*, coalesce(m.muted_until, 0) AS muted_until, coalesce(m.muted_by, '') AS muted_by,
    coalesce(m.reason, '') AS muted_because
FROM enforcement.alert a LEFT JOIN enforcement.alert_mute m USING (tenant_id, signal_id)
WHERE (%(tenant_id)s = '' OR a.tenant_id = %(tenant_id)s)
    AND (%(status)s = '' OR a.status = %(status)s)
    AND (%(kind)s = '' OR a.kind = %(kind)s)
    AND (%(severity)s = '' OR a.severity = %(severity)s)
    AND (%(before_at)s::bigint IS NULL OR (a.opened_at, a.alert_id) < (%(before_at)s, %(before_id)s))
ORDER BY a.opened_at DESC, a.alert_id DESC LIMIT %(limit)s;

-- name: load_alert
-- One alert with its mute. Index: primary keys.
SELECT a.*, coalesce(m.muted_until, 0) AS muted_until, coalesce(m.muted_by, '') AS muted_by,
    coalesce(m.reason, '') AS muted_because
FROM enforcement.alert a LEFT JOIN enforcement.alert_mute m USING (tenant_id, signal_id)
WHERE a.alert_id = %(alert_id)s AND (%(tenant_id)s = '' OR a.tenant_id = %(tenant_id)s);

-- name: acknowledge
-- Someone takes care: no further steps until it gets worse. Locks: its row. Index: primary key.
UPDATE enforcement.alert SET acknowledged_at = %(now)s, acknowledged_by = %(by)s
WHERE alert_id = %(alert_id)s AND acknowledged_at IS NULL AND status = 'open' RETURNING alert_id;

-- name: put_mute
-- Quiet a signal until a time. Locks: its row. Index: primary key.
INSERT INTO enforcement.alert_mute (tenant_id, signal_id, muted_until, muted_by, reason)
VALUES (%(tenant_id)s, %(signal_id)s, %(until_at)s, %(by)s, %(reason)s)
ON CONFLICT (tenant_id, signal_id) DO UPDATE
SET muted_until = excluded.muted_until, muted_by = excluded.muted_by, reason = excluded.reason;

-- name: remove_mute
-- Let a signal be heard again. Locks: its row. Index: primary key.
DELETE FROM enforcement.alert_mute WHERE tenant_id = %(tenant_id)s AND signal_id = %(signal_id)s;

-- name: wake
-- Delivery looks at an open alert at once. Locks: its row. Index: primary key.
UPDATE enforcement.alert SET due_at = 0 WHERE alert_id = %(alert_id)s AND status = 'open';

-- name: record_action
-- What someone did about an alert.
INSERT INTO enforcement.alert_action (tenant_id, alert_id, kind, reason, until_at, acted_at, acted_by)
VALUES (%(tenant_id)s, %(alert_id)s, %(kind)s, %(reason)s, %(until_at)s, %(now)s, %(by)s);

-- name: load_actions
-- What people did about an alert, in order. Index: alert_action_of.
SELECT kind, reason, until_at, acted_at, acted_by FROM enforcement.alert_action
WHERE alert_id = %(alert_id)s ORDER BY action_id;

-- name: load_deliveries
-- Deliveries of an alert, or the newest of a channel. Index: unique key of the outbox, or
-- alert_delivery_of_channel.
SELECT d.delivery_id, d.channel_id, c.name AS channel, c.kind, d.reason, d.step, d.status,
    d.attempts, d.due_at, d.created_at
FROM enforcement.alert_delivery d JOIN enforcement.alert_channel c USING (channel_id)
WHERE d.alert_id = %(alert_id)s OR d.channel_id = %(channel_id)s
ORDER BY d.sequence DESC LIMIT 500;

-- name: load_attempts
-- Tries of deliveries, in order. Index: primary key.
SELECT delivery_id, attempt, started_at, latency_ms, outcome, answer, error
FROM enforcement.alert_attempt WHERE delivery_id = ANY(%(delivery_ids)s)
ORDER BY delivery_id, attempt;

-- name: insert_channel
-- A new channel; one whose id is known inserts nothing. Index: primary key.
INSERT INTO enforcement.alert_channel (channel_id, tenant_id, name, kind, target, target_shown,
    secret, created_at, created_by)
VALUES (%(channel_id)s, %(tenant_id)s, %(name)s, %(kind)s, %(target)s, %(target_shown)s,
    %(secret)s, %(now)s, %(by)s)
ON CONFLICT (channel_id) DO NOTHING RETURNING channel_id;

-- name: load_channels
-- Channels of a tenant (or of all), or one of them. Reads the (small) table, or its primary key.
SELECT channel_id, tenant_id, name, kind, target_shown, is_enabled, disabled_because,
    secret_before_until, created_at, created_by
FROM enforcement.alert_channel
WHERE deleted_at IS NULL AND (%(tenant_id)s = '' OR tenant_id = %(tenant_id)s)
    AND (%(channel_id)s = '' OR channel_id = %(channel_id)s)
ORDER BY tenant_id, channel_id;

-- name: update_channel
-- Change what is given of a channel. Locks: its row. Index: primary key.
UPDATE enforcement.alert_channel SET
    name = coalesce(%(name)s, name), target = coalesce(%(target)s, target),
    target_shown = coalesce(%(target_shown)s, target_shown),
    is_enabled = coalesce(%(is_enabled)s, is_enabled),
    disabled_because = CASE WHEN %(is_enabled)s IS TRUE THEN '' ELSE disabled_because END
WHERE channel_id = %(channel_id)s AND deleted_at IS NULL;

-- name: rotate_secret
-- A new signing secret; the one before signs as well until a time. Locks: its row.
UPDATE enforcement.alert_channel SET secret_before = secret, secret = %(secret)s,
    secret_before_until = %(until_at)s
WHERE channel_id = %(channel_id)s AND deleted_at IS NULL;

-- name: delete_channel
-- A channel is told nothing more; its secrets go. Locks: its row. Index: primary key.
UPDATE enforcement.alert_channel SET deleted_at = %(now)s, is_enabled = false, target = '',
    secret = NULL, secret_before = NULL
WHERE channel_id = %(channel_id)s AND deleted_at IS NULL;

-- name: insert_route
-- A route, or its replacement. Locks: its row. Index: primary key.
INSERT INTO enforcement.alert_route (route_id, tenant_id, position, severities, kinds, scope, steps,
    created_at, created_by)
VALUES (%(route_id)s, %(tenant_id)s, %(position)s, %(severities)s, %(kinds)s, %(scope)s, %(steps)s,
    %(now)s, %(by)s)
ON CONFLICT (tenant_id, route_id) DO UPDATE SET position = excluded.position,
    severities = excluded.severities, kinds = excluded.kinds, scope = excluded.scope,
    steps = excluded.steps, created_at = excluded.created_at, created_by = excluded.created_by;

-- name: load_routes
-- Routes of a tenant (or of all) in order. Index: alert_route_of.
SELECT route_id, tenant_id, position, severities, kinds, scope, steps, created_at, created_by
FROM enforcement.alert_route WHERE (%(tenant_id)s = '' OR tenant_id = %(tenant_id)s)
ORDER BY tenant_id, position, route_id;

-- name: delete_route
-- A route goes. Locks: its row. Index: primary key.
DELETE FROM enforcement.alert_route
WHERE tenant_id = %(tenant_id)s AND route_id = %(route_id)s RETURNING route_id;

-- name: enqueue_test
-- A test message for a channel.
INSERT INTO enforcement.alert_delivery (delivery_id, tenant_id, alert_id, announcement, channel_id,
    step, reason, message, due_at, created_at)
VALUES (%(delivery_id)s, %(tenant_id)s, NULL, 0, %(channel_id)s, 0, 'test', %(message)s, %(now)s,
    %(now)s);
