-- name: query_doubles
-- Events that count more than once, among those of some new facts. Index: minmax on log_offset
-- for the new ones, bloom filter on event ids for where else they are.
SELECT tenant_id, event_id FROM tallystick.kept_facts
WHERE {condition}
GROUP BY tenant_id, event_id HAVING sum(sign) > 1
ORDER BY tenant_id, event_id LIMIT {limit};
