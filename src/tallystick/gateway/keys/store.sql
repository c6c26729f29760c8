-- name: load_revision
-- Grows with each change of a key. Reads one row.
SELECT revision FROM gateway.provider_key_revision;

-- name: grow_revision
-- A key changes: first of its transaction, so that changes are in order. Locks: the one row.
UPDATE gateway.provider_key_revision SET revision = revision + 1;

-- name: load_sealed
-- Every key, sealed. Reads the (small) table.
SELECT tenant_id, upstream, sealed FROM gateway.provider_key;

-- name: load_keys
-- What may be told of keys: of one tenant, or of all. Reads the (small) table.
SELECT tenant_id, upstream, last_four, set_at, set_by FROM gateway.provider_key
WHERE %(is_everyones)s OR tenant_id = %(tenant_id)s
ORDER BY tenant_id, upstream;

-- name: put_key
-- A key, in place of the one before. Locks: its row. Index: primary key.
INSERT INTO gateway.provider_key (tenant_id, upstream, sealed, last_four, set_at, set_by)
VALUES (%(tenant_id)s, %(upstream)s, %(sealed)s, %(last_four)s, %(set_at)s, %(set_by)s)
ON CONFLICT (tenant_id, upstream) DO UPDATE SET sealed = excluded.sealed,
    last_four = excluded.last_four, set_at = excluded.set_at, set_by = excluded.set_by;

-- name: delete_key
-- A key goes. Locks: its row. Index: primary key.
DELETE FROM gateway.provider_key WHERE tenant_id = %(tenant_id)s AND upstream = %(upstream)s
RETURNING upstream;
