"""Audit: who did what, when, and what was decided; no content.

Owns the record of requests, denials and changes. Never changes a record once it is written.
"""
