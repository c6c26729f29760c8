"""Channels and routes of a tenant: where it is told, and of what.

A channel's target (a webhook's URL may be a credential, Slack's is) and signing secret are
sealed; the secret is shown once, when it is made or rotated. After a rotation the secret before
signs as well for a while, so receivers change over without a gap.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import msgspec
from psycopg.types.json import Jsonb
from psycopg_pool import ConnectionPool

from tallystick.bounds import ID_LENGTH_MAX
from tallystick.clock import DAY, SECOND, Clock, format_time
from tallystick.enforcement.alerts.model import SEVERITIES, Message, Step
from tallystick.enforcement.alerts.rules import check_address, check_steps
from tallystick.enforcement.alerts.service import deliveries_of
from tallystick.enforcement.alerts.store import AlertRows, AlertTransaction, Row
from tallystick.errors import Conflict, InvalidInput, NotFound
from tallystick.ids import IdSource
from tallystick.plumbing.outbound import OutboundPolicy, check_url
from tallystick.plumbing.sealing import Sealing

KINDS = ("webhook", "email", "slack")
OVERLAP_SECONDS = DAY // SECOND
_OVERLAP_SECONDS_MAX = 30 * OVERLAP_SECONDS
_CHANNELS_MAX = 100
_ROUTES_MAX = 100


def channel_sealing(redaction_key: str) -> Sealing:
    """What seals targets and signing secrets of channels."""
    return Sealing(redaction_key.encode(), b"alert channels", setting="TALLYSTICK_REDACTION_KEY")


class Channels:
    """Keeps channels and routes; `policy` says where webhooks may go."""

    def __init__(
        self,
        pool: ConnectionPool,
        clock: Clock,
        ids: IdSource,
        sealing: Sealing,
        policy: OutboundPolicy,
    ) -> None:
        self._rows = AlertRows(pool)
        self._clock = clock
        self._ids = ids
        self._sealing = sealing
        self._policy = policy

    def create(
        self, tenant_id: str, *, name: str, kind: str, target: str, key: str, by: str
    ) -> dict[str, Any]:
        """Make a channel; its signing secret is in this answer only.

        The same `key` again returns the channel without the secret, or raises Conflict.
        """
        _require_tenant(tenant_id)
        _check_name(name)
        self._check_target(kind, target)
        channel_id = self._new_id("chn", tenant_id, key)
        secret = _new_signing_secret() if kind == "webhook" else None
        arguments = {
            "channel_id": channel_id,
            "tenant_id": tenant_id,
            "name": name,
            "kind": kind,
            "target": self._sealed("target", channel_id, target),
            "target_shown": shown(kind, target),
            "secret": self._sealed("secret", channel_id, secret) if secret else None,
            "now": self._clock.now(),
            "by": by,
        }
        with self._rows.writing() as open_:
            channels = open_.rows("load_channels", tenant_id=tenant_id, channel_id="")
            if len(channels) >= _CHANNELS_MAX:
                raise InvalidInput(f"a tenant has at most {_CHANNELS_MAX} channels")
            is_new = open_.execute("insert_channel", arguments) == 1
            row = self._load(open_, tenant_id, channel_id)
        if any(row[one] != arguments[one] for one in ("name", "kind", "target_shown")):
            raise Conflict("this idempotency key made another channel")
        answer = _channel(row, self._clock.now())
        return {**answer, "secret": secret} if secret and is_new else answer

    def list(self, tenant_id: str) -> dict[str, Any]:
        """Channels, without secrets."""
        rows = self._rows.rows("load_channels", tenant_id=tenant_id, channel_id="")
        now = self._clock.now()
        return {"channels": [_channel(row, now) for row in rows]}

    def get(self, tenant_id: str, channel_id: str) -> dict[str, Any]:
        """One channel and its newest deliveries; NotFound."""
        with self._rows.writing() as open_:
            row = self._load(open_, tenant_id, channel_id)
            told = deliveries_of(open_, channel_id=channel_id)
        return {**_channel(row, self._clock.now()), "deliveries": told}

    def update(
        self,
        tenant_id: str,
        channel_id: str,
        *,
        name: str | None,
        target: str | None,
        is_enabled: bool | None,
    ) -> dict[str, Any]:
        """Change what is given; NotFound."""
        if name is not None:
            _check_name(name)
        with self._rows.writing() as open_:
            row = self._load(open_, tenant_id, channel_id)
            arguments: dict[str, Any] = {"target": None, "target_shown": None}
            if target is not None:
                self._check_target(row["kind"], target)
                arguments["target"] = self._sealed("target", channel_id, target)
                arguments["target_shown"] = shown(row["kind"], target)
            arguments |= {"channel_id": channel_id, "name": name, "is_enabled": is_enabled}
            open_.execute("update_channel", arguments)
            return _channel(self._load(open_, tenant_id, channel_id), self._clock.now())

    def rotate(self, tenant_id: str, channel_id: str, overlap_seconds: int) -> dict[str, Any]:
        """Give a webhook a new secret, shown once; both sign during the overlap."""
        if not 0 <= overlap_seconds <= _OVERLAP_SECONDS_MAX:
            raise InvalidInput(
                f"overlap_seconds must be 0 to {_OVERLAP_SECONDS_MAX}", field="overlap_seconds"
            )
        secret, now = _new_signing_secret(), self._clock.now()
        with self._rows.writing() as open_:
            if self._load(open_, tenant_id, channel_id)["kind"] != "webhook":
                raise InvalidInput("only a webhook signs", field="channel_id")
            arguments = {
                "channel_id": channel_id,
                "secret": self._sealed("secret", channel_id, secret),
                "until_at": now + overlap_seconds * SECOND,
            }
            open_.execute("rotate_secret", arguments)
            return {**_channel(self._load(open_, tenant_id, channel_id), now), "secret": secret}

    def delete(self, tenant_id: str, channel_id: str) -> dict[str, Any]:
        """Tell a channel nothing more; NotFound. Its deliveries stay on record."""
        with self._rows.writing() as open_:
            self._load(open_, tenant_id, channel_id)
            open_.execute("delete_channel", {"channel_id": channel_id, "now": self._clock.now()})
        return {"channel_id": channel_id, "status": "deleted"}

    def test(self, tenant_id: str, channel_id: str, by: str) -> dict[str, Any]:
        """Send a test message, like any other: queued, retried, on record."""
        now, delivery_id = self._clock.now(), f"msg_{self._ids.next_id().replace('-', '')}"
        with self._rows.writing() as open_:
            row = self._load(open_, tenant_id, channel_id)
            arguments = {
                "delivery_id": delivery_id,
                "tenant_id": row["tenant_id"],
                "channel_id": channel_id,
                "message": Jsonb(msgspec.structs.asdict(_test_message(row, by, now))),
                "now": now,
            }
            open_.execute("enqueue_test", arguments)
        return {"delivery_id": delivery_id, "channel_id": channel_id, "status": "pending"}

    def put_route(
        self,
        tenant_id: str,
        route_id: str,
        *,
        position: int,
        severities: Sequence[str],
        kinds: Sequence[str],
        scope: str,
        steps: Sequence[Step],
        by: str,
    ) -> dict[str, Any]:
        """Make or replace a route; raises InvalidInput."""
        _require_tenant(tenant_id)
        _check_name(route_id, "route_id")
        _check_conditions(position, severities, kinds, scope)
        with self._rows.writing() as open_:
            channels = open_.rows("load_channels", tenant_id=tenant_id, channel_id="")
            check_steps(steps, {row["channel_id"] for row in channels})
            routes = open_.rows("load_routes", tenant_id=tenant_id)
            if len(routes) >= _ROUTES_MAX and route_id not in {row["route_id"] for row in routes}:
                raise InvalidInput(f"a tenant has at most {_ROUTES_MAX} routes")
            arguments = {
                "route_id": route_id,
                "tenant_id": tenant_id,
                "position": position,
                "severities": list(severities),
                "kinds": list(kinds),
                "scope": scope,
                "steps": Jsonb(msgspec.to_builtins(list(steps))),
                "now": self._clock.now(),
                "by": by,
            }
            open_.execute("insert_route", arguments)
            rows = open_.rows("load_routes", tenant_id=tenant_id)
        return next(_route(row) for row in rows if row["route_id"] == route_id)

    def routes(self, tenant_id: str) -> dict[str, Any]:
        """Routes in the order in which they are tried."""
        return {
            "routes": [_route(row) for row in self._rows.rows("load_routes", tenant_id=tenant_id)]
        }

    def delete_route(self, tenant_id: str, route_id: str) -> dict[str, Any]:
        """Take a route away; NotFound."""
        _require_tenant(tenant_id)
        self._rows.one("delete_route", "route", route_id=route_id, tenant_id=tenant_id)
        return {"route_id": route_id, "status": "deleted"}

    def _sealed(self, part: str, channel_id: str, text: str) -> bytes:
        return self._sealing.seal(text.encode(), f"{part}:{channel_id}")

    def _load(self, open_: AlertTransaction, tenant_id: str, channel_id: str) -> Row:
        if not channel_id:
            raise NotFound("there is no such channel")
        return open_.one("load_channels", "channel", tenant_id=tenant_id, channel_id=channel_id)

    def _new_id(self, prefix: str, tenant_id: str, key: str) -> str:
        if not key:
            return f"{prefix}_{self._ids.next_id().replace('-', '')}"
        identity = msgspec.json.encode([tenant_id, key])
        return f"{prefix}_{hashlib.sha256(identity).hexdigest()[:32]}"

    def _check_target(self, kind: str, target: str) -> None:
        if kind not in KINDS:
            raise InvalidInput(f"kind must be one of {', '.join(KINDS)}", field="kind")
        if kind == "email":
            check_address(target)
        else:
            check_url(target, self._policy, "target")


def shown(kind: str, target: str) -> str:
    """What people see of a target: a mail address, or the host of a URL, whose path is secret.

    >>> shown("slack", "https://hooks.example.com/services/T0/B0/secret")
    'https://hooks.example.com/...'
    """
    if kind == "email":
        return target
    parts = urlsplit(target)
    return f"{parts.scheme}://{parts.netloc}/..."


def _require_tenant(tenant_id: str) -> None:
    if not tenant_id:
        raise InvalidInput("tenant_id says whose it is", field="tenant_id")


def _check_name(name: str, field: str = "name") -> None:
    if not 1 <= len(name) <= ID_LENGTH_MAX or not name.isprintable():
        raise InvalidInput(f"{field} must have 1 to {ID_LENGTH_MAX} characters", field=field)


def _check_conditions(
    position: int, severities: Sequence[str], kinds: Sequence[str], scope: str
) -> None:
    if not 0 <= position <= 10_000:
        raise InvalidInput("position must be 0 to 10000", field="position")
    if set(severities) - set(SEVERITIES):
        raise InvalidInput(f"severities are {', '.join(SEVERITIES)}", field="severities")
    if len(kinds) > 20 or any(not 0 < len(kind) <= ID_LENGTH_MAX for kind in kinds):
        raise InvalidInput("kinds are up to 20 names", field="kinds")
    if len(scope) > 4 * ID_LENGTH_MAX:
        raise InvalidInput("scope is too long", field="scope")


def _new_signing_secret() -> str:
    """As Standard Webhooks writes it."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode()


