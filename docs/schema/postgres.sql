CREATE SCHEMA access;
CREATE SCHEMA audit;
CREATE SCHEMA backfill;
CREATE SCHEMA broken;
CREATE SCHEMA calls;
CREATE SCHEMA catalog;
CREATE SCHEMA charger;
CREATE SCHEMA enforcement;
CREATE SCHEMA gateway;
CREATE SCHEMA ledger;
CREATE SCHEMA log;
CREATE FUNCTION access.note_change() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    UPDATE access.change SET version = version + 1;
    RETURN NULL;
END $$;
CREATE FUNCTION log.refuse_a_horizon_that_goes_back() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    IF TG_OP = 'INSERT' AND EXISTS (
        SELECT FROM log.horizon WHERE horizon_at >= NEW.horizon_at) THEN
        RAISE EXCEPTION 'the horizon never goes back'
            USING ERRCODE = 'integrity_constraint_violation';
    ELSIF TG_OP = 'UPDATE' AND (OLD.ends IS NOT NULL OR NEW.ends IS NULL
        OR NEW.horizon_at <> OLD.horizon_at OR NEW.closes_at <> OLD.closes_at) THEN
        RAISE EXCEPTION 'of a horizon only its ends are set, once'
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE FUNCTION log.refuse_change() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    RAISE EXCEPTION 'history is append-only: % on %.% is refused',
        TG_OP, TG_TABLE_SCHEMA, TG_TABLE_NAME USING ERRCODE = 'integrity_constraint_violation';
