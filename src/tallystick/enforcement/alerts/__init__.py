"""Alerts: what someone should know, told once, escalated while it lasts, and taken back.

Owns signals and their delivery. Never decides what is wrong: budgets, the vault and overrun
response do, and record a signal in their own transaction.
"""

from tallystick.enforcement.alerts.model import Signal
from tallystick.enforcement.alerts.signals import AlertStore, SignalSink

__all__ = ["AlertStore", "Signal", "SignalSink"]
