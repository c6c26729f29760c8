CREATE SCHEMA catalog;
CREATE SCHEMA charger;
CREATE SCHEMA ledger;
CREATE SCHEMA log;
CREATE FUNCTION log.refuse_change() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    RAISE EXCEPTION 'history is append-only: % on %.% is refused',
        TG_OP, TG_TABLE_SCHEMA, TG_TABLE_NAME USING ERRCODE = 'integrity_constraint_violation';
END $$;
CREATE TABLE catalog.rate_card (
    rate_card_id text NOT NULL,
    kind text NOT NULL,
    tenant_id text DEFAULT ''::text NOT NULL,
    CONSTRAINT rate_card_kind_check CHECK ((kind = ANY (ARRAY['cost'::text, 'credit'::text]))),
    CONSTRAINT rate_card_rate_card_id_check CHECK (((length(rate_card_id) >= 1) AND (length(rate_card_id) <= 128)))
);
CREATE TABLE catalog.rate_card_version (
    version_id integer NOT NULL,
    rate_card_id text NOT NULL,
    effective_at bigint NOT NULL,
    recorded_at bigint NOT NULL,
    source text NOT NULL,
    digest text NOT NULL,
    content bytea NOT NULL
);
ALTER TABLE catalog.rate_card_version ALTER COLUMN version_id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME catalog.rate_card_version_version_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE charger.pending_run (
    tenant_id text NOT NULL,
    charge_key text NOT NULL,
    has_ended boolean NOT NULL,
    touched_at bigint NOT NULL
)
WITH (fillfactor='70');
CREATE TABLE ledger.account (
    account_id text NOT NULL,
    tenant_id text NOT NULL,
    asset text DEFAULT 'CREDIT/6'::text NOT NULL,
    capture_policy text NOT NULL,
    created_at bigint NOT NULL,
    CONSTRAINT account_account_id_check CHECK (((length(account_id) >= 1) AND (length(account_id) <= 128))),
    CONSTRAINT account_capture_policy_check CHECK ((capture_policy = ANY (ARRAY['reject'::text, 'cap'::text, 'overage'::text]))),
    CONSTRAINT account_tenant_id_check CHECK (((length(tenant_id) >= 1) AND (length(tenant_id) <= 128)))
);
CREATE TABLE ledger.balance (
    account_id text NOT NULL,
    credited bigint DEFAULT 0 NOT NULL,
    debited bigint DEFAULT 0 NOT NULL,
    held bigint DEFAULT 0 NOT NULL,
    leased bigint DEFAULT 0 NOT NULL,
    overage bigint DEFAULT 0 NOT NULL,
    overage_limit_units bigint,
    CONSTRAINT balance_credited_check CHECK ((credited >= 0)),
    CONSTRAINT balance_debited_check CHECK ((debited >= 0)),
    CONSTRAINT balance_held_check CHECK ((held >= 0)),
    CONSTRAINT balance_leased_check CHECK ((leased >= 0)),
    CONSTRAINT balance_overage_check CHECK ((overage >= 0)),
    CONSTRAINT balance_overage_limit_units_check CHECK ((overage_limit_units >= 0)),
    CONSTRAINT inv_03_not_below_limit CHECK (((overage_limit_units IS NULL) OR ((((credited - debited) - held) - leased) >= (- overage_limit_units))))
)
WITH (fillfactor='50');
CREATE TABLE ledger.lot (
    lot_id uuid NOT NULL,
    account_id text NOT NULL,
    source text NOT NULL,
    priority smallint NOT NULL,
    expires_at bigint,
    created_at bigint NOT NULL,
    granted bigint NOT NULL,
    consumed bigint DEFAULT 0 NOT NULL,
    held bigint DEFAULT 0 NOT NULL,
    expired bigint DEFAULT 0 NOT NULL,
    CONSTRAINT inv_06_lot_gives_no_more CHECK ((((consumed + held) + expired) <= granted)),
    CONSTRAINT lot_consumed_check CHECK ((consumed >= 0)),
    CONSTRAINT lot_expired_check CHECK ((expired >= 0)),
    CONSTRAINT lot_granted_check CHECK ((granted > 0)),
    CONSTRAINT lot_held_check CHECK ((held >= 0)),
    CONSTRAINT lot_source_check CHECK ((source = ANY (ARRAY['plan'::text, 'topup'::text, 'promo'::text, 'refund'::text])))
)
WITH (fillfactor='70');
CREATE TABLE ledger.operation (
    sequence bigint NOT NULL,
    operation_id uuid NOT NULL,
    account_id text NOT NULL,
    tenant_id text NOT NULL,
    kind text NOT NULL,
    outcome text NOT NULL,
    units bigint NOT NULL,
    shortfall bigint DEFAULT 0 NOT NULL,
    run_id text DEFAULT ''::text NOT NULL,
    refers_to uuid,
    reason text DEFAULT ''::text NOT NULL,
    leg_sources text[] NOT NULL,
    leg_targets text[] NOT NULL,
    leg_units bigint[] NOT NULL,
    lot_ids uuid[] NOT NULL,
    lot_units bigint[] NOT NULL,
    overage_units bigint DEFAULT 0 NOT NULL,
    balance_after bigint NOT NULL,
    posted_at bigint NOT NULL,
    CONSTRAINT operation_check CHECK (((cardinality(leg_sources) = cardinality(leg_targets)) AND (cardinality(leg_sources) = cardinality(leg_units)) AND (cardinality(lot_ids) = cardinality(lot_units)))),
    CONSTRAINT operation_check1 CHECK (((outcome = 'posted'::text) OR (cardinality(leg_units) = 0))),
    CONSTRAINT operation_kind_check CHECK ((kind = ANY (ARRAY['grant'::text, 'charge'::text, 'refund'::text, 'expire'::text]))),
    CONSTRAINT operation_outcome_check CHECK ((outcome = ANY (ARRAY['posted'::text, 'declined'::text]))),
    CONSTRAINT operation_shortfall_check CHECK ((shortfall >= 0)),
    CONSTRAINT operation_units_check CHECK ((units >= 0))
);
ALTER TABLE ledger.operation ALTER COLUMN sequence ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME ledger.operation_sequence_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE ledger.request_key (
    account_id text NOT NULL,
    idempotency_key text NOT NULL,
    digest bytea NOT NULL,
    outcome bytea NOT NULL,
    CONSTRAINT request_key_idempotency_key_check CHECK (((length(idempotency_key) >= 1) AND (length(idempotency_key) <= 128)))
);
CREATE TABLE ledger.run_charge (
    tenant_id text NOT NULL,
    run_id text NOT NULL,
    account_id text NOT NULL,
    target bigint NOT NULL,
    charged bigint NOT NULL,
    shortfall bigint NOT NULL,
    refunded bigint DEFAULT 0 NOT NULL,
    revision integer NOT NULL,
    updated_at bigint NOT NULL,
    CONSTRAINT run_charge_charged_check CHECK ((charged >= 0)),
    CONSTRAINT run_charge_check CHECK (((refunded >= 0) AND (refunded <= charged))),
    CONSTRAINT run_charge_shortfall_check CHECK ((shortfall >= 0)),
    CONSTRAINT run_charge_target_check CHECK ((target >= 0))
)
WITH (fillfactor='70');
CREATE TABLE log.batch (
    partition smallint NOT NULL,
    offset_start bigint NOT NULL,
    event_count integer NOT NULL,
    received_at bigint NOT NULL,
    payload bytea NOT NULL,
    CONSTRAINT batch_event_count_check CHECK ((event_count > 0))
);
ALTER TABLE ONLY log.batch ALTER COLUMN payload SET STORAGE EXTERNAL;
CREATE TABLE log.follower (
    follower text NOT NULL,
    partition smallint NOT NULL,
    "position" bigint NOT NULL,
    progressed_at bigint NOT NULL,
    CONSTRAINT follower_position_check CHECK (("position" >= 0))
)
WITH (fillfactor='50');
CREATE TABLE log.head (
    partition smallint NOT NULL,
    next_offset bigint DEFAULT 0 NOT NULL,
    CONSTRAINT head_next_offset_check CHECK ((next_offset >= 0))
)
WITH (fillfactor='50');
CREATE TABLE public.schema_migration (
    name text NOT NULL,
    digest text NOT NULL,
    applied_at timestamp with time zone DEFAULT now() NOT NULL
);
ALTER TABLE ONLY catalog.rate_card
    ADD CONSTRAINT rate_card_kind_tenant_id_key UNIQUE (kind, tenant_id);
