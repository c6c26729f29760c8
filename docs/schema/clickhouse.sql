CREATE TABLE tallystick.charges
(
    `tenant_id` LowCardinality(String),
    `charge_key` String,
    `bucket_at` DateTime('UTC'),
    `team` LowCardinality(String),
    `product` LowCardinality(String),
    `feature` LowCardinality(String),
    `project_id` LowCardinality(String),
    `user_id` String,
    `workflow` LowCardinality(String),
    `agent` LowCardinality(String),
    `customer_tier` LowCardinality(String),
    `environment` LowCardinality(String),
    `provider` LowCardinality(String),
    `model` LowCardinality(String),
    `tool` LowCardinality(String),
    `operation` LowCardinality(String),
    `error_code` LowCardinality(String),
    `credit_units` Int64 COMMENT 'CREDIT/6, a signed delta: charged',
    `waste_credit_units` Int64 COMMENT 'CREDIT/6, a signed delta: rated, in attempts that do not count',
    `waste_cost_units` Int64 COMMENT 'USD/9, a signed delta: what those attempts cost',
    `posted_at` DateTime64(6, 'UTC'),
    PROJECTION charges_minute
    (
        SELECT
            toStartOfMinute(bucket_at) AS minute_at,
            tenant_id,
            team,
            product,
            feature,
            project_id,
            workflow,
            agent,
            customer_tier,
            environment,
            provider,
            model,
            tool,
            operation,
            error_code,
            sum(toInt128(credit_units)),
            sum(toInt128(waste_credit_units)),
            sum(toInt128(waste_cost_units))
        GROUP BY
            minute_at,
            tenant_id,
            team,
            product,
            feature,
            project_id,
            workflow,
            agent,
            customer_tier,
            environment,
            provider,
            model,
            tool,
            operation,
            error_code
    ),
    PROJECTION charges_hour
    (
        SELECT
            toStartOfHour(bucket_at) AS hour_at,
            tenant_id,
            team,
            product,
            feature,
            project_id,
            workflow,
            agent,
            customer_tier,
            environment,
            provider,
            model,
            tool,
            operation,
            error_code,
            sum(toInt128(credit_units)),
            sum(toInt128(waste_credit_units)),
            sum(toInt128(waste_cost_units))
        GROUP BY
            hour_at,
            tenant_id,
            team,
            product,
            feature,
            project_id,
            workflow,
            agent,
            customer_tier,
            environment,
            provider,
            model,
            tool,
            operation,
            error_code
    ),
    PROJECTION charges_day
    (
        SELECT
            toStartOfDay(bucket_at) AS day_at,
            tenant_id,
            team,
            product,
            feature,
            project_id,
            workflow,
            agent,
            customer_tier,
            environment,
            provider,
            model,
            tool,
            operation,
            error_code,
            sum(toInt128(credit_units)),
            sum(toInt128(waste_credit_units)),
            sum(toInt128(waste_cost_units))
        GROUP BY
            day_at,
            tenant_id,
            team,
            product,
            feature,
            project_id,
            workflow,
            agent,
            customer_tier,
            environment,
            provider,
            model,
            tool,
            operation,
            error_code
    )
)
ENGINE = MergeTree
ORDER BY (tenant_id, charge_key, bucket_at)
SETTINGS index_granularity = 2048, fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE tallystick.deliveries
(
    `tenant_id` LowCardinality(String),
    `run_id` String,
    `event_id` String,
    `event_type` LowCardinality(String),
    `kind` LowCardinality(String) COMMENT 'duplicate, conflict or control',
    `log_partition` UInt16,
    `log_offset` UInt64,
    `received_at` DateTime64(6, 'UTC'),
    INDEX deliveries_offset log_offset TYPE minmax GRANULARITY 64
)
ENGINE = MergeTree
ORDER BY (tenant_id, run_id, event_id)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, index_granularity = 8192;

