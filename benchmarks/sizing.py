"""The paper plan: from what one machine does to what a load needs on AWS, and its bill.

    python -m benchmarks.sizing       # writes the tables of docs/sizing.md anew

Inputs are in sizing.toml, each with where it comes from; everything else is computed here, so
that a new measurement is one changed number. Each line of the bill says its arithmetic. Tables
stand in docs/sizing.md between markers; a test compares them.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
DOCUMENT = HERE.parent / "docs" / "sizing.md"
DAY_SECONDS = 86_400
MONTH_DAYS = 365 / 12
NODE_CORES = 8
ZONES = 3
CHARGER_SHARDS = 8
"""At most so many chargers have something to do."""


class Inputs(dict[str, float]):
    """Values by section and name (`cpu.door_us`), as numbers."""

    @classmethod
    def load(cls) -> tuple[Inputs, dict[str, Any]]:
        """The values, and the file as it is (for its table)."""
        file = tomllib.loads((HERE / "sizing.toml").read_text("utf-8"))
        values = cls()
        for section, entries in file.items():
            for name, entry in entries.items():
                values[f"{section}.{name}"] = float(entry["value"])
        return values, file

    def but(self, **changed: float) -> Inputs:
        """The same with other values; `cpu__door_us=3` changes `cpu.door_us`."""
        return Inputs({**self, **{name.replace("__", "."): one for name, one in changed.items()}})


class Load(NamedTuple):
    """What comes in."""

    title: str
    runs_per_day: float
    events_per_run: float
    peak: float
    """Events a second at the peak."""

    @property
    def per_day(self) -> float:
        return self.runs_per_day * self.events_per_run

    @property
    def a_day(self) -> str:
        """Events a day, for a line's arithmetic."""
        return f"{self.per_day / 1e6:,.0f}M"

    @property
    def average(self) -> float:
        return self.per_day / DAY_SECONDS

    @property
    def runs_at_peak(self) -> float:
        return self.peak / self.events_per_run


class Line(NamedTuple):
    """A line of the bill."""

    name: str
    arithmetic: str
    dollars: float


class Need(NamedTuple):
    """How many processes of a kind, and why."""

    name: str
    arithmetic: str
    processes: int
    memory_gib: float


def steady_load(inputs: Inputs, runs: float, events_per_run: float) -> Load:
    """A load whose peak is the day's average times the peak factor."""
    average = runs * events_per_run / DAY_SECONDS
    peak = average * inputs["load.peak_factor"]
    return Load(f"{runs / 1e6:g}M runs a day", runs, events_per_run, peak)


def loads_of(inputs: Inputs) -> list[Load]:
    """The columns of the plan; the last is the goal's peak on the top of its range of events."""
    mean = inputs["load.events_per_run"]
    columns = [steady_load(inputs, runs * 1e6, mean) for runs in (2.5, 5, 10)]
    return [*columns, Load("10M runs of 200, peak 500K/s", 10e6, 200, 500_000)]


