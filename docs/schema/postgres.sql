CREATE SCHEMA backfill;
CREATE SCHEMA broken;
CREATE SCHEMA catalog;
CREATE SCHEMA charger;
CREATE SCHEMA enforcement;
CREATE SCHEMA ledger;
CREATE SCHEMA log;
CREATE FUNCTION log.refuse_change() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    RAISE EXCEPTION 'history is append-only: % on %.% is refused',
        TG_OP, TG_TABLE_SCHEMA, TG_TABLE_NAME USING ERRCODE = 'integrity_constraint_violation';
END $$;
CREATE TABLE backfill.backfill (
    backfill_id text NOT NULL,
    idempotency_key text NOT NULL,
    kind text NOT NULL,
    reverts text DEFAULT ''::text NOT NULL,
    reason text NOT NULL,
    from_at bigint NOT NULL,
    to_at bigint NOT NULL,
    tenant_ids text[] NOT NULL,
    models text[] NOT NULL,
    rate_card_version integer NOT NULL,
    is_dry_run boolean NOT NULL,
    events_per_second_max integer NOT NULL,
    created_at bigint NOT NULL,
    created_by text NOT NULL,
    status text NOT NULL,
    ends jsonb DEFAULT '{}'::jsonb NOT NULL,
    cursor jsonb DEFAULT '[]'::jsonb NOT NULL,
    pieces integer DEFAULT 0 NOT NULL,
    expected bigint,
    examined bigint DEFAULT 0 NOT NULL,
    corrected bigint DEFAULT 0 NOT NULL,
    skipped bigint DEFAULT 0 NOT NULL,
    changed_at bigint NOT NULL,
    failure text DEFAULT ''::text NOT NULL,
    CONSTRAINT backfill_check CHECK (((reverts <> ''::text) = (kind = 'revert'::text))),
    CONSTRAINT backfill_check1 CHECK ((to_at > from_at)),
    CONSTRAINT backfill_events_per_second_max_check CHECK ((events_per_second_max > 0)),
    CONSTRAINT backfill_kind_check CHECK ((kind = ANY (ARRAY['rating'::text, 'revert'::text]))),
    CONSTRAINT backfill_reason_check CHECK ((reason <> ''::text)),
    CONSTRAINT backfill_status_check CHECK ((status = ANY (ARRAY['planned'::text, 'running'::text, 'paused'::text, 'done'::text, 'failed'::text, 'reverted'::text])))
)
WITH (fillfactor='70');
CREATE TABLE backfill.report_line (
    backfill_id text NOT NULL,
    piece integer NOT NULL,
    tenant_id text NOT NULL,
    model text NOT NULL,
    events bigint NOT NULL,
    corrected bigint NOT NULL,
    cost_units_before bigint NOT NULL,
    cost_units_after bigint NOT NULL,
    credit_units_before bigint NOT NULL,
    credit_units_after bigint NOT NULL
);
CREATE TABLE backfill.report_run (
    backfill_id text NOT NULL,
    piece integer NOT NULL,
    tenant_id text NOT NULL,
    charge_key text NOT NULL,
    corrected bigint NOT NULL,
    cost_units bigint NOT NULL,
    credit_units bigint NOT NULL
);
CREATE TABLE broken.action (
    action_id bigint NOT NULL,
    tenant_id text NOT NULL,
    broken_id text NOT NULL,
    kind text NOT NULL,
    outcome text NOT NULL,
    event_id text NOT NULL,
    fields text[] NOT NULL,
    reason text NOT NULL,
    acted_at bigint NOT NULL,
    acted_by text NOT NULL,
    CONSTRAINT action_kind_check CHECK ((kind = ANY (ARRAY['fix'::text, 'dismiss'::text]))),
    CONSTRAINT action_outcome_check CHECK ((outcome = ANY (ARRAY['accepted'::text, 'duplicate'::text, 'conflict'::text, 'dismissed'::text])))
);
ALTER TABLE broken.action ALTER COLUMN action_id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME broken.action_action_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE broken.state (
    tenant_id text NOT NULL,
    broken_id text NOT NULL,
    status text NOT NULL,
    event_id text DEFAULT ''::text NOT NULL,
    reason text DEFAULT ''::text NOT NULL,
    changed_at bigint NOT NULL,
    changed_by text NOT NULL,
    CONSTRAINT state_status_check CHECK ((status = ANY (ARRAY['open'::text, 'claimed'::text, 'fixed'::text, 'dismissed'::text])))
);
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
    touched_at bigint NOT NULL,
    shard smallint GENERATED ALWAYS AS ((abs((hashtextextended(((tenant_id || ' '::text) || charge_key), (0)::bigint) % (8)::bigint)))::smallint) STORED NOT NULL
)
WITH (fillfactor='70');
CREATE TABLE enforcement.vault_scope (
    scope_key uuid NOT NULL,
    tenant_id text NOT NULL,
    org text NOT NULL,
    user_id text NOT NULL,
    project_id text NOT NULL,
    team text NOT NULL,
    product text NOT NULL,
    feature text NOT NULL,
    key_id text NOT NULL,
    model text NOT NULL,
    provider text NOT NULL,
    workflow text NOT NULL,
    environment text NOT NULL
);
CREATE TABLE enforcement.vault_spend (
    scope_key uuid NOT NULL,
    bucket_at bigint NOT NULL,
    usd_units numeric(38,0) NOT NULL,
    credit_units numeric(38,0) NOT NULL,
    tokens_input bigint NOT NULL,
    tokens_output bigint NOT NULL,
    requests bigint NOT NULL,
    errors bigint NOT NULL,
    events bigint NOT NULL
)
WITH (fillfactor='70');
CREATE VIEW enforcement.vault_model_spend WITH (security_invoker='true') AS
 SELECT vault_scope.tenant_id,
    vault_scope.provider,
    vault_scope.model,
    vault_spend.bucket_at,
    sum(vault_spend.usd_units) AS usd_units,
    sum(vault_spend.tokens_input) AS tokens_input,
    sum(vault_spend.tokens_output) AS tokens_output,
    sum(vault_spend.requests) AS requests,
    sum(vault_spend.errors) AS errors
   FROM (enforcement.vault_scope
     JOIN enforcement.vault_spend USING (scope_key))
  GROUP BY vault_scope.tenant_id, vault_scope.provider, vault_scope.model, vault_spend.bucket_at;
