-- name: query_broken
-- Broken messages, newest first. Index: their charge keys are minutes, a range of the primary key.
SELECT tenant_id, event_id AS broken_id, received_at, reject_code, attrs,
    lower(hex(content_digest)) AS digest
FROM tallystick.kept_facts
WHERE event_type = 'data.import.error' AND startsWith(charge_key, 'tallystick:minute:')
  AND {conditions}
ORDER BY received_at DESC, broken_id DESC, tenant_id DESC
LIMIT 1 BY tenant_id, broken_id
LIMIT {{limit:UInt32}};

-- name: query_one
-- One broken message, the newest if several tenants have it. Index: bloom filter over event ids.
SELECT tenant_id, event_id AS broken_id, received_at, reject_code, attrs,
    lower(hex(content_digest)) AS digest
FROM tallystick.kept_facts
WHERE event_id = {id:String} AND event_type = 'data.import.error'
    AND {tenant:String} IN ('', tenant_id)
ORDER BY received_at DESC
LIMIT 1;

-- name: query_repeats
-- How often messages came again. Index: primary key (broken messages have no run).
SELECT tenant_id, event_id AS broken_id, count() AS repeats
FROM tallystick.deliveries
WHERE tenant_id IN {tenants:Array(String)} AND run_id = '' AND event_id IN {ids:Array(String)}
GROUP BY tenant_id, event_id;
