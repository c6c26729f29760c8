-- The credit ledger: double entry, append-only, integers (CREDIT/6).
-- The request path writes few and small rows: a hold is one balance, one lot, one hold and one
-- operation. There are no foreign keys to hot rows: the one writer locks the balance first.
CREATE SCHEMA ledger;

-- Cold: who an account is.
CREATE TABLE ledger.account (
    account_id          text PRIMARY KEY CHECK (length(account_id) BETWEEN 1 AND 128),
    tenant_id           text   NOT NULL CHECK (length(tenant_id) BETWEEN 1 AND 128),
    asset               text   NOT NULL DEFAULT 'CREDIT/6',
    created_at          bigint NOT NULL
);
CREATE INDEX account_of_tenant ON ledger.account (tenant_id, created_at, account_id);

-- Hot: one narrow row an account; its lock orders everything that moves the account.
CREATE TABLE ledger.balance (
    account_id          text PRIMARY KEY,
    sequence            bigint NOT NULL DEFAULT 0,                        -- of the last operation
    credited            bigint NOT NULL DEFAULT 0 CHECK (credited >= 0),  -- all that ever came in
    debited             bigint NOT NULL DEFAULT 0 CHECK (debited >= 0),   -- all that ever went out
    refunded            bigint NOT NULL DEFAULT 0 CHECK (refunded >= 0),  -- came in by refunds
    expired             bigint NOT NULL DEFAULT 0 CHECK (expired >= 0),   -- went out by lot expiry
    held                bigint NOT NULL DEFAULT 0 CHECK (held >= 0),
    leased              bigint NOT NULL DEFAULT 0 CHECK (leased >= 0),
    overage             bigint NOT NULL DEFAULT 0 CHECK (overage >= 0),   -- went out without a lot
    overage_held        bigint NOT NULL DEFAULT 0 CHECK (overage_held >= 0), -- held without a lot
    overage_limit_units bigint CHECK (overage_limit_units >= 0),          -- NULL: no limit
    capture_policy      text   NOT NULL CHECK (capture_policy IN ('reject', 'cap', 'overage')),
    unknown_policy      text   NOT NULL CHECK (unknown_policy IN ('capture', 'release')),
    CONSTRAINT inv_03_not_below_limit CHECK (
        overage_limit_units IS NULL
        OR (credited - debited - held - leased >= -overage_limit_units
            AND overage + overage_held <= overage_limit_units))
) WITH (fillfactor = 50);

-- A lot (bucket) of a grant. Spend order: priority, soonest expiry, age, id; frozen at grant.
-- `is_spent` is the only indexed column that changes, once: all other updates stay in the page.
CREATE TABLE ledger.lot (
    lot_id     uuid PRIMARY KEY,
    account_id text     NOT NULL,
    source     text     NOT NULL CHECK (source IN ('plan', 'topup', 'promo', 'refund')),
    priority   smallint NOT NULL,
    expires_at bigint,                                                    -- micros; NULL never
    created_at bigint   NOT NULL,
    granted    bigint   NOT NULL CHECK (granted > 0),
    consumed   bigint   NOT NULL DEFAULT 0 CHECK (consumed >= 0),
    held       bigint   NOT NULL DEFAULT 0 CHECK (held >= 0),             -- by holds and leases
    expired    bigint   NOT NULL DEFAULT 0 CHECK (expired >= 0),
    is_spent   boolean  NOT NULL DEFAULT false CHECK (is_spent = (consumed + expired = granted)),
    CONSTRAINT inv_06_lot_gives_no_more CHECK (consumed + held + expired <= granted)
) WITH (fillfactor = 50);
CREATE INDEX lot_unspent ON ledger.lot (account_id) WHERE NOT is_spent;
CREATE INDEX lot_expiring ON ledger.lot (expires_at)
    WHERE NOT is_spent AND expires_at IS NOT NULL;
CREATE INDEX lot_of_account ON ledger.lot (account_id, created_at);

