-- Who may ask: keys and clients, trusted identity providers, keys that sign our own tokens.
-- Of a key only a keyed hash is stored; of a private key only what the access secret seals.
CREATE SCHEMA access;

-- One row; its version moves with every change, so that every process sees a revocation at once.
CREATE TABLE access.change (
    is_only boolean PRIMARY KEY DEFAULT true CHECK (is_only),
    version bigint  NOT NULL
);
INSERT INTO access.change VALUES (true, 0);

-- API keys (used as they are) and OAuth clients (used to get tokens). Rotation keeps the old
-- hash good until old_until.
CREATE TABLE access.credential (
    credential_id text   PRIMARY KEY,
    kind          text   NOT NULL CHECK (kind IN ('key', 'client')),
    prefix        text   NOT NULL UNIQUE CHECK (prefix ~ '^[a-z0-9]{8}$'),
    tenant_id     text   NOT NULL,                 -- empty: the operator's
    name          text   NOT NULL,
    roles         text[] NOT NULL,
    scopes        text[] NOT NULL,                 -- permissions beside those of the roles
    account_id    text   NOT NULL,
    service_id    text   NOT NULL,
    cost_center   text   NOT NULL,
    tier          text   NOT NULL,
    attribution   jsonb  NOT NULL,
    models        text[] NOT NULL,                 -- empty: all
    addresses     text[] NOT NULL,                 -- CIDR; empty: all
    hash          bytea  NOT NULL CHECK (length(hash) = 32),
    old_hash      bytea  CHECK (length(old_hash) = 32),
    old_until     bigint,                          -- micros
    expires_at    bigint,                          -- micros; NULL never
    revoked_at    bigint,                          -- micros
    created_at    bigint NOT NULL,
    created_by    text   NOT NULL,
    CHECK ((old_hash IS NULL) = (old_until IS NULL))
);
CREATE INDEX credential_of_tenant ON access.credential (kind, tenant_id, created_at);

-- When a credential was last used; apart, because it is no change of what is allowed.
CREATE TABLE access.credential_use (
    credential_id text   PRIMARY KEY,
    used_at       bigint NOT NULL                  -- micros, to within some seconds
) WITH (fillfactor = 50);

-- Identity providers whose tokens are believed, for one tenant or (empty) as a claim says.
CREATE TABLE access.identity_provider (
    provider_id       text   PRIMARY KEY,
    tenant_id         text   NOT NULL,
    issuer            text   NOT NULL,
    audience          text   NOT NULL,
    jwks_url          text   NOT NULL,
    jwks              text   NOT NULL,             -- JSON; empty: fetched from jwks_url
    algorithms        text[] NOT NULL,
    tenant_claim      text   NOT NULL,
    roles_claim       text   NOT NULL,
    role_map          jsonb  NOT NULL,             -- value of the claim -> role
    default_roles     text[] NOT NULL,
    attribution_claims jsonb NOT NULL,             -- dimension -> claim
    created_at        bigint NOT NULL,
    created_by        text   NOT NULL,
    UNIQUE (issuer, audience),
    CHECK (tenant_id <> '' OR tenant_claim <> ''),
    CHECK ((jwks_url = '') <> (jwks = ''))
);

-- Keys that sign our own tokens: the newest signs, the others are still published for a while.
CREATE TABLE access.signing_key (
    key_id     text   PRIMARY KEY,
    public_key text   NOT NULL,                    -- JWK
    sealed     bytea  NOT NULL,                    -- the private JWK under the access secret
    created_at bigint NOT NULL
);

CREATE FUNCTION access.note_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE access.change SET version = version + 1;
    RETURN NULL;
END $$;
CREATE TRIGGER credential_changes AFTER INSERT OR UPDATE OR DELETE ON access.credential
    FOR EACH STATEMENT EXECUTE FUNCTION access.note_change();
CREATE TRIGGER identity_provider_changes AFTER INSERT OR UPDATE OR DELETE
    ON access.identity_provider FOR EACH STATEMENT EXECUTE FUNCTION access.note_change();
CREATE TRIGGER signing_key_changes AFTER INSERT OR UPDATE OR DELETE ON access.signing_key
    FOR EACH STATEMENT EXECUTE FUNCTION access.note_change();
CREATE TRIGGER credential_is_never_deleted BEFORE DELETE OR TRUNCATE ON access.credential
    FOR EACH STATEMENT EXECUTE FUNCTION log.refuse_change();

-- The roles of 0900_roles.sql, which a new database makes only after this file. Hashes and
-- sealed keys are not for people and tools that only look.
DO $$
DECLARE role_name text;
BEGIN
    FOREACH role_name IN ARRAY ARRAY['tallystick_app', 'tallystick_read'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role_name) THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN', role_name);
        END IF;
    END LOOP;
    GRANT USAGE ON SCHEMA access TO tallystick_app, tallystick_read;
    GRANT SELECT ON ALL TABLES IN SCHEMA access TO tallystick_app;
    GRANT SELECT ON access.change, access.credential_use, access.identity_provider
        TO tallystick_read;
    GRANT SELECT (credential_id, kind, prefix, tenant_id, name, roles, scopes, expires_at,
        revoked_at, created_at, created_by) ON access.credential TO tallystick_read;
    GRANT UPDATE ON access.change TO tallystick_app;
    GRANT INSERT, UPDATE ON access.credential, access.credential_use TO tallystick_app;
    GRANT INSERT, UPDATE, DELETE ON access.identity_provider, access.signing_key
        TO tallystick_app;
EXCEPTION WHEN insufficient_privilege THEN
    RAISE NOTICE 'the roles tallystick_app and tallystick_read could not be made: %', SQLERRM;
END $$;
