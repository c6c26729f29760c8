-- The credit ledger: double entry, append-only, integers (CREDIT/6).
CREATE SCHEMA ledger;

-- Cold: who an account is.
CREATE TABLE ledger.account (
    account_id          text PRIMARY KEY CHECK (length(account_id) BETWEEN 1 AND 128),
    tenant_id           text   NOT NULL CHECK (length(tenant_id) BETWEEN 1 AND 128),
    asset               text   NOT NULL DEFAULT 'CREDIT/6',
    capture_policy      text   NOT NULL CHECK (capture_policy IN ('reject', 'cap', 'overage')),
    created_at          bigint NOT NULL
);
CREATE INDEX account_of_tenant ON ledger.account (tenant_id, created_at, account_id);

-- Hot: one narrow row an account; its lock orders everything that moves the account.
CREATE TABLE ledger.balance (
    account_id          text PRIMARY KEY,
    credited            bigint NOT NULL DEFAULT 0 CHECK (credited >= 0),  -- all that ever came in
    debited             bigint NOT NULL DEFAULT 0 CHECK (debited >= 0),   -- all that ever went out
    held                bigint NOT NULL DEFAULT 0 CHECK (held >= 0),
    leased              bigint NOT NULL DEFAULT 0 CHECK (leased >= 0),
    overage             bigint NOT NULL DEFAULT 0 CHECK (overage >= 0),   -- went out without a lot
    overage_limit_units bigint CHECK (overage_limit_units >= 0),          -- NULL: no limit
    CONSTRAINT inv_03_not_below_limit CHECK (
        overage_limit_units IS NULL
        OR credited - debited - held - leased >= -overage_limit_units)
) WITH (fillfactor = 50);

-- A lot (bucket) of a grant. Spend order: priority, soonest expiry, age, id.
CREATE TABLE ledger.lot (
    lot_id     uuid PRIMARY KEY,
    account_id text     NOT NULL,
    source     text     NOT NULL CHECK (source IN ('plan', 'topup', 'promo', 'refund')),
    priority   smallint NOT NULL,
    expires_at bigint,                                                    -- micros; NULL never
    created_at bigint   NOT NULL,
    granted    bigint   NOT NULL CHECK (granted > 0),
    consumed   bigint   NOT NULL DEFAULT 0 CHECK (consumed >= 0),
    held       bigint   NOT NULL DEFAULT 0 CHECK (held >= 0),
    expired    bigint   NOT NULL DEFAULT 0 CHECK (expired >= 0),
    CONSTRAINT inv_06_lot_gives_no_more CHECK (consumed + held + expired <= granted)
) WITH (fillfactor = 70);
CREATE INDEX lot_with_credit ON ledger.lot (account_id)
    WHERE granted > consumed + held + expired;
CREATE INDEX lot_of_account ON ledger.lot (account_id, created_at);

-- History: one appended row an operation, also for declines. A leg moves units from a
-- source to a target, so entries sum to zero by form. Legs and lot movements travel in the
-- row as arrays: one small write an operation, unfolded when it is read.
CREATE TABLE ledger.operation (
    sequence      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    operation_id  uuid   NOT NULL UNIQUE,
    account_id    text   NOT NULL,
    tenant_id     text   NOT NULL,
    kind          text   NOT NULL CHECK (kind IN ('grant', 'charge', 'refund', 'expire')),
    outcome       text   NOT NULL CHECK (outcome IN ('posted', 'declined')),
    units         bigint NOT NULL CHECK (units >= 0),          -- what was asked
    shortfall     bigint NOT NULL DEFAULT 0 CHECK (shortfall >= 0),
    run_id        text   NOT NULL DEFAULT '',
    refers_to     uuid,
    reason        text   NOT NULL DEFAULT '',
    leg_sources   text[]   NOT NULL,
    leg_targets   text[]   NOT NULL,
    leg_units     bigint[] NOT NULL,
    lot_ids       uuid[]   NOT NULL,
    lot_units     bigint[] NOT NULL,                           -- taken from (+), given back to (-)
    overage_units bigint NOT NULL DEFAULT 0,                   -- taken (+) or given back (-)
    balance_after bigint NOT NULL,                             -- credited - debited
    posted_at     bigint NOT NULL,
    CHECK (cardinality(leg_sources) = cardinality(leg_targets)
       AND cardinality(leg_sources) = cardinality(leg_units)
       AND cardinality(lot_ids) = cardinality(lot_units)),
    CHECK (outcome = 'posted' OR cardinality(leg_units) = 0)
);
CREATE INDEX operation_of_account ON ledger.operation (account_id, sequence DESC);
CREATE INDEX operation_of_run ON ledger.operation (tenant_id, run_id, sequence) WHERE run_id <> '';

-- Idempotency: the original outcome of a key, for ever.
CREATE TABLE ledger.request_key (
    account_id      text  NOT NULL,
    idempotency_key text  NOT NULL CHECK (length(idempotency_key) BETWEEN 1 AND 128),
    digest          bytea NOT NULL,
    outcome         bytea NOT NULL,
    PRIMARY KEY (account_id, idempotency_key)
);

-- At most one charge a run: target = charged + shortfall (INV-05 by primary key).
CREATE TABLE ledger.run_charge (
    tenant_id  text   NOT NULL,
    run_id     text   NOT NULL,
    account_id text   NOT NULL,
    target     bigint NOT NULL CHECK (target >= 0),
    charged    bigint NOT NULL CHECK (charged >= 0),
    shortfall  bigint NOT NULL CHECK (shortfall >= 0),
    refunded   bigint NOT NULL DEFAULT 0 CHECK (refunded BETWEEN 0 AND charged),  -- by hand
    revision   integer NOT NULL,
    updated_at bigint NOT NULL,
    CONSTRAINT inv_05_one_charge_per_run PRIMARY KEY (tenant_id, run_id)
) WITH (fillfactor = 70);

CREATE TRIGGER operation_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE
    ON ledger.operation FOR EACH STATEMENT EXECUTE FUNCTION log.refuse_change();
CREATE TRIGGER request_key_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE
    ON ledger.request_key FOR EACH STATEMENT EXECUTE FUNCTION log.refuse_change();
CREATE TRIGGER balance_is_never_deleted BEFORE DELETE OR TRUNCATE
    ON ledger.balance FOR EACH STATEMENT EXECUTE FUNCTION log.refuse_change();
CREATE TRIGGER lot_is_never_deleted BEFORE DELETE OR TRUNCATE
    ON ledger.lot FOR EACH STATEMENT EXECUTE FUNCTION log.refuse_change();
CREATE TRIGGER run_charge_is_never_deleted BEFORE DELETE OR TRUNCATE
    ON ledger.run_charge FOR EACH STATEMENT EXECUTE FUNCTION log.refuse_change();
