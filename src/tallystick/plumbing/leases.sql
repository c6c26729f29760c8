-- name: take_leases
-- Take or renew the leases that are free, ours, or over; return those that are ours now.
-- The epoch tells tenures apart: it grows whenever a lease is taken that was let go, or over.
-- The database's clock decides. Locks: the rows it names, in name order. Index: primary key.
INSERT INTO log.lease (name, owner, expires_at)
SELECT wanted.name, %(owner)s, clock_timestamp() + make_interval(secs => %(seconds)s)
FROM unnest(%(names)s::text[]) AS wanted(name) ORDER BY wanted.name
ON CONFLICT (name) DO UPDATE
SET owner = excluded.owner, expires_at = excluded.expires_at,
    epoch = log.lease.epoch + (log.lease.expires_at < clock_timestamp())::int
WHERE log.lease.owner = excluded.owner OR log.lease.expires_at < clock_timestamp()
RETURNING name, epoch;

-- name: release_leases
-- Let leases of ours go. Locks: the rows it names. Index: primary key.
UPDATE log.lease SET expires_at = '-infinity' WHERE name = ANY(%(names)s) AND owner = %(owner)s;

-- name: count_owned
-- How many of these leases we hold, kept from changing until the transaction ends.
-- Locks: those rows, shared. Index: primary key.
SELECT count(*) FROM (
    SELECT 1 FROM log.lease WHERE name = ANY(%(names)s) AND owner = %(owner)s FOR SHARE
) AS owned;

-- name: count_owners
-- How many owners share the leases with a prefix, ourselves included. Reads the (small) table.
SELECT count(DISTINCT owner) FROM (
    SELECT owner FROM log.lease WHERE name LIKE %(prefix)s || '%%'
        AND expires_at > clock_timestamp()
    UNION ALL SELECT %(owner)s
) AS owners;