CREATE TABLE tallystick.facts
(
    `sign` Int8,
    `correction_id` LowCardinality(String) COMMENT 'the backfill that made this row; empty: the event as it came',
    `tenant_id` LowCardinality(String),
    `charge_key` String,
    `occurred_at` DateTime64(6, 'UTC'),
    `log_partition` UInt16,
    `log_offset` UInt64,
    `event_id` String,
    `event_type` LowCardinality(String),
    `received_at` DateTime64(6, 'UTC'),
    `is_late` Bool,
    `run_id` String,
    `attempt` UInt32,
    `source` LowCardinality(String),
    `schema_version` UInt32,
    `workflow` LowCardinality(String),
    `agent` LowCardinality(String),
    `user_id` String,
    `project_id` LowCardinality(String),
    `team` LowCardinality(String),
    `product` LowCardinality(String),
    `feature` LowCardinality(String),
    `customer_tier` LowCardinality(String),
    `environment` LowCardinality(String),
    `parent_run_id` String,
    `root_run_id` String,
    `request_id` String,
    `provider` LowCardinality(String),
    `model` LowCardinality(String),
    `operation` LowCardinality(String),
    `service_tier` LowCardinality(String),
    `is_batch` Bool,
    `usage_scope` LowCardinality(String),
    `usage_quality` LowCardinality(String),
    `tokens_input` Int64,
    `tokens_output` Int64,
    `tokens_cache_read` Int64,
    `tokens_cache_write_5m` Int64,
    `tokens_cache_write_1h` Int64,
    `tokens_reasoning` Int64,
    `latency_ms` Nullable(Float64),
    `tool` LowCardinality(String),
    `tool_call_id` String,
    `error_code` LowCardinality(String),
    `attrs` String,
    `content_digest` FixedString(16),
    `reject_code` LowCardinality(String),
    `cost_units` Int64 COMMENT 'USD/9',
    `cost_quality` LowCardinality(String) COMMENT 'exact, estimated, partial, unpriced or none',
    `credit_units` Int64 COMMENT 'CREDIT/6, rated; the charge decides which attempts count',
    `cost_version` UInt32,
    `credit_version` UInt32,
    INDEX facts_offset log_offset TYPE minmax GRANULARITY 64,
    INDEX facts_event event_id TYPE bloom_filter(0.01) GRANULARITY 4
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(occurred_at)
ORDER BY (tenant_id, charge_key, occurred_at)
SETTINGS index_granularity = 2048, min_bytes_for_wide_part = 134217728, fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE tallystick.fence
(
    `name` String,
    `epoch` UInt64
)
ENGINE = MergeTree
ORDER BY name
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, index_granularity = 8192;

CREATE TABLE tallystick.horizon
(
    `horizon_at` DateTime64(6, 'UTC'),
    `log_partition` UInt16,
    `facts` UInt64,
    `corrections` UInt64,
    `announced_at` DateTime64(6, 'UTC')
)
ENGINE = MergeTree
ORDER BY (horizon_at, log_partition)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, index_granularity = 8192;

CREATE VIEW tallystick.kept_facts
(
    `sign` Int8,
    `correction_id` LowCardinality(String),
    `tenant_id` LowCardinality(String),
    `charge_key` String,
    `occurred_at` DateTime64(6, 'UTC'),
    `log_partition` UInt16,
    `log_offset` UInt64,
    `event_id` String,
    `event_type` LowCardinality(String),
    `received_at` DateTime64(6, 'UTC'),
    `is_late` Bool,
    `run_id` String,
    `attempt` UInt32,
    `source` LowCardinality(String),
    `schema_version` UInt32,
    `workflow` LowCardinality(String),
    `agent` LowCardinality(String),
    `user_id` String,
    `project_id` LowCardinality(String),
    `team` LowCardinality(String),
    `product` LowCardinality(String),
    `feature` LowCardinality(String),
    `customer_tier` LowCardinality(String),
    `environment` LowCardinality(String),
    `parent_run_id` String,
    `root_run_id` String,
    `request_id` String,
    `provider` LowCardinality(String),
    `model` LowCardinality(String),
    `operation` LowCardinality(String),
    `service_tier` LowCardinality(String),
    `is_batch` Bool,
    `usage_scope` LowCardinality(String),
    `usage_quality` LowCardinality(String),
    `tokens_input` Int64,
    `tokens_output` Int64,
    `tokens_cache_read` Int64,
    `tokens_cache_write_5m` Int64,
    `tokens_cache_write_1h` Int64,
    `tokens_reasoning` Int64,
    `latency_ms` Nullable(Float64),
    `tool` LowCardinality(String),
    `tool_call_id` String,
    `error_code` LowCardinality(String),
    `attrs` String,
    `content_digest` FixedString(16),
    `reject_code` LowCardinality(String),
    `cost_units` Int64,
    `cost_quality` LowCardinality(String),
    `credit_units` Int64,
    `cost_version` UInt32,
    `credit_version` UInt32
)
AS SELECT *
FROM tallystick.facts
WHERE occurred_at >= (
    SELECT max(horizon_at)
    FROM tallystick.horizon
);

CREATE TABLE tallystick.rollup_day
(
    `bucket_at` DateTime('UTC'),
    `tenant_id` LowCardinality(String),
    `team` LowCardinality(String),
    `product` LowCardinality(String),
    `feature` LowCardinality(String),
    `project_id` LowCardinality(String),
    `workflow` LowCardinality(String),
    `agent` LowCardinality(String),
    `customer_tier` LowCardinality(String),
    `environment` LowCardinality(String),
    `provider` LowCardinality(String),
    `model` LowCardinality(String),
    `tool` LowCardinality(String),
    `operation` LowCardinality(String),
    `error_code` LowCardinality(String),
    `log_partition` UInt16,
    `last_offset` SimpleAggregateFunction(max, UInt64),
    `events` SimpleAggregateFunction(sum, Int64),
    `unknown_events` SimpleAggregateFunction(sum, Int64),
    `late_events` SimpleAggregateFunction(sum, Int64),
    `first_attempts` SimpleAggregateFunction(groupUniqArrayArray, Array(UInt64)),
    `retried_runs` SimpleAggregateFunction(groupUniqArrayArray, Array(UInt64)),
    `retries` SimpleAggregateFunction(groupUniqArrayArray, Array(UInt64)),
    `runs_failed` SimpleAggregateFunction(sum, Int64),
    `calls` SimpleAggregateFunction(sum, Int64),
    `unpriced_calls` SimpleAggregateFunction(sum, Int64),
    `estimated_calls` SimpleAggregateFunction(sum, Int64),
    `tool_calls` SimpleAggregateFunction(sum, Int64),
    `errors` SimpleAggregateFunction(sum, Int64),
    `tokens_input` SimpleAggregateFunction(sum, Int64),
    `tokens_output` SimpleAggregateFunction(sum, Int64),
    `tokens_cache_read` SimpleAggregateFunction(sum, Int64),
    `tokens_cache_write_5m` SimpleAggregateFunction(sum, Int64),
    `tokens_cache_write_1h` SimpleAggregateFunction(sum, Int64),
    `tokens_reasoning` SimpleAggregateFunction(sum, Int64),
    `cost_units` SimpleAggregateFunction(sum, Int64),
    `latency` AggregateFunction(quantilesDD(0.01, 0.5, 0.95, 0.99), Float64)
)
ENGINE = AggregatingMergeTree
ORDER BY (bucket_at, tenant_id, team, product, feature, project_id, workflow, agent, customer_tier, environment, provider, model, tool, operation, error_code, log_partition)
SETTINGS index_granularity = 512, fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE tallystick.rollup_day_model
(
    `bucket_at` DateTime('UTC'),
    `tenant_id` LowCardinality(String),
    `team` LowCardinality(String),
    `product` LowCardinality(String),
    `feature` LowCardinality(String),
    `project_id` LowCardinality(String),
    `workflow` LowCardinality(String),
    `agent` LowCardinality(String),
    `customer_tier` LowCardinality(String),
    `environment` LowCardinality(String),
    `provider` LowCardinality(String),
    `model` LowCardinality(String),
    `log_partition` UInt16,
    `last_offset` SimpleAggregateFunction(max, UInt64),
    `events` SimpleAggregateFunction(sum, Int64),
    `unknown_events` SimpleAggregateFunction(sum, Int64),
    `late_events` SimpleAggregateFunction(sum, Int64),
    `first_attempts` SimpleAggregateFunction(groupUniqArrayArray, Array(UInt64)),
    `retried_runs` SimpleAggregateFunction(groupUniqArrayArray, Array(UInt64)),
    `retries` SimpleAggregateFunction(groupUniqArrayArray, Array(UInt64)),
    `runs_failed` SimpleAggregateFunction(sum, Int64),
    `calls` SimpleAggregateFunction(sum, Int64),
    `unpriced_calls` SimpleAggregateFunction(sum, Int64),
    `estimated_calls` SimpleAggregateFunction(sum, Int64),
    `tool_calls` SimpleAggregateFunction(sum, Int64),
    `errors` SimpleAggregateFunction(sum, Int64),
    `tokens_input` SimpleAggregateFunction(sum, Int64),
    `tokens_output` SimpleAggregateFunction(sum, Int64),
    `tokens_cache_read` SimpleAggregateFunction(sum, Int64),
    `tokens_cache_write_5m` SimpleAggregateFunction(sum, Int64),
    `tokens_cache_write_1h` SimpleAggregateFunction(sum, Int64),
    `tokens_reasoning` SimpleAggregateFunction(sum, Int64),
    `cost_units` SimpleAggregateFunction(sum, Int64),
    `latency` AggregateFunction(quantilesDD(0.01, 0.5, 0.95, 0.99), Float64)
)
ENGINE = AggregatingMergeTree
ORDER BY (bucket_at, tenant_id, team, product, feature, project_id, workflow, agent, customer_tier, environment, provider, model, log_partition)
SETTINGS index_granularity = 512, fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE tallystick.rollup_day_run
(
    `bucket_at` DateTime('UTC'),
    `tenant_id` LowCardinality(String),
    `team` LowCardinality(String),
    `product` LowCardinality(String),
    `feature` LowCardinality(String),
    `project_id` LowCardinality(String),
    `workflow` LowCardinality(String),
    `agent` LowCardinality(String),
    `customer_tier` LowCardinality(String),
    `environment` LowCardinality(String),
    `log_partition` UInt16,
    `last_offset` SimpleAggregateFunction(max, UInt64),
    `events` SimpleAggregateFunction(sum, Int64),
    `unknown_events` SimpleAggregateFunction(sum, Int64),
    `late_events` SimpleAggregateFunction(sum, Int64),
    `first_attempts` SimpleAggregateFunction(groupUniqArrayArray, Array(UInt64)),
    `retried_runs` SimpleAggregateFunction(groupUniqArrayArray, Array(UInt64)),
    `retries` SimpleAggregateFunction(groupUniqArrayArray, Array(UInt64)),
    `runs_failed` SimpleAggregateFunction(sum, Int64),
    `calls` SimpleAggregateFunction(sum, Int64),
    `unpriced_calls` SimpleAggregateFunction(sum, Int64),
    `estimated_calls` SimpleAggregateFunction(sum, Int64),
    `tool_calls` SimpleAggregateFunction(sum, Int64),
    `errors` SimpleAggregateFunction(sum, Int64),
    `tokens_input` SimpleAggregateFunction(sum, Int64),
    `tokens_output` SimpleAggregateFunction(sum, Int64),
    `tokens_cache_read` SimpleAggregateFunction(sum, Int64),
    `tokens_cache_write_5m` SimpleAggregateFunction(sum, Int64),
    `tokens_cache_write_1h` SimpleAggregateFunction(sum, Int64),
    `tokens_reasoning` SimpleAggregateFunction(sum, Int64),
    `cost_units` SimpleAggregateFunction(sum, Int64),
    `latency` AggregateFunction(quantilesDD(0.01, 0.5, 0.95, 0.99), Float64)
)
ENGINE = AggregatingMergeTree
ORDER BY (bucket_at, tenant_id, team, product, feature, project_id, workflow, agent, customer_tier, environment, log_partition)
SETTINGS index_granularity = 512, fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE tallystick.rollup_delta
(
    `bucket_at` DateTime('UTC'),
    `tenant_id` LowCardinality(String),
    `team` LowCardinality(String),
    `product` LowCardinality(String),
    `feature` LowCardinality(String),
    `project_id` LowCardinality(String),
    `workflow` LowCardinality(String),
    `agent` LowCardinality(String),
    `customer_tier` LowCardinality(String),
    `environment` LowCardinality(String),
    `provider` LowCardinality(String),
    `model` LowCardinality(String),
    `tool` LowCardinality(String),
    `operation` LowCardinality(String),
    `error_code` LowCardinality(String),
    `log_partition` UInt16,
    `last_offset` UInt64,
    `events` Int64,
    `unknown_events` Int64,
    `late_events` Int64,
    `first_attempts` Array(UInt64),
    `retried_runs` Array(UInt64),
    `retries` Array(UInt64),
    `runs_failed` Int64,
    `calls` Int64,
    `unpriced_calls` Int64,
    `estimated_calls` Int64,
    `tool_calls` Int64,
    `errors` Int64,
    `tokens_input` Int64,
    `tokens_output` Int64,
    `tokens_cache_read` Int64,
    `tokens_cache_write_5m` Int64,
    `tokens_cache_write_1h` Int64,
    `tokens_reasoning` Int64,
    `cost_units` Int64,
    `latency` AggregateFunction(quantilesDD(0.01, 0.5, 0.95, 0.99), Float64)
)
ENGINE = MergeTree
ORDER BY (log_partition, last_offset)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, index_granularity = 8192;

CREATE TABLE tallystick.rollup_hour
(
    `bucket_at` DateTime('UTC'),
    `tenant_id` LowCardinality(String),
    `team` LowCardinality(String),
    `product` LowCardinality(String),
    `feature` LowCardinality(String),
    `project_id` LowCardinality(String),
    `workflow` LowCardinality(String),
    `agent` LowCardinality(String),
    `customer_tier` LowCardinality(String),
    `environment` LowCardinality(String),
    `provider` LowCardinality(String),
    `model` LowCardinality(String),
    `tool` LowCardinality(String),
    `operation` LowCardinality(String),
    `error_code` LowCardinality(String),
    `log_partition` UInt16,
    `last_offset` SimpleAggregateFunction(max, UInt64),
    `events` SimpleAggregateFunction(sum, Int64),
    `unknown_events` SimpleAggregateFunction(sum, Int64),
    `late_events` SimpleAggregateFunction(sum, Int64),
    `first_attempts` SimpleAggregateFunction(groupUniqArrayArray, Array(UInt64)),
    `retried_runs` SimpleAggregateFunction(groupUniqArrayArray, Array(UInt64)),
    `retries` SimpleAggregateFunction(groupUniqArrayArray, Array(UInt64)),
    `runs_failed` SimpleAggregateFunction(sum, Int64),
    `calls` SimpleAggregateFunction(sum, Int64),
    `unpriced_calls` SimpleAggregateFunction(sum, Int64),
    `estimated_calls` SimpleAggregateFunction(sum, Int64),
    `tool_calls` SimpleAggregateFunction(sum, Int64),
    `errors` SimpleAggregateFunction(sum, Int64),
    `tokens_input` SimpleAggregateFunction(sum, Int64),
    `tokens_output` SimpleAggregateFunction(sum, Int64),
    `tokens_cache_read` SimpleAggregateFunction(sum, Int64),
    `tokens_cache_write_5m` SimpleAggregateFunction(sum, Int64),
    `tokens_cache_write_1h` SimpleAggregateFunction(sum, Int64),
    `tokens_reasoning` SimpleAggregateFunction(sum, Int64),
    `cost_units` SimpleAggregateFunction(sum, Int64),
    `latency` AggregateFunction(quantilesDD(0.01, 0.5, 0.95, 0.99), Float64)
)
ENGINE = AggregatingMergeTree
ORDER BY (bucket_at, tenant_id, team, product, feature, project_id, workflow, agent, customer_tier, environment, provider, model, tool, operation, error_code, log_partition)
SETTINGS index_granularity = 512, fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE tallystick.rollup_hour_model
(
    `bucket_at` DateTime('UTC'),
    `tenant_id` LowCardinality(String),
    `team` LowCardinality(String),
    `product` LowCardinality(String),
    `feature` LowCardinality(String),
    `project_id` LowCardinality(String),
    `workflow` LowCardinality(String),
    `agent` LowCardinality(String),
    `customer_tier` LowCardinality(String),
    `environment` LowCardinality(String),
    `provider` LowCardinality(String),
    `model` LowCardinality(String),
    `log_partition` UInt16,
    `last_offset` SimpleAggregateFunction(max, UInt64),
    `events` SimpleAggregateFunction(sum, Int64),
    `unknown_events` SimpleAggregateFunction(sum, Int64),
    `late_events` SimpleAggregateFunction(sum, Int64),
    `first_attempts` SimpleAggregateFunction(groupUniqArrayArray, Array(UInt64)),
    `retried_runs` SimpleAggregateFunction(groupUniqArrayArray, Array(UInt64)),
    `retries` SimpleAggregateFunction(groupUniqArrayArray, Array(UInt64)),
    `runs_failed` SimpleAggregateFunction(sum, Int64),
    `calls` SimpleAggregateFunction(sum, Int64),
    `unpriced_calls` SimpleAggregateFunction(sum, Int64),
    `estimated_calls` SimpleAggregateFunction(sum, Int64),
    `tool_calls` SimpleAggregateFunction(sum, Int64),
    `errors` SimpleAggregateFunction(sum, Int64),
    `tokens_input` SimpleAggregateFunction(sum, Int64),
    `tokens_output` SimpleAggregateFunction(sum, Int64),
    `tokens_cache_read` SimpleAggregateFunction(sum, Int64),
    `tokens_cache_write_5m` SimpleAggregateFunction(sum, Int64),
    `tokens_cache_write_1h` SimpleAggregateFunction(sum, Int64),
    `tokens_reasoning` SimpleAggregateFunction(sum, Int64),
    `cost_units` SimpleAggregateFunction(sum, Int64),
    `latency` AggregateFunction(quantilesDD(0.01, 0.5, 0.95, 0.99), Float64)
)
ENGINE = AggregatingMergeTree
ORDER BY (bucket_at, tenant_id, team, product, feature, project_id, workflow, agent, customer_tier, environment, provider, model, log_partition)
SETTINGS index_granularity = 512, fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE tallystick.rollup_minute
(
    `bucket_at` DateTime('UTC'),
    `tenant_id` LowCardinality(String),
    `team` LowCardinality(String),
    `product` LowCardinality(String),
    `feature` LowCardinality(String),
    `project_id` LowCardinality(String),
    `workflow` LowCardinality(String),
    `agent` LowCardinality(String),
    `customer_tier` LowCardinality(String),
    `environment` LowCardinality(String),
    `provider` LowCardinality(String),
    `model` LowCardinality(String),
    `tool` LowCardinality(String),
    `operation` LowCardinality(String),
    `error_code` LowCardinality(String),
    `log_partition` UInt16,
    `last_offset` SimpleAggregateFunction(max, UInt64),
    `events` SimpleAggregateFunction(sum, Int64),
    `unknown_events` SimpleAggregateFunction(sum, Int64),
    `late_events` SimpleAggregateFunction(sum, Int64),
    `first_attempts` SimpleAggregateFunction(groupUniqArrayArray, Array(UInt64)),
    `retried_runs` SimpleAggregateFunction(groupUniqArrayArray, Array(UInt64)),
    `retries` SimpleAggregateFunction(groupUniqArrayArray, Array(UInt64)),
    `runs_failed` SimpleAggregateFunction(sum, Int64),
    `calls` SimpleAggregateFunction(sum, Int64),
    `unpriced_calls` SimpleAggregateFunction(sum, Int64),
    `estimated_calls` SimpleAggregateFunction(sum, Int64),
    `tool_calls` SimpleAggregateFunction(sum, Int64),
    `errors` SimpleAggregateFunction(sum, Int64),
    `tokens_input` SimpleAggregateFunction(sum, Int64),
    `tokens_output` SimpleAggregateFunction(sum, Int64),
    `tokens_cache_read` SimpleAggregateFunction(sum, Int64),
    `tokens_cache_write_5m` SimpleAggregateFunction(sum, Int64),
    `tokens_cache_write_1h` SimpleAggregateFunction(sum, Int64),
    `tokens_reasoning` SimpleAggregateFunction(sum, Int64),
    `cost_units` SimpleAggregateFunction(sum, Int64),
    `latency` AggregateFunction(quantilesDD(0.01, 0.5, 0.95, 0.99), Float64)
)
ENGINE = AggregatingMergeTree
ORDER BY (bucket_at, tenant_id, team, product, feature, project_id, workflow, agent, customer_tier, environment, provider, model, tool, operation, error_code, log_partition)
SETTINGS index_granularity = 512, fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE tallystick.rollup_user
(
    `bucket_at` DateTime('UTC'),
    `tenant_id` LowCardinality(String),
    `user_id` String,
    `provider` LowCardinality(String),
    `model` LowCardinality(String),
    `tool` LowCardinality(String),
    `error_code` LowCardinality(String),
    `log_partition` UInt16,
    `last_offset` SimpleAggregateFunction(max, UInt64),
    `events` SimpleAggregateFunction(sum, Int64),
    `unknown_events` SimpleAggregateFunction(sum, Int64),
    `late_events` SimpleAggregateFunction(sum, Int64),
    `first_attempts` SimpleAggregateFunction(groupUniqArrayArray, Array(UInt64)),
    `retried_runs` SimpleAggregateFunction(groupUniqArrayArray, Array(UInt64)),
    `retries` SimpleAggregateFunction(groupUniqArrayArray, Array(UInt64)),
    `runs_failed` SimpleAggregateFunction(sum, Int64),
    `calls` SimpleAggregateFunction(sum, Int64),
    `unpriced_calls` SimpleAggregateFunction(sum, Int64),
    `estimated_calls` SimpleAggregateFunction(sum, Int64),
    `tool_calls` SimpleAggregateFunction(sum, Int64),
    `errors` SimpleAggregateFunction(sum, Int64),
    `tokens_input` SimpleAggregateFunction(sum, Int64),
    `tokens_output` SimpleAggregateFunction(sum, Int64),
    `tokens_cache_read` SimpleAggregateFunction(sum, Int64),
    `tokens_cache_write_5m` SimpleAggregateFunction(sum, Int64),
    `tokens_cache_write_1h` SimpleAggregateFunction(sum, Int64),
    `tokens_reasoning` SimpleAggregateFunction(sum, Int64),
    `cost_units` SimpleAggregateFunction(sum, Int64),
    `latency` AggregateFunction(quantilesDD(0.01, 0.5, 0.95, 0.99), Float64)
)
ENGINE = AggregatingMergeTree
ORDER BY (tenant_id, user_id, provider, model, tool, error_code, bucket_at, log_partition)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, index_granularity = 8192;

CREATE TABLE tallystick.runs
(
    `tenant_id` LowCardinality(String),
    `run_id` String,
    `log_partition` UInt16,
    `last_offset` SimpleAggregateFunction(max, UInt64),
    `started_at` SimpleAggregateFunction(min, DateTime64(6, 'UTC')),
    `last_event_at` SimpleAggregateFunction(max, DateTime64(6, 'UTC')),
    `has_completed` SimpleAggregateFunction(max, UInt8),
    `has_failed` SimpleAggregateFunction(max, UInt8),
    `workflow` SimpleAggregateFunction(max, String),
    `agent` SimpleAggregateFunction(max, String),
    `user_id` SimpleAggregateFunction(max, String),
    `project_id` SimpleAggregateFunction(max, String),
    `team` SimpleAggregateFunction(max, String),
    `product` SimpleAggregateFunction(max, String),
    `feature` SimpleAggregateFunction(max, String),
    `customer_tier` SimpleAggregateFunction(max, String),
    `environment` SimpleAggregateFunction(max, String),
    `parent_run_id` SimpleAggregateFunction(max, String),
    `root_run_id` SimpleAggregateFunction(max, String),
    `attempts` SimpleAggregateFunction(max, UInt32),
    `events` SimpleAggregateFunction(sum, Int64),
    `late_events` SimpleAggregateFunction(sum, Int64),
    `calls` SimpleAggregateFunction(sum, Int64),
    `unpriced_calls` SimpleAggregateFunction(sum, Int64),
    `tool_calls` SimpleAggregateFunction(sum, Int64),
    `errors` SimpleAggregateFunction(sum, Int64),
    `tokens_input` SimpleAggregateFunction(sum, Int64),
    `tokens_output` SimpleAggregateFunction(sum, Int64),
    `cost_units` SimpleAggregateFunction(sum, Int64)
)
ENGINE = AggregatingMergeTree
ORDER BY (tenant_id, run_id, log_partition)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, index_granularity = 8192;

CREATE TABLE tallystick.schema_migration
(
    `name` String,
    `digest` String,
    `applied_at` DateTime64(6, 'UTC')
)
ENGINE = MergeTree
ORDER BY name
SETTINGS index_granularity = 8192;
