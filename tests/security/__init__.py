"""Attacks on one real server: what an outsider, a small key or another tenant may try."""
