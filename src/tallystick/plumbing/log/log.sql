-- name: lock_head
-- Lock the partition's head and return the next offset: orders appends of all processes.
-- Locks: one row of log.head. Index: primary key.
SELECT next_offset FROM log.head WHERE partition = %(partition)s FOR UPDATE;

-- name: append_batch
-- Append one batch and move the head behind it, in one round trip.
-- Locks: the head's row, held already. Index: primary keys.
WITH batch AS (
    INSERT INTO log.batch (partition, offset_start, event_count, received_at, payload)
    VALUES (%(partition)s, %(offset_start)s, %(event_count)s, %(received_at)s, %(payload)s)
)
UPDATE log.head SET next_offset = %(offset_start)s::bigint + %(event_count)s
WHERE partition = %(partition)s;

-- name: append_batch_at
-- The same when the head is where it was thought to be; else nothing is written.
-- Locks: one row of log.head. Index: primary keys.
WITH moved AS (
    UPDATE log.head SET next_offset = %(offset_start)s::bigint + %(event_count)s
    WHERE partition = %(partition)s AND next_offset = %(offset_start)s
    RETURNING partition
)
INSERT INTO log.batch (partition, offset_start, event_count, received_at, payload)
SELECT partition, %(offset_start)s, %(event_count)s, %(received_at)s, %(payload)s FROM moved;

-- name: load_head
-- The offset that the next event will get. Index: primary key.
SELECT next_offset FROM log.head WHERE partition = %(partition)s;

-- name: load_batches
-- Batches from a position on, the one that contains it included. Index: primary key.
SELECT partition, offset_start, event_count, received_at, payload FROM (
SELECT *, sum(event_count) OVER (ORDER BY offset_start) - event_count AS events_before FROM (
SELECT partition, offset_start, event_count, received_at, payload
FROM log.batch
WHERE partition = %(partition)s
  AND offset_start >= coalesce(
        (SELECT max(offset_start) FROM log.batch
         WHERE partition = %(partition)s AND offset_start <= %(position)s), 0)
  AND offset_start + event_count > %(position)s
ORDER BY offset_start
LIMIT %(batches_max)s
) AS next) AS counted
WHERE events_before < %(events_max)s
ORDER BY offset_start;

-- name: load_oldest_waiting
-- When the first event at or after a position arrived. Index: primary key.
SELECT received_at FROM log.batch
WHERE partition = %(partition)s
  AND offset_start >= coalesce(
        (SELECT max(offset_start) FROM log.batch
         WHERE partition = %(partition)s AND offset_start <= %(position)s), 0)
  AND offset_start + event_count > %(position)s
ORDER BY offset_start
LIMIT 1;
