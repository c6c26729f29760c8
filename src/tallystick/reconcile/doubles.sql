-- name: query_doubles
-- Events that count more than once, among those of some new facts. Index: minmax on log_offset for
-- the new ones, primary key for their runs. Of more than a few event ids alone the bloom filter
-- excludes nothing: that reads the ids of all facts.
SELECT tenant_id, event_id, groupUniqArray(charge_key) AS charge_keys FROM tallystick.kept_facts
WHERE {condition}
GROUP BY tenant_id, event_id HAVING sum(sign) > 1
ORDER BY tenant_id, event_id LIMIT {limit};
