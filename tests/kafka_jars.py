"""The jars of Apache Kafka, fetched once by Maven into a cache of the user.

The folder appears by an atomic rename, so a run that is killed half way leaves nothing that
looks complete; a lock file makes runs at the same time wait for the one that fetches.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

POM = Path(__file__).parent / "kafka" / "pom.xml"
_COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
_FETCH_SECONDS_MAX = 600


class BrokersUnavailable(Exception):
    """No real broker can be started on this machine; the message says what is missing."""


def kafka_version() -> str:
    """The version that the pom asks for."""
    found = re.search(r"<kafka\.version>(.+?)</kafka\.version>", POM.read_text("utf-8"))
    assert found, "the pom names a version"
    return found[1]


def kafka_jars() -> Path:
    """The folder of the broker's jars; BrokersUnavailable without Java, Maven or network."""
    if shutil.which("java") is None:
        raise BrokersUnavailable("java (17 or newer) is not on the PATH")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tallystick"
    cache.mkdir(parents=True, exist_ok=True)
    jars = cache / f"kafka-{kafka_version()}"
    with (cache / f"{jars.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not jars.is_dir():
            _fetch(jars)
    return jars


def _fetch(jars: Path) -> None:
    if shutil.which("mvn") is None:
        raise BrokersUnavailable("mvn is not on the PATH, and the Kafka jars are not cached yet")
    with tempfile.TemporaryDirectory(dir=jars.parent, prefix=f"{jars.name}.") as name:
        fresh = Path(name) / "jars"
        command = ["mvn", "-B", "-q", "-f", str(POM), _COPY, f"-DoutputDirectory={fresh}"]
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=_FETCH_SECONDS_MAX
        )
        if done.returncode or not fresh.is_dir():
            raise BrokersUnavailable(f"mvn could not fetch the Kafka jars: {done.stdout[-2000:]}")
        fresh.rename(jars)