def _test_message(channel: Row, by: str, now: int) -> Message:
    return Message(
        alert_id="",
        tenant_id=channel["tenant_id"],
        reason="test",
        severity="info",
        kind="test",
        who=f"channel {channel['name']}",
        what="is being tested",
        how_much="1 message",
        since=format_time(now),
        said_at=format_time(now),
        next_step="nothing",
        how_to_stop=f"nothing to stop; {by} asked for it",
        link="/alerts",
    )


def _channel(row: Row, now: int) -> dict[str, Any]:
    until = row["secret_before_until"]
    return {
        "channel_id": row["channel_id"],
        "tenant_id": row["tenant_id"],
        "name": row["name"],
        "kind": row["kind"],
        "target": row["target_shown"],
        "is_enabled": row["is_enabled"],
        "disabled_because": row["disabled_because"],
        "old_secret_signs_until": format_time(until) if until > now else None,
        "created_at": format_time(row["created_at"]),
        "created_by": row["created_by"],
    }


def _route(row: Row) -> dict[str, Any]:
    return {
        "route_id": row["route_id"],
        "tenant_id": row["tenant_id"],
        "position": row["position"],
        "severities": row["severities"],
        "kinds": row["kinds"],
        "scope": row["scope"],
        "steps": row["steps"],
    }
