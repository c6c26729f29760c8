-- The usage log: compressed batches of events with dense offsets, and where each follower is.
CREATE SCHEMA log;

-- One row a partition. Its row lock orders appends: offsets are dense and become visible in
-- order, so a follower that has read up to n has read everything below n.
CREATE TABLE log.head (
    partition   smallint PRIMARY KEY,
    next_offset bigint   NOT NULL DEFAULT 0 CHECK (next_offset >= 0)
) WITH (fillfactor = 50);
INSERT INTO log.head (partition) VALUES (0), (32767);  -- usage, and corrections of facts

CREATE TABLE log.batch (
    partition    smallint    NOT NULL,
    offset_start bigint      NOT NULL,
    event_count  integer     NOT NULL CHECK (event_count > 0),
    received_at  bigint      NOT NULL,   -- micros, of the earliest event in the batch
    payload      bytea       NOT NULL,   -- zstd of msgpack, see tallystick.plumbing.log
    PRIMARY KEY (partition, offset_start)
);
-- Payloads are compressed already: keep PostgreSQL from trying again.
ALTER TABLE log.batch ALTER COLUMN payload SET STORAGE EXTERNAL;

CREATE FUNCTION log.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'history is append-only: % on %.% is refused',
        TG_OP, TG_TABLE_SCHEMA, TG_TABLE_NAME USING ERRCODE = 'integrity_constraint_violation';
END $$;
CREATE TRIGGER batch_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON log.batch
    FOR EACH STATEMENT EXECUTE FUNCTION log.refuse_change();

CREATE TABLE log.follower (
    follower    text     NOT NULL,
    partition   smallint NOT NULL,
    position    bigint   NOT NULL CHECK (position >= 0),   -- the next offset to read
    progressed_at bigint NOT NULL,                          -- micros
    PRIMARY KEY (follower, partition)
) WITH (fillfactor = 50);

-- Who may work on what, until when: at most one owner of a name at a time. The database's clock
-- decides; the epoch grows whenever the owner changes.
CREATE TABLE log.lease (
    name       text        PRIMARY KEY,
    owner      text        NOT NULL,
    epoch      bigint      NOT NULL DEFAULT 1,
    expires_at timestamptz NOT NULL
) WITH (fillfactor = 50);

-- Runs whose usage changed since they were last charged; the charger's own list.
CREATE SCHEMA charger;
CREATE TABLE charger.pending_run (
    tenant_id   text    NOT NULL,
    charge_key  text    NOT NULL,
    has_ended   boolean NOT NULL,
    touched_at  bigint  NOT NULL,                           -- micros, our clock
    shard       smallint NOT NULL GENERATED ALWAYS AS
        (abs(hashtextextended(tenant_id || ' ' || charge_key, 0) % 8)::smallint) STORED,
    PRIMARY KEY (tenant_id, charge_key)
) WITH (fillfactor = 70);
CREATE INDEX pending_run_due ON charger.pending_run (shard, has_ended, touched_at);
