-- Rate limits: how many requests and tokens a minute, and what processes have lent of them.
CREATE SCHEMA IF NOT EXISTS enforcement;

CREATE TABLE enforcement.rate_limit (
    limit_id   text    PRIMARY KEY,
    tenant_id  text    NOT NULL,                   -- '': the installation's
    kind       text    NOT NULL CHECK (kind IN ('global', 'tenant', 'tier', 'service', 'key')),
    name       text    NOT NULL,                   -- of the tier, service or key
    asset      text    NOT NULL CHECK (asset IN ('requests', 'tokens')),
    per_minute bigint  NOT NULL CHECK (per_minute BETWEEN 1 AND 1000000000),
    burst      bigint  NOT NULL CHECK (burst BETWEEN 1 AND 1000000000),
    weight     integer NOT NULL CHECK (weight BETWEEN 1 AND 1000),
    changed_at bigint  NOT NULL,                   -- micros
    changed_by text    NOT NULL,
    UNIQUE (tenant_id, kind, name, asset)
);

-- What is left of a limit, where several processes share it. The level is in units times 60
-- million, so that a microsecond of refill is a whole number.
CREATE TABLE enforcement.rate_bucket (
    bucket_id text   PRIMARY KEY,
    level     bigint NOT NULL,
    filled_at bigint NOT NULL                      -- micros, by the database's clock
) WITH (fillfactor = 50);

-- The roles of 0900_roles.sql, which a new database makes only after this file.
DO $$
DECLARE role_name text;
BEGIN
    FOREACH role_name IN ARRAY ARRAY['tallystick_app', 'tallystick_read'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role_name) THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN', role_name);
        END IF;
    END LOOP;
    GRANT USAGE ON SCHEMA enforcement TO tallystick_app, tallystick_read;
    GRANT SELECT ON enforcement.rate_limit, enforcement.rate_bucket
        TO tallystick_app, tallystick_read;
    GRANT INSERT, UPDATE, DELETE ON enforcement.rate_limit, enforcement.rate_bucket
        TO tallystick_app;
EXCEPTION WHEN insufficient_privilege THEN
    RAISE NOTICE 'the roles tallystick_app and tallystick_read could not be made: %', SQLERRM;
END $$;