class Plan:
    """What one load needs and costs a month."""

    def __init__(self, inputs: Inputs, load: Load) -> None:
        self.inputs = inputs
        self.load = load
        self.needs = [
            self._api(),
            self._sink(),
            self._vault(),
            self._charger(),
            self._archiver(),
            self._keeper(),
        ]
        sinks = self.needs[1].processes
        self.partitions = max(24, math.ceil(2.5 * sinks / 12) * 12)
        self.lines = [
            self._nodes(),
            *self._kafka(),
            *self._clickhouse(),
            *self._postgres(),
            *self._archive(),
            *self._network(),
            self._rest(),
        ]

    @property
    def total(self) -> float:
        return sum(line.dollars for line in self.lines)

    def need(self, name: str) -> Need:
        return next(one for one in self.needs if one.name == name)

    def _of(self, name: str) -> float:
        return self.inputs[name]

    def _processes(
        self, name: str, rate: float, micros: float, least: int, gib: float, unit: str = "/s"
    ) -> Need:
        """Each process uses one core, so cores are processes."""
        share = self._of("load.utilization") * self._of("load.core_factor")
        count = max(math.ceil(rate * micros / 1e6 / share), least)
        text = (
            f"{rate:,.0f}{unit} x {micros:.1f} µs / {share:g} = {rate * micros / 1e6 / share:.1f}"
        )
        return Need(name, f"{text}, at least {least}", count, gib)

    def _api(self) -> Need:
        load = self.load
        events = self._of("cpu.door_us") + self._of("cpu.kafka_append_us")
        ledger = self._of("load.ledger_operations_per_run") - 1  # the charge comes from the charger
        more = ledger * self._of("cpu.ledger_api_us") / load.events_per_run
        return self._processes("api", load.peak, events + more, ZONES, 1.0)

    def _sink(self) -> Need:
        of = self._of
        micros = of("cpu.kafka_read_us") + of("cpu.stage_us") + of("cpu.sink_us")
        return self._processes("sink", self.load.peak, micros - of("cpu.insert_us"), ZONES, 3.0)

    def _vault(self) -> Need:
        micros = self._of("cpu.kafka_read_us") + self._of("cpu.stage_us")
        return self._processes("vault", self.load.peak, micros + self._of("cpu.vault_us"), 2, 2.0)

    def _charger(self) -> Need:
        micros = self._of("cpu.charger_us") - self._of("cpu.charger_queries_us")
        return self._processes("charger", self.load.peak, micros, 2, 1.0)

    def _archiver(self) -> Need:
        micros = self._of("cpu.kafka_read_us") + self._of("cpu.archiver_us")
        return self._processes("archiver", self.load.peak, micros, 2, 2.0)

    def _keeper(self) -> Need:
        return Need("keeper", "one works, one waits", 2, 0.5)

    def _nodes(self) -> Line:
        cores = sum(need.processes for need in self.needs)
        filters = self.load.per_day * self._of("keep.index_days") * 10 / 8 / 2**30
        memory = sum(need.processes * need.memory_gib for need in self.needs) + filters
        by_memory = math.ceil(memory / 26)
        count = max(math.ceil(cores / (NODE_CORES - 1)), by_memory, ZONES)
        hourly, hours = self._of("price.node"), self._of("price.hours")
        text = (
            f"{cores} processes of one core, 7 a node; {memory:.0f} GiB, 26 a node "
            f"({filters:.1f} for filters of the index) = {count} x ${hourly} x {hours:.0f} h"
        )
        return Line("nodes of the processes", text, count * hourly * hours)

    def _kafka(self) -> list[Line]:
        of, load = self._of, self.load
        in_mb = load.peak * of("bytes.kafka") / 1e6
        wanted = math.ceil(in_mb / of("price.broker_mb") / of("load.utilization") / ZONES) * ZONES
        count = max(wanted, ZONES)
        hourly, hours = of("price.broker"), of("price.hours")
        stored = load.per_day * of("bytes.kafka") * of("keep.kafka_days") * 3 / of("keep.disk_fill")
        return [
            Line(
                "Kafka brokers (MSK)",
                f"{in_mb:.1f} MB/s / {of('price.broker_mb'):g} / {of('load.utilization'):g}, by "
                f"threes = {count} x ${hourly} x {hours:.0f} h",
                count * hourly * hours,
            ),
            Line(
                "Kafka storage",
                f"{load.a_day} x {of('bytes.kafka'):g} B x {of('keep.kafka_days'):g} d x 3 / "
                f"{of('keep.disk_fill')} = {stored / 1e9:,.0f} GB x ${of('price.broker_gb')}",
                stored / 1e9 * of("price.broker_gb"),
            ),
        ]

    def clickhouse_cores(self) -> tuple[float, str]:
        """Cores, and their arithmetic: work of the peak, and merges that may wait."""
        of, load = self._of, self.load
        once = of("cpu.insert_us") + of("cpu.rollups_us") + of("cpu.charger_queries_us")
        at_peak = once + 2 * of("cpu.merge_us")
        later = 2 * (of("cpu.merge_passes") - 1) * of("cpu.merge_us")
        busy = (load.peak * at_peak + load.average * later) / 1e6
        share = of("load.utilization") * (1 - of("cpu.query_share"))
        text = (
            f"({load.peak:,.0f}/s x {at_peak:.1f} µs + {load.average:,.0f}/s x {later:.0f} µs)"
            f" / {share:.2f} = {busy / share:.1f} cores"
        )
        return busy / share / of("load.core_factor"), text

    def _clickhouse(self) -> list[Line]:
        of, load = self._of, self.load
        cores, text = self.clickhouse_cores()
        shards = max(math.ceil(cores / (2 * NODE_CORES)), 1)
        hours = of("price.hours")
        per_run = of("bytes.per_run") / load.events_per_run
        hot_bytes = of("bytes.facts") * of("keep.hot_days")
        hot_bytes += (of("bytes.rollups") + per_run) * of("keep.years_days")
        hot = load.per_day * hot_bytes * 2 / of("keep.disk_fill") / 1e9
        cold_days = of("keep.years_days") - of("keep.hot_days")
        cold = load.per_day * of("bytes.facts") * cold_days * 2 / 1e9
        written = load.peak * of("bytes.facts") * 2 * (1 + of("cpu.merge_passes")) / 1e6
        beyond = max(written - 125 * shards * 2, 0)
        return [
            Line(
                "ClickHouse nodes, 2 replicas",
                f"{text} = {shards} shard(s) x 2 x ${of('price.clickhouse')} x {hours:.0f} h",
                shards * 2 * of("price.clickhouse") * hours,
            ),
            Line(
                "ClickHouse Keeper",
                f"3 x ${of('price.keeper')} x {hours:.0f} h",
                3 * of("price.keeper") * hours,
            ),
            Line(
                "ClickHouse disks",
                f"{load.a_day} x ({of('bytes.facts'):g} B x {of('keep.hot_days'):g} d + "
                f"{of('bytes.rollups') + per_run:.1f} B x {of('keep.years_days'):g} d) x 2 / "
                f"{of('keep.disk_fill')} = {hot:,.0f} GB x ${of('price.disk_gb')} + "
                f"{beyond:,.0f} MB/s x ${of('price.disk_mb')}",
                hot * of("price.disk_gb") + beyond * of("price.disk_mb"),
            ),
            Line(
                "older facts in S3",
                f"{load.a_day} x {of('bytes.facts'):g} B x {cold_days:g} d x 2 = "
                f"{cold:,.0f} GB x ${of('price.s3_gb')}",
                cold * of("price.s3_gb"),
            ),
        ]

    def _postgres(self) -> list[Line]:
        of, load = self._of, self.load
        operations = load.runs_at_peak * of("load.ledger_operations_per_run")
        busy = operations * of("cpu.ledger_postgres_us") + load.peak * of("cpu.vault_postgres_us")
        cores = busy / 1e6 / of("load.utilization")
        vcpu = next(size for size in (4, 8, 16, 32, 64) if size >= 2 * cores)
        rows = load.runs_per_day * of("load.ledger_operations_per_run") * of("keep.years_days")
        stored = rows * of("bytes.ledger") / of("keep.disk_fill") / 1e9
        hours = of("price.hours")
        return [
            Line(
                "PostgreSQL (RDS Multi-AZ)",
                f"({operations:,.0f} operations/s x {of('cpu.ledger_postgres_us'):g} µs + "
                f"{load.peak:,.0f} events/s x {of('cpu.vault_postgres_us'):g} µs) / "
                f"{of('load.utilization'):g} = {cores:.1f} cores, twice that for history and "
                f"vacuum, at least 4: {vcpu} vCPU x ${of('price.postgres_vcpu')} x {hours:.0f} h",
                vcpu * of("price.postgres_vcpu") * hours,
            ),
            Line(
                "PostgreSQL storage",
                f"{rows / 1e9:,.1f}G operations x {of('bytes.ledger'):g} B / "
                f"{of('keep.disk_fill')} = {stored:,.0f} GB x ${of('price.postgres_gb')}",
                stored * of("price.postgres_gb"),
            ),
        ]

    def _archive(self) -> list[Line]:
        of, load = self._of, self.load
        stored = load.per_day * of("bytes.archive") * of("keep.archive_days") / 1e9
        puts = 2 * self.partitions * 1440 * MONTH_DAYS
        index = (
            load.per_day * of("bytes.index") * of("keep.index_days") / of("keep.disk_fill") / 1e9
        )
        return [
            Line(
                "archive in S3",
                f"{load.a_day} x {of('bytes.archive'):g} B x "
                f"{of('keep.archive_days'):g} d = {stored:,.0f} GB x ${of('price.s3_gb')}, and "
                f"2 x {self.partitions} partitions x 1,440 x 30.4 d PUTs",
                stored * of("price.s3_gb") + puts * of("price.s3_put"),
            ),
            Line(
                "deduplication index",
                f"{load.a_day} x {of('bytes.index'):g} B x {of('keep.index_days'):g} d / "
                f"{of('keep.disk_fill')} = {index:,.0f} GB x ${of('price.disk_gb')}",
                index * of("price.disk_gb"),
            ),
        ]

    def _network(self) -> list[Line]:
        of, load = self._of, self.load
        crossing = 2 / 3 * (of("bytes.request") + 4 * of("bytes.kafka") + of("bytes.insert"))
        crossing += of("bytes.facts")
        month = load.per_day * MONTH_DAYS
        through = month * of("bytes.request") / 1e9
        hours = of("price.hours")
        return [
            Line(
                "between zones",
                f"{month / 1e9:,.1f}G x (2/3 of request, append, three readers, insert; one "
                f"replica: {crossing:,.0f} B) = {month * crossing / 1e9:,.0f} GB x "
                f"${of('price.zone_gb')}",
                month * crossing / 1e9 * of("price.zone_gb"),
            ),
            Line(
                "load balancer",
                f"${of('price.balancer')} x {hours:.0f} h + {month / 1e9:,.1f}G x "
                f"{of('bytes.request'):g} B = {through:,.0f} GB x ${of('price.balancer_gb')}",
                of("price.balancer") * hours + through * of("price.balancer_gb"),
            ),
        ]

    def _rest(self) -> Line:
        cluster, hours = self._of("price.cluster"), self._of("price.hours")
        watching = self._of("price.watching")
        text = f"EKS ${cluster:.2f} x {hours:.0f} h, allowance ${watching:.0f}"
        return Line("cluster, logs, metrics, backups", text, cluster * hours + watching)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column is text, the others as they come."""
    lines = [f"| {' | '.join(head)} |", f"| {' | '.join('---' for _ in head)} |"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def render_inputs(file: dict[str, Any], plans: Sequence[Plan]) -> str:
    """All inputs, with where they come from."""
    rows = [
        [f"`{section}.{name}`", f"{one['value']:g}", one["unit"], kind_of(one)]
        for section, entries in file.items()
        for name, one in entries.items()
    ]
    return table(["input", "value", "what", "from"], rows)


def render_evidence(file: dict[str, Any], plans: Sequence[Plan]) -> str:
    """Inputs by where they come from: measured here, assumed, or a price."""
    found: dict[str, list[str]] = {}
    for section, entries in file.items():
        for name, one in entries.items():
            where = f"measured here: {one['source']}" if one["kind"] == "measured" else one["kind"]
            found.setdefault(where, []).append(f"`{section}.{name}`")
    order = sorted(found, key=lambda where: (not where.startswith("measured"), where))
    return table(["from", "inputs"], [[where, ", ".join(found[where])] for where in order])


def kind_of(entry: dict[str, Any]) -> str:
    """`measured: where`, or the kind alone."""
    return f"{entry['kind']}: {entry['source']}" if entry["source"] else str(entry["kind"])


def render_load(file: dict[str, Any], plans: Sequence[Plan]) -> str:
    """Events and bytes of each column."""
    kafka = plans[0].inputs["bytes.kafka"]
    request = plans[0].inputs["bytes.request"]
    rows: list[tuple[str, Callable[[Load], str]]] = [
        ("events a run", lambda load: f"{load.events_per_run:g}"),
        ("events a day", lambda load: f"{load.per_day / 1e6:,.0f}M"),
        ("events/s, average", lambda load: f"{load.average:,.0f}"),
        ("events/s, peak", lambda load: f"{load.peak:,.0f}"),
        ("peak over average", lambda load: f"{load.peak / load.average:.1f}"),
        ("MB/s at the doors, peak", lambda load: f"{load.peak * request / 1e6:,.0f}"),
        ("MB/s into Kafka, peak", lambda load: f"{load.peak * kafka / 1e6:,.1f}"),
        ("runs charged/s, peak", lambda load: f"{load.runs_at_peak:,.0f}"),
    ]
    body = [[name, *(cell(plan.load) for plan in plans)] for name, cell in rows]
    return table(["", *titles(plans)], body)


def titles(plans: Sequence[Plan]) -> list[str]:
    """The columns' names."""
    return [plan.load.title for plan in plans]


