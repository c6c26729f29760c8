-- name: raise_signal
-- Open an alert, or say of the open one that it lasts; a higher severity wakes delivery at once,
-- a lower one does not take back what was said. Locks: that row. Index: alert_open.
INSERT INTO enforcement.alert (tenant_id, signal_id, kind, severity, who, what, how_much, since,
    next_step, how_to_stop, opened_at, last_seen_at, due_at)
VALUES (%(tenant_id)s, %(signal_id)s, %(kind)s, %(severity)s, %(who)s, %(what)s, %(how_much)s,
    %(since)s, %(next_step)s, %(how_to_stop)s, %(at)s, %(at)s, 0)
ON CONFLICT (tenant_id, signal_id) WHERE status = 'open' DO UPDATE
SET last_seen_at = greatest(enforcement.alert.last_seen_at, excluded.last_seen_at),
    times_seen = enforcement.alert.times_seen + 1,
    what = excluded.what, how_much = excluded.how_much,
    since = least(enforcement.alert.since, excluded.since),
    next_step = excluded.next_step, how_to_stop = excluded.how_to_stop,
    severity = CASE WHEN array_position(ARRAY['info', 'warning', 'critical'], excluded.severity)
        > array_position(ARRAY['info', 'warning', 'critical'], enforcement.alert.severity)
        THEN excluded.severity ELSE enforcement.alert.severity END,
    due_at = CASE WHEN array_position(ARRAY['info', 'warning', 'critical'], excluded.severity)
        > array_position(ARRAY['info', 'warning', 'critical'], enforcement.alert.severity)
        THEN 0 ELSE enforcement.alert.due_at END;

-- name: clear_signal
-- The signal is over: delivery tells whom it told. Without an open alert nothing happens.
-- Locks: the open rows of the signal. Index: alert_open_signal.
UPDATE enforcement.alert SET status = 'cleared', cleared_at = greatest(%(at)s, opened_at), due_at = 0
WHERE signal_id = %(signal_id)s AND status = 'open'
    AND (%(tenant_id)s = '' OR tenant_id = %(tenant_id)s);
