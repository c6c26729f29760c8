-- Alerts: what someone should know, whom to tell, what is yet to be sent, and what was.
CREATE SCHEMA IF NOT EXISTS enforcement;

-- One row for each time that something was wrong: open while it lasts, then cleared for ever.
-- Signals write it in the transaction of who found it; `due_at` wakes the delivery lane.
CREATE TABLE enforcement.alert (
    alert_id     text    PRIMARY KEY DEFAULT 'alr_' || replace(gen_random_uuid()::text, '-', ''),
    tenant_id    text    NOT NULL,
    signal_id    text    NOT NULL,
    kind         text    NOT NULL,
    severity     text    NOT NULL CHECK (severity IN ('info', 'warning', 'critical')), -- the worst
    who          text    NOT NULL,
    what         text    NOT NULL,
    how_much     text    NOT NULL,
    since        bigint  NOT NULL,                 -- micros
    next_step    text    NOT NULL,
    how_to_stop  text    NOT NULL,
    status       text    NOT NULL DEFAULT 'open' CHECK (status IN ('open', 'cleared')),
    opened_at    bigint  NOT NULL,                 -- micros, of the first signal
    last_seen_at bigint  NOT NULL,                 -- micros, of the last signal
    times_seen   bigint  NOT NULL DEFAULT 1,
    cleared_at   bigint,                           -- micros
    due_at       bigint,                           -- micros; when delivery looks again; null: never
    noticed_at   bigint,                           -- micros; when delivery first looked
    step         integer NOT NULL DEFAULT -1,      -- the last step of its route that was taken
    announced_severity text NOT NULL DEFAULT '',   -- what was last said
    announcements integer NOT NULL DEFAULT 0,
    acknowledged_at bigint,                        -- micros
    acknowledged_by text NOT NULL DEFAULT '',
    CHECK ((status = 'cleared') = (cleared_at IS NOT NULL))
) WITH (fillfactor = 70);
CREATE UNIQUE INDEX alert_open ON enforcement.alert (tenant_id, signal_id) WHERE status = 'open';
CREATE INDEX alert_open_signal ON enforcement.alert (signal_id) WHERE status = 'open';
CREATE INDEX alert_due ON enforcement.alert (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX alert_newest ON enforcement.alert (tenant_id, opened_at, alert_id);

-- Quiet, until a time: nothing of the signal is sent, also when it opens again.
CREATE TABLE enforcement.alert_mute (
    tenant_id   text   NOT NULL,
    signal_id   text   NOT NULL,
    muted_until bigint NOT NULL,                   -- micros
    muted_by    text   NOT NULL,
    reason      text   NOT NULL,
    PRIMARY KEY (tenant_id, signal_id)
);

-- Where a tenant is told. The target (a URL may be a credential) and secrets are sealed with a
-- key that the database does not know.
CREATE TABLE enforcement.alert_channel (
    channel_id   text    PRIMARY KEY,
    tenant_id    text    NOT NULL,
    name         text    NOT NULL,
    kind         text    NOT NULL CHECK (kind IN ('webhook', 'email', 'slack')),
    target       bytea   NOT NULL,
    target_shown text    NOT NULL,                 -- what people see of it
    secret       bytea,
    secret_before bytea,                           -- signs as well until secret_before_until
    secret_before_until bigint NOT NULL DEFAULT 0, -- micros
    is_enabled   boolean NOT NULL DEFAULT true,
    disabled_because text NOT NULL DEFAULT '',
    created_at   bigint  NOT NULL,                 -- micros
    created_by   text    NOT NULL,
    deleted_at   bigint                            -- micros; the log of deliveries names it for ever
);
CREATE INDEX alert_channel_of ON enforcement.alert_channel (tenant_id) WHERE deleted_at IS NULL;

-- Whom to tell of what: the first route by position that matches decides.
CREATE TABLE enforcement.alert_route (
    tenant_id    text    NOT NULL,
    route_id     text    NOT NULL,
    position     integer NOT NULL,
    severities   text[]  NOT NULL,                 -- empty: every one
    kinds        text[]  NOT NULL,                 -- empty: every one
    scope        text    NOT NULL,                 -- a part of `who`, such as team=search; '': any
    steps        jsonb   NOT NULL,                 -- [{after_seconds, channels}]
    created_at   bigint  NOT NULL,                 -- micros
    created_by   text    NOT NULL,
    PRIMARY KEY (tenant_id, route_id)
);
CREATE INDEX alert_route_of ON enforcement.alert_route (tenant_id, position, route_id);

-- The outbox: one row for each announcement and channel, made in the transaction that decided it.
-- The message is frozen here, so every try sends the same.
CREATE TABLE enforcement.alert_delivery (
    delivery_id  text    PRIMARY KEY,              -- the receiver's identity of the message
    tenant_id    text    NOT NULL,
    alert_id     text,                             -- null: a test of the channel
    announcement integer NOT NULL,
    channel_id   text    NOT NULL REFERENCES enforcement.alert_channel,
    step         integer NOT NULL,
    reason       text    NOT NULL
        CHECK (reason IN ('opened', 'worse', 'lasting', 'recovered', 'test')),
    message      jsonb   NOT NULL,
    status       text    NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'sent', 'failed')),
    attempts     integer NOT NULL DEFAULT 0,
    due_at       bigint  NOT NULL,                 -- micros
    created_at   bigint  NOT NULL,                 -- micros
    sequence     bigint  GENERATED ALWAYS AS IDENTITY,
    UNIQUE (alert_id, announcement, channel_id)
) WITH (fillfactor = 70);
CREATE INDEX alert_delivery_due ON enforcement.alert_delivery (due_at) WHERE status = 'pending';
CREATE INDEX alert_delivery_pending ON enforcement.alert_delivery (alert_id, channel_id, sequence)
    WHERE status = 'pending';
