-- name: lock_for_recording
-- One recording at a time, and no rater is refreshed meanwhile. Locks: an advisory lock.
SELECT pg_advisory_xact_lock(7461);

-- name: wait_for_recording
-- Wait for a version that is being recorded. Locks: an advisory lock, shared.
SELECT pg_advisory_xact_lock_shared(7461);

-- name: insert_card
-- Make a card if it is new. Index: primary key.
INSERT INTO catalog.rate_card (rate_card_id, kind, tenant_id)
VALUES (%(rate_card_id)s, %(kind)s, %(tenant_id)s)
ON CONFLICT (rate_card_id) DO NOTHING;

-- name: insert_version
-- Add a version; the same content from the same time on is not added twice. Index: unique key.
INSERT INTO catalog.rate_card_version
    (rate_card_id, effective_at, recorded_at, source, digest, content)
VALUES (%(rate_card_id)s, %(effective_at)s, %(recorded_at)s, %(source)s, %(digest)s, %(content)s)
ON CONFLICT (rate_card_id, effective_at, digest) DO NOTHING;

-- name: load_stamp
-- The newest version id: tells a rater whether it is out of date. Index: primary key.
SELECT coalesce(max(version_id), 0) FROM catalog.rate_card_version;

-- name: load_versions
-- Every version with its content. Reads both (small) tables.
SELECT v.version_id, c.kind, c.tenant_id, v.effective_at, v.recorded_at, v.content
FROM catalog.rate_card_version v JOIN catalog.rate_card c USING (rate_card_id)
ORDER BY v.version_id;

-- name: list_cards
-- Cards with how many versions they have. Reads both (small) tables.
SELECT c.rate_card_id, c.kind, c.tenant_id, count(v.version_id) AS versions,
    max(v.version_id) AS latest_version_id
FROM catalog.rate_card c LEFT JOIN catalog.rate_card_version v USING (rate_card_id)
WHERE %(tenant_id)s = '' OR c.tenant_id IN ('', %(tenant_id)s)
GROUP BY c.rate_card_id, c.kind, c.tenant_id ORDER BY c.rate_card_id;

-- name: list_versions
-- The versions of one card, newest first. Index: unique key.
SELECT version_id, effective_at, recorded_at, source, digest
FROM catalog.rate_card_version WHERE rate_card_id = %(rate_card_id)s
ORDER BY version_id DESC;

-- name: find_card
-- One card. Index: primary key.
SELECT kind, tenant_id FROM catalog.rate_card WHERE rate_card_id = %(rate_card_id)s;
