-- name: add_seen
-- Identities of one chunk. Index: primary key.
INSERT INTO enforcement.vault_seen (partition, offset_start, offset_end, seen_at, identities)
VALUES (%(partition)s, %(offset_start)s, %(offset_end)s, %(seen_at)s, %(identities)s)
ON CONFLICT (partition, offset_start) DO UPDATE
SET offset_end = excluded.offset_end, seen_at = excluded.seen_at,
    identities = excluded.identities;

-- name: load_seen
-- Identities of chunks that meet a range. Index: primary key.
SELECT identities FROM enforcement.vault_seen
WHERE partition = %(partition)s AND offset_start < %(end)s AND offset_end > %(start)s
ORDER BY offset_start;

-- name: forget_seen
-- Delete old identities. Locks: their rows. Index: vault_seen_by_age.
DELETE FROM enforcement.vault_seen WHERE seen_at < %(before)s;