ALTER TABLE ONLY catalog.rate_card
    ADD CONSTRAINT rate_card_pkey PRIMARY KEY (rate_card_id);
ALTER TABLE ONLY catalog.rate_card_version
    ADD CONSTRAINT rate_card_version_pkey PRIMARY KEY (version_id);
ALTER TABLE ONLY catalog.rate_card_version
    ADD CONSTRAINT rate_card_version_rate_card_id_effective_at_digest_key UNIQUE (rate_card_id, effective_at, digest);
ALTER TABLE ONLY charger.pending_run
    ADD CONSTRAINT pending_run_pkey PRIMARY KEY (tenant_id, charge_key);
ALTER TABLE ONLY ledger.account
    ADD CONSTRAINT account_pkey PRIMARY KEY (account_id);
ALTER TABLE ONLY ledger.balance
    ADD CONSTRAINT balance_pkey PRIMARY KEY (account_id);
ALTER TABLE ONLY ledger.run_charge
    ADD CONSTRAINT inv_05_one_charge_per_run PRIMARY KEY (tenant_id, run_id);
ALTER TABLE ONLY ledger.lot
    ADD CONSTRAINT lot_pkey PRIMARY KEY (lot_id);
ALTER TABLE ONLY ledger.operation
    ADD CONSTRAINT operation_operation_id_key UNIQUE (operation_id);
