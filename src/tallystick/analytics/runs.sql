-- name: query_runs
-- Runs, newest first, one row each: of those that a condition on single rows leaves.
-- Index: primary key when tenant and run are given.
SELECT tenant_id, run_id,
    min(r.started_at) AS started_at, max(r.last_event_at) AS last_event_at,
    multiIf(max(has_completed) > 0, 'completed', max(has_failed) > 0, 'failed', 'running') AS status,
    max(r.workflow) AS workflow, max(r.agent) AS agent, max(r.user_id) AS user_id,
    max(r.project_id) AS project_id, max(r.team) AS team, max(r.product) AS product,
    max(r.feature) AS feature, max(r.customer_tier) AS customer_tier,
    max(r.environment) AS environment, max(r.parent_run_id) AS parent_run_id,
    max(r.root_run_id) AS root_run_id, max(r.attempts) AS attempts, sum(r.events) AS events,
    sum(r.late_events) AS late_events, sum(r.calls) AS calls,
    sum(r.unpriced_calls) AS unpriced_calls, sum(r.tool_calls) AS tool_calls,
    sum(r.errors) AS errors, sum(r.tokens_input) AS tokens_input,
    sum(r.tokens_output) AS tokens_output, sum(r.cost_units) AS cost_units
FROM tallystick.runs AS r
WHERE {among}
GROUP BY tenant_id, run_id
HAVING {having}
ORDER BY started_at DESC, tenant_id DESC, run_id DESC
LIMIT {{limit:UInt32}};

-- name: runs_with_row
-- A condition: runs of which one row passes the tests. It reads the columns tested, and makes no
-- sums: of a long history that is a small part of what the list of it would cost.
(tenant_id, run_id) IN (SELECT tenant_id, run_id FROM tallystick.runs AS r WHERE {tests})

-- name: query_start
-- When the n-th newest row of a run that passes the tests began: about as many runs began since.
SELECT started_at FROM tallystick.runs AS r WHERE {tests}
ORDER BY started_at DESC LIMIT 1 OFFSET {{rows:UInt64}};

-- name: query_runs_cost
-- What the runs that a statement lists cost together. Index: that statement's.
SELECT toString(sum(toInt128(c.cost_units))) AS cost_units FROM ({runs}) AS c;

-- name: query_run_facts
-- What happened in a run, in time order, the beginning of it. Index: primary key.
SELECT * EXCEPT (content_digest) FROM tallystick.kept_facts
WHERE tenant_id = {tenant:String} AND charge_key = {run:String}
ORDER BY occurred_at, log_offset
LIMIT {most:UInt32};

-- name: query_run_counts
-- How many events a run has, and how many came late, twice or in conflict. Index: primary key.
SELECT f.events AS events, f.late AS late, d.duplicates AS duplicates, d.conflicts AS conflicts
FROM (
    SELECT sum(sign) AS events, sumIf(sign, is_late) AS late FROM tallystick.kept_facts
    WHERE tenant_id = {tenant:String} AND charge_key = {run:String}
) AS f CROSS JOIN (
    SELECT countIf(kind = 'duplicate') AS duplicates, countIf(kind = 'conflict') AS conflicts
    FROM tallystick.deliveries WHERE tenant_id = {tenant:String} AND run_id = {run:String}
) AS d;

-- name: query_run_attempts
-- A run's attempts: sums over all of its facts, begin and end of those that count as now.
-- Index: primary key.
SELECT attempt, sum(net_calls) AS calls, sum(net_tool_calls) AS tool_calls,
    sum(net_errors) AS errors, toString(sum(net_units)) AS cost_units,
    minIf(at, net > 0) AS started_at, maxIf(at, net > 0) AS ended_at
FROM (
    SELECT attempt, f.occurred_at AS at, sum(sign) AS net,
        sumIf(sign, is_call) AS net_calls, sumIf(sign, is_tool_call) AS net_tool_calls,
        sumIf(sign, (is_call OR is_tool_call) AND error_code != '') AS net_errors,
        sum(toInt128(sign * f.cost_units)) AS net_units
    FROM (
        SELECT *, event_type IN ('token_usage', 'cost') AND usage_scope != 'aggregate' AS is_call,
            event_type = 'tool_call_finished' AS is_tool_call
        FROM tallystick.kept_facts WHERE tenant_id = {tenant:String} AND charge_key = {run:String}
    ) AS f
    GROUP BY attempt, at
)
GROUP BY attempt HAVING sum(net) > 0
ORDER BY attempt
LIMIT {most:UInt32};

-- name: query_run_deliveries
-- What arrived twice or in conflict, the first of it. Index: primary key.
SELECT * FROM tallystick.deliveries
WHERE tenant_id = {tenant:String} AND run_id = {run:String}
ORDER BY log_offset
LIMIT {most:UInt32};

-- name: query_run_charges
-- What the run was charged, by line. Index: primary key.
SELECT bucket_at, provider, model, tool, sum(c.credit_units) AS credit_units
FROM tallystick.charges AS c
WHERE tenant_id = {tenant:String} AND charge_key = {run:String}
GROUP BY bucket_at, provider, model, tool
HAVING credit_units != 0
ORDER BY bucket_at, provider, model, tool;

-- name: query_versions
-- How many events of each schema version came since a time. Reads two columns of those months.
SELECT schema_version, sum(sign) AS events FROM tallystick.kept_facts
WHERE received_at >= {since:DateTime64(6)} AND event_type != 'data.import.error'
    AND {tenant:String} IN ('', tenant_id)
GROUP BY schema_version ORDER BY schema_version;

-- name: runs_with_event
-- A condition: runs that have an event (not corrected away since) that passes the tests.
(tenant_id, run_id) IN (
    SELECT tenant_id, run_id FROM tallystick.kept_facts AS f
    WHERE {tests}
    GROUP BY tenant_id, run_id HAVING sum(f.sign) > 0
)
