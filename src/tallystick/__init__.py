"""Tallystick: the open control plane for AI usage, credits and cost."""

__version__ = "0.1.0"
