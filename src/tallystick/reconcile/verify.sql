-- name: query_fact_identity
-- Kept facts and deliveries from where the sink began to where it is: each offset exactly once
-- (INV-10).
SELECT count() AS rows, uniqExact(log_offset) AS offsets FROM (
    SELECT log_offset FROM tallystick.kept_facts
    WHERE log_partition = {partition:UInt16}
      AND log_offset >= {first:UInt64} AND log_offset < {position:UInt64}
    UNION ALL
    SELECT log_offset FROM tallystick.deliveries
    WHERE log_partition = {partition:UInt16}
      AND log_offset >= {first:UInt64} AND log_offset < {position:UInt64}
);

-- name: query_repeated_events
-- Events that count more than once (INV-09): the same id came by two log partitions.
SELECT tenant_id, event_id, sum(sign) AS times FROM tallystick.kept_facts
GROUP BY tenant_id, event_id HAVING times NOT IN (0, 1) LIMIT 10;

-- name: query_rollup_differences
-- Buckets and tenants where a rollup is not what its facts say (INV-11), sums or sets, as long as
-- there are facts.
SELECT bucket_at, tenant_id, sum(side * s.events) AS events,
    sum(side * s.tokens_input) AS tokens_input, sum(side * s.tokens_output) AS tokens_output,
    sum(side * s.calls) AS calls, sum(side * s.errors) AS errors,
    sum(side * s.cost_units) AS cost_units,
    groupUniqArrayArrayIf(s.first_attempts, side = 1) AS first_attempts,
    groupUniqArrayArrayIf(s.retried_runs, side = 1) AS retried_runs,
    groupUniqArrayArrayIf(s.retries, side = 1) AS retries,
    groupUniqArrayArrayIf(s.first_attempts, side = -1) AS true_first_attempts,
    groupUniqArrayArrayIf(s.retried_runs, side = -1) AS true_retried_runs,
    groupUniqArrayArrayIf(s.retries, side = -1) AS true_retries
FROM (
    SELECT toInt64(1) AS side, {bucket}(bucket_at) AS bucket_at, tenant_id, events, tokens_input,
        tokens_output, calls, errors, cost_units, first_attempts, retried_runs, retries
    FROM tallystick.{table} WHERE bucket_at >= (SELECT max(horizon_at) FROM tallystick.horizon)
    UNION ALL
    SELECT toInt64(-1) AS side, bucket_at, tenant_id, events, tokens_input, tokens_output, calls,
        errors, cost_units, first_attempts, retried_runs, retries FROM ({recomputed})
) AS s
GROUP BY bucket_at, tenant_id
HAVING events != 0 OR tokens_input != 0 OR tokens_output != 0 OR calls != 0 OR errors != 0
    OR cost_units != 0 OR arraySort(first_attempts) != arraySort(true_first_attempts)
    OR arraySort(retried_runs) != arraySort(true_retried_runs) OR arraySort(retries) != arraySort(true_retries)
LIMIT 10;

-- name: query_charged_by_run
-- What the charge lines say each run was charged.
SELECT tenant_id, charge_key, toString(sum(c.credit_units)) AS credit_units
FROM tallystick.charges AS c
GROUP BY tenant_id, charge_key;