CREATE INDEX alert_delivery_of_channel ON enforcement.alert_delivery (channel_id, sequence);

-- Every try of a delivery, in order.
CREATE TABLE enforcement.alert_attempt (
    delivery_id text    NOT NULL REFERENCES enforcement.alert_delivery,
    attempt     integer NOT NULL,
    started_at  bigint  NOT NULL,                  -- micros
    latency_ms  integer NOT NULL,
    outcome     text    NOT NULL CHECK (outcome IN ('sent', 'retry', 'failed')),
    answer      integer NOT NULL,                  -- the HTTP status or SMTP code; 0: none
    error       text    NOT NULL,                  -- without secrets
    PRIMARY KEY (delivery_id, attempt)
);
CREATE TRIGGER alert_attempt_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE
    ON enforcement.alert_attempt FOR EACH STATEMENT EXECUTE FUNCTION log.refuse_change();

-- What people did about an alert, in order.
CREATE TABLE enforcement.alert_action (
    action_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id text   NOT NULL,
    alert_id  text   NOT NULL,
    kind      text   NOT NULL CHECK (kind IN ('acknowledge', 'mute', 'unmute')),
    reason    text   NOT NULL,
    until_at  bigint,                              -- micros, of a mute
    acted_at  bigint NOT NULL,                     -- micros
    acted_by  text   NOT NULL
);
CREATE INDEX alert_action_of ON enforcement.alert_action (alert_id, action_id);
CREATE TRIGGER alert_action_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE
    ON enforcement.alert_action FOR EACH STATEMENT EXECUTE FUNCTION log.refuse_change();

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
    GRANT SELECT ON enforcement.alert, enforcement.alert_mute, enforcement.alert_channel,
        enforcement.alert_route, enforcement.alert_delivery, enforcement.alert_attempt,
        enforcement.alert_action TO tallystick_app;
    -- people and tools that only look see no sealed secret
    GRANT SELECT ON enforcement.alert, enforcement.alert_mute, enforcement.alert_route,
        enforcement.alert_delivery, enforcement.alert_attempt, enforcement.alert_action
        TO tallystick_read;
    GRANT INSERT ON enforcement.alert_attempt, enforcement.alert_action TO tallystick_app;
    GRANT INSERT, UPDATE ON enforcement.alert, enforcement.alert_channel,
        enforcement.alert_delivery TO tallystick_app;
    GRANT INSERT, UPDATE, DELETE ON enforcement.alert_mute, enforcement.alert_route
        TO tallystick_app;
EXCEPTION WHEN insufficient_privilege THEN
    RAISE NOTICE 'the roles tallystick_app and tallystick_read could not be made: %', SQLERRM;
END $$;
