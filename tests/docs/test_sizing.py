"""The paper plan is what its script computes today, and adds up."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from benchmarks import sizing
from benchmarks.sizing import DOCUMENT, Inputs, Load, Plan, loads_of, render, steady_load

from tests.docs.test_deploy import RESOURCES

ROOT = Path(__file__).parents[2]
GIB = {"512Mi": 0.5, "1Gi": 1.0, "2Gi": 2.0, "3Gi": 3.0}


def specs_of(component: str) -> dict[str, Any]:
    kinds = {"Deployment", "StatefulSet"}
    name = f"tallystick-{component}"
    found = [one for _, one in RESOURCES if one["kind"] in kinds]
    spec: dict[str, Any] = next(one["spec"] for one in found if one["metadata"]["name"] == name)
    return spec


def test_the_tables_are_current() -> None:
    text = DOCUMENT.read_text("utf-8")
    assert render(text) == text, "run python -m benchmarks.sizing"


def test_every_input_says_where_it_comes_from() -> None:
    _, file = Inputs.load()
    for section, entries in file.items():
        for name, entry in entries.items():
            assert entry["kind"] in {"measured", "assumed", "price"}, (section, name)
            source = entry["source"]
            assert source or entry["kind"] == "assumed", (section, name)
            if re.match(r"(docs|benchmarks)/", source):
                assert (ROOT / source).exists(), source


def test_the_goal_of_the_plan_is_met() -> None:
    inputs, _ = Inputs.load()
    plans = [Plan(inputs, load) for load in loads_of(inputs)]
    assert [plan.load.runs_per_day for plan in plans] == [2.5e6, 5e6, 1e7, 1e7]
    assert plans[-1].load.peak == 500_000
    assert all(plan.total < 40_000 for plan in plans)
    assert plans[-1].need("charger").processes <= 8


def test_the_manifests_are_the_plan_of_10_million_runs_a_day() -> None:
    inputs, _ = Inputs.load()
    plan = Plan(inputs, loads_of(inputs)[2])
    for need in plan.needs[1:]:
        workload = specs_of(need.name)
        assert workload["replicas"] == need.processes, need.name
        (container,) = workload["template"]["spec"]["containers"]
        asked = container["resources"]["requests"]["memory"]
        assert GIB[asked] == need.memory_gib, need.name
    index = next(line for line in plan.lines if line.name == "deduplication index")
    claim = specs_of("sink")["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"]
    gigabytes = index.dollars / inputs["price.disk_gb"]
    assert plan.need("sink").processes * int(claim.removesuffix("Gi")) * 1.0737 >= gigabytes


@pytest.mark.parametrize("name", ["bytes.facts", "cpu.stage_us", "price.node", "keep.years_days"])
def test_more_of_anything_never_costs_less(name: str) -> None:
    inputs, _ = Inputs.load()
    load = loads_of(inputs)[-1]
    more = Plan(Inputs({**inputs, name: 2 * inputs[name]}), load)
    assert more.total > Plan(inputs, load).total


def test_the_arithmetic_of_a_line_comes_to_its_dollars() -> None:
    """What a line says at its end, multiplied anew: `= 27,844 GB x $0.23`, `9 x $0.408 x 730 h`."""
    inputs, _ = Inputs.load()
    said = re.compile(r"([\d,]+)(?: GB| vCPU| shard\(s\) x 2)? x \$([\d.]+)(?: x (730) h)?$")
    checked = set()
    for plan in (Plan(inputs, load) for load in loads_of(inputs)):
        assert plan.total == pytest.approx(sum(line.dollars for line in plan.lines))
        for line in plan.lines:
            found = said.search(line.arithmetic)
            if found and line.arithmetic.count("$") == 1:
                count, price, hours = found.groups()
                copies = 2 if "shard(s) x 2" in found[0] else 1
                dollars = int(count.replace(",", "")) * copies * float(price) * int(hours or 1)
                assert line.dollars == pytest.approx(dollars, rel=0.01, abs=1), line.arithmetic
                checked.add(line.name)
    assert len(checked) >= 9, checked


def test_one_command_writes_the_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`python -m benchmarks.sizing` after a new figure: every table anew, the words kept."""
    copy = tmp_path / "sizing.md"
    text = re.sub(r"\$[\d,]+", "$0", DOCUMENT.read_text("utf-8"))  # as if the inputs had changed
    copy.write_text(text, "utf-8")
    monkeypatch.setattr(sizing, "DOCUMENT", copy)
    sizing.main()
    assert "| **a month** | **$6" in copy.read_text("utf-8")
    assert render(copy.read_text("utf-8")) == copy.read_text("utf-8")


def test_a_line_by_hand() -> None:
    """1M runs of 10 events: 10M events x 73 B x 90 days = 65.7 GB x $0.023, and the PUTs."""
    inputs, _ = Inputs.load()
    plan = Plan(inputs.but(bytes__archive=73, keep__archive_days=90), steady_load(inputs, 1e6, 10))
    line = next(one for one in plan.lines if one.name == "archive in S3")
    puts = 2 * 24 * 1440 * 365 / 12 * 0.000005
    assert line.dollars == pytest.approx(65.7 * 0.023 + puts)
    assert Load("", 1e6, 10, 0).average == pytest.approx(115.74, abs=0.01)
