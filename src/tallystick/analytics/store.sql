-- name: query_landed_until
-- The offset after the last one that facts or deliveries hold, of those from an offset on.
-- Index: minmax on log_offset, so what landed long ago is not read.
SELECT max(log_offset) + 1 AS landed_until FROM (
    SELECT log_offset FROM tallystick.facts
    WHERE log_partition = {partition:UInt16} AND log_offset >= {since:UInt64}
    UNION ALL
    SELECT log_offset FROM tallystick.deliveries
    WHERE log_partition = {partition:UInt16} AND log_offset >= {since:UInt64}
)
HAVING count() > 0;

-- name: query_landed
-- Offsets of facts (or deliveries) in a range. Index: minmax on log_offset.
SELECT log_offset FROM tallystick.{table}
WHERE log_partition = {{partition:UInt16}}
  AND log_offset >= {{start:UInt64}} AND log_offset < {{end:UInt64}};

-- name: query_landed_events
-- Which events landed at the offsets of a range. Index: minmax on log_offset.
SELECT log_offset, tenant_id, event_id FROM tallystick.facts
WHERE log_partition = {partition:UInt16}
  AND log_offset >= {start:UInt64} AND log_offset < {end:UInt64}
UNION ALL
SELECT log_offset, tenant_id, event_id FROM tallystick.deliveries
WHERE log_partition = {partition:UInt16}
  AND log_offset >= {start:UInt64} AND log_offset < {end:UInt64};

-- name: query_watermarks
-- The last offset of each log partition that a rollup holds.
SELECT log_partition, max(last_offset) AS last_offset FROM tallystick.{table}
GROUP BY log_partition;

-- name: fold_facts
-- The one definition of what a rollup row counts; {keys} are its dimensions.
-- A call is a model call (aggregate usage repeats its children and counts nothing).
-- Runs are those of first_attempts and retried_runs, attempts are first_attempts and retries:
-- attempts after the first are few, so a run is remembered about once and not twice.
SELECT {keys},
    max(log_offset) AS last_offset,
    sum(sign) AS events,
    sumIf(sign, event_type NOT IN ('run_started', 'run_completed', 'run_failed', 'attempt_started',
        'attempt_finished', 'token_usage', 'tool_call_started', 'tool_call_finished',
        'credit_granted', 'credit_reserved', 'credit_charged', 'credit_refunded', 'cost',
        'data.import.error')) AS unknown_events,
    sumIf(sign, is_late) AS late_events,
    groupUniqArrayIf(run_hash, is_run AND attempt = 1) AS first_attempts,
    groupUniqArrayIf(run_hash, is_run AND attempt != 1) AS retried_runs,
    groupUniqArrayIf(sipHash64(run_hash, attempt), is_run AND attempt != 1) AS retries,
    sumIf(sign, event_type = 'run_failed') AS runs_failed,
    sumIf(sign, is_call) AS calls,
    sumIf(sign, is_call AND cost_quality = 'unpriced') AS unpriced_calls,
    sumIf(sign, is_call AND cost_quality = 'estimated') AS estimated_calls,
    sumIf(sign, is_tool_call) AS tool_calls,
    sumIf(sign, (is_call OR is_tool_call) AND error_code != '') AS errors,
    sumIf(sign * f.tokens_input, is_call) AS tokens_input,
    sumIf(sign * f.tokens_output, is_call) AS tokens_output,
    sumIf(sign * f.tokens_cache_read, is_call) AS tokens_cache_read,
    sumIf(sign * f.tokens_cache_write_5m, is_call) AS tokens_cache_write_5m,
    sumIf(sign * f.tokens_cache_write_1h, is_call) AS tokens_cache_write_1h,
    sumIf(sign * f.tokens_reasoning, is_call) AS tokens_reasoning,
    sum(sign * f.cost_units) AS cost_units,
    quantilesDDStateIf(0.01, 0.5, 0.95, 0.99)(assumeNotNull(latency_ms),
        (is_call OR is_tool_call) AND latency_ms IS NOT NULL AND correction_id = '') AS latency
