-- Rate cards: effective-dated, versioned, append-only.
CREATE SCHEMA catalog;

CREATE TABLE catalog.rate_card (
    rate_card_id text PRIMARY KEY CHECK (length(rate_card_id) BETWEEN 1 AND 128),
    kind         text NOT NULL CHECK (kind IN ('cost', 'credit')),
    tenant_id    text NOT NULL DEFAULT '',   -- '' is everybody's; a tenant's own card wins
    UNIQUE (kind, tenant_id)
);

CREATE TABLE catalog.rate_card_version (
    version_id   integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,   -- every priced fact pins it
    rate_card_id text   NOT NULL REFERENCES catalog.rate_card,
    effective_at bigint NOT NULL,            -- micros: rates events from this time on
    recorded_at  bigint NOT NULL,            -- micros: when we learned it
    source       text   NOT NULL,
    digest       text   NOT NULL,            -- sha256 of content
    content      bytea  NOT NULL,            -- JSON, see docs/rate-cards.md
    UNIQUE (rate_card_id, effective_at, digest)
);
CREATE TRIGGER version_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE
    ON catalog.rate_card_version FOR EACH STATEMENT EXECUTE FUNCTION log.refuse_change();
