"""Headers: which of the app's are passed on, which of the upstream's come back, and our own.

Those of an answer are written when its work is done and paid for: whatever a caller or an
upstream named, each value becomes printable ASCII, so that none can lose the answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tallystick.gateway.money import CallPermit, CallReceipt
from tallystick.header_text import header_text
from tallystick.units import CREDIT, USD, format_amount

_PASSED_ON = {
    b"anthropic-version": "anthropic-version",
    b"anthropic-beta": "anthropic-beta",
    b"openai-beta": "OpenAI-Beta",
}
_GIVEN_BACK = ("content-type", "x-request-id", "request-id", "openai-processing-ms",
               "openai-version", "retry-after", "retry-after-ms", "x-should-retry")  # fmt: skip
_ANTHROPIC_VERSION = "2023-06-01"


def passed_on(headers: Iterable[tuple[bytes, bytes]], speaks: str) -> dict[str, str]:
    """The app's headers that an upstream is sent: no key, no cookie, nothing unknown."""
    found = {"Content-Type": "application/json"}
    for name, value in headers:
        if name in _PASSED_ON:
            passed, text = _PASSED_ON[name], value.decode("latin-1")
            found[passed] = f"{found[passed]},{text}" if passed in found else text
    if speaks == "anthropic":
        found.setdefault("anthropic-version", _ANTHROPIC_VERSION)
    return found


def answer_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """The upstream's headers that the app is given."""
    return {name: header_text(headers[name]) for name in _GIVEN_BACK if name in headers}


def call_headers(
    permit: CallPermit, receipt: CallReceipt | None, served_model: str, downgraded_by: str = ""
) -> dict[str, str]:
    """What a call cost, its hold, what remains, its run, the model that answered, and why it."""
    found = {
        "X-Tallystick-Hold": permit.hold_id,
        "X-Tallystick-Run": header_text(permit.run_id),
        "X-Tallystick-Model": header_text(served_model or permit.model),
        "X-Tallystick-Request": permit.request_id,
    }
    if downgraded_by:
        found["X-Tallystick-Downgraded-By"] = header_text(downgraded_by)
    available_units = permit.available_units
    if receipt is not None:
        found["X-Tallystick-Cost-Usd"] = format_amount(receipt.cost_usd_units, USD)
        found["X-Tallystick-Credits"] = format_amount(receipt.credit_units, CREDIT)
        available_units = receipt.available_units
    found["X-Tallystick-Remaining"] = format_amount(available_units, CREDIT)
    return found
