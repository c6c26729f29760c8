-- Overruns that were seen, what was done against them, and what was planned.
CREATE SCHEMA IF NOT EXISTS enforcement;

-- One row for each time that something ran away; open until it has recovered.
CREATE TABLE enforcement.overrun (
    overrun_id     text   PRIMARY KEY,
    tenant_id      text   NOT NULL,
    kind           text   NOT NULL CHECK (kind IN ('burn_rate', 'outlier', 'error_storm', 'retry_storm')),
    dimension      text   NOT NULL,
    value          text   NOT NULL,
    severity       text   NOT NULL CHECK (severity IN ('info', 'warning', 'critical')),
    detector       text   NOT NULL,               -- which window or ratio, such as burn 5m
    since          bigint NOT NULL,               -- micros, event time
    seen_at        bigint NOT NULL,               -- micros, event time of the detection
    last_at        bigint NOT NULL,               -- micros, event time when it was last seen
    closed_at      bigint,                        -- micros, event time; NULL: open
    observed_units bigint NOT NULL,               -- USD/9, or a count for storms
    expected_units bigint NOT NULL,
    excess_units   bigint NOT NULL,               -- USD/9 above what was expected, until last_at
    detail         text   NOT NULL
);
CREATE UNIQUE INDEX overrun_open ON enforcement.overrun (tenant_id, kind, dimension, value)
    WHERE closed_at IS NULL;
CREATE INDEX overrun_newest ON enforcement.overrun (tenant_id, overrun_id DESC);

-- Which step follows on which overrun, by tenant and scope; without a row only alerts.
CREATE TABLE enforcement.mitigation_policy (
    tenant_id  text   NOT NULL,
    dimension  text   NOT NULL DEFAULT '',        -- '': any
    value      text   NOT NULL DEFAULT '',        -- '': any
    steps      jsonb  NOT NULL,
    changed_at bigint NOT NULL,                   -- micros
    changed_by text   NOT NULL,
    PRIMARY KEY (tenant_id, dimension, value)
);

-- What is or was done. Rows change only by an undo or by expiry.
CREATE TABLE enforcement.mitigation (
    mitigation_id   text   PRIMARY KEY,
    tenant_id       text   NOT NULL,              -- '': every tenant
    scope           jsonb  NOT NULL,              -- dimension -> value; {}: all of the tenant's work
    step            text   NOT NULL CHECK (step IN ('throttle', 'downgrade', 'block', 'kill')),
    per_minute      integer NOT NULL DEFAULT 0,   -- throttle: asks a minute that pass, per process
    downgrade_to    text   NOT NULL DEFAULT '',   -- downgrade: the model that may be called
    reason          text   NOT NULL,
    overrun_id      text   NOT NULL DEFAULT '',   -- what it answers; '': made by hand
    idempotency_key text   NOT NULL DEFAULT '',
    starts_at       bigint NOT NULL,              -- micros
    expires_at      bigint NOT NULL,              -- micros
    ended_at        bigint,                       -- micros; NULL: active
    created_by      text   NOT NULL
);
CREATE INDEX mitigation_active ON enforcement.mitigation (expires_at) WHERE ended_at IS NULL;
CREATE INDEX mitigation_by_overrun ON enforcement.mitigation (overrun_id) WHERE overrun_id <> '';
CREATE INDEX mitigation_newest ON enforcement.mitigation (tenant_id, mitigation_id DESC);
CREATE UNIQUE INDEX mitigation_by_key ON enforcement.mitigation (tenant_id, idempotency_key)
    WHERE idempotency_key <> '';

-- Every step, undo and expiry, in order: the audit trail.
CREATE TABLE enforcement.mitigation_event (
    event_id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    mitigation_id text   NOT NULL,
    tenant_id     text   NOT NULL,
    kind          text   NOT NULL CHECK (kind IN ('applied', 'undone', 'expired')),
    step          text   NOT NULL,
    scope         jsonb  NOT NULL,
    reason        text   NOT NULL,
    acted_at      bigint NOT NULL,                -- micros
    acted_by      text   NOT NULL
);
CREATE INDEX mitigation_event_by_mitigation ON enforcement.mitigation_event (mitigation_id, event_id);
CREATE TRIGGER mitigation_event_is_append_only
    BEFORE UPDATE OR DELETE OR TRUNCATE ON enforcement.mitigation_event
    FOR EACH STATEMENT EXECUTE FUNCTION log.refuse_change();

-- One row that grows with each change of what is active: every process polls it. A counter and
-- not the events' identity: those commit out of order, and the row's lock puts them in order.
CREATE TABLE enforcement.mitigation_revision (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    revision bigint  NOT NULL
);
INSERT INTO enforcement.mitigation_revision (revision) VALUES (0);

-- What was said to be coming, so that it is no surprise.
CREATE TABLE enforcement.planned_launch (
    launch_id    text    PRIMARY KEY,
    tenant_id    text    NOT NULL,
    dimension    text    NOT NULL,
    value        text    NOT NULL,
    from_at      bigint  NOT NULL,                -- micros
    to_at        bigint  NOT NULL,                -- micros
    factor       numeric NOT NULL,                -- times the usual usage; 1: none
    extra_units  bigint  NOT NULL,                -- USD/9 on top, spread evenly over the launch
    reason       text    NOT NULL,
    created_at   bigint  NOT NULL,                -- micros
    created_by   text    NOT NULL,
    withdrawn_at bigint
);
CREATE INDEX planned_launch_by_end ON enforcement.planned_launch (tenant_id, to_at);

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
    GRANT SELECT ON enforcement.overrun, enforcement.mitigation_policy, enforcement.mitigation,
        enforcement.mitigation_event, enforcement.mitigation_revision, enforcement.planned_launch
        TO tallystick_app, tallystick_read;
    GRANT INSERT ON enforcement.mitigation_event TO tallystick_app;
    GRANT UPDATE ON enforcement.mitigation_revision TO tallystick_app;
    GRANT INSERT, UPDATE ON enforcement.overrun, enforcement.mitigation, enforcement.planned_launch
        TO tallystick_app;
    GRANT INSERT, UPDATE, DELETE ON enforcement.mitigation_policy TO tallystick_app;
EXCEPTION WHEN insufficient_privilege THEN
    RAISE NOTICE 'the roles tallystick_app and tallystick_read could not be made: %', SQLERRM;
END $$;
