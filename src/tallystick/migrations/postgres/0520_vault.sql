-- The Policy Vault: spend by scope, followed from the usage log without ClickHouse.
CREATE SCHEMA IF NOT EXISTS enforcement;

-- Who and what spend is kept by: one row for each combination that was seen. The key is a digest
-- of the columns, so it is the same in every replay.
CREATE TABLE enforcement.vault_scope (
    scope_key   uuid PRIMARY KEY,
    tenant_id   text NOT NULL,
    org         text NOT NULL,
    user_id     text NOT NULL,
    project_id  text NOT NULL,
    team        text NOT NULL,
    product     text NOT NULL,
    feature     text NOT NULL,
    key_id      text NOT NULL,
    model       text NOT NULL,
    provider    text NOT NULL,
    workflow    text NOT NULL,
    environment text NOT NULL
);
CREATE INDEX vault_scope_of_user ON enforcement.vault_scope (tenant_id, user_id);
CREATE INDEX vault_scope_of_project ON enforcement.vault_scope (tenant_id, project_id);
CREATE INDEX vault_scope_of_team ON enforcement.vault_scope (tenant_id, team);

-- What was spent, a quarter of an hour. Money is numeric: no sum of what may be sent leaves it.
CREATE TABLE enforcement.vault_spend (
    scope_key     uuid    NOT NULL,
    bucket_at     bigint  NOT NULL,            -- micros, when the quarter of an hour begins
    usd_units     numeric(38, 0) NOT NULL,     -- USD/9
    credit_units  numeric(38, 0) NOT NULL,     -- CREDIT/6, as rated
    tokens_input  bigint  NOT NULL,
    tokens_output bigint  NOT NULL,
    requests      bigint  NOT NULL,
    errors        bigint  NOT NULL,
    events        bigint  NOT NULL,
    PRIMARY KEY (scope_key, bucket_at)
) WITH (fillfactor = 70);

-- Identities of what was read from Kafka lately, to rebuild a lost index: a row a chunk.
CREATE TABLE enforcement.vault_seen (
    partition    smallint NOT NULL,
    offset_start bigint   NOT NULL,
    offset_end   bigint   NOT NULL,
    seen_at      bigint   NOT NULL,            -- micros
    identities   bytea    NOT NULL,            -- zstd of msgpack
    PRIMARY KEY (partition, offset_start)
);
ALTER TABLE enforcement.vault_seen ALTER COLUMN identities SET STORAGE EXTERNAL;
CREATE INDEX vault_seen_by_age ON enforcement.vault_seen (seen_at);

-- From where on a limit counts run by run; what came before is one baseline. Not derived: a
-- replay must begin to count where it did. Goes once its window is closed (vault/ended.py).
CREATE TABLE enforcement.vault_watch (
    limit_id   text PRIMARY KEY,
    positions  jsonb  NOT NULL,                -- partition -> first offset that counts by run
    ends_at    bigint,                         -- micros; NULL of a rolling window
    watched_at bigint NOT NULL                 -- micros
);
CREATE INDEX vault_watch_ended ON enforcement.vault_watch (ends_at, limit_id);

-- What each source (a run, or the baseline) used of a limit that is not closed, as its events say.
CREATE TABLE enforcement.vault_run (
    limit_id    text    NOT NULL,
    source_key  text    NOT NULL,              -- run:<tenant>/<run> or baseline
    tenant_id   text    NOT NULL,
    run_id      text    NOT NULL,              -- '' where no hold can be
    spent_units numeric(38, 0) NOT NULL,
    is_due      boolean NOT NULL,              -- not counted yet, or waits for a hold to end
    PRIMARY KEY (limit_id, source_key)
) WITH (fillfactor = 70);
CREATE INDEX vault_run_due ON enforcement.vault_run (limit_id, source_key) WHERE is_due;

-- Spend of users, projects, companies (tenants) and models, for people who look.
CREATE VIEW enforcement.vault_user_spend WITH (security_invoker = true) AS
SELECT tenant_id, user_id, bucket_at, sum(usd_units) AS usd_units, sum(tokens_input) AS tokens_input,
    sum(tokens_output) AS tokens_output, sum(requests) AS requests, sum(errors) AS errors
FROM enforcement.vault_scope JOIN enforcement.vault_spend USING (scope_key)
GROUP BY tenant_id, user_id, bucket_at;
CREATE VIEW enforcement.vault_project_spend WITH (security_invoker = true) AS
SELECT tenant_id, project_id, bucket_at, sum(usd_units) AS usd_units,
    sum(tokens_input) AS tokens_input, sum(tokens_output) AS tokens_output,
    sum(requests) AS requests, sum(errors) AS errors
FROM enforcement.vault_scope JOIN enforcement.vault_spend USING (scope_key)
GROUP BY tenant_id, project_id, bucket_at;
CREATE VIEW enforcement.vault_tenant_spend WITH (security_invoker = true) AS
SELECT tenant_id, bucket_at, sum(usd_units) AS usd_units, sum(tokens_input) AS tokens_input,
    sum(tokens_output) AS tokens_output, sum(requests) AS requests, sum(errors) AS errors
FROM enforcement.vault_scope JOIN enforcement.vault_spend USING (scope_key)
GROUP BY tenant_id, bucket_at;
CREATE VIEW enforcement.vault_model_spend WITH (security_invoker = true) AS
SELECT tenant_id, provider, model, bucket_at, sum(usd_units) AS usd_units,
    sum(tokens_input) AS tokens_input, sum(tokens_output) AS tokens_output,
    sum(requests) AS requests, sum(errors) AS errors
FROM enforcement.vault_scope JOIN enforcement.vault_spend USING (scope_key)
GROUP BY tenant_id, provider, model, bucket_at;

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
    GRANT SELECT ON enforcement.vault_scope, enforcement.vault_spend, enforcement.vault_seen,
        enforcement.vault_watch, enforcement.vault_run, enforcement.vault_user_spend,
        enforcement.vault_project_spend, enforcement.vault_tenant_spend,
        enforcement.vault_model_spend TO tallystick_app, tallystick_read;
    GRANT INSERT, DELETE ON enforcement.vault_watch TO tallystick_app;
    -- derived from the log: a replay begins with nothing
    GRANT INSERT, UPDATE, DELETE, TRUNCATE ON enforcement.vault_scope, enforcement.vault_spend,
        enforcement.vault_seen, enforcement.vault_run TO tallystick_app;
EXCEPTION WHEN insufficient_privilege THEN
    RAISE NOTICE 'the roles tallystick_app and tallystick_read could not be made: %', SQLERRM;
END $$;