ALTER TABLE ONLY ledger.operation
    ADD CONSTRAINT operation_pkey PRIMARY KEY (sequence);
ALTER TABLE ONLY ledger.request_key
    ADD CONSTRAINT request_key_pkey PRIMARY KEY (account_id, idempotency_key);
ALTER TABLE ONLY log.batch
    ADD CONSTRAINT batch_pkey PRIMARY KEY (partition, offset_start);
ALTER TABLE ONLY log.follower
    ADD CONSTRAINT follower_pkey PRIMARY KEY (follower, partition);
ALTER TABLE ONLY log.head
    ADD CONSTRAINT head_pkey PRIMARY KEY (partition);
ALTER TABLE ONLY public.schema_migration
    ADD CONSTRAINT schema_migration_pkey PRIMARY KEY (name);
CREATE INDEX pending_run_due ON charger.pending_run USING btree (has_ended, touched_at);
CREATE INDEX account_of_tenant ON ledger.account USING btree (tenant_id, created_at, account_id);
CREATE INDEX lot_of_account ON ledger.lot USING btree (account_id, created_at);
CREATE INDEX lot_with_credit ON ledger.lot USING btree (account_id) WHERE (granted > ((consumed + held) + expired));
CREATE INDEX operation_of_account ON ledger.operation USING btree (account_id, sequence DESC);
CREATE INDEX operation_of_run ON ledger.operation USING btree (tenant_id, run_id, sequence) WHERE (run_id <> ''::text);
CREATE TRIGGER version_is_append_only BEFORE DELETE OR UPDATE OR TRUNCATE ON catalog.rate_card_version FOR EACH STATEMENT EXECUTE FUNCTION log.refuse_change();
CREATE TRIGGER balance_is_never_deleted BEFORE DELETE OR TRUNCATE ON ledger.balance FOR EACH STATEMENT EXECUTE FUNCTION log.refuse_change();
CREATE TRIGGER lot_is_never_deleted BEFORE DELETE OR TRUNCATE ON ledger.lot FOR EACH STATEMENT EXECUTE FUNCTION log.refuse_change();
CREATE TRIGGER operation_is_append_only BEFORE DELETE OR UPDATE OR TRUNCATE ON ledger.operation FOR EACH STATEMENT EXECUTE FUNCTION log.refuse_change();
CREATE TRIGGER request_key_is_append_only BEFORE DELETE OR UPDATE OR TRUNCATE ON ledger.request_key FOR EACH STATEMENT EXECUTE FUNCTION log.refuse_change();
CREATE TRIGGER run_charge_is_never_deleted BEFORE DELETE OR TRUNCATE ON ledger.run_charge FOR EACH STATEMENT EXECUTE FUNCTION log.refuse_change();
CREATE TRIGGER batch_is_append_only BEFORE DELETE OR UPDATE OR TRUNCATE ON log.batch FOR EACH STATEMENT EXECUTE FUNCTION log.refuse_change();
ALTER TABLE ONLY catalog.rate_card_version
    ADD CONSTRAINT rate_card_version_rate_card_id_fkey FOREIGN KEY (rate_card_id) REFERENCES catalog.rate_card(rate_card_id);