FROM (
    SELECT *, event_type IN ('token_usage', 'cost') AND usage_scope != 'aggregate' AS is_call,
        event_type = 'tool_call_finished' AS is_tool_call,
        run_id != '' AND sign = 1 AS is_run, sipHash64(toString(tenant_id), run_id) AS run_hash
    FROM tallystick.facts WHERE {condition}
) AS f
GROUP BY {keys};

-- name: has_before
-- Whether a log range holds an event of before a moment. Index: minmax on log_offset.
SELECT 1 AS found FROM tallystick.facts
WHERE ({condition}) AND occurred_at < fromUnixTimestamp64Micro({{moment:Int64}}, 'UTC')
LIMIT 1;

-- name: fold_delta
-- A coarser rollup, from deltas: the same sums over longer buckets.
SELECT {bucket}(d.bucket_at) AS bucket_at, tenant_id, {dimensions}, log_partition,
    max(d.last_offset) AS last_offset,
    {sums},
    groupUniqArrayArray(d.first_attempts) AS first_attempts,
    groupUniqArrayArray(d.retried_runs) AS retried_runs,
    groupUniqArrayArray(d.retries) AS retries,
    quantilesDDMergeState(0.01, 0.5, 0.95, 0.99)(d.latency) AS latency
FROM tallystick.rollup_delta AS d
WHERE {condition}
GROUP BY bucket_at, tenant_id, {dimensions}, log_partition;

-- name: copy_delta
-- What the steps added, as it is: its buckets are minutes, and merges sum what falls together.
SELECT {columns} FROM tallystick.rollup_delta AS d WHERE {condition};

-- name: delete_deltas
-- Rows that every rollup has taken in. Kept for a while, so that nothing races with a fold.
DELETE FROM tallystick.rollup_delta WHERE {condition};

-- name: fold_runs
-- One row a run; see the table's comment for why text takes the greatest value.
SELECT tenant_id, run_id, log_partition,
    max(log_offset) AS last_offset,
    min(occurred_at) AS started_at,
    max(occurred_at) AS last_event_at,
    max(event_type = 'run_completed') AS has_completed,
    max(event_type = 'run_failed') AS has_failed,
    max(toString(f.workflow)) AS workflow,
    max(toString(f.agent)) AS agent,
    max(f.user_id) AS user_id,
    max(toString(f.project_id)) AS project_id,
    max(toString(f.team)) AS team,
    max(toString(f.product)) AS product,
    max(toString(f.feature)) AS feature,
    max(toString(f.customer_tier)) AS customer_tier,
    max(toString(f.environment)) AS environment,
    max(f.parent_run_id) AS parent_run_id,
    max(f.root_run_id) AS root_run_id,
    max(attempt) AS attempts,
    sum(sign) AS events,
    sumIf(sign, is_late) AS late_events,
    sumIf(sign, is_call) AS calls,
    sumIf(sign, is_call AND cost_quality = 'unpriced') AS unpriced_calls,
    sumIf(sign, is_tool_call) AS tool_calls,
    sumIf(sign, (is_call OR is_tool_call) AND error_code != '') AS errors,
    sumIf(sign * f.tokens_input, is_call) AS tokens_input,
    sumIf(sign * f.tokens_output, is_call) AS tokens_output,
    sum(sign * f.cost_units) AS cost_units
FROM (
    SELECT *, event_type IN ('token_usage', 'cost') AND usage_scope != 'aggregate' AS is_call,
        event_type = 'tool_call_finished' AS is_tool_call
    FROM tallystick.facts WHERE {condition} AND run_id != ''
) AS f
GROUP BY tenant_id, run_id, log_partition;

-- name: query_identities
-- What is known of identities: digests and coordinates of facts with these ids of these tenants.
-- Index: primary key (the tenants), bloom filter on event_id.
SELECT tenant_id, event_id, hex(content_digest) AS digest, log_partition, log_offset
FROM tallystick.facts
WHERE tenant_id IN {{tenants:Array(String)}} AND event_id IN {{ids:Array(String)}}
    AND correction_id = '';

