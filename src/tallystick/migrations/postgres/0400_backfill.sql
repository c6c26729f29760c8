-- Backfills: what is to be rated again, how far it is, and what came of it.
CREATE SCHEMA backfill;

CREATE TABLE backfill.backfill (
    backfill_id     text     PRIMARY KEY,
    idempotency_key text     NOT NULL UNIQUE,
    kind            text     NOT NULL CHECK (kind IN ('rating', 'revert')),
    reverts         text     NOT NULL DEFAULT '' CHECK ((reverts <> '') = (kind = 'revert')),
    reason          text     NOT NULL CHECK (reason <> ''),
    from_at         bigint   NOT NULL,              -- micros, of occurred_at
    to_at           bigint   NOT NULL CHECK (to_at > from_at),
    tenant_ids      text[]   NOT NULL,              -- empty: every one
    models          text[]   NOT NULL,              -- empty: every one
    rate_card_version integer NOT NULL,             -- 0: what is in force
    is_dry_run      boolean  NOT NULL,
    events_per_second_max integer NOT NULL CHECK (events_per_second_max > 0),
    created_at      bigint   NOT NULL,              -- micros; rates are those known then
    created_by      text     NOT NULL,
    status          text     NOT NULL
        CHECK (status IN ('planned', 'running', 'paused', 'done', 'failed', 'reverted')),
    ends            jsonb    NOT NULL DEFAULT '{}', -- log partition -> offset: facts below are meant
    cursor          jsonb    NOT NULL DEFAULT '[]', -- the last key that was examined
    pieces          integer  NOT NULL DEFAULT 0,
    expected        bigint,                         -- events in all; counted by the first piece
    examined        bigint   NOT NULL DEFAULT 0,
    corrected       bigint   NOT NULL DEFAULT 0,
    skipped         bigint   NOT NULL DEFAULT 0,    -- of a revert: corrected otherwise since
    changed_at      bigint   NOT NULL,              -- micros
    failure         text     NOT NULL DEFAULT ''
) WITH (fillfactor = 70);
CREATE INDEX backfill_open ON backfill.backfill (created_at) WHERE status IN ('planned', 'running');
CREATE UNIQUE INDEX one_revert_at_a_time ON backfill.backfill (reverts)
    WHERE reverts <> '' AND status NOT IN ('failed', 'reverted');

-- What a piece of a backfill found, by tenant and model: before and after.
CREATE TABLE backfill.report_line (
    backfill_id text    NOT NULL REFERENCES backfill.backfill,
    piece       integer NOT NULL,
    tenant_id   text    NOT NULL,
    model       text    NOT NULL,
    events      bigint  NOT NULL,
    corrected   bigint  NOT NULL,
    cost_units_before   bigint NOT NULL,            -- USD/9
    cost_units_after    bigint NOT NULL,
    credit_units_before bigint NOT NULL,            -- CREDIT/6, rated
    credit_units_after  bigint NOT NULL,
    PRIMARY KEY (backfill_id, piece, tenant_id, model)
);
CREATE TRIGGER report_line_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE
    ON backfill.report_line FOR EACH STATEMENT EXECUTE FUNCTION log.refuse_change();

-- Which runs a piece corrected, and by how much.
CREATE TABLE backfill.report_run (
    backfill_id text    NOT NULL REFERENCES backfill.backfill,
    piece       integer NOT NULL,
    tenant_id   text    NOT NULL,
    charge_key  text    NOT NULL,
    corrected   bigint  NOT NULL,
    cost_units   bigint NOT NULL,                   -- after minus before
    credit_units bigint NOT NULL,
    PRIMARY KEY (backfill_id, piece, tenant_id, charge_key)
);
CREATE TRIGGER report_run_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE
    ON backfill.report_run FOR EACH STATEMENT EXECUTE FUNCTION log.refuse_change();

-- The roles of 0900_roles.sql, which a new database makes only after this file.
DO $$
DECLARE role_name text;
BEGIN
    FOREACH role_name IN ARRAY ARRAY['tallystick_app', 'tallystick_read'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role_name) THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN', role_name);
        END IF;
    END LOOP;
    GRANT USAGE ON SCHEMA backfill TO tallystick_app, tallystick_read;
    GRANT SELECT ON ALL TABLES IN SCHEMA backfill TO tallystick_app, tallystick_read;
    GRANT INSERT ON backfill.report_line, backfill.report_run TO tallystick_app;
    GRANT INSERT, UPDATE ON backfill.backfill TO tallystick_app;
EXCEPTION WHEN insufficient_privilege THEN
    RAISE NOTICE 'the roles tallystick_app and tallystick_read could not be made: %', SQLERRM;
END $$;