CREATE VIEW enforcement.vault_project_spend WITH (security_invoker='true') AS
 SELECT vault_scope.tenant_id,
    vault_scope.project_id,
    vault_spend.bucket_at,
    sum(vault_spend.usd_units) AS usd_units,
    sum(vault_spend.tokens_input) AS tokens_input,
    sum(vault_spend.tokens_output) AS tokens_output,
    sum(vault_spend.requests) AS requests,
    sum(vault_spend.errors) AS errors
   FROM (enforcement.vault_scope
     JOIN enforcement.vault_spend USING (scope_key))
  GROUP BY vault_scope.tenant_id, vault_scope.project_id, vault_spend.bucket_at;
CREATE TABLE enforcement.vault_run (
    limit_id text NOT NULL,
    source_key text NOT NULL,
    tenant_id text NOT NULL,
    run_id text NOT NULL,
    spent_units numeric(38,0) NOT NULL,
    is_due boolean NOT NULL
)
WITH (fillfactor='70');
CREATE TABLE enforcement.vault_seen (
    partition smallint NOT NULL,
    offset_start bigint NOT NULL,
    offset_end bigint NOT NULL,
    seen_at bigint NOT NULL,
    identities bytea NOT NULL
);
ALTER TABLE ONLY enforcement.vault_seen ALTER COLUMN identities SET STORAGE EXTERNAL;
CREATE VIEW enforcement.vault_tenant_spend WITH (security_invoker='true') AS
 SELECT vault_scope.tenant_id,
    vault_spend.bucket_at,
    sum(vault_spend.usd_units) AS usd_units,
    sum(vault_spend.tokens_input) AS tokens_input,
    sum(vault_spend.tokens_output) AS tokens_output,
    sum(vault_spend.requests) AS requests,
    sum(vault_spend.errors) AS errors
   FROM (enforcement.vault_scope
     JOIN enforcement.vault_spend USING (scope_key))
  GROUP BY vault_scope.tenant_id, vault_spend.bucket_at;
