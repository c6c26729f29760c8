"""SIGKILL of clients, of the server and of PostgreSQL, in the middle of ledger traffic.

Four client processes hold, capture, release and charge on three accounts. Whoever is killed
is started again; a client sends the same requests with the same keys. In the end every
request has one outcome, the money is the sum of the outcomes, and nothing is left over.
(Jepsen's workloads: `idempotence` is the second run, `indefinite` are the requests whose
answer was lost with a killed process.)

TALLYSTICK_KILL_ROUNDS sets how many times something is killed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

from tallystick.plumbing.embedded.child import spawn
from tests.ledger_client import ACCOUNTS, run
from tests.server import Server

ROUNDS = int(os.environ.get("TALLYSTICK_KILL_ROUNDS", "6"))
CLIENTS = 4
STEPS = 60
GRANT = 200


def start_client(folder: Path, number: int) -> subprocess.Popen[bytes]:
    return spawn(
        [sys.executable, "-m", "tests.ledger_client", str(folder), str(number), str(STEPS)],
        on_parent_death=signal.SIGKILL,
        stdout=subprocess.PIPE,
    )


def postgres_of(server: Server) -> int:
    found = [one.pid for one in server.tree() if "-k" in one.cmdline()]
    return min(found)


def test_kill_anything_at_any_time(data_folder: Path) -> None:
    random = Random(7)
    server = Server(data_folder).start()
    for number in range(ACCOUNTS):
        account = f"kill-{number}"
        server.client.put(f"/v1/accounts/{account}", json={"tenant_id": "kill"})
        grant = {"account_id": account, "amount": str(GRANT), "idempotency_key": "g"}
        server.client.post("/v1/grants", json=grant).raise_for_status()
    clients = [start_client(data_folder, number) for number in range(CLIENTS)]
    try:
        kill_things(random, server, clients)
        for client in clients:
            assert client.wait(timeout=180) == 0
        told = [json.loads(client.stdout.read()) for client in clients if client.stdout]
    finally:
        for client in clients:
            client.kill()
            client.communicate()
    server.wait_until_ready()
    with ThreadPoolExecutor(CLIENTS) as pool:
        first = list(pool.map(lambda n: run(server.folder, n, STEPS), range(CLIENTS)))
    assert told == first, "INV-04: the same keys, the same outcomes, whatever died between"
    check_money(server, [outcome for outcomes in first for outcome in outcomes])
    server.stop()


def kill_things(random: Random, server: Server, clients: list[subprocess.Popen[bytes]]) -> None:
    killed = {"client": 0, "postgres": 0, "server": 0}
    for round_number in range(ROUNDS):
        time.sleep(random.uniform(0.2, 0.8))
        victim = ("client", "postgres", "server")[round_number % 3]
        killed[victim] += 1
        if victim == "client":
            number = random.randrange(CLIENTS)
            clients[number].kill()
            clients[number].communicate()
            clients[number] = start_client(server.folder, number)
        elif victim == "postgres":
            os.kill(postgres_of(server), signal.SIGKILL)
        else:
            server.kill()
            server.start()
    assert all(killed.values()) or ROUNDS < 3


def check_money(server: Server, outcomes: list[list[object]]) -> None:
    left_open = {str(one[5]) for one in outcomes if one[1] == "hold" and one[4] == 201}
    for number in range(ACCOUNTS):
        account = f"kill-{number}"
        balance = server.get(f"/v1/accounts/{account}/balance")
        captured = sum(
            int(str(one[3])) for one in outcomes if one[2] == account and str(one[4])[0] == "2"
        )
        assert float(balance["captured"]) == captured, "no charge is lost or made twice"
        total = sum(float(balance[name]) for name in ("available", "held", "captured"))
        assert total == GRANT
    for hold_id in left_open:
        hold = server.get(f"/v1/holds/{hold_id}")
        assert hold["status"] == "held"
        assert hold["expires_at"], "no hold without a deadline"
    found = server.get("/v1/verification", ledger="true")
    assert found["holds"], found["violations"]
    reconciled = server.client.post("/v1/reconciliations/ledger", json={}).json()
    assert reconciled["agrees"], reconciled
