"""Enforcement: what limits work before it is made, and what answers when it runs away.

Owns budgets, quotas (the Policy Vault), alerts, overrun response and rate limits. Never moves
credit itself: that is the ledger's. Keeps dated configuration and what was counted against it.
"""
