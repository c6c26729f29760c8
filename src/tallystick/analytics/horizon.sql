-- name: query_horizon
-- From when on facts are kept, and when that was said. Reads the whole (tiny) table.
SELECT toUnixTimestamp64Micro(max(h.horizon_at)) AS horizon_at,
    toUnixTimestamp64Micro(argMax(h.announced_at, h.horizon_at)) AS announced_at
FROM tallystick.horizon AS h;

-- name: query_expired
-- Rows of each log partition that lie before the horizon. Reads the whole (tiny) table.
SELECT log_partition, max(h.facts) + max(h.corrections) AS expired FROM tallystick.horizon AS h
GROUP BY log_partition;

-- name: query_accounted
-- How many offsets of log ranges are accounted for, by log partition: kept, set aside, or expired.
-- Reads two columns.
SELECT log_partition, sum(n) AS accounted FROM (
    SELECT log_partition, count() AS n FROM tallystick.kept_facts WHERE {condition}
    GROUP BY log_partition
    UNION ALL
    SELECT log_partition, count() AS n FROM tallystick.deliveries WHERE {condition}
    GROUP BY log_partition
    UNION ALL
    SELECT log_partition, max(h.facts) + max(h.corrections) AS n FROM tallystick.horizon AS h
    GROUP BY log_partition
)
GROUP BY log_partition;

-- name: announce
-- Say that facts are kept from a moment on, with how many lie before it: those that the horizon
-- before counted, and those between the two. One part: it is said whole or not at all.
INSERT INTO tallystick.horizon (horizon_at, log_partition, facts, corrections, announced_at)
SELECT fromUnixTimestamp64Micro({{horizon:Int64}}, 'UTC'), log_partition,
    sum(f) AS facts, sum(c) AS corrections, fromUnixTimestamp64Micro({{now:Int64}}, 'UTC')
FROM (
    SELECT log_partition, countIf(correction_id = '') AS f, countIf(correction_id != '') AS c
    FROM tallystick.kept_facts
    WHERE occurred_at < fromUnixTimestamp64Micro({{horizon:Int64}}, 'UTC')
    GROUP BY log_partition
    UNION ALL
    SELECT log_partition, max(h.facts) AS f, max(h.corrections) AS c FROM tallystick.horizon AS h
    GROUP BY log_partition
    UNION ALL
    SELECT toUInt16(0) AS log_partition, toUInt64(0) AS f, toUInt64(0) AS c
)
GROUP BY log_partition
{one_part};

-- name: query_runs_before
-- Which of some runs have facts of before a moment. Index: primary key.
SELECT DISTINCT tenant_id, charge_key FROM tallystick.facts
WHERE (tenant_id, charge_key) IN (
    SELECT run[1], run[2] FROM (
        SELECT splitByChar('\t', arrayJoin(splitByChar('\n', {{runs:String}}))) AS run))
  AND occurred_at < fromUnixTimestamp64Micro({{horizon:Int64}}, 'UTC');

-- name: query_months
-- Months of facts that end before a moment.
SELECT DISTINCT partition_id FROM system.parts
WHERE database = 'tallystick' AND table = 'facts' AND active
  AND partition_id < formatDateTime(fromUnixTimestamp64Micro({horizon:Int64}, 'UTC'), '%Y%m')
ORDER BY partition_id;

-- name: drop_month
-- Delete the facts of a month, however large.
ALTER TABLE tallystick.facts DROP PARTITION ID '{month}' SETTINGS max_partition_size_to_drop = 0;
