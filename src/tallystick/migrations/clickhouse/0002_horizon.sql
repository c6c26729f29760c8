-- From when on facts are kept: rows are only added, the greatest horizon_at counts. Everybody who
-- reads facts stops at it an hour before the months of before it are dropped. A row says how many
-- facts of a log partition lie before it, in all, so that what is gone stays counted. It is kept by
-- the store that has the charge lines: what they say of time before it is final.
CREATE TABLE IF NOT EXISTS tallystick.horizon (
    horizon_at DateTime64(6, 'UTC'),
    log_partition UInt16,
    facts UInt64,
    corrections UInt64,
    announced_at DateTime64(6, 'UTC')
) ENGINE = MergeTree
ORDER BY (horizon_at, log_partition)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

-- The facts that readers may count on. Followers that take in, fold or read back by offsets look
-- at `facts` itself. A view keeps the columns of its making: who adds one makes it anew.
CREATE VIEW IF NOT EXISTS tallystick.kept_facts AS SELECT * FROM tallystick.facts
WHERE occurred_at >= (SELECT max(horizon_at) FROM tallystick.horizon);