-- Open holds and leases, with the lots that they earmark. Resolved ones live in history.
CREATE TABLE ledger.hold (
    hold_id     uuid PRIMARY KEY,
    account_id  text     NOT NULL,
    tenant_id   text     NOT NULL,
    kind        text     NOT NULL CHECK (kind IN ('hold', 'lease')),
    status      text     NOT NULL CHECK (status IN ('held', 'unknown')),
    run_id      text     NOT NULL,
    held        bigint   NOT NULL CHECK (held >= 0),                      -- what is left
    drawn       bigint   NOT NULL CHECK (drawn >= 0),                     -- captured so far
    lot_ids     uuid[]   NOT NULL,
    lot_units   bigint[] NOT NULL CHECK (0 <= ALL (lot_units)),
    overage     bigint   NOT NULL CHECK (overage >= 0),
    limit_ids   text[]   NOT NULL,
    limit_units bigint[] NOT NULL,
    has_started boolean  NOT NULL,
    epoch       integer  NOT NULL,
    due_at      bigint   NOT NULL                         -- held: expires; unknown: is resolved
) WITH (fillfactor = 80);
CREATE INDEX hold_due ON ledger.hold (due_at);
CREATE INDEX hold_of_run ON ledger.hold (tenant_id, run_id) WHERE run_id <> '';
CREATE INDEX hold_of_account ON ledger.hold (account_id);

-- A limit of any asset in any window; a hold takes a part of each limit that it names, or none.
-- `overrun`: what was used beyond the capacity because it had happened already.
CREATE TABLE ledger.limit_window (
    limit_id text PRIMARY KEY CHECK (length(limit_id) BETWEEN 1 AND 256),
    asset    text   NOT NULL,
    capacity bigint NOT NULL CHECK (capacity >= 0),
    used     bigint NOT NULL DEFAULT 0 CHECK (used >= 0),
    held     bigint NOT NULL DEFAULT 0 CHECK (held >= 0),
    overrun  bigint NOT NULL DEFAULT 0 CHECK (overrun >= 0),
    CONSTRAINT inv_03_window_not_over_capacity CHECK (used + held - overrun <= capacity)
) WITH (fillfactor = 50);

-- History: one appended row an operation, also for declines, dense by account. At most one
-- transfer moves units from a source to a target, so entries sum to zero by form; what it did
-- to holds, lots and limits travels as deltas in the same row and is unfolded when read.
-- The row is also the request's idempotency record: the outcome is rebuilt from it.
CREATE TABLE ledger.operation (
    account_id     text   NOT NULL,
    sequence       bigint NOT NULL CHECK (sequence > 0),
    operation_id   uuid   NOT NULL UNIQUE,
    tenant_id      text   NOT NULL,
    kind           text   NOT NULL CHECK (kind IN ('settings', 'grant', 'charge', 'refund',
        'lot_expiry', 'hold', 'start', 'extend', 'capture', 'release', 'hold_expiry', 'unknown',
        'resolve', 'settle', 'lease', 'report', 'return', 'repair')),
    outcome        text   NOT NULL CHECK (outcome IN ('posted', 'declined')),
    code           text   NOT NULL,
    decided_by     text   NOT NULL,
    units          bigint NOT NULL CHECK (units >= 0),          -- what was asked
    source         text   NOT NULL,
    target         text   NOT NULL,
    moved          bigint NOT NULL CHECK (moved >= 0),          -- from source to target
    shortfall      bigint NOT NULL CHECK (shortfall >= 0),
    held           bigint NOT NULL,                             -- delta
    leased         bigint NOT NULL,                             -- delta
    overage        bigint NOT NULL,                             -- delta
    overage_held   bigint NOT NULL,                             -- delta
    lot_ids        uuid[]   NOT NULL,
    lot_consumed   bigint[] NOT NULL,                           -- deltas
    lot_held       bigint[] NOT NULL,                           -- deltas
    limit_ids      text[]   NOT NULL,
    limit_used     bigint[] NOT NULL,                           -- deltas
    limit_held     bigint[] NOT NULL,                           -- deltas
    available      bigint NOT NULL,                             -- after
    balance_after  bigint NOT NULL,                             -- credited - debited
    hold_id        uuid,
    epoch          integer NOT NULL,
    due_at         bigint,
    run_id         text   NOT NULL,
    refers_to      uuid,
    reason         text   NOT NULL,
    details        text   NOT NULL,                             -- JSON, or empty
    key_hash       uuid,                                        -- of scope and idempotency key
    digest         uuid,                                        -- of the request
    posted_at      bigint NOT NULL,
    transaction    bigint NOT NULL DEFAULT (pg_current_xact_id()::text::bigint),
    PRIMARY KEY (account_id, sequence),
    CONSTRAINT inv_01_a_transfer_has_two_sides CHECK (
        CASE WHEN moved = 0 THEN source = '' AND target = ''
             ELSE source <> target AND account_id IN (source, target) END),
    CONSTRAINT a_decline_moves_nothing CHECK (outcome = 'posted'
        OR (moved = 0 AND held = 0 AND leased = 0 AND lot_ids = '{}' AND limit_ids = '{}'))
);
CREATE UNIQUE INDEX inv_04_one_outcome_per_key ON ledger.operation (key_hash);
CREATE UNIQUE INDEX inv_07_one_resolution_per_hold ON ledger.operation (hold_id)
    WHERE outcome = 'posted'
      AND kind IN ('capture', 'release', 'hold_expiry', 'resolve', 'return');
