"""Real Apache Kafka brokers for tests: KRaft, each node broker and controller in one JVM.

Everything is on loopback and in one folder. The brokers are killed with SIGKILL and started
again on the same port and files, or paused with SIGSTOP, which to everyone else is a network
that swallows packets. Times are short (a dead broker is noticed after 2 s), heaps small.
A killed test run leaves no broker: the kernel ends them with the thread that started them,
so `start` and `restart` belong in the main thread.
"""

from __future__ import annotations

import base64
import random
import signal
import socket
import subprocess
import time
import uuid
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from tallystick.plumbing.embedded.child import spawn
from tests.kafka_jars import BrokersUnavailable, kafka_jars, kafka_version

__all__ = ["Brokers", "BrokersUnavailable", "kafka_version"]

_READY_SECONDS = 90
_JAVA = ("-Xms64m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto")
"""Less of the two cores for compiling; benchmarks pass their own."""

_SETTINGS = """
process.roles=broker,controller
node.id={node}
controller.quorum.voters={voters}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
log.dirs={folder}
auto.create.topics.enable=false
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=200
controller.quorum.election.timeout.ms=500
controller.quorum.fetch.timeout.ms=1000
default.replication.factor={replication}
min.insync.replicas={in_sync_min}
offsets.topic.replication.factor={replication}
offsets.topic.num.partitions=4
transaction.state.log.replication.factor={replication}
transaction.state.log.min.isr={in_sync_min}
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor={replication}
share.coordinator.state.topic.min.isr={in_sync_min}
group.initial.rebalance.delay.ms=200
group.min.session.timeout.ms=1000
replica.lag.time.max.ms=5000
log.cleaner.dedupe.buffer.size=4194304
log.retention.check.interval.ms=1000
num.io.threads=4
num.network.threads=2
"""


class Brokers:
    """`count` brokers; index 0 is node 1. A topic of 3 replicas outlives any one of three."""

    def __init__(
        self,
        count: int,
        folder: Path,
        *,
        heap_megabytes: int = 384,
        java_options: tuple[str, ...] = _JAVA,
    ) -> None:
        """Raise BrokersUnavailable without Java or jars."""
        self.count = count
        self.folder = folder
        self._java = ["java", f"-Xmx{heap_megabytes}m", *java_options, "-cp", f"{kafka_jars()}/*"]
        self._java += ["-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"]
        ports = _free_ports(2 * count)
        self._ports, self._controller_ports = ports[:count], ports[count:]
        self._running: list[subprocess.Popen[bytes] | None] = [None] * count
        self._admin: AdminClient | None = None

    @property
    def bootstrap(self) -> str:
        """The brokers' addresses, for `bootstrap.servers`."""
        return ",".join(f"127.0.0.1:{port}" for port in self._ports)

    def start(self) -> Brokers:
        """Format the folders, start every broker and wait until they serve."""
        self.folder.mkdir(parents=True, exist_ok=True)
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        formatting = [self._format(index, cluster_id) for index in range(self.count)]
        for index, process in enumerate(formatting):
            assert process.wait(timeout=60) == 0, self.said(index)
        for index in range(self.count):
            self._spawn(index)
        self.wait_until_ready()
        return self

    def stop(self) -> None:
        """SIGKILL all: an orderly stop of a whole quorum waits for itself, for minutes."""
        for index in range(self.count):
            self.kill(index)

    def kill(self, index: int) -> None:
        """SIGKILL one broker (also a paused one)."""
        process = self._running[index]
        if process is not None:
            process.kill()
            process.wait()
            self._running[index] = None

    def restart(self, index: int) -> None:
        """Start a broker again, with its files and port; kill it first if it runs."""
        self.kill(index)
        self._spawn(index)

    def pause(self, index: int) -> None:
        """SIGSTOP: connections stay open and nothing answers."""
        self._process(index).send_signal(signal.SIGSTOP)

    def resume(self, index: int) -> None:
        """SIGCONT."""
        self._process(index).send_signal(signal.SIGCONT)

    def wait_until_ready(self, seconds: float = _READY_SECONDS) -> None:
        """Wait until every running broker serves and is in sync on all its partitions."""
        deadline = time.monotonic() + seconds
        missing = "no answer"
        while time.monotonic() < deadline:
            for index, process in enumerate(self._running):
                assert process is None or process.poll() is None, self.said(index)
            if not (missing := self._missing()):
                return
            time.sleep(0.1)
        raise AssertionError(f"the brokers are not ready: {missing}")

    def said(self, index: int) -> str:
        """The end of what a broker wrote to its log."""
        return self._log(index).read_text("utf-8", "replace")[-4000:]

    def _missing(self) -> str:
        running = {index + 1 for index, process in enumerate(self._running) if process}
        if self._admin is None:
            self._admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
        try:
            found = self._admin.list_topics(timeout=5)
        except KafkaException as error:
            return str(error)
        if running != set(found.brokers):
            return f"brokers {sorted(found.brokers)} of {sorted(running)}"
        for topic in found.topics.values():
            for partition in topic.partitions.values():
                if not set(partition.replicas) & running <= set(partition.isrs):
                    return f"{topic} {partition.id}: in sync {partition.isrs}"
                if partition.leader not in running:
                    return f"{topic} {partition.id} has no leader"
        return ""

    def _process(self, index: int) -> subprocess.Popen[bytes]:
        process = self._running[index]
        assert process is not None, f"broker {index} is not running"
        return process

    def _format(self, index: int, cluster_id: str) -> subprocess.Popen[bytes]:
        voters = zip(range(1, self.count + 1), self._controller_ports, strict=True)
        replication = min(3, self.count)
        text = _SETTINGS.format(
            node=index + 1,
            voters=",".join(f"{node}@127.0.0.1:{port}" for node, port in voters),
            port=self._ports[index],
            controller_port=self._controller_ports[index],
            folder=self.folder / f"broker-{index}",
            replication=replication,
            in_sync_min=2 if replication == 3 else 1,
        )
        self._settings(index).write_text(text)
        return self._java_child(
            index,
            ["kafka.tools.StorageTool", "format", f"--cluster-id={cluster_id}"]
            + ["-c", str(self._settings(index))],
        )

    def _spawn(self, index: int) -> None:
        self._running[index] = self._java_child(index, ["kafka.Kafka", str(self._settings(index))])

    def _java_child(self, index: int, command: list[str]) -> subprocess.Popen[bytes]:
        with self._log(index).open("ab") as log:
            return spawn(
                [*self._java, *command],
                on_parent_death=signal.SIGKILL,
                stdout=log.fileno(),
                stderr=log.fileno(),
            )

    def _settings(self, index: int) -> Path:
        return self.folder / f"broker-{index}.properties"

    def _log(self, index: int) -> Path:
        return self.folder / f"broker-{index}.log"


def _free_ports(count: int) -> list[int]:
    """Ports below those that the kernel gives to clients, which could take one in an outage."""
    found: dict[int, socket.socket] = {}
    while len(found) < count:
        port = random.randrange(18_000, 32_000)
        listener = socket.socket()
        try:
            listener.bind(("127.0.0.1", port))
            found[port] = listener
        except OSError:
            listener.close()
    for listener in found.values():
        listener.close()
    return list(found)
