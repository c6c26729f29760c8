"""The roles of limits: the vault, and the lanes that end holds and calls, watch and tell."""

from __future__ import annotations

import random
from pathlib import Path

from tallystick.audit import SEALED
from tallystick.enforcement.alerts import AlertStore
from tallystick.enforcement.alerts.channels import channel_sealing
from tallystick.enforcement.alerts.delivery import Delivery
from tallystick.enforcement.alerts.outbox import Outbox
from tallystick.enforcement.alerts.sending import Sender, read_mail_server
from tallystick.enforcement.allowed_rates import AllowedRates
from tallystick.enforcement.budgets import Budgets
from tallystick.enforcement.budgets.crossing import Crossings
from tallystick.enforcement.calls.facts import CallFacts
from tallystick.enforcement.calls.recovery import CallRecovery
from tallystick.enforcement.calls.store import CallStore
from tallystick.enforcement.overrun.reader import FactSeries
from tallystick.enforcement.quotas import BudgetAssignments
from tallystick.enforcement.vault import Counting, Seen, VaultStore
from tallystick.ledger.seals import Seals
from tallystick.plumbing.log import PostgresLog
from tallystick.plumbing.log.heads import open_heads
from tallystick.plumbing.outbound import OutboundPolicy
from tallystick.workers.alerts import AlertNotifier
from tallystick.workers.budgets import BudgetKeeper
from tallystick.workers.calls import CallKeeper, LazyAppender
from tallystick.workers.holds import HoldKeeper
from tallystick.workers.loop import Follower
from tallystick.workers.memory import LogMemory, Memory, TopicMemory
from tallystick.workers.overrun import OverrunWorker
from tallystick.workers.roles.parts import Parts
from tallystick.workers.roles.sources import open_source
from tallystick.workers.sealer import Sealer
from tallystick.workers.vault import VaultFollower


def vault(parts: Parts) -> Follower:
    """What was spent, for quotas; needs no ClickHouse."""
    options, seen = parts.options, Seen(parts.pool)
    leases = parts.leases("vault", has_fence=False) if options.kafka else None
    folder = Path(options.data) / "vault-memory"
    memory: Memory
    if options.kafka:
        memory = TopicMemory(folder, seen.known)
    else:
        memory = LogMemory([PostgresLog(parts.pool)], folder)
    store = VaultStore(parts.pool)
    assignments = BudgetAssignments(
        parts.pool, Budgets(parts.pool, parts.clock), makes_windows=True
    )
    return VaultFollower(
        open_source(parts, "vault", leases, seen.known, sets_aside=options.broken_by == "vault"),
        parts.positions,
        store,
        parts.catalog,
        parts.clock,
        memory=memory,
        seen=seen if options.kafka else None,
        counting=Counting(
            parts.pool,
            store,
            assignments,
            parts.ledger,
            parts.clock,
            open_heads(parts.pool, options.kafka).heads,
        ),
    )


def holds(parts: Parts) -> Follower:
    """The ends of holds."""
    return HoldKeeper(parts.ledger, parts.clock)


def seals(parts: Parts) -> Follower:
    """Seals over the ledger and the audit trail."""
    return Sealer(Seals(parts.pool, parts.clock, [SEALED]))


def budgets(parts: Parts) -> Follower:
    """Windows of budgets, and thresholds that were crossed; of all windows it asks for a few."""
    pool = parts.pool_by_index()
    return BudgetKeeper(
        parts.ledger,
        Budgets(pool, parts.clock),
        Crossings(pool, AlertStore(), parts.clock),
        parts.clock,
    )


def calls(parts: Parts) -> Follower:
    """Calls that a process which died left behind."""
    redactor = parts.redactor()
    recovery = CallRecovery(
        CallStore(parts.pool),
        CallFacts(parts.clickhouse()),
        parts.ledger,
        LazyAppender(parts.appender, redactor, parts.clock).append,
        redactor,
        parts.clock,
    )
    return CallKeeper(recovery, parts.clock)


def alerts(parts: Parts) -> Follower:
    """The delivery of alerts."""
    options = parts.options
    outbox = Outbox(parts.pool, parts.clock, parts.ids, public_url=options.public_url)
    policy = OutboundPolicy(options.allow_private_addresses)
    sender = Sender(policy, read_mail_server(options.smtp_url), options.smtp_from)
    sealing = channel_sealing(options.redaction_key)
    return AlertNotifier(Delivery(outbox, sender, sealing, parts.clock, random.random))


def overrun(parts: Parts) -> Follower:
    """Who uses more than they should."""
    reader = FactSeries(parts.clickhouse(), parts.positions)
    allowed = AllowedRates(parts.pool, Budgets(parts.pool, parts.clock), parts.clock)
    return OverrunWorker(
        reader, parts.pool, parts.clock, parts.ids, AlertStore(), rates=allowed.rates
    )
