"""Events: what was used, said once.

Owns the canonical event, the adapters of every accepted form, validation, redaction,
deduplication and the door. Never prices, charges or aggregates. Keeps nothing but the
deduplication index, which can be rebuilt from the log. Time: `occurred_at` is the
source's claim, `received_at` our clock at the door.
"""
