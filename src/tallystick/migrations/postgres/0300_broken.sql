-- What people did about broken messages; the messages themselves are facts.
CREATE SCHEMA broken;

-- One row for each broken message that somebody touched; without a row it is open.
-- A fix claims its event id before it appends, so one message never becomes two events.
CREATE TABLE broken.state (
    tenant_id  text   NOT NULL,
    broken_id  text   NOT NULL,
    status     text   NOT NULL CHECK (status IN ('open', 'claimed', 'fixed', 'dismissed')),
    event_id   text   NOT NULL DEFAULT '',   -- of the event that it became, or is to become
    reason     text   NOT NULL DEFAULT '',   -- why it was dismissed
    changed_at bigint NOT NULL,              -- micros
    changed_by text   NOT NULL,
    PRIMARY KEY (tenant_id, broken_id)
);
CREATE INDEX state_by_id ON broken.state (broken_id);

-- Every fix and dismissal, in order.
CREATE TABLE broken.action (
    action_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id text   NOT NULL,
    broken_id text   NOT NULL,
    kind      text   NOT NULL CHECK (kind IN ('fix', 'dismiss')),
    outcome   text   NOT NULL CHECK (outcome IN ('accepted', 'duplicate', 'conflict', 'dismissed')),
    event_id  text   NOT NULL,
    fields    text[] NOT NULL,               -- the names of what was set; values are in the event
    reason    text   NOT NULL,
    acted_at  bigint NOT NULL,               -- micros
    acted_by  text   NOT NULL
);
CREATE INDEX action_by_message ON broken.action (broken_id, action_id);
CREATE TRIGGER action_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON broken.action
    FOR EACH STATEMENT EXECUTE FUNCTION log.refuse_change();

-- The roles of 0900_roles.sql, which a new database makes only after this file.
DO $$
DECLARE role_name text;
BEGIN
    FOREACH role_name IN ARRAY ARRAY['tallystick_app', 'tallystick_read'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role_name) THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN', role_name);
        END IF;
    END LOOP;
    GRANT USAGE ON SCHEMA broken TO tallystick_app, tallystick_read;
    GRANT SELECT ON ALL TABLES IN SCHEMA broken TO tallystick_app, tallystick_read;
    GRANT INSERT ON broken.action TO tallystick_app;
    GRANT INSERT, UPDATE ON broken.state TO tallystick_app;
EXCEPTION WHEN insufficient_privilege THEN
    RAISE NOTICE 'the roles tallystick_app and tallystick_read could not be made: %', SQLERRM;
END $$;
