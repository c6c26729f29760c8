"""Reconcile: do log, facts, rollups, charges and ledger say the same?

Owns freshness (how far each follower is) and verification of the invariants on live data.
Never repairs: it names what differs, with a count and examples. Keeps nothing.
"""
