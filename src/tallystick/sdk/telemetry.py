"""OpenTelemetry, when the application uses it: attributes on the span that is current.

Nothing is imported: if nobody has loaded `opentelemetry.trace`, there is no span to mark.
Names are those of the GenAI conventions (`gen_ai.*`); ours begin with `tallystick.`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

Attribute = str | int | float | bool


def mark_span(attributes: Mapping[str, Attribute]) -> None:
    """Set attributes on the current span; empty values are left out."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return
    span = trace.get_current_span()
    if span.is_recording():
        for name, value in attributes.items():
            if value not in ("", None):
                span.set_attribute(name, value)
