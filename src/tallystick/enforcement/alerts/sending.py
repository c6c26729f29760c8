"""One try of one delivery: a signed webhook, a Slack-compatible webhook, or a mail.

Webhooks are signed as Standard Webhooks says (webhook-id, webhook-timestamp,
webhook-signature), with the old secret too while a rotation lasts. The id is the delivery's:
a try that is repeated after a crash carries the same, so receivers can tell. What went wrong is
said without the target: it may be a credential.
"""

from __future__ import annotations

import smtplib
import ssl
from email.message import EmailMessage
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from standardwebhooks.webhooks import Webhook

from tallystick.clock import to_datetime
from tallystick.enforcement.alerts.messages import mail_of, slack_body, webhook_body
from tallystick.enforcement.alerts.model import Message, Result, Target
from tallystick.enforcement.alerts.rules import read_retry_after
from tallystick.errors import InvalidInput
from tallystick.plumbing.outbound import Answer, OutboundPolicy, Unreachable, post

_GONE = 410
_SMTP_SECONDS = 8.0


class MailServer(NamedTuple):
    """Where mails are handed in: the operator's choice, so it is not guarded."""

    host: str
    port: int
    user: str
    password: str
    security: str
    """tls, starttls or none."""


def read_mail_server(url: str) -> MailServer | None:
    """Read smtp://user:password@host:587?starttls=1 or smtps://host; empty is None."""
    if not url:
        return None
    parts = urlsplit(url)
    if parts.scheme not in ("smtp", "smtps") or not parts.hostname:
        raise InvalidInput("smtp_url must be smtp://host or smtps://host", field="smtp_url")
    has_starttls = parse_qs(parts.query).get("starttls", ["0"])[0] in ("1", "true")
    security = "tls" if parts.scheme == "smtps" else "starttls" if has_starttls else "none"
    port = parts.port or {"tls": 465, "starttls": 587, "none": 25}[security]
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    return MailServer(parts.hostname, port, user, password, security)


class Sender:
    """Sends messages; shared by threads."""

    def __init__(
        self, policy: OutboundPolicy, mail_server: MailServer | None, mail_from: str
    ) -> None:
        self._policy = policy
        self._mail_server = mail_server
        self._mail_from = mail_from

    def send(self, target: Target, message: Message, delivery_id: str, now: int) -> Result:
        """Try once; an expected failure is a result."""
        try:
            if target.kind == "email":
                return self._send_mail(target, message, delivery_id)
            if target.kind == "slack":
                return self._post(target.address, slack_body(message), {})
            body = webhook_body(message)
            return self._post(target.address, body, signed(target.secrets, delivery_id, now, body))
        except Unreachable as error:
            return Result(answer=0, error=f"{error.code}: {error.message}")
        except InvalidInput as error:
            return Result(answer=0, error=error.message, is_final=True)

    def _post(self, url: str, body: bytes, headers: dict[str, str]) -> Result:
        headers = {"content-type": "application/json", "user-agent": "tallystick", **headers}
        return _judge(post(url, body, headers, self._policy))

    def _send_mail(self, target: Target, message: Message, delivery_id: str) -> Result:
        if self._mail_server is None:
            return Result(answer=0, error="TALLYSTICK_SMTP_URL is not set")
        mail = mail_of(message, self._mail_from, target.address, delivery_id)
        try:
            _hand_in(self._mail_server, mail)
        except smtplib.SMTPResponseException as error:
            is_final = 500 <= error.smtp_code < 600
            return Result(error.smtp_code, f"SMTP {error.smtp_code}", is_final=is_final)
        except smtplib.SMTPRecipientsRefused as error:
            code = next(iter(error.recipients.values()), (550, b""))[0]
            return Result(code, f"SMTP {code}: recipient refused", is_final=code >= 500)
        except (smtplib.SMTPException, OSError) as error:
            return Result(0, f"the mail server could not be used ({type(error).__name__})")
        return Result(answer=250)


def signed(secrets: tuple[str, ...], delivery_id: str, now: int, body: bytes) -> dict[str, str]:
    """The headers of a webhook; one signature for each secret, the newest first."""
    moment, text = to_datetime(now), body.decode()
    signatures = [Webhook(secret).sign(delivery_id, moment, text) for secret in secrets]
    return {
        "webhook-id": delivery_id,
        "webhook-timestamp": str(int(moment.timestamp())),
        "webhook-signature": " ".join(signatures),
    }


def _judge(answer: Answer) -> Result:
    if 200 <= answer.status < 300:
        return Result(answer.status)
    return Result(
        answer.status,
        f"HTTP {answer.status}",
        retry_after_seconds=read_retry_after(answer.headers.get("retry-after", "")),
        is_final=answer.status == _GONE,
    )


def _hand_in(server: MailServer, mail: EmailMessage) -> None:
    context = ssl.create_default_context()
    if server.security == "tls":
        client: smtplib.SMTP = smtplib.SMTP_SSL(
            server.host, server.port, timeout=_SMTP_SECONDS, context=context
        )
    else:
        client = smtplib.SMTP(server.host, server.port, timeout=_SMTP_SECONDS)
    with client:
        if server.security == "starttls":
            client.starttls(context=context)
        if server.user:
            client.login(server.user, server.password)
        client.send_message(mail)
