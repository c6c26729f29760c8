"""Every limit on size and number in one place, each with its reason."""

from __future__ import annotations

from tallystick.clock import DAY, HOUR

ID_LENGTH_MAX = 128
"""Characters in an id or a dimension value: fits every index key and a dashboard cell."""

BODY_BYTES_MAX = 8 * 1024 * 1024
"""A request body, after decompression: about 20,000 events; larger loads send more requests."""

GATEWAY_BODY_BYTES_MAX = 32 * 1024 * 1024
"""A model call's request: pictures as base64; providers take up to 32 MiB."""

EVENT_NESTING_MAX = 16
"""Levels of nesting inside one event."""

EVENTS_PER_REQUEST_MAX = 20_000
"""Events in one request."""

AMOUNT_DIGITS_MAX = 30
"""Characters of a stated amount: beyond any bill, within exact decimal arithmetic."""

TOKENS_MAX = 10**9
"""Tokens in one event: far above any call; at the dearest price still far from 2**63."""

AMOUNT_MAX = 10**6
"""USD in one stated cost: 9,223 of the largest fit into one 64-bit row of a rollup. What is
charged is summed in 128 bits, and bounded by the ledger."""

LATENCY_MS_MAX = 10**10
"""Milliseconds in one event: 115 days."""

LATE_AFTER = 7 * DAY
"""An event older than this on arrival is kept and flagged late."""

FACTS_DAYS_MIN = 90
"""Days that facts are kept at least when they expire: far beyond late events and open holds."""

FUTURE_TOLERANCE = HOUR
"""An event further ahead of our clock than this is rejected: its producer's clock is wrong."""

ATTRIBUTES_MAX = 64
"""Attributes kept of one event."""

HOLD_SECONDS_MAX = 30 * 24 * 3600
"""The longest a hold or lease may stay open before it is extended."""

LIMITS_PER_HOLD_MAX = 64
"""Limits that one hold may name: every scope that a request can match, with room."""

ATTRIBUTION_MAX = 32
"""Names in the attribution of one hold."""

BATCH_ITEMS_MAX = 50_000
"""Items in one batch of holds or captures; they are applied in groups."""

ATOMIC_ITEMS_MAX = 1_000
"""Items in one batch that is applied as a whole: it is one transaction."""

BROKEN_WINDOW = 1_000
"""Messages of a partition over which the share of broken ones is taken: one producer's bad
release fills it within seconds, a stray broken message does not move it."""

BROKEN_PERCENT_MAX = 50
"""More of the window than this and a follower stops: a schema changed, or the topic is wrong."""

BROKEN_FIXES_MAX = 10_000
"""Broken messages that one request fixes or counts; the answer says where to go on."""

REASON_LENGTH_MAX = 200
"""Characters of an operator's reason: a sentence."""
