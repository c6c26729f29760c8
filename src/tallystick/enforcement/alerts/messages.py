"""One message in the form of each channel: webhook JSON, Slack blocks, mail, plain text.

Texts of signals hold names that tenants chose, so each form escapes them: HTML by the
template, Slack's three characters here, and no control character reaches a header. Every form
is cut to what its receiver takes.
"""

from __future__ import annotations

import unicodedata
from email.message import EmailMessage
from email.policy import SMTP
from functools import cache
from typing import Any

import jinja2
import msgspec

from tallystick.enforcement.alerts.model import Message

_TEXT_MAX = 500
_SUBJECT_MAX = 150
_WORDS = {
    "opened": "opened",
    "worse": "worse",
    "lasting": "still open",
    "recovered": "recovered",
    "test": "test",
}


def title_of(message: Message) -> str:
    """One line: how bad, who, what."""
    marker = "recovered" if message.reason == "recovered" else message.severity
    return plain(f"[{marker}] {message.who}: {message.what}")[:_SUBJECT_MAX]


def plain(text: str) -> str:
    """A text without control characters, on one line, not too long."""
    kept = (
        " " if unicodedata.category(one) in ("Cc", "Cf", "Zl", "Zp", "Cs") else one for one in text
    )
    return " ".join("".join(kept).split())[:_TEXT_MAX]


def webhook_body(message: Message) -> bytes:
    """The payload, as Standard Webhooks recommends: type, timestamp, data."""
    content = {
        "type": f"alert.{message.reason}",
        "timestamp": message.said_at,
        "data": {"title": title_of(message), **msgspec.structs.asdict(message)},
    }
    return msgspec.json.encode(content)


def slack_body(message: Message) -> bytes:
    """An incoming webhook's message in Block Kit."""
    title = title_of(message)
    fields = [_field(label, text) for label, text in lines_of(message)]
    link = f"<{slack_text(message.link)}|Open the alert>" if "://" in message.link else ""
    blocks: list[dict[str, Any]] = [
        {"type": "header", "text": {"type": "plain_text", "text": title, "emoji": False}},
        {"type": "section", "fields": fields},
        {
            "type": "context",
            "elements": [{"type": "mrkdwn", "text": link or slack_text(message.link)}],
        },
    ]
    return msgspec.json.encode({"text": slack_text(title), "blocks": blocks})


def _field(label: str, text: str) -> dict[str, str]:
    return {"type": "mrkdwn", "text": f"*{label}*\n{slack_text(text) or '-'}"}


def slack_text(text: str) -> str:
    """Escape Slack's three control characters: no mention, no link, no channel call.

    >>> slack_text("<!channel> a & b")
    '&lt;!channel&gt; a &amp; b'
    """
    return plain(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def mail_of(message: Message, sender: str, recipient: str, message_id: str) -> EmailMessage:
    """A mail with a plain and an HTML part; its Message-ID is the same at every try."""
    mail = EmailMessage(policy=SMTP)
    mail["From"] = sender
    mail["To"] = recipient
    mail["Subject"] = title_of(message)
    mail["Message-ID"] = f"<{message_id}@tallystick.invalid>"
    mail["Auto-Submitted"] = "auto-generated"
    content = {"title": title_of(message), "lines": lines_of(message), "link": plain(message.link)}
    mail.set_content(_templates().get_template("mail.txt").render(content))
    mail.add_alternative(_templates().get_template("mail.html").render(content), subtype="html")
    return mail


def lines_of(message: Message) -> list[tuple[str, str]]:
    """What every form says, labelled."""
    is_over = message.reason == "recovered"
    lines = [
        ("State", _WORDS[message.reason]),
        ("Who", message.who),
        ("What", message.what),
        ("How much", message.how_much),
        ("Since", message.since),
        ("What will happen", "nothing: it is over" if is_over else message.next_step),
    ]
    if not is_over:
        lines.append(("How to stop it", message.how_to_stop))
    return [(label, plain(text)) for label, text in lines]


@cache
def _templates() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("tallystick.enforcement.alerts"),
        autoescape=jinja2.select_autoescape(["html"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
