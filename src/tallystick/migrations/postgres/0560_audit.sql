-- The audit trail: who asked for what, when, and what was decided; never any content.
CREATE SCHEMA audit;

CREATE TABLE audit.record (
    record_id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at          bigint  NOT NULL,                     -- micros
    tenant_id   text    NOT NULL,                     -- '': the operator, or nobody known
    subject     text    NOT NULL,                     -- who: admin, key:..., token:..., '' unknown
    service_id  text    NOT NULL,
    cost_center text    NOT NULL,
    method      text    NOT NULL,
    route       text    NOT NULL,                     -- the pattern, such as /v1/holds/{hold_id}
    target      text    NOT NULL,                     -- what the path names
    status      smallint NOT NULL,
    decision    text    NOT NULL CHECK (decision IN ('allowed', 'denied', 'failed')),
    code        text    NOT NULL,                     -- why it was denied or failed
    remote      text    NOT NULL,                     -- the caller's address
    requests    integer NOT NULL CHECK (requests > 0), -- refused without a key: folded by address
    duration_us integer NOT NULL,
    transaction bigint  NOT NULL DEFAULT (pg_current_xact_id()::text::bigint)
);
CREATE INDEX record_of_tenant ON audit.record (tenant_id, record_id);
CREATE INDEX record_of_subject ON audit.record (subject, record_id);
CREATE INDEX record_not_allowed ON audit.record (record_id) WHERE decision <> 'allowed';
CREATE INDEX record_by_time ON audit.record USING brin (at);
CREATE INDEX record_by_transaction ON audit.record (transaction);

CREATE TRIGGER record_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE
    ON audit.record FOR EACH STATEMENT EXECUTE FUNCTION log.refuse_change();

DO $$
DECLARE role_name text;
BEGIN
    FOREACH role_name IN ARRAY ARRAY['tallystick_app', 'tallystick_read'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role_name) THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN', role_name);
        END IF;
    END LOOP;
    GRANT USAGE ON SCHEMA audit TO tallystick_app, tallystick_read;
    GRANT SELECT ON ALL TABLES IN SCHEMA audit TO tallystick_app, tallystick_read;
    GRANT INSERT ON audit.record TO tallystick_app;
EXCEPTION WHEN insufficient_privilege THEN
    RAISE NOTICE 'the roles tallystick_app and tallystick_read could not be made: %', SQLERRM;
END $$;
