-- name: load_version
-- How often access was changed: tells whether what is remembered is still so. One row.
SELECT version FROM access.change;

-- name: load_by_prefix
-- The credential of a prefix. Index: unique prefix.
SELECT * FROM access.credential WHERE prefix = %(prefix)s;

-- name: load_credential
-- One credential of a tenant ('' is any), with its last use. Index: primary keys.
SELECT c.*, u.used_at FROM access.credential c LEFT JOIN access.credential_use u USING (credential_id)
WHERE c.credential_id = %(credential_id)s AND c.kind = %(kind)s
    AND %(tenant_id)s IN ('', c.tenant_id);

-- name: lock_credential
-- One credential of a tenant, to be changed. Locks: its row. Index: primary key.
SELECT * FROM access.credential WHERE credential_id = %(credential_id)s AND kind = %(kind)s
    AND %(tenant_id)s IN ('', tenant_id) FOR UPDATE;

-- name: list_credentials
-- Credentials of a tenant, newest first, before a cursor. Index: credential_of_tenant.
SELECT c.*, u.used_at FROM access.credential c LEFT JOIN access.credential_use u USING (credential_id)
WHERE c.kind = %(kind)s AND (%(tenant_id)s = '' OR c.tenant_id = %(tenant_id)s)
    AND c.credential_id < %(before)s
ORDER BY c.credential_id DESC LIMIT %(limit)s;

-- name: insert_credential
-- Make a credential.
INSERT INTO access.credential (credential_id, kind, prefix, tenant_id, name, roles, scopes,
    account_id, service_id, cost_center, tier, attribution, models, addresses, hash, old_hash,
    old_until, expires_at, revoked_at, created_at, created_by)
VALUES (%(credential_id)s, %(kind)s, %(prefix)s, %(tenant_id)s, %(name)s, %(roles)s, %(scopes)s,
    %(account_id)s, %(service_id)s, %(cost_center)s, %(tier)s, %(attribution)s, %(models)s,
    %(addresses)s, %(hash)s, %(old_hash)s, %(old_until)s, %(expires_at)s, %(revoked_at)s,
    %(created_at)s, %(created_by)s);

-- name: update_credential
-- Change what a locked credential is given; its kind, prefix and tenant never change.
UPDATE access.credential SET name = %(name)s, roles = %(roles)s, scopes = %(scopes)s,
    account_id = %(account_id)s, service_id = %(service_id)s, cost_center = %(cost_center)s,
    tier = %(tier)s, attribution = %(attribution)s, models = %(models)s,
    addresses = %(addresses)s, hash = %(hash)s, old_hash = %(old_hash)s,
    old_until = %(old_until)s, expires_at = %(expires_at)s, revoked_at = %(revoked_at)s
WHERE credential_id = %(credential_id)s;

-- name: note_uses
-- When credentials were last used. Locks: their rows, in id order.
INSERT INTO access.credential_use AS u (credential_id, used_at)
SELECT * FROM unnest(%(ids)s::text[], %(moments)s::bigint[]) AS n(id, at) ORDER BY id
ON CONFLICT (credential_id) DO UPDATE SET used_at = greatest(u.used_at, excluded.used_at);

-- name: list_providers
-- Identity providers of a tenant, or all. Reads the (small) table.
SELECT * FROM access.identity_provider
WHERE %(tenant_id)s = '' OR tenant_id = %(tenant_id)s ORDER BY provider_id;

-- name: insert_provider
-- Trust an identity provider; another one of this issuer and audience is left alone.
INSERT INTO access.identity_provider (provider_id, tenant_id, issuer, audience, jwks_url, jwks,
    algorithms, tenant_claim, roles_claim, role_map, default_roles, attribution_claims, created_at,
    created_by)
VALUES (%(provider_id)s, %(tenant_id)s, %(issuer)s, %(audience)s, %(jwks_url)s, %(jwks)s,
    %(algorithms)s, %(tenant_claim)s, %(roles_claim)s, %(role_map)s, %(default_roles)s,
    %(attribution_claims)s, %(created_at)s, %(created_by)s)
ON CONFLICT (issuer, audience) DO NOTHING;

-- name: delete_provider
-- Trust an identity provider no more. Index: primary key.
DELETE FROM access.identity_provider
WHERE provider_id = %(provider_id)s AND %(tenant_id)s IN ('', tenant_id);

-- name: list_signing_keys
-- Keys that sign or signed, newest first. Reads the (small) table.
SELECT key_id, public_key, sealed, created_at FROM access.signing_key
ORDER BY created_at DESC, key_id DESC;

-- name: lock_signing_keys
-- One process at a time makes a key. Locks: an advisory lock.
SELECT pg_advisory_xact_lock(7471);

-- name: insert_signing_key
-- Publish a new key.
INSERT INTO access.signing_key (key_id, public_key, sealed, created_at)
VALUES (%(key_id)s, %(public_key)s, %(sealed)s, %(created_at)s);

-- name: delete_signing_keys
-- Forget keys whose last token has ended. Index: primary key.
DELETE FROM access.signing_key WHERE key_id = ANY(%(key_ids)s::text[]);