END $$;
CREATE TABLE access.change (
    is_only boolean DEFAULT true NOT NULL,
    version bigint NOT NULL,
    CONSTRAINT change_is_only_check CHECK (is_only)
);
CREATE TABLE access.credential (
    credential_id text NOT NULL,
    kind text NOT NULL,
    prefix text NOT NULL,
    tenant_id text NOT NULL,
    name text NOT NULL,
    roles text[] NOT NULL,
    scopes text[] NOT NULL,
    account_id text NOT NULL,
    service_id text NOT NULL,
    cost_center text NOT NULL,
    tier text NOT NULL,
    attribution jsonb NOT NULL,
    models text[] NOT NULL,
    addresses text[] NOT NULL,
    hash bytea NOT NULL,
    old_hash bytea,
    old_until bigint,
    expires_at bigint,
    revoked_at bigint,
    created_at bigint NOT NULL,
    created_by text NOT NULL,
    CONSTRAINT credential_check CHECK (((old_hash IS NULL) = (old_until IS NULL))),
    CONSTRAINT credential_hash_check CHECK ((length(hash) = 32)),
    CONSTRAINT credential_kind_check CHECK ((kind = ANY (ARRAY['key'::text, 'client'::text]))),
    CONSTRAINT credential_old_hash_check CHECK ((length(old_hash) = 32)),
    CONSTRAINT credential_prefix_check CHECK ((prefix ~ '^[a-z0-9]{8}$'::text))
);
ALTER TABLE ONLY access.credential FORCE ROW LEVEL SECURITY;
CREATE TABLE access.credential_use (
    credential_id text NOT NULL,
    used_at bigint NOT NULL
)
WITH (fillfactor='50');
CREATE TABLE access.identity_provider (
    provider_id text NOT NULL,
    tenant_id text NOT NULL,
    issuer text NOT NULL,
    audience text NOT NULL,
    jwks_url text NOT NULL,
    jwks text NOT NULL,
    algorithms text[] NOT NULL,
    tenant_claim text NOT NULL,
    roles_claim text NOT NULL,
    role_map jsonb NOT NULL,
    default_roles text[] NOT NULL,
    attribution_claims jsonb NOT NULL,
    created_at bigint NOT NULL,
    created_by text NOT NULL,
    CONSTRAINT identity_provider_check CHECK (((tenant_id <> ''::text) OR (tenant_claim <> ''::text))),
    CONSTRAINT identity_provider_check1 CHECK (((jwks_url = ''::text) <> (jwks = ''::text)))
);
ALTER TABLE ONLY access.identity_provider FORCE ROW LEVEL SECURITY;
CREATE TABLE access.signing_key (
    key_id text NOT NULL,
    public_key text NOT NULL,
    sealed bytea NOT NULL,
    created_at bigint NOT NULL
);
CREATE TABLE audit.record (
    record_id bigint NOT NULL,
    at bigint NOT NULL,
    tenant_id text NOT NULL,
    subject text NOT NULL,
    service_id text NOT NULL,
    cost_center text NOT NULL,
    method text NOT NULL,
    route text NOT NULL,
    target text NOT NULL,
    status smallint NOT NULL,
    decision text NOT NULL,
    code text NOT NULL,
    remote text NOT NULL,
    requests integer NOT NULL,
    duration_us integer NOT NULL,
    transaction bigint DEFAULT ((pg_current_xact_id())::text)::bigint NOT NULL,
    CONSTRAINT record_decision_check CHECK ((decision = ANY (ARRAY['allowed'::text, 'denied'::text, 'failed'::text]))),
    CONSTRAINT record_requests_check CHECK ((requests > 0))
);
ALTER TABLE ONLY audit.record FORCE ROW LEVEL SECURITY;
ALTER TABLE audit.record ALTER COLUMN record_id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME audit.record_record_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
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
ALTER TABLE ONLY backfill.backfill FORCE ROW LEVEL SECURITY;
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
ALTER TABLE ONLY backfill.report_line FORCE ROW LEVEL SECURITY;
CREATE TABLE backfill.report_run (
    backfill_id text NOT NULL,
    piece integer NOT NULL,
    tenant_id text NOT NULL,
    charge_key text NOT NULL,
    corrected bigint NOT NULL,
    cost_units bigint NOT NULL,
    credit_units bigint NOT NULL
);
ALTER TABLE ONLY backfill.report_run FORCE ROW LEVEL SECURITY;
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
ALTER TABLE ONLY broken.action FORCE ROW LEVEL SECURITY;
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
ALTER TABLE ONLY broken.state FORCE ROW LEVEL SECURITY;
CREATE TABLE calls.judged (
    hold_id uuid NOT NULL,
    tenant_id text NOT NULL,
    run_id text NOT NULL,
    verdict text NOT NULL,
    event_id text NOT NULL,
    judged_at bigint NOT NULL,
    CONSTRAINT judged_verdict_check CHECK ((verdict = ANY (ARRAY['found'::text, 'captured'::text, 'released'::text])))
);
ALTER TABLE ONLY calls.judged FORCE ROW LEVEL SECURITY;
CREATE TABLE calls.run_budget (
    tenant_id text NOT NULL,
    run_id text NOT NULL,
    limit_id text NOT NULL,
    asset text NOT NULL,
    amount bigint NOT NULL,
    changed_at bigint NOT NULL,
    CONSTRAINT run_budget_amount_check CHECK ((amount >= 0)),
    CONSTRAINT run_budget_asset_check CHECK ((asset = ANY (ARRAY['CREDIT/6'::text, 'USD/9'::text]))),
    CONSTRAINT run_budget_run_id_check CHECK (((length(run_id) >= 1) AND (length(run_id) <= 128))),
    CONSTRAINT run_budget_tenant_id_check CHECK (((length(tenant_id) >= 1) AND (length(tenant_id) <= 128)))
);
ALTER TABLE ONLY calls.run_budget FORCE ROW LEVEL SECURITY;
CREATE TABLE catalog.rate_card (
    rate_card_id text NOT NULL,
    kind text NOT NULL,
    tenant_id text DEFAULT ''::text NOT NULL,
    CONSTRAINT rate_card_kind_check CHECK ((kind = ANY (ARRAY['cost'::text, 'credit'::text]))),
    CONSTRAINT rate_card_rate_card_id_check CHECK (((length(rate_card_id) >= 1) AND (length(rate_card_id) <= 128)))
);
ALTER TABLE ONLY catalog.rate_card FORCE ROW LEVEL SECURITY;
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
    shard smallint GENERATED ALWAYS AS ((abs((hashtextextended(((tenant_id || ' '::text) || charge_key), (0)::bigint) % (8)::bigint)))::smallint) STORED NOT NULL,
    refused_at bigint DEFAULT 0 NOT NULL,
    refusal text DEFAULT ''::text NOT NULL
)
WITH (fillfactor='70');
ALTER TABLE ONLY charger.pending_run FORCE ROW LEVEL SECURITY;
CREATE TABLE enforcement.alert (
    alert_id text DEFAULT ('alr_'::text || replace((gen_random_uuid())::text, '-'::text, ''::text)) NOT NULL,
    tenant_id text NOT NULL,
    signal_id text NOT NULL,
    kind text NOT NULL,
    severity text NOT NULL,
    who text NOT NULL,
    what text NOT NULL,
    how_much text NOT NULL,
    since bigint NOT NULL,
    next_step text NOT NULL,
    how_to_stop text NOT NULL,
    status text DEFAULT 'open'::text NOT NULL,
    opened_at bigint NOT NULL,
    last_seen_at bigint NOT NULL,
    times_seen bigint DEFAULT 1 NOT NULL,
    cleared_at bigint,
    due_at bigint,
    noticed_at bigint,
    step integer DEFAULT '-1'::integer NOT NULL,
    announced_severity text DEFAULT ''::text NOT NULL,
    announcements integer DEFAULT 0 NOT NULL,
    acknowledged_at bigint,
    acknowledged_by text DEFAULT ''::text NOT NULL,
    CONSTRAINT alert_check CHECK (((status = 'cleared'::text) = (cleared_at IS NOT NULL))),
    CONSTRAINT alert_severity_check CHECK ((severity = ANY (ARRAY['info'::text, 'warning'::text, 'critical'::text]))),
    CONSTRAINT alert_status_check CHECK ((status = ANY (ARRAY['open'::text, 'cleared'::text])))
)
WITH (fillfactor='70');
ALTER TABLE ONLY enforcement.alert FORCE ROW LEVEL SECURITY;
CREATE TABLE enforcement.alert_action (
    action_id bigint NOT NULL,
    tenant_id text NOT NULL,
    alert_id text NOT NULL,
    kind text NOT NULL,
    reason text NOT NULL,
    until_at bigint,
    acted_at bigint NOT NULL,
    acted_by text NOT NULL,
    CONSTRAINT alert_action_kind_check CHECK ((kind = ANY (ARRAY['acknowledge'::text, 'mute'::text, 'unmute'::text])))
);
ALTER TABLE ONLY enforcement.alert_action FORCE ROW LEVEL SECURITY;
ALTER TABLE enforcement.alert_action ALTER COLUMN action_id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME enforcement.alert_action_action_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE enforcement.alert_attempt (
    delivery_id text NOT NULL,
    attempt integer NOT NULL,
    started_at bigint NOT NULL,
    latency_ms integer NOT NULL,
    outcome text NOT NULL,
    answer integer NOT NULL,
    error text NOT NULL,
    CONSTRAINT alert_attempt_outcome_check CHECK ((outcome = ANY (ARRAY['sent'::text, 'retry'::text, 'failed'::text])))
);
CREATE TABLE enforcement.alert_channel (
    channel_id text NOT NULL,
    tenant_id text NOT NULL,
    name text NOT NULL,
    kind text NOT NULL,
    target bytea NOT NULL,
    target_shown text NOT NULL,
    secret bytea,
    secret_before bytea,
    secret_before_until bigint DEFAULT 0 NOT NULL,
    is_enabled boolean DEFAULT true NOT NULL,
    disabled_because text DEFAULT ''::text NOT NULL,
    created_at bigint NOT NULL,
    created_by text NOT NULL,
    deleted_at bigint,
    CONSTRAINT alert_channel_kind_check CHECK ((kind = ANY (ARRAY['webhook'::text, 'email'::text, 'slack'::text])))
);
ALTER TABLE ONLY enforcement.alert_channel FORCE ROW LEVEL SECURITY;
CREATE TABLE enforcement.alert_delivery (
    delivery_id text NOT NULL,
    tenant_id text NOT NULL,
    alert_id text,
    announcement integer NOT NULL,
    channel_id text NOT NULL,
    step integer NOT NULL,
    reason text NOT NULL,
    message jsonb NOT NULL,
    status text DEFAULT 'pending'::text NOT NULL,
    attempts integer DEFAULT 0 NOT NULL,
    due_at bigint NOT NULL,
    created_at bigint NOT NULL,
    sequence bigint NOT NULL,
    CONSTRAINT alert_delivery_reason_check CHECK ((reason = ANY (ARRAY['opened'::text, 'worse'::text, 'lasting'::text, 'recovered'::text, 'test'::text]))),
    CONSTRAINT alert_delivery_status_check CHECK ((status = ANY (ARRAY['pending'::text, 'sent'::text, 'failed'::text])))
)
WITH (fillfactor='70');
ALTER TABLE ONLY enforcement.alert_delivery FORCE ROW LEVEL SECURITY;
ALTER TABLE enforcement.alert_delivery ALTER COLUMN sequence ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME enforcement.alert_delivery_sequence_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE enforcement.alert_mute (
    tenant_id text NOT NULL,
    signal_id text NOT NULL,
    muted_until bigint NOT NULL,
    muted_by text NOT NULL,
    reason text NOT NULL
);
ALTER TABLE ONLY enforcement.alert_mute FORCE ROW LEVEL SECURITY;
CREATE TABLE enforcement.alert_route (
    tenant_id text NOT NULL,
    route_id text NOT NULL,
    "position" integer NOT NULL,
    severities text[] NOT NULL,
    kinds text[] NOT NULL,
    scope text NOT NULL,
    steps jsonb NOT NULL,
    created_at bigint NOT NULL,
    created_by text NOT NULL
);
ALTER TABLE ONLY enforcement.alert_route FORCE ROW LEVEL SECURITY;
CREATE TABLE enforcement.budget (
    tenant_id text NOT NULL,
    budget_id text NOT NULL,
    revision integer NOT NULL,
    status text NOT NULL,
    content jsonb NOT NULL,
    edit bigint NOT NULL,
    created_at bigint NOT NULL,
    changed_at bigint NOT NULL,
    changed_by text NOT NULL,
    CONSTRAINT budget_budget_id_check CHECK ((budget_id ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$'::text)),
    CONSTRAINT budget_revision_check CHECK ((revision > 0)),
    CONSTRAINT budget_status_check CHECK ((status = ANY (ARRAY['active'::text, 'paused'::text, 'deleted'::text])))
);
ALTER TABLE ONLY enforcement.budget FORCE ROW LEVEL SECURITY;
CREATE TABLE enforcement.budget_crossing (
    limit_id text NOT NULL,
    at numeric NOT NULL,
    total bigint NOT NULL,
    crossed_at bigint NOT NULL,
    cleared_at bigint
);
CREATE TABLE enforcement.budget_edits (
    is_one boolean DEFAULT true NOT NULL,
    edits bigint NOT NULL,
    CONSTRAINT budget_edits_is_one_check CHECK (is_one)
);
CREATE TABLE enforcement.budget_revision (
    tenant_id text NOT NULL,
    budget_id text NOT NULL,
    revision integer NOT NULL,
    status text NOT NULL,
    content jsonb NOT NULL,
    changed_at bigint NOT NULL,
    changed_by text NOT NULL
);
ALTER TABLE ONLY enforcement.budget_revision FORCE ROW LEVEL SECURITY;
CREATE TABLE enforcement.budget_window (
    limit_id text NOT NULL,
    tenant_id text NOT NULL,
    budget_id text NOT NULL,
    each jsonb NOT NULL,
    start_at bigint NOT NULL,
    end_at bigint,
    carried bigint NOT NULL,
    CONSTRAINT budget_window_carried_check CHECK ((carried >= 0))
);
ALTER TABLE ONLY enforcement.budget_window FORCE ROW LEVEL SECURITY;
CREATE TABLE enforcement.mitigation (
    mitigation_id text NOT NULL,
    tenant_id text NOT NULL,
    scope jsonb NOT NULL,
    step text NOT NULL,
    per_minute integer DEFAULT 0 NOT NULL,
    downgrade_to text DEFAULT ''::text NOT NULL,
    reason text NOT NULL,
    overrun_id text DEFAULT ''::text NOT NULL,
    idempotency_key text DEFAULT ''::text NOT NULL,
    starts_at bigint NOT NULL,
    expires_at bigint NOT NULL,
    ended_at bigint,
    created_by text NOT NULL,
    CONSTRAINT mitigation_step_check CHECK ((step = ANY (ARRAY['throttle'::text, 'downgrade'::text, 'block'::text, 'kill'::text])))
);
ALTER TABLE ONLY enforcement.mitigation FORCE ROW LEVEL SECURITY;
CREATE TABLE enforcement.mitigation_event (
    event_id bigint NOT NULL,
    mitigation_id text NOT NULL,
    tenant_id text NOT NULL,
    kind text NOT NULL,
    step text NOT NULL,
    scope jsonb NOT NULL,
    reason text NOT NULL,
    acted_at bigint NOT NULL,
    acted_by text NOT NULL,
    CONSTRAINT mitigation_event_kind_check CHECK ((kind = ANY (ARRAY['applied'::text, 'undone'::text, 'expired'::text])))
);
ALTER TABLE ONLY enforcement.mitigation_event FORCE ROW LEVEL SECURITY;
ALTER TABLE enforcement.mitigation_event ALTER COLUMN event_id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME enforcement.mitigation_event_event_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE enforcement.mitigation_policy (
    tenant_id text NOT NULL,
    dimension text DEFAULT ''::text NOT NULL,
    value text DEFAULT ''::text NOT NULL,
    steps jsonb NOT NULL,
    changed_at bigint NOT NULL,
    changed_by text NOT NULL
);
ALTER TABLE ONLY enforcement.mitigation_policy FORCE ROW LEVEL SECURITY;
CREATE TABLE enforcement.mitigation_revision (
    only_row boolean DEFAULT true NOT NULL,
    revision bigint NOT NULL,
    CONSTRAINT mitigation_revision_only_row_check CHECK (only_row)
);
CREATE TABLE enforcement.overrun (
    overrun_id text NOT NULL,
    tenant_id text NOT NULL,
    kind text NOT NULL,
    dimension text NOT NULL,
    value text NOT NULL,
    severity text NOT NULL,
    detector text NOT NULL,
    since bigint NOT NULL,
    seen_at bigint NOT NULL,
    last_at bigint NOT NULL,
    closed_at bigint,
    observed_units bigint NOT NULL,
    expected_units bigint NOT NULL,
    excess_units bigint NOT NULL,
    detail text NOT NULL,
    CONSTRAINT overrun_kind_check CHECK ((kind = ANY (ARRAY['burn_rate'::text, 'outlier'::text, 'error_storm'::text, 'retry_storm'::text]))),
    CONSTRAINT overrun_severity_check CHECK ((severity = ANY (ARRAY['info'::text, 'warning'::text, 'critical'::text])))
);
ALTER TABLE ONLY enforcement.overrun FORCE ROW LEVEL SECURITY;
CREATE TABLE enforcement.planned_launch (
    launch_id text NOT NULL,
    tenant_id text NOT NULL,
    dimension text NOT NULL,
    value text NOT NULL,
    from_at bigint NOT NULL,
    to_at bigint NOT NULL,
    factor numeric NOT NULL,
    extra_units bigint NOT NULL,
    reason text NOT NULL,
    created_at bigint NOT NULL,
    created_by text NOT NULL,
    withdrawn_at bigint
);
ALTER TABLE ONLY enforcement.planned_launch FORCE ROW LEVEL SECURITY;
CREATE TABLE enforcement.rate_bucket (
    bucket_id text NOT NULL,
    level bigint NOT NULL,
    filled_at bigint NOT NULL
)
WITH (fillfactor='50');
CREATE TABLE enforcement.rate_limit (
    limit_id text NOT NULL,
    tenant_id text NOT NULL,
    kind text NOT NULL,
    name text NOT NULL,
    asset text NOT NULL,
    per_minute bigint NOT NULL,
    burst bigint NOT NULL,
    weight integer NOT NULL,
    changed_at bigint NOT NULL,
    changed_by text NOT NULL,
    CONSTRAINT rate_limit_asset_check CHECK ((asset = ANY (ARRAY['requests'::text, 'tokens'::text]))),
    CONSTRAINT rate_limit_burst_check CHECK (((burst >= 1) AND (burst <= 1000000000))),
    CONSTRAINT rate_limit_kind_check CHECK ((kind = ANY (ARRAY['global'::text, 'tenant'::text, 'tier'::text, 'service'::text, 'key'::text]))),
    CONSTRAINT rate_limit_per_minute_check CHECK (((per_minute >= 1) AND (per_minute <= 1000000000))),
    CONSTRAINT rate_limit_weight_check CHECK (((weight >= 1) AND (weight <= 1000)))
);
ALTER TABLE ONLY enforcement.rate_limit FORCE ROW LEVEL SECURITY;
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
ALTER TABLE ONLY enforcement.vault_scope FORCE ROW LEVEL SECURITY;
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
ALTER TABLE ONLY enforcement.vault_run FORCE ROW LEVEL SECURITY;
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
    ends_at bigint,
    watched_at bigint NOT NULL
);
CREATE TABLE gateway.provider_key (
    tenant_id text NOT NULL,
    upstream text NOT NULL,
    sealed bytea NOT NULL,
    last_four text NOT NULL,
    set_at bigint NOT NULL,
    set_by text NOT NULL
);
ALTER TABLE ONLY gateway.provider_key FORCE ROW LEVEL SECURITY;
CREATE TABLE gateway.provider_key_revision (
    only_row boolean DEFAULT true NOT NULL,
    revision bigint NOT NULL,
    CONSTRAINT provider_key_revision_only_row_check CHECK (only_row)
);
CREATE TABLE ledger.account (
    account_id text NOT NULL,
    tenant_id text NOT NULL,
    asset text DEFAULT 'CREDIT/6'::text NOT NULL,
    created_at bigint NOT NULL,
    CONSTRAINT account_account_id_check CHECK (((length(account_id) >= 1) AND (length(account_id) <= 128))),
    CONSTRAINT account_tenant_id_check CHECK (((length(tenant_id) >= 1) AND (length(tenant_id) <= 128)))
);
ALTER TABLE ONLY ledger.account FORCE ROW LEVEL SECURITY;
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
ALTER TABLE ONLY ledger.balance FORCE ROW LEVEL SECURITY;
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
ALTER TABLE ONLY ledger.hold FORCE ROW LEVEL SECURITY;
CREATE TABLE ledger.limit_slice (
    limit_id text NOT NULL,
    slice_at bigint NOT NULL,
    used bigint NOT NULL
);
CREATE TABLE ledger.limit_usage (
    limit_id text NOT NULL,
    source_key text NOT NULL,
    units bigint NOT NULL,
    CONSTRAINT limit_usage_source_key_check CHECK (((length(source_key) >= 1) AND (length(source_key) <= 256))),
    CONSTRAINT limit_usage_units_check CHECK ((units >= 0))
)
WITH (fillfactor='80');
CREATE TABLE ledger.limit_window (
    limit_id text NOT NULL,
    asset text NOT NULL,
    capacity bigint NOT NULL,
    used bigint DEFAULT 0 NOT NULL,
    held bigint DEFAULT 0 NOT NULL,
    overrun bigint DEFAULT 0 NOT NULL,
    kind text DEFAULT 'hard'::text NOT NULL,
    let_through bigint DEFAULT 0 NOT NULL,
    rolled bigint DEFAULT 0 NOT NULL,
    slice_micros bigint,
    slices integer,
    rolls_at bigint,
    CONSTRAINT inv_03_window_not_over_capacity CHECK ((((used + held) - overrun) <= capacity)),
    CONSTRAINT limit_window_capacity_check CHECK ((capacity >= 0)),
    CONSTRAINT limit_window_held_check CHECK ((held >= 0)),
    CONSTRAINT limit_window_kind_check CHECK ((kind = ANY (ARRAY['hard'::text, 'soft'::text, 'shadow'::text]))),
    CONSTRAINT limit_window_limit_id_check CHECK (((length(limit_id) >= 1) AND (length(limit_id) <= 256))),
    CONSTRAINT limit_window_overrun_check CHECK ((overrun >= 0)),
    CONSTRAINT limit_window_slice_micros_check CHECK ((slice_micros > 0)),
    CONSTRAINT limit_window_slices_check CHECK ((slices > 0)),
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
ALTER TABLE ONLY ledger.lot FORCE ROW LEVEL SECURITY;
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
ALTER TABLE ONLY ledger.operation FORCE ROW LEVEL SECURITY;
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
ALTER TABLE ONLY ledger.run_charge FORCE ROW LEVEL SECURITY;
CREATE TABLE log.batch (
    partition smallint NOT NULL,
    offset_start bigint NOT NULL,
    event_count integer NOT NULL,
    received_at bigint NOT NULL,
    payload bytea NOT NULL,
    CONSTRAINT batch_event_count_check CHECK ((event_count > 0))
);
ALTER TABLE ONLY log.batch ALTER COLUMN payload SET STORAGE EXTERNAL;
CREATE TABLE log.beginning (
    follower text NOT NULL,
    partition smallint NOT NULL,
    first_offset bigint NOT NULL,
    CONSTRAINT beginning_first_offset_check CHECK ((first_offset >= 0))
);
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
CREATE TABLE log.horizon (
    horizon_at bigint NOT NULL,
    closes_at bigint NOT NULL,
    ends jsonb,
    CONSTRAINT horizon_is_a_month CHECK ((((horizon_at % (1000000)::bigint) = 0) AND (date_trunc('month'::text, (to_timestamp(((horizon_at / 1000000))::double precision) AT TIME ZONE 'UTC'::text)) = (to_timestamp(((horizon_at / 1000000))::double precision) AT TIME ZONE 'UTC'::text))))
);
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
ALTER TABLE ONLY access.change
    ADD CONSTRAINT change_pkey PRIMARY KEY (is_only);
ALTER TABLE ONLY access.credential
    ADD CONSTRAINT credential_pkey PRIMARY KEY (credential_id);
ALTER TABLE ONLY access.credential
    ADD CONSTRAINT credential_prefix_key UNIQUE (prefix);
ALTER TABLE ONLY access.credential_use
    ADD CONSTRAINT credential_use_pkey PRIMARY KEY (credential_id);
ALTER TABLE ONLY access.identity_provider
    ADD CONSTRAINT identity_provider_issuer_audience_key UNIQUE (issuer, audience);
ALTER TABLE ONLY access.identity_provider
    ADD CONSTRAINT identity_provider_pkey PRIMARY KEY (provider_id);
ALTER TABLE ONLY access.signing_key
    ADD CONSTRAINT signing_key_pkey PRIMARY KEY (key_id);
ALTER TABLE ONLY audit.record
    ADD CONSTRAINT record_pkey PRIMARY KEY (record_id);
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
ALTER TABLE ONLY calls.judged
    ADD CONSTRAINT judged_pkey PRIMARY KEY (hold_id);
ALTER TABLE ONLY calls.run_budget
    ADD CONSTRAINT run_budget_limit_id_key UNIQUE (limit_id);
ALTER TABLE ONLY calls.run_budget
    ADD CONSTRAINT run_budget_pkey PRIMARY KEY (tenant_id, run_id);
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
ALTER TABLE ONLY enforcement.alert_action
    ADD CONSTRAINT alert_action_pkey PRIMARY KEY (action_id);
ALTER TABLE ONLY enforcement.alert_attempt
    ADD CONSTRAINT alert_attempt_pkey PRIMARY KEY (delivery_id, attempt);
ALTER TABLE ONLY enforcement.alert_channel
    ADD CONSTRAINT alert_channel_pkey PRIMARY KEY (channel_id);
ALTER TABLE ONLY enforcement.alert_delivery
    ADD CONSTRAINT alert_delivery_alert_id_announcement_channel_id_key UNIQUE (alert_id, announcement, channel_id);
ALTER TABLE ONLY enforcement.alert_delivery
    ADD CONSTRAINT alert_delivery_pkey PRIMARY KEY (delivery_id);
ALTER TABLE ONLY enforcement.alert_mute
    ADD CONSTRAINT alert_mute_pkey PRIMARY KEY (tenant_id, signal_id);
ALTER TABLE ONLY enforcement.alert
    ADD CONSTRAINT alert_pkey PRIMARY KEY (alert_id);
ALTER TABLE ONLY enforcement.alert_route
    ADD CONSTRAINT alert_route_pkey PRIMARY KEY (tenant_id, route_id);
ALTER TABLE ONLY enforcement.budget_crossing
    ADD CONSTRAINT budget_crossing_pkey PRIMARY KEY (limit_id, at);
ALTER TABLE ONLY enforcement.budget_edits
    ADD CONSTRAINT budget_edits_pkey PRIMARY KEY (is_one);
ALTER TABLE ONLY enforcement.budget
    ADD CONSTRAINT budget_pkey PRIMARY KEY (tenant_id, budget_id);
ALTER TABLE ONLY enforcement.budget_revision
    ADD CONSTRAINT budget_revision_pkey PRIMARY KEY (tenant_id, budget_id, revision);
ALTER TABLE ONLY enforcement.budget_window
    ADD CONSTRAINT budget_window_pkey PRIMARY KEY (limit_id);
ALTER TABLE ONLY enforcement.mitigation_event
    ADD CONSTRAINT mitigation_event_pkey PRIMARY KEY (event_id);
ALTER TABLE ONLY enforcement.mitigation
    ADD CONSTRAINT mitigation_pkey PRIMARY KEY (mitigation_id);
ALTER TABLE ONLY enforcement.mitigation_policy
    ADD CONSTRAINT mitigation_policy_pkey PRIMARY KEY (tenant_id, dimension, value);
ALTER TABLE ONLY enforcement.mitigation_revision
    ADD CONSTRAINT mitigation_revision_pkey PRIMARY KEY (only_row);
ALTER TABLE ONLY enforcement.overrun
    ADD CONSTRAINT overrun_pkey PRIMARY KEY (overrun_id);
ALTER TABLE ONLY enforcement.planned_launch
    ADD CONSTRAINT planned_launch_pkey PRIMARY KEY (launch_id);
ALTER TABLE ONLY enforcement.rate_bucket
    ADD CONSTRAINT rate_bucket_pkey PRIMARY KEY (bucket_id);
ALTER TABLE ONLY enforcement.rate_limit
    ADD CONSTRAINT rate_limit_pkey PRIMARY KEY (limit_id);
ALTER TABLE ONLY enforcement.rate_limit
    ADD CONSTRAINT rate_limit_tenant_id_kind_name_asset_key UNIQUE (tenant_id, kind, name, asset);
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
ALTER TABLE ONLY gateway.provider_key
    ADD CONSTRAINT provider_key_pkey PRIMARY KEY (tenant_id, upstream);
ALTER TABLE ONLY gateway.provider_key_revision
    ADD CONSTRAINT provider_key_revision_pkey PRIMARY KEY (only_row);
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
ALTER TABLE ONLY ledger.limit_slice
    ADD CONSTRAINT limit_slice_pkey PRIMARY KEY (limit_id, slice_at);
ALTER TABLE ONLY ledger.limit_usage
    ADD CONSTRAINT limit_usage_pkey PRIMARY KEY (limit_id, source_key);
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
ALTER TABLE ONLY log.beginning
    ADD CONSTRAINT beginning_pkey PRIMARY KEY (follower, partition);
ALTER TABLE ONLY log.follower
    ADD CONSTRAINT follower_pkey PRIMARY KEY (follower, partition);
ALTER TABLE ONLY log.head
    ADD CONSTRAINT head_pkey PRIMARY KEY (partition);
ALTER TABLE ONLY log.horizon
    ADD CONSTRAINT horizon_pkey PRIMARY KEY (horizon_at);
ALTER TABLE ONLY log.lease
    ADD CONSTRAINT lease_pkey PRIMARY KEY (name);
ALTER TABLE ONLY public.schema_migration
    ADD CONSTRAINT schema_migration_pkey PRIMARY KEY (name);
CREATE INDEX credential_of_tenant ON access.credential USING btree (kind, tenant_id, created_at);
CREATE INDEX record_by_time ON audit.record USING brin (at);
CREATE INDEX record_by_transaction ON audit.record USING btree (transaction);
CREATE INDEX record_not_allowed ON audit.record USING btree (record_id) WHERE (decision <> 'allowed'::text);
CREATE INDEX record_of_subject ON audit.record USING btree (subject, record_id);
CREATE INDEX record_of_tenant ON audit.record USING btree (tenant_id, record_id);
CREATE INDEX backfill_open ON backfill.backfill USING btree (created_at) WHERE (status = ANY (ARRAY['planned'::text, 'running'::text]));
CREATE UNIQUE INDEX one_revert_at_a_time ON backfill.backfill USING btree (reverts) WHERE ((reverts <> ''::text) AND (status <> ALL (ARRAY['failed'::text, 'reverted'::text])));
CREATE INDEX action_by_message ON broken.action USING btree (broken_id, action_id);
CREATE INDEX state_by_id ON broken.state USING btree (broken_id);
CREATE INDEX run_budget_changed ON calls.run_budget USING btree (changed_at);
CREATE INDEX pending_run_due ON charger.pending_run USING btree (shard, has_ended, touched_at);
CREATE INDEX alert_action_of ON enforcement.alert_action USING btree (alert_id, action_id);
CREATE INDEX alert_channel_of ON enforcement.alert_channel USING btree (tenant_id) WHERE (deleted_at IS NULL);
CREATE INDEX alert_delivery_due ON enforcement.alert_delivery USING btree (due_at) WHERE (status = 'pending'::text);
CREATE INDEX alert_delivery_of_channel ON enforcement.alert_delivery USING btree (channel_id, sequence);
CREATE INDEX alert_delivery_pending ON enforcement.alert_delivery USING btree (alert_id, channel_id, sequence) WHERE (status = 'pending'::text);
CREATE INDEX alert_due ON enforcement.alert USING btree (due_at) WHERE (due_at IS NOT NULL);
CREATE INDEX alert_newest ON enforcement.alert USING btree (tenant_id, opened_at, alert_id);
CREATE UNIQUE INDEX alert_open ON enforcement.alert USING btree (tenant_id, signal_id) WHERE (status = 'open'::text);
CREATE INDEX alert_open_signal ON enforcement.alert USING btree (signal_id) WHERE (status = 'open'::text);
CREATE INDEX alert_route_of ON enforcement.alert_route USING btree (tenant_id, "position", route_id);
CREATE INDEX budget_by_edit ON enforcement.budget USING btree (edit);
CREATE INDEX crossing_uncleared ON enforcement.budget_crossing USING btree (limit_id) WHERE (cleared_at IS NULL);
CREATE INDEX mitigation_active ON enforcement.mitigation USING btree (expires_at) WHERE (ended_at IS NULL);
CREATE UNIQUE INDEX mitigation_by_key ON enforcement.mitigation USING btree (tenant_id, idempotency_key) WHERE (idempotency_key <> ''::text);
CREATE INDEX mitigation_by_overrun ON enforcement.mitigation USING btree (overrun_id) WHERE (overrun_id <> ''::text);
CREATE INDEX mitigation_event_by_mitigation ON enforcement.mitigation_event USING btree (mitigation_id, event_id);
CREATE INDEX mitigation_newest ON enforcement.mitigation USING btree (tenant_id, mitigation_id DESC);
CREATE INDEX overrun_newest ON enforcement.overrun USING btree (tenant_id, overrun_id DESC);
CREATE UNIQUE INDEX overrun_open ON enforcement.overrun USING btree (tenant_id, kind, dimension, value) WHERE (closed_at IS NULL);
CREATE INDEX planned_launch_by_end ON enforcement.planned_launch USING btree (tenant_id, to_at);
CREATE INDEX vault_run_due ON enforcement.vault_run USING btree (limit_id, source_key) WHERE is_due;
CREATE INDEX vault_scope_of_project ON enforcement.vault_scope USING btree (tenant_id, project_id);
CREATE INDEX vault_scope_of_team ON enforcement.vault_scope USING btree (tenant_id, team);
CREATE INDEX vault_scope_of_user ON enforcement.vault_scope USING btree (tenant_id, user_id);
CREATE INDEX vault_seen_by_age ON enforcement.vault_seen USING btree (seen_at);
CREATE INDEX vault_watch_ended ON enforcement.vault_watch USING btree (ends_at, limit_id);
CREATE INDEX window_of_budget ON enforcement.budget_window USING btree (tenant_id, budget_id, COALESCE(end_at, '9223372036854775807'::bigint));
CREATE INDEX window_under_way ON enforcement.budget_window USING btree (COALESCE(end_at, '9223372036854775807'::bigint));
CREATE INDEX account_of_tenant ON ledger.account USING btree (tenant_id, created_at, account_id);
CREATE INDEX hold_due ON ledger.hold USING btree (due_at);
CREATE INDEX hold_of_run ON ledger.hold USING btree (tenant_id, run_id) WHERE (run_id <> ''::text);
CREATE UNIQUE INDEX inv_04_one_outcome_per_key ON ledger.operation USING btree (key_hash);
CREATE UNIQUE INDEX inv_07_one_resolution_per_hold ON ledger.operation USING btree (hold_id) WHERE ((outcome = 'posted'::text) AND (kind = ANY (ARRAY['capture'::text, 'release'::text, 'hold_expiry'::text, 'resolve'::text, 'return'::text])));
CREATE INDEX limit_rolling ON ledger.limit_window USING btree (rolls_at) WHERE (rolls_at IS NOT NULL);
CREATE INDEX lot_expiring ON ledger.lot USING btree (expires_at) WHERE ((NOT is_spent) AND (expires_at IS NOT NULL));
CREATE INDEX lot_of_account ON ledger.lot USING btree (account_id, created_at);
CREATE INDEX lot_unspent ON ledger.lot USING btree (account_id) WHERE (NOT is_spent);
CREATE UNIQUE INDEX one_late_settle_per_hold ON ledger.operation USING btree (hold_id) WHERE ((outcome = 'posted'::text) AND (kind = 'settle'::text));
CREATE INDEX operation_by_transaction ON ledger.operation USING btree (transaction);
CREATE INDEX operation_of_run ON ledger.operation USING btree (tenant_id, run_id, posted_at) WHERE (run_id <> ''::text);
CREATE INDEX operation_refers_to ON ledger.operation USING btree (refers_to) WHERE (refers_to IS NOT NULL);
CREATE INDEX operation_resolved ON ledger.operation USING btree (posted_at) WHERE (kind = 'resolve'::text);
CREATE INDEX run_charge_stale ON ledger.run_charge USING btree (updated_at) WHERE is_stale;
CREATE TRIGGER credential_changes AFTER INSERT OR DELETE OR UPDATE ON access.credential FOR EACH STATEMENT EXECUTE FUNCTION access.note_change();
CREATE TRIGGER credential_is_never_deleted BEFORE DELETE OR TRUNCATE ON access.credential FOR EACH STATEMENT EXECUTE FUNCTION log.refuse_change();
CREATE TRIGGER identity_provider_changes AFTER INSERT OR DELETE OR UPDATE ON access.identity_provider FOR EACH STATEMENT EXECUTE FUNCTION access.note_change();
CREATE TRIGGER signing_key_changes AFTER INSERT OR DELETE OR UPDATE ON access.signing_key FOR EACH STATEMENT EXECUTE FUNCTION access.note_change();
CREATE TRIGGER record_is_append_only BEFORE DELETE OR UPDATE OR TRUNCATE ON audit.record FOR EACH STATEMENT EXECUTE FUNCTION log.refuse_change();
CREATE TRIGGER report_line_is_append_only BEFORE DELETE OR UPDATE OR TRUNCATE ON backfill.report_line FOR EACH STATEMENT EXECUTE FUNCTION log.refuse_change();
CREATE TRIGGER report_run_is_append_only BEFORE DELETE OR UPDATE OR TRUNCATE ON backfill.report_run FOR EACH STATEMENT EXECUTE FUNCTION log.refuse_change();
CREATE TRIGGER action_is_append_only BEFORE DELETE OR UPDATE OR TRUNCATE ON broken.action FOR EACH STATEMENT EXECUTE FUNCTION log.refuse_change();
CREATE TRIGGER judged_is_append_only BEFORE DELETE OR UPDATE OR TRUNCATE ON calls.judged FOR EACH STATEMENT EXECUTE FUNCTION log.refuse_change();
CREATE TRIGGER version_is_append_only BEFORE DELETE OR UPDATE OR TRUNCATE ON catalog.rate_card_version FOR EACH STATEMENT EXECUTE FUNCTION log.refuse_change();
CREATE TRIGGER alert_action_is_append_only BEFORE DELETE OR UPDATE OR TRUNCATE ON enforcement.alert_action FOR EACH STATEMENT EXECUTE FUNCTION log.refuse_change();
CREATE TRIGGER alert_attempt_is_append_only BEFORE DELETE OR UPDATE OR TRUNCATE ON enforcement.alert_attempt FOR EACH STATEMENT EXECUTE FUNCTION log.refuse_change();
CREATE TRIGGER budget_revision_is_append_only BEFORE DELETE OR UPDATE OR TRUNCATE ON enforcement.budget_revision FOR EACH STATEMENT EXECUTE FUNCTION log.refuse_change();
CREATE TRIGGER mitigation_event_is_append_only BEFORE DELETE OR UPDATE OR TRUNCATE ON enforcement.mitigation_event FOR EACH STATEMENT EXECUTE FUNCTION log.refuse_change();
CREATE TRIGGER balance_is_never_deleted BEFORE DELETE OR TRUNCATE ON ledger.balance FOR EACH STATEMENT EXECUTE FUNCTION log.refuse_change();
CREATE TRIGGER block_is_append_only BEFORE DELETE OR UPDATE OR TRUNCATE ON ledger.block FOR EACH STATEMENT EXECUTE FUNCTION log.refuse_change();
CREATE TRIGGER lot_is_never_deleted BEFORE DELETE OR TRUNCATE ON ledger.lot FOR EACH STATEMENT EXECUTE FUNCTION log.refuse_change();
CREATE TRIGGER operation_is_append_only BEFORE DELETE OR UPDATE OR TRUNCATE ON ledger.operation FOR EACH STATEMENT EXECUTE FUNCTION log.refuse_change();
CREATE TRIGGER run_charge_is_never_deleted BEFORE DELETE OR TRUNCATE ON ledger.run_charge FOR EACH STATEMENT EXECUTE FUNCTION log.refuse_change();
CREATE TRIGGER batch_is_append_only BEFORE DELETE OR UPDATE OR TRUNCATE ON log.batch FOR EACH STATEMENT EXECUTE FUNCTION log.refuse_change();
CREATE TRIGGER horizon_is_never_deleted BEFORE DELETE OR TRUNCATE ON log.horizon FOR EACH STATEMENT EXECUTE FUNCTION log.refuse_change();
CREATE TRIGGER horizon_never_goes_back BEFORE INSERT OR UPDATE ON log.horizon FOR EACH ROW EXECUTE FUNCTION log.refuse_a_horizon_that_goes_back();
ALTER TABLE ONLY backfill.report_line
    ADD CONSTRAINT report_line_backfill_id_fkey FOREIGN KEY (backfill_id) REFERENCES backfill.backfill(backfill_id);
ALTER TABLE ONLY backfill.report_run
    ADD CONSTRAINT report_run_backfill_id_fkey FOREIGN KEY (backfill_id) REFERENCES backfill.backfill(backfill_id);
ALTER TABLE ONLY catalog.rate_card_version
    ADD CONSTRAINT rate_card_version_rate_card_id_fkey FOREIGN KEY (rate_card_id) REFERENCES catalog.rate_card(rate_card_id);
ALTER TABLE ONLY enforcement.alert_attempt
    ADD CONSTRAINT alert_attempt_delivery_id_fkey FOREIGN KEY (delivery_id) REFERENCES enforcement.alert_delivery(delivery_id);
ALTER TABLE ONLY enforcement.alert_delivery
    ADD CONSTRAINT alert_delivery_channel_id_fkey FOREIGN KEY (channel_id) REFERENCES enforcement.alert_channel(channel_id);
ALTER TABLE access.credential ENABLE ROW LEVEL SECURITY;
ALTER TABLE access.identity_provider ENABLE ROW LEVEL SECURITY;
CREATE POLICY of_all ON access.credential USING (true);
CREATE POLICY of_all ON access.identity_provider USING (true);
CREATE POLICY of_tenant ON access.credential AS RESTRICTIVE TO tallystick_tenant USING ((tenant_id = current_setting('tallystick.tenant'::text, true)));
CREATE POLICY of_tenant ON access.identity_provider AS RESTRICTIVE TO tallystick_tenant USING ((tenant_id = current_setting('tallystick.tenant'::text, true)));
CREATE POLICY of_all ON audit.record USING (true);
CREATE POLICY of_tenant ON audit.record AS RESTRICTIVE TO tallystick_tenant USING ((tenant_id = current_setting('tallystick.tenant'::text, true)));
ALTER TABLE audit.record ENABLE ROW LEVEL SECURITY;
ALTER TABLE backfill.backfill ENABLE ROW LEVEL SECURITY;
CREATE POLICY of_all ON backfill.backfill USING (true);
CREATE POLICY of_all ON backfill.report_line USING (true);
CREATE POLICY of_all ON backfill.report_run USING (true);
CREATE POLICY of_tenant ON backfill.backfill AS RESTRICTIVE TO tallystick_tenant USING ((tenant_ids = ARRAY[current_setting('tallystick.tenant'::text, true)]));
CREATE POLICY of_tenant ON backfill.report_line AS RESTRICTIVE TO tallystick_tenant USING ((tenant_id = current_setting('tallystick.tenant'::text, true)));
CREATE POLICY of_tenant ON backfill.report_run AS RESTRICTIVE TO tallystick_tenant USING ((tenant_id = current_setting('tallystick.tenant'::text, true)));
ALTER TABLE backfill.report_line ENABLE ROW LEVEL SECURITY;
ALTER TABLE backfill.report_run ENABLE ROW LEVEL SECURITY;
ALTER TABLE broken.action ENABLE ROW LEVEL SECURITY;
CREATE POLICY of_all ON broken.action USING (true);
CREATE POLICY of_all ON broken.state USING (true);
CREATE POLICY of_tenant ON broken.action AS RESTRICTIVE TO tallystick_tenant USING ((tenant_id = current_setting('tallystick.tenant'::text, true)));
CREATE POLICY of_tenant ON broken.state AS RESTRICTIVE TO tallystick_tenant USING ((tenant_id = current_setting('tallystick.tenant'::text, true)));
ALTER TABLE broken.state ENABLE ROW LEVEL SECURITY;
ALTER TABLE calls.judged ENABLE ROW LEVEL SECURITY;
CREATE POLICY of_all ON calls.judged USING (true);
CREATE POLICY of_all ON calls.run_budget USING (true);
CREATE POLICY of_tenant ON calls.judged AS RESTRICTIVE TO tallystick_tenant USING ((tenant_id = current_setting('tallystick.tenant'::text, true)));
CREATE POLICY of_tenant ON calls.run_budget AS RESTRICTIVE TO tallystick_tenant USING ((tenant_id = current_setting('tallystick.tenant'::text, true)));
ALTER TABLE calls.run_budget ENABLE ROW LEVEL SECURITY;
CREATE POLICY of_all ON catalog.rate_card USING (true);
CREATE POLICY of_tenant ON catalog.rate_card AS RESTRICTIVE TO tallystick_tenant USING ((tenant_id = ANY (ARRAY[''::text, current_setting('tallystick.tenant'::text, true)])));
ALTER TABLE catalog.rate_card ENABLE ROW LEVEL SECURITY;
CREATE POLICY of_all ON charger.pending_run USING (true);
CREATE POLICY of_tenant ON charger.pending_run AS RESTRICTIVE TO tallystick_tenant USING ((tenant_id = current_setting('tallystick.tenant'::text, true)));
ALTER TABLE charger.pending_run ENABLE ROW LEVEL SECURITY;
ALTER TABLE enforcement.alert ENABLE ROW LEVEL SECURITY;
ALTER TABLE enforcement.alert_action ENABLE ROW LEVEL SECURITY;
ALTER TABLE enforcement.alert_channel ENABLE ROW LEVEL SECURITY;
ALTER TABLE enforcement.alert_delivery ENABLE ROW LEVEL SECURITY;
ALTER TABLE enforcement.alert_mute ENABLE ROW LEVEL SECURITY;
ALTER TABLE enforcement.alert_route ENABLE ROW LEVEL SECURITY;
ALTER TABLE enforcement.budget ENABLE ROW LEVEL SECURITY;
ALTER TABLE enforcement.budget_revision ENABLE ROW LEVEL SECURITY;
ALTER TABLE enforcement.budget_window ENABLE ROW LEVEL SECURITY;
ALTER TABLE enforcement.mitigation ENABLE ROW LEVEL SECURITY;
ALTER TABLE enforcement.mitigation_event ENABLE ROW LEVEL SECURITY;
ALTER TABLE enforcement.mitigation_policy ENABLE ROW LEVEL SECURITY;
CREATE POLICY of_all ON enforcement.alert USING (true);
CREATE POLICY of_all ON enforcement.alert_action USING (true);
CREATE POLICY of_all ON enforcement.alert_channel USING (true);
CREATE POLICY of_all ON enforcement.alert_delivery USING (true);
CREATE POLICY of_all ON enforcement.alert_mute USING (true);
CREATE POLICY of_all ON enforcement.alert_route USING (true);
CREATE POLICY of_all ON enforcement.budget USING (true);
CREATE POLICY of_all ON enforcement.budget_revision USING (true);
CREATE POLICY of_all ON enforcement.budget_window USING (true);
CREATE POLICY of_all ON enforcement.mitigation USING (true);
CREATE POLICY of_all ON enforcement.mitigation_event USING (true);
CREATE POLICY of_all ON enforcement.mitigation_policy USING (true);
CREATE POLICY of_all ON enforcement.overrun USING (true);
CREATE POLICY of_all ON enforcement.planned_launch USING (true);
CREATE POLICY of_all ON enforcement.rate_limit USING (true);
CREATE POLICY of_all ON enforcement.vault_run USING (true);
CREATE POLICY of_all ON enforcement.vault_scope USING (true);
CREATE POLICY of_tenant ON enforcement.alert AS RESTRICTIVE TO tallystick_tenant USING ((tenant_id = current_setting('tallystick.tenant'::text, true)));
CREATE POLICY of_tenant ON enforcement.alert_action AS RESTRICTIVE TO tallystick_tenant USING ((tenant_id = current_setting('tallystick.tenant'::text, true)));
CREATE POLICY of_tenant ON enforcement.alert_channel AS RESTRICTIVE TO tallystick_tenant USING ((tenant_id = current_setting('tallystick.tenant'::text, true)));
CREATE POLICY of_tenant ON enforcement.alert_delivery AS RESTRICTIVE TO tallystick_tenant USING ((tenant_id = current_setting('tallystick.tenant'::text, true)));
CREATE POLICY of_tenant ON enforcement.alert_mute AS RESTRICTIVE TO tallystick_tenant USING ((tenant_id = current_setting('tallystick.tenant'::text, true)));
CREATE POLICY of_tenant ON enforcement.alert_route AS RESTRICTIVE TO tallystick_tenant USING ((tenant_id = current_setting('tallystick.tenant'::text, true)));
CREATE POLICY of_tenant ON enforcement.budget AS RESTRICTIVE TO tallystick_tenant USING ((tenant_id = current_setting('tallystick.tenant'::text, true)));
CREATE POLICY of_tenant ON enforcement.budget_revision AS RESTRICTIVE TO tallystick_tenant USING ((tenant_id = current_setting('tallystick.tenant'::text, true)));
CREATE POLICY of_tenant ON enforcement.budget_window AS RESTRICTIVE TO tallystick_tenant USING ((tenant_id = current_setting('tallystick.tenant'::text, true)));
CREATE POLICY of_tenant ON enforcement.mitigation AS RESTRICTIVE TO tallystick_tenant USING ((tenant_id = current_setting('tallystick.tenant'::text, true)));
CREATE POLICY of_tenant ON enforcement.mitigation_event AS RESTRICTIVE TO tallystick_tenant USING ((tenant_id = current_setting('tallystick.tenant'::text, true)));
CREATE POLICY of_tenant ON enforcement.mitigation_policy AS RESTRICTIVE TO tallystick_tenant USING ((tenant_id = current_setting('tallystick.tenant'::text, true)));
CREATE POLICY of_tenant ON enforcement.overrun AS RESTRICTIVE TO tallystick_tenant USING ((tenant_id = current_setting('tallystick.tenant'::text, true)));
CREATE POLICY of_tenant ON enforcement.planned_launch AS RESTRICTIVE TO tallystick_tenant USING ((tenant_id = current_setting('tallystick.tenant'::text, true)));
CREATE POLICY of_tenant ON enforcement.rate_limit AS RESTRICTIVE TO tallystick_tenant USING ((tenant_id = current_setting('tallystick.tenant'::text, true)));
CREATE POLICY of_tenant ON enforcement.vault_run AS RESTRICTIVE TO tallystick_tenant USING ((tenant_id = current_setting('tallystick.tenant'::text, true)));
CREATE POLICY of_tenant ON enforcement.vault_scope AS RESTRICTIVE TO tallystick_tenant USING ((tenant_id = current_setting('tallystick.tenant'::text, true)));
ALTER TABLE enforcement.overrun ENABLE ROW LEVEL SECURITY;
ALTER TABLE enforcement.planned_launch ENABLE ROW LEVEL SECURITY;
ALTER TABLE enforcement.rate_limit ENABLE ROW LEVEL SECURITY;
ALTER TABLE enforcement.vault_run ENABLE ROW LEVEL SECURITY;
ALTER TABLE enforcement.vault_scope ENABLE ROW LEVEL SECURITY;
CREATE POLICY of_all ON gateway.provider_key USING (true);
CREATE POLICY of_tenant ON gateway.provider_key AS RESTRICTIVE TO tallystick_tenant USING ((tenant_id = current_setting('tallystick.tenant'::text, true)));
ALTER TABLE gateway.provider_key ENABLE ROW LEVEL SECURITY;
ALTER TABLE ledger.account ENABLE ROW LEVEL SECURITY;
ALTER TABLE ledger.balance ENABLE ROW LEVEL SECURITY;
ALTER TABLE ledger.hold ENABLE ROW LEVEL SECURITY;
ALTER TABLE ledger.lot ENABLE ROW LEVEL SECURITY;
CREATE POLICY of_all ON ledger.account USING (true);
CREATE POLICY of_all ON ledger.balance USING (true);
CREATE POLICY of_all ON ledger.hold USING (true);
CREATE POLICY of_all ON ledger.lot USING (true);
CREATE POLICY of_all ON ledger.operation USING (true);
CREATE POLICY of_all ON ledger.run_charge USING (true);
CREATE POLICY of_tenant ON ledger.account AS RESTRICTIVE TO tallystick_tenant USING ((tenant_id = current_setting('tallystick.tenant'::text, true)));
CREATE POLICY of_tenant ON ledger.balance AS RESTRICTIVE TO tallystick_tenant USING ((EXISTS ( SELECT
   FROM ledger.account a
  WHERE (a.account_id = balance.account_id))));
CREATE POLICY of_tenant ON ledger.hold AS RESTRICTIVE TO tallystick_tenant USING ((tenant_id = current_setting('tallystick.tenant'::text, true)));
CREATE POLICY of_tenant ON ledger.lot AS RESTRICTIVE TO tallystick_tenant USING ((EXISTS ( SELECT
   FROM ledger.account a
  WHERE (a.account_id = lot.account_id))));
CREATE POLICY of_tenant ON ledger.operation AS RESTRICTIVE TO tallystick_tenant USING ((tenant_id = current_setting('tallystick.tenant'::text, true)));
CREATE POLICY of_tenant ON ledger.run_charge AS RESTRICTIVE TO tallystick_tenant USING ((tenant_id = current_setting('tallystick.tenant'::text, true)));
ALTER TABLE ledger.operation ENABLE ROW LEVEL SECURITY;
ALTER TABLE ledger.run_charge ENABLE ROW LEVEL SECURITY;
