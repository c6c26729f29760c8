-- name: load_states
-- What people did about some messages. Index: state_by_id.
SELECT tenant_id, broken_id, status, event_id, reason, changed_at, changed_by
FROM broken.state WHERE broken_id = ANY(%(ids)s);

-- name: load_actions
-- Every action on one message, in order. Index: action_by_message.
SELECT kind, outcome, event_id, fields, reason, acted_at, acted_by
FROM broken.action WHERE broken_id = %(broken_id)s AND tenant_id = %(tenant_id)s
ORDER BY action_id;

-- name: claim
-- Bind messages to the event ids that they are to become; those bound otherwise are left out.
-- Locks the rows in order of their key. Index: primary key.
INSERT INTO broken.state AS known
    (tenant_id, broken_id, status, event_id, changed_at, changed_by)
SELECT wanted.tenant_id, wanted.broken_id, 'claimed', wanted.event_id, %(now)s, %(by)s
FROM unnest(%(tenants)s::text[], %(ids)s::text[], %(event_ids)s::text[])
    AS wanted (tenant_id, broken_id, event_id)
ORDER BY wanted.tenant_id, wanted.broken_id
ON CONFLICT (tenant_id, broken_id) DO UPDATE
SET status = CASE known.status WHEN 'fixed' THEN 'fixed' ELSE 'claimed' END,
    event_id = excluded.event_id, reason = ''
WHERE known.event_id IN ('', excluded.event_id)
RETURNING tenant_id, broken_id;

-- name: settle
-- Say how claimed messages ended: fixed, or open again after a conflict. Index: primary key.
UPDATE broken.state AS known
SET status = ended.status, changed_at = %(now)s, changed_by = %(by)s,
    event_id = CASE ended.status WHEN 'fixed' THEN known.event_id ELSE '' END
FROM unnest(%(tenants)s::text[], %(ids)s::text[], %(statuses)s::text[])
    AS ended (tenant_id, broken_id, status)
WHERE known.tenant_id = ended.tenant_id AND known.broken_id = ended.broken_id
  AND known.status = 'claimed';

-- name: dismiss
-- Dismiss a message that is neither fixed nor being fixed. Index: primary key.
INSERT INTO broken.state AS known
    (tenant_id, broken_id, status, reason, changed_at, changed_by)
VALUES (%(tenant_id)s, %(broken_id)s, 'dismissed', %(reason)s, %(now)s, %(by)s)
ON CONFLICT (tenant_id, broken_id) DO UPDATE
SET status = 'dismissed', reason = excluded.reason, changed_at = excluded.changed_at,
    changed_by = excluded.changed_by
WHERE known.status IN ('open', 'dismissed')
RETURNING broken_id;

-- name: append_actions
-- Record what was done. Only appends.
INSERT INTO broken.action
    (tenant_id, broken_id, kind, outcome, event_id, fields, reason, acted_at, acted_by)
SELECT done.tenant_id, done.broken_id, %(kind)s, done.outcome, done.event_id, %(fields)s,
    %(reason)s, %(now)s, %(by)s
FROM unnest(%(tenants)s::text[], %(ids)s::text[], %(outcomes)s::text[], %(event_ids)s::text[])
    AS done (tenant_id, broken_id, outcome, event_id);
