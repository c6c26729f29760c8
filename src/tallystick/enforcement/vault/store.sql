-- name: lock_vault
-- No two processes move the vault at once. Locks: one advisory lock until the transaction ends.
SELECT pg_advisory_xact_lock(%(lock)s);

-- name: load_positions
-- Where the vault is, or what else it keeps so, once it is locked. Index: primary key.
SELECT partition, position FROM log.follower WHERE follower = %(follower)s;

-- name: add_scopes
-- Scopes that are new. Index: primary key.
INSERT INTO enforcement.vault_scope (scope_key, tenant_id, org, user_id, project_id, team, product,
    feature, key_id, model, provider, workflow, environment)
SELECT * FROM unnest(%(scope_key)s::uuid[], %(tenant_id)s::text[], %(org)s::text[],
    %(user_id)s::text[], %(project_id)s::text[], %(team)s::text[], %(product)s::text[],
    %(feature)s::text[], %(key_id)s::text[], %(model)s::text[], %(provider)s::text[],
    %(workflow)s::text[], %(environment)s::text[])
ON CONFLICT (scope_key) DO NOTHING;

-- name: add_spend
-- What a step adds. Locks: its rows, in the order of the key. Index: primary key.
INSERT INTO enforcement.vault_spend AS s (scope_key, bucket_at, usd_units, credit_units,
    tokens_input, tokens_output, requests, errors, events)
SELECT n.scope_key, n.bucket_at,
    n.usd_whole::numeric * 1000000000 + n.usd_rest,
    n.credit_whole::numeric * 1000000000 + n.credit_rest,
    n.tokens_input, n.tokens_output, n.requests, n.errors, n.events
FROM unnest(%(scope_key)s::uuid[], %(bucket_at)s::bigint[], %(usd_whole)s::bigint[],
    %(usd_rest)s::bigint[], %(credit_whole)s::bigint[], %(credit_rest)s::bigint[],
    %(tokens_input)s::bigint[], %(tokens_output)s::bigint[], %(requests)s::bigint[],
    %(errors)s::bigint[], %(events)s::bigint[])
    AS n(scope_key, bucket_at, usd_whole, usd_rest, credit_whole, credit_rest, tokens_input,
         tokens_output, requests, errors, events)
ORDER BY n.scope_key, n.bucket_at
ON CONFLICT (scope_key, bucket_at) DO UPDATE SET
    usd_units = s.usd_units + excluded.usd_units,
    credit_units = s.credit_units + excluded.credit_units,
    tokens_input = s.tokens_input + excluded.tokens_input,
    tokens_output = s.tokens_output + excluded.tokens_output,
    requests = s.requests + excluded.requests,
    errors = s.errors + excluded.errors,
    events = s.events + excluded.events;

-- name: load_spent
-- Sums of a scope in a range; {condition} names its columns. Index: vault_scope_of_*, primary key.
SELECT coalesce(sum(usd_units), 0)::numeric, coalesce(sum(credit_units), 0)::numeric,
    coalesce(sum(tokens_input), 0)::numeric, coalesce(sum(tokens_output), 0)::numeric,
    coalesce(sum(requests), 0)::numeric, coalesce(sum(errors), 0)::numeric,
    coalesce(sum(events), 0)::numeric
FROM enforcement.vault_scope JOIN enforcement.vault_spend USING (scope_key)
WHERE tenant_id = %(tenant_id)s AND bucket_at >= %(from_at)s AND bucket_at < %(to_at)s {condition};

-- name: load_days
-- Sums a day, by tenant, user, project and model, for the reconciler. Reads the whole range.
SELECT tenant_id, user_id, project_id, model, bucket_at / 86400000000 AS day,
    sum(usd_units)::numeric AS usd_units, sum(tokens_input)::numeric AS tokens_input,
    sum(tokens_output)::numeric AS tokens_output, sum(requests)::numeric AS requests,
    sum(errors)::numeric AS errors, sum(events)::numeric AS events
FROM enforcement.vault_scope JOIN enforcement.vault_spend USING (scope_key)
WHERE bucket_at >= %(from_at)s AND bucket_at < %(to_at)s
    AND (%(tenant_id)s = '' OR tenant_id = %(tenant_id)s)
GROUP BY tenant_id, user_id, project_id, model, day;

-- name: dump
-- Everything that counts, in one order. Reads both tables.
SELECT tenant_id, org, user_id, project_id, team, product, feature, key_id, model, provider,
    workflow, environment, bucket_at, usd_units::text, credit_units::text, tokens_input,
    tokens_output, requests, errors, events
FROM enforcement.vault_scope JOIN enforcement.vault_spend USING (scope_key)
WHERE (usd_units, credit_units, tokens_input, tokens_output, requests, errors, events)
    <> (0, 0, 0, 0, 0, 0, 0)
ORDER BY scope_key, bucket_at;

-- name: wipe
-- Forget what was counted; who follows begins again. Locks: both tables.
TRUNCATE enforcement.vault_spend, enforcement.vault_scope, enforcement.vault_seen,
    enforcement.vault_run;

-- name: forget_positions
-- Send the vault to the beginning. Locks: its rows. Index: primary key.
DELETE FROM log.follower WHERE follower = %(follower)s;