def render_processes(file: dict[str, Any], plans: Sequence[Plan]) -> str:
    """How many processes of each kind, with the arithmetic of the last column."""
    rows = [
        [need.name, *(str(plan.need(need.name).processes) for plan in plans), need.arithmetic]
        for need in plans[-1].needs
    ]
    rows.append(
        ["partitions of the log", *(str(plan.partitions) for plan in plans)]
        + ["2.5 x sinks, by twelves, at least 24"]
    )
    return table(["", *titles(plans), "arithmetic of the last column"], rows)


def render_bill(file: dict[str, Any], plans: Sequence[Plan]) -> str:
    """Dollars a month by line and column, and each line's share of the last two columns."""
    rows = []
    for number, line in enumerate(plans[0].lines):
        dollars = [plan.lines[number].dollars for plan in plans]
        rows.append([line.name, *(f"${one:,.0f}" for one in dollars)])
    rows.append(["**a month**", *(f"**${plan.total:,.0f}**" for plan in plans)])
    millions = [plan.load.per_day * MONTH_DAYS / 1e6 for plan in plans]
    each = [plan.total / count for plan, count in zip(plans, millions, strict=True)]
    rows.append(["a million events", *(f"${one:,.2f}" for one in each)])
    return table(["line", *titles(plans)], rows)


