-- name: query_call_facts
-- What the facts say of calls: tokens, cost and credits by hold, the tools' too.
-- Index: primary key.
SELECT tenant_id, extract(event_id, '^call:([0-9a-f-]{{36}})') AS hold_id,
    toString(sum(toInt128(sign * f.credit_units))) AS credit_units,
    toString(sum(toInt128(sign * f.cost_units))) AS cost_units,
    toInt64(sum(sign * (f.tokens_input + f.tokens_output))) AS tokens
FROM tallystick.kept_facts AS f
WHERE (tenant_id, charge_key) IN {{runs:Array(Tuple(String, String))}}
  AND source = 'calls' AND startsWith(event_id, 'call:')
GROUP BY tenant_id, hold_id
HAVING sumIf(sign, event_type = 'token_usage') > 0;

-- name: query_cache
-- How prompt caching pays, by model and one dimension. Index: the month of the facts.
SELECT provider, model, {dimension} AS scope, toInt64(sum(sign)) AS calls,
    toInt64(sum(sign * f.tokens_input)) AS tokens_input,
    toInt64(sum(sign * f.tokens_cache_read)) AS tokens_cache_read,
    toInt64(sum(sign * f.tokens_cache_write_5m)) AS tokens_cache_write_5m,
    toInt64(sum(sign * f.tokens_cache_write_1h)) AS tokens_cache_write_1h,
    toInt64(sumIf(sign, f.tokens_cache_read > 0)) AS calls_that_read
FROM tallystick.kept_facts AS f
WHERE event_type = 'token_usage' AND usage_scope != 'aggregate'
  AND occurred_at >= fromUnixTimestamp64Micro({{from_at:Int64}}, 'UTC')
  AND occurred_at < fromUnixTimestamp64Micro({{to_at:Int64}}, 'UTC')
  AND ({{tenant_id:String}} = '' OR tenant_id = {{tenant_id:String}})
GROUP BY provider, model, scope HAVING calls > 0
ORDER BY tokens_input DESC LIMIT 1000;

-- name: query_usual_outputs
-- The last answers' lengths by tenant and model, to begin with, of facts of some offsets.
-- Index: minmax on log_offset.
SELECT tenant_id, model, groupArrayLast(100)(toInt64(f.tokens_output)) AS outputs
FROM tallystick.kept_facts AS f
WHERE event_type = 'token_usage' AND sign > 0 AND tokens_output > 0 AND ({condition})
GROUP BY tenant_id, model ORDER BY count() DESC LIMIT 2000;
