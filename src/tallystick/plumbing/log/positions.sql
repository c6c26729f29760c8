-- name: load_positions
-- Where a follower is. Index: primary key.
SELECT partition, position, progressed_at FROM log.follower WHERE follower = %(follower)s;

-- name: store_positions
-- Move a follower. Locks: its rows, in partition order. Index: primary key.
INSERT INTO log.follower (follower, partition, position, progressed_at)
SELECT %(follower)s, moved.partition, moved.position, %(now)s::bigint
FROM unnest(%(partitions)s::smallint[], %(offsets)s::bigint[]) AS moved(partition, position)
ORDER BY moved.partition
ON CONFLICT (follower, partition)
DO UPDATE SET position = excluded.position, progressed_at = excluded.progressed_at;

-- name: store_beginnings
-- Where a follower begins partitions. Locks: its rows. Index: primary key.
INSERT INTO log.beginning (follower, partition, first_offset)
SELECT %(follower)s, begun.partition, begun.first_offset
FROM unnest(%(partitions)s::smallint[], %(offsets)s::bigint[]) AS begun(partition, first_offset)
ORDER BY begun.partition
ON CONFLICT (follower, partition) DO UPDATE SET first_offset = excluded.first_offset;

-- name: load_beginnings
-- Where a follower began. Index: primary key.
SELECT partition, first_offset FROM log.beginning WHERE follower = %(follower)s;

-- name: forget_positions
-- Send a follower to the beginning. Locks: its rows. Index: primary key.
DELETE FROM log.follower WHERE follower = %(follower)s;
