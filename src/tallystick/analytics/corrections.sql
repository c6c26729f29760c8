-- name: query_current
-- What events count as now: contents whose rows do not cancel out, with how often they count
-- and the first and last place that says so. Index: primary key, by the condition.
SELECT {fields}, toInt64(sum(sign)) AS net,
    CAST(min((log_partition, log_offset)) AS Tuple(UInt16, UInt64)) AS first_place,
    CAST(max((log_partition, log_offset)) AS Tuple(UInt16, UInt64)) AS last_place
FROM tallystick.kept_facts AS f
WHERE {condition}
GROUP BY {columns}
HAVING net > 0
ORDER BY tenant_id, charge_key, f.occurred_at, event_id, first_place;

-- name: query_keys
-- Keys of the next events as they came, in the order of the facts. Index: primary key.
SELECT tenant_id, charge_key, toUnixTimestamp64Micro(f.occurred_at) AS occurred, event_id
FROM tallystick.kept_facts AS f
WHERE correction_id = '' AND {condition}
ORDER BY tenant_id, charge_key, f.occurred_at, event_id
LIMIT {limit};

-- name: count_events
-- How many events a condition means, as they came. Reads few columns.
SELECT count() AS events FROM tallystick.kept_facts AS f WHERE correction_id = '' AND {condition};

-- name: query_rows
-- Rows that one correction made, in order. Index: minmax on log_offset.
SELECT {fields}, sign, log_offset FROM tallystick.kept_facts AS f
WHERE {condition}
ORDER BY log_offset
LIMIT {limit};