-- name: query_attempts
-- Rated credits of runs by attempt: what the decision on a run's charge needs. Sums are of 128
-- bits: the largest events of one run can pass 64. Usage without a run, which is charged by the
-- minute, repeats nothing and ends in no failure of its own: all of it is one attempt. Before the
-- horizon nothing is summed, but what is there of attempts, beginning and end counts.
-- Index: primary key.
SELECT tenant_id, charge_key, if(f.run_id = '', 1, f.attempt) AS attempt,
    toString(sumIf(toInt128(sign * f.credit_units), is_since)) AS credit_units,
    toString(sumIf(toInt128(sign * f.credit_units), is_since AND is_late)) AS late_credit_units,
    toString(sumIf(toInt128(sign * f.cost_units), is_since)) AS cost_units,
    sumIf(sign, event_type = 'run_failed' AND f.run_id != '') > 0 AS is_failed,
    toUnixTimestamp64Micro(min(occurred_at)) AS began_at
FROM (
    SELECT *, occurred_at >= fromUnixTimestamp64Micro({{horizon:Int64}}, 'UTC') AS is_since
    FROM tallystick.facts
) AS f
WHERE (tenant_id, charge_key) IN (
    SELECT run[1], run[2] FROM (
        SELECT splitByChar('\t', arrayJoin(splitByChar('\n', {{runs:String}}))) AS run))
  AND event_type != 'data.import.error'
GROUP BY tenant_id, charge_key, attempt
HAVING sum(sign) != 0 OR credit_units != '0' OR cost_units != '0'
SETTINGS max_threads = 1;

-- name: query_past
-- What runs were charged for their time before the horizon, and of those that began before it
-- when, their last attempt, and whether they failed. Index: primary keys.
SELECT tenant_id, charge_key, toString(sum(units)) AS credit_units,
    toUnixTimestamp64Micro(max(began)) AS began_at, max(last) AS attempt_last,
    max(failed) AS is_failed
FROM (
    SELECT tenant_id, charge_key, toInt128(c.credit_units) AS units,
        fromUnixTimestamp64Micro(0, 'UTC') AS began, toUInt32(1) AS last, toUInt8(0) AS failed
    FROM tallystick.charges AS c
    WHERE (tenant_id, charge_key) IN (
        SELECT run[1], run[2] FROM (
            SELECT splitByChar('\t', arrayJoin(splitByChar('\n', {{runs:String}}))) AS run))
      AND bucket_at < fromUnixTimestamp64Micro({{horizon:Int64}}, 'UTC')
    UNION ALL
    SELECT tenant_id, run_id AS charge_key, toInt128(0) AS units, min(r.started_at) AS began,
        max(r.attempts) AS last, max(r.has_failed) AS failed
    FROM tallystick.runs AS r
    WHERE (tenant_id, run_id) IN (
        SELECT run[1], run[2] FROM (
            SELECT splitByChar('\t', arrayJoin(splitByChar('\n', {{runs:String}}))) AS run))
    GROUP BY tenant_id, run_id
    HAVING began < fromUnixTimestamp64Micro({{horizon:Int64}}, 'UTC')
)
GROUP BY tenant_id, charge_key
SETTINGS max_threads = 1;

-- name: post_lines
-- Post what charge lines of runs should be, minus what they are (known_lines, for runs that have
-- some), by line, since the horizon: lines of before it are final. An attempt is charged unless it
-- is in `free`, without what came late when it is in `late_free`, and is waste when it is in
-- `wasted`; lists that are empty are not looked at.
-- Posting again posts nothing. The charger posts no run whose sums pass 64 bits.
-- Index: primary key.
INSERT INTO tallystick.charges (tenant_id, charge_key, {keys}, credit_units, waste_credit_units,
    waste_cost_units, posted_at)
SELECT tenant_id, charge_key, {keys},
    sum(l.credit_units) AS credit_units, sum(l.waste_credit_units) AS waste_credit_units,
    sum(l.waste_cost_units) AS waste_cost_units,
    fromUnixTimestamp64Micro({{now:Int64}}, 'UTC') AS posted_at
