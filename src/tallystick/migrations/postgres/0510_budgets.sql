-- Budgets: who may spend how much in which window. What was spent is counted by the ledger, in
-- its limit windows, which learn here to be soft, to roll, and to count usage that no hold knew.
CREATE SCHEMA IF NOT EXISTS enforcement;

-- hard declines; soft and shadow let work through and count how often they would have declined.
-- A rolling limit keeps what was used by slice of time; a slice that left the window is moved
-- from `used` to `rolled`.
ALTER TABLE ledger.limit_window
    ADD COLUMN kind         text   NOT NULL DEFAULT 'hard' CHECK (kind IN ('hard', 'soft', 'shadow')),
    ADD COLUMN let_through  bigint NOT NULL DEFAULT 0,
    ADD COLUMN rolled       bigint NOT NULL DEFAULT 0,
    ADD COLUMN slice_micros bigint CHECK (slice_micros > 0),
    ADD COLUMN slices       integer CHECK (slices > 0),
    ADD COLUMN rolls_at     bigint;                       -- when the next slice leaves
CREATE INDEX limit_rolling ON ledger.limit_window (rolls_at) WHERE rolls_at IS NOT NULL;

-- What is in a rolling window, by the slice of time in which it was posted.
CREATE TABLE ledger.limit_slice (
    limit_id text   NOT NULL,
    slice_at bigint NOT NULL,                             -- begin, micros
    used     bigint NOT NULL,
    PRIMARY KEY (limit_id, slice_at)
);

-- Usage that never passed an authorization: what each source has posted to a limit so far.
CREATE TABLE ledger.limit_usage (
    limit_id   text   NOT NULL,
    source_key text   NOT NULL CHECK (length(source_key) BETWEEN 1 AND 256),
    units      bigint NOT NULL CHECK (units >= 0),
    PRIMARY KEY (limit_id, source_key)
) WITH (fillfactor = 80);

-- A budget as it is now. `content` has all that a person sets.
CREATE TABLE enforcement.budget (
    tenant_id  text    NOT NULL,
    budget_id  text    NOT NULL CHECK (budget_id ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$'),
    revision   integer NOT NULL CHECK (revision > 0),
    status     text    NOT NULL CHECK (status IN ('active', 'paused', 'deleted')),
    content    jsonb   NOT NULL,
    edit       bigint  NOT NULL,                          -- the count of edits when it was set
    created_at bigint  NOT NULL,
    changed_at bigint  NOT NULL,
    changed_by text    NOT NULL,
    PRIMARY KEY (tenant_id, budget_id)
);
CREATE INDEX budget_by_edit ON enforcement.budget (edit);

-- Every revision of a budget: what was set when and by whom.
CREATE TABLE enforcement.budget_revision (
    tenant_id  text    NOT NULL,
    budget_id  text    NOT NULL,
    revision   integer NOT NULL,
    status     text    NOT NULL,
    content    jsonb   NOT NULL,
    changed_at bigint  NOT NULL,
    changed_by text    NOT NULL,
    PRIMARY KEY (tenant_id, budget_id, revision)
);
CREATE TRIGGER budget_revision_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE
    ON enforcement.budget_revision FOR EACH STATEMENT EXECUTE FUNCTION log.refuse_change();

-- One row that every edit moves on, so that a process knows when to read budgets again. A
-- sequence would not do: its numbers can become visible out of order.
CREATE TABLE enforcement.budget_edits (
    is_one boolean PRIMARY KEY DEFAULT true CHECK (is_one),
    edits  bigint  NOT NULL
);
INSERT INTO enforcement.budget_edits (edits) VALUES (0);

-- The windows of budgets that somebody worked in; the ledger counts under the same id.
CREATE TABLE enforcement.budget_window (
    limit_id  text   PRIMARY KEY,
    tenant_id text   NOT NULL,
    budget_id text   NOT NULL,
    each      jsonb  NOT NULL,                            -- the values that "*" stands for here
    start_at  bigint NOT NULL,                            -- micros; 0 of a rolling window
    end_at    bigint,                                     -- NULL of a rolling window
    carried   bigint NOT NULL CHECK (carried >= 0)        -- left over from the window before
);
CREATE INDEX window_of_budget ON enforcement.budget_window (tenant_id, budget_id, end_at);
CREATE INDEX window_under_way ON enforcement.budget_window (end_at);

-- Thresholds that were crossed, once a window; `cleared_at` once it is over or no longer so.
CREATE TABLE enforcement.budget_crossing (
    limit_id   text    NOT NULL,
    at         numeric NOT NULL,                          -- share of the amount
    total      bigint  NOT NULL,                          -- amount and carry-over at that time
    crossed_at bigint  NOT NULL,
    cleared_at bigint,
    PRIMARY KEY (limit_id, at)
);
CREATE INDEX crossing_uncleared ON enforcement.budget_crossing (limit_id)
    WHERE cleared_at IS NULL;

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
    GRANT SELECT ON ledger.limit_slice, ledger.limit_usage, enforcement.budget,
        enforcement.budget_revision, enforcement.budget_edits, enforcement.budget_window,
        enforcement.budget_crossing TO tallystick_app, tallystick_read;
    GRANT INSERT ON enforcement.budget_revision TO tallystick_app;
    GRANT INSERT, UPDATE ON ledger.limit_usage, enforcement.budget, enforcement.budget_window,
        enforcement.budget_crossing TO tallystick_app;
    GRANT UPDATE ON enforcement.budget_edits TO tallystick_app;
    GRANT INSERT, UPDATE, DELETE ON ledger.limit_slice TO tallystick_app;
EXCEPTION WHEN insufficient_privilege THEN
    RAISE NOTICE 'the roles tallystick_app and tallystick_read could not be made: %', SQLERRM;
END $$;
