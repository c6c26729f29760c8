-- name: bump_revision
-- Say that what is active has changed; the lock puts changes in order. Locks: the one row.
UPDATE enforcement.mitigation_revision SET revision = revision + 1;

-- name: load_revision
-- Which state of the active mitigations stands. Reads one row.
SELECT revision FROM enforcement.mitigation_revision;

-- name: insert_mitigation
-- A step in force; a key that is known inserts nothing. Index: mitigation_by_key.
INSERT INTO enforcement.mitigation (mitigation_id, tenant_id, scope, step, per_minute,
    downgrade_to, reason, overrun_id, idempotency_key, starts_at, expires_at, created_by)
VALUES (%(mitigation_id)s, %(tenant_id)s, %(scope)s, %(step)s, %(per_minute)s,
    %(downgrade_to)s, %(reason)s, %(overrun_id)s, %(idempotency_key)s, %(starts_at)s,
    %(expires_at)s, %(created_by)s)
ON CONFLICT (tenant_id, idempotency_key) WHERE idempotency_key <> '' DO NOTHING;

-- name: load_mitigation_by_key
-- What was asked for under a key. Index: mitigation_by_key.
SELECT * FROM enforcement.mitigation
WHERE tenant_id = %(tenant_id)s AND idempotency_key = %(idempotency_key)s
  AND idempotency_key <> '';

-- name: load_mitigation
-- One mitigation of a tenant; the operator ('') sees all. Index: primary key.
SELECT * FROM enforcement.mitigation WHERE mitigation_id = %(mitigation_id)s
  AND (%(tenant_id)s = '' OR tenant_id = %(tenant_id)s);

-- name: load_active
-- Every step in force. Index: mitigation_active.
SELECT * FROM enforcement.mitigation WHERE ended_at IS NULL AND expires_at > %(now)s;

-- name: load_of_overrun
-- Every step that answered an overrun. Index: mitigation_by_overrun.
SELECT * FROM enforcement.mitigation WHERE overrun_id = %(overrun_id)s AND overrun_id <> ''
ORDER BY mitigation_id;

-- name: list_mitigations
-- The newest, those in force first. Index: mitigation_newest.
SELECT * FROM enforcement.mitigation
WHERE (%(tenant_id)s = '' OR tenant_id = %(tenant_id)s)
  AND (NOT %(is_active)s OR (ended_at IS NULL AND expires_at > %(now)s))
ORDER BY mitigation_id DESC LIMIT %(limit)s;

-- name: end_mitigation
-- End one that is in force; no row: it had ended. Locks: its row. Index: primary key.
UPDATE enforcement.mitigation SET ended_at = %(now)s
WHERE mitigation_id = %(mitigation_id)s AND ended_at IS NULL RETURNING mitigation_id;

-- name: expire_due
-- End what is over. Locks: those rows. Index: mitigation_active.
UPDATE enforcement.mitigation SET ended_at = expires_at
WHERE ended_at IS NULL AND expires_at <= %(now)s RETURNING *;

-- name: append_event
-- One entry of the audit trail.
INSERT INTO enforcement.mitigation_event (mitigation_id, tenant_id, kind, step, scope, reason,
    acted_at, acted_by)
VALUES (%(mitigation_id)s, %(tenant_id)s, %(kind)s, %(step)s, %(scope)s, %(reason)s,
    %(acted_at)s, %(acted_by)s);

-- name: load_events
-- What happened to one mitigation, in order. Index: mitigation_event_by_mitigation.
SELECT * FROM enforcement.mitigation_event WHERE mitigation_id = %(mitigation_id)s
ORDER BY event_id;

-- name: put_policy
-- The policy of a tenant's scope. Locks: its row. Index: primary key.
INSERT INTO enforcement.mitigation_policy (tenant_id, dimension, value, steps, changed_at,
    changed_by)
VALUES (%(tenant_id)s, %(dimension)s, %(value)s, %(steps)s, %(now)s, %(by)s)
ON CONFLICT (tenant_id, dimension, value) DO UPDATE
SET steps = excluded.steps, changed_at = excluded.changed_at, changed_by = excluded.changed_by;

-- name: load_policies
-- Policies of a tenant; the operator ('') sees all. Index: primary key.
SELECT tenant_id, dimension, value, steps FROM enforcement.mitigation_policy
WHERE %(tenant_id)s = '' OR tenant_id = %(tenant_id)s ORDER BY tenant_id, dimension, value;

-- name: open_overrun
-- Record an episode; nothing when one is open already. Index: overrun_open.
INSERT INTO enforcement.overrun (overrun_id, tenant_id, kind, dimension, value, severity, detector,
    since, seen_at, last_at, observed_units, expected_units, excess_units, detail)
VALUES (%(overrun_id)s, %(tenant_id)s, %(kind)s, %(dimension)s, %(value)s, %(severity)s,
    %(detector)s, %(since)s, %(seen_at)s, %(last_at)s, %(observed_units)s, %(expected_units)s,
    %(excess_units)s, %(detail)s)
ON CONFLICT (tenant_id, kind, dimension, value) WHERE closed_at IS NULL DO NOTHING;

-- name: save_overrun
-- What is known of an episode by now. Locks: its row. Index: primary key.
UPDATE enforcement.overrun SET severity = %(severity)s, detector = %(detector)s,
    last_at = %(last_at)s, closed_at = %(closed_at)s, observed_units = %(observed_units)s,
    expected_units = %(expected_units)s, excess_units = %(excess_units)s, detail = %(detail)s
WHERE overrun_id = %(overrun_id)s;

-- name: load_open_overruns
-- Every open episode. Index: overrun_open.
SELECT * FROM enforcement.overrun WHERE closed_at IS NULL ORDER BY overrun_id;

-- name: load_overrun
-- One episode of a tenant; the operator ('') sees all. Index: primary key.
SELECT * FROM enforcement.overrun WHERE overrun_id = %(overrun_id)s
  AND (%(tenant_id)s = '' OR tenant_id = %(tenant_id)s);

-- name: list_overruns
-- The newest episodes. Index: overrun_newest.
SELECT * FROM enforcement.overrun
WHERE (%(tenant_id)s = '' OR tenant_id = %(tenant_id)s)
  AND (NOT %(is_open)s OR closed_at IS NULL)
ORDER BY overrun_id DESC LIMIT %(limit)s;

-- name: insert_launch
-- A planned launch on file. Index: primary key.
INSERT INTO enforcement.planned_launch (launch_id, tenant_id, dimension, value, from_at, to_at,
    factor, extra_units, reason, created_at, created_by)
VALUES (%(launch_id)s, %(tenant_id)s, %(dimension)s, %(value)s, %(from_at)s, %(to_at)s,
    %(factor)s, %(extra_units)s, %(reason)s, %(created_at)s, %(created_by)s);

-- name: withdraw_launch
-- Take a planned launch back; no row: it is not there. Locks: its row. Index: primary key.
UPDATE enforcement.planned_launch SET withdrawn_at = coalesce(withdrawn_at, %(now)s)
WHERE launch_id = %(launch_id)s AND (%(tenant_id)s = '' OR tenant_id = %(tenant_id)s)
RETURNING *;

-- name: load_launches
-- Launches that are not over at a time. Index: planned_launch_by_end.
SELECT * FROM enforcement.planned_launch
WHERE (%(tenant_id)s = '' OR tenant_id = %(tenant_id)s) AND to_at > %(since)s
  AND withdrawn_at IS NULL
ORDER BY from_at, launch_id LIMIT 1000;