def render_arithmetic(file: dict[str, Any], plans: Sequence[Plan]) -> str:
    """Every line of the two largest columns, worked out."""
    parts = []
    for plan in plans[-2:]:
        rows = [[line.name, line.arithmetic, f"${line.dollars:,.0f}"] for line in plan.lines]
        parts.append(f"{plan.load.title}:\n\n{table(['line', 'arithmetic', 'a month'], rows)}")
    return "\n\n".join(parts)


def render_dominating(file: dict[str, Any], plans: Sequence[Plan]) -> str:
    """The largest lines of each column, and what no load at all costs."""
    rows = []
    for plan in plans:
        largest = sorted(plan.lines, key=lambda line: -line.dollars)[:4]
        shares = [f"{line.name} {100 * line.dollars / plan.total:.0f}%" for line in largest]
        rows.append([plan.load.title, ", ".join(shares)])
    idle = Plan(plans[0].inputs, Load("", 1, 1, 1))
    floor = f"Before the first event: ${idle.total:,.0f} a month."
    return f"{table(['', 'what dominates'], rows)}\n\n{floor}"


def render_range(file: dict[str, Any], plans: Sequence[Plan]) -> str:
    """The total for few and many events a run."""
    inputs = plans[0].inputs
    rows = []
    for events in (10, 40, 200, 432):
        loads = [steady_load(inputs, runs * 1e6, events) for runs in (2.5, 5, 10)]
        cells = [f"${Plan(inputs, load).total:,.0f} ({load.peak:,.0f}/s)" for load in loads]
        rows.append([f"{events} events a run", *cells])
    return table(["", *(plan.load.title for plan in plans[:3])], rows)


