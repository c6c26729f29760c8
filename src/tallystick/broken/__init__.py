"""Broken messages: listed, fixed and sent through the door again, or dismissed.

Owns what people did about each broken message (open, fixed, dismissed) and the record of
every action. Never stores or shows content: it works on the redacted draft that the fact
keeps. Keeps state in PostgreSQL; the messages themselves are facts in ClickHouse. Time:
a repaired event has its own `occurred_at` and the `received_at` of the fix.
"""

from tallystick.broken.service import BrokenFilter, BrokenMessages

__all__ = ["BrokenFilter", "BrokenMessages"]
