-- name: load_limits
-- Limits of a tenant, or all. Reads the (small) table.
SELECT limit_id, tenant_id, kind, name, asset, per_minute, burst, weight
FROM enforcement.rate_limit WHERE (%(tenant_id)s = '' OR tenant_id = %(tenant_id)s)
ORDER BY tenant_id, kind, name, asset;

-- name: put_limit
-- A limit, or its new numbers. Locks: its row. Index: primary key.
INSERT INTO enforcement.rate_limit (limit_id, tenant_id, kind, name, asset, per_minute, burst,
    weight, changed_at, changed_by)
VALUES (%(limit_id)s, %(tenant_id)s, %(kind)s, %(name)s, %(asset)s, %(per_minute)s, %(burst)s,
    %(weight)s, %(now)s, %(by)s)
ON CONFLICT (limit_id) DO UPDATE SET per_minute = excluded.per_minute, burst = excluded.burst,
    weight = excluded.weight, changed_at = excluded.changed_at, changed_by = excluded.changed_by;

-- name: delete_limit
-- A limit goes. Locks: its row. Index: primary key.
DELETE FROM enforcement.rate_limit
WHERE limit_id = %(limit_id)s AND (%(tenant_id)s = '' OR tenant_id = %(tenant_id)s)
RETURNING limit_id;

-- name: lock_bucket
-- The level of a shared bucket as of now, by the database's clock. Locks: its row.
-- Index: primary key.
SELECT level, filled_at FROM enforcement.rate_bucket WHERE bucket_id = %(bucket_id)s FOR UPDATE;

-- name: open_bucket
-- A shared bucket, full. Index: primary key.
INSERT INTO enforcement.rate_bucket (bucket_id, level, filled_at)
VALUES (%(bucket_id)s, %(level)s, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint)
ON CONFLICT (bucket_id) DO NOTHING;

-- name: database_now
-- The database's clock in micros; asked after the bucket is locked.
SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint;

-- name: set_level
-- What is left. Locks: its row, already ours. Index: primary key.
UPDATE enforcement.rate_bucket SET level = %(level)s, filled_at = %(filled_at)s
WHERE bucket_id = %(bucket_id)s;