def render_savings(file: dict[str, Any], plans: Sequence[Plan]) -> str:
    """What one change does to the bill of the two largest columns."""
    inputs = plans[0].inputs
    compute = ("price__node", "price__clickhouse", "price__keeper", "price__postgres_vcpu")
    committed = {name: 0.7 * inputs[name.replace("__", ".")] for name in compute}
    changes = {
        "commit to the instances for a year (30% less, assumed; not MSK)": committed,
        "gzip on the producers' requests (costs the doors CPU, not counted)": {
            "bytes__request": 118.0
        },
        "7 days in Kafka instead of 14": {"keep__kafka_days": 7.0},
        "ledger: 1 operation a run online instead of 3 (leases for whole jobs)": {
            "load__ledger_operations_per_run": 1.0
        },
        "rollups kept on disk for 13 months, not 24": {"bytes__rollups": 25.0 * 13 / 24},
        "worse: facts as LZ4, the server's default": {"bytes__facts": 119.7},
        "worse: a vCPU does 0.6 of this machine's core": {"load__core_factor": 0.6},
        f"worse: judging a message costs 20 µs instead of {inputs['cpu.stage_us']:g}": {
            "cpu__stage_us": 20.0
        },
        "worse: merges cost three times as much": {"cpu__merge_us": 12.3},
    }
    rows = []
    for name, changed in changes.items():
        others = [Plan(inputs.but(**changed), plan.load) for plan in plans[-2:]]
        saved = [other.total - plan.total for other, plan in zip(others, plans[-2:], strict=True)]
        rows.append([name, *(signed(one) for one in saved)])
    return table(["change", *titles(plans[-2:])], rows)


