-- Keys of providers, sealed: who has the database without TALLYSTICK_ACCESS_KEY cannot use them.
CREATE SCHEMA IF NOT EXISTS gateway;

-- One key for each upstream, and one of a tenant's own before it. A new key replaces the old one.
CREATE TABLE gateway.provider_key (
    tenant_id text   NOT NULL,                    -- '': for every tenant without its own
    upstream  text   NOT NULL,                    -- as the gateway's settings name it
    sealed    bytea  NOT NULL,                    -- AES-256-GCM, bound to tenant and upstream
    last_four text   NOT NULL,                    -- so that people know which it is
    set_at    bigint NOT NULL,                    -- micros
    set_by    text   NOT NULL,
    PRIMARY KEY (tenant_id, upstream)
);

-- One row that grows with each change: every gateway polls it. The row's lock puts changes in order.
CREATE TABLE gateway.provider_key_revision (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    revision bigint  NOT NULL
);
INSERT INTO gateway.provider_key_revision (revision) VALUES (0);

-- The roles of 0900_roles.sql, which a new database makes only after this file. Reports read no keys.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'tallystick_app') THEN
        CREATE ROLE tallystick_app NOLOGIN;
    END IF;
    GRANT USAGE ON SCHEMA gateway TO tallystick_app;
    GRANT SELECT, INSERT, UPDATE, DELETE ON gateway.provider_key TO tallystick_app;
    GRANT SELECT, UPDATE ON gateway.provider_key_revision TO tallystick_app;
EXCEPTION WHEN insufficient_privilege THEN
    RAISE NOTICE 'the role tallystick_app could not be made: %', SQLERRM;
END $$;
