"""Analytics: facts in ClickHouse, rollups of them, and typed questions about both.

Owns the facts tables, the rollups and every query on them. Never prices or charges:
it stores what rating said and what the charger posted. Keeps facts exact (one row an
original event) and rollups additive. Time: series are by `occurred_at`, UTC.
"""
