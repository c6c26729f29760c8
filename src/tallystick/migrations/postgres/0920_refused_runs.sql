-- A run that cannot be charged (its sums are beyond what the ledger takes) is set aside, so that
-- it stops no other: it stays on the charger's list, with why, and is tried again now and then.
ALTER TABLE charger.pending_run
    ADD COLUMN refused_at bigint NOT NULL DEFAULT 0,  -- micros, our clock; 0: it was not refused
    ADD COLUMN refusal    text   NOT NULL DEFAULT '';
