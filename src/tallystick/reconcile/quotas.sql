-- name: query_days
-- What analytics counts a day, by tenant, user, project and model: the sums of the rollups, but of
-- the facts themselves. Reads the range.
SELECT tenant_id, user_id, project_id, model,
    toInt64(intDiv(toUnixTimestamp64Micro(f.occurred_at), 86400000000)) AS day,
    toString(sum(toInt128(sign) * f.cost_units)) AS usd_units,
    toString(sumIf(toInt128(sign) * f.tokens_input, is_call)) AS tokens_input,
    toString(sumIf(toInt128(sign) * f.tokens_output, is_call)) AS tokens_output,
    toString(sumIf(sign, is_call)) AS requests,
    toString(sumIf(sign, (is_call OR event_type = 'tool_call_finished') AND error_code != ''))
        AS errors,
    toString(sum(sign)) AS events
FROM (
    SELECT *, event_type IN ('token_usage', 'cost') AND usage_scope != 'aggregate' AS is_call
    FROM tallystick.kept_facts
    WHERE occurred_at >= fromUnixTimestamp64Micro({from_at:Int64}, 'UTC')
        AND occurred_at < fromUnixTimestamp64Micro({to_at:Int64}, 'UTC')
        AND ({tenant_id:String} = '' OR tenant_id = {tenant_id:String})
) AS f
GROUP BY tenant_id, user_id, project_id, model, day;
