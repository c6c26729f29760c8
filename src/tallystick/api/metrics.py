"""Every metric name, in one type. Telemetry of the product itself, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from tallystick.clock import SECOND
from tallystick.events.door import Receipt
from tallystick.ledger import Ledger
from tallystick.ledger.seals import Seals
from tallystick.reconcile.freshness import Freshness


class Metrics:
    """Counts requests and events; asks freshness when it is scraped."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "tallystick_http_requests",
            "HTTP requests by route and status",
            ["method", "route", "status"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "tallystick_http_request_seconds",
            "HTTP request duration by route",
            ["route"],
            registry=self.registry,
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5),
        )
        self.events = Counter(
            "tallystick_events",
            "Events by what became of them: accepted, duplicate or rejected",
            ["outcome"],
            registry=self.registry,
        )
        self.otlp_records = _otlp_records(self.registry)
        self.lag_events = Gauge(
            "tallystick_follower_lag_events",
            "Events a follower has not taken in yet",
            ["follower"],
            registry=self.registry,
        )
        self.lag_seconds = Gauge(
            "tallystick_follower_lag_seconds",
            "Age of the oldest event a follower has not taken in",
            ["follower"],
            registry=self.registry,
        )
        self.holds = Gauge(
            "tallystick_ledger_open_holds",
            "Open holds and leases by kind (hold, lease) and status (held, unknown)",
            ["kind", "status"],
            registry=self.registry,
        )
        self.holds_overdue = Gauge(
            "tallystick_ledger_holds_overdue_seconds",
            "How long the most overdue hold or lease waits to be ended or settled",
            ["kind", "status"],
            registry=self.registry,
        )
        self.unsealed = Gauge(
            "tallystick_ledger_unsealed_operations",
            "Operations that are not in a sealed block yet",
            registry=self.registry,
        )
        self.pending_runs, self.refused_runs = _charger_runs(self.registry)

    def count_receipt(self, receipt: Receipt) -> None:
        """Count what became of a request's events."""
        self.events.labels("accepted").inc(receipt.accepted)
        self.events.labels("duplicate").inc(receipt.duplicates)
        self.events.labels("rejected").inc(len(receipt.rejected))

    def render(self, freshness: Freshness, ledger: Ledger, seals: Seals) -> bytes:
        """Return the text format, with lag, open holds and unsealed history as of now."""
        for kind in ("hold", "lease"):
            for status in ("held", "unknown"):
                self.holds.labels(kind, status).set(0)
                self.holds_overdue.labels(kind, status).set(0)
        for kind, status, number, _, overdue in ledger.load_hold_gauges():
            self.holds.labels(kind, status).set(number)
            self.holds_overdue.labels(kind, status).set(overdue / SECOND)
        self.unsealed.set(seals.count_unsealed())
        for follower in freshness.positions():
            self.lag_events.labels(follower["name"]).set(follower["lag_events"])
            self.lag_seconds.labels(follower["name"]).set(follower["lag_seconds"])
        pending, refused = freshness.count_runs()
        self.pending_runs.set(pending)
        self.refused_runs.set(refused)
        return bytes(generate_latest(self.registry))


def _otlp_records(registry: CollectorRegistry) -> Counter:
    return Counter(
        "tallystick_otlp_records",
        "OTLP records that are not counted: ignored (no usage) or repeated (another span's)",
        ["signal", "outcome"],
        registry=registry,
    )


def _charger_runs(registry: CollectorRegistry) -> tuple[Gauge, Gauge]:
    pending = Gauge(
        "tallystick_charger_pending_runs", "Runs that wait to be charged", registry=registry
    )
    refused = Gauge(
        "tallystick_charger_refused_runs",
        "Runs that cannot be charged and are set aside; /v1/freshness names them",
        registry=registry,
    )
    return pending, refused