FROM (
    SELECT tenant_id, charge_key, toStartOfMinute(occurred_at) AS bucket_at, {dimensions},
        if(is_charged, sign * f.credit_units, 0) AS credit_units,
        if(is_wasted, sign * f.credit_units, 0) AS waste_credit_units,
        if(is_wasted, sign * f.cost_units, 0) AS waste_cost_units
    FROM (
        SELECT *,
            concat(tenant_id, '\t', charge_key, '\t', toString(if(run_id = '', 1, attempt)))
                AS attempt_key,
            {is_charged} AS is_charged, {is_wasted} AS is_wasted
        FROM tallystick.facts
        WHERE (tenant_id, charge_key) IN (
            SELECT run[1], run[2] FROM (
                SELECT splitByChar('\t', arrayJoin(splitByChar('\n', {{runs:String}}))) AS run))
          AND event_type != 'data.import.error' AND (credit_units != 0 OR cost_units != 0)
          AND occurred_at >= fromUnixTimestamp64Micro({{horizon:Int64}}, 'UTC')
    ) AS f
    {known}
) AS l
WHERE {may_write}
GROUP BY tenant_id, charge_key, {keys}
HAVING credit_units != 0 OR waste_credit_units != 0 OR waste_cost_units != 0
SETTINGS max_threads = 1, max_insert_threads = 1;

-- name: known_lines
-- What charge lines of runs are, taken back. Index: primary key.
UNION ALL
SELECT tenant_id, charge_key, bucket_at, {dimensions},
    -c.credit_units, -c.waste_credit_units, -c.waste_cost_units
FROM tallystick.charges AS c
WHERE (tenant_id, charge_key) IN (
    SELECT run[1], run[2] FROM (
        SELECT splitByChar('\t', arrayJoin(splitByChar('\n', {{known:String}}))) AS run))
  AND bucket_at >= fromUnixTimestamp64Micro({{horizon:Int64}}, 'UTC');

-- name: delete_lines
-- Delete charge lines since the horizon: they are made anew. Rewrites parts of both sides of it.
ALTER TABLE tallystick.charges DELETE
WHERE bucket_at >= fromUnixTimestamp64Micro({horizon:Int64}, 'UTC')
SETTINGS mutations_sync = 2;

-- name: query_landed_identities
-- Identities of what landed of a log partition in a range of offsets: the index is made anew
-- of them. Index: minmax on log_offset.
SELECT tenant_id, event_id, hex(content_digest) AS digest, log_offset FROM tallystick.facts
WHERE log_partition = {{partition:UInt16}}
  AND log_offset >= {{start:UInt64}} AND log_offset < {{end:UInt64}}
  AND received_at >= {{since:DateTime64(6)}};

-- name: query_counts
-- How many deliveries have been counted, by what became of them; expired facts are. Markers are
-- offsets without one.
WITH (SELECT max(horizon_at) FROM tallystick.horizon) AS horizon,
    (SELECT (countIf(correction_id = ''), countIf(correction_id != '')) FROM tallystick.facts)
        AS landed,
    (SELECT (countIf(correction_id = ''), countIf(correction_id != '')) FROM tallystick.facts
        WHERE occurred_at < horizon) AS past,
    (SELECT (sum(most.1), sum(most.2)) FROM (
        SELECT (max(h.facts), max(h.corrections)) AS most FROM tallystick.horizon AS h
        GROUP BY log_partition)) AS expired
SELECT landed.1 - past.1 + expired.1 AS facts, landed.2 - past.2 + expired.2 AS corrections,
    (SELECT count() FROM tallystick.deliveries WHERE kind = 'duplicate') AS duplicates,
    (SELECT count() FROM tallystick.deliveries WHERE kind = 'conflict') AS conflicts,
    (SELECT count() FROM tallystick.deliveries WHERE kind IN ('control', 'expired')) AS markers;

-- name: query_digest
-- A digest over every column of every kept fact, whatever their order. Reads the whole table.
SELECT concat(toString(count()), ':', hex(sum(toUInt128(
    sipHash64(* EXCEPT latency_ms, isNull(latency_ms), ifNull(latency_ms, 0)))))) AS digest
FROM tallystick.kept_facts;
