-- name: query_changes
-- What facts of these offsets add to each minute of each scope, as signed deltas.
-- Index: minmax on log_offset, so a step reads what is new and not the history.
SELECT tenant_id, toInt64(toUnixTimestamp(toStartOfMinute(occurred_at))) AS minute_at,
    scope.1 AS dimension, scope.2 AS scope_value,
    sum(sign * f.cost_units) AS spend_units,
    sumIf(sign, is_call) AS calls,
    sumIf(sign, is_tool_call) AS tool_calls,
    sumIf(sign, (is_call OR is_tool_call) AND error_code != '') AS errors,
    sumIf(sign, is_call AND attempt > 1) AS retries,
    sumIf(sign * f.cost_units, attempt > 1) AS retry_units,
    sumIf(sign * f.tokens_input, is_call) AS tokens_input,
    sumIf(sign * f.tokens_output, is_call) AS tokens_output,
    sumIf(sign * f.tokens_cache_read, is_call) AS cache_reads
FROM (
    SELECT *, event_type IN ('token_usage', 'cost') AND usage_scope != 'aggregate' AS is_call,
        event_type = 'tool_call_finished' AS is_tool_call
    FROM tallystick.facts WHERE ({condition}) AND event_type != 'data.import.error'
) AS f
ARRAY JOIN [('tenant', toString(tenant_id)), ('key', JSONExtractString(attrs, 'tallystick_key')),
    ('user', user_id), ('feature', toString(feature)), ('model', toString(model)),
    ('team', toString(team)), ('project', toString(project_id)), ('tool', toString(tool))] AS scope
WHERE scope_value != '' AND (is_call OR is_tool_call OR f.cost_units != 0)
GROUP BY tenant_id, minute_at, dimension, scope_value
ORDER BY minute_at
LIMIT {{most:UInt32}} BY tenant_id, minute_at, dimension;

-- name: query_hours
-- Hours of the past, for what is usual; users and keys are in no hourly rollup and start anew.
-- Index: primary key (bucket_at).
SELECT tenant_id, toInt64(toUnixTimestamp(bucket_at)) AS hour_at, scope.1 AS dimension,
    scope.2 AS scope_value, toInt64(sum(r.cost_units)) AS spend_units, sum(r.calls) AS calls,
    sum(r.tool_calls) AS tool_calls, sum(r.errors) AS errors,
    sum(r.tokens_input) AS tokens_input, sum(r.tokens_output) AS tokens_output,
    sum(r.tokens_cache_read) AS cache_reads
FROM tallystick.rollup_hour AS r
ARRAY JOIN [('tenant', toString(tenant_id)), ('feature', toString(feature)),
    ('model', toString(model)), ('team', toString(team)), ('project', toString(project_id)),
    ('tool', toString(tool))] AS scope
WHERE scope_value != '' AND bucket_at >= {from_at:DateTime64(6)} AND bucket_at < {to_at:DateTime64(6)}
GROUP BY tenant_id, hour_at, dimension, scope_value
LIMIT {most:UInt32} BY tenant_id, hour_at, dimension;

-- name: query_cells
-- Cells of the mix in a range, for the driver decomposition. Index: primary key (tenant).
SELECT toString(provider) AS provider, toString(model) AS model, toString(tool) AS tool,
    toString(feature) AS feature,
    toInt64(sum(sign * f.cost_units)) AS cost_units,
    sumIf(sign, is_call) AS calls,
    sumIf(sign, is_call AND attempt > 1) AS retries,
    sumIf(sign * f.tokens_input, is_call) AS tokens_input,
    sumIf(sign * f.tokens_output, is_call) AS tokens_output,
    sumIf(sign * f.tokens_cache_read, is_call) AS cache_reads
FROM (
    SELECT *, event_type IN ('token_usage', 'cost') AND usage_scope != 'aggregate' AS is_call
    FROM tallystick.kept_facts WHERE {condition}
) AS f
GROUP BY provider, model, tool, feature
HAVING cost_units != 0 OR calls != 0;

-- name: query_costs
-- Cost by each value of each dimension in a range. Index: primary key (tenant).
SELECT scope.1 AS dimension, scope.2 AS scope_value, toInt64(sum(sign * f.cost_units)) AS cost_units
FROM (SELECT * FROM tallystick.kept_facts WHERE {condition}) AS f
ARRAY JOIN [('key', JSONExtractString(attrs, 'tallystick_key')), ('user', user_id),
    ('feature', toString(feature)), ('model', toString(model)), ('tool', toString(tool)),
    ('team', toString(team)), ('project', toString(project_id))] AS scope
GROUP BY dimension, scope_value
HAVING cost_units != 0;
