-- name: insert_records
-- Append records; one row each. (COPY is not for tables with row security.)
INSERT INTO audit.record (at, tenant_id, subject, service_id, cost_center, method, route, target,
    status, decision, code, remote, requests, duration_us)
SELECT * FROM unnest(%(at)s::bigint[], %(tenant_id)s::text[], %(subject)s::text[],
    %(service_id)s::text[], %(cost_center)s::text[], %(method)s::text[], %(route)s::text[],
    %(target)s::text[], %(status)s::smallint[], %(decision)s::text[], %(code)s::text[],
    %(remote)s::text[], %(requests)s::integer[], %(duration_us)s::integer[]);

-- name: search
-- Records of a tenant ('' is every tenant), newest first. Index: record_of_tenant,
-- record_of_subject, or the primary key backwards.
SELECT record_id, at, tenant_id, subject, service_id, cost_center, method, route, target,
    status, decision, code, remote, requests, duration_us
FROM audit.record
WHERE record_id < %(before)s AND at >= %(from_at)s AND at < %(to_at)s
    AND (%(tenant_id)s = '' OR tenant_id = %(tenant_id)s)
    AND (%(subject)s = '' OR subject = %(subject)s)
    AND (%(service_id)s = '' OR service_id = %(service_id)s)
    AND (%(route)s = '' OR route = %(route)s)
    AND (%(decision)s = '' OR decision = %(decision)s)
ORDER BY record_id DESC LIMIT %(limit)s;
