"""Runs the demo against a server over HTTP and compares every figure."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, NamedTuple

import httpx
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from tallystick.clock import DAY, HOUR, MINUTE, format_time
from tallystick.demo.disturb import DemoRequest, Disturbance, disturb
from tallystick.demo.expected import Expected, expect
from tallystick.demo.traces import TENANTS, all_messages

SHORT_TENANT = "fabrikam"
"""This tenant is granted too little, to show a shortfall."""

_GRANT = {SHORT_TENANT: "5"}
_GRANT_DEFAULT = "100000"
_IN_FLIGHT = 4
_RESENT = 3
_WAIT_SECONDS_MAX = 300


class Figure(NamedTuple):
    """One line of the summary: what must be, and what the product says."""

    name: str
    expected: object
    counted: object

    @property
    def agrees(self) -> bool:
        """Whether both are the same."""
        return self.expected == self.counted


@dataclass
class DemoResult:
    """Everything that the summary shows."""

    figures: list[Figure]
    seconds_to_send: float
    seconds_to_settle: float
    events_sent: int
    story: dict[str, object] = field(default_factory=dict)

    @property
    def agrees(self) -> bool:
        """Whether every figure agrees."""
        return all(figure.agrees for figure in self.figures)


class Receipts:
    """Sums receipts."""

    def __init__(self) -> None:
        self.accepted = 0
        self.duplicates = 0
        self.rejected: Counter[str] = Counter()

    def add(self, receipt: dict[str, Any]) -> None:
        """Add one receipt."""
        self.accepted += receipt["accepted"]
        self.duplicates += receipt["duplicates"]
        self.rejected.update(rejection["code"] for rejection in receipt["rejected"])


def run_demo(base_url: str, key: str, *, now: int, seed: int, console: Console) -> DemoResult:
    """Send the traces, wait until everything is counted and charged, compare."""
    with console.status("reading the traces and computing what must come out"):
        messages = list(all_messages(now, seed))
        expected = expect(messages)
        delivery, disturbance = disturb(messages, now, seed)
    headers = {"Authorization": f"Bearer {key}"}
    with httpx.Client(base_url=base_url, headers=headers, timeout=60) as client:
        _open_accounts(client)
        started = time.monotonic()
        receipts = Receipts()
        resent = random.Random(seed).sample(delivery.ordinary, _RESENT)
        events = _send_all(client, [delivery.ordinary, resent], receipts, console)
        sent = time.monotonic()
        with console.status("waiting until every event is counted and every run charged"):
            _wait_until_settled(client)
        settled = time.monotonic()
        _send_all(client, [delivery.late, [delivery.conflicts]], receipts, console)
        with console.status("waiting until what came late is posted as deltas"):
            _wait_until_settled(client)
        figures = list(_compare(client, now, expected, disturbance, receipts, resent))
        story = _story(client, now)
    return DemoResult(
        figures,
        sent - started,
        settled - sent,
        events,
        {
            **story,
            "events that came after their run was charged": disturbance.delivered_late,
            "events that carried content": disturbance.with_content,
        },
    )


def _open_accounts(client: httpx.Client) -> None:
    for tenant in TENANTS:
        client.put(f"/v1/accounts/{tenant}", json={"tenant_id": tenant}).raise_for_status()
        grant = {
            "account_id": tenant,
            "amount": _GRANT.get(tenant, _GRANT_DEFAULT),
            "source": "plan",
            "idempotency_key": f"demo-grant-{tenant}",
        }
        for _ in range(2):  # the second is the same request again: nothing happens twice
            client.post("/v1/grants", json=grant).raise_for_status()


def _send_all(
    client: httpx.Client,
    groups: list[list[DemoRequest]],
    receipts: Receipts,
    console: Console,
) -> int:
    """Send groups one after the other, requests of a group in parallel; return the events."""
    total = sum(_size(request) for group in groups for request in group)
    columns = (TextColumn("sending events"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress, ThreadPoolExecutor(_IN_FLIGHT) as pool:
        task = progress.add_task("", total=total)
        for group in groups:
            sending = pool.map(lambda request: _send(client, request), group)
            for request, receipt in zip(group, sending, strict=True):
                receipts.add(receipt)
                progress.advance(task, _size(request))
    return total


def _size(request: DemoRequest) -> int:
    return request.good + request.rejected.total()


def _send(client: httpx.Client, request: DemoRequest) -> dict[str, Any]:
    headers = {"Content-Type": request.content_type}
    if request.content_encoding:
        headers["Content-Encoding"] = request.content_encoding
    while True:
        answer = client.post("/v1/events", content=request.body, headers=headers)
        if answer.status_code not in (429, 503):
            answer.raise_for_status()
            receipt: dict[str, Any] = answer.json()
            return receipt
        time.sleep(float(answer.headers.get("Retry-After", "1")))


def _wait_until_settled(client: httpx.Client) -> None:
    deadline = time.monotonic() + _WAIT_SECONDS_MAX
    while time.monotonic() < deadline:
        report = client.get("/v1/freshness").raise_for_status().json()
        followers = [one for one in report["followers"] if one["name"] != "archiver"]
        lag = sum(follower["lag_events"] for follower in followers)
        pending = sum(follower.get("pending_runs", 0) for follower in report["followers"])
        if not lag and not pending and not report["difference"]:
            return
        time.sleep(0.3)
    raise TimeoutError("the followers did not catch up; see engine.log in the data folder")


def _stats(client: httpx.Client, now: int, **parameters: str) -> list[dict[str, Any]]:
    start = (now - 10 * DAY) // MINUTE * MINUTE
    end = (now + HOUR) // MINUTE * MINUTE
    query = {"from": format_time(start), "to": format_time(end), **parameters}
    rows: list[dict[str, Any]] = (
        client.get("/v1/stats", params=query).raise_for_status().json()["rows"]
    )
    return rows


def _compare(
    client: httpx.Client,
    now: int,
    expected: Expected,
    disturbance: Disturbance,
    receipts: Receipts,
    resent: list[DemoRequest],
) -> Iterator[Figure]:
    again = sum(request.good for request in resent)
    rejected = sum((request.rejected for request in resent), disturbance.rejected)
    yield Figure("events accepted", expected.events, receipts.accepted)
    yield Figure("duplicates", disturbance.duplicates + again, receipts.duplicates)
    for code, count in sorted(rejected.items()):
        yield Figure(f"rejected: {code}", count, receipts.rejected[code])
    (total,) = _stats(client, now)
    yield Figure("runs", len(expected.runs), total["runs"])
    yield Figure("attempts", len(expected.attempts), total["attempts"])
    yield Figure("failed runs", expected.by_type["run_failed"], total["runs_failed"])
    yield Figure("model calls", expected.calls.total(), total["calls"])
    yield Figure("unpriced calls", expected.unpriced, total["unpriced_calls"])
    for name, count in expected.tokens.items():
        yield Figure(f"tokens {name}", count, total[f"tokens_{name}"])
    by_model = {row["model"]: row for row in _stats(client, now, group_by="model")}
    for model, cost in sorted(expected.cost.items()):
        yield Figure(f"cost USD {model}", cost, Decimal(by_model[model]["cost_usd"]))
    yield Figure("cost USD in all", sum(expected.cost.values()), Decimal(total["cost_usd"]))
    yield from _compare_credits(client, now, expected, total)
    by_tool = {row["tool"]: row for row in _stats(client, now, group_by="tool")}
    for tool, calls in sorted(expected.tool_calls.items()):
        counted = f"{by_tool[tool]['errors']} of {by_tool[tool]['tool_calls']}"
        yield Figure(f"errors {tool}", f"{expected.tool_errors[tool]} of {calls}", counted)


def _compare_credits(
    client: httpx.Client, now: int, expected: Expected, total: dict[str, Any]
) -> Iterator[Figure]:
    by_tenant = {row["tenant"]: row for row in _stats(client, now, group_by="tenant")}
    for tenant, credit in sorted(expected.credits.items()):
        yield Figure(f"credits {tenant}", credit, Decimal(by_tenant[tenant]["credits"]))
    yield Figure("credits in all", sum(expected.credits.values()), Decimal(total["credits"]))
    for tenant, credit in sorted(expected.credits.items()):
        balance = client.get(f"/v1/accounts/{tenant}/balance").raise_for_status().json()
        granted = Decimal(_GRANT.get(tenant, _GRANT_DEFAULT))
        rest = max(granted - credit, Decimal(0))
        yield Figure(f"credits left {tenant}", rest, Decimal(balance["available"]))
    missing = expected.credits[SHORT_TENANT] - Decimal(_GRANT[SHORT_TENANT])
    yield Figure(f"not covered {SHORT_TENANT}", missing, _shortfall(client, SHORT_TENANT))


def _story(client: httpx.Client, now: int) -> dict[str, object]:
    (total,) = _stats(client, now)
    return {
        "arrived more than 7 days late": total["late_events"],
        "cost coverage": total["cost_coverage"],
    }


def _shortfall(client: httpx.Client, tenant: str) -> Decimal:
    """What usage the account could not pay for: the sum over all of its entries."""
    shortfall, cursor = Decimal(0), None
    while True:
        query = {"limit": "1000"} | ({"cursor": cursor} if cursor else {})
        page = client.get(f"/v1/accounts/{tenant}/entries", params=query).raise_for_status().json()
        shortfall += sum(Decimal(entry["shortfall"]) for entry in page["entries"])
        cursor = page["next_cursor"]
        if cursor is None:
            return shortfall


def print_summary(console: Console, result: DemoResult) -> None:
    """Print what was used, charged, late, twice and failed; expected beside counted."""
    table = Table("figure", "computed from the input", "counted by Tallystick", "")
    for figure in result.figures:
        mark = "[green]agrees[/]" if figure.agrees else "[bold red]DIFFERS[/]"
        table.add_row(figure.name, _text(figure.expected), _text(figure.counted), mark)
    console.print(table)
    for name, value in result.story.items():
        console.print(f"{name}: {value}")
    rate = result.events_sent / result.seconds_to_send
    console.print(
        f"{result.events_sent:,} events sent in {result.seconds_to_send:.1f} s "
        f"({rate:,.0f} a second), all counted and charged {result.seconds_to_settle:.1f} s later"
    )
    verdict = "[green]every figure agrees[/]" if result.agrees else "[bold red]figures differ[/]"
    console.print(verdict)


def _text(value: object) -> str:
    if isinstance(value, Decimal):
        return format(value.normalize(), ",f")
    return f"{value:,}" if isinstance(value, int) else str(value)