CREATE UNIQUE INDEX one_late_settle_per_hold ON ledger.operation (hold_id)
    WHERE outcome = 'posted' AND kind = 'settle';
CREATE INDEX operation_of_run ON ledger.operation (tenant_id, run_id, posted_at)
    WHERE run_id <> '';
CREATE INDEX operation_refers_to ON ledger.operation (refers_to) WHERE refers_to IS NOT NULL;
CREATE INDEX operation_by_transaction ON ledger.operation (transaction);

-- At most one charge a run: target = charged + shortfall (INV-05 by primary key).
CREATE TABLE ledger.run_charge (
    tenant_id  text   NOT NULL,
    run_id     text   NOT NULL,
    account_id text   NOT NULL,
    target     bigint NOT NULL CHECK (target >= 0),
    charged    bigint NOT NULL CHECK (charged >= 0),
    shortfall  bigint NOT NULL CHECK (shortfall >= 0),
    refunded   bigint NOT NULL DEFAULT 0 CHECK (refunded BETWEEN 0 AND charged),  -- by hand
    captured   bigint NOT NULL DEFAULT 0 CHECK (captured >= 0),   -- what captures asked for
    has_facts  boolean NOT NULL DEFAULT false,                    -- its target came from facts
    is_stale   boolean NOT NULL DEFAULT false,                    -- captured since: ask facts again
    revision   integer NOT NULL,
    updated_at bigint NOT NULL,
    CONSTRAINT inv_05_one_charge_per_run PRIMARY KEY (tenant_id, run_id)
) WITH (fillfactor = 70);
CREATE INDEX run_charge_stale ON ledger.run_charge (updated_at) WHERE is_stale;

-- Sealed history: blocks chained by hash. A block holds the operations of all transactions from
-- first_transaction up to its horizon, in order of account and sequence.
CREATE TABLE ledger.block (
    block_number      bigint  PRIMARY KEY,
    previous          bytea   NOT NULL,          -- the hash of the block before
    root              bytea   NOT NULL,          -- Merkle root of names and leaves
    hash              bytea   NOT NULL UNIQUE,   -- of all the other columns but names, leaves
    first_transaction bigint  NOT NULL,
    horizon           bigint  NOT NULL,          -- every transaction before it had ended
    sealed_at         bigint  NOT NULL,
    operations        integer NOT NULL CHECK (operations > 0),
    names             text    NOT NULL,          -- account/sequence, a line each
    leaves            bytea   NOT NULL           -- 32 bytes an operation, to name what differs
);

CREATE TRIGGER operation_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE
    ON ledger.operation FOR EACH STATEMENT EXECUTE FUNCTION log.refuse_change();
CREATE TRIGGER block_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE
    ON ledger.block FOR EACH STATEMENT EXECUTE FUNCTION log.refuse_change();
CREATE TRIGGER balance_is_never_deleted BEFORE DELETE OR TRUNCATE
    ON ledger.balance FOR EACH STATEMENT EXECUTE FUNCTION log.refuse_change();
CREATE TRIGGER lot_is_never_deleted BEFORE DELETE OR TRUNCATE
    ON ledger.lot FOR EACH STATEMENT EXECUTE FUNCTION log.refuse_change();
CREATE TRIGGER run_charge_is_never_deleted BEFORE DELETE OR TRUNCATE
    ON ledger.run_charge FOR EACH STATEMENT EXECUTE FUNCTION log.refuse_change();
