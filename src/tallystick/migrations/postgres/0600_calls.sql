-- Calls: budgets of runs, and what became of calls that nobody settled.
CREATE SCHEMA calls;

-- A limit over a root run and all runs below it; the counting is the ledger's limit window.
CREATE TABLE calls.run_budget (
    tenant_id  text   NOT NULL CHECK (length(tenant_id) BETWEEN 1 AND 128),
    run_id     text   NOT NULL CHECK (length(run_id) BETWEEN 1 AND 128),
    limit_id   text   NOT NULL UNIQUE,
    asset      text   NOT NULL CHECK (asset IN ('CREDIT/6', 'USD/9')),
    amount     bigint NOT NULL CHECK (amount >= 0),
    changed_at bigint NOT NULL,
    PRIMARY KEY (tenant_id, run_id)
);
CREATE INDEX run_budget_changed ON calls.run_budget (changed_at);

-- Calls whose process died before anything was known of them, and what policy said.
CREATE TABLE calls.judged (
    hold_id   uuid   PRIMARY KEY,
    tenant_id text   NOT NULL,
    run_id    text   NOT NULL,
    verdict   text   NOT NULL CHECK (verdict IN ('found', 'captured', 'released')),
    event_id  text   NOT NULL,
    judged_at bigint NOT NULL
);
CREATE TRIGGER judged_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE
    ON calls.judged FOR EACH STATEMENT EXECUTE FUNCTION log.refuse_change();

-- Holds that ran out and were settled without their caller: few, so the index is small.
CREATE INDEX operation_resolved ON ledger.operation (posted_at) WHERE kind = 'resolve';

-- The roles of 0900_roles.sql, which a new database makes only after this file.
DO $$
DECLARE role_name text;
BEGIN
    FOREACH role_name IN ARRAY ARRAY['tallystick_app', 'tallystick_read'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role_name) THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN', role_name);
        END IF;
    END LOOP;
    GRANT USAGE ON SCHEMA calls TO tallystick_app, tallystick_read;
    GRANT SELECT ON ALL TABLES IN SCHEMA calls TO tallystick_app, tallystick_read;
    GRANT INSERT, UPDATE ON calls.run_budget TO tallystick_app;
    GRANT INSERT ON calls.judged TO tallystick_app;
EXCEPTION WHEN insufficient_privilege THEN
    RAISE NOTICE 'the roles tallystick_app and tallystick_read could not be made: %', SQLERRM;
END $$;