def signed(dollars: float) -> str:
    """`+$5`, `-$5` or `0`."""
    whole = round(dollars)
    return f"{'+' if whole > 0 else '-'}${abs(whole):,}" if whole else "0"


RENDERERS = {
    "evidence": render_evidence,
    "inputs": render_inputs,
    "load": render_load,
    "processes": render_processes,
    "bill": render_bill,
    "arithmetic": render_arithmetic,
    "dominating": render_dominating,
    "range": render_range,
    "savings": render_savings,
}


def render(document: str) -> str:
    """The document with every table computed anew."""
    inputs, file = Inputs.load()
    plans = [Plan(inputs, load) for load in loads_of(inputs)]
    for name, renderer in RENDERERS.items():
        begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        if document.count(begin) != 1 or document.count(end) != 1:
            raise ValueError(f"docs/sizing.md needs {begin} and {end} once")
        before, _, rest = document.partition(begin)
        _, _, after = rest.partition(end)
        document = f"{before}{begin}\n{renderer(file, plans)}\n{end}{after}"
    return document


def main() -> None:
    """Write the tables; print what each column comes to."""
    DOCUMENT.write_text(render(DOCUMENT.read_text("utf-8")), "utf-8")
    inputs, _ = Inputs.load()
    for load in loads_of(inputs):
        print(f"{load.title}: ${Plan(inputs, load).total:,.0f} a month")


if __name__ == "__main__":
    main()
