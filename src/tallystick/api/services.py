"""What the routes are given by the composition root."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tallystick.access import Access
from tallystick.analytics.runs import Runs
from tallystick.analytics.stats import Stats
from tallystick.api.feed import BalanceFeed
from tallystick.api.gate import Gate
from tallystick.api.metrics import Metrics
from tallystick.audit import AuditTrail
from tallystick.backfill import Backfills
from tallystick.broken import BrokenMessages
from tallystick.catalog import Catalog
from tallystick.clock import Clock
from tallystick.enforcement.alerts.channels import Channels
from tallystick.enforcement.alerts.service import Alerts
from tallystick.enforcement.authorization import Authorizer
from tallystick.enforcement.budgets import Budgets
from tallystick.enforcement.budgets.enforcing import Enforcing
from tallystick.enforcement.calls import Calls
from tallystick.enforcement.overrun import OverrunResponse
from tallystick.enforcement.rates.service import RateLimits
from tallystick.enforcement.vault import Quotas
from tallystick.events.door import Door
from tallystick.gateway.keys import ProviderKeys
from tallystick.ledger import Ledger
from tallystick.ledger.committer import Committer
from tallystick.ledger.seals import Seals
from tallystick.reconcile.doubles import Doubles
from tallystick.reconcile.freshness import Freshness
from tallystick.reconcile.ledger import LedgerReconciler
from tallystick.reconcile.quotas import QuotaReconciler
from tallystick.reconcile.verify import Verifier


@dataclass(frozen=True)
class Services:
    """The slices behind the routes."""

    access: Access
    gate: Gate
    authorizer: Authorizer
    audit: AuditTrail
    budgets: Budgets
    enforcing: Enforcing
    calls: Calls
    clock: Clock
    door: Door
    ledger: Ledger
    committer: Committer
    feed: BalanceFeed
    catalog: Catalog
    stats: Stats
    runs: Runs
    freshness: Freshness
    seals: Seals
    verifier: Verifier
    reconciler: LedgerReconciler
    broken: BrokenMessages
    backfills: Backfills
    doubles: Doubles
    alerts: Alerts
    channels: Channels
    provider_keys: ProviderKeys
    rates: RateLimits
    overruns: OverrunResponse
    quotas: Quotas
    quota_reconciler: QuotaReconciler
    metrics: Metrics
    ready: Callable[[], tuple[bool, dict[str, Any]]]