CREATE VIEW enforcement.vault_user_spend WITH (security_invoker='true') AS
 SELECT vault_scope.tenant_id,
    vault_scope.user_id,
    vault_spend.bucket_at,
    sum(vault_spend.usd_units) AS usd_units,
    sum(vault_spend.tokens_input) AS tokens_input,
    sum(vault_spend.tokens_output) AS tokens_output,
    sum(vault_spend.requests) AS requests,
    sum(vault_spend.errors) AS errors
   FROM (enforcement.vault_scope
     JOIN enforcement.vault_spend USING (scope_key))
  GROUP BY vault_scope.tenant_id, vault_scope.user_id, vault_spend.bucket_at;
CREATE TABLE enforcement.vault_watch (
    limit_id text NOT NULL,
    positions jsonb NOT NULL,
    watched_at bigint NOT NULL
);
CREATE TABLE ledger.account (
    account_id text NOT NULL,
    tenant_id text NOT NULL,
    asset text DEFAULT 'CREDIT/6'::text NOT NULL,
    created_at bigint NOT NULL,
    CONSTRAINT account_account_id_check CHECK (((length(account_id) >= 1) AND (length(account_id) <= 128))),
    CONSTRAINT account_tenant_id_check CHECK (((length(tenant_id) >= 1) AND (length(tenant_id) <= 128)))
);
CREATE TABLE ledger.balance (
    account_id text NOT NULL,
    sequence bigint DEFAULT 0 NOT NULL,
    credited bigint DEFAULT 0 NOT NULL,
    debited bigint DEFAULT 0 NOT NULL,
    refunded bigint DEFAULT 0 NOT NULL,
    expired bigint DEFAULT 0 NOT NULL,
    held bigint DEFAULT 0 NOT NULL,
    leased bigint DEFAULT 0 NOT NULL,
    overage bigint DEFAULT 0 NOT NULL,
    overage_held bigint DEFAULT 0 NOT NULL,
    overage_limit_units bigint,
    capture_policy text NOT NULL,
    unknown_policy text NOT NULL,
    CONSTRAINT balance_capture_policy_check CHECK ((capture_policy = ANY (ARRAY['reject'::text, 'cap'::text, 'overage'::text]))),
    CONSTRAINT balance_credited_check CHECK ((credited >= 0)),
    CONSTRAINT balance_debited_check CHECK ((debited >= 0)),
    CONSTRAINT balance_expired_check CHECK ((expired >= 0)),
    CONSTRAINT balance_held_check CHECK ((held >= 0)),
    CONSTRAINT balance_leased_check CHECK ((leased >= 0)),
    CONSTRAINT balance_overage_check CHECK ((overage >= 0)),
    CONSTRAINT balance_overage_held_check CHECK ((overage_held >= 0)),
    CONSTRAINT balance_overage_limit_units_check CHECK ((overage_limit_units >= 0)),
    CONSTRAINT balance_refunded_check CHECK ((refunded >= 0)),
    CONSTRAINT balance_unknown_policy_check CHECK ((unknown_policy = ANY (ARRAY['capture'::text, 'release'::text]))),
    CONSTRAINT inv_03_not_below_limit CHECK (((overage_limit_units IS NULL) OR (((((credited - debited) - held) - leased) >= (- overage_limit_units)) AND ((overage + overage_held) <= overage_limit_units))))
)
WITH (fillfactor='50');
CREATE TABLE ledger.block (
    block_number bigint NOT NULL,
    previous bytea NOT NULL,
    root bytea NOT NULL,
    hash bytea NOT NULL,
    first_transaction bigint NOT NULL,
    horizon bigint NOT NULL,
    sealed_at bigint NOT NULL,
    operations integer NOT NULL,
    names text NOT NULL,
    leaves bytea NOT NULL,
    CONSTRAINT block_operations_check CHECK ((operations > 0))
);
CREATE TABLE ledger.hold (
    hold_id uuid NOT NULL,
    account_id text NOT NULL,
    tenant_id text NOT NULL,
    kind text NOT NULL,
    status text NOT NULL,
    run_id text NOT NULL,
    held bigint NOT NULL,
    drawn bigint NOT NULL,
    lot_ids uuid[] NOT NULL,
    lot_units bigint[] NOT NULL,
    overage bigint NOT NULL,
    limit_ids text[] NOT NULL,
    limit_units bigint[] NOT NULL,
    has_started boolean NOT NULL,
    epoch integer NOT NULL,
    due_at bigint NOT NULL,
    CONSTRAINT hold_drawn_check CHECK ((drawn >= 0)),
    CONSTRAINT hold_held_check CHECK ((held >= 0)),
    CONSTRAINT hold_kind_check CHECK ((kind = ANY (ARRAY['hold'::text, 'lease'::text]))),
    CONSTRAINT hold_lot_units_check CHECK ((0 <= ALL (lot_units))),
    CONSTRAINT hold_overage_check CHECK ((overage >= 0)),
    CONSTRAINT hold_status_check CHECK ((status = ANY (ARRAY['held'::text, 'unknown'::text])))
)
WITH (fillfactor='80');
CREATE TABLE ledger.limit_window (
    limit_id text NOT NULL,
    asset text NOT NULL,
    capacity bigint NOT NULL,
    used bigint DEFAULT 0 NOT NULL,
    held bigint DEFAULT 0 NOT NULL,
    overrun bigint DEFAULT 0 NOT NULL,
    CONSTRAINT inv_03_window_not_over_capacity CHECK ((((used + held) - overrun) <= capacity)),
    CONSTRAINT limit_window_capacity_check CHECK ((capacity >= 0)),
    CONSTRAINT limit_window_held_check CHECK ((held >= 0)),
    CONSTRAINT limit_window_limit_id_check CHECK (((length(limit_id) >= 1) AND (length(limit_id) <= 256))),
    CONSTRAINT limit_window_overrun_check CHECK ((overrun >= 0)),
    CONSTRAINT limit_window_used_check CHECK ((used >= 0))
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
    is_spent boolean DEFAULT false NOT NULL,
    CONSTRAINT inv_06_lot_gives_no_more CHECK ((((consumed + held) + expired) <= granted)),
    CONSTRAINT lot_check CHECK ((is_spent = ((consumed + expired) = granted))),
    CONSTRAINT lot_consumed_check CHECK ((consumed >= 0)),
    CONSTRAINT lot_expired_check CHECK ((expired >= 0)),
    CONSTRAINT lot_granted_check CHECK ((granted > 0)),
    CONSTRAINT lot_held_check CHECK ((held >= 0)),
    CONSTRAINT lot_source_check CHECK ((source = ANY (ARRAY['plan'::text, 'topup'::text, 'promo'::text, 'refund'::text])))
)
WITH (fillfactor='50');
CREATE TABLE ledger.operation (
    account_id text NOT NULL,
    sequence bigint NOT NULL,
    operation_id uuid NOT NULL,
    tenant_id text NOT NULL,
    kind text NOT NULL,
    outcome text NOT NULL,
    code text NOT NULL,
    decided_by text NOT NULL,
    units bigint NOT NULL,
    source text NOT NULL,
    target text NOT NULL,
    moved bigint NOT NULL,
    shortfall bigint NOT NULL,
    held bigint NOT NULL,
    leased bigint NOT NULL,
    overage bigint NOT NULL,
    overage_held bigint NOT NULL,
    lot_ids uuid[] NOT NULL,
    lot_consumed bigint[] NOT NULL,
    lot_held bigint[] NOT NULL,
    limit_ids text[] NOT NULL,
    limit_used bigint[] NOT NULL,
    limit_held bigint[] NOT NULL,
    available bigint NOT NULL,
    balance_after bigint NOT NULL,
    hold_id uuid,
    epoch integer NOT NULL,
    due_at bigint,
    run_id text NOT NULL,
    refers_to uuid,
    reason text NOT NULL,
    details text NOT NULL,
    key_hash uuid,
    digest uuid,
    posted_at bigint NOT NULL,
    transaction bigint DEFAULT ((pg_current_xact_id())::text)::bigint NOT NULL,
    CONSTRAINT a_decline_moves_nothing CHECK (((outcome = 'posted'::text) OR ((moved = 0) AND (held = 0) AND (leased = 0) AND (lot_ids = '{}'::uuid[]) AND (limit_ids = '{}'::text[])))),
    CONSTRAINT inv_01_a_transfer_has_two_sides CHECK (
CASE
    WHEN (moved = 0) THEN ((source = ''::text) AND (target = ''::text))
    ELSE ((source <> target) AND ((account_id = source) OR (account_id = target)))
END),
    CONSTRAINT operation_kind_check CHECK ((kind = ANY (ARRAY['settings'::text, 'grant'::text, 'charge'::text, 'refund'::text, 'lot_expiry'::text, 'hold'::text, 'start'::text, 'extend'::text, 'capture'::text, 'release'::text, 'hold_expiry'::text, 'unknown'::text, 'resolve'::text, 'settle'::text, 'lease'::text, 'report'::text, 'return'::text, 'repair'::text]))),
    CONSTRAINT operation_moved_check CHECK ((moved >= 0)),
    CONSTRAINT operation_outcome_check CHECK ((outcome = ANY (ARRAY['posted'::text, 'declined'::text]))),
    CONSTRAINT operation_sequence_check CHECK ((sequence > 0)),
    CONSTRAINT operation_shortfall_check CHECK ((shortfall >= 0)),
    CONSTRAINT operation_units_check CHECK ((units >= 0))
);
CREATE TABLE ledger.run_charge (
    tenant_id text NOT NULL,
    run_id text NOT NULL,
    account_id text NOT NULL,
    target bigint NOT NULL,
    charged bigint NOT NULL,
    shortfall bigint NOT NULL,
    refunded bigint DEFAULT 0 NOT NULL,
    captured bigint DEFAULT 0 NOT NULL,
    has_facts boolean DEFAULT false NOT NULL,
    is_stale boolean DEFAULT false NOT NULL,
    revision integer NOT NULL,
    updated_at bigint NOT NULL,
    CONSTRAINT run_charge_captured_check CHECK ((captured >= 0)),
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
CREATE TABLE log.lease (
    name text NOT NULL,
    owner text NOT NULL,
    epoch bigint DEFAULT 1 NOT NULL,
    expires_at timestamp with time zone NOT NULL
)
WITH (fillfactor='50');
CREATE TABLE public.schema_migration (
    name text NOT NULL,
    digest text NOT NULL,
    applied_at timestamp with time zone DEFAULT now() NOT NULL
);
ALTER TABLE ONLY backfill.backfill
    ADD CONSTRAINT backfill_idempotency_key_key UNIQUE (idempotency_key);
ALTER TABLE ONLY backfill.backfill
    ADD CONSTRAINT backfill_pkey PRIMARY KEY (backfill_id);
ALTER TABLE ONLY backfill.report_line
    ADD CONSTRAINT report_line_pkey PRIMARY KEY (backfill_id, piece, tenant_id, model);
ALTER TABLE ONLY backfill.report_run
    ADD CONSTRAINT report_run_pkey PRIMARY KEY (backfill_id, piece, tenant_id, charge_key);
ALTER TABLE ONLY broken.action
    ADD CONSTRAINT action_pkey PRIMARY KEY (action_id);
ALTER TABLE ONLY broken.state
    ADD CONSTRAINT state_pkey PRIMARY KEY (tenant_id, broken_id);
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
ALTER TABLE ONLY enforcement.vault_run
    ADD CONSTRAINT vault_run_pkey PRIMARY KEY (limit_id, source_key);
ALTER TABLE ONLY enforcement.vault_scope
    ADD CONSTRAINT vault_scope_pkey PRIMARY KEY (scope_key);
ALTER TABLE ONLY enforcement.vault_seen
    ADD CONSTRAINT vault_seen_pkey PRIMARY KEY (partition, offset_start);
ALTER TABLE ONLY enforcement.vault_spend
    ADD CONSTRAINT vault_spend_pkey PRIMARY KEY (scope_key, bucket_at);
ALTER TABLE ONLY enforcement.vault_watch
    ADD CONSTRAINT vault_watch_pkey PRIMARY KEY (limit_id);
ALTER TABLE ONLY ledger.account
    ADD CONSTRAINT account_pkey PRIMARY KEY (account_id);
ALTER TABLE ONLY ledger.balance
    ADD CONSTRAINT balance_pkey PRIMARY KEY (account_id);
ALTER TABLE ONLY ledger.block
    ADD CONSTRAINT block_hash_key UNIQUE (hash);
ALTER TABLE ONLY ledger.block
    ADD CONSTRAINT block_pkey PRIMARY KEY (block_number);
ALTER TABLE ONLY ledger.hold
    ADD CONSTRAINT hold_pkey PRIMARY KEY (hold_id);
ALTER TABLE ONLY ledger.run_charge
    ADD CONSTRAINT inv_05_one_charge_per_run PRIMARY KEY (tenant_id, run_id);
ALTER TABLE ONLY ledger.limit_window
    ADD CONSTRAINT limit_window_pkey PRIMARY KEY (limit_id);
ALTER TABLE ONLY ledger.lot
    ADD CONSTRAINT lot_pkey PRIMARY KEY (lot_id);
ALTER TABLE ONLY ledger.operation
    ADD CONSTRAINT operation_operation_id_key UNIQUE (operation_id);
ALTER TABLE ONLY ledger.operation
    ADD CONSTRAINT operation_pkey PRIMARY KEY (account_id, sequence);
ALTER TABLE ONLY log.batch
    ADD CONSTRAINT batch_pkey PRIMARY KEY (partition, offset_start);
ALTER TABLE ONLY log.follower
    ADD CONSTRAINT follower_pkey PRIMARY KEY (follower, partition);
ALTER TABLE ONLY log.head
    ADD CONSTRAINT head_pkey PRIMARY KEY (partition);
ALTER TABLE ONLY log.lease
    ADD CONSTRAINT lease_pkey PRIMARY KEY (name);
ALTER TABLE ONLY public.schema_migration
    ADD CONSTRAINT schema_migration_pkey PRIMARY KEY (name);
CREATE INDEX backfill_open ON backfill.backfill USING btree (created_at) WHERE (status = ANY (ARRAY['planned'::text, 'running'::text]));
CREATE UNIQUE INDEX one_revert_at_a_time ON backfill.backfill USING btree (reverts) WHERE ((reverts <> ''::text) AND (status <> ALL (ARRAY['failed'::text, 'reverted'::text])));
CREATE INDEX action_by_message ON broken.action USING btree (broken_id, action_id);
CREATE INDEX state_by_id ON broken.state USING btree (broken_id);
CREATE INDEX pending_run_due ON charger.pending_run USING btree (shard, has_ended, touched_at);
CREATE INDEX vault_run_due ON enforcement.vault_run USING btree (limit_id, source_key) WHERE is_due;
CREATE INDEX vault_scope_of_project ON enforcement.vault_scope USING btree (tenant_id, project_id);
CREATE INDEX vault_scope_of_team ON enforcement.vault_scope USING btree (tenant_id, team);
CREATE INDEX vault_scope_of_user ON enforcement.vault_scope USING btree (tenant_id, user_id);
CREATE INDEX vault_seen_by_age ON enforcement.vault_seen USING btree (seen_at);
CREATE INDEX account_of_tenant ON ledger.account USING btree (tenant_id, created_at, account_id);
CREATE INDEX hold_due ON ledger.hold USING btree (due_at);
CREATE INDEX hold_of_account ON ledger.hold USING btree (account_id);
CREATE INDEX hold_of_run ON ledger.hold USING btree (tenant_id, run_id) WHERE (run_id <> ''::text);
CREATE UNIQUE INDEX inv_04_one_outcome_per_key ON ledger.operation USING btree (key_hash);
CREATE UNIQUE INDEX inv_07_one_resolution_per_hold ON ledger.operation USING btree (hold_id) WHERE ((outcome = 'posted'::text) AND (kind = ANY (ARRAY['capture'::text, 'release'::text, 'hold_expiry'::text, 'resolve'::text, 'return'::text])));
CREATE INDEX lot_expiring ON ledger.lot USING btree (expires_at) WHERE ((NOT is_spent) AND (expires_at IS NOT NULL));
CREATE INDEX lot_of_account ON ledger.lot USING btree (account_id, created_at);
CREATE INDEX lot_unspent ON ledger.lot USING btree (account_id) WHERE (NOT is_spent);
CREATE UNIQUE INDEX one_late_settle_per_hold ON ledger.operation USING btree (hold_id) WHERE ((outcome = 'posted'::text) AND (kind = 'settle'::text));
CREATE INDEX operation_by_transaction ON ledger.operation USING btree (transaction);
CREATE INDEX operation_of_run ON ledger.operation USING btree (tenant_id, run_id, posted_at) WHERE (run_id <> ''::text);
CREATE INDEX operation_refers_to ON ledger.operation USING btree (refers_to) WHERE (refers_to IS NOT NULL);
CREATE INDEX run_charge_stale ON ledger.run_charge USING btree (updated_at) WHERE is_stale;
CREATE TRIGGER report_line_is_append_only BEFORE DELETE OR UPDATE OR TRUNCATE ON backfill.report_line FOR EACH STATEMENT EXECUTE FUNCTION log.refuse_change();
CREATE TRIGGER report_run_is_append_only BEFORE DELETE OR UPDATE OR TRUNCATE ON backfill.report_run FOR EACH STATEMENT EXECUTE FUNCTION log.refuse_change();
CREATE TRIGGER action_is_append_only BEFORE DELETE OR UPDATE OR TRUNCATE ON broken.action FOR EACH STATEMENT EXECUTE FUNCTION log.refuse_change();
CREATE TRIGGER version_is_append_only BEFORE DELETE OR UPDATE OR TRUNCATE ON catalog.rate_card_version FOR EACH STATEMENT EXECUTE FUNCTION log.refuse_change();
CREATE TRIGGER balance_is_never_deleted BEFORE DELETE OR TRUNCATE ON ledger.balance FOR EACH STATEMENT EXECUTE FUNCTION log.refuse_change();
CREATE TRIGGER block_is_append_only BEFORE DELETE OR UPDATE OR TRUNCATE ON ledger.block FOR EACH STATEMENT EXECUTE FUNCTION log.refuse_change();
CREATE TRIGGER lot_is_never_deleted BEFORE DELETE OR TRUNCATE ON ledger.lot FOR EACH STATEMENT EXECUTE FUNCTION log.refuse_change();
CREATE TRIGGER operation_is_append_only BEFORE DELETE OR UPDATE OR TRUNCATE ON ledger.operation FOR EACH STATEMENT EXECUTE FUNCTION log.refuse_change();
CREATE TRIGGER run_charge_is_never_deleted BEFORE DELETE OR TRUNCATE ON ledger.run_charge FOR EACH STATEMENT EXECUTE FUNCTION log.refuse_change();
CREATE TRIGGER batch_is_append_only BEFORE DELETE OR UPDATE OR TRUNCATE ON log.batch FOR EACH STATEMENT EXECUTE FUNCTION log.refuse_change();
ALTER TABLE ONLY backfill.report_line
    ADD CONSTRAINT report_line_backfill_id_fkey FOREIGN KEY (backfill_id) REFERENCES backfill.backfill(backfill_id);
ALTER TABLE ONLY backfill.report_run
    ADD CONSTRAINT report_run_backfill_id_fkey FOREIGN KEY (backfill_id) REFERENCES backfill.backfill(backfill_id);
ALTER TABLE ONLY catalog.rate_card_version
    ADD CONSTRAINT rate_card_version_rate_card_id_fkey FOREIGN KEY (rate_card_id) REFERENCES catalog.rate_card(rate_card_id);
